"""Singular values of the features by rank: over how many directions they spread (t-ReX's spectrum)."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studylib.report import statistics, style

TITLES = {"stage5": "Encoder's output", "projector": "Projector's output"}


def spectrum(frame: pd.DataFrame, *, layers: Sequence[str] = ("stage5",)) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of ``singular_value`` at the end of training by rank, both logarithmic, a panel for each layer.

    A line for each method, with a band of seeds. Values of 0, which rounding hides, have no place on the axis and are left out
    of the figure.

    Raises:
        InputError: several values for a seed at a rank, such as those of two data sets.
    """
    rows = statistics.select(statistics.at_end(frame), measure="singular_value", layer=list(layers))
    rows = rows.assign(rank=rows["protocol"].str.extract(r"rank (\d+)", expand=False).astype(int))
    table = statistics.over_seeds(rows, ["layer", "method", "rank"])
    figure = style.canvas(1 if len(layers) == 1 else 2, 2.9)
    for axes, layer in zip(style.grid(figure, len(layers), 3), layers, strict=True):
        _draw(axes, table[(table["layer"] == layer) & (table["mean"] > 0)])
        axes.set_title(TITLES.get(layer, layer))
    figure.axes[0].set_ylabel("Singular value, relative to the largest")
    style.legend(figure, table["method"], line=True)
    style.note(figure, style.seeds(table))
    return figure, table


def _draw(axes: Axes, table: pd.DataFrame) -> None:
    axes.set_xlabel("Rank")
    if table.empty:
        style.absent(axes)
        axes.set_xticks([])
        return
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for method, part in style.by_method(table):
        part, drawn = part.sort_values("rank"), style.look(method)
        low = part["low"].clip(lower=table["mean"].min() / 2)  # the axis has no 0
        axes.fill_between(part["rank"], low, part["high"], color=drawn.colour, alpha=0.18, linewidth=0)
        axes.plot(part["rank"], part["mean"], color=drawn.colour, marker=drawn.marker, markersize=3.4)
