"""Tables as Markdown, CSV and LaTeX (booktabs) from one frame of text, "mean ± half width (n)" in each cell."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from studylib import files
from studylib.data import packed
from studylib.errors import choose
from studylib.report import statistics, style
from studylib.report.lineage import completed

MISSING = "·"
NUMBER = re.compile(r"(?:[+−-]?\d[\d.,]*(?:e[+-]?\d+)?(?: ?%)?(?: ± [\d.]+)?(?: \[.*\])?|·)?(?: \(n = \d+\))?(?: ↓)?|nan")
"""A cell with a number or none, its interval and n, and a mark"""
FLOOR = "Floor (↓ below)"
HEADS = {
    "dataset": "Data set",
    "grid": "Grid",
    "layer": "Layer",
    "measure": "Measure",
    "method": "Method",
    "variant": "Variant",
}


def number(value: float, half: float, n: int, measure: str = "", *, signed: bool = False) -> str:
    """``mean ± half width (n = 3)`` with the measure's decimals; one value has no interval; none is ``·``.

    Where that leaves what the measure can be, it is ``mean [low, high] (n = 3)`` by `statistics.limits`. A ``signed`` number
    is a difference: it has a plus, and no bounds.
    """
    if n == 0 or math.isnan(value):
        return MISSING
    known = style.MEASURES.get(measure)
    largest = max(abs(value), 0.0 if math.isnan(half) else half)
    decimals = known.decimals if known and known.decimals is not None else max(0, 2 - _magnitude(largest))
    shown = f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "−")
    if n == 1:
        return f"{shown} (n = 1)"
    least, most = style.bounds(measure)
    if not signed and not least <= value - half <= value + half <= most:
        low, high = statistics.limits(value, half, n, measure)
        return f"{shown} [{low:.{decimals}f}, {high:.{decimals}f}] (n = {n})"
    return f"{shown} ± {half:.{decimals}f} (n = {n})"


def correlation(rho: float, low: float, high: float, n: int) -> str:
    """``0.71 [0.20, 0.93] (n = 12)``; without an interval ``0.71 (n = 4)``, and ``· (n = 2)`` for none."""
    shown = MISSING if math.isnan(rho) else f"{rho:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")
    return f"{shown} (n = {n})".replace("-", "−")


def _magnitude(value: float) -> int:
    """Power of ten of the first digit."""
    return math.floor(math.log10(abs(value))) if value else 0


def summary(
    frame: pd.DataFrame,
    *,
    rows: Sequence[str] = ("dataset",),
    columns: str = "method",
    difference: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Means with intervals over seeds as text, missing ones as ``·``, with names for readers.

    Top-1 accuracies on real sets have what is reached without pre-training beside them (`floor`), and a mark where a mean is
    below.

    Args:
        rows: columns of ``frame`` that lead the rows; with several measures one of them is ``measure``.
        columns: whose values head the columns.
        difference: (a, b), two of these values: adds b minus a, paired over seeds.

    Raises:
        InputError: a column does not exist; several values for a seed in one cell, such as those of two protocols.
    """
    for name in (*rows, columns):
        choose("column", name, frame.columns)
    by = list(rows) if "measure" in rows or columns == "measure" else [*rows, "measure"]
    cells = statistics.over_seeds(frame, [*by, columns] if columns not in by else by)
    heads = style.ordered(cells[columns]) if columns == "method" else list(dict.fromkeys(cells[columns]))
    body = []
    for key, part in cells.groupby(list(rows), sort=False, dropna=False):
        row = {HEADS.get(name, name): _named(name, value) for name, value in zip(rows, key, strict=True)}
        found = {cell[columns]: cell for cell in part.to_dict("records")}
        for head in heads:
            cell = found.get(head)
            row[_named(columns, head)] = _cell(cell, "dataset" in rows) if cell else MISSING
        if difference:
            kept = statistics.select(frame, **dict(zip(rows, key, strict=True)))
            title = " − ".join(_named(columns, name) for name in reversed(difference))
            row[title] = _difference(kept, *difference, columns)
        floor = _floor(part.iloc[0]) if "dataset" in rows else math.nan
        body.append(row | ({} if math.isnan(floor) else {FLOOR: f"{floor:.1f}"}))
    body = [row | {FLOOR: row.get(FLOOR, MISSING)} for row in body] if any(FLOOR in row for row in body) else body
    names = [HEADS.get(name, name) for name in rows] + [_named(columns, head) for head in heads]
    return pd.DataFrame(body) if body else pd.DataFrame(columns=names)


@cache
def floor(dataset: str) -> float:
    """What is reached on a data set without pre-training, top-1 in %, from ``data/floors.yaml``; NaN where it is not known, or
    the set that is here has another number of training images."""
    known = yaml.safe_load((resources.files("studylib") / "data" / "floors.yaml").read_text(encoding="utf-8")).get(dataset)
    file = packed.find(dataset) if known else None
    here = packed.describe(file).get("n_train") if file else None
    return known["top1"] if known and here in (None, known["train"]) else math.nan


def _floor(cell: Mapping[str, Any]) -> float:
    return floor(cell["dataset"]) if cell["measure"] in ("linear_top1", "knn_top1") else math.nan


def _cell(cell: Mapping[str, Any], floors: bool) -> str:
    text = number(cell["mean"], cell["half_width"], cell["n"], cell["measure"])
    return f"{text} ↓" if floors and cell["mean"] < _floor(cell) else text


def _difference(frame: pd.DataFrame, a: str, b: str, column: str) -> str:
    measure = frame["measure"].iloc[0]
    return number(*statistics.paired_difference(frame, measure, a, b, column=column), measure, signed=True)


def _named(column: str, value: Any) -> str:
    """A value of the results table, for readers."""
    if column == "method" and (value in style.METHODS or str(value).startswith("file:")):
        return style.look(value).label
    if column == "variant":
        return style.variant_label(str(value))
    if column == "dataset":
        return style.dataset_label(value)
    if column == "measure":
        return _plain(style.measure_label(value))
    return str(value)


def protocols_of(frame: pd.DataFrame) -> str:
    """``measure: protocol; ...``: how each measure of ``frame`` was taken, for a caption."""
    return "; ".join(f"{row.measure}: {row.protocol}" for row in frame.drop_duplicates("measure").itertuples())


def write_table(frame: pd.DataFrame, name: str, *, folder: Path, caption: str, lineage: Mapping[str, Any]) -> Path:
    """Path of the Markdown file; beside it lie the same cells as CSV and LaTeX, and the lineage as JSON; each atomic.

    The caption should name the protocol and the scale. LaTeX needs the package ``booktabs``.
    """
    target = Path(folder) / f"{name}.md"
    files.write_text(target, f"{caption}\n\n{markdown(frame)}")
    files.write_text(target.with_suffix(".csv"), frame.to_csv(index=False, lineterminator="\n"))
    files.write_text(target.with_suffix(".tex"), latex(frame, name, caption))
    files.write_json(target.with_suffix(".json"), completed(lineage))
    return target


def markdown(frame: pd.DataFrame) -> str:
    """A pipe table, columns of numbers to the right."""
    cells = [[_plain(value) for value in row] for row in frame.itertuples(index=False)]
    heads = [_plain(name) for name in frame.columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in (heads, *cells)]
    rule = ["-" * width if side == "l" else "-" * (width - 1) + ":" for side, width in zip(_sides(frame), widths, strict=True)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _sides(frame: pd.DataFrame) -> str:
    """For each column ``r`` if it holds numbers (not the first, which names the rows), else ``l``."""
    columns = [list(map(str, column)) for _, column in frame.items()]
    return "".join("r" if i and cells and all(map(NUMBER.fullmatch, cells)) else "l" for i, cells in enumerate(columns))


def latex(frame: pd.DataFrame, name: str, caption: str) -> str:
    """A booktabs table."""
    rows = [" & ".join(_tex(value) for value in row) + r" \\" for row in [tuple(frame.columns), *frame.itertuples(index=False)]]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(caption)}}}",
        rf"\label{{tab:{name}}}",
        rf"\begin{{tabular}}{{{_sides(frame)}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


TEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "·": r"$\cdot$",
    "φ": r"$\phi$",
    "Π": r"$\Pi$",
    "…": r"\dots{}",
    "↓": r"$\downarrow$",
} | {mark: rf"\{mark}" for mark in "&%$#_{}"}


def _tex(value: object) -> str:
    """Text for LaTeX; what is between dollar signs (the measures' names) is mathematics already."""
    parts = str(value).split("$")
    if len(parts) % 2 == 0:
        parts = [str(value)]
    return "".join(f"${part}$" if i % 2 else "".join(TEX.get(mark, mark) for mark in part) for i, part in enumerate(parts))


PLAIN = {r"$\phi$": "φ", r"$\Pi$": "Π", r"$R$": "R", r"$D_{\mathrm{inter}}$": "D_inter", r"$D_{\mathrm{intra}}$": "D_intra"}


def _plain(value: object) -> str:
    """Text without mathematics or what would break a Markdown table."""
    text = str(value)
    for mathematics, plain in PLAIN.items():
        text = text.replace(mathematics, plain)
    return text.replace("|", r"\|").replace("\n", " ")
