"""From a grid to the results table: what is run, what is found again, what is refused."""

import dataclasses
import hashlib
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
import types

import numpy
import pytest
import torch

from studylib import cost, grids, paths, pool, study
from studylib.config import resolve, scale
from studylib.data import load
from studylib.errors import InputError, RunError
from studylib.evaluation import evaluate, features
from studylib.evaluation.evaluate import Evaluation
from studylib.evaluation.probe import PROTOCOLS
from studylib.external import External
from studylib.measures import class_centres, discriminative_ratio, mixtureness, redundancy
from studylib.methods import METHODS
from studylib.study import Job
from studylib.training import Run, train
from studylib.training.export import export_encoder
from studylib.transfer import Knn, LinearProbe, knn_accuracy, linear_probe

pytestmark = pytest.mark.slow

UNSEEN = "glyphs_georgian/few"
ONE = {"optimisation.epochs": 1, "optimisation.warmup_epochs": 0}


@pytest.fixture(scope="module")
def shared(tmp_path_factory, glyph_cache):
    """A runs folder with one finished run of each method."""
    folder = tmp_path_factory.mktemp("study") / "runs"
    folder.mkdir()
    (folder / "cache").mkdir()
    (folder / "cache" / "data").symlink_to(glyph_cache / "data")
    (glyph_cache / "data").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYLIB_RUNS", str(folder))
        for method in ("sl", "sl_mlp"):
            train(resolve("smoke", method), say=str)
    return folder


@pytest.fixture
def runs(shared, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(shared))
    return {method: Run(resolve("smoke", method)) for method in ("sl", "sl_mlp")}


def job(run, *evaluations, variant="sl"):
    return Job(scale="smoke", variant=variant, config=run.config, evaluations=evaluations)


@torch.no_grad()
def test_features_are_those_of_the_model_image_by_image(runs):
    images = load(UNSEEN)
    found = features.extract(runs["sl_mlp"], images)
    assert set(found.layers) == {"stage1", "stage2", "stage3", "stage4", "stage5", "projector1", "projector"}
    snapshot = torch.load(runs["sl_mlp"].snapshot(), weights_only=True)
    model = METHODS["sl_mlp"](runs["sl_mlp"].config, snapshot["classes"], torch.zeros(3), torch.ones(3))
    model.load_state_dict(snapshot["weights"])
    model.eval()
    for row in (0, 5, len(images.labels) - 1):
        layers = model.layers(images.images[row : row + 1].float() / 255)
        for name, values in layers.items():
            torch.testing.assert_close(found.layers[name][row], values[0], rtol=1e-4, atol=1e-5)
    test, labels = found.part("stage5", "test")
    assert torch.equal(labels, images.test.labels)
    assert torch.equal(test, found.layers["stage5"][images.split == 1])


def test_features_come_from_the_cache_the_second_time(runs, monkeypatch):
    images = load(UNSEEN)
    first = features.extract(runs["sl"], images)
    monkeypatch.setattr(features, "_compute", None)
    second = features.extract(runs["sl"], images)
    assert all(torch.equal(first.layers[name], second.layers[name]) for name in first.layers)


def test_only_the_layers_asked_for_are_extracted_and_kept(runs, monkeypatch):
    images = load("digits")
    found = features.extract(runs["sl_mlp"], images, layers=("stage3", "projector1", "projector9"))
    assert list(found.layers) == ["stage3", "projector1"]
    assert found.last == "projector"
    kept = [file.name for file in (paths.cache() / "features").glob(f"{runs['sl_mlp'].name}-*digits*")]
    assert len(kept) == 2
    asked, compute = [], features._compute
    monkeypatch.setattr(features, "_compute", lambda *given: asked.append(list(given[3])) or compute(*given))
    more = features.extract(runs["sl_mlp"], images, layers=("stage3", "stage4"))
    assert asked == [["stage4"]]
    assert torch.equal(more.layers["stage3"], found.layers["stage3"])


def test_a_missing_snapshot_is_refused(runs):
    with pytest.raises(InputError, match=r"epoch=17: sl-\w+ kept no such weights"):
        features.extract(runs["sl"], load(UNSEEN), epoch=17)


def test_rows_are_what_the_measures_and_probes_give(runs):
    evaluation = Evaluation(dataset=UNSEEN, layers=("stage3", "projector9"))
    rows = evaluate.evaluate(runs["sl"], evaluation)
    assert {row["layer"] for row in rows} == {"stage3"}  # a layer that the run lacks is left out
    seen, upstream = (features.extract(runs["sl"], load(name)) for name in (UNSEEN, "glyphs/few"))
    table = {(row["split"], row["measure"], row["protocol"]): row["value"] for row in rows}
    assert len(table) == len(rows)
    for split in ("train", "test"):
        values, labels = seen.part("stage3", split)
        for squared in (True, False):
            name = "squared" if squared else "not squared"
            expected = discriminative_ratio(values, labels, squared=squared, normalise=True)
            assert table[split, "phi", f"{name}, l2-normalised"] == expected.phi
            assert table[split, "intra", f"{name}, l2-normalised"] == expected.intra
        assert table[split, "redundancy", "with the diagonal"] == redundancy(values)
        centres = class_centres(*upstream.part("stage3", split)), class_centres(values, labels)
        assert table[split, "mixtureness", "k=5"] == mixtureness(*centres, k=5)
        assert (split, "mixtureness", "k=10") not in table  # only seven other centres
    parts = (*seen.part("stage3", "train"), *seen.part("stage3", "test"))
    assert table["test", "knn_top1", Knn().describe()] == knn_accuracy(*parts, 4, Knn()).top1
    assert table["test", "linear_top1", LinearProbe().describe()] == linear_probe(*parts, 4, LinearProbe()).top1


def test_mixtureness_is_not_computed_of_a_set_with_itself(runs):
    rows = evaluate.evaluate(runs["sl"], Evaluation(dataset="glyphs/few", protocols=()))
    assert "mixtureness" not in {row["measure"] for row in rows}
    assert "linear_top1" not in {row["measure"] for row in rows}


def test_an_evaluation_is_known_by_all_that_it_holds(runs):
    one = Evaluation(dataset="digits", layers=("stage2", "stage5"), epoch=3, protocols=(Knn(k=7), LinearProbe(values=3)))
    assert pickle.loads(pickle.dumps(one)) == one
    other = dataclasses.replace(one, protocols=(Knn(k=7), LinearProbe(values=4)))
    kept = evaluate.cached(runs["sl"], one)
    assert len(set(kept)) == 2 * 3  # layers times measures and protocols
    assert evaluate.cached(runs["sl"], dataclasses.replace(one)) == kept
    assert len(set(kept) & set(evaluate.cached(runs["sl"], other))) == 4  # all but the linear probe's
    assert not set(kept) & set(evaluate.cached(runs["sl"], dataclasses.replace(one, epoch=None)))
    with pytest.raises(InputError, match="measures='al': unknown; did you mean 'all'"):
        Evaluation(dataset="digits", measures="al")


def test_results_on_other_images_of_the_same_name_are_not_found(runs, tmp_path, monkeypatch):
    evaluation = Evaluation(dataset="tiny", measures="none", protocols=(Knn(k=1),))
    kept = []
    for folder in ("one", "two"):
        labels = numpy.arange(40) % 2
        images = (labels[:, None, None, None] * 200 + numpy.zeros((1, 8, 8, 3))).astype(numpy.uint8)
        images[labels == 1, 0, 0] = len(folder) + (folder == "two")
        (tmp_path / folder).mkdir()
        numpy.savez(tmp_path / folder / "tiny.npz", images=images, labels=labels, split=numpy.arange(40) // 20)
        digest = hashlib.sha256((tmp_path / folder / "tiny.npz").read_bytes()).hexdigest()
        (tmp_path / folder / "tiny.json").write_text(json.dumps({"classes": ["a", "b"], "sha256_npz": digest}))
        monkeypatch.setenv("STUDYLIB_DATA", str(tmp_path / folder))
        assert evaluate.evaluate(runs["sl"], evaluation)[0]["dataset"] == "tiny"
        kept += evaluate.cached(runs["sl"], evaluation)
    assert len(set(kept)) == 2


def test_what_was_computed_before_a_kill_is_not_computed_again(runs, monkeypatch):
    evaluation = Evaluation(dataset=UNSEEN, measures="none", protocols=(Knn(k=3), LinearProbe(values=2)))

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setitem(PROTOCOLS, "linear", PROTOCOLS["linear"]._replace(carry_out=killed))
        with pytest.raises(Killed):
            evaluate.evaluate(runs["sl"], evaluation)
    monkeypatch.setitem(PROTOCOLS, "knn", PROTOCOLS["knn"]._replace(carry_out=killed))
    measures = {row["measure"] for row in evaluate.evaluate(runs["sl"], evaluation)}
    assert {"knn_top1", "linear_top1"} <= measures


def test_a_run_of_other_images_is_refused(runs, tmp_path, monkeypatch):
    record = runs["sl"].folder / "record.json"
    kept = record.read_text()
    record.write_text(json.dumps([json.loads(kept)[0] | {"data_sha256": "0" * 64}]))
    try:
        with pytest.raises(InputError, match="is not what .* was begun on"):
            evaluate.evaluate(runs["sl"], Evaluation(dataset="digits"))
    finally:
        record.write_text(kept)


def test_study_runs_what_is_missing_once_and_tells_it_all(runs, monkeypatch, capfd):
    jobs = [
        job(runs["sl"], Evaluation(dataset=UNSEEN)),
        job(runs["sl_mlp"], Evaluation(dataset=UNSEEN, protocols=()), variant="sl_mlp"),
        job(Run(resolve("smoke", "sl", 1)), Evaluation(dataset=UNSEEN, measures="none")),
    ]
    table = study.run(jobs, workers=2, show="lines")
    said = capfd.readouterr().out
    assert said.count(" epoch ") == 2  # only seed 1 had to be trained
    assert said.count(" evaluated") == 3
    assert list(table.columns) == study.COLUMNS
    assert set(table[table.measure == "linear_top1"].seed) == {0, 1}
    assert set(table.variant) == {"sl", "sl_mlp"}
    assert (table[table.measure == "seconds"].value > 0).all()
    assert not table.isna().any().any()
    monkeypatch.setattr(pool, "start", None)
    again = study.run(jobs)
    assert again.equals(table)


def test_jobs_that_share_a_run_are_run_once(runs):
    one, two = Evaluation(dataset="digits"), Evaluation(dataset=UNSEEN)
    found = study.merged([job(runs["sl"], one), job(runs["sl"], one, two), job(runs["sl_mlp"], two)])
    assert [(j.config.method, j.evaluations) for j in found] == [("sl", (one, two)), ("sl_mlp", (two,))]


def test_data_that_cannot_be_read_is_refused_before_anything_runs(runs, monkeypatch):
    monkeypatch.setattr(pool, "start", None)
    with pytest.raises(InputError, match="data='cifar10'"):
        study.run([job(runs["sl"], Evaluation(dataset="cifar10"))])


def test_a_run_that_fails_is_named_and_the_others_are_finished(runs):
    bad = Run(resolve("smoke", "sl", 5, {"optimisation.lr": 1e9, "optimisation.warmup_epochs": 0}))
    good = Run(resolve("smoke", "sl", 6, ONE))
    with pytest.raises(RunError, match=rf"1 of 2 runs failed; {bad.config.name} \(exit code 1\): error: diverged"):
        study.run([job(bad), job(good)], workers=1, show="lines")
    assert good.done
    assert not bad.done


def test_a_worker_that_is_killed_fails_its_job_alone(runs, monkeypatch):
    first, second = (Run(resolve("smoke", "sl", seed, ONE)) for seed in (7, 8))
    started = []
    launch = pool.start

    def start(slot, log):
        started.append(launch(slot, log))
        if len(started) == 1:
            started[0].kill()
        return started[-1]

    monkeypatch.setattr(pool, "start", start)
    with pytest.raises(RunError, match=rf"1 of 2 runs failed; {first.config.name} \(exit code -9\)"):
        study.run([job(first), job(second)], workers=1, show="lines")
    assert second.done and len(started) == 2


def test_a_worker_that_cannot_start_says_why(runs, monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    (broken / "studylib").mkdir(parents=True)
    (broken / "studylib" / "__init__.py").write_text("raise ImportError('no such library here')\n")
    monkeypatch.setattr(pool.paths, "REPOSITORY", broken)
    monkeypatch.chdir(broken)
    with pytest.raises(RunError, match=r"exit code 1\): ImportError: no such library here"):
        study.run([job(Run(resolve("smoke", "sl", 13, ONE)))], workers=1, show="lines")


@pytest.mark.parametrize(
    ("given", "expected"), [(None, ["0", "1", "0"]), ("", ["0", "1", "0"]), ("2,3", ["2", "3", "2"]), ("GPU-a", ["GPU-a"] * 3)]
)
def test_workers_keep_to_the_gpus_that_they_were_given(monkeypatch, tmp_path, given, expected):
    """As by a scheduler that shares a node; a stand-in for the process, as there is no GPU here."""
    found = []

    def process(command, env, **kind):
        found.append(env["CUDA_VISIBLE_DEVICES"])
        return types.SimpleNamespace(stdout=(tmp_path / "log").open())

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(subprocess, "Popen", process)
    monkeypatch.setattr(os, "set_blocking", lambda *_: None)
    (tmp_path / "log").touch()
    for slot in range(3):
        pool.start(slot, tmp_path / "log").stdout.close()
    assert found == expected


def test_one_worker_carries_out_several_jobs_wherever_it_is_started(runs, monkeypatch, tmp_path):
    (tmp_path / "yaml.py").write_text("raise ImportError('of the working directory')\n")
    monkeypatch.chdir(tmp_path)
    started = []
    launch = pool.start
    monkeypatch.setattr(pool, "start", lambda slot, log: started.append(slot) or launch(slot, log))
    several = [Run(resolve("smoke", "sl", seed, ONE)) for seed in (10, 11, 12)]
    study.run([job(run) for run in several], workers=1, show="lines")
    assert all(run.done for run in several) and started == [0]


def test_sigterm_stops_the_workers_and_leaves_with_75(runs):
    code = (
        "from studylib import study; from studylib.config import resolve\n"
        "config = resolve('smoke', 'sl', 9, {'optimisation.epochs': 500, 'monitor.every': 0})\n"
        "study.run([study.Job(scale='smoke', variant='sl', config=config, evaluations=())], show='lines')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    run = Run(resolve("smoke", "sl", 9, {"optimisation.epochs": 500, "monitor.every": 0}))
    while not run.metrics():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert run.checkpoint.exists()
    assert "call again to go on" in (run.folder / "log.txt").read_text()


@pytest.mark.parametrize("name", ["smoke", "quick", "small_cpu", "small"])
def test_grids_pair_methods_over_seeds_and_share_runs(name):
    content = scale(name)
    first, whole, parts = grids.quickstart(name, 3), grids.comparison(name, 3), grids.components(name, 1)
    assert [job.config for job in first] == [job.config for job in whole]
    assert len(first) == 2 * 3
    assert len(grids.quickstart(name)) == 2 * content.seeds.get("comparison", 0)
    for job_ in whole:
        final = [e for e in job_.evaluations if e.epoch is None]
        kinds = [(e.dataset, kind) for e in final for kind in ("measures", "protocols") if getattr(e, kind) not in ("none", ())]
        assert len(kinds) == len(set(kinds)) == 2 * len({e.dataset for e in final})  # each, and no value twice in the table
        assert {e.dataset for e in final} == {
            content.upstream,
            *content.unseen,
            *content.domains,
            *content.stagewise,
        }
    assert [job.variant for job in parts] == ["none", "bn", "bn+relu", "linear", "linear+relu", "linear+bn", "linear+bn+relu"]
    assert parts[0].config == first[0].config  # nothing: SL
    assert parts[-1].config == next(job for job in first if job.variant == "sl_mlp").config  # everything: SL-MLP
    assert len({job.config.id for job in parts}) == 7


def test_plan_counts_what_is_missing(runs):
    plan = cost.plan(grids.planned("smoke"))
    assert len(plan) == len({j.config.id for make in grids.GRIDS.values() for j in make("smoke")})
    states = plan.set_index("run").state
    assert states[runs["sl"].config.name] in ("trained", "done")
    left = plan[plan.state == "missing"]
    assert (left[left.variant != "strong"].images == 2 * 6 * 64).all()
    assert (left.minutes >= 0).all()
    assert all(math.isfinite(value) for value in plan.minutes)
    with pytest.raises(InputError, match="did you mean 'quick'"):
        grids.planned("quik")


def test_an_encoder_from_a_file_stands_in_the_same_table(runs, tmp_path):
    mean, std = export_encoder(runs["sl"].folder, tmp_path / "theirs.pth")
    source = External(tmp_path / "theirs.pth", size=32, mean=tuple(mean), std=tuple(std), stem="conv3s2")
    evaluation = Evaluation(dataset=UNSEEN)
    ours = study.run([job(runs["sl"], evaluation)])
    theirs = study.external([source], [evaluation])
    assert list(theirs.columns) == study.COLUMNS
    assert set(theirs.method) == {"file:theirs"}
    both = [frame[frame.measure == "knn_top1"].value.item() for frame in (ours, theirs)]
    assert both[0] == both[1]
    assert theirs.epoch.isna().all()  # a file has no epochs


def test_a_worker_that_does_not_end_in_time_is_killed():
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(); time.sleep(600)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-u", "-c", stubborn], **pipes)
    process.stdout.readline()  # it ignores the signal from now on
    process.send_signal(signal.SIGTERM)
    pool.leave(process, time.monotonic() + 0.2)
    assert process.returncode == -signal.SIGKILL
