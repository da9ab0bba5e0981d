"""Modes inside a class: how many clusters its images make, and whether these are the differences the labels hid (LOOK)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from studylib.errors import InputError, choose
from studylib.measures.stream import Rows, check_rows, class_counts, take

LARGEST = 8  # ours: clusters tried up to this many
REFERENCES = 9  # ours: samples of one Gaussian that a class is compared with, from one start each: this errs towards one mode
STARTS = 5  # ours: k-means starts per class and number of clusters


@dataclass(frozen=True)
class Modes:
    """Means over the classes that could be clustered; nan where none could."""

    number: float
    """clusters per class; 1 for a class of equal images, and for one that is no more clustered than one Gaussian"""
    hidden: float
    """hidden labels per class, what ``number`` should be"""
    nmi: float
    """normalised mutual information (arithmetic mean of the entropies) of clusters and hidden labels; 1: equal. Unrelated ones
    have more than 0, the more the smaller the class: `ari` is corrected for that"""
    ari: float
    """adjusted Rand index of clusters and hidden labels; 0: chance, 1: equal"""
    silhouette: float
    """of the clusters, in [-1, 1]; over classes of two or more clusters"""
    hidden_silhouette: float
    """of the hidden labels themselves: whether they are clusters, whatever k-means finds"""
    classes: int
    """how many classes the means are over"""


def find_modes(features: Rows, labels: Tensor, hidden: Tensor, *, clusters: str = "hidden") -> Modes:
    """Within-class k-means of l2-normalised features (N, d), ``labels`` (N,) in 0 ... C-1, scored against ``hidden`` labels
    (N,), mean over classes. Hidden labels (letter case, typeface, the fine class inside a coarse one) are any integers.

    Never are there more clusters than there are different images, nor as many as images. Left out of the means: classes of
    fewer than three images and, with ``clusters="hidden"``, of one hidden label. A class of equal images is one cluster: NMI
    and ARI are 0 there (1 if it has one hidden label). One class at a time is in memory.

    Args:
        clusters: the number in a class, either that of its ``hidden`` labels, or the one of 2 ... `LARGEST` with the best
            ``silhouette`` (of equal ones the smallest). It is 1 where that silhouette is no larger than the best of
            `REFERENCES` samples of one Gaussian with the class's mean and covariance, clustered alike: even one
            Gaussian has positive silhouettes.

    Source: ours, for LOOK's Figure 1, where classes show several modes (papers/README.md 1.3); the comparison with one
    cluster is the gap statistic's idea (Tibshirani et al. 2001); scikit-learn clusters and scores.

    Raises:
        InputError: hidden labels of another length, a class without an image, nan, or features that do not match.
    """
    choose("clusters", clusters, ("hidden", "silhouette"))
    check_rows(features, labels)
    counts = class_counts(labels)
    if hidden.shape != labels.shape or hidden.is_floating_point():
        raise InputError("hidden", (*hidden.shape,), f"must be integers {(*labels.shape,)}, one per image")
    scores, generator = [], np.random.default_rng(0)
    for rows in labels.argsort(stable=True).split(counts.tolist()):
        hidden_of_class = hidden.to(rows.device)[rows].unique(return_inverse=True)[1].cpu().numpy()
        number = int(hidden_of_class.max()) + 1 if clusters == "hidden" else None
        if len(rows) >= 3 and number != 1:
            points = take(features, rows, normalise=True).cpu().numpy()
            scores.append(_class_modes(points, hidden_of_class, number, generator))
    columns = np.array(scores, dtype=np.float64).reshape(len(scores), 6).T
    return Modes(*(_mean(column) for column in columns), classes=len(scores))


def _class_modes(
    points: np.ndarray, hidden: np.ndarray, number: int | None, generator: np.random.Generator
) -> tuple[float, ...]:
    """The six means of `Modes` for one class, by ``number`` clusters or (None) by that of the best silhouette."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    most = min(len(np.unique(points, axis=0)), len(points) - 1)
    numbers = range(2, min(LARGEST, most) + 1) if number is None else [min(number, most)]
    best, silhouette = _best(points, numbers)
    if number is None and not silhouette > _of_one_cluster(points, numbers, generator):
        best, silhouette = np.zeros_like(best), float("nan")
    nmi, ari = normalized_mutual_info_score(hidden, best), adjusted_rand_score(hidden, best)
    return len(np.unique(best)), hidden.max() + 1, nmi, ari, silhouette, _silhouette(points, hidden)


def _best(points: np.ndarray, numbers: Iterable[int], starts: int = STARTS) -> tuple[np.ndarray, float]:
    """Clusters (N,) with the best silhouette of those of ``numbers``, and that silhouette; one cluster has none."""
    best, silhouette = np.zeros(len(points), dtype=np.int64), float("nan")
    for k in [k for k in numbers if k > 1]:
        groups = _kmeans(points, k, starts)
        score = _silhouette(points, groups)
        if not silhouette >= score:
            best, silhouette = groups, score
    return best, silhouette


def _of_one_cluster(points: np.ndarray, numbers: Iterable[int], generator: np.random.Generator) -> float:
    """The best silhouette that samples of one Gaussian with the mean and covariance of ``points``, normalised as these are,
    reach."""
    centre, found = points.mean(0), []
    for _ in range(REFERENCES):
        weights = generator.standard_normal((len(points), len(points))) / math.sqrt(len(points) - 1)
        sample = centre + weights @ (points - centre)
        found.append(_best(sample / np.linalg.norm(sample, axis=1, keepdims=True), numbers, starts=1)[1])
    return max(found)


def _kmeans(points: np.ndarray, k: int, starts: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=starts, random_state=0).fit_predict(points)


def _silhouette(points: np.ndarray, groups: np.ndarray) -> float:
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(points, groups)) if 1 < len(np.unique(groups)) < len(points) else float("nan")


def _mean(values: np.ndarray) -> float:
    known = torch.from_numpy(values[~np.isnan(values)])
    return float(known.mean()) if len(known) else float("nan")
