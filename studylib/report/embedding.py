"""t-SNE of features, side by side: colour is the class, the marker another label that training did not see."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studylib.data import ImageSet
from studylib.errors import InputError, require
from studylib.report import style

MOST = 12  # ours: colours, and markers, that can be told apart


def class_embedding(
    features: Mapping[str, np.ndarray], *, images: ImageSet, classes: int = 8, hidden: str = "case"
) -> tuple[Figure, pd.DataFrame]:
    """`embedding` of the held-out images of the first ``classes`` classes of a data set.

    Args:
        features: method -> (N, d), of all held-out images.
        hidden: name of the other label that markers show, where the set has it.
    """
    test = images.test
    rows = (test.labels < classes).nonzero()[:, 0]
    marks = {"hidden": test.hidden[hidden][0][rows], "hidden_classes": test.hidden[hidden][1]} if hidden in test.hidden else {}
    return embedding({method: x[rows] for method, x in features.items()}, test.labels[rows], test.classes[:classes], **marks)


def embedding(
    features: Mapping[str, np.ndarray],
    labels: Sequence[int],
    classes: Sequence[str],
    *,
    hidden: Sequence[int] | None = None,
    hidden_classes: Sequence[str] = (),
    perplexity: float = 30.0,
    seed: int = 0,
) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) with a panel per method: scikit-learn's t-SNE of its features (N, d), each fitted on its own.

    Distances and sizes of clusters mean little in t-SNE; a measure should say what the picture suggests.

    Args:
        labels: (N,) index into ``classes``, the colour.
        hidden: (N,) index into ``hidden_classes``, the marker.

    Raises:
        InputError: more than twelve classes or hidden classes, lengths that differ, or no more rows than ``perplexity``.
    """
    from sklearn.manifold import TSNE

    labels = np.asarray(labels)
    marks = np.zeros(len(labels), dtype=int) if hidden is None else np.asarray(hidden)
    for field, names, values in (("classes", classes, labels), ("hidden_classes", hidden_classes, marks)):
        require(field, len(names), len(names) <= MOST, f"at most {MOST} can be told apart; select some")
        if len(values) != len(labels) or (len(names) and values.max() >= len(names)):
            raise InputError(field, len(names), "needs one label per image, each with a name")
    for method, x in features.items():
        fix = f"need {len(labels)} rows, more than perplexity {perplexity:g}"
        require("features", f"{method}: {len(x)} rows", len(x) == len(labels) and 0 < perplexity < len(labels), fix)
    figure = style.canvas(1 if len(features) == 1 else 2, 3.0)
    axes = figure.subplots(1, len(features), squeeze=False).ravel()
    tables = []
    for panel, method in zip(axes, style.ordered(features), strict=True):
        x = np.asarray(features[method], dtype=np.float32)
        place = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(x)
        _draw(panel, place, labels, marks)
        panel.set_title(style.look(method).label)
        shown = {"class": [classes[label] for label in labels]}
        if hidden is not None:
            shown["hidden"] = [hidden_classes[mark] for mark in marks]
        tables.append(pd.DataFrame({"method": method, "x": place[:, 0], "y": place[:, 1], **shown}))
    _legend(figure, classes, hidden_classes if hidden is not None else ())
    style.note(figure, f"t-SNE, {len(labels)} images, perplexity {perplexity:g}, seed {seed}")
    return figure, pd.concat(tables, ignore_index=True)


def _draw(axes: Axes, place: np.ndarray, labels: np.ndarray, marks: np.ndarray) -> None:
    for label in np.unique(labels):
        for mark in np.unique(marks):
            x, y = place[(labels == label) & (marks == mark)].T
            kept = {
                "s": 9,
                "alpha": 0.8,
                "linewidths": 0,
                "rasterized": len(place) > 5000,
            }  # ours: a PDF of more points is slow
            axes.scatter(x, y, color=style.CLASS_COLOURS[label], marker=style.CLASS_MARKERS[mark], **kept)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("0.8")


def _legend(figure: Figure, classes: Sequence[str], hidden: Sequence[str]) -> None:
    kept = {"linestyle": "none", "markersize": 4.5, "markeredgewidth": 0}
    handles = [
        Line2D([], [], color=style.CLASS_COLOURS[i], marker="o", label=style.verbatim(name), **kept)
        for i, name in enumerate(classes)
    ]
    handles += [
        Line2D([], [], color="0.35", marker=style.CLASS_MARKERS[i], label=style.verbatim(name), **kept)
        for i, name in enumerate(hidden)
    ]
    figure.legend(handles=handles, loc="outside right center", handletextpad=0.2)
