"""The loop: exact resume, schedule, divergence, the folder of a run."""

import copy
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torchvision

from studylib import training
from studylib.cli import main
from studylib.config import RunConfig, resolve, to_dict
from studylib.data.augment import augment, draw
from studylib.errors import InputError, RunError
from studylib.methods import METHODS, Batch
from studylib.study import Job
from studylib.training import Run, checkpoint, loop, train

pytestmark = pytest.mark.slow


def handed(task: Path, **options) -> subprocess.Popen:
    """A worker process that carries out one job."""
    command = [sys.executable, "-m", "studylib.worker"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, **options)
    process.stdin.write(f"{task}\n".encode())
    process.stdin.close()
    return process


def smoke(method="sl_mlp", seed=0, **overrides):
    return resolve("smoke", method, seed, {name.replace("__", "."): value for name, value in overrides.items()})


def final(config: RunConfig) -> dict:
    return checkpoint.load(Run(config).snapshot())["weights"]


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


class Killed(BaseException):
    """Stands for SIGKILL: not caught by anything."""


STOPS = {"mid-epoch": [3], "epoch end": [8], "twice in one epoch": [10, 11], "thrice": [2, 5, 14]}


@pytest.mark.parametrize(
    ("method", "stops"),
    [pytest.param("sl", stops, id=f"sl, {name}") for name, stops in STOPS.items()]
    + [pytest.param(method, STOPS["thrice"], id=method) for method in METHODS if method != "sl"],
)
def test_resumed_equals_uninterrupted_bit_for_bit(runs, monkeypatch, method, stops):
    config = smoke(method, optimisation__batch=48)  # 8 steps an epoch
    train(config, say=str)
    expected, metrics = final(config), (Run(config).folder / "metrics.jsonl").read_bytes()
    Run(config).folder.rename(runs / "uninterrupted")

    saved = loop.save
    for stop in stops:
        count = iter(range(100))

        def save_then_die(run, step, state, stop=stop, count=count):
            saved(run, step, state)
            steps = len(state["metrics"]) * 8 + state["step"]
            if next(count) >= 0 and steps >= stop:
                raise Killed

        monkeypatch.setattr(loop, "save", save_then_die)
        with pytest.raises(Killed):
            train(config, save_every_s=0, say=str)
    monkeypatch.setattr(loop, "save", saved)
    train(config, save_every_s=1e9, say=str)
    assert_same(final(config), expected)
    assert (Run(config).folder / "metrics.jsonl").read_bytes() == metrics
    assert len(json.loads((Run(config).folder / "record.json").read_text())) == len(stops) + 1


def test_sigkill_at_any_moment_then_again_is_bit_identical(runs):
    config = smoke("sl", optimisation__epochs=8)
    task = runs / "job.pickle"
    task.write_bytes(pickle.dumps(Job(scale="smoke", variant="sl", config=config, evaluations=())))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for wait_for in ("snapshots/epoch-0001.pt", "snapshots/epoch-0004.pt"):
        process = handed(task, env=environment)
        while not (Run(config).folder / wait_for).exists():
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not Run(config).done
    assert handed(task, env=environment).wait() == 0
    weights, metrics = final(config), (Run(config).folder / "metrics.jsonl").read_bytes()
    Run(config).folder.rename(runs / "killed")
    assert handed(task, env=environment).wait() == 0
    assert_same(final(config), weights)
    assert (Run(config).folder / "metrics.jsonl").read_bytes() == metrics


def test_sigterm_saves_and_leaves_with_75(runs):
    config = smoke("sl", optimisation__epochs=200, monitor__every=0)
    task = runs / "job.pickle"
    task.write_bytes(pickle.dumps(Job(scale="smoke", variant="sl", config=config, evaluations=())))
    process = handed(task)
    while not Run(config).metrics():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert "call again to go on" in (runs / "log.txt").read_text().splitlines()[-1]
    state = checkpoint.load(Run(config).checkpoint)
    assert state["epoch"] >= 1
    assert not Run(config).done


def test_a_finished_run_is_not_touched(runs):
    config = smoke("sl")
    folder = train(config, say=str)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert train(config, say=str) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    assert not Run(config).checkpoint.exists()
    assert {file.name for file in (folder / "snapshots").iterdir()} == {"epoch-0000.pt", "epoch-0001.pt", "epoch-0002.pt"}


def test_first_step_and_losses_are_what_the_formula_gives(runs):
    """One epoch of one step against a hand-written SGD step: no momentum yet, weight decay on matrices only."""
    config = smoke("sl_mlp", optimisation__epochs=1, optimisation__batch=300, optimisation__warmup_epochs=0)
    train(config, say=str)
    images = training.loop.load(config.data)
    train_set = images.train
    assert len(train_set.labels) // 300 == 1
    torch.manual_seed(loop.seed_of(0, loop.INITIALISATION, 0))
    method = METHODS["sl_mlp"](config, images.num_classes, *loop.channel_statistics(train_set.images))
    method.train()
    before = copy.deepcopy(dict(method.named_parameters()))
    order = torch.randperm(len(train_set.labels), generator=torch.Generator().manual_seed(loop.seed_of(0, loop.ORDER, 0)))[:300]
    generator = torch.Generator().manual_seed(loop.seed_of(0, loop.AUGMENTATION, 0))
    view = augment(train_set.images[order], config.augmentation, draw(300, generator))
    loss, logs = method.loss(Batch([view], train_set.labels[order], order))
    loss.backward()
    weights = final(config)
    for name, parameter in method.named_parameters():
        decay = config.optimisation.weight_decay if parameter.ndim > 1 else 0.0
        expected = before[name] - 0.2 * 300 / 256 * (parameter.grad + decay * before[name])
        torch.testing.assert_close(weights[name], expected, rtol=1e-4, atol=1e-6)
    row = Run(config).metrics()[0]
    assert row["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert row["train_top1"] == pytest.approx(float(logs["train_top1"]))


@pytest.mark.parametrize(("epochs", "warmup"), [(5, 2), (3, 0), (4, 0.5)])
def test_schedule_warms_up_then_follows_a_cosine(epochs, warmup):
    settings = smoke(optimisation__epochs=epochs, optimisation__warmup_epochs=warmup, optimisation__final_lr=0.001).optimisation
    steps, peak = 7, 0.2 * 64 / 256
    rates = [loop.learning_rate(number, steps, settings) for number in range(epochs * steps)]
    for number, rate in enumerate(rates):
        if number < warmup * steps:
            assert rate == pytest.approx(peak * (number + 1) / math.ceil(warmup * steps))
        else:
            progress = (number - warmup * steps) / (epochs * steps - warmup * steps)
            assert rate == pytest.approx(0.001 + (peak - 0.001) * (1 + math.cos(math.pi * progress)) / 2)
    assert max(rates) == pytest.approx(peak)


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(runs, monkeypatch):
    config = smoke("sl")
    real = METHODS["sl"].loss
    calls = iter(range(1000))

    def loss(self, batch):
        value, logs = real(self, batch)
        return (value * float("nan") if next(calls) >= 8 else value), logs

    monkeypatch.setattr(METHODS["sl"], "loss", loss)
    with pytest.raises(
        RunError, match=r"diverged: mean loss nan in epoch 2 after step 3 .*lower optimisation.lr=0.2"
    ) as caught:
        train(config, save_every_s=0, say=str)
    assert "\n" not in str(caught.value)
    state = checkpoint.load(Run(config).checkpoint)
    assert (state["epoch"], state["step"]) == (1, 2)
    assert all(torch.isfinite(value).all() for value in state["method"].values())
    monkeypatch.setattr(METHODS["sl"], "loss", real)
    assert Run(config).folder == train(config, say=str)


def test_too_large_a_rate_is_seen_as_divergence(runs):
    with pytest.raises(RunError, match="lower optimisation.lr"):
        train(smoke("sl", optimisation__lr=1e9, optimisation__warmup_epochs=0), say=str)


def test_batch_larger_than_the_data_is_refused(runs):
    with pytest.raises(InputError, match="optimisation.batch=100000: glyphs/few has only"):
        train(smoke("sl", optimisation__batch=100000), say=str)


def test_a_folder_with_other_settings_is_refused(runs):
    config = smoke("sl")
    folder = runs / config.name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_dict(smoke("sl", optimisation__lr=0.3))))
    with pytest.raises(InputError, match="holds other settings"):
        train(config, say=str)


def test_unwritable_runs_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "file"))
    with pytest.raises(InputError, match="STUDYLIB_RUNS=.*cannot be written"):
        train(smoke("sl"), say=str)


def test_of_processes_on_one_run_one_trains_and_the_others_wait_and_find_it_done(runs):
    config = smoke("sl", optimisation__epochs=4)
    task, log = runs / "job.pickle", runs / "log.txt"
    task.write_bytes(pickle.dumps(Job(scale="smoke", variant="sl", config=config, evaluations=())))
    with Run(config).locked():  # as a third process would, so that both have to wait
        both = [handed(task) for _ in range(2)]
        while not log.exists() or log.read_text().count("waiting for it") < 2:
            assert [process.poll() for process in both] == [None, None], log.read_text()
            time.sleep(0.05)
        assert " epoch " not in log.read_text()
    for process in both:
        process.wait()
    assert [process.returncode for process in both] == [0, 0]
    assert log.read_text().count(" epoch ") == 4  # of both
    assert len(json.loads((Run(config).folder / "record.json").read_text())) == 1


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    file = tmp_path / "state.pt"
    checkpoint.save(file, {"value": torch.arange(3)})

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(RunError, match="state.pt cannot be written .No space"):
        checkpoint.save(file, {"value": torch.arange(4)})
    monkeypatch.undo()
    assert torch.equal(checkpoint.load(file)["value"], torch.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_damaged_or_executable_checkpoint_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"value": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04 half a file")
    for name in ("evil.pt", "damaged.pt"):
        with pytest.raises(RunError, match=name):
            checkpoint.load(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_exported_encoder_loads_into_torchvision_with_every_key_accounted_for(runs, tmp_path, capsys):
    """Width 64 and the 7x7 stem are torchvision's; only ``fc`` is missing, and the features are the same."""
    sizes = {"encoder__arch": "resnet18", "encoder__width": 64, "encoder__stem": "conv7"}
    config = smoke("trex", optimisation__epochs=0, **sizes)
    folder = train(config, say=str)
    assert main(["export", str(folder), str(tmp_path / "encoder.pth")]) == 0
    state = torch.load(tmp_path / "encoder.pth", weights_only=True)
    network = torchvision.models.resnet18()
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"}
    assert unexpected == []
    network.fc = torch.nn.Identity()
    ours = METHODS["trex"](config, 36, torch.zeros(3), torch.ones(3))
    ours.load_state_dict(final(config))
    ours.encoder.load_state_dict(state)
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(network.eval()(images), ours.eval().encoder(images))
    assert "mean" in capsys.readouterr().out


def test_export_of_what_is_not_there_is_refused(runs, tmp_path, capsys):
    assert main(["export", str(tmp_path), "x.pth"]) == 2
    assert "it has no config.json" in capsys.readouterr().err
    folder = train(smoke("sl"), say=str)
    assert main(["export", str(folder), str(tmp_path / "x.pth"), "--epoch", "7"]) == 2
    assert "kept epochs: 0, 1, 2" in capsys.readouterr().err


def test_encoder_passes_are_counted_per_image(runs):
    """t-ReX at ``smoke``: a global crop and two of half the side, and the average's pass without gradient."""
    for method, passes, without in (
        ("sl", 1, 0),
        ("trex", 1.5, 1),
        ("look", 1, 1),
        ("simclr", 2, 0),
        ("moco_v2", 1, 1),
        ("byol", 2, 2),
    ):
        config = smoke(method)
        train(config, say=str)
        assert [(row["passes"], row["passes_without_gradient"]) for row in Run(config).timing()] == [(passes, without)] * 2


def test_look_that_waits_for_a_bank_that_is_never_full_is_refused(runs):
    with pytest.raises(InputError, match="bank.length=100000: is not filled before training ends"):
        train(smoke("look", look__start="filled", bank__length=100000), say=str)
    assert not Run(smoke("look", look__start="filled", bank__length=100000)).folder.exists()


def test_losses_that_begin_with_0_are_no_divergence(runs):
    """MoCo against an empty queue has loss 0 in its first step, and far more than 10 log-units are right afterwards."""
    settings = smoke("moco_v1").optimisation
    state = {"step": 1, "first_loss": 0.0, "epoch": 0}
    loop.refuse_divergence(state, {"loss": torch.tensor(0.0)}, settings)
    state["step"] = 2
    loop.refuse_divergence(state, {"loss": torch.tensor(11.0)}, settings)
    state["step"] = 3
    with pytest.raises(RunError, match="diverged"):
        loop.refuse_divergence(state, {"loss": torch.tensor(200.0)}, settings)


def test_stopped_in_the_last_step_of_an_epoch_keeps_the_clock(runs, monkeypatch):
    """The epoch is finished and saved; a resumed epoch's seconds hold those before the stop."""
    config, real, stopped = smoke("sl"), METHODS["sl"].loss, []

    def loss(self, batch):
        if batch.progress == 5 / 12 and not stopped:  # the 6th of 6 steps
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch)

    monkeypatch.setattr(METHODS["sl"], "loss", loss)
    with pytest.raises(SystemExit) as left:
        train(config, say=str)
    assert left.value.code == 75
    assert len(Run(config).metrics()) == 1
    train(config, say=str)
    assert [row["passes"] for row in Run(config).timing()] == [1, 1]
    assert all(row["images_per_s"] > 0 for row in Run(config).timing())


def test_crops_larger_than_the_image_are_refused(runs):
    with pytest.raises(InputError, match="multi_crop.local_size=33: is larger than the 32 px images of glyphs/few"):
        train(smoke("trex", multi_crop__local_size=33), say=str)
    with pytest.raises(InputError, match="augmentation.size=40: is larger than the 32 px"):
        train(smoke("sl", augmentation__size=40), say=str)
    assert not Run(smoke("sl", augmentation__size=40)).metrics()


@pytest.mark.parametrize("start", ["falling", "warmup", "ramp", "filled", "fixed"])
@pytest.mark.parametrize("k", [2, 128])
def test_look_with_k_beyond_what_is_filled_trains(runs, start, k):
    """A bank of 128 is filled after two batches of 64; until then fewer than k neighbours decide."""
    config = smoke("look", look__start=start, look__k=k)
    train(config, say=str)
    assert all(math.isfinite(row["loss"]) for row in Run(config).metrics())
