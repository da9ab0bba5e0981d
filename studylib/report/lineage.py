"""Where a figure or table comes from: runs, notebook, parameters, commit and versions, without paths, hosts or names."""

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from studylib.training.record import commit

LIBRARIES = ("studylib", "torch", "torchvision", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib")


def lineage(
    runs: Iterable[str], notebook: str, parameters: Mapping[str, Any], data: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the JSON beside a figure holds: JSON types only, the same at every call until something changes.

    Args:
        runs: names of the runs, such as the column ``run`` of the results table; repeated ones count once.
        notebook: name of the notebook, with or without ``.ipynb``.
        parameters: of the notebook; of a value that is an absolute path only the last part is kept.
        data: data set -> checksum.
    """
    head, dirty = commit()
    return {
        "runs": sorted(set(runs)),
        "notebook": Path(notebook).name.removesuffix(".ipynb"),
        "parameters": {name: _portable(value) for name, value in sorted(parameters.items())},
        "data": dict(sorted((data or {}).items())),
        "commit": head,
        "dirty": dirty,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
    }


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
