"""What a run's pre-training says of itself, as rows of the results table: its monitored accuracy, and what it cost."""

import math
from statistics import median
from typing import Any

from studylib.training import Run

KIND = "pretraining"
VERSION = 2  # raised when a row changes its meaning, so that published ones of before are not used
MONITORED = "monitor_knn_top1"


def rows(run: Run) -> list[dict[str, Any]]:
    """Rows (dataset, epoch, layer, split, protocol, measure, value) of a finished run.

    ``monitor_knn_top1`` is in %, of a tenth of the training images, at each epoch that was monitored. Of the whole run:
    ``seconds`` in all, as medians over epochs ``seconds_per_epoch`` and ``images_per_s``, and the seconds of the
    ``fastest_epoch``, which other work on the machine disturbs least; ``passes`` and ``passes_without_gradient`` of whole
    images for each training image.
    """
    about = {"dataset": run.config.data, "layer": "stage5", "split": "train", "measure": MONITORED}
    about["protocol"] = f"kNN: cosine, k=20, a tenth of the training images among {run.config.monitor.gallery} others"
    found = [about | {"epoch": row["epoch"], "value": row["knn_top1"]} for row in run.metrics() if "knn_top1" in row]
    clock = run.timing()
    cost = {
        "seconds": sum(row["seconds"] for row in clock),
        "seconds_per_epoch": median(row["seconds"] for row in clock) if clock else 0.0,
        "fastest_epoch": min((row["seconds"] for row in clock), default=0.0),
        "images_per_s": median(row["images_per_s"] for row in clock) if clock else math.nan,
    } | {name: clock[-1][name] for name in ("passes", "passes_without_gradient") if clock and name in clock[-1]}
    about = {"dataset": run.config.data, "epoch": run.epochs, "layer": "", "split": "train"}
    about["protocol"] = "pre-training on this machine, validation included; passes of whole images for each training image"
    return found + [about | {"measure": name, "value": value} for name, value in cost.items()]
