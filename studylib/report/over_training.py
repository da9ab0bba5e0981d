"""A measure against the epochs of pre-training, with a band of seeds."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from studylib.report import statistics, style


def over_training(
    frame: pd.DataFrame,
    *,
    measures: Sequence[str] = ("phi",),
    layer: str = "stage5",
    log: bool = True,
    label: str = "Epochs of pre-training",
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of ``measures`` after each epoch in ``frame``, one panel per measure and data set.

    Args:
        log: epochs on a logarithmic axis (linear below 1, so that the random start, epoch 0, is there).
        label: of that axis, where ``epoch`` holds another clock than epochs.

    Raises:
        InputError: several values for a seed at an epoch, such as those of two protocols.
    """
    rows = statistics.select(frame, measure=list(measures), layer=layer)
    table = statistics.over_seeds(rows, ["measure", "dataset", "method", "epoch"])
    table = table.sort_values("epoch", kind="stable", ignore_index=True)
    panels = [
        (measure, name) for measure in measures for name in dict.fromkeys(rows.loc[rows["measure"] == measure, "dataset"])
    ]
    panels = panels or [(measure, "") for measure in measures]
    figure = style.canvas(1 if len(panels) == 1 else 2, 2.3 if len(panels) <= 3 else 4.1)
    for axes, (measure, name) in zip(style.grid(figure, len(panels), 3 if len(panels) != 4 else 2), panels, strict=True):
        _draw(axes, table[(table["measure"] == measure) & (table["dataset"] == name)], log, label)
        axes.set_title(style.dataset_label(name))
        axes.set_ylabel(style.measure_label(measure))
    style.legend(figure, table["method"], line=True)
    style.note(figure, style.seeds(table))
    return figure, table.assign(layer=layer)


def _draw(axes: Axes, table: pd.DataFrame, log: bool, label: str) -> None:
    for method, part in style.by_method(table):
        drawn = style.look(method)
        axes.fill_between(part["epoch"], part["low"], part["high"], color=drawn.colour, alpha=0.18, linewidth=0)
        axes.plot(part["epoch"], part["mean"], color=drawn.colour, marker=drawn.marker, markersize=3.4)
    axes.set_xlabel(label)
    if table.empty:
        style.absent(axes)
        axes.set_xticks([])
        return
    epochs = sorted({int(epoch) for epoch in table["epoch"]})
    if log:
        axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.6)
        axes.xaxis.set_major_locator(FixedLocator(_apart(epochs)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _apart(epochs: list[int]) -> list[int]:
    """The epochs that can be written beside each other on the logarithmic axis: the last, and those 1.6 times apart."""
    kept = [epochs[-1]]
    for epoch in reversed(epochs[:-1]):
        if epoch * 1.6 <= kept[-1] or epoch == 0:
            kept.append(epoch)
    return kept[::-1]
