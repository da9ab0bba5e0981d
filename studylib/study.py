"""A grid of runs -> the results table: runs what is missing in parallel workers, reads what is there."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from studylib import files, paths
from studylib.config import RunConfig
from studylib.data import find
from studylib.errors import RESUME_EXIT, RunError, choose
from studylib.evaluate import Evaluation, cached, evaluate
from studylib.external import External
from studylib.training import Run
from studylib.training.loop import stop_requested

COLUMNS = ["scale", "method", "variant", "run", "seed", "epoch", "dataset", "layer", "split", "protocol", "measure", "value"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run and what is evaluated of it."""

    scale: str
    variant: str
    """row of an ablation; the method's name where nothing is varied"""
    config: RunConfig
    evaluations: tuple[Evaluation, ...]

    @property
    def done(self) -> bool:
        run = Run(self.config)
        return run.done and all(file.exists() for evaluation in self.evaluations for file in cached(run, evaluation))


def run(jobs: Iterable[Job], workers: int | None = None, show: str = "auto") -> Any:
    """The results table (a pandas DataFrame with `COLUMNS`) of ``jobs``; what is missing is computed first.

    Args:
        workers: runs at a time; by default one per GPU, or one per core with one thread each.
        show: ``bar`` for a person, ``lines`` (one per epoch) for a log, ``auto`` to find out.

    Raises:
        InputError: a data set cannot be read; raised before anything is run.
        RunError: runs failed; the others were finished first.
        SystemExit: code 75 after SIGTERM, when the workers have saved; call again to go on.
    """
    jobs = list(jobs)
    missing = list({job.config.name: job for job in merged(jobs) if not job.done}.values())
    if missing:
        for spec in sorted({job.config.data for job in missing} | {e.dataset for job in missing for e in job.evaluations}):
            find(spec)  # refuses what cannot be read, and fills the cache once instead of in every worker
        _compute(missing, workers or default_workers(), show)
    return table(jobs)


def merged(jobs: Iterable[Job]) -> list[Job]:
    """One job per configuration, with the evaluations of all that share it."""
    found: dict[RunConfig, list[Evaluation]] = {}
    first: dict[RunConfig, Job] = {}
    for job in jobs:
        first.setdefault(job.config, job)
        known = found.setdefault(job.config, [])
        known += [evaluation for evaluation in job.evaluations if evaluation not in known]
    return [
        Job(scale=job.scale, variant=job.variant, config=config, evaluations=tuple(found[config]))
        for config, job in first.items()
    ]


def table(jobs: Iterable[Job]) -> Any:
    """Rows of what is there; jobs without results have none."""
    import pandas

    rows = []
    for job in jobs:
        run = Run(job.config)
        base = {
            "scale": job.scale,
            "method": job.config.method,
            "variant": job.variant,
            "run": run.config.name,
            "seed": job.config.seed,
        }
        if not run.done:
            continue
        for evaluation in job.evaluations:
            for file in [file for file in cached(run, evaluation) if file.exists()]:
                rows += [base | row for row in json.loads(file.read_text())]
        monitored = {"dataset": job.config.data, "layer": "stage5", "split": "test", "measure": "monitor_knn_top1"}
        protocol = f"kNN: cosine, k=20, among {job.config.monitor.gallery} training images"
        for row in run.metrics():
            if "knn_top1" in row:
                rows.append(base | monitored | {"protocol": protocol, "epoch": row["epoch"], "value": row["knn_top1"]})
        clock = run.timing()
        cost = {
            "seconds": sum(row["seconds"] for row in clock),
            "seconds_per_epoch": median(row["seconds"] for row in clock) if clock else 0.0,
            "images_per_s": median(row["images_per_s"] for row in clock) if clock else math.nan,
        } | {name: clock[-1][name] for name in ("passes", "passes_without_gradient") if clock and name in clock[-1]}
        base |= {"epoch": job.config.optimisation.epochs, "dataset": job.config.data, "layer": "", "split": "train"}
        protocol = "pre-training on this machine, validation included; passes of whole images for each training image"
        rows += [base | {"protocol": protocol, "measure": name, "value": value} for name, value in cost.items()]
    return pandas.DataFrame(rows, columns=COLUMNS)


def external(sources: Iterable[External], evaluations: Iterable[Evaluation]) -> Any:
    """The results table of encoders that were trained elsewhere, computed where it is missing; ``method`` is ``file:NAME``.

    They have one seed, 0, and no pre-training set: what is measured against one is not in the table.

    Raises:
        InputError: a file or a data set cannot be read.
    """
    import pandas

    rows, evaluations, sources = [], list(evaluations), list(sources)
    stems = [source.file.stem for source in sources]
    for source in sources:
        name = f"file:{source.file.stem if stems.count(source.file.stem) == 1 else source.name}"
        base = {"scale": "external", "method": name, "variant": name, "run": source.name, "seed": 0}
        rows += [base | row for evaluation in evaluations for row in evaluate(source, evaluation)]
    return pandas.DataFrame(rows, columns=COLUMNS)


def default_workers() -> int:
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def _compute(jobs: list[Job], workers: int, show: str) -> None:
    """Hand every job to one of ``workers`` processes, each of which carries out several, one after the other."""
    waiting, failed = list(jobs), []
    running: dict[int, tuple[Job, Path, int]] = {}
    pool: dict[int, subprocess.Popen] = {}
    progress = Progress(jobs, show)
    with stop_requested() as stop:
        try:
            while waiting or running:
                if stop.is_set():
                    raise SystemExit(RESUME_EXIT)
                for slot in set(range(workers)) - set(running):
                    if not waiting:
                        break
                    job = waiting.pop(0)
                    task, log = prepare(job)
                    running[slot] = (job, log, log.stat().st_size)
                    if slot not in pool:
                        pool[slot] = start(slot, log)
                    hand(pool[slot], task)
                for slot, (job, log, offset) in list(running.items()):
                    code = answer(pool[slot])
                    running[slot] = (job, log, progress.follow(log, offset))
                    if code is not None:
                        del running[slot]
                        if code:
                            failed.append((job, code, last_line(log)))
                        if pool[slot].poll() is not None:
                            leave(pool.pop(slot))
                time.sleep(0.1)
        finally:
            for slot in set(running) & set(pool):
                pool[slot].send_signal(signal.SIGTERM)
            for process in pool.values():
                leave(process)
            progress.close()
    if failed:
        job, code, said = failed[0]
        raise RunError(f"{len(failed)} of {len(jobs)} runs failed; {job.config.name} (exit code {code}): {said}")


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
    command = [sys.executable, "-m", "studylib.worker"]
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


def leave(process: subprocess.Popen) -> None:
    """Let a worker end."""
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.wait()
    process.stdout.close()


class Progress:
    """Epochs done of all jobs: a bar for a person, the workers' own lines for a log."""

    def __init__(self, jobs: list[Job], show: str):
        choose("show", show, ("auto", "bar", "lines"))
        epochs = sum(job.config.optimisation.epochs - len(Run(job.config).metrics()) for job in jobs)
        person = person_watches() if show == "auto" else show == "bar"
        self.bar = tqdm(total=epochs + len(jobs), unit="epoch", desc=f"{len(jobs)} runs") if person else None

    def follow(self, log: Path, offset: int) -> int:
        """Show what was added to ``log`` after ``offset``; returns the new offset."""
        with log.open("rb") as file:
            file.seek(offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        for said in whole.decode(errors="replace").splitlines():
            if self.bar is None:
                print(said, flush=True)
            elif " epoch " in said or said.endswith("evaluated"):
                self.bar.update()
        return offset + len(whole)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def person_watches() -> bool:
    """Whether output goes to a person: a terminal, or a notebook front end that can ask for input (papermill cannot)."""
    if "ipykernel" in sys.modules:
        from IPython import get_ipython

        return bool(getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False))
    return sys.stderr.isatty()


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"
