"""Jobs, and the worker processes that carry them out; a process takes one job after another."""

import math
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from tqdm import tqdm

from studylib import files, paths
from studylib.config import RunConfig
from studylib.device import usable_cores
from studylib.errors import RunError, choose
from studylib.evaluation import published
from studylib.evaluation.evaluate import Evaluation, cached
from studylib.training import Run


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run and what is evaluated of it."""

    scale: str
    variant: str
    """row of an ablation; the method's name where nothing is varied"""
    config: RunConfig
    evaluations: tuple[Evaluation, ...]
    beyond: bool = False
    """whether it is beyond the scale's plan: shown where it is done, never computed unasked"""

    @property
    def published(self) -> list[dict[str, Any]] | None:
        """Rows of a run that has no folder here, if they are published (`studylib.evaluation.published`); else None. Beyond the
        plan also those of one that is not `computed` here."""
        run = Run(self.config)
        if not published.is_on(self.beyond) or (run.folder.exists() and (not self.beyond or self.computed)):
            return None
        return published.rows(self.scale, run, self.evaluations)

    @property
    def computed(self) -> bool:
        """Whether all results are there, computed here."""
        run = Run(self.config)
        return run.done and all(file.exists() for evaluation in self.evaluations for file in cached(run, evaluation))

    @property
    def done(self) -> bool:
        """Whether all results are there, computed here or published."""
        return self.computed or self.published is not None


class Pool:
    """Processes that carry out ``jobs`` in their order, each one job after another.

    Leaving the block sends SIGTERM to those at work and waits: they save and end. What is still there at ``deadline``, on the
    clock of `time.monotonic`, is killed: it goes on from its last checkpoint.
    """

    def __init__(self, jobs: list[Job], show: str, deadline: float = math.inf):
        self.waiting, self._count = list(jobs), len(jobs)
        self.failed: list[tuple[Job, int, str]] = []
        """jobs that failed, their exit codes and the last lines of their logs"""
        self.progress, self._deadline = Progress(jobs, show), deadline
        self._running: dict[int, tuple[Job, Path, int]] = {}
        self._processes: dict[int, subprocess.Popen] = {}

    @property
    def at_work(self) -> list[Job]:
        """The jobs that are being carried out."""
        return [job for job, _, _ in self._running.values()]

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self._running)

    def turn(self, workers: int) -> None:
        """Keep ``workers`` processes at work for 0.1 s: begin what is waiting, show what they say, take note of what ended.

        Where there are more than ``workers``, those above finish their jobs and get no other.
        """
        for slot in set(range(workers)) - set(self._running):
            if not self.waiting:
                break
            job = self.waiting.pop(0)
            task, log = prepare(job)
            self._running[slot] = (job, log, log.stat().st_size)
            if slot not in self._processes:
                self._processes[slot] = start(slot, log)
            hand(self._processes[slot], task)
        for slot, (job, log, offset) in list(self._running.items()):
            code = answer(self._processes[slot])
            self._running[slot] = (job, log, self.progress.follow(log, offset))
            if code is not None:
                del self._running[slot]
                if code:
                    self.failed.append((job, code, last_line(log)))
                if self._processes[slot].poll() is not None:
                    leave(self._processes.pop(slot))
        time.sleep(0.1)

    def refuse_failures(self) -> None:
        """Raise a `RunError` that names the first job that failed, if one did."""
        if self.failed:
            job, code, said = self.failed[0]
            raise RunError(f"{len(self.failed)} of {self._count} runs failed; {job.config.name} (exit code {code}): {said}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for slot in set(self._running) & set(self._processes):
            self._processes[slot].send_signal(signal.SIGTERM)
        for process in self._processes.values():
            leave(process, self._deadline)
        for _, log, offset in self._running.values():
            self.progress.follow(log, offset)
        self.progress.close()


def default_workers() -> int:
    """One per GPU or, without one, per core."""
    return torch.cuda.device_count() or usable_cores()


def prepare(job: Job) -> tuple[Path, Path]:
    """The file that tells a worker what to do, and the log that its output is appended to."""
    folder = files.usable(Run(job.config).folder, "STUDYLIB_RUNS")
    task, log = folder / "job.pickle", folder / "log.txt"
    files.write(task, lambda file: pickle.dump(job, file))
    log.touch()
    return task, log


def start(slot: int, log: Path) -> subprocess.Popen:
    """A worker process on GPU or core ``slot``; what keeps it from starting goes to ``log``."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(paths.REPOSITORY)}
    if torch.cuda.is_available():
        given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]  # by a scheduler, say
        own = given or [str(number) for number in range(torch.cuda.device_count())]
        environment["CUDA_VISIBLE_DEVICES"] = own[slot % len(own)]
    else:
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "studylib.worker", str(os.getpid())]  # not what lies in the working directory
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with log.open("ab") as out:
        process = subprocess.Popen(command, **pipes, stderr=out, env=environment)
    os.set_blocking(process.stdout.fileno(), False)
    return process


def hand(process: subprocess.Popen, task: Path) -> None:
    """Hand a worker the file of its next job."""
    with suppress(BrokenPipeError):  # it was killed: its exit code tells
        process.stdin.write(f"{task.absolute()}\n".encode())


def answer(process: subprocess.Popen) -> int | None:
    """Exit code of the job that a worker carries out, or that of a worker that died; None while it is at work."""
    said = process.stdout.read()
    return int(said) if said else process.poll()


def leave(process: subprocess.Popen, deadline: float = math.inf) -> None:
    """Let a worker end, by SIGKILL if it is still there at ``deadline``."""
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(None if deadline == math.inf else max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


class Progress:
    """Epochs done of all jobs: a bar for a person, the workers' own lines for a log."""

    def __init__(self, jobs: list[Job], show: str):
        choose("show", show, ("auto", "bar", "lines"))
        epochs = sum(job.config.optimisation.epochs - len(Run(job.config).metrics()) for job in jobs)
        person = is_interactive() if show == "auto" else show == "bar"
        steps = epochs + sum(bool(job.evaluations) for job in jobs)
        self.bar = tqdm(total=steps, unit="epoch", desc=f"{len(jobs)} runs") if person else None

    def follow(self, log: Path, offset: int) -> int:
        """Show what was added to ``log`` after ``offset``; returns the new offset."""
        with log.open("rb") as file:
            file.seek(offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        for said in whole.decode(errors="replace").splitlines():
            if self.bar is None:
                self.say(said)
            elif " epoch " in said or said.endswith("evaluated"):
                self.bar.update()
        return offset + len(whole)

    def say(self, text: str) -> None:
        """Print ``text``, above the bar where there is one."""
        print(text, flush=True) if self.bar is None else self.bar.write(text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def is_interactive() -> bool:
    """Whether output goes to a person: a terminal, or a notebook front end that can ask for input (papermill cannot)."""
    if "ipykernel" in sys.modules:
        from IPython import get_ipython

        return bool(getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False))
    return sys.stderr.isatty()


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"
