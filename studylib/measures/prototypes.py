"""Class prototypes, means of features or sums of a bank, and how near learned class weights are to them (t-ReX)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from studylib.errors import InputError
from studylib.measures.stream import Rows, add_by_class, class_counts, labelled_chunks


def prototypes(features: Rows, labels: Tensor, num_classes: int, *, normalise: bool = False) -> Tensor:
    """Unit vectors (C, d) float64 of features or bank entries (N, d) with ``labels`` (N,) in 0 ... num_classes-1:

        w_c = u_c / |u_c|,   u_c = Σ_{i: y_i = c} f_i

    A sum points where the mean does, so this serves both. A class without an entry is a row of zeros, as in t-ReX.
    ``normalise``: l2-normalise each entry first; t-ReX does not.

    Source: t-ReX's memory (its Eq. 2; papers/README.md 3.1).

    Raises:
        InputError: a label out of range, nan, or features and labels that do not match.
    """
    class_counts(labels, num_classes)
    sums = None
    for values, classes in labelled_chunks(features, labels, normalise=normalise):
        sums = values.new_zeros(num_classes, values.shape[1]) if sums is None else sums
        add_by_class(sums, values, classes)
    return functional.normalize(sums, dim=1)


@dataclass(frozen=True)
class PrototypeSimilarity:
    """Mean cosines in [-1, 1]."""

    matching: float
    """of prototype and weights of the same class; nan if none can be compared"""
    others: float
    """of prototype and weights of two different classes; nan if none can be compared"""

    @property
    def margin(self) -> float:
        """matching - others: 0 if the weights know nothing of the prototypes."""
        return self.matching - self.others


def prototype_similarity(prototypes: Tensor, weights: Tensor) -> PrototypeSimilarity:
    """How near class ``weights`` (C, d) are to class ``prototypes`` (C, d), neither needs unit norm:

        matching = mean_c cos(p_c, w_c),   others = mean_{c≠k} cos(p_c, w_k)

    Rows of zeros (classes absent from a bank) have no direction: the pairs with them are left out.

    Source: t-ReX compares learned weights with prototypes over training (papers/README.md 3.5, the name only); the formula is
    ours.

    Raises:
        InputError: the two differ in shape, are not (C, d), or hold nan.
    """
    if prototypes.ndim != 2 or 0 in prototypes.shape or prototypes.shape != weights.shape:
        raise InputError("weights", (*weights.shape,), f"must be (C, d) as prototypes is {(*prototypes.shape,)}")
    for name, rows in (("prototypes", prototypes), ("weights", weights)):
        if not rows.isfinite().all():
            raise InputError(name, None, "hold nan or infinite values; find out where they come from")
    p, w = (functional.normalize(rows.detach().double(), dim=1) for rows in (prototypes, weights.to(prototypes.device)))
    cosine = (p @ w.T).clamp(-1, 1)
    comparable = torch.outer(p.any(dim=1), w.any(dim=1))
    same = torch.eye(len(p), dtype=torch.bool, device=p.device)
    return PrototypeSimilarity(float(cosine[comparable & same].mean()), float(cosine[comparable & ~same].mean()))
