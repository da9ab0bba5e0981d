"""What lies in a folder of figures, ``<scale>/<notebook>/<name>``, and the Markdown page that shows the published ones."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from studylib import files, paths
from studylib.scale import scale, scales

INTRODUCTION = """# Published figures and tables

Written by `studylib reproduce --scale SCALE --publish`; edit nothing here. Figures come with a PDF and the plotted numbers as
CSV, tables as Markdown, CSV and LaTeX. The JSON beside each names its runs, commit, notebook, parameters and versions. Filled
markers are ours, hollow ones published. The commit named for each notebook made its figures; where the training step has
changed since (`SCHEMA` in `studylib/config.py`), runs of today have other ids, and other numbers.
"""


def write() -> Path:
    """Path of the repository's ``figures/README.md``, written from the folders beside it; changed only if they are."""
    target = paths.PUBLISHED_FIGURES / "README.md"
    text = page(paths.PUBLISHED_FIGURES)
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        files.write_text(target, text)
    return target


def page(root: Path) -> str:
    """Markdown with every figure and table under ``root``: the same text for the same files."""
    return INTRODUCTION + "".join(_scale(root, folder) for folder in folders(root) if folders(folder))


def _scale(root: Path, scale: Path) -> str:
    said = f"\n{about(scale.name)}\n" if about(scale.name) else ""
    return f"\n## {scale.name}\n{said}" + "".join(_notebook(root, folder) for folder in folders(scale))


def _notebook(root: Path, folder: Path) -> str:
    lines = [f"\n### {folder.name}\n", f"{made_of(folder)}.\n"]
    for picture in pictures(folder):
        lines.append(f"![{title(picture)}, {folder.name} at {folder.parent.name}]({_link(root, picture)})\n")
        lines.append(f"{title(picture)}: {_links(root, picture, 'pdf', 'csv', 'json')}\n")
    if rows := [f"- {title(table)}: {_links(root, table, 'md', 'csv', 'tex', 'json')}" for table in tables(folder)]:
        lines += ["Tables:\n", *rows, ""]
    return "\n".join(lines)


def _links(root: Path, file: Path, *kinds: str) -> str:
    return " · ".join(f"[{form.suffix[1:]}]({_link(root, form)})" for form in forms(file, *kinds))


def _link(root: Path, file: Path) -> str:
    return quote(file.relative_to(root).as_posix())


def folders(root: Path) -> list[Path]:
    """The folders in ``root``, sorted; none if there is no such folder."""
    return sorted(folder for folder in root.glob("*") if folder.is_dir())


def pictures(folder: Path) -> list[Path]:
    """The figures in a notebook's folder, sorted."""
    return sorted(folder.rglob("*.png"))


def tables(folder: Path) -> list[Path]:
    """The Markdown files of the tables in a notebook's folder, sorted."""
    return sorted(folder.rglob("*.md"))


def forms(file: Path, *kinds: str) -> list[Path]:
    """Which of the ``kinds`` of a figure or table there are, in this order."""
    return [form for kind in kinds if (form := file.with_suffix(f".{kind}")).exists()]


def title(file: Path) -> str:
    """A figure's or table's name for readers."""
    return file.stem.replace("_", " ")


def made_of(folder: Path) -> str:
    """``11 runs, commit 51294b8``, from the lineages in a notebook's folder."""
    found = [read_json(file) for file in sorted(folder.rglob("*.json"))]
    runs = {run for entry in found for run in entry.get("runs", [])}
    commits = sorted({entry["commit"][:7] for entry in found if entry.get("commit")})
    said = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    return f"{said}, commit{'s' * (len(commits) > 1)} {', '.join(commits)}" if commits else said


def read_json(file: Path) -> dict[str, Any]:
    """What a lineage or a report says; nothing if the file is neither."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def about(name: str) -> str:
    """The line that says what a scale is; empty for one that is no more."""
    return scale(name).about if name in scales() else ""


def read_table(file: Path) -> tuple[str, list[str], list[list[str]]]:
    """(caption, heads, rows) of a table that `report.write_table` wrote."""
    lines = file.read_text(encoding="utf-8").splitlines()
    caption = " ".join(line for line in lines if line and not line.startswith("|"))
    cells = [[_cell(text) for text in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]
    return (caption, cells[0], cells[2:]) if len(cells) > 1 else (caption, [], [])


def _cell(text: str) -> str:
    return text.strip().replace(r"\|", "|")
