"""The rows of an ablation as a dot plot: one row per variant, one panel per measure."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from studylib.report import statistics, style


def variants(
    frame: pd.DataFrame,
    *,
    measures: Sequence[str] = ("linear_top1",),
    layer: str = "stage5",
    order: Sequence[str] = (),
    titles: Sequence[str] = (),
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of ``measures`` at the end of training for each ``variant``: mean and interval over seeds, which
    are faint.

    Each measure of ``frame`` must come from one data set, or from means over several by `statistics.over_datasets`.

    Args:
        order: the variants from top to bottom, by default as in ``frame``; one without results keeps its row and says so.
        titles: one for each panel, by default none.

    Raises:
        InputError: several values for a seed of a variant, such as those of two data sets.
    """
    rows = statistics.select(statistics.at_end(frame), measure=list(measures), layer=layer)
    table = statistics.over_seeds(rows, ["measure", "method", "variant"])
    names = list(order) or list(dict.fromkeys(table["variant"])) or [""]
    figure = style.canvas(1 if len(measures) == 1 else 2, 0.75 + 0.19 * len(names))
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        part = table[table["measure"] == measure]
        for y, name in enumerate(names):
            found = part[part["variant"] == name]
            if found["mean"].notna().any():
                row = found.iloc[0]
                single = rows[(rows["measure"] == measure) & (rows["variant"] == name)]
                style.single(axes, single["value"], y, row["method"])
                style.mark(axes, row["mean"], y, (row["low"], row["high"]), row["method"], horizontal=True)
            else:
                place = {"xycoords": ("axes fraction", "data"), "ha": "center", "va": "center", "color": style.GREY}
                axes.annotate("not run", (0.5, y), **place)
        if part.empty:
            axes.set_xticks([])
        axes.set_xlabel(style.measure_label(measure))
        axes.set_yticks(range(len(names)), [style.variant_label(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.1)
    for axes, title in zip(panels if titles else (), titles, strict=True):
        axes.set_title(title)
        axes.locator_params(axis="x", nbins=5)
    style.note(figure, style.seeds(table, points=True))
    return figure, table.assign(layer=layer)
