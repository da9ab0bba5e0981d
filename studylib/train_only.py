"""Training the runs of grids in the minutes that a machine is there for, evaluating nothing."""

import math
import time
from collections.abc import Iterable
from dataclasses import replace

import torch

from studylib import forecast
from studylib.concurrency import Concurrency
from studylib.cost import speed_key
from studylib.data import load
from studylib.pool import Job, Pool, default_workers
from studylib.study import merged, missing
from studylib.training import Run
from studylib.training.loop import stop_requested

MARGIN_S = 30.0  # ours: for saving, at the end of the time; a tenth of the time where that is less


def train(
    jobs: Iterable[Job], *, workers: int | None = None, deadline: float | None = None, show: str = "auto", again: str = ""
) -> bool:
    """Train the runs of ``jobs``, as many as there is time for, and print what is left; whether that is nothing.

    Args:
        workers: runs at a time, spread over the GPUs; by default one per core, or as many per GPU as pay (`Concurrency`).
        deadline: when all processes must be gone, on the clock of `time.monotonic`; by default there is time for all.
        show: as in `studylib.study.run`.
        again: the command that goes on, which is printed.

    Raises:
        InputError: a data set cannot be read; raised before anything is run.
        RunError: runs failed; the others were finished first.
    """
    jobs = in_order(job for job in merged(jobs) if job.published is None)
    waiting = missing(jobs)
    images = {spec: int((load(spec).split == 0).sum()) for spec in {job.config.data for job in waiting}}
    stop_at = math.inf if deadline is None else deadline - min(MARGIN_S, (deadline - time.monotonic()) / 10)
    search = Concurrency(torch.cuda.device_count()) if torch.cuda.is_available() and not workers else None
    workers = workers or default_workers()
    begun, paced, told = time.time(), set(), False
    pool = Pool(waiting, show, math.inf if deadline is None else deadline)
    try:
        with stop_requested() as stop, pool:
            while pool.busy and not stop.is_set() and time.monotonic() < stop_at:
                pool.turn(workers)
                runs = [Run(job.config) for job in pool.at_work]
                if search:
                    workers = search.workers(runs)
                paced |= {speed_key(run.config) for run in runs if run.pace(begun)}
                settled = not search or search.settled or not pool.waiting
                if not told and settled and runs and {speed_key(run.config) for run in runs} <= paced:
                    told = True
                    left = forecast.left(jobs, images)
                    pool.progress.say(forecast.in_time(left, workers, stop_at - time.monotonic()))
    finally:
        left = forecast.left(jobs, images)
        print(forecast.summary(left, len(jobs), workers, {job.config.name: said for job, _, said in pool.failed}))
        if left and again:
            print(f"go on: {again}")
    if not pool.busy:
        pool.refuse_failures()
    return not left


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """Each configuration once, without evaluations, so that what is compared is finished together.

    All runs of a seed come before those of the next; of one seed first those that an earlier call began, then as given, which
    is the baseline before its rivals.
    """
    once = merged(replace(job, evaluations=()) for job in jobs)
    return sorted(once, key=lambda job: (job.config.seed, not Run(job.config).checkpoint.exists()))
