"""The named grids of the study: which runs a notebook needs and what is evaluated of them."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

from studylib.bench.loop import bare_speed
from studylib.config import resolve, scale
from studylib.data import load
from studylib.evaluate import Evaluation
from studylib.models import STAGES
from studylib.study import Job
from studylib.training import Run
from studylib.training.loop import snapshot_epochs

LAYERS = (*STAGES, "projector1", "projector2", "projector3", "projector")


def quickstart(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """SL and SL-MLP with what a first look needs: the encoder's output at the end of training, no probe upstream.

    ``seeds``: how many, from 0 up; 0 takes the scale's number. ``overrides``: settings for every run.
    """
    content = scale(scale_name)
    others = [Evaluation(dataset=name) for name in (*content["unseen"], *content["domains"])]
    # A linear probe on all pre-training images takes longer than all others together.
    evaluations = (Evaluation(dataset=content["upstream"], transfer=False), *others)
    return [
        Job(scale=scale_name, variant=method, config=resolve(scale_name, method, seed, overrides), evaluations=evaluations)
        for method, seed in product(("sl", "sl_mlp"), range(seeds or content["seeds"]))
    ]


def comparison(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The runs of `quickstart`, also at every layer where the paper looks at stages, and along training."""
    content = scale(scale_name)
    upstream, first = content["upstream"], content["unseen"][0]
    jobs = []
    for job in quickstart(scale_name, seeds, overrides):
        epochs = job.config.optimisation.epochs
        staged = [Evaluation(dataset=name, layers=LAYERS) for name in content["stagewise"]]
        plain = [evaluation for evaluation in job.evaluations if evaluation.dataset not in (upstream, *content["stagewise"])]
        whole = [  # probes on all pre-training images cost minutes: one, at the encoder's output
            Evaluation(dataset=upstream, layers=LAYERS, transfer=False),
            Evaluation(dataset=upstream, measures=False),
        ]
        along = [
            Evaluation(dataset=name, epoch=epoch, transfer=name == first)
            for name in (upstream, first)
            for epoch in sorted(snapshot_epochs(epochs, job.config.monitor.snapshots) - {epochs})
        ]
        jobs.append(replace(job, evaluations=(*plain, *staged, *whole, *along)))
    return jobs


def components(scale_name: str, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The projector with its linear layers, batch norm and ReLU on and off: claim S11, papers.md 2.8.

    The corner with nothing is ``sl``, the corner with everything ``sl_mlp``. ReLU alone changes nothing: pooled features of
    a ResNet are not negative; it is left out. ``seeds``: by default the scale's number for ablations.
    """
    content = scale(scale_name)
    evaluations = tuple(Evaluation(dataset=name) for name in content["unseen"])
    jobs = []
    for linear, norm, relu in product((False, True), repeat=3):
        if (linear, norm, relu) == (False, False, True):
            continue
        parts = [name for name, on in (("linear", linear), ("bn", norm), ("relu", relu)) if on]
        settings = {
            "projector.linear": linear,
            "projector.batch_norm": norm,
            "projector.activation": "relu" if relu else "none",
        } | ({} if linear else {"projector.out": 0})
        for seed in range(content["ablation_seeds"] if seeds is None else seeds):
            given = (overrides or {}) | (settings if parts else {})
            config = resolve(scale_name, "sl_mlp" if parts else "sl", seed, given)
            jobs.append(Job(scale=scale_name, variant="+".join(parts) or "none", config=config, evaluations=evaluations))
    return jobs


GRIDS: dict[str, Callable[..., list[Job]]] = {"comparison": comparison, "components": components}


def plan(scale_name: str) -> Any:
    """A pandas DataFrame with a row for each run of the named grids at a scale: its state and what it still costs.

    ``minutes`` is for one worker, from the images/s that this machine reached before with the same encoder, or else from a
    few steps made now. Runs that two grids share are counted once.

    Raises:
        InputError: the scale is unknown, or its data set cannot be read.
    """
    import pandas

    speeds: dict[Any, float] = {}
    rows, seen = [], set()
    for grid, jobs in GRIDS.items():
        for job in jobs(scale_name):
            if job.config in seen:
                continue
            seen.add(job.config)
            run, settings = Run(job.config), job.config.optimisation
            done = len(run.metrics())
            images = load(job.config.data)
            steps = int((images.split == 0).sum()) // settings.batch
            key = (
                job.config.method,
                job.config.encoder,
                job.config.projector.exists,
                job.config.multi_crop,
                images.images.shape[-1],
            )
            if timing := run.timing():
                speeds[key] = timing[-1]["images_per_s"]
            if key not in speeds:
                speeds[key] = bare_speed(job.config, images, steps=5)
            left = (settings.epochs - done) * steps * settings.batch
            state = "done" if job.done else "trained" if run.done else f"{done}/{settings.epochs} epochs" if done else "missing"
            rows.append(
                {"grid": grid, "variant": job.variant, "seed": job.config.seed, "run": job.config.name, "state": state}
                | {"images": left, "minutes": round(left / speeds[key] / 60, 1)}
            )
    return pandas.DataFrame(rows)
