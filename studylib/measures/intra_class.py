"""How far images of one class are from each other: t-ReX's intra-class distance and Kornblith's class separation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from studylib.measures import stream
from studylib.measures.moments import class_moments
from studylib.measures.pairwise import squared_distances
from studylib.measures.stream import Rows, check_rows, class_counts, take

ROUNDING = 1e-30  # a cosine distance below it is rounding: float64 unit vectors are good to 1e-16


def intra_class_distance(features: Rows, labels: Tensor) -> float:
    """Mean over classes of the mean distance of two images of the class, of features (N, d), labels (N,) in 0 ... C-1:

        D = 1/C Σ_c 1/(n_c (n_c - 1)) Σ_{i,j in c, i≠j} |f_i - f_j|,   f l2-normalised

    All pairs are computed, in float64, a block at a time; the result is good to 1e-8 of the spread of a class, and exactly 0
    where its images are equal. A class of one image has no pair and is left out; nan if no class remains. D is in [0, 2].

    Source: a recollection of t-ReX (papers/README.md 3.5), l2-normalised and not squared; that i = j does not count is ours.

    Raises:
        InputError: a class without an image, nan, or features that do not match the labels.
    """
    check_rows(features, labels)
    counts = class_counts(labels)
    rows_of_classes = labels.argsort(stable=True).split(counts.tolist())
    means = [_sum_of_distances(features, rows) / (n * (n - 1)) for rows in rows_of_classes if (n := len(rows)) > 1]
    return sum(means) / len(means) if means else float("nan")


def _sum_of_distances(features: Rows, rows: Tensor) -> float:
    blocks = rows.split(stream.CHUNK)
    origin, total = None, 0.0
    for i, block in enumerate(blocks):
        a = take(features, block, normalise=True)
        origin = a[0].clone() if origin is None else origin
        a = a - origin
        for j, other in enumerate(blocks[i:]):
            b = a if j == 0 else take(features, other, normalise=True) - origin
            distance = squared_distances(a, b).sqrt_()
            total += float(distance.fill_diagonal_(0).sum()) if j == 0 else 2 * float(distance.sum())
    return total


@dataclass(frozen=True)
class ClassSeparation:
    """R² = 1 - within / total, and its parts: mean cosine distances in [0, 2]."""

    r2: float
    """1 if classes are points, 0 if they are alike; nan if all images point the same way"""
    within: float
    total: float


def class_separation(features: Rows, labels: Tensor) -> ClassSeparation:
    """R² of features (N, d) with ``labels`` (N,) in 0 ... C-1; D_jk: mean of 1 - cos(f, g) over f in class j, g in class k:

        R² = 1 - D_within / D_total,   D_within = 1/C Σ_k D_kk,   D_total = 1/C² Σ_j Σ_k D_jk

    The means over pairs follow from sums of unit vectors, so one pass is enough. D_kk counts the n_k pairs of an image with
    itself. A feature of zeros has cosine 0 to all.

    Source: Kornblith et al., "Why do better loss functions lead to less transferable features?", Eq. 11 (arXiv
    2010.16402; papers/README.md 4): R² is sourced; the pairs as n_k² and the mean over classes are recollections.

    Raises:
        InputError: a class without an image, nan, or features and labels that do not match.
    """
    moments = class_moments(features, labels, normalise=True, scatter=False)
    n = moments.counts.double()
    # Unit vectors: 1 - u·v = |u - v|²/2, so D is a variance. Each zero vector among them (they lack its norm) adds 1/n.
    zeros = (n * (1 - moments.spread - moments.means.square().sum(1))).round()
    d_within = moments.spread + zeros / n  # D_kk
    ones = torch.ones_like(n)
    offset = moments.means - moments.means[0]  # around one of them equal means differ by exactly 0
    d_between = (offset - ones @ offset / len(n)).square().sum(1)
    within, total = (float(ones @ distances / len(n)) for distances in (d_within, d_within + d_between))
    return ClassSeparation(1 - within / total if total > ROUNDING else float("nan"), within, total)
