"""What lies in a folder of figures, ``<scale>/<notebook>/<name>``, and the Markdown pages that show the published ones."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from studylib import files, paths
from studylib.scale import scale, scales

SIZES = ("smoke", "quick", "small_cpu", "small", "paper")  # scales, the smallest study first

INDEX = """# Published figures and tables

Written by `studylib reproduce --scale SCALE --publish`; edit nothing here. Figures come with a PDF and the plotted numbers as
CSV, tables as Markdown, CSV and LaTeX. The JSON beside each names its runs, commit, notebook, parameters and versions. Filled
markers are ours, hollow ones published. The commit named for each notebook made its figures; where the training step has
changed since (`SCHEMA` in `studylib/config.py`), runs of today have other ids, and other numbers.
"""


def write() -> Path:
    """Path of the repository's ``figures/README.md``; it and the page of each scale are changed only if their folders are."""
    for name, text in pages(paths.PUBLISHED_FIGURES).items():
        target = paths.PUBLISHED_FIGURES / name
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            files.write_text(target, text)
    return paths.PUBLISHED_FIGURES / "README.md"


def pages(root: Path) -> dict[str, str]:
    """Markdown by its place under ``root``, an index and a page for each scale: the same text for the same files."""
    published = [folder for folder in folders(root) if folders(folder)]
    return {"README.md": _index(root, published)} | {f"{folder.name}/README.md": _scale(folder) for folder in published}


def _index(root: Path, published: list[Path]) -> str:
    """The other pages in ``root``, and for each scale what it is and what each notebook made."""
    others = [f"- [{_heading(file)}]({file.name})\n" for file in sorted(root.glob("*.md")) if file.name != "README.md"]
    parts = [INDEX, *(["\n", *others] if others else [])]
    for figures in published:
        parts.append(f"\n## [{figures.name}]({figures.name}/README.md)\n\n" + _paragraph(about(figures.name)))
        parts.append("| Notebook | Figures | Tables | From |\n| --- | --: | --: | --- |\n")
        for folder in folders(figures):
            link = f"[{folder.name}]({figures.name}/README.md#{folder.name})"
            parts.append(f"| {link} | {len(pictures(folder))} | {len(tables(folder))} | {made_of(folder)} |\n")
    return "".join(parts)


def _paragraph(text: str) -> str:
    return f"{text}\n\n" if text else ""


def _heading(file: Path) -> str:
    """The first line of a Markdown file without its marks."""
    return file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def _scale(scale: Path) -> str:
    """The page of a scale, with every figure and links to every table."""
    results = "[Every value](results.csv.gz). " if (scale / "results.csv.gz").exists() else ""
    return (
        f"# Figures and tables at scale {scale.name}\n\n{_paragraph(about(scale.name))}"
        f"Written by `studylib reproduce --publish`; edit nothing here. {results}[Other scales](../README.md).\n"
        + "".join(_notebook(scale, folder) for folder in folders(scale))
    )


def _notebook(root: Path, folder: Path) -> str:
    lines = [f"\n## {folder.name}\n", f"{made_of(folder)}.\n", *(figure(root, picture) for picture in pictures(folder))]
    if rows := [f"- {title(table)}: {_links(root, table, 'md', 'csv', 'tex', 'json')}" for table in tables(folder)]:
        lines += ["Tables:\n", *rows, ""]
    return "\n".join(lines)


def figure(root: Path, picture: Path) -> str:
    """Markdown of a figure for a page in ``root``: the image, its name, and links to its other forms."""
    scale, notebook = picture.parent.parent.name, picture.parent.name
    return (
        f"![{title(picture)}, {notebook} at {scale}]({_link(root, picture)})\n\n"
        f"{title(picture)} at {scale}: {_links(root, picture, 'pdf', 'csv', 'json')}\n"
    )


def _links(root: Path, file: Path, *kinds: str) -> str:
    return " · ".join(f"[{form.suffix[1:]}]({_link(root, form)})" for form in forms(file, *kinds))


def _link(root: Path, file: Path) -> str:
    return quote(file.relative_to(root).as_posix())


def folders(root: Path) -> list[Path]:
    """The folders in ``root``: scales by the size of the study, others sorted; none if there is no such folder."""
    return [root / name for name in by_size(folder.name for folder in root.glob("*") if folder.is_dir())]


def by_size(names: Iterable[str]) -> list[str]:
    """Names of scales, the smallest study first, then others, sorted."""
    return sorted(names, key=lambda name: (SIZES.index(name) if name in SIZES else len(SIZES), name))


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
