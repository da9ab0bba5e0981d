"""Which transfer protocol changes which conclusion: every method against SL by each protocol and by a reference probe."""

import pandas as pd
from matplotlib.figure import Figure

from studylib.report import statistics, style, tables

ENDINGS = ("_top1", "_ap")


def by_protocol(frame: pd.DataFrame, *, how: str = "mean") -> pd.DataFrame:
    """``frame`` with the data sets of each protocol averaged (`statistics.over_datasets`); other measures are left out.

    Rows of one layer and epoch; protocols are told by their measure (``knn_top1``, ``per_class_top1_16``, ...), each is
    averaged over the sets that it was carried out on.
    """
    found = [
        statistics.over_datasets(statistics.select(frame, measure=measure), how=how) for measure in protocol_measures(frame)
    ]
    return pd.concat(found, ignore_index=True) if found else frame.iloc[:0]


def protocol_measures(frame: pd.DataFrame) -> list[str]:
    """The measures of ``frame`` that are accuracies of transfer protocols, in order of appearance."""
    names = [name for name in dict.fromkeys(frame["measure"]) if not name.startswith("monitor_")]
    return [name for name in names if name.endswith(ENDINGS) or "_top1_" in name]


def conclusions(frame: pd.DataFrame, *, baseline: str = "sl", reference: str = "linear_top1") -> pd.DataFrame:
    """A row for each protocol and method: its mean log-odds less those of ``baseline``, and what ``reference`` says of it.

    Columns: measure, sets (how many), method, mean, half_width, n (paired over seeds), verdict (better, worse, undecided),
    reference_mean, reference_half_width, reference_verdict: the same by the probe ``reference`` **on the same data sets**,
    so that a change is the protocol's and not that of other sets.
    """
    rows = []
    for measure in protocol_measures(frame):
        own = statistics.select(frame, measure=measure)
        names = list(dict.fromkeys(own["dataset"]))
        other = statistics.select(frame, measure=reference, dataset=names)
        for method in [name for name in style.ordered(own["method"]) if name != baseline]:
            found = _difference(own, names, baseline, method)
            expected = _difference(other, names, baseline, method)
            rows.append(
                {"measure": measure, "sets": len(names), "method": method}
                | dict(zip(("mean", "half_width", "n"), found, strict=True))
                | {"verdict": _word(found)}
                | dict(zip(("reference_mean", "reference_half_width"), expected[:2], strict=True))
                | {"reference_verdict": _word(expected)}
            )
    return pd.DataFrame(rows)


def _difference(frame: pd.DataFrame, names: list[str], a: str, b: str) -> tuple[float, float, int]:
    means = statistics.over_datasets(frame, names)
    measure = means["measure"].iloc[0] if len(means) else ""
    return statistics.paired_difference(means, measure, a, b)


def _word(difference: tuple[float, float, int]) -> str:
    words = {"supported": "better", "contradicted": "worse", "inconclusive": "undecided", "not run": "not run"}
    return words[statistics.verdict(*difference, "higher")]


def protocols(found: pd.DataFrame, *, baseline: str = "sl") -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of `conclusions`: a row for each protocol, the methods' differences to ``baseline`` in it."""
    found = found[found["method"] != "random"]  # far below all, it would leave the others no room
    measures = list(dict.fromkeys(found["measure"])) or [""]
    figure = style.canvas(2, 0.9 + 0.32 * len(measures))
    axes = figure.subplots()
    offsets = style.dodge(found["method"], 0.6)
    axes.axvline(0, color="0.5", linewidth=0.8, zorder=1)
    for row in found.to_dict("records"):
        place = measures.index(row["measure"]) + offsets[row["method"]]
        style.mark(axes, row["mean"], place, row["half_width"], row["method"], horizontal=True)
    axes.set_yticks(range(len(measures)), [protocol_label(name) for name in measures])
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    for edge in range(1, len(measures)):
        axes.axhline(edge - 0.5, color="0.9", linewidth=0.6, zorder=0)
    axes.set_xlabel(f"Mean log-odds of the accuracy, less those of {style.look(baseline).label}")
    style.legend(figure, found["method"])
    style.note(figure, style.seeds(found))
    return figure, found


def protocol_label(measure: str) -> str:
    """Name of a protocol for readers, by its measure."""
    return style.measure_label(measure).replace(", top-1 (%)", "")


def changes(found: pd.DataFrame, *, reference: str = "linear_top1") -> pd.DataFrame:
    """The rows of `conclusions` whose verdict is not that of the reference probe on the same sets, as a table of text.

    Where there is no verdict of one of the two (the reference has none on sets with boxes), there is nothing to compare.
    """
    known = (found["verdict"] != "not run") & (found["reference_verdict"] != "not run")
    differ = found[known & (found["verdict"] != found["reference_verdict"]) & (found["measure"] != reference)]
    measure = "linear_top1_log_odds"
    body = [
        {
            "Protocol": protocol_label(row["measure"]),
            "Data sets": row["sets"],
            "Method": style.look(row["method"]).label,
            "Log-odds, method − SL": tables.number(row["mean"], row["half_width"], row["n"], measure, signed=True),
            "Verdict": row["verdict"],
            f"By the {protocol_label(reference).lower()}": tables.number(
                row["reference_mean"], row["reference_half_width"], row["n"], measure, signed=True
            ),
            "Its verdict": row["reference_verdict"],
        }
        for row in differ.to_dict("records")
    ]
    return pd.DataFrame(body)


def reading(found: pd.DataFrame, *, baseline: str = "sl") -> str:
    """A line for each method: its verdicts against ``baseline`` over the protocols of `conclusions`, counted and named."""
    lines = []
    for method, rows in style.by_method(found):
        given = {
            word: [protocol_label(name) for name in rows.loc[rows["verdict"] == word, "measure"]]
            for word in ("better", "worse", "undecided", "not run")
        }
        said = [f"{word} by {len(names)} ({', '.join(names)})" for word, names in given.items() if names]
        lines.append(f"{style.look(method).label} against {style.look(baseline).label}: {'; '.join(said)}")
    return "\n".join(lines)
