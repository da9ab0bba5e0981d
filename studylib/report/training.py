"""Pre-training itself: what ``metrics.jsonl`` of a run says, epoch by epoch."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from studylib.data import load
from studylib.report import style
from studylib.training import Run

LABELS = {
    "loss": "Loss, mean of the epoch",
    "lr": "Learning rate, last step",
    "knn_top1": style.measure_label("monitor_knn_top1"),
    "train_top1": "Training images, top-1 (%)",
    "k": "LOOK's k, mean of the epoch",
    "no_positive": "Anchors without positive (%)",
}


def training_curves(runs: Sequence[Run], *, columns: Sequence[str] = ("loss", "lr", "knn_top1")) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) with a panel for each of ``columns`` of ``metrics.jsonl`` and a line for each run.

    The plotted data are the rows of ``metrics.jsonl`` as they are, with method, run and seed before them. A column that no
    run has says so; one that is not there every epoch (``knn_top1``) is drawn where it is.
    """
    rows = [
        {"method": run.config.method, "run": run.name, "seed": run.config.seed} | row for run in runs for row in run.metrics()
    ]
    table = pd.DataFrame(rows, columns=None if rows else ["method", "run", "seed", "epoch"])
    figure = style.canvas(2, 2.2 if len(columns) <= 3 else 4.0)
    for axes, column in zip(style.grid(figure, len(columns), 3), columns, strict=True):
        known = table.dropna(subset=column) if column in table else table[:0]
        for method, part in style.by_method(known):
            for _, line in part.groupby("run", sort=False):
                drawn = style.look(method)
                axes.plot(line["epoch"], line[column], color=drawn.colour, marker=drawn.marker, markersize=3.4)
        axes.set_xlabel("Epochs of pre-training")
        axes.set_ylabel(LABELS.get(column, column.replace("_", " ")))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if known.empty:
            style.absent(axes)
            axes.set_xticks([])
    style.legend(figure, table["method"], line=True)
    seeds = ", ".join(map(str, sorted(set(table["seed"]))))
    style.note(figure, f"a line for each run, seed {seeds}" if rows else "no results yet")
    return figure, table


def training_cost(run: Run) -> str:
    """What the training of ``run`` takes: epochs, steps, images and passes of whole images through the encoder with gradient.

    A local crop counts by its pixels; the passes without gradient of a moving average are not counted. Then what is done.
    """
    config, images = run.config, load(run.config.data)
    epochs, batch, crops = config.optimisation.epochs, config.optimisation.batch, config.multi_crop
    steps = len(images.train.labels) // batch
    count = epochs * steps * batch
    side = config.augmentation.size or images.size
    passes = crops.global_crops + crops.local_crops * (crops.local_size / side) ** 2
    return (
        f"{epochs} epochs of {steps} steps of {batch} images: {count:,} images of {images.num_classes} classes\n"
        f"about {passes:.2f} passes for each, {passes * count:,.0f} in all\n"
        + ("done before" if run.done else f"epochs done before: {len(run.metrics())}")
    )


def training_time(run: Run) -> str:
    """How long ``run`` took so far, and on what."""
    clock = run.timing()
    return f"{sum(row['seconds'] for row in clock):.0f} s for {len(clock)} epochs on {run.sessions()[-1]['device']}"


def training_reading(run: Run) -> str:
    """How loss and kNN accuracy of ``run`` went, and the files that it left, a line each."""
    rows = run.metrics()
    monitored = [row for row in rows if "knn_top1" in row]
    lines = [f"loss {rows[0]['loss']:.3f} in the first epoch, {rows[-1]['loss']:.3f} in the last"] if rows else []
    if monitored:
        best, last = max(monitored, key=lambda row: row["knn_top1"]), monitored[-1]
        lines.append(
            f"kNN top-1 {last['knn_top1']:.1f} % at the end; highest {best['knn_top1']:.1f} % after epoch {best['epoch']}"
        )
    files = sorted(file.name for file in run.folder.iterdir() if not file.name.startswith("."))
    return "\n".join([*lines, *(f"  {run.name}/{name}" for name in files)])
