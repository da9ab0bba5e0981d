"""A grid of runs -> the results table: runs what is missing in parallel workers, reads what is there.

A run without a folder under ``runs/`` needs none where all its rows are published (`studylib.evaluation.published`).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from studylib import distributed, files, paths
from studylib.config import RunConfig
from studylib.data import find
from studylib.errors import RESUME_EXIT
from studylib.evaluation import pretraining, published
from studylib.evaluation.evaluate import Evaluation, cached, evaluate
from studylib.external import External
from studylib.pool import Job, Pool, default_workers
from studylib.training import Run, refuse_other_data
from studylib.training.loop import stop_requested

COLUMNS = ["scale", "method", "variant", "run", "seed", "epoch", "dataset", "layer", "split", "protocol", "measure", "value"]


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
    if left := missing(jobs):
        carry_out(left, workers, show)
    return table(jobs)


def missing(jobs: Iterable[Job]) -> list[Job]:
    """What is still to be computed of ``jobs``, each configuration once.

    Raises:
        InputError: a data set that it needs cannot be read, or runs that are here were trained on other images than it has.
    """
    every = merged(jobs)
    refuse_other_data(Run(job.config) for job in every)
    left = list({job.config.name: job for job in every if not job.done}.values())
    for spec in sorted({job.config.data for job in left} | {e.dataset for job in left for e in job.evaluations}):
        find(spec)  # refuses what cannot be read, and fills the cache once instead of in every worker
    return left


def merged(jobs: Iterable[Job]) -> list[Job]:
    """One job per configuration, with the evaluations of all that share it."""
    found: dict[RunConfig, list[Evaluation]] = {}
    first: dict[RunConfig, Job] = {}
    planned = set()
    for job in jobs:
        planned |= set() if job.beyond else {job.config}
        first.setdefault(job.config, job)
        known = found.setdefault(job.config, [])
        known += [evaluation for evaluation in job.evaluations if evaluation not in known]
    return [replace(job, evaluations=tuple(found[config]), beyond=config not in planned) for config, job in first.items()]


def table(jobs: Iterable[Job]) -> Any:
    """Rows of what is there, of a run without a folder those that are published; jobs without results have none."""
    import pandas

    rows, read_of = [], set()
    for job in jobs:
        run = Run(job.config)
        base = {
            "scale": job.scale,
            "method": job.config.method,
            "variant": job.variant,
            "run": run.config.name,
            "seed": job.config.seed,
        }
        results = []
        if run.done and (job.computed or not job.beyond):
            present = [file for evaluation in job.evaluations for file in cached(run, evaluation) if file.exists()]
            results = [row for file in present for row in files.read_json(file, list)] + pretraining.rows(run)
        elif results := job.published or []:
            read_of.add(job.scale)
        rows += [base | row for row in results]
    for scale in sorted(read_of):
        published.announce(scale)
    return pandas.DataFrame(rows, columns=COLUMNS)


def here(job: Job) -> bool:
    """Whether the run of ``job`` lies finished under ``runs/``: published results are rows, without weights and features."""
    return Run(job.config).done


def lacking(jobs: Iterable[Job]) -> str:
    """A sentence for a reader that names the runs of ``jobs`` which are not `here`; empty if all are."""
    names = list(dict.fromkeys(job.config.name for job in jobs if not here(job)))
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"left out: this needs the weights of {', '.join(names[:3])}{more}, not under {paths.runs()}; "
        f"restore them with `studylib restore`, or train them: set {published.SWITCH}=off and call this again"
    )


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


def carry_out(jobs: list[Job], workers: int | None = None, show: str = "auto") -> None:
    """Train and evaluate ``jobs``, which are `missing`; arguments and errors are those of `run`."""
    distributed.started()  # refuses an environment that no worker could train in
    workers = workers or default_workers()
    with stop_requested() as stop, Pool(jobs, show) as pool:
        while pool.busy:
            if stop.is_set():
                raise SystemExit(RESUME_EXIT)
            pool.turn(workers)
    pool.refuse_failures()
