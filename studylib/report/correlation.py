"""Which measure of the features predicts transfer: rank correlations over encoders, with intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from studylib.method_table import USING_LABELS
from studylib.report import layout, statistics, style, tables

ENCODER = ["method", "variant"]
KIND = ["measure", "protocol"]


def encoders(frame: pd.DataFrame, measures: Sequence[str], target: str, along: Sequence[str] = ()) -> pd.DataFrame:
    """A row for each measure, protocol and encoder: its value and its target, means over the seeds that have both.

    An encoder is a method and variant. Columns: measure, protocol, method, variant, those of ``along``, value, value_low,
    value_high, target, target_low, target_high (95 % intervals over seeds, `statistics.limits`), n (seeds).

    Args:
        frame: rows of the results table; a seed of an encoder has one value of each measure and protocol, and one target.
        along: more columns that tell encoders apart, such as ``epoch``.

    Raises:
        InputError: several values for a seed of an encoder, such as those of two data sets.
    """
    by = [*ENCODER, *along, "seed"]
    own = statistics.select(frame, measure=list(measures))
    goal = statistics.select(frame, measure=target)
    statistics.refuse_mixture(own, [*KIND, *by])
    statistics.refuse_mixture(goal, by)
    pairs = own[[*KIND, *by, "value"]].merge(goal[[*by, "value"]].rename(columns={"value": "target"}), on=by)
    rows = []
    for key, part in pairs.dropna(subset=["value", "target"]).groupby([*KIND, *by[:-1]], sort=False):
        numbers = [
            number
            for name, of in (("value", key[0]), ("target", target))
            for found in [statistics.interval(part[name])]
            for number in (found[0], *statistics.limits(*found, of))
        ]
        rows.append([*key, *numbers, len(part)])
    sides = [f"{name}{end}" for name in ("value", "target") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*KIND, *by[:-1], *sides, "n"])


def correlations(frame: pd.DataFrame, measures: Sequence[str], target: str) -> pd.DataFrame:
    """Spearman's ρ of each measure with ``target`` over encoders: columns measure, protocol, rho, low, high, n.

    An encoder is a method and variant (`encoders`); n counts those that have both. The 95 % interval is that of
    `statistics.rank_correlation`; it takes the encoders for independent draws, which methods that share a recipe are not.
    ρ is NaN where one of the two is constant, and below three encoders, where it could only be ±1.

    Raises:
        InputError: several values for a seed of an encoder, such as those of two data sets.
    """
    table, rows = encoders(frame, measures, target), []
    for measure in measures:
        part = table[table["measure"] == measure]
        for protocol in dict.fromkeys(part["protocol"]) or [""]:
            own = part[part["protocol"] == protocol]
            found = statistics.rank_correlation(own["value"], own["target"])
            rows.append({"measure": measure, "protocol": protocol} | dict(zip(("rho", "low", "high", "n"), found, strict=True)))
    return pd.DataFrame(rows, columns=[*KIND, "rho", "low", "high", "n"])


def by_labels(parts: Mapping[str, tuple[pd.DataFrame, str]], measures: Sequence[str]) -> pd.DataFrame:
    """`correlations` over all methods and then over those that learn from labels; columns ``who`` and ``group`` say of what.

    Args:
        parts: group -> (rows as for `correlations`, target).
        measures: those that a part lacks are left out of it.
    """
    found = []
    for who, methods in (("all", None), ("with labels", USING_LABELS)):
        for group, (rows, target) in parts.items():
            rows = rows if methods is None else statistics.select(rows, method=methods)
            names = [name for name in measures if name in set(rows["measure"])]
            found.append(correlations(rows, names, target).assign(who=who, group=group))
    return pd.concat(found, ignore_index=True)


def strongest(found: pd.DataFrame) -> str:
    """Two lines for each part of `by_labels`: the largest \\|ρ\\|, and how many of the intervals exclude 0."""
    lines = []
    for (who, group), rows in found.dropna(subset="rho").groupby(["who", "group"], sort=False):
        best, decided = rows.loc[rows["rho"].abs().idxmax()], ((rows["low"] > 0) | (rows["high"] < 0)).sum()
        measure = best["measure"].replace("_", " ")
        lines.append(f"{group}, {who}: the strongest is {measure} ({best['protocol']}), ρ = {rho(best)}")
        lines.append(f"  of {len(rows)} measures {decided} have an interval that excludes 0")
    return "\n".join(lines)


def sign(low: float, high: float) -> str:
    """What an interval of ρ says: positive, negative, undecided (it holds 0), or no interval."""
    if math.isnan(low):
        return "no interval"
    return "positive" if low > 0 else "negative" if high < 0 else "undecided"


def rho(row: Mapping[str, Any]) -> str:
    """ρ with its interval and n, as text."""
    return tables.correlation(*(row[name] for name in ("rho", "low", "high", "n")))


def predictions(found: pd.DataFrame) -> pd.DataFrame:
    """`correlations` as a table of text, sorted by the largest \\|ρ\\|; several of them with ``group``, or `by_labels`."""
    if "who" in found:
        found = found.assign(group=found["group"] + ", " + found["who"])
    groups = list(dict.fromkeys(found["group"])) if "group" in found else [""]
    found = found if "group" in found else found.assign(group="")
    body = []
    for measure, protocol in _sorted(found):
        row = {"Measure": style.measure_label(measure), "How": protocol}
        for group in groups:
            own = _rows(found, measure, protocol, group)
            row[f"ρ, {group}" if group else "ρ"] = rho(own.iloc[0]) if len(own) else tables.MISSING
            row[f"Sign, {group}" if group else "Sign"] = sign(*own.iloc[0][["low", "high"]]) if len(own) else tables.MISSING
        body.append(row)
    return pd.DataFrame(body, columns=None if body else ["Measure", "How"])


def predictors(found: pd.DataFrame, *, target: str) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data): a row for each measure, ρ with its interval, the largest \\|ρ\\| on top.

    Args:
        found: by `correlations`; with a column ``group`` several of them together, such as measures of the pre-training and
            of unseen classes, each with a colour and a marker of its own.
        target: what they are correlated with, for the axis.
    """
    shown = found if "group" in found else found.assign(group="")
    names, groups = _sorted(shown), list(dict.fromkeys(shown["group"]))
    figure = style.canvas(2, 0.95 + 0.11 * max(len(groups), 1.5) * max(len(names), 1))
    axes = figure.subplots()
    axes.axvline(0, color="0.5", linewidth=0.8, zorder=1)
    for y, name in enumerate(names):
        rows = [_rows(shown, *name, group).dropna(subset="rho") for group in groups]
        for place, row in enumerate(rows):
            if len(row):
                _dot(axes, row.iloc[0], y + (place - (len(groups) - 1) / 2) * 0.6 / len(groups), place)
        if not any(len(row) for row in rows):
            near = {"xytext": (4, 0), "textcoords": "offset points", "fontsize": style.SMALL}
            axes.annotate("no value", (0, y), va="center", color=style.GREY, **near)
    several = {measure for measure, _ in names if sum(measure == other for other, _ in names) > 1}
    axes.set_yticks(range(len(names)), [_label(*name, measure_alone=name[0] not in several) for name in names])
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.set_xlim(-1.05, 1.05)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"Spearman's ρ with {target}")
    if not names:
        style.absent(axes)
    handles = [
        Line2D([], [], color=style.CLASS_COLOURS[i], marker=style.CLASS_MARKERS[i], linestyle="none", label=group)
        for i, group in enumerate(groups)
    ]
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    style.note(figure, _encoders_note(shown))
    return figure, shown


def _dot(axes: Axes, row: pd.Series, y: float, place: int) -> None:
    reach = [[max(row["rho"] - row["low"], 0)], [max(row["high"] - row["rho"], 0)]]
    bar = {} if math.isnan(row["low"]) else {"xerr": reach}
    drawn = {"color": style.CLASS_COLOURS[place], "marker": style.CLASS_MARKERS[place]}
    axes.errorbar(
        row["rho"], y, capsize=1.8, elinewidth=0.9, zorder=3, markeredgecolor="white", markeredgewidth=0.4, **drawn, **bar
    )


def _encoders_note(found: pd.DataFrame) -> str:
    counts = sorted({int(n) for n in found["n"]} - {0})
    if not counts:
        return "no results yet"
    least_most = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    said = f"over encoders (methods and variants, means over seeds), n = {least_most}"
    return f"{said}; " + ("95 % interval" if found["low"].notna().any() else f"no interval below {statistics.FEWEST} encoders")


def _sorted(found: pd.DataFrame) -> list[tuple[str, str]]:
    """(measure, protocol), the largest absolute ρ first, those without one last."""
    strongest = found.assign(size=found["rho"].abs()).groupby(KIND, sort=False)["size"].max()
    return list(strongest.sort_values(ascending=False, kind="stable", na_position="last").index)


def _rows(found: pd.DataFrame, measure: str, protocol: str, group: str) -> pd.DataFrame:
    return found[(found["measure"] == measure) & (found["protocol"] == protocol) & (found["group"] == group)]


def _label(measure: str, protocol: str, *, measure_alone: bool) -> str:
    name = style.measure_label(measure)
    return name if measure_alone or not protocol else f"{name}, {protocol}"


def scatter(
    frame: pd.DataFrame, measures: Sequence[str], target: str, *, most: int = 4, place: str = ""
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data): a panel for each measure and protocol, on x the measure and on y ``target``.

    A marker for each encoder, with the look of its method and intervals over its seeds; variants of a method are named beside
    it. Above each panel ρ by `correlations`.

    Args:
        frame: as for `correlations`.
        most: panels in a row.
        place: what x was measured on, for its label.

    Raises:
        InputError: several values for a seed of an encoder.
    """
    table, found = encoders(frame, measures, target), correlations(frame, measures, target)
    panels = list(found[KIND].itertuples(index=False, name=None)) or [("", "")]
    deep = math.ceil(len(panels) / most)
    figure = style.canvas(1 if len(panels) == 1 else 2, (2.7 if len(panels) == 1 else 1.9 * deep) + 0.6)
    axes, cut = style.grid(figure, len(panels), most, sharey=True), False
    for i, (panel, (measure, protocol)) in enumerate(zip(axes, panels, strict=True)):
        part = table[(table["measure"] == measure) & (table["protocol"] == protocol)]
        _points(panel, part)
        cut = _window(panel, "x", part, "value") or cut
        several = sum(other == measure for other, _ in panels) > 1
        label = _label(measure, protocol, measure_alone=not several)
        panel.set_xlabel(f"{place}: {label}" if place else label)
        if i % most == 0:
            panel.set_ylabel(style.measure_label(target))
        panel.set_title(f"ρ = {rho(found.iloc[i])}" if len(part) else "", fontsize=style.SMALL)
        if part.empty:
            panel.text(0.5, 0.5, "no results", transform=panel.transAxes, ha="center", color=style.GREY, fontsize=style.SMALL)
            panel.set_xticks([])
    cut = _window(axes[0], "y", table, "target") or cut
    style.legend(figure, table["method"], most=3 if len(panels) == 1 else 6)
    style.note(figure, style.seeds(table) + CUT * cut)
    for panel, (measure, protocol) in zip(axes, panels, strict=True):
        part = table[(table["measure"] == measure) & (table["protocol"] == protocol) & (table["variant"] != table["method"])]
        named = [
            (row["value"], row["target"], row["variant"], style.look(row["method"]).colour) for row in part.to_dict("records")
        ]
        layout.name_points(panel, named, every=True)
    return figure, table.assign(target_measure=target)


def _points(axes: Axes, part: pd.DataFrame) -> None:
    for row in part.to_dict("records"):
        for name in ("value", "target"):
            reach = (row[f"{name}_low"], row[f"{name}_high"])
            style.mark(axes, row["value"], row["target"], reach, row["method"], horizontal=name == "value")


CUT = "; longer intervals are cut"


def _window(axes: Axes, direction: str, table: pd.DataFrame, name: str, *, log: bool = False) -> bool:
    """Let an axis show all means, and of the intervals around them no more than half the means' range; whether some are cut."""
    ends = table[[name, f"{name}_low", f"{name}_high"]].astype(float)  # of an empty table they are objects
    with np.errstate(divide="ignore"):  # an interval may begin at 0
        means, low, high = (np.log(column) if log else column for _, column in ends.items())
    span = means.max() - means.min()
    if not span > 0:
        return False
    lowest, highest = low.fillna(means).min(), high.fillna(means).max()
    shown = max(lowest, means.min() - span / 2) - 0.1 * span, min(highest, means.max() + span / 2) + 0.1 * span
    axes.set(**{f"{direction}lim": np.exp(shown) if log else shown})
    return bool(lowest < shown[0] or highest > shown[1])


def trajectory(frame: pd.DataFrame, measure: str, target: str, *, log: bool = False) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data): ``target`` against ``measure`` along training, a line for each method, epochs beside it.

    Means over seeds with their intervals. A threshold beyond which transfer falls while the measure still grows (claim S9)
    would be a line that turns down.

    Args:
        frame: rows of one protocol of ``measure`` and one of ``target``, each of one data set and layer, at several epochs.
        log: the measure on a logarithmic axis.

    Raises:
        InputError: several values for a seed at an epoch.
    """
    table = encoders(frame, [measure], target, along=["epoch"]).sort_values("epoch", kind="stable", ignore_index=True)
    figure = style.canvas(1, 2.7)
    axes = figure.subplots()
    for method, part in style.by_method(table):
        drawn = style.look(method)
        axes.plot(part["value"], part["target"], color=drawn.colour, linewidth=0.9, zorder=2)
        _points(axes, part)
    axes.set_xlabel(style.measure_label(measure))
    axes.set_ylabel(style.measure_label(target))
    if log and len(table):
        axes.set_xscale("log")
        wide = table["value"].max() > 10 * table["value"].min()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if wide else (1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    cut = _window(axes, "y", table, "target")
    cut = _window(axes, "x", table, "value", log=log) or cut
    if table.empty:
        style.absent(axes)
        axes.set_xticks([])
    style.legend(figure, table["method"], line=True)
    style.note(figure, f"numbers: epochs of pre-training, where there is room\n{style.seeds(table)}{CUT * cut}")
    moments = table.iloc[::-1].to_dict("records")  # the last come first
    layout.name_points(
        axes, [(row["value"], row["target"], f"{int(row['epoch'])}", style.look(row["method"]).colour) for row in moments]
    )
    return figure, table.assign(target_measure=target)


def turns(frame: pd.DataFrame, measure: str, target: str) -> pd.DataFrame:
    """What `trajectory` does at its end, as a table of text: a row for each method.

    The last snapshot less the one before it, of ``measure`` and of ``target``, paired over seeds with 95 % intervals.
    """
    body = []
    for method in style.ordered(frame["method"]):
        rows = statistics.select(frame, method=method, measure=[measure, target])
        moments = sorted(set(rows["epoch"]))[-2:]
        if len(moments) < 2:
            continue
        row = {"Method": style.look(method).label, "Epochs": " → ".join(f"{int(moment)}" for moment in moments)}
        signs = []
        for name in (measure, target):
            change = statistics.paired_difference(statistics.select(rows, epoch=moments), name, *moments, column="epoch")
            row[f"Change of {style.measure_label(name)}"] = tables.number(*change, name, signed=True)
            signs.append(statistics.verdict(*change, "higher"))
        says = {"supported": "rises", "contradicted": "falls", "undecided": "undecided", "not run": "not run"}
        body.append(row | {style.measure_label(measure): says[signs[0]], style.measure_label(target): says[signs[1]]})
    return pd.DataFrame(body)
