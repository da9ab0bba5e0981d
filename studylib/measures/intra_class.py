"""How far images of one class are from each other: t-ReX's intra-class distance and Kornblith's class separation."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from studylib.measures.moments import class_moments
from studylib.measures.pairwise import squared_distances
from studylib.measures.stream import CHUNK, Rows, check_chunk, check_rows, class_counts, take

ROUNDING = 1e-30  # a cosine distance below it is rounding: float64 unit vectors are good to 1e-16


def intra_class_distance(
    features: Tensor | np.ndarray,
    labels: Tensor,
    *,
    normalise: bool = True,
    squared: bool = False,
    include_self: bool = False,
    chunk: int = CHUNK,
) -> float:
    """Mean over classes of the mean distance of two images of the class, of features (N, d), labels (N,) in 0 ... C-1:

        D = 1/C Σ_c 1/(n_c (n_c - 1)) Σ_{i,j in c, i≠j} |f_i - f_j|,   with i = j and n_c² pairs if ``include_self``

    All pairs are computed, in float64, a block of chunk x chunk at a time; the result is good to 1e-8 of the spread of a
    class, and exactly 0 where its images are equal. A class of one image has no pair and is left out (unless
    ``include_self``, where it counts as 0); nan if no class remains. l2-normalised, D is in [0, 2].

    Source: a recollection of t-ReX (papers.md 3.5), l2-normalised and not squared; whether i = j counts is unknown.

    Raises:
        InputError: a class without an image, nan, features that do not match the labels or cannot be read in any order.
    """
    check_chunk(chunk)
    check_rows(features, labels)
    counts = class_counts(labels)
    found = []
    for rows in labels.argsort(stable=True).split(counts.tolist()):
        pairs = len(rows) * (len(rows) if include_self else len(rows) - 1)
        if pairs:
            found.append(_sum_of_distances(features, rows, normalise, squared, chunk) / pairs)
    return sum(found) / len(found) if found else float("nan")


def _sum_of_distances(features: Tensor | np.ndarray, rows: Tensor, normalise: bool, squared: bool, chunk: int) -> float:
    blocks = rows.split(chunk)
    origin, total = None, 0.0
    for i, block in enumerate(blocks):
        a = take(features, block, normalise=normalise)
        origin = a[0].clone() if origin is None else origin
        a = a - origin
        for j, other in enumerate(blocks[i:]):
            b = a if j == 0 else take(features, other, normalise=normalise) - origin
            distance = squared_distances(a, b)
            distance = distance if squared else distance.sqrt_()
            total += float(distance.fill_diagonal_(0).sum()) if j == 0 else 2 * float(distance.sum())
    return total


@dataclass(frozen=True)
class ClassSeparation:
    """R² = 1 - within / total, and its parts: mean cosine distances in [0, 2]."""

    r2: float
    """1 if classes are points, 0 if they are alike; nan if all images point the same way"""
    within: float
    total: float


def class_separation(
    features: Rows, labels: Tensor, *, include_self: bool = True, balanced: bool = True, chunk: int = CHUNK
) -> ClassSeparation:
    """R² of features (N, d) with ``labels`` (N,) in 0 ... C-1; D_jk: mean of 1 - cos(f, g) over f in class j, g in class k:

        R² = 1 - D_within / D_total,   D_within = 1/C Σ_k D_kk,   D_total = 1/C² Σ_j Σ_k D_jk

    The means over pairs follow from sums of unit vectors, so one pass is enough. A feature of zeros has cosine 0 to all.
    ``include_self``: whether D_kk counts the n_k pairs of an image with itself; if not, classes of one image have no D_kk
    and both means leave it out. ``balanced``: whether every class counts the same, or every pair of images.

    Source: Kornblith et al., "Why do better loss functions lead to less transferable features?", Eq. 11 (arXiv
    2010.16402; papers.md 4): R² is sourced; the pairs as n_k² and the mean over classes are recollections, hence options.

    Raises:
        InputError: a class without an image, nan, or features and labels that do not match.
    """
    seen = class_moments(features, labels, normalise=True, scatter=False, chunk=chunk)
    n = seen.counts.double()
    # Unit vectors: 1 - u·v = |u - v|²/2, so D is a variance. Each zero vector among them (they lack its norm) adds 1/n.
    zeros = (n * (1 - seen.spread - seen.means.square().sum(1))).round()
    own = seen.spread + zeros / n  # D_kk with self pairs
    p = torch.ones_like(n) if balanced else n
    offset = seen.means - seen.means[0]  # around one of them equal means differ by exactly 0
    spread = (offset - p @ offset / p.sum()).square().sum(1)
    pairs, total_pairs = p.square(), p.sum().square()
    total = total_pairs * (p @ (own + spread) / p.sum())  # Σ p_j p_k D_jk
    if not include_self:
        total = total - pairs @ own
        total_pairs = total_pairs - pairs.sum()
        pairs = (n > 1).double() if balanced else n * (n - 1)
        own = (n.square() * own - zeros) / (n * (n - 1)).clamp(min=1)
        total = total + pairs @ own
        total_pairs = total_pairs + pairs.sum()
    within, total = float(pairs @ own / pairs.sum()), float(total / total_pairs)
    return ClassSeparation(1 - within / total if total > ROUNDING else float("nan"), within, total)
