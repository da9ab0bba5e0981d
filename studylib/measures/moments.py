"""Mean and scatter of features and of their classes, in one pass, float64, d x d numbers whatever N is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from studylib.errors import InputError
from studylib.measures.stream import (
    Rows,
    add_by_class,
    check_rows,
    chunks,
    class_counts,
    first_of_each_class,
    labelled_chunks,
    take,
)


@dataclass(frozen=True)
class Moments:
    """What the spectrum, the coding length, the redundancy and the Fréchet distance need of features (N, d)."""

    count: int
    """N"""
    mean: Tensor
    """μ (d,) float64"""
    scatter: Tensor
    """Σ_i (f_i - μ) (f_i - μ)ᵀ (d, d) float64"""
    normalised: bool
    """whether each row was l2-normalised first"""

    @property
    def gram(self) -> Tensor:
        """XᵀX = Σ_i f_i f_iᵀ (d, d)."""
        return self.scatter + self.count * torch.outer(self.mean, self.mean)


def moments(features: Rows, *, normalise: bool = False) -> Moments:
    """`Moments` of features (N, d), in one pass; a dimension equal in all rows has exactly no scatter.

    Chunks are centred on their own mean and merged: S = S_a + S_b + (N_a N_b / N) δδᵀ, δ = μ_b - μ_a (Chan et al., 1979).

    Raises:
        InputError: as `stream.chunks`.
    """
    first, count = None, 0
    for values in chunks(features, normalise=normalise):
        if first is None:
            first = values[0].clone()  # around it a constant dimension is exactly 0, which a rounded mean would not make it
            mean, scatter = torch.zeros_like(first), first.new_zeros(len(first), len(first))
        values = values - first
        chunk_mean = values.mean(0)
        centred = values - chunk_mean
        scatter.addmm_(centred.T, centred)
        total, shift = count + len(values), chunk_mean - mean
        scatter.addr_(shift, shift, alpha=count * len(values) / total)
        mean += shift * (len(values) / total)
        count = total
    return Moments(count, first + mean, scatter, normalise)


def as_moments(features: Rows | Moments, *, normalise: bool = False) -> Moments:
    """``features`` themselves if they are `Moments` taken with the same ``normalise``, otherwise their moments.

    Raises:
        InputError: as `moments`, or the moments were taken the other way.
    """
    if not isinstance(features, Moments):
        return moments(features, normalise=normalise)
    if features.normalised != normalise:
        raise InputError("normalise", normalise, f"but the moments were taken with normalise={features.normalised}")
    return features


@dataclass(frozen=True)
class ClassMoments:
    """Features (N, d) by class."""

    counts: Tensor
    """n_c (C,)"""
    means: Tensor
    """μ_c (C, d) float64"""
    spread: Tensor
    """1/n_c Σ_i |f_i - μ_c|² (C,) float64"""
    within: Tensor | None
    """S_W (d, d) float64: 1/C Σ_c 1/n_c Σ_i (f_i - μ_c) (f_i - μ_c)ᵀ"""


def class_moments(features: Rows, labels: Tensor, *, normalise: bool = False, scatter: bool = True) -> ClassMoments:
    """`ClassMoments` in one pass; a class of equal images has exactly no spread. Without ``scatter``, S_W is left out.

    Raises:
        InputError: as `stream.labelled_chunks` and `stream.class_counts`.
    """
    check_rows(features, labels)
    # Sums are taken around one image of each class: within a tight class far from 0 nothing cancels.
    anchors = take(features, first_of_each_class(labels), normalise=normalise)
    counts = class_counts(labels).to(anchors.device)
    weights = 1 / (len(counts) * counts.double())
    sums, squares = torch.zeros_like(anchors), anchors.new_zeros(len(counts))
    within = anchors.new_zeros(anchors.shape[1], anchors.shape[1]) if scatter else None
    for values, classes in labelled_chunks(features, labels, normalise=normalise):
        values = values - anchors[classes]
        add_by_class(sums, values, classes)
        add_by_class(squares[:, None], values.square().sum(1, keepdim=True), classes)
        if scatter:
            weighted = values * weights[classes, None].sqrt()
            within.addmm_(weighted.T, weighted)
    shift = sums / counts[:, None]
    spread = (squares / counts - shift.square().sum(1)).clamp(min=0)
    if scatter:
        weighted = shift * (weights * counts)[:, None].sqrt()
        within.addmm_(weighted.T, weighted, alpha=-1)
    return ClassMoments(counts, anchors + shift, spread, within)
