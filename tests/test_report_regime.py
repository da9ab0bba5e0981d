"""The regime: gains over SL by hand, who has been trained enough, and what is left out."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studylib import grids, report
from studylib.pool import Job
from studylib.report.regime import gains
from studylib.study import COLUMNS

pytestmark = pytest.mark.slow

DATA, SETS = ("glyphs@group", "glyphs"), ("glyphs_greek", "digits")
LEARNED = {8: 60.0, 40: 97.0}


def rows(gain=5.0, seeds=(0, 1, 2), methods=("sl", "look"), held_out=95.0) -> pd.DataFrame:
    """``look`` is ``gain`` and a seed's number of points above SL on every set and at every epoch; SL learns as `LEARNED`."""
    found = []
    for data in DATA:
        for method in methods:
            for seed in seeds:
                for epoch, learned in LEARNED.items():
                    base = {"scale": "quick", "method": method, "variant": f"{method} {data}", "run": f"{method}-{data}-{seed}"}
                    base |= {"seed": seed, "epoch": epoch, "layer": "stage5"}
                    value = 50.0 + (gain + seed if method == "look" else 0)
                    found.append(base | {"dataset": data, "split": "train", "measure": "train_linear_top1", "value": learned})
                    found += [
                        base | {"dataset": name, "split": "test", "measure": "linear_top1", "value": value + 3 * place}
                        for place, name in enumerate(SETS)
                    ]
                    of_sl = 100.0 if method == "sl" else held_out
                    found.append(base | {"dataset": data, "split": "test", "measure": "linear_top1", "value": 0.9 * of_sl})
    return pd.DataFrame([row | {"protocol": "p"} for row in found], columns=COLUMNS)


def odds(accuracy):
    return math.log(accuracy / (100 - accuracy))


def test_gains_are_paired_by_seed_epoch_and_labels():
    found = gains(rows(), SETS)
    assert len(found) == len(DATA) * 2 * 3 and set(found.method) == {"look"}
    for row in found.to_dict("records"):
        expected = np.mean([odds(55 + row["seed"] + 3 * i) - odds(50 + 3 * i) for i in range(2)])
        assert row["gain"] == pytest.approx(expected) and row["learned"] == LEARNED[row["epoch"]]


def test_what_lacks_a_set_or_its_partner_is_left_out():
    frame = rows()
    lacking = (frame.method == "look") & (frame.seed == 0) & (frame.dataset == "digits")
    alone = (frame.method == "sl") & (frame.seed == 2)
    assert set(gains(frame[~lacking & ~alone], SETS).seed) == {1}
    assert gains(frame[frame.method != "sl"], SETS).empty and gains(frame[:0], SETS).empty


def test_the_end_is_read_with_an_interval_over_seeds():
    table = report.regime_ends(rows(), data=DATA, transfer=SETS, least=95)
    assert list(table["Labels"]) == ["6 classes of six characters", "36 classes of one"]
    values = [np.mean([odds(55 + seed + 3 * i) - odds(50 + 3 * i) for i in range(2)]) for seed in range(3)]
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
    assert np.mean(values) > half and set(table["Reading"]) == {"better than SL"} and set(table["n"]) == {3}
    assert f"{np.mean(values):.3f}" in table.iloc[0]["Transfer beyond SL (log-odds)"]
    worse = report.regime_ends(rows(gain=-9.0), data=DATA, transfer=SETS, least=95)
    assert set(worse["Reading"]) == {"worse than SL"}
    poor = report.regime_ends(rows(held_out=85.0), data=DATA, transfer=SETS, least=95)
    assert set(poor["Reading"]) == {"not trained enough"}
    assert set(report.regime_ends(rows(seeds=(0,)), data=DATA, transfer=SETS, least=95)["Reading"]) == {"undecided"}


@pytest.mark.parametrize(("held_out", "enough"), [(95.0, "yes"), (85.0, "no")])
def test_a_network_far_below_sl_is_not_trained_enough(held_out, enough):
    table = report.trained_enough(rows(held_out=held_out), 95).set_index(["Labels", "Method"])
    assert table.loc[("36 classes of one", "SL"), "Trained enough"] == "yes"
    assert table.loc[("36 classes of one", "LOOK"), "Trained enough"] == enough
    assert table.loc[("36 classes of one", "LOOK"), "Share of SL's"] == f"{held_out / 100:.2f}"
    poor = rows()
    poor.loc[poor.measure == "train_linear_top1", "value"] = 94.0
    assert set(report.trained_enough(poor, 95)["Trained enough"]) == {"no"}


def test_a_panel_for_each_kind_of_labels_and_a_line_for_each_method():
    figure, table = report.regime(rows(), data=DATA, transfer=SETS, least=95)
    assert [axes.get_title() for axes in figure.axes] == ["6 classes of six characters", "36 classes of one"]
    assert all("training images (%)" in axes.get_xlabel() for axes in figure.axes)
    assert list(table.columns[:6]) == ["data", "method", "epoch", "mean", "half_width", "low"] and set(table["n"]) == {3}
    empty, _ = report.regime(rows()[:0], data=DATA, transfer=SETS, least=95)
    assert [axes.texts[0].get_text() for axes in empty.axes] == ["no results"] * 2


def test_every_row_is_trained_alike_but_for_its_method_and_labels():
    jobs = grids.regime("quick", 1)
    assert [job.variant for job in jobs[:4]] == [f"{method} glyphs@group" for method in grids.OF_THE_REGIME]
    assert len({(job.config.optimisation, job.config.encoder, job.config.monitor) for job in jobs}) == 1
    for job in jobs:
        named = job.variant.partition(" ")[2]
        asked = {(e.dataset, e.epoch) for e in job.evaluations}
        assert job.config.data == named and {(named, epoch) for epoch in (4, 8, 16, 32, None)} <= asked
        assert {("digits", epoch) for epoch in (4, 8, 16, 32, None)} <= asked


def test_runs_beyond_the_plan_are_shown_where_they_are_done_and_never_planned(monkeypatch):
    assert grids.regime("quick") == []  # nothing is here, and no test reads what is published
    every = grids.regime("quick", 3)
    assert len(every) == 3 * len(grids.regime("quick", 1)) == 36
    monkeypatch.setattr(Job, "done", property(lambda job: job.config.method == "look" and job.config.seed == 1))
    shown = grids.regime("quick")
    assert [job.config for job in shown] == [job.config for job in every if job.done] and len(shown) == 3
    assert all(job.beyond for job in shown)
