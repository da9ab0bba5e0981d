"""The published verdicts for readers: ``figures/claims.md`` with a section for each claim, and a short table in the README.

Both are written from what notebook 07_claims left at each scale (`studylib.report.claims.write`).
"""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from studylib import files, papers
from studylib.publishing import gallery
from studylib.publishing.page import VERDICTS
from studylib.report import claims, tables

BEGIN, END = "<!-- claims: written by studylib reproduce --publish -->\n", "<!-- end of claims -->\n"

INTRODUCTION = """# Claims

Written by `studylib reproduce --scale SCALE --publish`; edit nothing here.

A value is a mean with its 95 % interval over n seeds, differences paired over seeds; a correlation is over n methods, its
interval over resampled seeds. A test is read as *supported* where this interval lies on the claimed side of the bound, as
*contradicted* where it lies on the other side, and as *undecided* where it holds the bound. Where SL has not learned its
training images, or a network that is compared stays below nine tenths of SL's upstream accuracy, it is *not trained enough*.

Tests in **bold** are primary and decide on the claim; the others are secondary. For the claim to be supported all primary ones
must be true (its p is their largest), for it to be contradicted one must be false (the smallest p times their number). Fewer
than five seeds decide nothing, and a claim of which a primary test lacks results is *not run* unless another one contradicts
it. The p that is given is two-sided and corrected over the claims of a paper at a scale (Holm); 0.05 decides. A verdict is
about the scale that it names, not about the paper.

"""


def publish(folder: Path, readme: Path) -> None:
    """Write ``claims.md`` and ``claims.csv`` of all published scales into ``folder``, and the summary into ``readme``.

    There it stands between two comments; a ``readme`` without them is left alone.
    """
    tests = read(folder)
    if tests.empty:
        return
    files.write_text(folder / "claims.csv", tests.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    files.write_text(folder / "claims.md", page(tests, folder))
    text = readme.read_text(encoding="utf-8")
    if BEGIN in text and END in text:
        head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
        link = Path(os.path.relpath(folder / "claims.md", readme.parent)).as_posix()
        files.write_text(readme, f"{head}{BEGIN}\n{summary(tests, link)}\n{END}{tail}")


def read(folder: Path) -> pd.DataFrame:
    """The tables of `claims.judge` in ``folder``/<scale>/07_claims, one scale below the other, the smallest study first.

    A table that another version wrote is left out, with a line that says so.
    """
    judged = []
    for scale in gallery.folders(folder):
        source = scale / "07_claims" / "claims.csv"
        if source.exists():
            table = pd.read_csv(source, dtype=dict.fromkeys(("note", "gate", "command"), object))
            if list(table.columns) == claims.COLUMNS:
                judged.append(table)
            else:
                again = f"studylib reproduce --scale {scale.name} --only 07_claims --publish"
                print(f"left out: claims at {scale.name}, which another version wrote; to write them again: {again}")
    return pd.concat(judged, ignore_index=True) if judged else pd.DataFrame(columns=claims.COLUMNS)


def summary(tests: pd.DataFrame, link: str = "") -> str:
    """Markdown: how often each verdict was given, by paper and scale, and a row for each claim with a word for each scale.

    ``link`` is the address of the page whose sections the ids lead to; that of the page itself is empty.
    """
    words, entries = verdicts(tests), claims.entries()
    counts = [
        {"Paper": label} | {scale: _count(words.loc[words.index.isin(papers.load(paper)["claims"]), scale]) for scale in words}
        for paper, label in claims.PAPERS.items()
    ]
    rows = [
        {"Claim": f"[{claim}]({link}#{claim.lower()})", "Statement": entries[claim]["statement"]}
        | {"Published": entries[claim]["published"]}
        | dict(words.loc[claim])
        for claim in words.index
    ]
    return f"{tables.markdown(pd.DataFrame(counts))}\n{tables.markdown(pd.DataFrame(rows))}"


def verdicts(tests: pd.DataFrame) -> pd.DataFrame:
    """The verdict on each claim, in the order of the papers, by scale; ``·`` where a claim was not judged at a scale."""
    words = tests.groupby(["claim", "scale"])["verdict"].first().unstack()
    return words.reindex(
        index=[claim for claim in claims.entries() if claim in words.index], columns=tests["scale"].unique()
    ).fillna(tables.MISSING)


def _count(words: pd.Series) -> str:
    return ", ".join(f"{(words == verdict).sum()} {verdict}" for verdict in VERDICTS)


def page(tests: pd.DataFrame, folder: Path) -> str:
    """Markdown with a section for each claim; the figures are those under ``folder``."""
    scales = "; ".join(f"`{row.scale}`: {row.about}" for row in tests.drop_duplicates("scale").itertuples())
    words = verdicts(tests)
    sections = [_section(claim, tests[tests["claim"] == claim], words.loc[claim], folder) for claim in words.index]
    return f"{INTRODUCTION}Scales: {scales}.\n\n{summary(tests)}" + "".join(sections)


def _section(claim: str, tests: pd.DataFrame, words: pd.Series, folder: Path) -> str:
    """What is published, the tests with their values by scale, what may explain a contradiction, and the figures."""
    entry = claims.entries()[claim]
    source = f" Source: {entry['source']}." if entry.get("source") else ""
    parts = [
        f'\n<a id="{claim.lower()}"></a>\n\n## {claim}: {entry["statement"]}\n',
        f"{tests['paper'].iloc[0]}. Published: {entry['published']}.{source}\n",
        tables.markdown(_tests(tests, words)),
    ]
    if contradicted := list(tests.loc[tests["verdict"] == "contradicted", "scale"].unique()):
        commands = "; ".join(f"`{claims.telling_command(claim, scale)}`" for scale in contradicted)
        where = " and ".join(f"`{scale}`" for scale in contradicted)
        parts.append(f"Contradicted at {where}. *Why that may be:* {entry['why']}. *What would tell:* {commands}.\n")
    for scale in words.index:
        picture = folder / scale / f"{entry['figure']}.png" if "figure" in entry else folder
        if picture.is_file():
            parts.append(gallery.figure(folder, picture))
    return "\n".join(parts)


def _tests(tests: pd.DataFrame, words: pd.Series) -> pd.DataFrame:
    """A row of text for each test, with its values by scale, and below them the verdict on the claim."""
    rows: dict[int, dict[str, str]] = {}
    blank = dict.fromkeys(("tested_by", "claimed", "note", "gate", "command"), "")
    for row in tests.fillna(blank).to_dict("records"):
        name = (
            f"**{row['tested_by']}**" if row["role"] == "primary" and row["tested_by"] else row["tested_by"] or tables.MISSING
        )
        rows.setdefault(row["test"], {"Test": name, "Claimed": row["claimed"]})[row["scale"]] = _value(row)
    p_values = tests.groupby("scale")["p_claim"].first()
    p = {"Test": "p, corrected", "Claimed": ""} | {scale: claims.probability(value) for scale, value in p_values.items()}
    verdict = {"Test": "Verdict", "Claimed": ""} | {scale: f"**{word}**" for scale, word in words.items()}
    frame = pd.DataFrame([*(rows[number] for number in sorted(rows)), p, verdict])
    return frame[["Test", "Claimed", *words.index]].fillna(tables.MISSING)


def _value(row: dict[str, Any]) -> str:
    """``+1.2 ± 3.3 (n = 3) undecided``, or the command that runs a test without results."""
    if row["reading"] == "not run":
        return f"not run: `{row['command']}`"
    extra = claims.hindrance(row) or row["note"]
    return f"{claims.value(row)} {row['reading']}" + (f" ({extra})" if extra else "")
