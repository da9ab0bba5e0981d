"""What a projector does: measures against its number of hidden layers, and every method with and without one."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studylib.report import statistics, style


def depth(frame: pd.DataFrame, *, measures: Sequence[str], layer: str = "stage5") -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of ``measures`` at the end of training against the projector's number of hidden layers.

    The rows whose ``variant`` is ``depth N``; a line for each method, a panel for each measure and data set.

    Raises:
        InputError: several values for a seed at a depth, such as those of two protocols.
    """
    rows = statistics.select(statistics.at_end(frame), measure=list(measures), layer=layer)
    number = pd.to_numeric(rows["variant"].astype(str).str.extract(r"^depth (\d+)$", expand=False))
    rows = rows.assign(hidden_layers=number).dropna(subset="hidden_layers")
    table = statistics.over_seeds(rows, ["measure", "dataset", "method", "hidden_layers"])
    table = table.astype({"hidden_layers": int}).sort_values("hidden_layers", kind="stable", ignore_index=True)
    found = set(zip(rows["measure"], rows["dataset"], strict=True))
    shown = [(name, data) for data in dict.fromkeys(rows["dataset"]) for name in measures if (name, data) in found]
    shown = shown or [(name, "") for name in measures]
    most = 2 if len(shown) in (2, 4) else 3
    several = table["method"].nunique() > 1  # which then have a legend
    figure = style.canvas(1 if len(shown) == 1 else 2, (2.3 if len(shown) <= most else 4.1) + 0.25 * several)
    offsets = style.dodge(table["method"], 0.06 * (table["method"].nunique() - 1))
    for axes, (measure, dataset) in zip(style.grid(figure, len(shown), most), shown, strict=True):
        part = table[(table["measure"] == measure) & (table["dataset"] == dataset)]
        for method, line in style.by_method(part):
            places = line["hidden_layers"] + offsets[method]
            axes.plot(places, line["mean"], color=style.look(method).colour, alpha=0.6, zorder=2)
            for x, row in zip(places, line.itertuples(), strict=True):
                style.mark(axes, x, row.mean, (row.low, row.high), method)
        axes.set_title(style.dataset_label(dataset))
        axes.set_xlabel("Hidden layers of the projector")
        axes.set_ylabel(style.measure_label(measure))
        axes.set_xticks(sorted(set(table["hidden_layers"])))
        axes.set_xlim(table["hidden_layers"].min() - 0.3, table["hidden_layers"].max() + 0.3) if len(table) else None
        axes.margins(y=0.12)
        style.within_percent(axes, y=measure)
        if part.empty:
            style.absent(axes)
            axes.set_xticks([])
    style.legend(figure, table["method"], line=True)
    style.note(figure, style.seeds(table))
    return figure, table.assign(layer=layer)


def projector_effect(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose ``variant`` is ``METHOD on`` or ``METHOD off``, with METHOD as ``method``, and ``with`` or ``without`` as
    ``variant``: what a method gains from its projector is then a difference of variants."""
    parts = frame["variant"].astype(str).str.extract(r"^(.*) (on|off)$")
    return frame.assign(method=parts[0], variant=parts[1].map({"off": "without", "on": "with"})).dropna(subset="variant")


def with_and_without(frame: pd.DataFrame, *, measures: Sequence[str], layer: str = "stage5") -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of ``measures`` at the end of training with and without a projector, a row for each method.

    The rows whose ``variant`` is ``METHOD on`` or ``METHOD off``, these smaller, lighter and below; a panel for each measure,
    which must come from one data set, or from means over several by `statistics.over_datasets`.

    Raises:
        InputError: several values for a seed of a variant, such as those of two data sets.
    """
    rows = statistics.select(statistics.at_end(frame), measure=list(measures), layer=layer)
    parts = rows["variant"].astype(str).str.extract(r"^(.*) (on|off)$")
    rows = rows.assign(base=parts[0], projector=parts[1]).dropna(subset="projector")
    table = statistics.over_seeds(rows, ["measure", "base", "projector"])
    names = style.ordered(table["base"])
    figure = style.canvas(1 if len(measures) == 1 else 2, 1.2 + 0.2 * max(len(names), 1))
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        part = table[table["measure"] == measure]
        for y, name in enumerate(names):
            found = part[part["base"] == name].set_index("projector")
            found = found.reindex(["off", "on"])
            places = [y + 0.13, y - 0.13]  # apart, so that equal values do not hide each other
            axes.plot(found["mean"], places, color="0.75", linewidth=1.4, zorder=1)
            for place, row in zip(places, found.itertuples(), strict=True):
                style.mark(axes, row.mean, place, (row.low, row.high), name, horizontal=True, faint=row.Index == "off")
        datasets = list(dict.fromkeys(rows.loc[rows["measure"] == measure, "dataset"]))
        axes.set_title(", ".join(style.dataset_label(name) for name in datasets))
        axes.set_xlabel(style.measure_label(measure))
        axes.set_yticks(range(len(names)), [style.look(name).label for name in names])
        axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
        style.within_percent(axes, measure)
        if part.empty:
            style.absent(axes)
            axes.set_xticks([])
    grey, size = {"marker": "o", "linestyle": "none"}, style.RC["lines.markersize"]
    handles = [
        Line2D([], [], **grey, color=style.lighter("0.35"), markersize=style.FAINT * size, label="without projector (lighter)"),
        Line2D([], [], **grey, color="0.35", label="with projector"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    style.note(figure, style.seeds(table))
    return figure, table.assign(layer=layer)
