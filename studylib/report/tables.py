"""Tables as Markdown, CSV and LaTeX from one frame."""

from pathlib import Path
from typing import Any

from pandas import DataFrame

from studylib import files


def save(table: DataFrame, name: str, where: Path, origin: dict[str, Any]) -> None:
    """Write ``name``.md, .csv, .tex and .json (``origin``) into ``where``."""
    files.write_text(where / f"{name}.md", markdown(table))
    files.write_text(where / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    files.write_text(where / f"{name}.tex", latex(table))
    files.write_json(where / f"{name}.json", origin)


def markdown(table: DataFrame) -> str:
    """A Markdown table of the cells as text."""
    rows = [list(map(str, table.columns)), ["---"] * table.shape[1], *([str(cell) for cell in row] for row in table.to_numpy())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def latex(table: DataFrame) -> str:
    """A booktabs table of the cells as text."""
    body = [" & ".join(map(_escape, row)) + r" \\" for row in [table.columns, *table.to_numpy()]]
    lines = [rf"\begin{{tabular}}{{{'l' * table.shape[1]}}}", r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _escape(cell: Any) -> str:
    text = str(cell)
    for plain, tex in (("\\", r"\textbackslash{}"), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#"), ("±", r"$\pm$")):
        text = text.replace(plain, tex)
    return text
