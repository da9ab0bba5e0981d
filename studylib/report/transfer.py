"""Accuracies of all data sets as a dot plot: one row per data set, its methods joined by a line."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studylib.report import statistics, style

MANY = 5  # methods that one column and one line per data set can show


def transfer(
    frame: pd.DataFrame,
    *,
    measure: str = "linear_top1",
    layer: str = "stage5",
    groups: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of ``measure`` on every data set, mean and interval of each method, single seeds faint.

    Args:
        layer: what is transferred; the papers keep the encoder's output.
        groups: title -> data sets, one block each, such as unseen concepts and other domains; by default all in one block.
            A data set named here without results keeps its row and says so.

    Random weights, and methods far below SL (`style.FAR`), stand at the left edge with values where they would stretch it.

    Raises:
        InputError: several values for a seed on a data set, such as those of two protocols.
    """
    rows = statistics.select(statistics.at_end(frame), measure=measure, layer=layer)
    table = statistics.over_seeds(rows, ["dataset", "method"])
    groups = {title: list(names) for title, names in (groups or {"": list(dict.fromkeys(table["dataset"])) or [""]}).items()}
    table = table[table["dataset"].isin([name for names in groups.values() for name in names])]
    count = sum(len(names) for names in groups.values())
    methods = table["method"].nunique()
    pitch = 0.2 + 0.03 * max(methods - 2, 0)  # inches per data set: more methods need more room
    figure = style.canvas(2 if methods > MANY else 1, 0.85 + pitch * count + 0.2 * len(groups))
    heights = [len(names) for names in groups.values()]
    blocks = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=heights).ravel()
    edge = _edge(table)
    for axes, (title, names) in zip(blocks, groups.items(), strict=True):
        _draw(axes, table, rows, names, edge)
        axes.set_title(title, loc="left", fontsize=style.SMALL, color=style.GREY, pad=2)
    blocks[-1].set_xlabel(style.measure_label(measure))
    style.within_percent(blocks[-1], measure)
    if edge > -math.inf:
        blocks[-1].set_xlim(left=edge)
    style.legend(figure, table["method"], most=5 if methods > MANY else 4)
    style.note(figure, style.seeds(table, points=True) + _lacking(table))
    titles = {name: title for title, names in groups.items() for name in names}
    data = table.assign(group=table["dataset"].map(titles), layer=layer, measure=measure)
    return figure, data.sort_values(
        "dataset", key=lambda names: names.map(list(titles).index), kind="stable", ignore_index=True
    )


def transfer_groups(unseen: Sequence[str], domains: Sequence[str], upstream: str = "") -> dict[str, list[str]]:
    """The blocks of `transfer`: title -> data sets, without blocks that would be empty."""
    groups = {"pre-training classes": [upstream] if upstream else [], "unseen classes": list(unseen)}
    groups["other domains, differences inside classes"] = list(domains)
    return {title: names for title, names in groups.items() if names}


def _lacking(table: pd.DataFrame) -> str:
    """Which data sets have results of some methods only."""
    per_set = table.dropna(subset="mean").groupby("dataset", sort=False)["method"].nunique()
    lacking = [style.dataset_label(name) for name in per_set.index[per_set < table["method"].nunique()]]
    return f"\nresults of some methods are missing: {', '.join(lacking)}" if lacking else ""


def _edge(table: pd.DataFrame) -> float:
    """Where the axis begins if what is far below SL in the mean over sets, or random weights, lies farther below the others
    than these lie apart; else minus infinity."""
    means = table.pivot(index="dataset", columns="method", values="mean")
    shares = means.div(means["sl"], axis=0).mean() if "sl" in means else pd.Series(dtype=float)
    far = table["method"].isin(["random", *shares.index[shares < style.FAR]])
    least, most = table["low"].fillna(table["mean"])[~far].min(), table["high"].fillna(table["mean"])[~far].max()
    return least - 0.08 * (most - least) if table.loc[far, "mean"].min() < 2 * least - most else -math.inf


def _draw(axes: Axes, table: pd.DataFrame, rows: pd.DataFrame, names: list[str], edge: float) -> None:
    offsets = style.dodge(table["method"], min(0.16 * (table["method"].nunique() - 1), 0.75))
    for y, name in enumerate(names):
        part = table[table["dataset"] == name]
        seen = part.dropna(subset="mean")
        if seen.empty:
            axes.annotate(
                "no results", (0.5, y), xycoords=("axes fraction", "data"), va="center", ha="center", color=style.GREY
            )
        else:
            places = [y + offsets[method] for method in style.ordered(seen["method"])]
            values = [seen.loc[seen["method"] == method, "mean"].item() for method in style.ordered(seen["method"])]
            if len(values) <= MANY:  # with more, a line would only cross itself
                axes.plot(values, places, color="0.75", linewidth=1.4, zorder=1, solid_capstyle="round")
        beyond = []
        for method, row in style.by_method(part):
            (row,) = row.to_dict("records")
            if row["mean"] < edge:
                beyond.append(f"{style.look(method).label} {row['mean']:.0f}")
                continue
            style.single(
                axes, rows[(rows["dataset"] == name) & (rows["method"] == method)]["value"], y + offsets[method], method
            )
            style.mark(axes, row["mean"], y + offsets[method], (row["low"], row["high"]), method, horizontal=True)
        if beyond:
            place = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": style.SMALL - 1, "color": style.GREY}
            axes.annotate(f"← {', '.join(beyond)}", (0.005, y - 0.42), **place)
    if not table["dataset"].isin(names).any():
        axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.set_yticks(np.arange(len(names)), [style.dataset_label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
