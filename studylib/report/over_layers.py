"""Measures at every layer: the stages of the encoder, then the projector's hidden blocks and its output."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studylib.report import statistics, style

LAYERS = {f"stage{stage}": f"{stage}" for stage in range(1, 6)}
LAYERS |= {f"projector{block}": f"h{block}" for block in range(1, 4)} | {"projector": "out"}
"""layer -> its name on the axis, in the order of the forward pass"""


def over_layers(frame: pd.DataFrame, *, measures: Sequence[str]) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of ``measures`` of one data set at the end of training, a panel for each, a line per method.

    What is right of the grey line is inside and after the projector, which transfer drops; a method has only its own layers.

    Raises:
        InputError: several values for a seed at a layer, such as those of two protocols or data sets.
    """
    rows = statistics.select(statistics.at_end(frame), measure=list(measures), layer=list(LAYERS))
    table = statistics.over_seeds(rows, ["measure", "method", "layer"])
    shown = [layer for layer in LAYERS if layer in set(table["layer"])]
    figure = style.canvas(2, 2.5 if len(measures) <= 3 else 4.4)
    for axes, measure in zip(style.grid(figure, len(measures), 3), measures, strict=True):
        _draw(axes, table[table["measure"] == measure], shown)
        axes.set_ylabel(style.measure_label(measure))
    style.legend(figure, table["method"], line=True)
    style.note(figure, style.seeds(table))
    return figure, table


def _draw(axes: Axes, table: pd.DataFrame, shown: list[str]) -> None:
    if table.empty:
        style.absent(axes)
        axes.set_xticks([])
        return
    table = table.assign(place=table["layer"].map(shown.index)).sort_values("place", kind="stable")
    offsets = style.dodge(table["method"], 0.2)
    for method, part in style.by_method(table):
        axes.plot(part["place"] + offsets[method], part["mean"], color=style.look(method).colour, alpha=0.6, zorder=2)
        for row in part.itertuples():
            style.mark(axes, row.place + offsets[method], row.mean, (row.low, row.high), method)
    stages = sum(layer.startswith("stage") for layer in shown)
    if 0 < stages < len(shown):
        axes.axvline(stages - 0.5, color="0.75", linewidth=0.8, zorder=1)
    axes.set_xticks(range(len(shown)), [LAYERS[layer] for layer in shown])
    axes.set_xlabel("Encoder stage, projector's layer" if 0 < stages < len(shown) else "Layer")
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
