"""Training without evaluation on a machine that is there for minutes: the order, the stop in time, what is left."""

import math
import os
import pickle
import signal
import subprocess
import sys
import time
import types

import psutil
import pytest
import torch

from studylib import cli, grids, study, train_only
from studylib.config import resolve
from studylib.errors import RunError
from studylib.pool import Job
from studylib.training import Run, checkpoint

pytestmark = pytest.mark.slow

ONE = {"optimisation.epochs": 1, "optimisation.warmup_epochs": 0}
LONG = {"optimisation.epochs": 500, "monitor.every": 0}  # minutes: it does not end while a test watches it


def job(method, seed=0, **overrides):
    return Job(scale="smoke", variant=method, config=resolve("smoke", method, seed, overrides), evaluations=())


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_runs_of_a_seed_come_before_those_of_the_next_and_what_was_begun_first_among_them():
    jobs = [*grids.comparison("smoke", 2), *grids.methods("smoke", 2)]
    found = train_only.in_order(jobs)
    rows = [(one.config.seed, one.variant) for one in found]
    assert rows[:4] == [(0, "sl"), (0, "sl_mlp"), (0, "look"), (0, "trex")]
    assert [seed for seed, _ in rows] == [0] * 12 + [1] * 12
    assert rows[12:15] == [(1, "sl"), (1, "sl_mlp"), (1, "look")]
    assert len(set(found)) == len(found) and not any(one.evaluations for one in found)
    for begun in (found[3], found[13]):
        Run(begun.config).folder.mkdir(parents=True)
        Run(begun.config).checkpoint.touch()
    rows = [(one.config.seed, one.variant) for one in train_only.in_order(jobs)]
    assert rows[:4] == [(0, "trex"), (0, "sl"), (0, "sl_mlp"), (0, "look")]
    assert rows[12:15] == [(1, "sl_mlp"), (1, "sl"), (1, "look")]


def test_stopped_in_time_and_called_again_it_ends_as_if_never_stopped(runs, monkeypatch, capfd):
    command = "grid comparison --scale smoke --seeds 1 --workers 1 -p optimisation.epochs=4 --train-only"
    every = train_only.in_order(grids.comparison("smoke", 1, {"optimisation.epochs": "4"}))
    first, second = (Run(one.config) for one in every)

    def clock():
        return math.inf if first.metrics() else time.monotonic()

    monkeypatch.setattr(train_only, "time", types.SimpleNamespace(monotonic=clock, time=time.time))
    assert cli.main([*command.split(), "--minutes", "1000"]) == 75
    assert first.done or len(checkpoint.load(first.checkpoint)["metrics"]) == len(first.metrics()) > 0
    assert not second.folder.exists()
    said = capfd.readouterr().out.splitlines()
    assert said[-1] == f"go on: studylib {command.replace('-p', '--minutes 1000.0 -p')}"
    assert "minutes in all, 1 at a time" in said[-2] and said[-3].split()[-1] == second.name

    monkeypatch.setattr(train_only, "time", time)
    assert cli.main(command.split()) == 0
    assert first.done and second.done
    said = capfd.readouterr().out
    assert said.endswith("all 2 runs are trained\n") and "top-1" not in said
    assert cli.main(command.split()) == 0
    assert capfd.readouterr().out == "all 2 runs are trained\n"

    monkeypatch.setenv("STUDYLIB_RUNS", str(runs / "uninterrupted"))
    (runs / "uninterrupted").mkdir()
    (runs / "uninterrupted" / "cache").symlink_to(runs / "cache")
    assert train_only.train(every, workers=2)
    for one in every:
        stopped, whole = (folder / one.config.name for folder in (runs, runs / "uninterrupted"))
        assert (stopped / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
        found, expected = (checkpoint.load(run / "snapshots" / "epoch-0004.pt")["weights"] for run in (stopped, whole))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_time_that_is_over_begins_nothing(runs, capfd):
    assert not train_only.train([job("sl")], deadline=time.monotonic() - 1, again="studylib grid x")
    said = capfd.readouterr().out.splitlines()
    assert said[0] == "0 of 1 runs are trained; left:" and said[-1] == "go on: studylib grid x"
    assert not Run(job("sl").config).folder.exists()


def test_a_run_that_fails_is_named_when_all_others_are_trained(runs, capfd):
    bad = job("sl", 5, **{"optimisation.lr": 1e9, "optimisation.warmup_epochs": 0})
    good = job("sl", 6, **ONE)
    with pytest.raises(RunError, match=rf"1 of 2 runs failed; {bad.config.name} \(exit code 1\): error: diverged"):
        train_only.train([bad, good], workers=1)
    assert Run(good.config).done
    said = capfd.readouterr().out
    assert "1 of 2 runs are trained; left:" in said and "failed: error: diverged" in said


STUDY = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what is in the background with it ignored
from studylib import train_only
from studylib.config import resolve
from studylib.pool import Job
jobs = [Job(scale="smoke", variant="sl", config=resolve("smoke", "sl", seed, {long}), evaluations=()) for seed in (0, 1)]
raise SystemExit(0 if train_only.train(jobs, workers=2) else 75)
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75), (signal.SIGINT, -2)])
def test_workers_save_and_stop_when_their_study_does(runs, tmp_path, sent, code):
    command = [sys.executable, "-c", STUDY.format(long=LONG)]
    found = [Run(job("sl", seed, **LONG).config) for seed in (0, 1)]
    with (tmp_path / "said").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not all(run.metrics() for run in found):
        assert process.poll() is None
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    process.send_signal(sent)
    assert process.wait() == code
    while not all(ended(worker) for worker in workers):
        time.sleep(0.02)
    for run in found:
        assert "call again to go on" in (run.folder / "log.txt").read_text().splitlines()[-1]
        state = checkpoint.load(run.checkpoint)
        assert len(state["metrics"]) == len(run.metrics()) >= 1 and not run.done
    if sent != signal.SIGKILL:
        assert "0 of 2 runs are trained; left:" in (tmp_path / "said").read_text()


def test_a_worker_whose_study_was_gone_before_it_began_stops(runs):
    run = Run(job("sl", **LONG).config)
    run.folder.mkdir()
    task = run.folder / "job.pickle"
    task.write_bytes(pickle.dumps(job("sl", **LONG)))
    command = [sys.executable, "-m", "studylib.worker", str(os.getppid())]  # not the parent
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process.stdin.write(f"{task}\n".encode())
    process.stdin.close()
    assert process.wait() in (-signal.SIGTERM, 75)
    assert not run.done


def test_what_only_evaluation_needs_is_not_imported(runs):
    code = """
import sys
for name in ("papermill", "nbclient", "faiss", "optuna", "pycocotools", "pandas"):
    sys.modules[name] = None  # importing it fails
from studylib import cli
assert cli.main("grid comparison --scale smoke --train-only --seeds 1".split()) == 0
from studylib import pool, worker
from studylib.config import resolve
job = pool.Job(scale="smoke", variant="trex", config=resolve("smoke", "trex", 3), evaluations=())
assert worker.work(pool.prepare(job)[0]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "all 2 runs are trained" in done.stdout


def test_grids_that_are_evaluated_are_computed_in_one_study(runs, monkeypatch, capfd):
    asked = []
    compute = study.run
    monkeypatch.setattr(study, "run", lambda jobs, workers: asked.append(len(jobs)) or compute(jobs, workers))
    command = "grid look_starts trex_depth --scale smoke -p optimisation.epochs=1 -p optimisation.warmup_epochs=0"
    assert cli.main(command.split()) == 0
    said = capfd.readouterr().out
    assert asked == [4]
    for name, row in (("look_starts", "falling"), ("trex_depth", "depth 3")):
        assert (runs / "grids" / "smoke" / f"{name}.csv").exists()
        assert f"{name}.csv" in said and f"\n{row:>7} " in said
