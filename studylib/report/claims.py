"""What the results say of the papers' claims: each test's value, its interval, and a verdict by rule.

A test of a claim (``studylib/papers/*.yaml``) is an expression over the results table:

``grid``
    the grid of runs whose results it reads.
``rows``
    a pandas query that picks rows. Beside the table's columns it may use ``@upstream``, ``@unseen``, ``@domains``,
    ``@stagewise``, ``@transfer`` (unseen and domains) and ``@hidden``, the data sets of the scale. Unless it says otherwise
    the rows are those of held-out images, at the encoder's output (``layer``), at the end of training (``moment``: ``end``,
    ``before`` for the snapshot before it, ``earlier``).
``over``
    what is averaged within a seed, by default the data sets; with ``log_odds`` the mean is that of log-odds.
``columns``
    what names a column for ``compare``, by default the variant; with two, their values with a blank between.
``compare``
    arithmetic over these columns, evaluated for each seed, so that differences are paired; ``{backbone}`` is the scale's.
``correlate``
    instead of ``compare``: a query for the accuracies whose mean log-odds are correlated with the values, over variants.
``claimed``
    what the paper says of the value: ``> 0``, ``< 0``, ``> -2`` (not worse by more than 2).

Beside its tests a claim has a ``why``, what may be the reason where results contradict it, and ``tell``, the command whose
results would tell: ``{scale}`` is the scale's name, ``{longer}`` four times its epochs.

The first test of a claim decides on it; the others are shown beside it.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from studylib import files, papers
from studylib.config import scale, scales
from studylib.errors import InputError
from studylib.report import tables
from studylib.report.statistics import interval, judged, log_odds, rank_correlation, refuse_mixture, select

PAPERS = {"look": "LOOK", "sl_mlp": "SL-MLP", "trex": "t-ReX"}

COLUMNS = ["paper", "claim", "statement", "published", "source", "test", "tested_by", "grid", "claimed"]
COLUMNS += ["estimate", "low", "high", "n", "over", "scale", "verdict", "command"]


def judge(results: Mapping[str, pd.DataFrame], scale_name: str, of: Iterable[str] = PAPERS) -> pd.DataFrame:
    """A row for each test of the papers ``of`` whose grid is in ``results`` (grid -> results table), with `COLUMNS`.

    ``estimate``, ``low`` and ``high`` are the value and its 95 % interval over ``n`` seeds (Student's t) or, for
    correlations, variants (`statistics.rank_correlation`). A test that finds no value is "not run", and ``command`` says
    what runs it.

    Raises:
        InputError: a test picks several values for one run; see `statistics.refuse_mixture`.
    """
    content, rows = scale(scale_name), []
    for paper in of:
        for claim, entry in papers.load(paper)["claims"].items():
            about = {"paper": PAPERS[paper], "claim": claim, "statement": entry["statement"]}
            about |= {"published": entry["published"], "source": entry.get("source", ""), "scale": scale_name}
            for number, test in enumerate(entry["tests"], 1):
                if test["grid"] in results:
                    found = measure(test, prepared(results[test["grid"]]), content)
                    verdict = judged(*found, test["claimed"])
                    what = {"test": number, "tested_by": test["say"], "grid": test["grid"], "claimed": test["claimed"]}
                    value = dict(zip(("estimate", "low", "high", "n"), found, strict=True))
                    value |= {"over": "variants" if "correlate" in test else "seeds", "verdict": verdict}
                    command = grid_command(test, scale_name) if verdict == "not run" else ""
                    rows.append(about | what | value | {"command": command})
            if not entry["tests"]:
                rows.append(about | {"test": 1, "n": 0, "verdict": "not run", "command": entry["command"]})
    return pd.DataFrame(rows, columns=COLUMNS)


def grid_command(test: Mapping[str, Any], scale_name: str) -> str:
    """What runs the grid of a test that has no results: with seeds, where the scale does not plan all that it compares."""
    content, grid = scale(scale_name), test["grid"]
    plan = content["seeds"].get("methods" if grid == "features" else grid, 0)
    named = names_in(test.get("compare", "").format(**content))
    planned = all(any(f"{name} ".startswith(f"{row} ") for row in plan) for name in named) if isinstance(plan, dict) else plan
    return f"studylib grid {grid} --scale {scale_name}" + ("" if planned else " --seeds 3")


def prepared(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the column ``moment``: whether a row is of a variant's last epoch, of the snapshot before it, or earlier.

    The upstream kNN accuracy that training reports at other epochs makes no snapshot.
    """
    frame = frame[~frame["measure"].str.startswith("monitor_")]
    moments = {}
    for variant, epochs in frame.groupby("variant")["epoch"]:
        known = sorted(epochs.dropna().unique(), reverse=True)
        moments |= {(variant, epoch): ("end", "before", "earlier")[min(i, 2)] for i, epoch in enumerate(known)}
    keys = zip(frame["variant"], frame["epoch"], strict=True)
    return frame.assign(moment=[moments.get(key, "end") for key in keys])


def measure(test: Mapping[str, Any], frame: pd.DataFrame, content: Mapping[str, Any]) -> tuple[float, float, float, int]:
    """(value, low, high, n) of a test on a `prepared` table."""
    columns = test.get("columns", ["variant"])
    over = test.get("over", ["dataset"])
    values = averaged(picked(frame, test["rows"], content), columns, over, logarithmic=test.get("log_odds", False))
    if "correlate" in test:
        target = averaged(picked(frame, test["correlate"], content), columns, ["dataset"], logarithmic=True)
        pairs = pd.concat([values.mean(), target.mean()], axis=1, join="inner")
        return rank_correlation(*(pairs[name] for name in pairs))
    mean, half, n = interval(arithmetic(test["compare"].format(**content), values))
    return mean, mean - half, mean + half, n


def picked(frame: pd.DataFrame, query: str, content: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that ``query`` picks, of held-out images at the encoder's output and the end of training if it names no other.

    What a run cost, which has no layer, is of the training images.
    """
    names = {name: content[name] for name in ("upstream", "unseen", "domains", "stagewise")}
    names |= {"transfer": [*content["unseen"], *content["domains"]], "hidden": content["modes"]["hidden"]}
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


def shown(found: pd.DataFrame, *, first: bool = False) -> pd.DataFrame:
    """`judge`'s table as text for readers; ``first``: only the test that decides on each claim."""
    found = select(found, test=1) if first else found
    return pd.DataFrame(
        {
            "Claim": row["claim"],
            "Statement": row["statement"],
            "Published": row["published"],
            "Tested by": row["tested_by"] if isinstance(row["tested_by"], str) else "",
            "Claimed": row["claimed"] if isinstance(row["claimed"], str) else "",
            "Ours": value(row),
            "Verdict": row["verdict"] + (f": {row['command']}" if isinstance(row["command"], str) and row["command"] else ""),
        }
        for row in found.to_dict("records")
    )


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


def read(folder: Path) -> pd.DataFrame:
    """What `write` left in ``folder``/<scale>/07_claims, one scale below the other, the smallest study first."""
    sources = [Path(folder) / name / "07_claims" / "claims.csv" for name in ("smoke", "quick", "small_cpu", "small", "paper")]
    found = [pd.read_csv(source) for source in sources if source.exists()]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)


BEGIN, END = "<!-- claims: written by studylib reproduce --publish -->\n", "<!-- end of claims -->\n"


def publish(folder: Path, readme: Path) -> None:
    """Write ``claims.md`` and ``claims.csv`` of all published scales into ``folder``, and the decisive tests into ``readme``.

    There they stand between two comments; a ``readme`` without them is left alone.
    """
    found = read(folder)
    if found.empty:
        return
    known = scales()
    about = "; ".join(f"`{name}`: {known[name]['about']}" for name in dict.fromkeys(found["scale"]))
    caption = f"Value, 95 % interval, n and verdict by scale. {about}."
    files.write_text(folder / "claims.csv", found.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    against = f"## What contradicts the papers\n\n{discussion(found)}\n"
    files.write_text(folder / "claims.md", f"# Claims\n\n{caption}\n\n{tables.markdown(by_scale(found))}\n{against}")
    text = readme.read_text(encoding="utf-8")
    if BEGIN in text and END in text:
        head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
        files.write_text(readme, f"{head}{BEGIN}\n{tables.markdown(by_scale(found, first=True))}\n{caption}\n{END}{tail}")


def by_scale(found: pd.DataFrame, *, first: bool = False) -> pd.DataFrame:
    """`judge`'s tables of several scales, one below the other, as text with a column for each scale.

    ``first``: only the tests that decide, and no commands for what is not run.
    """
    found = select(found, test=1) if first else found
    rows: dict[Any, dict[str, str]] = {}
    for row in found.to_dict("records"):
        key = (row["claim"], row["test"])
        tested = f"{row['tested_by']} {row['claimed']}" if isinstance(row["tested_by"], str) else ""
        rows.setdefault(
            key,
            {"Claim": row["claim"], "Statement": row["statement"], "Published": row["published"], "Tested by": tested},
        )
        run = "" if first or not isinstance(row["command"], str) else f": `{row['command']}`"
        known = row["verdict"] != "not run"
        rows[key][row["scale"]] = f"{value(row)} **{row['verdict']}**" if known else f"not run{run}"
    order = sorted(rows, key=lambda key: ("LST".index(key[0][0]), int(key[0][1:]), key[1]))
    return pd.DataFrame([rows[key] for key in order]).fillna(tables.MISSING)


def sentences(found: pd.DataFrame) -> str:
    """The verdicts in words, a line for each test; a claim without one has its command."""
    return "\n".join(
        f"{row['claim']} {row['verdict']}: {row['statement']} "
        + (f"({row['tested_by']}: {value(row)}; claimed {row['claimed']})" if row["grid"] else f"({row['command']})")
        for row in found.fillna({"grid": ""}).to_dict("records")
    )


def discussion(found: pd.DataFrame) -> str:
    """Markdown: for each scale what contradicts the papers, what the reason may be, and the command that would tell."""
    lines = []
    for (name, claim), rows in select(found, verdict="contradicted").groupby(["scale", "claim"], sort=False):
        told = "; ".join(f"{row['tested_by']}: {value(row)} (claimed {row['claimed']})" for row in rows.to_dict("records"))
        entry, settings = evidence(claim), scale(name)
        command = entry["tell"].format(scale=name, longer=4 * settings["common"]["optimisation.epochs"])
        lines.append(
            f"- **{claim}**, {entry['statement']}. `{name}`: {told}. *Why that may be:* {entry['why']}. "
            f"*What would tell:* `{command}`."
        )
    return "\n".join(lines) or "No test that was run contradicts the papers."


def evidence(claim: str) -> dict[str, Any]:
    """What `studylib.papers` has of a claim, such as ``S1``."""
    return {name: entry for paper in PAPERS for name, entry in papers.load(paper)["claims"].items()}[claim]


def probe_notes(frame: pd.DataFrame) -> str:
    """How many linear probes chose C at the edge of their grid, and how many had not converged."""
    edge, converged = (select(frame, measure=f"linear_{name}")["value"] for name in ("at_grid_edge", "converged"))
    return (
        f"of {len(edge)} linear probes {int(edge.sum())} chose C at the edge of the grid and "
        f"{int((converged == 0).sum())} stopped before they had converged"
    )
