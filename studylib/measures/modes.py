"""Modes inside a class: how many clusters its images make, and whether these are the differences the labels hid (LOOK)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from studylib.errors import InputError, choose
from studylib.measures.stream import check_rows, class_counts, take

LARGEST = 8  # ours: clusters tried up to this many
STARTS = 5  # ours: k-means starts per class and number of clusters


@dataclass(frozen=True)
class Modes:
    """Means over the classes that could be clustered; nan where none could."""

    number: float
    """clusters per class; 1 for a class of equal images"""
    hidden: float
    """hidden labels per class, what ``number`` should be; nan without hidden labels"""
    nmi: float
    """normalised mutual information (arithmetic mean of the entropies) of clusters and hidden labels; 0: unrelated, 1: equal"""
    ari: float
    """adjusted Rand index of clusters and hidden labels; 0: chance, 1: equal"""
    silhouette: float
    """of the clusters, in [-1, 1]; over classes of two or more clusters"""
    hidden_silhouette: float
    """of the hidden labels themselves: whether they are clusters, whatever k-means finds"""
    classes: int
    """how many classes the means are over"""


def find_modes(
    features: Tensor | np.ndarray,
    labels: Tensor,
    hidden: Tensor | None = None,
    *,
    clusters: str = "hidden",
    largest: int = LARGEST,
    one_below: float = 0.0,
    normalise: bool = True,
    seed: int = 0,
    starts: int = STARTS,
) -> Modes:
    """Within-class k-means of features (N, d), ``labels`` (N,) in 0 ... C-1, scored against ``hidden`` labels (N,), mean
    over classes. Hidden labels (letter case, typeface, the fine class inside a coarse one) are any integers.

    ``clusters``: the number in a class, either that of its ``hidden`` labels, or the one of 2 ... ``largest`` with the best
    ``silhouette`` (of equal ones the smallest), but 1 if that is below ``one_below``: silhouettes do not know one cluster,
    and even a single Gaussian has positive ones. Never more than there are different images, nor all images but none.
    ``normalise``: l2-normalise first, so that distances are cosine distances.

    Left out of the means: classes of fewer than three images and, with ``clusters="hidden"``, of one hidden label. A class
    of equal images is one cluster: NMI and ARI are 0 there (1 if it has one hidden label). One class at a time is in memory.

    Source: ours, for LOOK's Figure 1, where classes show several modes (papers.md 1.3); scikit-learn clusters and scores.

    Raises:
        InputError: hidden labels missing or of another length, a class without an image, nan, largest below 2, features
            that do not match or cannot be read in any order.
    """
    choose("clusters", clusters, ("hidden", "silhouette"))
    check_rows(features, labels)
    counts = class_counts(labels)
    if clusters == "hidden" and hidden is None:
        raise InputError("hidden", None, "is needed to give the number of clusters; or set clusters='silhouette'")
    if hidden is not None and (hidden.shape != labels.shape or hidden.is_floating_point()):
        raise InputError("hidden", (*hidden.shape,), f"must be integers {(*labels.shape,)}, one per image")
    if largest < 2 or starts < 1:
        raise InputError("largest" if largest < 2 else "starts", largest if largest < 2 else starts, "is too few")
    found = []
    for rows in labels.argsort(stable=True).split(counts.tolist()):
        own = None if hidden is None else hidden.to(rows.device)[rows].unique(return_inverse=True)[1].cpu().numpy()
        asked = int(own.max()) + 1 if clusters == "hidden" else None
        if len(rows) >= 3 and asked != 1:
            points = take(features, rows, normalise=normalise).cpu().numpy()
            found.append(_class_modes(points, own, asked, largest, one_below, seed, starts))
    columns = np.array(found, dtype=np.float64).reshape(len(found), 6).T
    return Modes(*(_mean(column) for column in columns), classes=len(found))


def _class_modes(points, hidden, asked, largest, one_below, seed, starts) -> tuple[float, ...]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    most = min(len(np.unique(points, axis=0)), len(points) - 1)
    tried = range(2, min(largest, most) + 1) if asked is None else range(min(asked, most), min(asked, most) + 1)
    best, silhouette = np.zeros(len(points), dtype=np.int64), float("nan")
    for k in [k for k in tried if k > 1]:
        groups = _kmeans(points, k, seed, starts)
        score = _silhouette(points, groups)
        if not silhouette >= score:
            best, silhouette = groups, score
    if asked is None and silhouette < one_below:
        best, silhouette = np.zeros_like(best), float("nan")
    number = len(np.unique(best))
    if hidden is None:
        return (number, *[float("nan")] * 3, silhouette, float("nan"))
    nmi, ari = normalized_mutual_info_score(hidden, best), adjusted_rand_score(hidden, best)
    return number, hidden.max() + 1, nmi, ari, silhouette, _silhouette(points, hidden)


def _kmeans(points: np.ndarray, k: int, seed: int, starts: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=starts, random_state=seed).fit_predict(points)


def _silhouette(points: np.ndarray, groups: np.ndarray) -> float:
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(points, groups)) if 1 < len(np.unique(groups)) < len(points) else float("nan")


def _mean(values: np.ndarray) -> float:
    known = torch.from_numpy(values[~np.isnan(values)])
    return float(known.mean()) if len(known) else float("nan")
