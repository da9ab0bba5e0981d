"""What features are worth upstream against what they are worth elsewhere, a point for each method (as t-ReX's Fig. 1)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studylib.report import layout, statistics, style


def frontier(
    frame: pd.DataFrame, *, upstream: str, transfer: str, published: pd.DataFrame | None = None
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data): the measure ``upstream`` on x, ``transfer`` on y, means with intervals over seeds on both, and
    single seeds, faint.

    Each measure of ``frame`` must come from one data set, or from means over several by `statistics.over_datasets`. The frame
    is filled by methods that have learned; those far below SL upstream (`style.FAR`) stand in a corner, with their values.
    A method that lacks one of the two measures is not drawn and is named below. ``published`` is ``papers.published("trex",
    "frontier")``: a panel of its own, hollow, since the data and the scale are others.

    Raises:
        InputError: several values for a seed of a method, such as those of two data sets.
    """
    rows = statistics.select(statistics.at_end(frame), measure=[upstream, transfer])
    table = statistics.over_seeds(rows, ["method", "measure"])
    figure = style.canvas(2, 3.1)
    axes, *other = figure.subplots(1, 2, width_ratios=(1.25, 1)) if published is not None else [figure.subplots()]
    means = table.dropna(subset="mean").pivot(index="method", columns="measure", values="mean")
    means = means.reindex(columns=[upstream, transfer]).dropna()
    drawn = style.ordered(means.index)
    least = style.FAR * means[upstream].get("sl", 0.0) if style.measure_label(upstream).endswith("(%)") else float("-inf")
    far = [method for method in drawn if means.loc[method, upstream] < least]
    near = [method for method in drawn if method not in far]
    named = []
    for method in near:
        found, colour = table[table["method"] == method].set_index("measure"), style.look(method).colour
        single = rows[rows["method"] == method].pivot_table(index="seed", columns="measure", values="value")
        style.single(axes, single[upstream], single[transfer], method)
        x, y = found.loc[upstream], found.loc[transfer]
        style.mark(axes, x["mean"], y["mean"], (x["low"], x["high"]), method, horizontal=True)
        style.mark(axes, x["mean"], y["mean"], (y["low"], y["high"]), method)
        named.append((x["mean"], y["mean"], style.look(method).label, colour))
    outside = [f"{style.look(name).label} {means.loc[name, upstream]:.3g}, {means.loc[name, transfer]:.2f}" for name in far]
    if outside:
        text = "\n".join(["outside the frame:", *outside]).replace("-", "−")
        axes.text(0.98, 0.02, text, transform=axes.transAxes, ha="right", va="bottom", color=style.GREY, fontsize=style.SMALL)
    axes.set_xlabel(f"Pre-training classes: {style.measure_label(upstream)}")
    axes.set_ylabel(f"Transfer: {style.measure_label(transfer)}")
    axes.set_title("ours" if other else "")
    style.within_percent(axes, upstream, transfer)
    if not drawn:
        style.absent(axes)
        axes.set_xticks([])
    axes.margins(0.08)
    layout.name_points(axes, named, every=True)
    lacking = [style.look(method).label for method in style.ordered(table["method"]) if method not in drawn]
    style.note(figure, style.seeds(table, points=True) + (f"\nwithout results: {', '.join(lacking)}" if lacking else ""))
    data = table.assign(source="ours")
    if other:
        _draw_published(other[0], published)
        data = pd.concat([data, _as_plotted(published)], ignore_index=True)
    return figure, data


PUBLISHED = {"upstream": "ImageNet-1K, top-1 (%)", "transfer": "Mean log-odds, 13 sets"}


def _draw_published(axes: Axes, published: pd.DataFrame) -> None:
    """Hollow markers, each model named beside its first one."""
    named = []
    for row in published.to_dict("records"):
        looks = {"color": style.GREY, "marker": "o"}  # a model that is no method of ours
        if isinstance(row.get("method"), str):
            looks = {"color": style.look(row["method"]).colour, "marker": style.look(row["method"]).marker}
        axes.plot(
            row["upstream"], row["transfer"], markerfacecolor="white", markeredgewidth=0.8, linestyle="none", zorder=3, **looks
        )
        named.append((row["upstream"], row["transfer"], row["model"], looks["color"]))
    axes.set_title("published, ImageNet-1K (digitised)")
    axes.set_xlabel(PUBLISHED["upstream"])
    axes.set_ylabel(PUBLISHED["transfer"])
    axes.margins(0.12)
    first = {point[2]: point for point in reversed(named)}
    layout.name_points(axes, reversed(first.values()), every=True)


def _as_plotted(published: pd.DataFrame) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"method": published["model"], "measure": label, "mean": published[column]})
        for column, label in PUBLISHED.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(source="published, digitised")
