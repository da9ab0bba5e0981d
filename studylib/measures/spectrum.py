"""How many directions features use: singular values, effective rank and coding length, from one d x d matrix."""

import torch
from torch import Tensor

from studylib.errors import InputError, choose
from studylib.measures.moments import Moments, as_moments
from studylib.measures.stream import CHUNK, Rows

EPSILON = 0.5  # ours: t-ReX's ε is unknown


def singular_values(
    features: Rows | Moments,
    *,
    scale: str = "largest",
    normalise: bool = False,
    centre: bool = False,
    chunk: int = CHUNK,
) -> Tensor:
    """σ (min(N, d),) float64, descending, of features X (N, d), from the eigenvalues σ² of XᵀX.

    ``scale``: divided by the ``largest``, so that σ_1 = 1, by their ``sum``, or not at all (``none``, in units of the
    features). ``normalise``: l2-normalise rows first; ``centre``: subtract the mean. Where σ² is not above
    d 2⁻⁵² σ_1² (σ about 1e-6 σ_1) the matrix XᵀX cannot tell it from 0, and it is 0. nan if all are 0, unless ``none``.

    Source: t-ReX shows a normalised spectrum (papers.md 3.5); by what, and whether centred, is unknown. ``features`` may
    be their `Moments`, to share one pass.

    Raises:
        InputError: an unknown scale, nan, or features that are not (N, d).
    """
    choose("scale", scale, ("largest", "sum", "none"))
    seen = as_moments(features, normalise=normalise, chunk=chunk)
    square = _eigenvalues(seen, centre)
    sigma = torch.where(square > len(square) * torch.finfo(square.dtype).eps * square[0], square, 0).sqrt()
    sigma = sigma[: min(seen.count, len(sigma))]
    return sigma if scale == "none" else sigma / (sigma[0] if scale == "largest" else sigma.sum())


def effective_rank(
    features: Rows | Moments, *, squared: bool = False, normalise: bool = False, centre: bool = False, chunk: int = CHUNK
) -> float:
    """exp(H) in [1, min(N, d)], H = -Σ_k p_k ln p_k, p_k = σ_k / Σ_l σ_l; with ``squared``, p_k of σ_k². nan if all σ are 0.

    Source: Roy & Vetterli 2007 (not squared). Options and input as in `singular_values`.

    Raises:
        InputError: as `singular_values`.
    """
    sigma = singular_values(features, scale="none", normalise=normalise, centre=centre, chunk=chunk)
    p = sigma.square() if squared else sigma
    return float(torch.special.entr(p / p.sum()).sum().exp())


def coding_length(
    features: Rows | Moments,
    *,
    eps: float = EPSILON,
    normalise: bool = True,
    centre: bool = False,
    total: bool = False,
    chunk: int = CHUNK,
) -> float:
    """R in nats of features X (N, d): what one image takes when coded up to a mean squared error ε²:

        R = 1/2 log det(I + d / (N ε²) XᵀX),   with ``total``: (N + d) R, what the N images take together

    Source: the rate of Yu et al. 2020 as t-ReX uses it, on l2-normalised features (a recollection, papers.md 3.5); ε and
    whether the total is meant are unknown. ``features`` may be their `Moments`, taken with the same ``normalise``.

    Raises:
        InputError: ε is not positive, nan, or features that are not (N, d).
    """
    if not 0 < eps < float("inf"):
        raise InputError("eps", eps, "must be positive and finite")
    seen = as_moments(features, normalise=normalise, chunk=chunk)
    square = _eigenvalues(seen, centre)
    rate = float(torch.log1p(len(square) / (seen.count * eps**2) * square).sum()) / 2
    return (seen.count + len(square)) * rate if total else rate


def _eigenvalues(seen: Moments, centre: bool) -> Tensor:
    return torch.linalg.eigvalsh(seen.scatter if centre else seen.gram).clamp(min=0).flip(0)
