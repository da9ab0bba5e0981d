"""The figures of the study: each takes rows of the results table and returns the figure and the numbers it shows.

Filled markers are ours, hollow ones published. Small dots are seeds, the large marker their mean, bars 95 % intervals.
"""

from collections.abc import Sequence

import numpy
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor

from studylib.report.statistics import interval
from studylib.report.style import ONE_COLUMN, TWO_COLUMNS, apply, look

STAGES = ["stage1", "stage2", "stage3", "stage4", "stage5"]


def samples(images: Tensor, labels: Tensor, classes: Sequence[str], per_class: int = 12) -> tuple[Figure, DataFrame]:
    """A sheet of uint8 images (N, 3, H, W), a row for each class, the first ``per_class`` of it."""
    apply()
    rows = [(labels == label).nonzero()[:per_class, 0] for label in range(len(classes))]
    half = -(-len(classes) // 2)
    height = half * TWO_COLUMNS / (2 * per_class + 1)
    figure, axes = pyplot.subplots(1, 2, figsize=(TWO_COLUMNS, height + 0.2))
    side = images.shape[-1]
    for axis, start in zip(axes, (0, half), strict=True):
        shown = rows[start : start + half]
        sheet = numpy.full((half * side, per_class * side, 3), 255, dtype=numpy.uint8)
        for line, chosen in enumerate(shown):
            for column, row in enumerate(chosen):
                sheet[line * side : (line + 1) * side, column * side : (column + 1) * side] = images[row].permute(1, 2, 0)
        axis.imshow(sheet, interpolation="nearest", aspect="equal")
        axis.set_yticks([line * side + side / 2 for line in range(len(shown))], classes[start : start + half])
        axis.set_xticks([])
        axis.grid(False)
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
    counts = labels.bincount(minlength=len(classes))
    return figure, DataFrame({"class": classes, "images": counts.tolist()})


def transfer(frame: DataFrame, measure: str = "linear_top1") -> tuple[Figure, DataFrame]:
    """Accuracy on each data set, the methods side by side; rows: final epoch, the encoder's output."""
    apply()
    datasets = list(dict.fromkeys(frame.dataset))
    data = _means(frame[frame.measure == measure], ["dataset"])
    figure, axis = pyplot.subplots(figsize=(ONE_COLUMN, 0.9 + 0.28 * len(datasets)))
    variants = list(dict.fromkeys(data.variant))
    for index, variant in enumerate(variants):
        rows = data[data.variant == variant]
        offset = (index - (len(variants) - 1) / 2) * 0.24
        places = [datasets.index(name) + offset for name in rows.dataset]
        seeds = frame[(frame.measure == measure) & (frame.variant == variant)]
        style = look(variant)
        axis.plot(seeds.value, [datasets.index(n) + offset for n in seeds.dataset], ".", color=style["color"], ms=2, alpha=0.5)
        axis.errorbar(rows["mean"], places, xerr=rows.half, linestyle="", **style)
    axis.set_yticks(range(len(datasets)), datasets)
    axis.invert_yaxis()
    axis.set_xlabel(f"{'linear' if measure.startswith('linear') else 'kNN'} top-1 accuracy (%), {_n(data)}")
    figure.legend(loc="outside upper center", ncols=len(variants))
    return figure, data


def comparison(frame: DataFrame, panels: Sequence[tuple[str, DataFrame]]) -> tuple[Figure, DataFrame]:
    """Small multiples: for each (label, rows) of ``panels`` the methods' seeds, mean and interval."""
    apply()
    figure, axes = pyplot.subplots(1, len(panels), figsize=(TWO_COLUMNS, 1.7), squeeze=False)
    shown = []
    for axis, (label, rows) in zip(axes[0], panels, strict=True):
        data = _means(rows, []).assign(panel=label)
        for place, variant in enumerate(dict.fromkeys(frame.variant)):
            _column(axis, place, rows[rows.variant == variant].value, variant)
        _method_axis(axis, list(dict.fromkeys(frame.variant)))
        axis.set_ylabel(label)
        shown.append(data)
    figure.supxlabel(_n(shown[0]), fontsize=7)
    return figure, _stack(shown)


def stagewise(frame: DataFrame, published: DataFrame) -> tuple[Figure, DataFrame]:
    """Linear accuracy after each stage, averaged over the data sets of each seed; published curves in a panel of their own.

    ``published``: ``model`` and a column for each stage, in %.
    """
    apply()
    rows = frame[(frame.measure == "linear_top1") & frame.layer.isin(STAGES)]
    data = _means(rows.groupby(["variant", "seed", "layer"], as_index=False).value.mean(), ["layer"])
    figure, (ours, theirs) = pyplot.subplots(1, 2, figsize=(TWO_COLUMNS, 2.4))
    for variant in dict.fromkeys(frame.variant):
        found = data[data.variant == variant].set_index("layer").reindex(STAGES)
        ours.errorbar(range(1, 6), found["mean"], yerr=found.half, **look(variant))
    styles = ["-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1))]
    for (_, row), dashes in zip(published.iterrows(), styles, strict=False):
        colour = look("sl")["color"] if row.model == "SL" else "0.45"
        theirs.plot(range(1, 6), row[STAGES].astype(float), ls=dashes, marker="o", mfc="white", color=colour, label=row.model)
    ours.set_title(f"ours: {', '.join(dict.fromkeys(frame.dataset))}; {_n(data)}")
    theirs.set_title("published: ImageNet, ResNet-50 (digitised ±0.6)")
    for axis in (ours, theirs):
        axis.set_xticks(range(1, 6))
        axis.set_xlabel("encoder stage")
        axis.set_ylabel("linear top-1 on unseen classes (%)")
    ours.legend()
    theirs.legend(fontsize=6, loc="lower right")
    return figure, data


def over_training(frame: DataFrame, panels: Sequence[tuple[str, DataFrame]]) -> tuple[Figure, DataFrame]:
    """Mean and interval against epochs of pre-training, for each (label, rows) of ``panels``."""
    apply()
    figure, axes = pyplot.subplots(1, len(panels), figsize=(TWO_COLUMNS, 2.1), squeeze=False)
    shown = []
    for axis, (label, rows) in zip(axes[0], panels, strict=True):
        data = _means(rows, ["epoch"]).assign(panel=label)
        for variant in dict.fromkeys(frame.variant):
            found = data[data.variant == variant].sort_values("epoch")
            axis.errorbar(found.epoch, found["mean"], yerr=found.half, **look(variant))
        axis.set_xscale("symlog", base=2, linthresh=1)
        axis.set_xticks(sorted(set(rows.epoch)), sorted(set(rows.epoch)))
        axis.minorticks_off()
        axis.set_xlabel("epochs of pre-training")
        axis.set_ylabel(label)
        shown.append(data)
    axes[0][0].legend()
    figure.supxlabel(_n(shown[0]), fontsize=7)
    return figure, _stack(shown)


def components(frame: DataFrame, published: DataFrame) -> tuple[Figure, DataFrame]:
    """The projector's parts on and off: accuracy on unseen classes, ours beside the published kNN accuracies.

    ``published``: ``variant`` and ``accuracy``. ``relu`` alone is ``none``: pooled ResNet features are not negative.
    """
    apply()
    order = [name for name in published.variant if name != "relu"]
    per_seed = frame.groupby(["variant", "seed"], as_index=False).value.mean()
    data = _means(per_seed, [])
    figure, (ours, theirs) = pyplot.subplots(1, 2, figsize=(TWO_COLUMNS, 2.2), sharey=True)
    for place, name in enumerate(order):
        values = per_seed[per_seed.variant == name].value
        _column(ours, place, values, {"none": "sl"}.get(name, "sl_mlp"), flip=True)
    known = published.set_index("variant").accuracy
    theirs.plot([known[name] for name in order], range(len(order)), "o", mfc="white", color="0.3")
    ours.set_yticks(range(len(order)), [name.replace("+", " + ") for name in order])
    ours.invert_yaxis()
    ours.set_xlabel(f"linear top-1 on unseen classes (%), {_n(data)}")
    theirs.set_xlabel("published, continual learning on CIFAR-100: kNN (%)")
    return figure, data.assign(published=data.variant.map(known))


def embedding(panels: Sequence[tuple[str, Tensor, Tensor]], classes: Sequence[str], seed: int = 0) -> tuple[Figure, DataFrame]:
    """t-SNE (scikit-learn, perplexity 30) of features (N, d) with labels (N,), for each (title, features, labels)."""
    from sklearn.manifold import TSNE

    apply()
    figure, axes = pyplot.subplots(1, len(panels), figsize=(TWO_COLUMNS, TWO_COLUMNS / len(panels)), squeeze=False)
    shown = []
    for axis, (title, features, labels) in zip(axes[0], panels, strict=True):
        perplexity = min(30, (len(features) - 1) / 3)
        points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(features.numpy())
        colours = pyplot.get_cmap("tab10").colors
        for label, name in enumerate(classes):
            rows = (labels == label).numpy()
            axis.scatter(*points[rows].T, s=6, color=colours[label % 10], marker=f"${name}$" if len(name) == 1 else "o", lw=0.3)
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
        shown.append(
            DataFrame({"panel": title, "x": points[:, 0], "y": points[:, 1], "class": [classes[int(i)] for i in labels]})
        )
    return figure, _stack(shown)


def _column(axis: Axes, place: float, values: Sequence[float], variant: str, flip: bool = False) -> None:
    """Seeds, mean and interval of one method at ``place``, upright or (``flip``) lying."""
    mean, half, _ = interval(list(values))
    style = look(variant)
    dots = ([place + 0.15] * len(values), list(values))
    axis.plot(*(reversed(dots) if flip else dots), ".", color=style["color"], ms=3, alpha=0.6)
    if flip:
        axis.errorbar(mean, place, xerr=half, **style)
    else:
        axis.errorbar(place, mean, yerr=half, **style)


def _method_axis(axis: Axes, variants: Sequence[str]) -> None:
    axis.set_xticks(range(len(variants)), [look(variant)["label"] for variant in variants])
    axis.set_xlim(-0.5, len(variants) - 0.5)
    axis.grid(False, axis="x")


def _means(rows: DataFrame, by: list[str]) -> DataFrame:
    """Mean, half width of the 95 % interval and n over seeds, per variant and ``by``."""
    found = [
        dict(zip(["variant", *by], key, strict=True))
        | dict(zip(("mean", "half", "n"), interval(list(group.value)), strict=True))
        for key, group in rows.groupby(["variant", *by], sort=False)
    ]
    return DataFrame(found, columns=["variant", *by, "mean", "half", "n"])


def _stack(frames: Sequence[DataFrame]) -> DataFrame:
    import pandas

    return pandas.concat(frames, ignore_index=True)


def _n(data: DataFrame) -> str:
    """How many seeds stand behind the points."""
    if data.empty:
        return "no runs"
    low, high = int(data.n.min()), int(data.n.max())
    seeds = f"n = {low}" if low == high else f"n = {low} to {high}"
    return f"{seeds} seed{'s' if high > 1 else ', no interval'}"
