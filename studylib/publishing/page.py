"""The report, ``runs/report/index.html``: the study's picture and the verdicts, then figures and tables by scale, then the
notebooks.

A page with its style in it, without scripts (``report.html.jinja``). What it links to lies in its folder, too, at the place
that it has under the runs folder.
"""

import csv
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from studylib import paths
from studylib.errors import RESUME_EXIT
from studylib.publishing import gallery
from studylib.publishing.bundle import Bundle
from studylib.report.tables import NUMBER

TEMPLATE = Path(__file__).with_name("report.html.jinja")
CLAIMS = "07_claims"  # the notebook that judges; it reads what the others made
LEAD = "03_trex/frontier.png"  # the study's picture
VERDICTS = ("supported", "contradicted", "undecided", "not trained enough", "not run")
STATES = ("done", "stopped", "failed")
VERDICT = re.compile(rf"(?:^|\*\*)({'|'.join(VERDICTS + STATES)})(?:\*\*|\b)")
OPEN = 15  # rows of the longest table that is shown unfolded
LONG = 240  # a caption with more letters is cut after its first sentence, and the rest can be unfolded


def state(code: int) -> str:
    """One word for an exit code."""
    return {0: "done", RESUME_EXIT: "stopped"}.get(code, "failed")


def write(notebooks: Mapping[str, str]) -> Path:
    """Path of the report, written from what is under the runs folder.

    Args:
        notebooks: names -> titles of those that can be run; one without a report gets the command that runs it.
    """
    scales = {folder.name for root in (paths.figures(), paths.runs() / "notebooks") for folder in gallery.folders(root)}
    shown = [_scale(name, notebooks) for name in gallery.by_size(scales)]
    bundle = Bundle(paths.runs() / "report", paths.runs())
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"gallery": gallery, "link": bundle.link, "size": _size, "read_table": _read_table}
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        lead=_lead(scales),
        overview=_overview(shown),
        judges=CLAIMS if CLAIMS in notebooks else "",
        scales=shown,
        notebooks=notebooks,
        longest=OPEN,
    )
    return bundle.write("index.html", text + "\n")


def _lead(scales: set[str]) -> Path | None:
    """The study's picture at the scale where it is of the most runs, of several the largest; None without any."""
    pictures = [picture for scale in gallery.by_size(scales) if (picture := paths.figures() / scale / LEAD).exists()]
    runs = [len(gallery.read_json(picture.with_suffix(".json")).get("runs", [])) for picture in pictures]
    return max(zip(runs, range(len(runs)), pictures, strict=True))[2] if pictures else None


def _scale(name: str, notebooks: Mapping[str, str]) -> dict[str, Any]:
    """What there is of a scale: verdicts, the folders of its figures, and which notebooks were executed."""
    claims = paths.figures() / name / CLAIMS / "decisive.csv"
    heads, *rows = _read_csv(claims) if claims.exists() else [[]]
    counts = Counter(match[1] for row in rows for cell in row if (match := VERDICT.search(cell)))
    folders = [
        folder for folder in gallery.folders(paths.figures() / name) if gallery.pictures(folder) + gallery.tables(folder)
    ]
    executed = {notebook: paths.runs() / "notebooks" / name / f"{notebook}.json" for notebook in notebooks}
    reports = {notebook: gallery.read_json(file) if file.exists() else {} for notebook, file in executed.items()}
    pages = {notebook: page for notebook, file in executed.items() if (page := file.with_suffix(".html")).exists()}
    states = [[notebook, *_state(report)] for notebook, report in reports.items()]
    return {
        "name": name,
        "about": gallery.about(name),
        "verdicts": [dict(zip(heads, row, strict=True)) for row in rows],
        "counts": [(word, counts[word]) for word in VERDICTS] if counts else [],
        "claims": _table(f"The papers' claims at scale {name}", heads, rows) if rows else None,
        "folders": folders,
        "executed": _table(f"Executed at scale {name}", ["Notebook", "State", "Seconds", "Finished"], states, pages),
        "incomplete": not all(reports.values()),
    }


def _read_csv(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines)) or [[]]


def _state(report: Mapping[str, Any]) -> list[str]:
    """State, seconds and end of an execution."""
    return [state(report["code"]), f"{report['seconds']:.0f}", report["finished"]] if report else ["not run", "", ""]


class Cell(NamedTuple):
    """An entry of a table: text, a verdict or state that is a badge, what stands behind it; the file that the text leads to."""

    text: str
    verdict: str = ""
    rest: str = ""
    command: str = ""
    file: Path | None = None


class Table(NamedTuple):
    """A table for the template: heads with the class of their column, and as ``protocols`` what of the caption is folded."""

    caption: str
    protocols: str
    heads: list[tuple[str, str]]
    rows: list[tuple[Cell, ...]]


def _overview(scales: Sequence[Mapping[str, Any]]) -> Table | None:
    """The verdict on each claim by scale; None without any."""
    rows: dict[str, dict[str, str]] = {}
    for scale in scales:
        for row in scale["verdicts"]:
            if word := VERDICT.search(row.get("Verdict", "")):
                fixed = {head: row.get(head, "") for head in ("Claim", "Statement", "Published")}
                rows.setdefault(row.get("Claim", ""), fixed)[scale["name"]] = word[1]
    heads = ["Claim", "Statement", "Published", *(scale["name"] for scale in scales if scale["counts"])]
    cells = [[row.get(head, "") for head in heads] for row in rows.values()]
    return _table("Verdicts by scale", heads, cells) if rows else None


def _read_table(file: Path) -> Table:
    """A table that `report.write_table` wrote."""
    caption, heads, rows = gallery.read_table(file)
    return _table(caption or gallery.title(file), [head.replace("_", " ") for head in heads], rows)


def _table(caption: str, heads: list[str], rows: list[list[str]], files: Mapping[str, Path] | None = None) -> Table:
    """A table; columns without any entry are left out, numbers stand to the right, verdicts are coloured.

    ``files``: entry -> the file that it leads to.
    """
    columns = [(head, cells) for head, cells in _columns(*_verdicts_first(heads, rows)) if any(cells) or not rows]
    first, stop, protocols = caption.partition(". ")
    if len(caption) <= LONG or not protocols:
        first, stop, protocols = caption, "", ""
    entries = [[_cell(cell, files or {}) for cell in cells] for _, cells in columns]
    kinds = [(head, _kind(cells)) for head, cells in columns]
    return Table(first + stop, protocols, kinds, list(zip(*entries, strict=True)))


def _verdicts_first(heads: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The table with its verdicts, if it has any, behind the claim: where a narrow screen shows them."""
    verdicts = [i for i, (_, cells) in enumerate(_columns(heads, rows)) if any(map(VERDICT.search, cells))]
    first = [head.lower() for head in heads].index("claim") + 1 if "claim" in map(str.lower, heads) else 1
    others = [i for i in range(len(heads)) if i not in verdicts]
    order = [*others[:first], *verdicts, *others[first:]]
    return [heads[i] for i in order], [[row[i] for i in order] for row in rows]


def _columns(heads: list[str], rows: list[list[str]]) -> list[tuple[str, list[str]]]:
    return [(head, list(cells)) for head, *cells in zip(heads, *rows, strict=True)]


def _kind(cells: list[str]) -> str:
    """The class of a column."""
    if all(map(NUMBER.fullmatch, cells)):
        return "number"
    longest = max(map(len, cells), default=0)
    return "short" if longest <= 20 else "long" if longest > 40 else ""


def _cell(text: str, files: Mapping[str, Path]) -> Cell:
    if match := VERDICT.search(text):
        rest = text[match.end() :]
        command = rest[2:] if rest.startswith(": ") else ""
        return Cell(text[: match.start()], match[1], "" if command else rest, command)
    return Cell(re.sub(r" (?=±)|(?<=±) |(?<=n) (?==)|(?<==) (?=\d)", "\u00a0", text), file=files.get(text))


def _size(picture: Path) -> list[tuple[str, int]]:
    """Width and height of a PNG as attributes, so that the page does not jump when it arrives."""
    with picture.open("rb") as file:
        head = file.read(24)
    return list(zip(("width", "height"), struct.unpack(">II", head[16:]), strict=True)) if len(head) == 24 else []
