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
    one, ``{encoder}`` its first, ``{few}`` a quarter of LOOK's k.
``correlate``
    instead of ``compare``: a query for the accuracies whose mean log-odds are correlated with the values, over variants.
``claimed``
    what the paper says of the value: ``> 0``, ``< 0``, ``> -2`` (not worse by more than 2).
``part``
    true for each of several parts that a claim consists of. The tests that are parts decide on the claim, where none is marked
    the first one alone: they are primary. The others are secondary: shown, and without a say.
``reference``
    the variant of SL by which the `gate` goes, by default ``sl``.
``intact``
    of an ablation the variant that has to pass the gate, where what is taken away may well cost it; by default all have to.
``about_upstream``
    true for a test about accuracy on the pre-training classes, where what has learned less is compared all the same.

Beside its tests a claim has a ``why``, what may be the reason where results contradict it, and ``tell``, the command whose
results would tell: ``{scale}`` is the scale's name, ``{longer}`` four times its epochs. Some have a ``figure``, such as
``03_trex/depth``: the notebook and the name of what shows it.

A test is read by its own 95 % interval. The verdict on a claim is stricter. It is supported if all its parts are true, so that
its p is their largest; it is contradicted if one of m parts is false, so that p is m times the smallest (Bonferroni). Twice the
smaller of the two enters Holm's correction over the claims of a paper at a scale, and `LEVEL` decides. Values of fewer than
`LEAST` seeds decide nothing.
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
from studylib.report import statistics, style, tables
from studylib.report.statistics import interval, judged, log_odds, refuse_mixture, select
from studylib.scale import MOST_SEEDS, Scale

PAPERS = {"look": "LOOK", "sl_mlp": "SL-MLP", "trex": "t-ReX"}

COLUMNS = ["paper", "claim", "statement", "published", "source", "test", "role", "tested_by", "grid", "claimed"]
COLUMNS += ["estimate", "low", "high", "n", "p", "over", "gate", "scale", "about", "reading", "note", "command"]
COLUMNS += ["p_claim", "verdict"]

LEVEL = 0.05  # usual: probability that any claim of a paper is decided wrongly at a scale
SHARE = 0.9  # ours: of SL's accuracy on held-out images of the pre-training classes, what a network must reach to be compared
LEAST = 5  # ours: seeds of a row from which on it can decide; of a correlation: methods
UNCHECKED = "not checked"


def judge(results: Mapping[str, pd.DataFrame], scale_name: str, of: Iterable[str] = PAPERS) -> pd.DataFrame:
    """A row for each test of the papers ``of`` whose grid is in ``results`` (grid -> results table), with `COLUMNS`.

    ``estimate``, ``low`` and ``high`` are the value and its 95 % interval over ``n`` seeds (Student's t) or, for correlations,
    over n variants (`statistics.resampled_correlation`); ``p`` is two-sided, of the value against the bound, uncorrected.
    ``reading`` is that of the test by its interval; one that finds no value is "not run", and ``command`` says what runs it;
    one of networks that have not learned is "not trained enough", and ``gate`` says how far they are (`gate`). ``note`` says
    of an undecided primary test what so many seeds could have seen. ``p_claim``, corrected over the paper's claims, and
    ``verdict`` are those of the claim, the same for all its tests. ``role`` is primary or secondary; ``about`` is what the
    scale is.

    Raises:
        InputError: a test picks several values for one run; see `statistics.refuse_mixture`.
    """
    content = scale(scale_name)
    results = {grid: prepared(frame) for grid, frame in results.items()}  # once: several tests read the same table
    return pd.DataFrame([row for paper in of for row in _of_paper(paper, results, content)], columns=COLUMNS)


def _of_paper(paper: str, results: Mapping[str, pd.DataFrame], content: Scale) -> list[dict[str, Any]]:
    """The rows of one paper."""
    rows, p_values, parts = [], {}, {}
    for claim, entry in papers.load(paper)["claims"].items():
        about = {"paper": PAPERS[paper], "claim": claim, "statement": entry["statement"]}
        about |= {"published": entry["published"], "source": entry.get("source", "")}
        about |= {"scale": content.name, "about": content.about, "note": "", "command": "", "gate": ""}
        several = any(test.get("part") for test in entry["tests"])
        parts[claim] = sum(bool(test.get("part")) for test in entry["tests"]) if several else 1
        for number, test in enumerate(entry["tests"], 1):
            if test["grid"] in results:
                found = measure(test, results[test["grid"]], content)
                row = about | dict(zip(("estimate", "low", "high", "n"), found[:4], strict=True))
                row |= {"test": number, "tested_by": test["say"], "grid": test["grid"], "claimed": test["claimed"]}
                primary = test.get("part", False) if several else number == 1
                row |= {"role": "primary" if primary else "secondary", "p": float(np.minimum(1.0, 2 * np.min(found[4:])))}
                row |= {"over": "variants" if "correlate" in test else "seeds", "reading": judged(*found[:4], test["claimed"])}
                if row["reading"] == "not run":
                    row["command"] = grid_command(test, content.name)
                else:
                    enough, row["gate"] = gate(test, results, content)
                    row |= {"reading": "not trained enough"} if enough is False else {}
                usable = row["n"] >= LEAST and row["reading"] not in ("not run", "not trained enough")
                p_values[claim, number] = found[4:] if usable and enough is not None else (np.nan, np.nan)
                rows.append(row)
        if not entry["tests"]:
            empty = {"test": 1, "role": "primary", "n": 0, "reading": "not run", "command": entry["command"]}
            rows.append(about | empty)
    return decided(rows, p_values, parts)


def decided(
    rows: list[dict[str, Any]], p_values: Mapping[tuple[str, int], tuple[float, float]], parts: Mapping[str, int]
) -> list[dict[str, Any]]:
    """The ``rows`` of a paper with ``p_claim`` and ``verdict`` of each claim.

    Args:
        p_values: (claim, test) -> p for and against, NaN of a test that cannot decide.
        parts: how many primary tests each claim has, those without a row among them.
    """
    primary = {claim: [row for row in rows if row["claim"] == claim and row["role"] == "primary"] for claim in parts}
    primary = {claim: tests for claim, tests in primary.items() if any(row["claim"] == claim for row in rows)}
    p_for, p_against = {}, {}
    for claim, tests in primary.items():
        pairs = [p_values.get((claim, row["test"]), (np.nan, np.nan)) for row in tests]
        usable = [pair for pair in pairs if not np.isnan(pair[0])]
        p_for[claim] = max(pair[0] for pair in usable) if usable and len(usable) == parts[claim] else 1.0
        p_against[claim] = min(1.0, parts[claim] * min(pair[1] for pair in usable)) if usable else np.nan
    whole = [min(1.0, 2 * min(p_for[claim], p_against[claim])) if p_against[claim] >= 0 else np.nan for claim in primary]
    corrected = dict(zip(primary, statistics.holm(whole), strict=True))
    family = sum(not np.isnan(p) for p in whole)
    for claim, tests in primary.items():
        readings = {row["reading"] for row in tests}
        if corrected[claim] <= LEVEL:
            verdict = "supported" if p_for[claim] < p_against[claim] else "contradicted"
        elif "not trained enough" in readings:
            verdict = "not trained enough"
        else:
            verdict = "not run" if "not run" in readings or len(tests) < parts[claim] else "undecided"
        blocking = [row for row in tests if row["reading"] != "supported"] or tests
        for row in blocking if verdict == "undecided" else ():
            row["note"] = power(row, LEVEL / max(family, 1), parts[claim])
        for row in rows:
            if row["claim"] == claim:
                row |= {"p_claim": corrected[claim], "verdict": verdict}
    return rows


def power(row: Mapping[str, Any], level: float, parts: int) -> str:
    """What the n seeds of a test that decides nothing could have seen, and how many its value needs.

    ``level`` is that of Holm's first step; a part that speaks against the claim is corrected for the number of ``parts``, too.
    """
    sign, bound = statistics.parsed(row["claimed"])
    half, n = row["high"] - row["estimate"], row["n"]
    if row["gate"].startswith(UNCHECKED) or row["over"] != "seeds":
        return ""
    if n < LEAST:
        return f"n = {n}; {LEAST} decide"
    if not half > 0:
        return ""
    against = (row["estimate"] > bound) != (sign == ">")
    level, spread = level / parts if against else level, statistics.deviation(half, n)
    needed = statistics.pairs_needed(row["estimate"] - bound, spread, level, n, MOST_SEEDS)
    seen = f"n = {n} would have seen {statistics.detectable(spread, n, level):.2g} from the bound"
    return f"{seen}; this value needs {f'n = {needed}' if needed else f'more than {MOST_SEEDS}'}"


def gate(test: Mapping[str, Any], results: Mapping[str, pd.DataFrame], content: Scale) -> tuple[bool | None, str]:
    """Whether the networks that ``test`` compares have learned enough to be compared, and how far they are; None where the
    results do not tell.

    SL must reach the scale's ``gate``, such as 95 % of its training images by `TrainLinear`; every other network `SHARE` of
    SL's linear accuracy on held-out images of the classes that both are trained on, except where the test is about that. It
    is the seed that is farthest behind that counts.
    """
    frame, reference = results[test["grid"]], with_names(test.get("reference", "sl"), content)
    data = content.modes.data if test["grid"] == "modes" else content.upstream
    alike = [results[grid] for grid in (test["grid"], *results) if (grid == "modes") == (test["grid"] == "modes")]
    training = content.gate.measure.startswith("train")
    learned = next((found for table in alike if (found := reached(table, content.gate.measure, data, reference))), None)
    upstream = next((found for table in alike if (found := reached(table, "linear_top1", data, reference))), None)
    where = "accuracy on training images" if training else "upstream accuracy"
    if learned is None or upstream is None:
        return None, f"{UNCHECKED}: SL's {where} is not in these results"
    if min(learned) < content.gate.least:
        return False, f"SL: {where} {min(learned):.1f} %, {content.gate.least:g} % needed"
    if "correlate" in test:
        return True, f"SL {min(learned):.1f} %; only networks that reach {SHARE:g} of SL upstream"
    if test.get("about_upstream"):
        return True, f"SL {min(learned):.1f} %"
    whole = float(np.mean(upstream))
    networks = [test["intact"]] if "intact" in test else networks_of(test, frame, content)
    others = {name: reached(frame, "linear_top1", data, name) for name in networks if name != reference}
    shares = {name: min(found or [np.nan]) / whole for name, found in others.items()}
    if unknown := [name for name, share in shares.items() if np.isnan(share)]:
        return None, f"{UNCHECKED}: upstream accuracy of {style.variant_label(unknown[0])} is not in these results"
    if not shares:
        return True, f"SL {min(learned):.1f} %"
    least = min(shares, key=shares.get)
    said = f"{style.variant_label(least)} {shares[least]:.2f} of SL's {whole:.1f} % upstream"
    if shares[least] >= SHARE:
        return True, f"SL {min(learned):.1f} %; {said}"
    epochs = int(frame.loc[frame["variant"] == least, "epoch"].max())
    return False, f"{said} after {epochs} epochs, {SHARE:g} needed"


def reached(frame: pd.DataFrame, measure: str, data: str, variant: str) -> list[float]:
    """An accuracy of the runs of a variant on the set they were trained on, at the end of training."""
    split = "train" if measure.startswith("train") else "test"
    fixed = {"measure": measure, "dataset": data, "variant": variant, "layer": "stage5", "moment": "end", "split": split}
    return select(frame, **fixed)["value"].dropna().tolist()


def networks_of(test: Mapping[str, Any], frame: pd.DataFrame, content: Scale) -> list[str]:
    """The variants that ``compare`` names; a column may have more behind the variant's name, such as a layer."""
    columns = [f"{name} " for name in names_in(compared(test, content))]
    return [name for name in frame["variant"].unique() if any(column.startswith(f"{name} ") for column in columns)]


def grids_of(of: Iterable[str] = PAPERS) -> list[str]:
    """The grids that the tests of the papers ``of`` read."""
    tests = (test for paper in of for claim in papers.load(paper)["claims"].values() for test in claim["tests"])
    return list(dict.fromkeys(test["grid"] for test in tests))


def grid_command(test: Mapping[str, Any], scale_name: str) -> str:
    """What runs the grid of a test that has no results: with seeds, where the scale does not plan all that it compares."""
    content, grid = scale(scale_name), test["grid"]
    plan = content.seeds.get("methods" if grid == "features" else grid, 0)
    named = names_in(compared(test, content))
    planned = all(any(f"{name} ".startswith(f"{row} ") for row in plan) for name in named) if isinstance(plan, dict) else plan
    return f"studylib grid {grid} --scale {scale_name}" + ("" if planned else f" --seeds {LEAST}")


def prepared(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the column ``moment``: whether a row is of a variant's last epoch, of the snapshot before it, or earlier.

    The upstream kNN accuracy that training reports at other epochs makes no snapshot.
    """
    frame = frame[~frame["measure"].str.startswith("monitor_")]
    from_end = frame["epoch"].astype(float).groupby(frame["variant"]).rank(method="dense", ascending=False)
    return frame.assign(moment=np.select([from_end == 2, from_end > 2], ["before", "earlier"], "end"))


def measure(test: Mapping[str, Any], frame: pd.DataFrame, content: Scale) -> tuple[float, float, float, int, float, float]:
    """(value, low, high, n, p for, p against) of a test on a `prepared` table."""
    columns = test.get("columns", ["variant"])
    over = test.get("over", ["dataset"])
    values = averaged(picked(frame, test["rows"], content), columns, over, logarithmic=test.get("log_odds", False))
    if "correlate" in test:
        target = averaged(picked(frame, test["correlate"], content), columns, ["dataset"], logarithmic=True)
        upstream = {name: reached(frame, "linear_top1", content.upstream, name) for name in {"sl", *values}}
        least = SHARE * float(np.mean(upstream["sl"])) if upstream["sl"] else np.nan
        learned = [name for name in values if upstream[name] and min(upstream[name]) >= least]
        return statistics.resampled_correlation(values[learned], target, test["claimed"])
    each = arithmetic(compared(test, content), values)
    mean, half, n = interval(each)
    return mean, mean - half, mean + half, n, *statistics.one_sided(each, test["claimed"])


def compared(test: Mapping[str, Any], content: Scale) -> str:
    """The arithmetic of a test with the scale's names in it."""
    return with_names(test.get("compare", ""), content)


def with_names(text: str, content: Scale) -> str:
    """``text`` with the scale's names in the place of ``{backbone}``, ``{encoder}`` and ``{few}``."""
    look = resolve(content.name, "look")
    few = max(2, look.look.k // 4)  # as `grids.look_neighbours` has it
    return text.format(few=few, backbone=content.backbone, encoder=look.encoder.arch)


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
    blank = dict.fromkeys(("tested_by", "claimed", "gate", "command"), "")
    return pd.DataFrame(
        {
            "Claim": row["claim"],
            "Statement": row["statement"],
            "Published": row["published"],
            "Tested by": row["tested_by"],
            "Role": row["role"],
            "Claimed": row["claimed"],
            "Ours": value(row),
            "Reading": row["reading"]
            + (f" ({told})" if (told := hindrance(row)) else "")
            + (f": {row['command']}" if row["command"] else ""),
        }
        for row in found.fillna(blank).to_dict("records")
    )


def decisive(found: pd.DataFrame) -> pd.DataFrame:
    """A row of text for each claim of `judge`'s table: its primary tests, their values and, of several, readings, the p that
    is corrected over the paper's claims, and the verdict."""
    rows = []
    for claim, tests in found.fillna({"tested_by": "", "claimed": "", "note": "", "gate": ""}).groupby("claim", sort=False):
        parts = tests[tests["role"] == "primary"].to_dict("records")
        said = []
        for row in parts:
            extra = hindrance(row) or row["note"]
            reading = f" {row['reading']}" if len(parts) > 1 else ""
            said.append(value(row) + reading + (f" ({extra})" if extra else ""))
        rows.append(
            {"Claim": claim, "Statement": tests["statement"].iloc[0], "Published": tests["published"].iloc[0]}
            | {"Tested by": "; ".join(f"{row['tested_by']} {row['claimed']}".strip() for row in parts)}
            | {"Ours": "; ".join(said), "p": probability(tests["p_claim"].iloc[0]), "Verdict": tests["verdict"].iloc[0]}
        )
    return pd.DataFrame(rows)


def hindrance(row: Mapping[str, Any]) -> str:
    """What of the `gate` a reader has to know of a test: that networks have not learned, or that it is not known."""
    return row["gate"] if row["reading"] == "not trained enough" or row["gate"].startswith(UNCHECKED) else ""


def probability(p: float) -> str:
    """``0.031``, ``< 0.001``; ``·`` for none."""
    return tables.MISSING if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


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
    """The tests in words, a line for each; a claim without one has its command."""
    return "\n".join(
        f"{row['claim']}, {row['role']} test, {row['reading']}: {row['statement']} "
        + (f"({row['tested_by']}: {value(row)}; claimed {row['claimed']})" if row["grid"] else f"({row['command']})")
        + (f"; {told}" if (told := hindrance(row)) else "")
        for row in found.fillna({"grid": "", "gate": ""}).to_dict("records")
    )


def discussion(found: pd.DataFrame) -> str:
    """Markdown: for each scale the claims that its results contradict, what the reason may be, and the command that would
    tell; then which other tests are read so."""
    lines = []
    for (name, claim), rows in select(found, verdict="contradicted").groupby(["scale", "claim"], sort=False):
        against = select(rows, role="primary", reading="contradicted").to_dict("records")
        told = "; ".join(f"{row['tested_by']}: {value(row)} (claimed {row['claimed']})" for row in against)
        entry = entries()[claim]
        lines.append(
            f"- **{claim}**, {entry['statement']}. `{name}`: {told}. *Why that may be:* {entry['why']}. "
            f"*What would tell:* `{telling_command(claim, name)}`."
        )
    rest = select(found, reading="contradicted")
    rest = rest[(rest["verdict"] != "contradicted") | (rest["role"] != "primary")]
    if len(rest):
        told = "; ".join(f"{row['claim']}, {row['tested_by']}: {value(row)}" for row in rest.to_dict("records"))
        lines.append(f"\nTests on the other side by their own interval, uncorrected or secondary: {told}.")
    return "\n".join(lines) or "Nothing that was run contradicts the papers."


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
