"""Neural collapse NC1: how small the variation inside classes is beside that between their means."""

import torch
from torch import Tensor

from studylib.errors import InputError
from studylib.measures.moments import class_moments
from studylib.measures.stream import Rows, class_counts


def neural_collapse(features: Rows, labels: Tensor) -> float:
    """NC1 of features (N, d) with ``labels`` (N,) in 0 ... C-1, one pass, float64; without unit, 0 is full collapse:

        NC1 = tr(S_W pinv(S_B)) / C
        S_W = 1/C Σ_c 1/n_c Σ_{i in c} (f_i - μ_c) (f_i - μ_c)ᵀ,   S_B = 1/C Σ_c (μ_c - μ) (μ_c - μ)ᵀ,   μ = 1/C Σ_c μ_c

    Every class weighs the same (the source assumes classes of one size). Eigenvalues of S_B up to max(C, d) 2⁻⁵² times the
    largest count as 0, as in the usual pinv. inf if all class means are one point, nan if moreover nothing varies inside the
    classes.

    Source: Papyan et al. 2020, from memory (papers/README.md 4).

    Raises:
        InputError: fewer than two classes, a class without an image, nan, or features and labels that do not match.
    """
    counts = class_counts(labels)
    if len(counts) < 2:
        raise InputError("labels", len(counts), "class; neural collapse needs at least two")
    moments = class_moments(features, labels)
    weights = torch.full_like(moments.spread, 1 / len(counts))
    offset = moments.means - moments.means[0]  # around one of them equal means differ by exactly 0
    centred = (offset - weights @ offset) * weights.sqrt()[:, None]
    # pinv(S_B) = V s⁻² Vᵀ with the singular values s of the weighted means: S_B itself is never formed.
    _, s, v = torch.linalg.svd(centred, full_matrices=False)
    kept = s.square() > max(centred.shape) * torch.finfo(s.dtype).eps * s[0].square()
    if not kept.any():
        return float("inf") if float(moments.within.trace()) > 0 else float("nan")
    variance = ((v[kept] @ moments.within) * v[kept]).sum(1).clamp(min=0)
    return float((variance / s[kept].square()).sum()) / len(counts)
