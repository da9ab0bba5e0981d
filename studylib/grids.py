"""The named grids of the study: which runs a notebook needs and what is evaluated of them."""

from collections.abc import Callable
from itertools import product
from typing import Any

from studylib.config import resolve, scale
from studylib.evaluate import Evaluation
from studylib.models import STAGES
from studylib.study import Job
from studylib.training.loop import snapshot_epochs

LAYERS = (*STAGES, "projector1", "projector2", "projector3", "projector")


def comparison(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """SL and SL-MLP, everything evaluated: all data sets, every layer where the paper looks at stages, along training.

    ``seeds``: how many, from 0 up; 0 takes the scale's number. ``overrides``: settings for every run.
    """
    content = scale(scale_name)
    everywhere = {content["upstream"], *content["stagewise"]}
    final = [
        Evaluation(dataset=name, layers=LAYERS if name in everywhere else ("stage5",))
        for name in (content["upstream"], *content["unseen"], *content["domains"])
    ]
    jobs = []
    for method, seed in product(("sl", "sl_mlp"), range(seeds or content["seeds"])):
        config = resolve(scale_name, method, seed, overrides)
        epochs = config.optimisation.epochs
        along = [
            Evaluation(dataset=name, epoch=epoch)
            for name in (content["upstream"], content["unseen"][0])
            for epoch in sorted(snapshot_epochs(epochs, config.monitor.snapshots) - {epochs})
        ]
        jobs.append(Job(scale=scale_name, variant=method, config=config, evaluations=(*final, *along)))
    return jobs


def components(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The projector with its linear layers, batch norm and ReLU on and off: claim S11, papers.md 2.8.

    The corner with nothing is ``sl``, the corner with everything ``sl_mlp``. ReLU alone changes nothing: pooled features of
    a ResNet are not negative; it is left out and shown as ``sl``.
    """
    content = scale(scale_name)
    evaluations = tuple(Evaluation(dataset=name) for name in (content["upstream"], *content["unseen"]))
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
        for seed in range(seeds or content["ablation_seeds"]):
            given = (overrides or {}) | (settings if parts else {})
            config = resolve(scale_name, "sl_mlp" if parts else "sl", seed, given)
            jobs.append(Job(scale=scale_name, variant="+".join(parts) or "none", config=config, evaluations=evaluations))
    return jobs


GRIDS: dict[str, Callable[..., list[Job]]] = {"comparison": comparison, "components": components}
