"""A contact sheet: some images of every class."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studylib.data import ImageSet
from studylib.errors import InputError
from studylib.report import style

GAP = 2  # pixels between images


def training_samples(images: ImageSet, *, per_class: int = 8) -> tuple[Figure, pd.DataFrame]:
    """`samples` of the training images of a data set."""
    train = images.train
    return samples(train.images, train.labels, images.classes, per_class=per_class)


def samples(
    images: np.ndarray, labels: Sequence[int], classes: Sequence[str], *, per_class: int = 8, blocks: int = 0
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of the first ``per_class`` images of every class, one row per class, in ``blocks`` side by side.

    The plotted data say which rows of ``images`` are shown.

    Args:
        images: (N, 3, H, W) uint8, a tensor on the CPU or an array.
        labels: (N,) index into ``classes``.
        blocks: 0 for as many as make the sheet about twice as wide as high.

    Raises:
        InputError: images of another shape or type.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8 or len(images) != len(labels):
        raise InputError("images", f"{images.shape} {images.dtype}", f"must be (N, 3, H, W) uint8 with N={len(labels)} labels")
    height, width = images.shape[2] + GAP, images.shape[3] + GAP
    blocks = blocks or max(1, math.ceil(math.sqrt(len(classes) * 2 * height / ((per_class + 1.5) * width))))
    deep = math.ceil(len(classes) / blocks)
    shown, figure = [], style.canvas(2, 1.0)
    axes = figure.subplots(1, blocks, squeeze=False).ravel()
    for block, panel in enumerate(axes):
        names = range(block * deep, min((block + 1) * deep, len(classes)))
        sheet = np.full((deep * height, per_class * width, 3), 255, dtype=np.uint8)
        for y, label in enumerate(names):
            for x, row in enumerate(np.flatnonzero(labels == label)[:per_class]):
                top, left = y * height, x * width
                sheet[top : top + height - GAP, left : left + width - GAP] = images[row].transpose(1, 2, 0)
                shown.append({"row": int(row), "class": classes[label]})
        panel.imshow(sheet, interpolation="nearest")
        panel.set_xticks([])
        panel.set_yticks([(y + 0.5) * height for y in range(len(names))], [style.verbatim(classes[label]) for label in names])
        panel.tick_params(length=0, pad=2)
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
    label_width = 0.055 * max(map(len, classes), default=1) + 0.08  # inches, about
    scale = (style.WIDTHS[2] / blocks - label_width) / (per_class * width)
    figure.set_figheight(deep * height * scale + 0.12)
    return figure, pd.DataFrame(shown, columns=["row", "class"])
