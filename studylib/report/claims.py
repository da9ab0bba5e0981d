"""What the results say of the papers' claims: each test's value, its interval, and a verdict by rule.

A test of a claim (``studylib/papers/*.yaml``) is an expression over the results table:

``grid``
    the grid of runs whose results it reads.
``rows``
    a pandas query that picks rows. Beside the table's columns it may use ``@upstream``, ``@unseen``, ``@domains``,
    ``@stagewise``, ``@transfer`` (unseen and domains) and ``@hidden``, the data sets of the scale, and ``@supervised``, the
    methods that learn from labels. Unless it says otherwise the rows are those of held-out images, at the encoder's output
    (``layer``), at the end of training (``moment``: ``end``, ``before`` for the snapshot before it, ``earlier``).
``over``
    what is averaged within a seed, by default the data sets; with ``log_odds`` the mean is that of log-odds.
``columns``
    what names a column for ``compare``, by default the variant; with two, their values with a blank between.
``compare``
    arithmetic over these columns, evaluated for each seed, so that differences are paired; ``{backbone}`` is the scale's second
    one, ``{few}`` an eighth of LOOK's k.
``correlate``
    instead of ``compare``: a query for the accuracies whose mean log-odds are correlated with the values, over variants.
``claimed``
    what the paper says of the value: ``> 0``, ``< 0``, ``> -2`` (not worse by more than 2).
``rival``
    a self-supervised method that must have learned for the comparison to count (`too_poor`).
``part``
    true for each of several parts that a claim consists of.

Beside its tests a claim has a ``why``, what may be the reason where results contradict it, and ``tell``, the command whose
results would tell: ``{scale}`` is the scale's name, ``{longer}`` four times its epochs. Some have a ``figure``, such as
``03_trex/depth``: the notebook and the name of what shows it.

The tests that are parts of a claim decide on it together (`statistics.together`), where none is marked the first one alone; the
others are shown beside them.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studylib import files, papers
from studylib.config import resolve, scale
from studylib.errors import InputError
from studylib.method_table import USING_LABELS
from studylib.report import style, tables
from studylib.report.statistics import interval, judged, log_odds, rank_correlation, refuse_mixture, select, together
from studylib.scale import Scale

PAPERS = {"look": "LOOK", "sl_mlp": "SL-MLP", "trex": "t-ReX"}

COLUMNS = ["paper", "claim", "statement", "published", "source", "test", "decides", "tested_by", "grid", "claimed"]
COLUMNS += ["estimate", "low", "high", "n", "over", "scale", "about", "verdict", "note", "command"]

LEARNED = 0.5  # ours: share of SL's kNN accuracy upstream below which a self-supervised rival has not learned enough to be one


def judge(results: Mapping[str, pd.DataFrame], scale_name: str, of: Iterable[str] = PAPERS) -> pd.DataFrame:
    """A row for each test of the papers ``of`` whose grid is in ``results`` (grid -> results table), with `COLUMNS`.

    ``estimate``, ``low`` and ``high`` are the value and its 95 % interval over ``n`` seeds (Student's t) or, for
    correlations, variants (`statistics.rank_correlation`). A test that finds no value is "not run", and ``command`` says
    what runs it; one against a rival that is `too_poor` is "inconclusive", and ``note`` says why. ``decides`` marks the parts
    of a claim; ``about`` is what the scale is.

    Raises:
        InputError: a test picks several values for one run; see `statistics.refuse_mixture`.
    """
    content, rows = scale(scale_name), []
    results = {grid: prepared(frame) for grid, frame in results.items()}  # once: several tests read the same table
    for paper in of:
        for claim, entry in papers.load(paper)["claims"].items():
            about = {"paper": PAPERS[paper], "claim": claim, "statement": entry["statement"]}
            about |= {"published": entry["published"], "source": entry.get("source", "")}
            about |= {"scale": scale_name, "about": content.about, "note": "", "command": ""}
            several = any(test.get("part") for test in entry["tests"])
            for number, test in enumerate(entry["tests"], 1):
                if test["grid"] in results:
                    found = measure(test, results[test["grid"]], content)
                    row = about | dict(zip(("estimate", "low", "high", "n"), found, strict=True))
                    row |= {"test": number, "tested_by": test["say"], "grid": test["grid"], "claimed": test["claimed"]}
                    row |= {"decides": test.get("part", False) if several else number == 1}
                    row |= {"over": "variants" if "correlate" in test else "seeds", "verdict": judged(*found, test["claimed"])}
                    if row["verdict"] == "not run":
                        row["command"] = grid_command(test, scale_name)
                    elif "rival" in test and (note := too_poor(test["rival"], results[test["grid"]], content.upstream)):
                        row |= {"verdict": "inconclusive", "note": note}
                    rows.append(row)
            if not entry["tests"]:
                empty = {"test": 1, "decides": True, "n": 0, "verdict": "not run", "command": entry["command"]}
                rows.append(about | empty)
    return pd.DataFrame(rows, columns=COLUMNS)


def grids_of(of: Iterable[str] = PAPERS) -> list[str]:
    """The grids that the tests of the papers ``of`` read."""
    tests = (test for paper in of for claim in papers.load(paper)["claims"].values() for test in claim["tests"])
    return list(dict.fromkeys(test["grid"] for test in tests))


def too_poor(rival: str, frame: pd.DataFrame, upstream: str) -> str:
    """Why ``rival`` cannot be compared with: in the `prepared` table its kNN accuracy upstream at the end of training is less
    than half of SL's.

    Without labels a method takes far longer; what it has learned by then says nothing about what it is worth.
    """
    known = select(frame, measure="knn_top1", dataset=upstream, layer="stage5", moment="end", method=[rival, "sl"])
    known = known.groupby("method")["value"].mean()
    if rival not in known or "sl" not in known or known[rival] >= LEARNED * known["sl"]:
        return ""
    return f"{style.look(rival).label} has only {known[rival]:.1f} % kNN upstream, SL {known['sl']:.1f} %"


def grid_command(test: Mapping[str, Any], scale_name: str) -> str:
    """What runs the grid of a test that has no results: with seeds, where the scale does not plan all that it compares."""
    content, grid = scale(scale_name), test["grid"]
    plan = content.seeds.get("methods" if grid == "features" else grid, 0)
    named = names_in(compared(test, content))
    planned = all(any(f"{name} ".startswith(f"{row} ") for row in plan) for name in named) if isinstance(plan, dict) else plan
    return f"studylib grid {grid} --scale {scale_name}" + ("" if planned else " --seeds 3")


def prepared(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the column ``moment``: whether a row is of a variant's last epoch, of the snapshot before it, or earlier.

    The upstream kNN accuracy that training reports at other epochs makes no snapshot.
    """
    frame = frame[~frame["measure"].str.startswith("monitor_")]
    from_end = frame["epoch"].astype(float).groupby(frame["variant"]).rank(method="dense", ascending=False)
    return frame.assign(moment=np.select([from_end == 2, from_end > 2], ["before", "earlier"], "end"))


def measure(test: Mapping[str, Any], frame: pd.DataFrame, content: Scale) -> tuple[float, float, float, int]:
    """(value, low, high, n) of a test on a `prepared` table."""
    columns = test.get("columns", ["variant"])
    over = test.get("over", ["dataset"])
    values = averaged(picked(frame, test["rows"], content), columns, over, logarithmic=test.get("log_odds", False))
    if "correlate" in test:
        target = averaged(picked(frame, test["correlate"], content), columns, ["dataset"], logarithmic=True)
        pairs = pd.concat([values.mean(), target.mean()], axis=1, join="inner")
        return rank_correlation(*(pairs[name] for name in pairs))
    mean, half, n = interval(arithmetic(compared(test, content), values))
    return mean, mean - half, mean + half, n


def compared(test: Mapping[str, Any], content: Scale) -> str:
    """The arithmetic of a test with the scale's names in it."""
    few = max(2, resolve(content.name, "look").look.k // 8)  # as `grids.look_neighbours` has it
    return test.get("compare", "").format(few=few, backbone=content.backbone)


def picked(frame: pd.DataFrame, query: str, content: Scale) -> pd.DataFrame:
    """The rows that ``query`` picks, of held-out images at the encoder's output and the end of training if it names no other.

    What a run cost, which has no layer, is of the training images.
    """
    names = {name: getattr(content, name) for name in ("upstream", "unseen", "domains", "stagewise", "transfer")}
    names |= {"hidden": content.modes.hidden, "supervised": USING_LABELS}
    wanted = [f"({query})", "(split != 'train' or layer == '')"]
    wanted += [] if "layer" in query else ["layer in ('stage5', '')"]
    wanted += [] if "moment" in query else ["moment == 'end'"]
    return frame.query(" and ".join(wanted), local_dict=names)


def averaged(frame: pd.DataFrame, columns: list[str], over: list[str], *, logarithmic: bool) -> pd.DataFrame:
    """Seeds by ``columns``, each value the mean over ``over``; a run that lacks one of what the others have is missing."""
    refuse_mixture(frame, [*columns, "seed", *over])
    if logarithmic:
        frame = frame.assign(value=log_odds(frame["value"]))
    expected = len(frame[over].drop_duplicates())
    if frame.empty:
        return pd.DataFrame()
    groups = frame.dropna(subset="value").groupby([*columns, "seed"])["value"]
    means = groups.mean()[groups.size() == expected].reset_index()
    names = means[columns].astype(str).agg(" ".join, axis=1)
    return means.assign(column=names).pivot(index="seed", columns="column", values="value")


def arithmetic(expression: str, values: pd.DataFrame) -> list[float]:
    """``expression`` over the columns of ``values``, names with blanks or signs between backticks; a value for each row.

    None where a column is missing.

    Raises:
        InputError: it is not arithmetic over names.
    """
    names = names_in(expression)
    plain = NAME.sub(lambda found: names[found[1] or found[2]], expression)
    if not set(plain) <= set("x0123456789 .+-*/()") or not names:
        raise InputError("compare", expression, "write arithmetic over columns, such as `sl_mlp - sl`")
    if not set(names) <= set(values.columns):
        return []
    return list(values[list(names)].rename(columns=names).eval(plain))


NAME = re.compile(r"`([^`]+)`|([A-Za-z_]\w*)")


def names_in(expression: str) -> dict[str, str]:
    """The columns that ``expression`` names, each with a name that arithmetic can be written with."""
    return {name: f"x{i}" for i, name in enumerate(dict.fromkeys(a or b for a, b in NAME.findall(expression)))}


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """`judge`'s table as text for readers."""
    return pd.DataFrame(
        {
            "Claim": row["claim"],
            "Statement": row["statement"],
            "Published": row["published"],
            "Tested by": row["tested_by"],
            "Claimed": row["claimed"],
            "Ours": value(row),
            "Verdict": row["verdict"]
            + (f" ({row['note']})" if row["note"] else "")
            + (f": {row['command']}" if row["command"] else ""),
        }
        for row in found.fillna(dict.fromkeys(("tested_by", "claimed", "note", "command"), "")).to_dict("records")
    )


def decisive(found: pd.DataFrame) -> pd.DataFrame:
    """A row of text for each claim of `judge`'s table: the parts that decide on it, their values and, of several, verdicts,
    and the verdict on the whole."""
    rows = []
    for claim, tests in found.fillna({"tested_by": "", "claimed": "", "note": ""}).groupby("claim", sort=False):
        parts = tests[tests["decides"].astype(bool)].to_dict("records")
        said = [
            value(row) + (f" {row['verdict']}" if len(parts) > 1 else "") + (f" ({row['note']})" if row["note"] else "")
            for row in parts
        ]
        rows.append(
            {"Claim": claim, "Statement": parts[0]["statement"], "Published": parts[0]["published"]}
            | {"Tested by": "; ".join(f"{row['tested_by']} {row['claimed']}".strip() for row in parts)}
            | {"Ours": "; ".join(said), "Verdict": together(row["verdict"] for row in parts)}
        )
    return pd.DataFrame(rows)


def value(row: Mapping[str, Any]) -> str:
    """``+1.2 ± 3.3 (n = 3)``, or for a correlation ``0.71 [0.20, 0.93] (n = 12)``; ``·`` for none."""
    estimate, low, high, n = (row[name] for name in ("estimate", "low", "high", "n"))
    if row["over"] == "variants" and not pd.isna(estimate):
        return tables.correlation(estimate, low, high, n)
    return tables.number(estimate, high - estimate, n, signed=not str(row["claimed"]).endswith(("1", "1.5")))


def write(found: pd.DataFrame, folder: Path, lineage: Mapping[str, Any]) -> Path:
    """Path of ``claims.csv``, `judge`'s table with all digits, from which that of all scales is made; its lineage beside it."""
    target = Path(folder) / "claims.csv"
    files.write_text(target, found.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    files.write_json(target.with_suffix(".json"), dict(lineage))
    return target


def sentences(found: pd.DataFrame) -> str:
    """The verdicts in words, a line for each test; a claim without one has its command."""
    return "\n".join(
        f"{row['claim']} {row['verdict']}: {row['statement']} "
        + (f"({row['tested_by']}: {value(row)}; claimed {row['claimed']})" if row["grid"] else f"({row['command']})")
        + (f"; {row['note']}" if row["note"] else "")
        for row in found.fillna({"grid": "", "note": ""}).to_dict("records")
    )


def discussion(found: pd.DataFrame) -> str:
    """Markdown: for each scale what contradicts the papers, what the reason may be, and the command that would tell."""
    lines = []
    for (name, claim), rows in select(found, verdict="contradicted").groupby(["scale", "claim"], sort=False):
        told = "; ".join(f"{row['tested_by']}: {value(row)} (claimed {row['claimed']})" for row in rows.to_dict("records"))
        entry = entries()[claim]
        lines.append(
            f"- **{claim}**, {entry['statement']}. `{name}`: {told}. *Why that may be:* {entry['why']}. "
            f"*What would tell:* `{telling_command(claim, name)}`."
        )
    return "\n".join(lines) or "No test that was run contradicts the papers."


def telling_command(claim: str, scale_name: str) -> str:
    """The command whose results would tell why results at a scale contradict ``claim``."""
    longer = 4 * scale(scale_name).common["optimisation.epochs"]
    return entries()[claim]["tell"].format(scale=scale_name, longer=longer)


def entries() -> dict[str, dict[str, Any]]:
    """What `studylib.papers` has of each claim, such as ``S1``, in the order of the papers."""
    return {claim: entry for paper in PAPERS for claim, entry in papers.load(paper)["claims"].items()}


def probe_notes(frame: pd.DataFrame) -> str:
    """How many linear probes chose C at the edge of their grid, and how many had not converged."""
    edge, converged = (select(frame, measure=f"linear_{name}")["value"] for name in ("at_grid_edge", "converged"))
    return (
        f"of {len(edge)} linear probes {int(edge.sum())} chose C at the edge of the grid and "
        f"{int((converged == 0).sum())} stopped before they had converged"
    )
