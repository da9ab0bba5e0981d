"""Where a figure or table comes from: runs, notebook, parameters, commit and versions, without paths, hosts or names."""

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from studylib import files, paths
from studylib.training.record import commit, record_of

LIBRARIES = ("studylib", "torch", "torchvision", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib")


def lineage(
    runs: Iterable[str],
    notebook: str,
    parameters: Mapping[str, Any],
    data: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the JSON beside a figure holds: JSON types only, the same at every call until something changes.

    Args:
        runs: names of the runs, such as the column ``run`` of the results table; repeated ones count once.
        notebook: name of the notebook, with or without ``.ipynb``.
        parameters: of the notebook; of a value that is an absolute path only the last part is kept.
        data: data set -> checksum, of sets beside those that the runs were trained on; `completed` finds these.
        settings: of the runs, in full; left out if not given.
    """
    head, dirty = commit()
    made = {
        "runs": sorted(set(runs)),
        "notebook": Path(notebook).name.removesuffix(".ipynb"),
        "parameters": {name: _portable(value) for name, value in sorted(parameters.items())},
        "data": dict(sorted((data or {}).items())),
        "commit": head,
        "dirty": dirty,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
    }
    return completed(made | ({"settings": dict(settings)} if settings else {}))


def completed(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """``lineage`` with the sets that its runs were trained on and their checksums, as far as the runs have records by now.

    A notebook makes its lineage before its runs; what is written beside a figure is complete.
    """
    found: dict[str, set[str]] = {}
    for run in lineage.get("runs", ()):
        config, record = (paths.runs() / run / name for name in ("config.json", "record.json"))
        if config.exists() and record.exists():
            checksum = record_of(config.parent)[0]["data_sha256"]
            found.setdefault(files.read_json(config, dict)["data"], set()).add(checksum)
    data = {name: ", ".join(sorted(checksums)) for name, checksums in found.items()} | dict(lineage.get("data", {}))
    return dict(lineage) | ({"data": dict(sorted(data.items()))} if data else {})


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _portable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(inner) for inner in value]
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith(("/", "~"))):
        return Path(value).name
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
