"""Which transfer protocol changes which conclusion: every method against SL by each protocol and by a reference probe."""

from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure

from studylib.report import statistics, style, tables

ACCURACY = ("_top1", "_ap")
PER_CLASS = ("_mean_per_class",)


def by_protocol(frame: pd.DataFrame, endings: tuple[str, ...] = ACCURACY, *, how: str = "mean") -> pd.DataFrame:
    """``frame`` with the data sets of each protocol averaged (`statistics.over_datasets`); other measures are left out.

    Rows of one layer and epoch; protocols are told by their measure (``knn_top1``, ``per_class_top1_16``, ...), each is
    averaged over the sets that it was carried out on. ``endings``: of the measures, `ACCURACY` or `PER_CLASS`.
    """
    names = protocol_measures(frame, endings)
    found = [statistics.over_datasets(statistics.select(frame, measure=name), how=how) for name in names]
    return pd.concat(found, ignore_index=True) if found else frame.iloc[:0]


def protocol_measures(frame: pd.DataFrame, endings: tuple[str, ...] = ACCURACY) -> list[str]:
    """The measures of ``frame`` that are accuracies of transfer protocols, in order of appearance."""
    names = [name for name in dict.fromkeys(frame["measure"]) if not name.startswith("monitor_")]
    return [name for name in names if name.endswith(endings) or f"{endings[0]}_" in name]


def carried_out(frame: pd.DataFrame) -> list[str]:
    """A line for each protocol of ``frame``: what it does, and the data sets that it was carried out on."""
    rows = statistics.select(frame, measure=protocol_measures(frame)).groupby("measure", sort=False)
    lines = [f"{part['protocol'].iloc[0]}: on {', '.join(part['dataset'].unique())}" for _, part in rows]
    return list(dict.fromkeys(lines))


def trex_score(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` and, as measure ``trex_top1``, each set's accuracy by t-ReX's protocol for it, for large or for small sets.

    Their mean log-odds over all sets is t-ReX's transfer score (papers/README.md 3.3).
    """
    own = statistics.select(frame, measure=["trex_small8_top1", "trex_large_top1"])
    return pd.concat([frame, own.assign(measure="trex_top1")], ignore_index=True)


def conclusions(frame: pd.DataFrame, *, baseline: str = "sl", reference: str = "linear_top1") -> pd.DataFrame:
    """A row for each protocol and method: its mean log-odds less those of ``baseline``, and whether ``reference`` agrees.

    Columns: measure, sets (how many), method; mean, half_width, n of the difference, paired over seeds, and its verdict
    (better, worse, undecided, not run); reference_mean and reference_verdict: the same by the probe ``reference`` **on the
    same data sets**, so that a change is the protocol's and not that of other sets; change_mean, change_half_width: the
    first difference less the second, paired over seeds, and changed: whether its interval excludes 0.
    """
    rows = []
    for measure in protocol_measures(frame):
        own = statistics.select(frame, measure=measure)
        names = list(dict.fromkeys(own["dataset"]))
        other = statistics.select(frame, measure=reference, dataset=names)
        for method in [name for name in style.ordered(own["method"]) if name != baseline]:
            gain, expected = _gain(own, names, baseline, method), _gain(other, names, baseline, method)
            change = statistics.interval(gain - expected)
            rows.append(
                {"measure": measure, "sets": len(names), "method": method}
                | dict(zip(("mean", "half_width", "n"), statistics.interval(gain), strict=True))
                | {"verdict": _word(gain), "reference_mean": statistics.interval(expected)[0]}
                | {"reference_verdict": _word(expected)}
                | dict(zip(("change_mean", "change_half_width"), change[:2], strict=True))
                | {"changed": change[2] > 1 and abs(change[0]) > change[1]}
            )
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = ["measure", "sets", "method", "mean", "half_width", "n", "verdict", "reference_mean", "reference_verdict"]
COLUMNS += ["change_mean", "change_half_width", "changed"]


def _gain(frame: pd.DataFrame, names: list[str], a: str, b: str) -> pd.Series:
    """Mean log-odds of ``b`` less those of ``a``, by seed."""
    means = statistics.select(statistics.over_datasets(frame, names), method=[a, b])
    wide = means.pivot(index="seed", columns="method", values="value").reindex(columns=[a, b])
    return (wide[b] - wide[a]).astype(float)


def _word(gain: pd.Series) -> str:
    words = {"supported": "better", "contradicted": "worse", "undecided": "undecided", "not run": "not run"}
    return words[statistics.verdict(*statistics.interval(gain), "higher")]


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
        reach = (row["mean"] - row["half_width"], row["mean"] + row["half_width"])
        style.mark(axes, row["mean"], place, reach, row["method"], horizontal=True)
    axes.set_yticks(range(len(measures)), [protocol_label(name) for name in measures])
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    for edge in range(1, len(measures)):
        axes.axhline(edge - 0.5, color="0.9", linewidth=0.6, zorder=0)
    axes.set_xlabel(f"Mean log-odds of the accuracy, less those of {style.look(baseline).label}")
    style.legend(figure, found["method"])
    style.note(figure, f"{style.seeds(found)}; right of 0: transfers better than {style.look(baseline).label}")
    return figure, found


def protocol_label(measure: str) -> str:
    """Name of a protocol for readers, by its measure."""
    return style.measure_label(measure).replace(", top-1 (%)", "")


def changes(found: pd.DataFrame, *, reference: str = "linear_top1") -> pd.DataFrame:
    """The rows of `conclusions` that the protocol changes, as a table of text: the gain is not that by the reference.

    ``Conclusion`` says whether the verdict is another as well.
    """
    measure = "linear_top1_log_odds"
    body = [
        {
            "Protocol": protocol_label(row["measure"]),
            "Data sets": row["sets"],
            "Method": style.look(row["method"]).label,
            "Gain over SL": tables.number(row["mean"], row["half_width"], row["n"], measure, signed=True),
            f"Less that by the {protocol_label(reference).lower()}": tables.number(
                row["change_mean"], row["change_half_width"], row["n"], measure, signed=True
            ),
            "Conclusion": row["verdict"]
            if row["verdict"] == row["reference_verdict"]
            else f"{row['verdict']}, not {row['reference_verdict']}",
        }
        for row in found[found["changed"] & (found["measure"] != reference)].to_dict("records")
    ]
    return pd.DataFrame(body)


def changed_share(found: pd.DataFrame, *, reference: str = "linear_top1") -> str:
    """``2 of 20``: how many of the comparisons of `conclusions` that have a change at all the protocol changes."""
    compared = found[(found["measure"] != reference) & found["change_mean"].notna()]
    return f"{int((found['changed'] & (found['measure'] != reference)).sum())} of {len(compared)}"


def protocol_seconds(frame: pd.DataFrame) -> pd.DataFrame:
    """A table with a row for each part of a protocol that is timed: seconds on this machine, mean over encoders and sets."""
    clock = frame[frame["measure"].str.endswith("_seconds")]
    return clock.groupby("measure", sort=False)["value"].mean().rename("seconds").round(2).reset_index()


def rivals(frame: pd.DataFrame) -> pd.DataFrame:
    """LOOK's memory fine-tuning against linear fine-tuning (claim L5), as a table of text: a row for each method and kind.

    Accuracies are means over data sets in %, seconds of choice, fit and prediction their sum over data sets; both with
    intervals over seeds, the difference paired.
    """
    body = []
    for kind, title in (("", "trained along"), ("_frozen", "frozen")):
        names = [f"{name}_fine_tune{kind}" for name in ("memory", "linear")]
        for method, rows in style.by_method(frame):
            scores, seconds = [], []
            for name in names:
                own = statistics.over_datasets(statistics.select(rows, measure=f"{name}_top1"), how="mean")
                scores.append(own.set_index("seed")["value"])
                seconds.append(statistics.select(rows, measure=f"{name}_seconds").groupby("seed")["value"].sum())
            if not scores[0].empty and not scores[1].empty:
                shown = [tables.number(*statistics.interval(values), "linear_top1") for values in scores]
                clock = [tables.number(*statistics.interval(values), "seconds_per_epoch") for values in seconds]
                difference = statistics.interval(scores[0] - scores[1])
                body.append(
                    {"Encoder": title, "Method": style.look(method).label, "Memory (%)": shown[0], "Linear (%)": shown[1]}
                    | {"Memory − linear": tables.number(*difference, "linear_top1", signed=True)}
                    | {"Memory (s)": clock[0], "Linear (s)": clock[1]}
                )
    return pd.DataFrame(body)


def rivals_reading(pairs: pd.DataFrame, methods: Iterable[str]) -> str:
    """A line for each row of `rivals`'s table of ``methods`` (names for readers): difference in accuracy, and both times."""
    rows = pairs[pairs["Method"].isin(list(methods))].to_dict("records") if len(pairs) else []
    return "\n".join(
        f"{row['Method']}, encoder {row['Encoder']}: memory − linear {row['Memory − linear']} %; "
        f"{row['Memory (s)']} against {row['Linear (s)']} s"
        for row in rows
    )


def reading(found: pd.DataFrame, *, baseline: str = "sl") -> str:
    """A line for each method: its verdicts against ``baseline`` over the protocols of `conclusions`, counted and named."""
    lines = []
    for method, rows in style.by_method(found):
        given = {
            word: [protocol_label(name) for name in rows.loc[rows["verdict"] == word, "measure"]]
            for word in ("better", "worse", "undecided", "not run")
        }
        said = [f"{word} by {len(names)} ({'; '.join(names)})" for word, names in given.items() if names]
        lines.append(f"{style.look(method).label} against {style.look(baseline).label}: {', '.join(said)}")
    return "\n".join(lines)
