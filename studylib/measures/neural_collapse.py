"""Neural collapse NC1: how small the variation inside classes is beside that between their means."""

import torch
from torch import Tensor

from studylib.errors import InputError
from studylib.measures.moments import class_moments
from studylib.measures.stream import CHUNK, Rows, class_counts


def neural_collapse(
    features: Rows, labels: Tensor, *, balanced: bool = True, rtol: float | None = None, chunk: int = CHUNK
) -> float:
    """NC1 of features (N, d) with ``labels`` (N,) in 0 ... C-1, one pass, float64; without unit, 0 is full collapse:

        NC1 = tr(S_W pinv(S_B)) / C
        S_W = Σ_c w_c 1/n_c Σ_{i in c} (f_i - μ_c) (f_i - μ_c)ᵀ,   S_B = Σ_c w_c (μ_c - μ) (μ_c - μ)ᵀ,   μ = Σ_c w_c μ_c

    with w_c = 1/C, or n_c/N if not ``balanced`` (the same for classes of one size, which the source assumes). Eigenvalues
    of S_B up to ``rtol`` times the largest count as 0, by default max(C, d) 2⁻⁵² as in the usual pinv. inf if all class
    means are one point, nan if moreover nothing varies inside the classes.

    Source: Papyan et al. 2020, from memory (papers.md 4).

    Raises:
        InputError: fewer than two classes, a class without an image, nan, or features and labels that do not match.
    """
    counts = class_counts(labels)
    if len(counts) < 2:
        raise InputError("labels", len(counts), "class; neural collapse needs at least two")
    if rtol is not None and not 0 <= rtol < 1:
        raise InputError("rtol", rtol, "must be in [0, 1)")
    seen = class_moments(features, labels, balanced=balanced, chunk=chunk)
    weights = torch.full_like(seen.spread, 1 / len(counts)) if balanced else seen.counts.double() / len(labels)
    offset = seen.means - seen.means[0]  # around one of them equal means differ by exactly 0
    centred = (offset - weights @ offset) * weights.sqrt()[:, None]
    # pinv(S_B) = V s⁻² Vᵀ with the singular values s of the weighted means: S_B itself is never formed.
    _, s, v = torch.linalg.svd(centred, full_matrices=False)
    kept = s.square() > (max(centred.shape) * torch.finfo(s.dtype).eps if rtol is None else rtol) * s[0].square()
    if not kept.any():
        return float("inf") if float(seen.within.trace()) > 0 else float("nan")
    variance = ((v[kept] @ seen.within) * v[kept]).sum(1).clamp(min=0)
    return float((variance / s[kept].square()).sum()) / len(counts)
