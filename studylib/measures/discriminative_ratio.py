"""Discriminative ratio φ: how far classes are from each other, relative to how far images are from their class (SL-MLP)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from studylib.errors import InputError
from studylib.measures.stream import Rows, add_by_class, check_rows, class_counts, first_of_each_class, labelled_chunks, take


@dataclass(frozen=True)
class DiscriminativeRatio:
    """φ = inter / intra, and its parts in units of the features, squared if so asked."""

    phi: float
    """inf if every image sits on its class centre (intra = 0), nan if moreover all centres are one point"""
    inter: float
    intra: float


def class_centres(features: Rows, labels: Tensor, *, normalise: bool = False) -> Tensor:
    """Means (C, d) float64 of the features (N, d) of each class of ``labels`` (N,), which are 0 ... C-1.

    Args:
        normalise: l2-normalise each image's features first (the means are not normalised again).

    Raises:
        InputError: a class has no image, nan, or features and labels do not match.
    """
    check_rows(features, labels)
    # Sums are taken around one image of each class, so that identical images have exactly themselves as their mean.
    anchors = take(features, first_of_each_class(labels), normalise=normalise)
    sums = torch.zeros_like(anchors)
    for values, classes in labelled_chunks(features, labels, normalise=normalise):
        add_by_class(sums, values - anchors[classes], classes)
    return anchors + sums / class_counts(labels)[:, None]


def discriminative_ratio(
    features: Rows, labels: Tensor, *, squared: bool = True, normalise: bool = False
) -> DiscriminativeRatio:
    """φ of features (N, d) with ``labels`` (N,) in 0 ... C-1, accumulated in float64:

        φ = D_inter / D_intra
        D_inter = 1 / (C (C-1)) Σ_j Σ_{k≠j} |μ_j - μ_k|²,   D_intra = 1/C Σ_j 1/|S_j| Σ_{i∈S_j} |f_i - μ_j|²

    Source: the name is SL-MLP's; the formula is a recollection (papers/README.md 2.3). Whether distances are squared
    (``squared``) and features l2-normalised first (``normalise``) is unknown: `studylib.evaluation.measure` sweeps both.

    Raises:
        InputError: fewer than two classes, a class without an image, nan, or features and labels that do not match.
    """
    check_rows(features, labels)
    counts = class_counts(labels)
    if len(counts) < 2:
        raise InputError("labels", len(counts), "class; a discriminative ratio needs at least two")
    power = 2 if squared else 1
    centres = class_centres(features, labels, normalise=normalise)
    inter = sum(float(_distances(part, centres).pow(power).sum()) for part in centres.split(256))
    inter /= len(counts) * (len(counts) - 1)
    sums = centres.new_zeros(len(counts))
    for values, classes in labelled_chunks(features, labels, normalise=normalise):
        distance = (values - centres[classes]).norm(dim=1).pow(power)
        add_by_class(sums[:, None], distance[:, None], classes)
    intra = float((sums / counts).mean())
    phi = inter / intra if intra > 0 else float("inf") if inter > 0 else float("nan")
    return DiscriminativeRatio(phi, inter, intra)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # the product form loses close points
