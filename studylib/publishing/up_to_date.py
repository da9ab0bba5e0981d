"""Whether a notebook need not be executed again: a digest of all it is made from, and whether what it made is still there."""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from studylib import paths
from studylib.publishing import gallery

PACKAGE = Path(__file__).resolve().parent.parent
LIBRARIES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "matplotlib")


def digest(notebook: Path, parameters: Mapping[str, Any], *, reads_runs: bool = False) -> str:
    """Hash of what decides on the results of ``notebook``.

    That is its bytes, its parameters, the package's sources, the versions of Python and the libraries, the names, sizes and
    times of the image sets, and the published results of runs that have no folder here. ``reads_runs``: and which runs, results
    and executed notebooks there are, for a notebook that shows what it finds.
    """
    parts = {
        "notebook": _sha256(notebook),
        "parameters": dict(parameters),
        "sources": {file.relative_to(PACKAGE).as_posix(): _sha256(file) for file in _sources()},
        "versions": {name: metadata.version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "data": list(_data()),
        "published": _published(parameters.get("scale", "")),
        "runs": list(_runs(notebook.stem)) if reads_runs else [],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _sources() -> list[Path]:
    return sorted(file for kind in ("py", "yaml") for file in PACKAGE.rglob(f"*.{kind}"))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _data() -> Iterator[tuple[str, int, int]]:
    """Name, size and time of what lies in the data folders, two levels deep: sets of a million files stay quick to list."""
    for folder in paths.data_folders():
        for file in sorted([*folder.glob("*"), *folder.glob("*/*")]):
            known = file.stat()
            yield str(file), known.st_size if file.is_file() else 0, known.st_mtime_ns


def _published(scale: str) -> str:
    if not paths.published_results(scale).exists():
        return ""
    from studylib.evaluation import published

    return published.digest(scale)


def _runs(notebook: str) -> Iterator[str]:
    """The runs that are done and their results, by name; how other notebooks ended."""
    root = paths.runs()
    yield from sorted(file.relative_to(root).as_posix() for kind in ("DONE", "results/*") for file in root.glob(f"*/{kind}"))
    for file in sorted(root.glob("notebooks/*/*.json")):
        if file.stem != notebook:
            yield file.read_text(encoding="utf-8")


def listing(folder: Path) -> dict[str, int]:
    """Files under ``folder`` by name -> time of the last change."""
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in sorted(folder.rglob("*")) if file.is_file()}


def made(folder: Path, before: Mapping[str, int]) -> dict[str, Any]:
    """What a notebook made since ``before``, the `listing` of its figures then: ``figures`` with the time each was changed, and
    the ``runs`` they are from."""
    written = {name: changed for name, changed in listing(folder).items() if before.get(name) != changed}
    lineages = [gallery.read_json(folder / name) for name in written if name.endswith(".json")]
    runs = sorted({run for lineage in lineages for run in lineage.get("runs", []) if _is_done(run)})
    return {"figures": written, "runs": runs}


def _is_done(run: str) -> bool:
    return (paths.runs() / run / "DONE").exists()


def unchanged(report: Mapping[str, Any], now: str, executed: Path, figures: Path) -> bool:
    """Whether the last execution succeeded, its `digest` is what it is ``now``, and all that it made is still as it was.

    The same notebook executed by itself with other parameters writes the same figures: then it is not.
    """
    found = listing(figures)
    return (
        report.get("code") == 0
        and report.get("digest") == now
        and executed.exists()
        and all(found.get(name) == changed for name, changed in report["figures"].items())
        and all(map(_is_done, report["runs"]))
    )
