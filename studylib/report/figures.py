"""A figure with what is needed to trust it: vector PDF, PNG, the plotted numbers and where they come from."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from pandas import DataFrame

from studylib import files, paths
from studylib.config import RunConfig, changed
from studylib.training import Run
from studylib.training.record import commit


def lineage(configs: Iterable[RunConfig], notebook: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run ids with their settings, machine and data, the commit, the notebook and its parameters."""
    runs = {}
    for config in configs:
        record = Run(config).folder / "record.json"
        sessions = json.loads(record.read_text()) if record.exists() else []
        runs[config.name] = {"settings": changed(config), "sessions": sessions}
    return {"notebook": notebook, "parameters": parameters, "commit": commit(), "runs": runs}


def folder(scale: str, notebook: str) -> Path:
    """Where figures and tables of a notebook go at a scale."""
    return paths.figures() / scale / notebook


def save(figure: Figure, name: str, data: DataFrame, where: Path, origin: dict[str, Any]) -> None:
    """Write ``name``.pdf, .png, .csv (``data``, the plotted numbers) and .json (``origin``) into ``where``.

    The same figure gives the same bytes.
    """
    for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, metadata=metadata)
        files.write(where / f"{name}.{suffix}", lambda out, buffer=buffer: out.write(buffer.getvalue()))
    files.write_text(where / f"{name}.csv", data.to_csv(index=False, float_format="%.6g"))
    files.write_json(where / f"{name}.json", origin)
