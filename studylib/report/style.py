"""How every figure looks: widths, fonts, and the names of measures and data sets; those of methods are in `method_table`.

Fonts come with Matplotlib, so that a figure has the same bytes on every machine with the same versions.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studylib import method_table
from studylib.errors import choose
from studylib.method_table import Style

WIDTHS = {1: 3.25, 2: 6.875}  # inches, one and two columns of CVPR 2024 (tueplots figsizes.py)
FONT = 8  # points, the size of a caption
SMALL = 7
GREY = "0.45"
FAINT = 0.8  # size of the lesser of two kinds of markers, as a share
FAR = 0.8  # ours: of SL's accuracy, below which a method would only stretch the frame

RC = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],  # the second has the scripts that the first lacks
    "mathtext.fontset": "stix",
    "font.size": FONT,
    "axes.labelsize": FONT,
    "axes.titlesize": FONT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL + 0.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.2,
    "savefig.dpi": 250,
    "savefig.bbox": None,  # "tight" would change the width
    "pdf.fonttype": 42,  # embedded TrueType; Type 3 is refused by many venues
    "svg.fonttype": "none",
    "path.simplify": False,
}


METHODS = {"random": Style(label="random weights", colour="#888888", marker=".")} | method_table.METHODS
"""name, colour and marker of everything that figures show as a method, in their order"""

CLASS_COLOURS = (  # Paul Tol's "muted" and two more; for at most twelve classes at a time
    *("#332288", "#DDAA33", "#117733", "#CC6677", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#777777"),
    *("#000000", "#EE7733"),
)
CLASS_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "p", "h", "*")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Axis label of a measure, with its unit, decimals in tables (None: three significant digits), and what it can be."""

    label: str
    decimals: int | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)


SHARE, POSITIVE = (0.0, 1.0), (0.0, math.inf)


MEASURES = {
    "linear_top1": Measure(label="Linear probe, top-1 (%)", decimals=1),
    "linear_mean_per_class": Measure(label="Linear probe, mean per class (%)", decimals=1),
    "knn_top1": Measure(label="kNN, top-1 (%)", decimals=1),
    "linear_top1_log_odds": Measure(label="Linear probe, mean log-odds", decimals=3),
    "knn_top1_log_odds": Measure(label="kNN, mean log-odds", decimals=3),
    "knn_grid_top1": Measure(label="kNN, best k and T, top-1 (%)", decimals=1),
    "ridge_top1": Measure(label="Ridge regression, top-1 (%)", decimals=1),
    "broad12_top1": Measure(label="Batch norm and linear (broad12), top-1 (%)", decimals=1),
    "trex_small8_top1": Measure(label="L-BFGS, 30 trials (t-ReX, small), top-1 (%)", decimals=1),
    "trex_large_top1": Measure(label="SGD, 30 trials (t-ReX, large), top-1 (%)", decimals=1),
    "trex_top1": Measure(label="t-ReX's, large or small, top-1 (%)", decimals=1),
    "memory_fine_tune_frozen_top1": Measure(label="Memory fine-tuning, frozen, top-1 (%)", decimals=1),
    "linear_fine_tune_frozen_top1": Measure(label="Linear fine-tuning, frozen, top-1 (%)", decimals=1),
    "episodes_top1": Measure(label="5-way 5-shot, top-1 (%)", decimals=1),
    "fine_tune_top1": Measure(label="Fine-tuning, top-1 (%)", decimals=1),
    "memory_fine_tune_top1": Measure(label="Memory fine-tuning (LOOK), top-1 (%)", decimals=1),
    "linear_fine_tune_top1": Measure(label="Linear fine-tuning, top-1 (%)", decimals=1),
    "detection_ap": Measure(label="Detection, AP (%)", decimals=1),
    "phi": Measure(label=r"Discriminative ratio $\phi$", decimals=3, bounds=POSITIVE),
    "inter": Measure(label=r"Inter-class distance $D_{\mathrm{inter}}$", bounds=POSITIVE),
    "intra": Measure(label=r"Intra-class distance $D_{\mathrm{intra}}$", bounds=POSITIVE),
    "mixtureness": Measure(label=r"Feature mixtureness $\Pi$", decimals=3, bounds=SHARE),
    "redundancy": Measure(label=r"Feature redundancy $R$", decimals=3, bounds=SHARE),
    "intra_class_distance": Measure(label="Intra-class distance, l2-normalised", decimals=3, bounds=POSITIVE),
    "class_separation": Measure(label=r"Class separation $R^2$", decimals=3),
    "neural_collapse": Measure(label="Neural collapse NC1", bounds=POSITIVE),
    "effective_rank": Measure(label="Effective rank", bounds=POSITIVE),
    "coding_length": Measure(label="Coding length (nats per image)", decimals=3, bounds=POSITIVE),
    "sparsity": Measure(label="Sparsity (share of dimensions)", decimals=3, bounds=SHARE),
    "frechet_distance": Measure(label="Fréchet distance to the pre-training set", bounds=POSITIVE),
    "frechet_per_variance": Measure(label="Fréchet distance to the pre-training set ÷ variance", bounds=POSITIVE),
    "squared_mmd": Measure(label="Squared MMD to the pre-training set"),
    "modes_nmi": Measure(label="Modes: NMI with the hidden labels", decimals=3, bounds=SHARE),
    "modes_ari": Measure(label="Modes: adjusted Rand index", decimals=3),
    "modes_silhouette": Measure(label="Modes: silhouette", decimals=3),
    "singular_value": Measure(label="Singular value", bounds=SHARE),
    "linear_C": Measure(label="C of the linear probe"),
    "monitor_knn_top1": Measure(label="kNN while training, training images, top-1 (%)", decimals=1),
    "seconds": Measure(label="Pre-training time (s)", decimals=0, bounds=POSITIVE),
    "seconds_per_epoch": Measure(label="Time per epoch (s)", decimals=1, bounds=POSITIVE),
    "fastest_epoch": Measure(label="Fastest epoch (s)", decimals=1, bounds=POSITIVE),
    "images_per_s": Measure(label="Training images per second", decimals=0, bounds=POSITIVE),
    "passes": Measure(label="Encoder passes per image", decimals=2, bounds=POSITIVE),
    "passes_without_gradient": Measure(label="Passes of the average", decimals=2, bounds=POSITIVE),
}

DATASETS = {
    "glyphs": "Latin, digits",
    "glyphs_greek": "Greek",
    "glyphs_cyrillic": "Cyrillic",
    "glyphs_armenian": "Armenian",
    "glyphs_georgian": "Georgian",
    "glyphs/letters": "letters",
    "glyphs/letters@case": "letter case",
    "glyphs@face": "typeface",
    "digits": "handwritten digits",
    "tiny_cog": "Tiny CoG",
    "caltech101": "Caltech-101",
    "flowers17": "Flowers-17",
    "pacs": "PACS",
    "rsscn7": "RSSCN7",
    "kth_tips": "KTH-TIPS",
    "omniglot": "Omniglot",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "scenes": "glyph scenes",
    "coco": "COCO",
    "cifar100": "CIFAR-100",
    "cifar100/natural": "CIFAR-100 natural",
    "cifar100/artefact": "CIFAR-100 artefact",
    "cifar100@coarse": "CIFAR-100 coarse",
}


def apply() -> None:
    """Set the style for all figures of this process; every figure of this package does it by itself."""
    matplotlib.rcParams.update(RC)


def canvas(columns: int = 1, height: float = 2.2) -> Figure:
    """An empty figure one or two columns wide, ``height`` in inches, laid out by constraints.

    It is not known to pyplot: no window, nothing to close, and a notebook shows it once, when it is saved.
    """
    apply()
    return Figure(figsize=(WIDTHS[columns], height), layout="constrained")


def look(method: str) -> Style:
    """Name, colour and marker of ``method``; encoders trained elsewhere (``file:NAME``) share one look.

    Raises:
        InputError: it has none yet; all are in `METHODS`.
    """
    if method.startswith("file:"):
        return Style(label=method.removeprefix("file:"), colour="#000000", marker="*")
    return METHODS[choose("method", method, METHODS)]


def ordered(methods: Iterable[str]) -> list[str]:
    """The distinct ``methods`` in the one order of all figures, legends and tables."""
    present = set(methods)
    for method in present:
        look(method)
    return [method for method in METHODS if method in present] + sorted(present - set(METHODS))


def measure_label(measure: str) -> str:
    """Name and unit of a measure for axes and tables."""
    if measure.startswith("per_class_top1_"):
        count = measure.removeprefix("per_class_top1_")
        return f"{count} image{'s' * (count != '1')} per class, top-1 (%)"
    return MEASURES[measure].label if measure in MEASURES else measure.replace("_", " ")


def bounds(measure: str) -> tuple[float, float]:
    """The least and the largest value that a measure can have."""
    if measure_label(measure).endswith("(%)"):
        return 0.0, 100.0
    return MEASURES[measure].bounds if measure in MEASURES else (-math.inf, math.inf)


def variant_label(variant: str) -> str:
    """A name for readers: of methods and backbones in it, and of ``METHOD on`` and ``METHOD off``."""
    text = re.sub(
        r"\w+", lambda word: METHODS[word[0]].label if word[0] in METHODS and word[0] != "random" else word[0], variant
    )
    text = re.sub(r"resnet(\d+)", r"ResNet-\1", text)
    return re.sub(r" (on|off)$", lambda end: {"on": ", projector", "off": ", no projector"}[end[1]], text)


def dataset_label(dataset: str) -> str:
    """A name for readers; a part of the classes and another label set follow the set's name."""
    if dataset in DATASETS or dataset.startswith("mean of"):
        return DATASETS.get(dataset, dataset)
    name, _, labels = dataset.partition("@")
    name, _, part = name.partition("/")
    words = [DATASETS.get(name, name.replace("_", " ")), part.replace("_", " "), labels.replace("_", " ")]
    return " ".join(word for word in words if word)


def verbatim(name: str) -> str:
    """``name``, such as that of a class, without Matplotlib's mathematics: a dollar sign is a dollar sign."""
    return name.replace("$", r"\$")


def grid(figure: Figure, count: int, most: int, **options: Any) -> list[Axes]:
    """``count`` axes in rows of at most ``most``; places left over stay empty."""
    columns = min(count, most)
    axes = figure.subplots(math.ceil(count / columns), columns, squeeze=False, **options).ravel()
    for empty in axes[count:]:
        empty.set_visible(False)
    return list(axes[:count])


def legend(figure: Figure, methods: Iterable[str], *, line: bool = False, most: int = 4) -> None:
    """The methods' names, colours and markers above the axes, where they hide no data."""
    present = ordered(methods)
    handles = [
        Line2D(
            [],
            [],
            color=look(name).colour,
            marker=look(name).marker,
            linestyle="-" if line else "none",
            label=verbatim(look(name).label),
        )
        for name in present
    ]
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), most))


def note(figure: Figure, text: str) -> None:
    """A line of small grey text under the figure."""
    figure.supxlabel(text, fontsize=SMALL, color=GREY)


def seeds(table: pd.DataFrame, *, points: bool = False) -> str:
    """What the intervals of a table by `statistics.over_seeds` are over: the line under a figure, with ``points`` also of those
    of single seeds."""
    counts = sorted({int(n) for n in table["n"] if n})
    if not counts:
        return "no results yet"
    if counts == [1]:
        return "one seed (n = 1): no interval"
    said = f"mean and 95 % interval over seeds, n = {'–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}"
    return f"{said}; small points: seeds" if points else said


def mark(
    axes: Axes,
    x: float,
    y: float,
    reach: tuple[float, float],
    method: str,
    *,
    horizontal: bool = False,
    hollow: bool = False,
    faint: bool = False,
) -> None:
    """A mean in the method's colour and marker with its interval ``reach``, (low, high), if it has one; NaN draws nothing.

    Hollow means published, in all figures; ``faint``, smaller and lighter, is the lesser of two kinds of ours.
    """
    if math.isnan(x) or math.isnan(y):
        return
    drawn = look(method)
    mean = x if horizontal else y
    sides = [[max(mean - reach[0], 0.0)], [max(reach[1] - mean, 0.0)]]
    bar = {"xerr" if horizontal else "yerr": sides} if reach[0] == reach[0] else {}
    colour = lighter(drawn.colour) if faint else drawn.colour
    face = {"markerfacecolor": "white"} if hollow else {"markeredgecolor": "white", "markeredgewidth": 0.4}
    face |= {"markersize": FAINT * RC["lines.markersize"], "markeredgecolor": colour} if faint else {}
    axes.errorbar(x, y, color=colour, marker=drawn.marker, capsize=1.8, elinewidth=0.9, zorder=3, **bar, **face)


def single(axes: Axes, x: Any, y: Any, method: str) -> None:
    """Single seeds: faint points in the method's colour; one of ``x`` and ``y`` may be a number."""
    values = pd.DataFrame({"x": x, "y": y})
    axes.plot(values["x"], values["y"], ".", color=lighter(look(method).colour), markersize=3, zorder=1.5)


def lighter(colour: str) -> tuple[float, ...]:
    """Half way from ``colour`` to white."""
    return tuple((1 + part) / 2 for part in to_rgb(colour))


def within_percent(axes: Axes, x: str = "", y: str = "") -> None:
    """Cut axes of measures in % at 0 and 100, which their margins would go beyond."""
    if measure_label(x).endswith("(%)"):
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -1.5), min(high, 101.5))
    if measure_label(y).endswith("(%)"):
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -1.5), min(high, 101.5))


def absent(axes: Axes, text: str = "no results") -> None:
    """Say inside empty axes that there is nothing, instead of drawing a zero or a scale without values."""
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=SMALL)


def by_method(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(method, its rows) in the fixed order."""
    for method in ordered(table["method"]):
        yield method, table[table["method"] == method]


def dodge(methods: Iterable[str], width: float) -> Mapping[str, float]:
    """An offset for each method, together ``width`` wide, so that equal values do not hide each other."""
    names = ordered(methods)
    step = width / max(len(names) - 1, 1)
    return {name: (i - (len(names) - 1) / 2) * step for i, name in enumerate(names)}
