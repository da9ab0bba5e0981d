"""The projector's parts on and off: linear layers, batch norm and ReLU (claim S11), ours beside the published ablation."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studylib.report import statistics, style

PARTS = ("linear", "bn", "relu")
VARIANTS = ("none", "relu", "linear", "linear+relu", "bn", "bn+relu", "linear+bn", "linear+bn+relu")


def components(
    frame: pd.DataFrame,
    *,
    measure: str = "linear_top1",
    layer: str = "stage5",
    published: pd.DataFrame | None = None,
    same: Mapping[str, str] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of ``measure`` for the 2^3 projectors named by the column ``variant``, such as ``linear+bn``.

    ``frame`` holds one data set, or means over several by `statistics.over_datasets`.

    Args:
        published: `papers.published("sl_mlp", "components")`; a panel of its own, hollow, since the setting is another.
        same: variant -> the variant that it equals by construction and that was run instead, such as ``{"relu": "none"}``.

    Raises:
        InputError: several values for a seed of a variant, such as those of two data sets.
    """
    rows = statistics.select(statistics.at_end(frame), measure=measure, layer=layer, variant=VARIANTS)
    table = statistics.over_seeds(rows, ["variant"])
    table["equals"] = ""
    for variant, other in (same or {}).items():
        copied = table[table["variant"] == other].assign(variant=variant, equals=other)
        table = pd.concat([table[table["variant"] != variant], copied], ignore_index=True)
    table["source"] = "ours"
    figure = style.canvas(1, 2.45)
    widths = [0.75, 2, 2] if published is not None else [0.75, 4]
    axes = figure.subplots(1, len(widths), sharey=True, width_ratios=widths)
    _matrix(axes[0])
    label = style.measure_label(measure).replace(", ", ",\n", 1) if published is not None else style.measure_label(measure)
    _draw(axes[1], table, f"Ours\n{label}" if published is not None else label, hollow=False)
    data = table.assign(measure=measure)
    text = style.seeds(table)
    if published is not None:
        other = published.rename(columns={"value": "mean"})[["variant", "mean"]].assign(
            source="published", measure="kNN accuracy"
        )
        _draw(axes[2], other.assign(low=np.nan, high=np.nan, equals=""), "Published\ncontinual learning,\nkNN (%)", hollow=True)
        data = pd.concat([data, other], ignore_index=True)
    style.note(figure, text)
    return figure, data


def _matrix(axes: Axes) -> None:
    """Which parts a row has: a filled or an empty place for each."""
    for y, variant in enumerate(VARIANTS):
        for x, part in enumerate(PARTS):
            on = part in variant.split("+")
            axes.plot(x, y, marker="o", markersize=5, color="0.2" if on else "0.88", markeredgewidth=0)
    axes.set_xticks(range(3), ["Linear", "BN", "ReLU"], rotation=60, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set_xlim(-0.6, 2.6)
    axes.set_ylim(len(VARIANTS) - 0.4, -0.6)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _draw(axes: Axes, table: pd.DataFrame, label: str, *, hollow: bool) -> None:
    rows = table.set_index("variant")
    for y, variant in enumerate(VARIANTS):
        if variant not in rows.index or np.isnan(rows.loc[variant, "mean"]):
            axes.annotate("not run", (0.5, y), xycoords=("axes fraction", "data"), ha="center", va="center", color=style.GREY)
            continue
        row, method = rows.loc[variant], "sl" if variant == "none" else "sl_mlp"
        style.mark(axes, row["mean"], y, (row["low"], row["high"]), method, horizontal=True, hollow=hollow)
        equal = f" (= {row['equals']})" if row["equals"] else ""
        place = {"textcoords": "offset points", "va": "center", "fontsize": style.SMALL - 0.5}
        right = row["mean"] < (table["mean"].min() + table["mean"].max()) / 2
        end = row["high" if right else "low"]
        text, x = f"{row['mean']:.1f}{equal}", row["mean"] if np.isnan(end) else end
        axes.annotate(text, (x, y), xytext=(5 if right else -5, 0), ha="left" if right else "right", **place)
    if rows.empty:
        axes.set_xticks([])
    axes.set_xlabel(label)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
