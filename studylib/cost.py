"""What runs still cost: images, and minutes by the speed that earlier runs reached here."""

from collections.abc import Mapping, Sequence
from typing import Any

from studylib import device as devices
from studylib.bench.loop import bare_speed
from studylib.config import RunConfig
from studylib.data import load
from studylib.evaluation import published
from studylib.pool import Job
from studylib.study import merged
from studylib.training import Run

COLUMNS = ["grid", "variant", "seed", "run", "state", "images", "minutes"]


def images_left(run: Run) -> int:
    """Images that a run has still to be shown, all epochs together."""
    settings = run.config.optimisation
    images = int((load(run.config.data).split == 0).sum())
    return (settings.epochs - len(run.metrics())) * (images // settings.batch) * settings.batch


def speed_key(config: RunConfig) -> tuple[Any, ...]:
    """What determines a run's speed: runs with equal keys are equally fast."""
    return config.method, config.encoder, config.projector.exists, config.multi_crop, config.data


def cost(jobs: Sequence[Job]) -> str:
    """What jobs still cost, in words: runs, images, and minutes of one worker where earlier runs here tell the speed.

    Evaluation comes on top.
    """
    runs = list({job.config: Run(job.config) for job in jobs}.values())
    elsewhere = {job.config for job in merged(jobs) if job.published is not None}
    left = [(run, count) for run in runs if run.config not in elsewhere and (count := images_left(run))]
    text = f"{len(runs)} runs, {len({job.config for job in jobs if not job.done})} to be computed"
    text += f", {len(elsewhere)} read from {published.name(jobs[0].scale)}" if elsewhere else ""
    if not left:
        return text
    text += f", {len(left)} of them to be trained: {sum(count for _, count in left) / 1e6:,.1f} million images"
    speeds = {speed_key(run.config): timing[-1]["images_per_s"] for run in runs if (timing := run.timing())}
    known = [(count, speeds[key]) for run, count in left if (key := speed_key(run.config)) in speeds]
    if known:
        minutes = sum(count / speed for count, speed in known) / 60
        text += f", about {minutes:.0f} minutes of one worker"
        text += f" for the {len(known)} of which the speed is known" if len(known) < len(left) else ""
    return text


def plan(grids: Mapping[str, Sequence[Job]]) -> Any:
    """A pandas DataFrame with a row (`COLUMNS`) for each run of ``grids`` (name -> jobs): its state and what it still costs.

    ``minutes`` is for one worker, from the images/s that this machine reached before with the same method and encoder, or
    else from a few steps made now; evaluation comes on top. Runs that two grids share are counted once.

    Raises:
        InputError: a data set that cannot be read.
    """
    import pandas

    jobs: dict[RunConfig, tuple[str, Job]] = {}
    for grid, of_grid in grids.items():
        for job in of_grid:
            jobs.setdefault(job.config, (grid, job))
    speeds: dict[Any, float] = {}
    rows = []
    for config, (grid, job) in jobs.items():
        run, key = Run(config), speed_key(config)
        epochs, elsewhere = len(run.metrics()), job.published is not None
        left = 0 if elsewhere else images_left(run)
        if timing := run.timing():
            speeds[key] = timing[-1]["images_per_s"]
        if left and key not in speeds:
            speeds[key] = bare_speed(config, load(config.data), devices.find(), steps=5)
        state = f"{epochs}/{config.optimisation.epochs} epochs" if epochs else "missing"
        state = "published" if elsewhere else "done" if job.done else "trained" if run.done else state
        minutes = round(left / speeds[key] / 60, 1) if left else 0.0
        rows.append((grid, job.variant, config.seed, config.name, state, left, minutes))
    return pandas.DataFrame(rows, columns=COLUMNS)


def totals(runs: Any, grids: Sequence[str]) -> list[dict[str, Any]]:
    """For each of ``grids``, and for all: how many runs `plan` found, how many of them are trained, and the minutes left."""
    rows = []
    for grid in grids:
        part = runs[runs["grid"] == grid]
        trained = int((part["images"] == 0).sum())
        rows.append({"grid": grid, "runs": len(part), "trained": trained, "minutes": round(float(part["minutes"].sum()), 1)})
    return [
        *rows,
        {"grid": "all"} | {name: round(sum(row[name] for row in rows), 1) for name in ("runs", "trained", "minutes")},
    ]
