"""The named grids of the study: the runs of each, and their evaluations."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import wraps
from itertools import product
from typing import Any

from studylib import suites
from studylib.config import RunConfig, resolve, scale
from studylib.data import HELD_OUT, load
from studylib.errors import choose
from studylib.evaluation.evaluate import Evaluation
from studylib.evaluation.probe import default
from studylib.method_table import METHODS, OF_THE_PAPERS
from studylib.models import STAGES
from studylib.scale import MOST_SEEDS, Scale
from studylib.study import Job, merged
from studylib.training import Run
from studylib.training.monitor import snapshot_epochs
from studylib.transfer import (
    Broad12,
    Episodes,
    FineTune,
    Knn,
    KnnGrid,
    LinearFineTune,
    LinearProbe,
    MemoryFineTune,
    PerClass,
    RidgeProbe,
    TrainLinear,
    TrexLarge,
    TrexSmall8,
    few_shot,
)

UPSTREAM_PROBES = (Knn(), LinearProbe(C_low=1e-4, C_high=1e2, values=7))
"""the probes on all pre-training images; the largest C is ours: beyond it no fit converged in minutes, and none was the best"""
LAYERS = (*STAGES, "projector1", "projector2", "projector3", "projector")


PUBLISHED = -1
"""number of seeds that stands for a scale's plan and what it publishes beyond it"""

Grid = Callable[..., list[Job]]
"""a function of (scale's name, seeds, overrides)"""

Rows = dict[str, tuple[str, dict[str, Any]]]
"""variant -> (method, settings that override the scale's)"""


def plain(methods: Iterable[str]) -> Rows:
    """A row for each method with the scale's settings."""
    return {method: (method, {}) for method in methods}


def jobs_of(
    grid: str,
    scale_name: str,
    rows: Rows,
    seeds: int,
    overrides: dict[str, Any] | None,
    evaluations: tuple[Evaluation, ...] = (),
) -> list[Job]:
    """``seeds`` jobs for each of ``rows``, by default evaluated on the unseen classes alone.

    Where ``seeds`` is 0 there are as many as the scale's plan gives the grid: one number for it, or one for each row; what it
    does not name has none. Those of the scale's ``published`` come with it, marked as ``beyond`` the plan if ``seeds`` is not
    `PUBLISHED`. ``overrides`` are settings for every run; those of a row win.
    """
    content = scale(scale_name)
    plan, shown = (count.get(grid, 0) for count in (content.seeds, content.published))
    evaluations = evaluations or tuple(Evaluation(dataset=name, measures="none") for name in content.unseen)
    jobs = []
    for variant, (method, settings) in rows.items():
        planned, more = (count.get(variant, 0) if isinstance(count, dict) else count for count in (plan, shown))
        for seed in range(seeds if seeds > 0 else max(planned, more)):
            config = resolve(scale_name, method, seed, (overrides or {}) | settings)
            asked = (*evaluations, *(() if grid == "tuning" else learned(config, evaluations)))
            beyond = not seeds and seed >= planned
            jobs.append(Job(scale=scale_name, variant=variant, config=config, evaluations=asked, beyond=beyond))
    return jobs


def learns(evaluation: Evaluation) -> bool:
    """Whether an evaluation is one of `learned`."""
    return TrainLinear() in evaluation.protocols


def where_done(grid: Grid) -> Grid:
    """``grid`` without the jobs beyond the scale's plan that are not done, here or published, with all that it asks of them."""

    @wraps(grid)
    def shown(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
        return [job for job in grid(scale_name, seeds, overrides) if not job.beyond or job.done]

    return shown


def learned(config: RunConfig, evaluations: tuple[Evaluation, ...]) -> tuple[Evaluation, ...]:
    """How far a run has learned its own classes, as far as ``evaluations`` do not ask it: accuracy on held-out images and, of a
    linear probe, on training images. Without it no claim is judged by the run."""
    own = (one for one in evaluations if one.dataset == config.data and one.epoch is None and "stage5" in one.layers)
    asked = {protocol for one in own for protocol in one.protocols}
    missing = tuple(protocol for protocol in (*UPSTREAM_PROBES, TrainLinear()) if protocol not in asked)
    return (Evaluation(dataset=config.data, measures="none", protocols=missing),) if missing else ()


def with_start(jobs: list[Job]) -> list[Job]:
    """``jobs``, those of SL evaluated before the first step as well: random weights."""
    return [
        replace(job, evaluations=job.evaluations + tuple(replace(one, epoch=0) for one in job.evaluations if not learns(one)))
        if job.variant == "sl"
        else job
        for job in jobs
    ]


def before_end(config: RunConfig) -> list[int]:
    """The epochs before the last after which weights are kept."""
    last = config.optimisation.epochs
    return sorted(snapshot_epochs(last, config.monitor.snapshots) - {last})


def transfer(content: Scale, measures: str = "none") -> tuple[Evaluation, ...]:
    """kNN and linear probes on every transfer set and on the pre-training classes, where ``measures`` are taken as well."""
    sets = (Evaluation(dataset=name, measures="none") for name in content.transfer)
    return (*sets, Evaluation(dataset=content.upstream, measures=measures, protocols=UPSTREAM_PROBES))


@where_done
def quickstart(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """SL and SL-MLP with what a first look needs: the encoder's output at the end of training, on a few data sets.

    ``seeds``: how many, from 0 up; 0 takes the scale's plan for the grid ``comparison``. ``overrides``: for every run.
    """
    content = scale(scale_name)
    others = [Evaluation(dataset=name) for name in (*content.unseen[:2], *content.domains[:2])]
    evaluations = (Evaluation(dataset=content.upstream, protocols=()), *others)
    return jobs_of("comparison", scale_name, plain(("sl", "sl_mlp")), seeds, overrides, evaluations)


@where_done
def comparison(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The runs of `quickstart`, also at every layer where the paper looks at stages, and along training."""
    content = scale(scale_name)
    upstream, first = content.upstream, content.unseen[0]
    jobs = []
    for job in quickstart(scale_name, seeds, overrides):
        staged = [Evaluation(dataset=name, layers=LAYERS) for name in content.stagewise]
        names = content.transfer
        others = [Evaluation(dataset=name) for name in names if name not in content.stagewise]
        whole = [
            Evaluation(dataset=upstream, layers=LAYERS, protocols=()),
            Evaluation(dataset=upstream, measures="none", protocols=(*UPSTREAM_PROBES, TrainLinear())),
        ]
        along = [
            Evaluation(dataset=name, epoch=epoch, **({} if name == first else {"protocols": ()}))
            for name in (upstream, first)
            for epoch in before_end(job.config)
        ]
        jobs.append(replace(job, evaluations=(*others, *staged, *whole, *along)))
    return jobs


@where_done
def methods(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """Every method at the same budget, on the pre-training classes and on the whole transfer suite; random weights with it."""
    evaluations = transfer(scale(scale_name), measures="all")
    return with_start(jobs_of("methods", scale_name, plain(METHODS), seeds, overrides, evaluations))


@where_done
def features(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The runs of `methods` and of `trex_depth`, their features by the whole measure suite and by their spectrum, at the end
    and, of the papers' own methods with seed 0, along training.

    With seed 0 the pre-training set is measured at every layer as well, by the suite at the end alone; and of every method
    the first unseen set is probed along training.
    """
    content = scale(scale_name)
    upstream, first = content.upstream, content.unseen[0]
    inner = tuple(layer for layer in LAYERS if layer != "stage5")
    jobs = []
    for job in merged([*methods(scale_name, seeds, overrides), *trex_depth(scale_name, seeds, overrides)]):
        one = job.config.seed == 0
        start = [0] if job.variant == "sl" else []  # random weights
        snapshots = before_end(job.config) if one else start
        moments = snapshots if job.variant in OF_THE_PAPERS else start
        later = [epoch for epoch in moments if epoch not in start]  # `methods` has the end, and the start of SL
        asked = [(upstream, epoch) for epoch in later] + [(first, epoch) for epoch in (None, *start)]
        measured = [Evaluation(dataset=name, epoch=epoch, measures="all", protocols=()) for name, epoch in asked]
        whole = {"dataset": upstream, "protocols": ()}
        measured += [Evaluation(**whole, epoch=epoch, layers=inner, measures="all") for epoch in (None, *start) if one]
        layers = LAYERS if one else ("stage5",)
        measured += [Evaluation(**whole, epoch=epoch, layers=layers, measures="spectrum") for epoch in (None, *moments)]
        probed = [
            Evaluation(dataset=first, epoch=epoch, measures="none")
            for epoch in (None, *(snapshots if job.variant in METHODS else start))
        ]
        known = job.evaluations
        jobs.append(replace(job, evaluations=(*known, *measured, *[one for one in probed if one not in known])))
    return jobs


@where_done
def modes(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """Pre-training on labels that hide others (case and typeface of a letter, the fine class in a coarse one): claim L1.

    What is hidden is looked for inside the classes, by as many clusters as are hidden and by as many as the silhouette finds,
    and told apart by probes. Where the scale hides nothing there are no runs.
    """
    content = scale(scale_name)
    data = content.modes.data
    probes = tuple(Evaluation(dataset=name, measures="none") for name in content.modes.hidden)
    inside = tuple(Evaluation(dataset=data, measures=kind, protocols=()) for kind in ("all", "modes"))
    evaluations = (*inside, *probes)
    rows = plain(("sl", "sl_mlp", "look", "supcon")) if probes else {}
    return jobs_of("modes", scale_name, rows, seeds, (overrides or {}) | {"data": data}, evaluations)


@where_done
def protocols(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The papers' methods and random weights on the scale's suite, by every protocol.

    t-ReX's protocol for large sets and CoG's few-shot probe are carried out on CoG-like levels, that for small sets on the
    others, as t-ReX does; where the scale says ``trials: false`` not that, as 30 fits of scikit-learn take minutes a set.
    Episodes where five classes have 20 images. Sets of the suite that are missing are left out (`studylib.suites.missing`).
    """
    content = scale(scale_name)
    names = suites.suite(content.suite)
    lacking = suites.missing(names)
    evaluations = ()
    for name in [name for name in names if name not in lacking]:
        chosen = EVERYWHERE + (FOR_LARGE if suites.large(name) else FOR_SMALL if content.trials else ())
        if few_shot.applies(load(name).labels, Episodes()):
            chosen += (Episodes(),)
        evaluations += (Evaluation(dataset=name, measures="none", protocols=chosen),)
    return with_start(jobs_of("protocols", scale_name, plain(OF_THE_PAPERS), seeds, overrides, evaluations))


EVERYWHERE = (Knn(), KnnGrid(), LinearProbe(), RidgeProbe(), Broad12())
FOR_LARGE, FOR_SMALL = (TrexLarge(), PerClass()), (TrexSmall8(),)


# The benchmark's grid takes minutes for each point. Ours, where the scale says so: its larger rate and smaller batch, 15 epochs
# and no choice. Of the rivals, with the encoder trained and frozen, both choose between four points; the memory's way gets half
# the epochs: whether it is as good at a lower cost (L5).
ONE_POINT = FineTune(learning_rates=(0.01,), batches=(32,), weight_decays=(0.0,), search_epochs=0, epochs=15)
RIVALS = (
    LinearFineTune(),
    MemoryFineTune(search_epochs=2, epochs=4),
    LinearFineTune(what="linear", search_epochs=20, epochs=20),
    MemoryFineTune(what="projection", learning_rates=(0.1, 0.03), search_epochs=10, epochs=10),
)


@where_done
def fine_tuning(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The runs of `protocols`, and random weights, fine-tuned: the whole network, LOOK's way against its rival (L5), detection.

    Missing sets are left out.
    """
    content = scale(scale_name)
    chosen = (FineTune() if content.fine_tune_grid else ONE_POINT, *RIVALS)
    lacking = suites.missing([*content.fine_tune, content.detection])
    evaluations = tuple(Evaluation(dataset=name, measures="none", protocols=chosen) for name in content.fine_tune)
    boxes = default("detection", content.detection)
    evaluations += (Evaluation(dataset=content.detection, measures="none", protocols=(boxes,)),)
    evaluations = tuple(evaluation for evaluation in evaluations if evaluation.dataset not in lacking)
    return with_start(jobs_of("fine_tuning", scale_name, plain(OF_THE_PAPERS), seeds, overrides, evaluations))


@where_done
def components(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The projector with its linear layers, batch norm and ReLU on and off: claim S11, papers/README.md 2.8.

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
    return jobs_of("components", scale_name, rows, seeds, overrides)


@where_done
def projector(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """SL-MLP's projector: depth 0 to 3, and at the scale's depth one change of width, bottleneck, input l2 and batch norm."""
    base = resolve(scale_name, "sl_mlp").projector
    rows = {f"depth {depth}": ("sl_mlp", {"projector.hidden_layers": depth}) for depth in range(4)}
    rows |= {
        "quarter width": ("sl_mlp", {"projector.width": base.width // 4}),
        "quarter bottleneck": ("sl_mlp", {"projector.out": base.out // 4}),
        "input l2": ("sl_mlp", {"projector.input_l2": True}),
        "no batch norm": ("sl_mlp", {"projector.batch_norm": False}),
    }
    return jobs_of("projector", scale_name, rows, seeds, overrides)


NO_PROJECTOR = {"projector.hidden_layers": 0, "projector.out": 0}


@where_done
def with_and_without(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """Every method with its MLP and without, stage by stage: claim S5. For SL, with is SL-MLP; MoCo v1 itself has a linear
    layer in its place, and is the one without (papers/README.md 2.5)."""
    rows: Rows = {"sl off": ("sl", {}), "sl on": ("sl_mlp", {})}
    mlp = {"projector.hidden_layers": 1, "projector.batch_norm": resolve(scale_name, "moco_v2").projector.batch_norm}
    for method in [method for method in METHODS if method not in ("sl", "sl_mlp")]:
        pair = ({}, mlp) if method == "moco_v1" else (NO_PROJECTOR, {})
        rows |= {f"{method} off": (method, pair[0]), f"{method} on": (method, pair[1])}
    content = scale(scale_name)
    staged = Evaluation(dataset=content.stagewise[0], layers=STAGES, measures="none", protocols=(LinearProbe(),))
    others = [Evaluation(dataset=name, measures="none") for name in content.unseen if name != staged.dataset]
    return jobs_of("with_and_without", scale_name, rows, seeds, overrides, (staged, *others))


@where_done
def backbones(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """SL, SL-MLP and LOOK on the scale's encoder and on its second one: claim L4 and SL-MLP's table of backbones."""
    other = scale(scale_name).backbone
    rows = {}
    for method in ("sl", "sl_mlp", "look"):
        base = resolve(scale_name, method).encoder.arch
        rows |= {f"{method} {base}": (method, {}), f"{method} {other}": (method, {"encoder.arch": other})}
    return jobs_of("backbones", scale_name, rows, seeds, overrides)


@where_done
def look_starts(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """LOOK from a random network, by each of the starts that ``look.start`` offers."""
    starts = ("fixed", "filled", "ramp", "warmup", "falling")
    rows = {start: ("look", {"look.start": start}) for start in starts}
    return jobs_of("look_starts", scale_name, rows, seeds, overrides)


@where_done
def look_neighbours(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """LOOK's k from a quarter of the scale's to the length of the bank (soft-neighbour NCA), its τ and its bank: claim L7."""
    base = resolve(scale_name, "look")
    rows: Rows = {"base": ("look", {})}
    rows |= {f"k {k}": ("look", {"look.k": k}) for k in (max(2, base.look.k // 4), max(2, base.look.k // 2))}
    rows["k all"] = ("look", {"look.k": base.bank.length})
    rows |= {f"τ {tau:g}": ("look", {"temperature": tau}) for tau in (base.temperature / 2, 2 * base.temperature)}
    rows[f"bank {2 * base.bank.length}"] = ("look", {"bank.length": 2 * base.bank.length})
    return jobs_of("look_neighbours", scale_name, rows, seeds, overrides)


@where_done
def trex_buildup(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """t-ReX from its base (cosine softmax, one crop, no projector), adding multi-crop, projector, OCM: claims T2 and T3.

    Beside it LOOK with t-ReX's crops, as t-ReX's authors ran it (claim L8). Of t-ReX with a projector the class vectors,
    learned or of the memory, are compared with class means: at the end and, with seed 0, along training.
    """
    one_crop = {"multi_crop.local_crops": 0, "multi_crop.local_size": 0}
    trex = resolve(scale_name, "trex")
    local = {
        f"multi_crop.{name}": getattr(trex.multi_crop, name)
        for name in ("local_crops", "local_size", "local_scale", "local_blur")
    }
    rows = {
        "base": ("trex_plain", NO_PROJECTOR | one_crop),
        "+ multi-crop": ("trex_plain", NO_PROJECTOR),
        "+ projector": ("trex_plain", {}),
        "+ OCM": ("trex", {}),
        "LOOK + multi-crop": ("look", local | {"augmentation.crop_scale": trex.augmentation.crop_scale}),
    }
    jobs = []
    for job in jobs_of("trex_buildup", scale_name, rows, seeds, overrides, transfer(scale(scale_name))):
        asked = {"dataset": job.config.data, "layers": ("projector",), "measures": "prototypes", "protocols": ()}
        moments = (None, *(before_end(job.config) if job.config.seed == 0 else ()))
        compared = [Evaluation(**asked, epoch=epoch) for epoch in moments if job.variant in ("+ projector", "+ OCM")]
        jobs.append(replace(job, evaluations=(*job.evaluations, *compared)))
    return jobs


@where_done
def trex_depth(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """t-ReX with 0 to 3 hidden layers in its projector, all else equal: claim T1."""
    rows = {f"depth {depth}": ("trex", {"projector.hidden_layers": depth}) for depth in range(4)}
    return jobs_of("trex_depth", scale_name, rows, seeds, overrides, transfer(scale(scale_name), measures="all"))


@where_done
def trex_parts(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """t-ReX with one part changed: width, bottleneck, input l2, τ: claim T9."""
    base = resolve(scale_name, "trex")
    rows = {
        "base": ("trex", {}),
        "quarter width": ("trex", {"projector.width": base.projector.width // 4}),
        "quarter bottleneck": ("trex", {"projector.out": base.projector.out // 4}),
        "no input l2": ("trex", {"projector.input_l2": False}),
        "τ halved": ("trex", {"temperature": base.temperature / 2}),
        "τ doubled": ("trex", {"temperature": base.temperature * 2}),
    }
    return jobs_of("trex_parts", scale_name, rows, seeds, overrides, transfer(scale(scale_name)))


@where_done
def trex_memory(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """t-ReX with banks from a quarter of the scale's to four times it, and with the official code's quirks: claim T3."""
    base = resolve(scale_name, "trex")
    lengths = sorted({max(base.optimisation.batch, round(base.bank.length * factor)) for factor in (0.25, 1, 4)})
    rows: Rows = {f"bank {length}": ("trex", {"bank.length": length}) for length in lengths}
    rows["random start, dropped tail"] = ("trex", {"bank.start": "random", "bank.tail": "drop"})
    rows["averaged buffers"] = ("trex", {"ema.buffers": "average"})
    return jobs_of("trex_memory", scale_name, rows, seeds, overrides)


@where_done
def trex_crops(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """t-ReX and t-ReX* with each other's crop scales, so that depth and crops are told apart: claim T1."""
    rows = {}
    for method, other in product(("trex", "trex_star"), repeat=2):
        crops = resolve(scale_name, other)
        settings = {
            "augmentation.crop_scale": crops.augmentation.crop_scale,
            "multi_crop.local_scale": crops.multi_crop.local_scale,
        }
        rows[f"{method}, crops of {other}"] = (method, settings)
    return jobs_of("trex_crops", scale_name, rows, seeds, overrides, transfer(scale(scale_name)))


@where_done
def strong_recipe(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """t-ReX* against cross entropy with label smoothing and twice the epochs, standing in for RSB-A1: claim T5.

    What RSB-A1 has beyond that (mixup, CutMix, binary cross entropy, LAMB) is not here.
    """
    epochs = resolve(scale_name, "sl", 0, overrides).optimisation.epochs
    strong = {"cross_entropy.label_smoothing": 0.1, "optimisation.epochs": 2 * epochs}
    rows = {"trex_star": ("trex_star", {}), "strong": ("sl", strong)}
    return jobs_of("strong_recipe", scale_name, rows, seeds, overrides, transfer(scale(scale_name)))


OF_THE_REGIME = ("sl", "sl_mlp", "look", "trex_star")
BEGUN = 4  # ours: before it a network has hardly learned


@where_done
def regime(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """SL, SL-MLP, LOOK and t-ReX* trained until they have learned their training images, whose labels hide more or less.

    Along training, from epoch `BEGUN` on: how far the training images are learned (`TrainLinear`), and transfer to the same
    sets for all labels. Rows are called ``sl glyphs@group``.
    """
    chosen, jobs = scale(scale_name).regime, []
    for data in chosen.data:
        given = chosen.common | (overrides or {}) | {"data": data}
        rows = {f"{method} {data}": (method, chosen.methods.get(method, {})) for method in OF_THE_REGIME}
        moments = (None, *(epoch for epoch in before_end(resolve(scale_name, "sl", 0, given)) if epoch >= BEGUN))
        fitted = [Evaluation(dataset=data, epoch=epoch, measures="none", protocols=(TrainLinear(),)) for epoch in moments]
        probes = [Evaluation(dataset=name, epoch=epoch, measures="none") for name in chosen.transfer for epoch in moments]
        upstream = Evaluation(dataset=data, measures="none", protocols=UPSTREAM_PROBES)
        jobs += jobs_of("regime", scale_name, rows, seeds, given, (*fitted, *probes, upstream))
    return jobs


@where_done
def tuning(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The settings that the scale's ``tuning`` names for each method, every value with every other, trained on nine tenths of
    the training images; the scale's file has what is best by linear accuracy on the other tenth.

    No set that a claim is judged by is looked at. Rows are called ``look optimisation.lr=0.1 look.k=20``.
    """
    content, jobs = scale(scale_name), []
    data = f"{content.upstream}:{HELD_OUT}"
    given = {"data": data, "monitor.every": 0, "monitor.snapshots": "final"} | (overrides or {})
    for method, values in content.tuning.items():
        tried = [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
        rows = {" ".join([method, *(f"{name}={value}" for name, value in one.items())]): (method, one) for one in tried}
        jobs += jobs_of("tuning", scale_name, rows, seeds, given, (Evaluation(dataset=data, measures="none"),))
    return jobs


# Parts of grids: what one notebook shows of them.


@where_done
def look_fine_tuning(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The runs of `fine_tuning`, only LOOK's way and its rival: claim L5."""
    sets, jobs = scale(scale_name).fine_tune, []
    for job in fine_tuning(scale_name, seeds, overrides):
        kept = (replace(one, protocols=RIVALS) for one in job.evaluations if one.dataset in sets)
        jobs.append(replace(job, evaluations=(*kept, *filter(learns, job.evaluations))))
    return jobs


@where_done
def sl_mlp_fine_tuning(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The runs of `fine_tuning` of SL and SL-MLP."""
    return [job for job in fine_tuning(scale_name, seeds, overrides) if job.variant in ("sl", "sl_mlp")]


@where_done
def sl_mlp_backbones(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The runs of `backbones` of SL and SL-MLP; none where the scale plans none of SL-MLP, as nothing could be compared."""
    jobs = [job for job in backbones(scale_name, seeds, overrides) if job.config.method != "look"]
    return jobs if "sl_mlp" in {job.config.method for job in jobs} else []


@where_done
def sl_mlp_moments(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The runs of `comparison` that are in `features` too, evaluated before the end of training alone: claim S9."""
    measured = {job.config for job in features(scale_name, seeds, overrides)}
    jobs = [job for job in comparison(scale_name, seeds, overrides) if job.config in measured]
    moments = ([one for one in job.evaluations if one.epoch is not None or learns(one)] for job in jobs)
    return [replace(job, evaluations=tuple(kept)) for job, kept in zip(jobs, moments, strict=True)]


@where_done
def depth_features(scale_name: str, seeds: int = 0, overrides: dict[str, Any] | None = None) -> list[Job]:
    """The runs of `features` that are in `trex_depth`, under their names there."""
    depths = {job.config: job.variant for job in trex_depth(scale_name, seeds, overrides)}
    return [replace(job, variant=depths[job.config]) for job in features(scale_name, seeds, overrides) if job.config in depths]


GRIDS: dict[str, Grid] = {
    "comparison": comparison,
    "methods": methods,
    "features": features,
    "modes": modes,
    "protocols": protocols,
    "fine_tuning": fine_tuning,
    "components": components,
    "projector": projector,
    "with_and_without": with_and_without,
    "backbones": backbones,
    "look_starts": look_starts,
    "look_neighbours": look_neighbours,
    "trex_buildup": trex_buildup,
    "trex_depth": trex_depth,
    "trex_parts": trex_parts,
    "trex_memory": trex_memory,
    "trex_crops": trex_crops,
    "strong_recipe": strong_recipe,
    "regime": regime,
    "tuning": tuning,
}


def planned(
    scale_name: str, names: Iterable[str] = (), seeds: int = 0, overrides: dict[str, Any] | None = None
) -> dict[str, list[Job]]:
    """The jobs of the grids ``names`` (by default all), by name.

    Raises:
        InputError: unknown scale or grid.
    """
    return {
        name: GRIDS[name](scale_name, seeds, overrides) for name in [choose("grid", name, GRIDS) for name in names] or GRIDS
    }


def left_out(grid: str, scale_name: str) -> str:
    """What a notebook shows in place of what it would make of a grid's rows that the scale does not plan."""
    if not GRIDS[grid](scale_name, 1):
        return f"left out: grid {grid} has no runs at scale {scale_name}"
    return (
        f"left out: studylib/scales/{scale_name}.yaml does not plan it; add {grid} to its seeds,"
        f" or run the grid alone: studylib grid {grid} --scale {scale_name} --seeds 1"
    )


def trained(grid: str, scale_name: str, seeds: int = 0) -> list[Job]:
    """What a scale plans of a grid, and with it what else was trained, up to `MOST_SEEDS`: what the claims are judged by."""
    jobs = GRIDS[grid](scale_name, seeds)
    known = {(job.variant, job.config) for job in jobs}
    every = (replace(job, beyond=True) for job in GRIDS[grid](scale_name, MOST_SEEDS))
    others = [job for job in every if (job.variant, job.config) not in known]
    return jobs + [job for job in others if Run(job.config).done or job.published is not None]
