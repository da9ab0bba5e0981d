"""Mean and scatter of features and of their classes, in one pass, float64, d x d numbers whatever N is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from studylib.errors import InputError
from studylib.measures.stream import CHUNK, Rows, add_by_class, chunks, class_counts, labelled_chunks


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


def moments(features: Rows, *, normalise: bool = False, chunk: int = CHUNK) -> Moments:
    """`Moments` of features (N, d), in one pass; a dimension equal in all rows has exactly no scatter.

    Chunks are centred on their own mean and merged: S = S_a + S_b + (N_a N_b / N) δδᵀ, δ = μ_b - μ_a (Chan et al., 1979).

    Raises:
        InputError: as `stream.chunks`.
    """
    first, count = None, 0
    for values in chunks(features, normalise=normalise, chunk=chunk):
        if first is None:
            first = values[0].clone()  # around it a constant dimension is exactly 0, which a rounded mean would not make it
            mean, scatter = torch.zeros_like(first), first.new_zeros(len(first), len(first))
        values = values - first
        own = values.mean(0)
        centred = values - own
        scatter.addmm_(centred.T, centred)
        total, shift = count + len(values), own - mean
        scatter.addr_(shift, shift, alpha=count * len(values) / total)
        mean += shift * (len(values) / total)
        count = total
    return Moments(count, first + mean, scatter, normalise)


def as_moments(features: Rows | Moments, *, normalise: bool = False, chunk: int = CHUNK) -> Moments:
    """``features`` themselves if they are `Moments` taken with the same ``normalise``, otherwise their moments.

    Raises:
        InputError: as `moments`, or the moments were taken the other way.
    """
    if not isinstance(features, Moments):
        return moments(features, normalise=normalise, chunk=chunk)
    if features.normalised != normalise:
        raise InputError("normalise", normalise, f"but the moments were taken with normalise={features.normalised}")
    return features


@dataclass(frozen=True)
class ClassMoments:
    """Features (N, d) seen by class."""

    counts: Tensor
    """n_c (C,)"""
    means: Tensor
    """μ_c (C, d) float64"""
    spread: Tensor
    """1/n_c Σ_i |f_i - μ_c|² (C,) float64"""
    within: Tensor | None
    """S_W (d, d) float64: Σ_c w_c 1/n_c Σ_i (f_i - μ_c) (f_i - μ_c)ᵀ with w_c = 1/C, or n_c/N if not balanced"""


def class_moments(
    features: Rows,
    labels: Tensor,
    *,
    normalise: bool = False,
    balanced: bool = True,
    scatter: bool = True,
    chunk: int = CHUNK,
) -> ClassMoments:
    """`ClassMoments` in one pass; a class of equal images has exactly no spread. Without ``scatter``, S_W is left out.

    Raises:
        InputError: as `stream.labelled_chunks` and `stream.class_counts`.
    """
    counts, seen, within = class_counts(labels), None, None
    for values, classes in labelled_chunks(features, labels, normalise=normalise, chunk=chunk):
        if seen is None:
            counts = counts.to(values.device)
            weights = 1 / (len(counts) * counts.double()) if balanced else torch.full_like(counts.double(), 1 / len(labels))
            # Sums are taken around one image of each class: within a tight class far from 0 nothing cancels.
            anchors = values.new_zeros(len(counts), values.shape[1])
            sums, squares, seen = torch.zeros_like(anchors), anchors.new_zeros(len(counts)), torch.zeros_like(counts).bool()
            within = values.new_zeros(values.shape[1], values.shape[1]) if scatter else None
        rows = torch.arange(len(classes), device=classes.device)
        first = torch.full_like(counts, len(classes)).scatter_reduce(0, classes, rows, "amin")
        new = (first < len(classes)) & ~seen
        anchors[new] = values[first[new]]
        seen |= new
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
