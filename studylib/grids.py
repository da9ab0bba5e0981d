"""The named grids of the study: which runs a notebook needs and what is evaluated of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from studylib import suites
from studylib.bench.loop import bare_speed
from studylib.config import METHODS, resolve, scale
from studylib.data import load
from studylib.errors import choose
from studylib.evaluate import Evaluation
from studylib.models import STAGES
from studylib.probe import default
from studylib.study import Job
from studylib.training import Run
from studylib.training.loop import snapshot_epochs
from studylib.transfer import (
    Broad12,
    Episodes,
    FineTune,
    Knn,
    KnnGrid,
    LinearFineTune,
    LinearPath,
    MemoryFineTune,
    PerClass,
    RidgePath,
    TrexLarge,
    TrexSmall8,
    few_shot,
)

SEEN = {"protocols": (Knn(), LinearPath(C_low=1e-4, C_high=1e2, values=7)), "measures": "none"}
"""the probe on all pre-training images; ours: above this C it does not converge in minutes, and was never the best"""
LAYERS = (*STAGES, "projector1", "projector2", "projector3", "projector")


def quickstart(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """SL and SL-MLP with what a first look needs: the encoder's output at the end of training, on a few data sets.

    ``seeds``: how many, from 0 up; 0 takes the scale's number. ``overrides``: settings for every run.
    """
    content = scale(scale_name)
    others = [Evaluation(dataset=name) for name in (*content["unseen"][:2], *content["domains"][:2])]
    # A linear probe on all pre-training images takes longer than all others together.
    evaluations = (Evaluation(dataset=content["upstream"], protocols=()), *others)
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
        names = [*content["unseen"], *content["domains"]]
        plain = [Evaluation(dataset=name) for name in names if name not in content["stagewise"]]
        whole = [Evaluation(dataset=upstream, layers=LAYERS, protocols=()), Evaluation(dataset=upstream, **SEEN)]
        along = [
            Evaluation(dataset=name, epoch=epoch, **({} if name == first else {"protocols": ()}))
            for name in (upstream, first)
            for epoch in sorted(snapshot_epochs(epochs, job.config.monitor.snapshots) - {epochs})
        ]
        jobs.append(replace(job, evaluations=(*plain, *staged, *whole, *along)))
    return jobs


def methods(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """Every method at the same budget, on the pre-training classes and on the whole transfer suite; random weights with it."""
    content = scale(scale_name)
    evaluations = tuple(Evaluation(dataset=name) for name in (*content["unseen"], *content["domains"]))
    evaluations += (Evaluation(dataset=content["upstream"], protocols=()), Evaluation(dataset=content["upstream"], **SEEN))
    start = tuple(replace(evaluation, epoch=0) for evaluation in evaluations)
    jobs = []
    for method, seed in product(METHODS, range(seeds or content["seeds"])):
        config = resolve(scale_name, method, seed, overrides)
        seen = evaluations + (start if method == "sl" else ())
        jobs.append(Job(scale=scale_name, variant=method, config=config, evaluations=seen))
    return jobs


SUPERVISED = ("sl", "sl_mlp", "look", "trex", "trex_star")


def protocols(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The papers' methods and random weights on the scale's suite, by the whole measure suite and every protocol.

    t-ReX's protocol for large sets and CoG's few-shot probe are carried out on CoG-like levels, that for small sets on the
    others, as t-ReX does; episodes where five classes have 20 images. Sets of the suite that are missing are left out
    (`studylib.suites.missing`).
    """
    content = scale(scale_name)
    names = suites.suite(content["suite"])
    lacking = suites.missing(names)
    evaluations = ()
    for name in [name for name in names if name not in lacking]:
        chosen = EVERYWHERE + (FOR_LARGE if suites.large(name) else FOR_SMALL)
        if few_shot.applies(load(name).labels, Episodes()):
            chosen += (Episodes(),)
        evaluations += (Evaluation(dataset=name, measures="all", protocols=chosen),)
    start = tuple(replace(evaluation, epoch=0) for evaluation in evaluations)
    return [
        Job(
            scale=scale_name,
            variant=method,
            config=resolve(scale_name, method, seed, overrides),
            evaluations=evaluations + (start if method == "sl" else ()),
        )
        for seed, method in product(range(seeds or content["seeds"]), SUPERVISED)
    ]


EVERYWHERE = (Knn(), KnnGrid(), LinearPath(), RidgePath(), Broad12())
FOR_LARGE, FOR_SMALL = (TrexLarge(), PerClass()), (TrexSmall8(),)


# The benchmark's grid takes minutes for each point. Ours, where the scale says so: its larger rate and smaller batch, 15 epochs
# and no choice. Of the rivals, with the encoder trained and frozen, both choose between four points and see as many images.
ONE_POINT = FineTune(learning_rates=(0.01,), batches=(32,), weight_decays=(0.0,), search_epochs=0, epochs=15)
RIVALS = (
    LinearFineTune(),
    MemoryFineTune(),
    LinearFineTune(what="linear", search_epochs=20, epochs=20),
    MemoryFineTune(what="projection", learning_rates=(0.1, 0.03), search_epochs=20, epochs=20),
)


def fine_tuning(scale_name: str, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The runs of `protocols`, and random weights, fine-tuned: the whole network, LOOK's way against its rival (L5), detection.

    Missing sets are left out. ``seeds``: by default the scale's number for ablations; 0 leaves the grid out.
    """
    content = scale(scale_name)
    count = content["ablation_seeds"] if seeds is None else seeds
    chosen = (FineTune() if content["fine_tune_grid"] else ONE_POINT, *RIVALS)
    lacking = suites.missing([*content["fine_tune"], content["detection"]])
    evaluations = tuple(Evaluation(dataset=name, measures="none", protocols=chosen) for name in content["fine_tune"])
    boxes = default("detection", content["detection"])
    evaluations += (Evaluation(dataset=content["detection"], measures="none", protocols=(boxes,)),)
    evaluations = tuple(evaluation for evaluation in evaluations if evaluation.dataset not in lacking)
    start = tuple(replace(evaluation, epoch=0) for evaluation in evaluations)
    return [
        Job(
            scale=scale_name,
            variant=method,
            config=resolve(scale_name, method, seed, overrides),
            evaluations=evaluations + (start if method == "sl" else ()),
        )
        for seed, method in product(range(count), SUPERVISED)
    ]


def ablation(
    scale_name: str, rows: dict[str, tuple[str, dict[str, Any]]], seeds: int | None, overrides: dict[str, Any] | None
) -> list[Job]:
    """Jobs for ``rows``: variant -> (method, its settings), evaluated upstream by kNN and on the unseen classes.

    ``seeds``: by default the scale's number for ablations; 0 leaves the grid out.
    """
    content = scale(scale_name)
    evaluations = tuple(Evaluation(dataset=name, measures="none") for name in content["unseen"])
    jobs = []
    for variant, (method, settings) in rows.items():
        for seed in range(content["ablation_seeds"] if seeds is None else seeds):
            config = resolve(scale_name, method, seed, (overrides or {}) | settings)
            jobs.append(Job(scale=scale_name, variant=variant, config=config, evaluations=evaluations))
    return jobs


def components(scale_name: str, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The projector with its linear layers, batch norm and ReLU on and off: claim S11, papers.md 2.8.

    The corner with nothing is ``sl``, the corner with everything ``sl_mlp``. ReLU alone changes nothing: pooled features of
    a ResNet are not negative; it is left out.
    """
    rows = {}
    for linear, norm, relu in product((False, True), repeat=3):
        if (linear, norm, relu) == (False, False, True):
            continue
        parts = [name for name, on in (("linear", linear), ("bn", norm), ("relu", relu)) if on]
        settings = {
            "projector.linear": linear,
            "projector.batch_norm": norm,
            "projector.activation": "relu" if relu else "none",
        } | ({} if linear else {"projector.out": 0})
        rows["+".join(parts) or "none"] = ("sl_mlp", settings) if parts else ("sl", {})
    return ablation(scale_name, rows, seeds, overrides)


def projector(scale_name: str, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> list[Job]:
    """SL-MLP's projector: depth 0 to 3, and at each depth one change of width, bottleneck, input l2 and batch norm."""
    width, out = (getattr(resolve(scale_name, "sl_mlp").projector, name) for name in ("width", "out"))
    changes = {
        "": {},
        f", width {width // 4}": {"projector.width": width // 4},
        f", bottleneck {out // 4}": {"projector.out": out // 4},
        ", input l2": {"projector.input_l2": True},
        ", no batch norm": {"projector.batch_norm": False},
    }
    rows = {}
    for depth, (name, change) in product(range(4), changes.items()):
        if depth or not change.keys() & {"projector.width", "projector.batch_norm"}:  # those of hidden blocks only
            rows[f"depth {depth}{name}"] = ("sl_mlp", {"projector.hidden_layers": depth} | change)
    return ablation(scale_name, rows, seeds, overrides)


NO_PROJECTOR = {"projector.hidden_layers": 0, "projector.out": 0}


def with_and_without(scale_name: str, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> list[Job]:
    """Every method with its projector and without: claim S5. For SL, with is SL-MLP."""
    rows = {"sl off": ("sl", {}), "sl on": ("sl_mlp", {})}
    for method in [method for method in METHODS if method not in ("sl", "sl_mlp")]:
        rows |= {f"{method} off": (method, NO_PROJECTOR), f"{method} on": (method, {})}
    return ablation(scale_name, rows, seeds, overrides)


def look_starts(scale_name: str, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> list[Job]:
    """LOOK from a random network, by each of the starts that ``look.start`` offers."""
    starts = ("fixed", "filled", "ramp", "warmup", "falling")
    return ablation(scale_name, {start: ("look", {"look.start": start}) for start in starts}, seeds, overrides)


def look_neighbours(scale_name: str, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> list[Job]:
    """LOOK's k from an eighth of the scale's to the length of the bank (soft-neighbour NCA), and τ: claim L7."""
    base = resolve(scale_name, "look")
    numbers = sorted({max(2, base.look.k // 8), base.look.k, 4 * base.look.k, base.bank.length})
    pairs = product(
        [k for k in numbers if k <= base.bank.length], (base.temperature / 2, base.temperature, 2 * base.temperature)
    )
    rows = {f"k {k}, τ {tau:g}": ("look", {"look.k": k, "temperature": tau}) for k, tau in pairs}
    return ablation(scale_name, rows, seeds, overrides)


def trex_buildup(scale_name: str, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> list[Job]:
    """t-ReX from its base (cosine softmax, one crop, no projector), adding multi-crop, projector, OCM: claims T2 and T3."""
    one_crop = {"multi_crop.local_crops": 0, "multi_crop.local_size": 0}
    rows = {
        "base": ("trex_plain", NO_PROJECTOR | one_crop),
        "+ multi-crop": ("trex_plain", NO_PROJECTOR),
        "+ projector": ("trex_plain", {}),
        "+ OCM": ("trex", {}),
    }
    return ablation(scale_name, rows, seeds, overrides)


def trex_memory(scale_name: str, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> list[Job]:
    """t-ReX with banks from a quarter of the scale's to four times it, and with the official code's quirks: claim T3."""
    base = resolve(scale_name, "trex")
    lengths = sorted({max(base.optimisation.batch, round(base.bank.length * factor)) for factor in (0.25, 0.5, 1, 2, 4)})
    rows = {f"bank {length}": ("trex", {"bank.length": length}) for length in lengths}
    rows["random start, dropped tail"] = ("trex", {"bank.start": "random", "bank.tail": "drop"})
    rows["averaged buffers"] = ("trex", {"ema.buffers": "average"})
    return ablation(scale_name, rows, seeds, overrides)


def trex_crops(scale_name: str, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> list[Job]:
    """t-ReX and t-ReX* with each other's crop scales, so that depth and crops are told apart: claim T1."""
    rows = {}
    for method, other in product(("trex", "trex_star"), repeat=2):
        crops = resolve(scale_name, other)
        settings = {
            "augmentation.crop_scale": crops.augmentation.crop_scale,
            "multi_crop.local_scale": crops.multi_crop.local_scale,
        }
        rows[f"{method}, crops of {other}"] = (method, settings)
    return ablation(scale_name, rows, seeds, overrides)


GRIDS: dict[str, Callable[..., list[Job]]] = {
    "comparison": comparison,
    "methods": methods,
    "protocols": protocols,
    "fine_tuning": fine_tuning,
    "components": components,
    "projector": projector,
    "with_and_without": with_and_without,
    "look_starts": look_starts,
    "look_neighbours": look_neighbours,
    "trex_buildup": trex_buildup,
    "trex_memory": trex_memory,
    "trex_crops": trex_crops,
}


def plan(scale_name: str, chosen: Sequence[str] = ()) -> Any:
    """A pandas DataFrame with a row for each run of the grids ``chosen`` (by default all): its state and what it still costs.

    ``minutes`` is for one worker, from the images/s that this machine reached before with the same method and encoder, or
    else from a few steps made now; evaluation comes on top. Runs that two grids share are counted once.

    Raises:
        InputError: unknown scale or grid, or a data set that cannot be read.
    """
    import pandas

    speeds: dict[Any, float] = {}
    rows, seen = [], set()
    for grid in [choose("grid", name, GRIDS) for name in chosen] or GRIDS:
        for job in GRIDS[grid](scale_name):
            if job.config in seen:
                continue
            seen.add(job.config)
            run, settings = Run(job.config), job.config.optimisation
            done = len(run.metrics())
            images = load(job.config.data)
            steps = int((images.split == 0).sum()) // settings.batch
            left = (settings.epochs - done) * steps * settings.batch
            key = (job.config.method, job.config.encoder, job.config.projector.exists, job.config.multi_crop, images.name)
            if timing := run.timing():
                speeds[key] = timing[-1]["images_per_s"]
            if left and key not in speeds:
                speeds[key] = bare_speed(job.config, images, steps=5)
            state = "done" if job.done else "trained" if run.done else f"{done}/{settings.epochs} epochs" if done else "missing"
            rows.append(
                {"grid": grid, "variant": job.variant, "seed": job.config.seed, "run": job.config.name, "state": state}
                | {"images": left, "minutes": round(left / speeds[key] / 60, 1) if left else 0.0}
            )
    return pandas.DataFrame(rows, columns=["grid", "variant", "seed", "run", "state", "images", "minutes"])
