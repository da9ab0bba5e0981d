"""Small multiples: several measures side by side, every seed as a point beside the mean and its interval."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studylib.report import statistics, style


def comparison(
    frame: pd.DataFrame,
    *,
    measures: Sequence[str] = ("phi", "intra", "redundancy", "mixtureness"),
    layer: str = "stage5",
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) with one panel per measure: data sets side by side, in each a place for every method.

    The plotted data hold the mean rows and, with ``seed`` filled, the points.

    Raises:
        InputError: several values for a seed, such as those of φ with squared and plain distances: select one protocol each.
    """
    rows = statistics.select(statistics.at_end(frame), measure=list(measures), layer=layer)
    table = statistics.over_seeds(rows, ["measure", "dataset", "method"])
    methods = style.ordered(table["method"])
    wide = len(measures) * max(rows["dataset"].nunique(), 1) > 2
    figure = style.canvas(2 if wide else 1, 2.2 if len(measures) <= 4 else 4.0)
    for axes, measure in zip(style.grid(figure, len(measures), 4 if len(measures) != 6 else 3), measures, strict=True):
        _draw(axes, table[table["measure"] == measure], rows[rows["measure"] == measure], methods)
        axes.set_ylabel(style.measure_label(measure))
    style.legend(figure, methods)
    style.note(figure, style.seeds(table, points=True))
    points = rows[["measure", "dataset", "method", "seed", "value"]]
    return figure, pd.concat([table.assign(layer=layer), points.assign(layer=layer)], ignore_index=True)


def _draw(axes: Axes, table: pd.DataFrame, rows: pd.DataFrame, methods: list[str]) -> None:
    datasets = list(dict.fromkeys(rows["dataset"]))
    width = min(0.22 * (len(methods) - 1), 0.7)
    beside = 0.4 * width / max(len(methods) - 1, 1)
    offsets = style.dodge(methods, width)
    for x, dataset in enumerate(datasets):
        for method, part in style.by_method(table[table["dataset"] == dataset]):
            seeds = rows.loc[(rows["dataset"] == dataset) & (rows["method"] == method), "value"]
            if len(seeds) > 1:
                place = np.full(len(seeds), x + offsets[method] + beside)
                axes.scatter(place, seeds, s=5, color=style.look(method).colour, alpha=0.55, linewidths=0)
            row = part.iloc[0]
            style.mark(axes, x + offsets[method], row["mean"], (row["low"], row["high"]), method)
    axes.set_xticks(range(len(datasets)), [style.dataset_label(name) for name in datasets])
    axes.set_xlim(-0.6, max(len(datasets), 1) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.12)
    if not datasets:
        style.absent(axes)
