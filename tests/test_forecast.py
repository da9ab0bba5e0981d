"""What is left of runs: epochs, minutes at their rates, and which will be trained in time."""

import math

import pytest

from studylib import forecast
from studylib.config import resolve
from studylib.forecast import Left
from studylib.pool import Job
from studylib.training import Run

IMAGES = {"glyphs/few": 1000}  # with the batch of 64: 15 steps of an epoch, 960 images


def job(method, seed=0, epochs=10, **overrides):
    config = resolve("smoke", method, seed, {"optimisation.epochs": epochs, **overrides})
    return Job(scale="smoke", variant=method, config=config, evaluations=())


def test_runs_end_one_after_the_other_on_the_next_free_worker():
    assert forecast.ends([3, 1, 1, 5], 1) == [3, 4, 5, 10]
    assert forecast.ends([3, 1, 1, 5], 2) == [3, 1, 2, 7]
    assert forecast.ends([3, 1], 5) == [3, 1]
    assert forecast.ends([], 2) == []


def test_what_is_left_is_told_by_the_pace_of_a_run_of_its_kind_or_of_others():
    begun, same, other, trained = job("sl"), job("sl", 1), job("sl_mlp"), job("look")
    Run(begun.config).write_pace(3, 6, 15, 96.0)
    Run(trained.config).write_pace(10, 15, 15, 48.0)
    (Run(trained.config).folder / "DONE").touch()
    Run(trained.config).snapshot().parent.mkdir()
    Run(trained.config).snapshot().touch()
    found = forecast.left([begun, same, other, trained], IMAGES)
    assert [one.job for one in found] == [begun, same, other]
    assert [one.epochs for one in found] == [2.4, 0, 0]
    assert [one.measured for one in found] == [True, True, False]
    assert [one.seconds for one in found] == pytest.approx([76.0, 100.0, 150.0])  # the mean of 10 and 20 s an epoch


def test_epochs_that_were_saved_count_where_no_pace_was_noted():
    one = job("sl")
    run = Run(one.config)
    run.write_rows([{"epoch": 1}, {"epoch": 2}], [{"epoch": 2, "images_per_s": 960.0}])
    assert [(left.epochs, left.seconds) for left in forecast.left([one], IMAGES)] == [(2, 8.0)]
    run.write_pace(2, 1, 15, 480.0)  # of an earlier moment, but of the real loop
    assert [(left.epochs, left.seconds) for left in forecast.left([one], IMAGES)] == [(2, 16.0)]


def test_the_pace_that_was_noted_last_counts_for_its_kind(monkeypatch):
    first, second = job("sl"), job("sl", 1)
    for moment, (one, rate) in enumerate([(second, 100.0), (first, 200.0)]):
        monkeypatch.setattr("time.time", lambda moment=moment: 1000.0 + moment)
        Run(one.config).write_pace(1, 1, 15, rate)
    assert list(forecast.seconds_per_image([first, second]).values()) == [1 / 200]
    assert Run(first.config).pace(1000.5)["images_per_s"] == 200.0
    assert Run(second.config).pace(1000.5) is None and Run(job("look").config).pace() is None


def test_without_any_pace_no_time_is_told():
    found = forecast.left([job("sl"), job("look")], IMAGES)
    assert [(one.epochs, one.seconds, one.measured) for one in found] == [(0, None, False)] * 2
    said = forecast.summary(found, 5, 2, {}).splitlines()
    assert said[0] == "3 of 5 runs are trained; left:"
    assert said[1].startswith("sl seed 0      0.0 of 10 epochs       ? minutes more  sl-") and len(said) == 3


def left_of(seconds, measured=True, **options):
    return Left(job(**options), 2.4, seconds, measured)


def test_forecast_tells_which_runs_will_be_trained_in_time():
    runs = [left_of(60.0, method="sl"), left_of(300.0, method="look"), left_of(120.0, method="sl", seed=1)]
    assert forecast.in_time(runs, 2, 240.0) == (
        "forecast: 2 of 3 runs will be trained in the 4.0 minutes left, 2 at a time; not: look seed 0"
    )
    assert forecast.in_time(runs, 1, 240.0).endswith("left, 1 at a time; not: look seed 0, sl seed 1")
    assert forecast.in_time(runs, 3, 600.0).endswith("3 of 3 runs will be trained in the 10.0 minutes left, 3 at a time")
    runs[1] = left_of(300.0, measured=False, method="look")
    assert forecast.in_time(runs, 2, math.inf) == (
        "forecast: 3 runs take about 5.0 minutes, 2 at a time (for 1 of them, not measured yet, at the mean rate of the others)"
    )


def test_summary_has_a_line_for_each_run_and_the_time_of_all():
    runs = [left_of(90.0, method="sl"), left_of(300.0, measured=False, method="sl_mlp", seed=1)]
    names = [run.job.config.name for run in runs]
    said = forecast.summary(runs, 12, 1, {names[0]: "error: diverged"})
    assert said.splitlines() == [
        "10 of 12 runs are trained; left:",
        f"sl seed 0        2.4 of 10 epochs     1.5 minutes more  {names[0]}  failed: error: diverged",
        f"sl_mlp seed 1    2.4 of 10 epochs       ? minutes more  {names[1]}",
        "about 6.5 minutes in all, 1 at a time (for 1 of them, not measured yet, at the mean rate of the others)",
    ]
    assert forecast.summary([], 12, 2, {}) == "all 12 runs are trained"
