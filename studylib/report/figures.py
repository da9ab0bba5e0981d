"""A figure as files: PDF, PNG, the plotted numbers and where they come from."""

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from studylib import files
from studylib.report import layout, style
from studylib.report.lineage import completed

INLINE_SCALE = 125  # pixels per inch of the figure in a notebook


def save(figure: Figure, name: str, data: pd.DataFrame, *, folder: Path, lineage: Mapping[str, Any]) -> Path:
    """Path of the PDF; beside it lie the PNG (250 dpi), the plotted numbers as CSV and the lineage as JSON.

    Labels that are too long are broken first. Each file is written atomically, and with the same bytes when nothing changed.
    In a notebook the figure is shown, once.

    Args:
        folder: ``paths.figures() / scale / notebook``.
        lineage: by `lineage`.
    """
    layout.fit(figure)
    picture = _render(figure, "png")
    figure.set_layout_engine(None)  # as it was laid out for the PNG: the search for room takes half of the time of a figure
    document = _render(figure, "pdf")
    target = Path(folder) / f"{name}.pdf"
    files.write(target, lambda file: file.write(document))
    files.write(target.with_suffix(".png"), lambda file: file.write(picture))
    files.write_text(target.with_suffix(".csv"), data.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    files.write_json(target.with_suffix(".json"), completed(lineage))
    _show(picture, figure)
    return target


def _render(figure: Figure, form: str) -> bytes:
    memory = io.BytesIO()
    metadata = {"CreationDate": None} if form == "pdf" else None
    with matplotlib.rc_context(style.RC):
        figure.savefig(memory, format=form, metadata=metadata)
    return memory.getvalue()


def _show(picture: bytes, figure: Figure) -> None:
    """Show the PNG in a notebook; the figure is unknown to pyplot, so that no front end shows it a second time."""
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(Image(picture, width=round(figure.get_figwidth() * INLINE_SCALE)))
