"""Accuracy of every encoder stage: where in the network do features stop to transfer (SL-MLP's stage-wise figure)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studylib.report import statistics, style

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5")


def stagewise(
    frame: pd.DataFrame, *, measure: str = "linear_top1", published: pd.DataFrame | None = None
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of ``measure`` at stages 1 to 5, one panel per data set, a line per method.

    Other layers and earlier epochs in ``frame`` are left out. ``published`` is `papers.published("sl_mlp", "stagewise")`:
    a panel of its own, hollow, since the data and the scale are others.

    Raises:
        InputError: several values for a seed at a stage, such as those of two protocols.
    """
    rows = statistics.select(statistics.at_end(frame), measure=measure, layer=STAGES)
    table = statistics.over_seeds(rows, ["dataset", "method", "layer"])
    table["stage"] = table["layer"].map(lambda layer: STAGES.index(layer) + 1).astype(int)
    datasets = list(dict.fromkeys(table["dataset"])) or [""]
    count = len(datasets) + (published is not None)
    figure = style.canvas(1 if count == 1 else 2, 2.35 if count <= 3 else 4.2)
    axes = style.grid(figure, count, 3)
    for panel, dataset in zip(axes, datasets, strict=False):
        part = table[table["dataset"] == dataset]
        _draw(panel, part)
        panel.set_title(style.dataset_label(dataset))
    axes[0].set_ylabel(style.measure_label(measure))
    style.legend(figure, table["method"], line=True)
    style.note(figure, style.seeds(table))
    data = table.drop(columns="layer").assign(source="ours", measure=measure)
    if published is not None:
        _draw_published(axes[-1], published)
        data = pd.concat([data, _as_plotted(published)], ignore_index=True)
    return figure, data


def _draw(axes: Axes, table: pd.DataFrame) -> None:
    offsets = style.dodge(table["method"], 0.12)
    for method, part in style.by_method(table):
        part = part.set_index("stage").reindex(range(1, 6))  # a stage that is missing breaks the line
        axes.plot(part.index + offsets[method], part["mean"], color=style.look(method).colour, zorder=2)
        for stage, row in part.iterrows():
            style.mark(axes, stage + offsets[method], row["mean"], (row["low"], row["high"]), method)
    if table.empty:
        style.absent(axes)
    _ticks(axes)


def _draw_published(axes: Axes, published: pd.DataFrame) -> None:
    """Hollow markers; dashed where the paper's model had no MLP; names at a legend beside the panel."""
    handles = []
    models = published.groupby("model", sort=False)
    for i, (model, part) in enumerate(models):
        drawn, dashes = style.look(part["method"].iloc[0]), "-" if part["projector"].iloc[0] else (0, (2.5, 1.5))
        kept = {
            "color": drawn.colour,
            "marker": drawn.marker,
            "markerfacecolor": "white",
            "linestyle": dashes,
            "linewidth": 0.9,
        }
        places = part["stage"] + 0.05 * (i - (len(models) - 1) / 2)  # apart, so that equal values do not hide each other
        axes.errorbar(places, part["value"], yerr=part["error"], elinewidth=0.6, **kept)
        handles.append(Line2D([], [], label=model, **kept))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=style.SMALL - 0.5, handlelength=2.2)
    axes.set_title("published, ImageNet (digitised)")
    axes.set_ylabel("Top-1 on eval-D (%)")
    _ticks(axes)


def _ticks(axes: Axes) -> None:
    axes.set_xticks(range(1, 6))
    axes.set_xlim(0.7, 5.3)
    axes.set_xlabel("Encoder stage")


def _as_plotted(published: pd.DataFrame) -> pd.DataFrame:
    renamed = published.rename(columns={"value": "mean", "error": "half_width"})
    kept = renamed[["method", "stage", "mean", "half_width"]]
    return kept.assign(method=renamed["model"], dataset="ImageNet eval-D", measure="top-1", source="published, digitised")
