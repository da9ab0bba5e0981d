"""What features are worth upstream against what they are worth elsewhere, a point for each method (as t-ReX's Fig. 1)."""

import pandas as pd
from matplotlib.figure import Figure

from studylib.report import statistics, style


def frontier(frame: pd.DataFrame, *, upstream: str, transfer: str) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data): the measure ``upstream`` on x, ``transfer`` on y, means with intervals over seeds on both.

    Each measure of ``frame`` must come from one data set, or from means over several by `statistics.over_datasets`. A method
    that lacks one of the two is not drawn and is named below.

    Raises:
        InputError: several values for a seed of a method, such as those of two data sets.
    """
    rows = statistics.select(statistics.at_end(frame), measure=[upstream, transfer])
    table = statistics.over_seeds(rows, ["method", "measure"])
    figure = style.canvas(2, 3.1)
    axes = figure.subplots()
    drawn = []
    for method, part in style.by_method(table.dropna(subset="mean")):
        found = part.set_index("measure")
        if not {upstream, transfer} <= set(found.index):
            continue
        drawn.append(method)
        x, y = found.loc[upstream], found.loc[transfer]
        style.mark(axes, x["mean"], y["mean"], x["half_width"], method, horizontal=True)
        style.mark(axes, x["mean"], y["mean"], y["half_width"], method)
    axes.set_xlabel(f"Pre-training classes: {style.measure_label(upstream)}")
    axes.set_ylabel(f"Transfer: {style.measure_label(transfer)}")
    style.within_percent(axes, upstream, transfer)
    if not drawn:
        style.absent(axes)
        axes.set_xticks([])
    style.legend(figure, drawn, most=5)
    lacking = [style.look(method).label for method in style.ordered(table["method"]) if method not in drawn]
    style.note(figure, style.seeds(table) + (f"\nwithout results: {', '.join(lacking)}" if lacking else ""))
    return figure, table
