"""Modes inside a class as pictures: clusters of its features, each shown by the images nearest to its centre."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studylib.data import ImageSet
from studylib.errors import InputError, choose, require
from studylib.measures.modes import STARTS
from studylib.report import statistics, style

GAP = 2  # pixels between images


MODES = {
    "modes_number": "Modes found in a class",
    "modes_hidden": "Hidden labels in a class",
    "modes_chosen_nmi": "NMI at the number found",
    "modes_chosen_ari": "ARI at the number found",
}
"""names for readers of the measures that choose the number of modes by the silhouette"""


def modes_inside(frame: pd.DataFrame) -> pd.DataFrame:
    """The measures of modes inside classes at the end of training; ``dataset`` is the hidden label they are compared with."""
    end = statistics.select(statistics.at_end(frame), layer="stage5", split="test")
    rows = end[end["measure"].str.startswith("modes_")]
    return rows.assign(dataset=rows["protocol"].str.split(" of ").str[-1])


def class_modes(images: ImageSet, *, features: Mapping[str, np.ndarray], classes: int = 2) -> tuple[Figure, pd.DataFrame]:
    """`mode_images` of the held-out images of the first ``classes`` classes of a data set, with its first hidden label.

    Args:
        features: method -> (N, d), of all held-out images.
    """
    test = images.test
    labels = next(iter(test.hidden.values()), None)
    hidden = {"hidden": labels[0], "hidden_classes": labels[1]} if labels else {}
    return mode_images(test.images, test.labels, test.classes, features, chosen=test.classes[:classes], **hidden)


def mode_images(
    images: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    features: Mapping[str, np.ndarray],
    *,
    chosen: Sequence[str],
    clusters: int = 4,
    nearest: int = 6,
    hidden: Sequence[int] | None = None,
    hidden_classes: Sequence[str] = (),
    seed: int = 0,
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) with a panel for each of the ``chosen`` classes (down) and each method (across).

    In a panel a row for each cluster that k-means finds among the class's l2-normalised features, the largest on top: the
    ``nearest`` images to its centre and, beside them, its share of the class and its most frequent hidden label with that
    label's share of the cluster. k-means makes as many clusters as it is asked for; whether they are modes say the measures.

    Args:
        images: (N, 3, H, W) uint8, a tensor on the CPU or an array.
        labels: (N,) index into ``classes``.
        features: method -> (N, d).
        hidden: (N,) index into ``hidden_classes``; -1 where an image has none.

    Raises:
        InputError: an unknown class, images of another shape or type, or lengths that differ.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8 or len(images) != len(labels):
        raise InputError("images", f"{images.shape} {images.dtype}", f"must be (N, 3, H, W) uint8 with N={len(labels)} labels")
    for method, x in features.items():
        require("features", f"{method}: {len(x)} rows", len(x) == len(labels), f"need one for each of {len(labels)} images")
    marks = None if hidden is None else np.asarray(hidden)
    if marks is not None and (len(marks) != len(labels) or marks.max() >= len(hidden_classes)):
        raise InputError("hidden", len(marks), "needs one label per image, each with a name")
    methods = style.ordered(features)
    figure = style.canvas(2, 1.0)
    panels = figure.subplots(len(chosen), len(methods), squeeze=False)
    tables = []
    for down, name in enumerate(chosen):
        rows = np.flatnonzero(labels == classes.index(choose("class", name, classes)))
        for across, method in enumerate(methods):
            found = _clusters(np.asarray(features[method], dtype=np.float64)[rows], clusters, nearest, seed)
            shown = [(share, rows[members], rows[near]) for share, members, near in found]
            tables += _draw(panels[down, across], images, shown, marks, hidden_classes, nearest, method, name)
            if down == 0:
                panels[down, across].set_title(style.look(method).label)
        panels[down, 0].set_ylabel(style.verbatim(name))
    width = style.WIDTHS[2] / len(methods) - (1.15 if marks is not None else 0.45)  # inches left for the images, about
    pitch = width / nearest * (images.shape[2] + GAP) / (images.shape[3] + GAP)
    figure.set_figheight(len(chosen) * (clusters * pitch + 0.1) + 0.45)
    style.note(figure, f"k-means in the class, {clusters} clusters, seed {seed}; the {nearest} images nearest to each centre")
    return figure, pd.DataFrame(
        tables, columns=["method", "class", "cluster", "share", "hidden", "hidden_share", "rank", "row"]
    )


def _clusters(x: np.ndarray, clusters: int, nearest: int, seed: int) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """(share of the images, all its rows, its rows nearest to the centre) of each cluster, the largest first."""
    from sklearn.cluster import KMeans

    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    count = min(clusters, len(np.unique(x, axis=0)))
    if count == 0:
        return []
    fitted = KMeans(count, n_init=STARTS, random_state=seed).fit(x)
    distance, found = fitted.transform(x), []
    for cluster in np.argsort(-np.bincount(fitted.labels_, minlength=count), kind="stable"):
        members = np.flatnonzero(fitted.labels_ == cluster)
        near = members[np.argsort(distance[members, cluster], kind="stable")][:nearest]
        found.append((len(members) / len(x), members, near))
    return found


def _draw(
    axes: Axes,
    images: np.ndarray,
    shown: list[tuple[float, np.ndarray, np.ndarray]],
    marks: np.ndarray | None,
    names: Sequence[str],
    nearest: int,
    method: str,
    of: str,
) -> list[dict]:
    height, width = images.shape[2] + GAP, images.shape[3] + GAP
    sheet = np.full((max(len(shown), 1) * height - GAP, nearest * width - GAP, 3), 255, dtype=np.uint8)
    data, ticks = [], []
    for y, (share, members, near) in enumerate(shown):
        label, pure = _most(marks[members], names) if marks is not None else ("", np.nan)
        ticks.append(f"{share:.0%}" + (f": {style.verbatim(label)} {pure:.0%}" if label else ""))
        for x, row in enumerate(near):
            sheet[y * height : (y + 1) * height - GAP, x * width : (x + 1) * width - GAP] = images[row].transpose(1, 2, 0)
            at = {"method": method, "class": of, "cluster": y, "share": share, "hidden": label, "hidden_share": pure}
            data.append(at | {"rank": x, "row": int(row)})
    axes.imshow(sheet, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([(y + 0.5) * height - GAP / 2 for y in range(len(shown))], [text.replace("%", " %") for text in ticks])
    axes.yaxis.tick_right()
    axes.tick_params(length=0, pad=2)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return data


def _most(marks: np.ndarray, names: Sequence[str]) -> tuple[str, float]:
    """The most frequent hidden label and its share of those that have one."""
    known = marks[marks >= 0]
    if len(known) == 0:
        return "", np.nan
    counts = np.bincount(known, minlength=len(names))
    return names[int(counts.argmax())], float(counts.max() / len(known))
