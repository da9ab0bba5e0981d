"""Two Gloo processes with half the batch each do what one process does; a run under ``torchrun`` is trained and resumed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from studylib import distributed
from studylib.cli import main
from studylib.config import resolve
from studylib.errors import InputError
from studylib.training import Run, checkpoint, loop

sys.path.insert(0, str(Path(__file__).parent))
from distributed_worker import CASES, LONG, steps

pytestmark = pytest.mark.slow


def start(command, processes=2, **more):
    """The processes as ``torchrun`` would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
        for rank in range(processes)
    ]


def finish(processes):
    """(code, stdout, stderr) of each."""
    said = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


@pytest.fixture(scope="module")
def two(tmp_path_factory, glyph_cache):
    """What ``distributed_worker.py`` wrote in two processes; its run is ``runs/whole``."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "runs" / "cache").mkdir(parents=True)
    (folder / "runs" / "cache" / "data").symlink_to(glyph_cache / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYLIB_RUNS", str(folder / "runs"))
        done = finish(start([str(Path(__file__).parent / "distributed_worker.py"), str(folder)]))
    for code, _, errors in done:
        assert code == 0, errors[-2000:]
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(two, case):
    """Losses, gradients and state (bank, averages, running statistics) over three steps; float64, 1e-9."""
    one, ranks = steps(*CASES[case]), [torch.load(two / f"{case}-{rank}.pt") for rank in range(2)]
    for found in ranks:
        torch.testing.assert_close(found["losses"], one["losses"], rtol=1e-9, atol=1e-12)
        for ours, whole in zip(found["gradients"], one["gradients"], strict=True):
            assert ours.keys() == whole.keys()
            for name in whole:
                torch.testing.assert_close(
                    ours[name], whole[name], rtol=1e-6, atol=1e-11, msg=lambda text, n=name: f"{n}: {text}"
                )
        assert found["state"].keys() == one["state"].keys()
        for name, value in one["state"].items():
            torch.testing.assert_close(
                found["state"][name], value, rtol=1e-7, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}"
            )
    assert any(gradient.any() for gradient in one["gradients"][-1].values())


def test_one_process_gathers_nothing():
    rows = torch.rand(3, 2)
    assert distributed.gather(rows) is rows
    assert distributed.mean(rows) is rows
    assert distributed.any_of(False, True) == [False, True]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"WORLD_SIZE": "4"},
            "error: WORLD_SIZE=4: RANK, MASTER_ADDR, MASTER_PORT not set; start the processes with torchrun, or",
        ),
        ({"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "a"}, "error: WORLD_SIZE=4: MASTER_PORT not set; start"),
        ({"WORLD_SIZE": "two"}, "error: WORLD_SIZE='two': must be a whole number"),
    ],
)
def test_processes_that_would_not_find_each_other_are_refused(runs, monkeypatch, capsys, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["pretrain", "--scale", "smoke", "--method", "sl"]) == 2
    assert capsys.readouterr().err.startswith(said)
    for alone in ("1", ""):
        monkeypatch.setenv("WORLD_SIZE", alone)
        assert distributed.started() == 1


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 3)
    images = type("Images", (), {"images": torch.zeros(2, 3, 32, 32), "split": torch.zeros(100)})
    with pytest.raises(InputError, match=r"optimisation.batch=64: must be a multiple of the 3 processes"):
        loop.refuse_unfit(resolve("smoke", "sl"), images)


def test_training_by_two_processes_resumes_bit_for_bit(two, runs):
    """SIGTERM to both: the state is saved, both leave with 75, and the next call ends as an uninterrupted one."""
    method, settings = LONG
    config = resolve("smoke", method, 0, settings)
    command = ["-m", "studylib", "pretrain", "--scale", "smoke", "--method", method]
    command += [part for name, value in settings.items() for part in ("-p", f"{name}={value}")]
    stopped = start(command)
    while not Run(config).metrics():
        assert all(process.poll() is None for process in stopped), finish(stopped)
        time.sleep(0.01)
    for process in stopped:
        process.send_signal(signal.SIGTERM)
    assert [code for code, _, _ in finish(stopped)] == [75, 75]
    assert not Run(config).done
    assert [code for code, _, _ in finish(start(command))] == [0, 0]
    assert [session["processes"] for session in json.loads((Run(config).folder / "record.json").read_text())] == [2, 2]
    snapshot = Run(config).snapshot().relative_to(Run(config).folder)
    resumed, whole = (checkpoint.load(folder / snapshot)["weights"] for folder in (Run(config).folder, two / "runs" / "whole"))
    assert len(whole) == len(resumed)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    metrics = "metrics.jsonl"
    assert (Run(config).folder / metrics).read_bytes() == (two / "runs" / "whole" / metrics).read_bytes()


def test_another_number_of_processes_does_not_go_on(runs, monkeypatch):
    config = resolve("smoke", "sl", 0, {"monitor.every": 0})
    saved = loop.save

    def save_then_die(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, say=str)
    command = ["-m", "studylib", "pretrain", "--scale", "smoke", "--method", "sl", "-p", "monitor.every=0"]
    for code, _, said in finish(start(command)):
        assert code == 2
        assert "was begun with 1; go on with as many" in said
