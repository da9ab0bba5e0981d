"""What runs have still to be trained: epochs, minutes at the rates that were measured, and which will be done in time."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from studylib.cost import speed_key
from studylib.pool import Job
from studylib.training import Run


@dataclass(frozen=True)
class Left:
    """What one run has still to be trained."""

    job: Job
    epochs: float
    """done so far"""
    seconds: float | None
    """that it needs with the runs beside it; None where no run at all was measured"""
    measured: bool
    """whether ``seconds`` are at the rate of this kind of run, and not at the mean of other kinds"""

    @property
    def name(self) -> str:
        return f"{self.job.variant} seed {self.job.config.seed}"


def left(jobs: Sequence[Job], images: Mapping[str, int]) -> list[Left]:
    """Those of ``jobs`` that are not trained, in their order.

    Args:
        jobs: trained ones too: they tell how fast others of their kind are.
        images: number of training images of each data set.
    """
    cost = seconds_per_image(jobs)
    found = []
    for job in jobs:
        run, settings = Run(job.config), job.config.optimisation
        if run.done:
            continue
        done = epochs_done(run)
        count = (settings.epochs - done) * (images[job.config.data] // settings.batch) * settings.batch
        kind = speed_key(job.config)
        seconds = count * cost.get(kind, mean(cost.values())) if cost else None
        found.append(Left(job, done, seconds, kind in cost))
    return found


def seconds_per_image(jobs: Sequence[Job]) -> dict[Any, float]:
    """Of every kind of run, by the pace that was noted last, or else by the last epoch of a run."""
    found = []
    for run in [Run(job.config) for job in jobs]:
        epoch = [{"time": 0.0, "images_per_s": row["images_per_s"]} for row in run.timing()[-1:]]
        found += [(speed_key(run.config), pace) for pace in [run.pace(), *epoch] if pace]
    return {kind: 1 / pace["images_per_s"] for kind, pace in sorted(found, key=lambda one: one[1]["time"])}


def epochs_done(run: Run) -> float:
    """Epochs that a run was trained, with the part of the last."""
    pace = run.pace() or {"epoch": 1, "step": 0, "steps": 1}
    return max(len(run.metrics()), pace["epoch"] - 1 + pace["step"] / pace["steps"])


def ends(seconds: Sequence[float], workers: int) -> list[float]:
    """Seconds after which each of some runs is trained, where each worker takes the next one as it comes free."""
    free, found = [0.0] * workers, []
    for needed in seconds:
        found.append(heapq.heappop(free) + needed)
        heapq.heappush(free, found[-1])
    return found


def in_time(runs: Sequence[Left], workers: int, seconds: float) -> str:
    """Which of ``runs``, of which the seconds are known, will be trained in ``seconds``; if that is inf, how long they take."""
    after = ends([run.seconds for run in runs], workers)
    if seconds == math.inf:
        minutes = max(after, default=0) / 60
        return f"forecast: {len(runs)} runs take about {minutes:.1f} minutes, {workers} at a time{guessed(runs)}"
    late = [run.name for run, end in zip(runs, after, strict=True) if end > seconds]
    said = f"forecast: {len(runs) - len(late)} of {len(runs)} runs will be trained in the {seconds / 60:.1f} minutes left"
    return f"{said}, {workers} at a time{guessed(runs)}" + (f"; not: {', '.join(late)}" if late else "")


def summary(runs: Sequence[Left], count: int, workers: int, failed: Mapping[str, str]) -> str:
    """What is left of ``count`` runs: a line for each of ``runs``, and the time that all of them need.

    Args:
        failed: what was said last by each run that failed, by its name.
    """
    if not runs:
        return f"all {count} runs are trained"
    lines = [f"{count - len(runs)} of {count} runs are trained; left:"]
    width = max(len(run.name) for run in runs)
    for run in runs:
        config = run.job.config
        minutes = f"{run.seconds / 60:.1f}" if run.measured else "?"
        said = f"{run.name:<{width}}  {run.epochs:5.1f} of {config.optimisation.epochs} epochs  {minutes:>6} minutes more"
        lines.append(f"{said}  {config.name}" + (f"  failed: {failed[config.name]}" if config.name in failed else ""))
    if all(run.seconds is not None for run in runs):
        total = max(ends([run.seconds for run in runs], workers))
        lines.append(f"about {total / 60:.1f} minutes in all, {workers} at a time{guessed(runs)}")
    return "\n".join(lines)


def guessed(runs: Sequence[Left]) -> str:
    """How many have no rate of their own, where some do not."""
    count = sum(not run.measured for run in runs)
    return f" (for {count} of them, not measured yet, at the mean rate of the others)" if count else ""
