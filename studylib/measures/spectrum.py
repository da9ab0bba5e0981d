"""How many directions features use: singular values, effective rank and coding length, from one d x d matrix."""

import torch
from torch import Tensor

from studylib.measures.moments import Moments, as_moments
from studylib.measures.stream import Rows

EPSILON = 0.5  # ours: t-ReX's ε is unknown


def singular_values(features: Rows | Moments, *, centre: bool = False) -> Tensor:
    """σ / σ_1 (min(N, d),) float64, descending, of features X (N, d), from the eigenvalues σ² of XᵀX.

    Where σ² is not above d 2⁻⁵² σ_1² (σ about 1e-6 σ_1) the matrix XᵀX cannot tell it from 0, and it is 0. nan if all are 0.
    ``features`` may be their `Moments`, to share one pass.

    Args:
        centre: subtract the mean.

    Source: t-ReX shows a normalised spectrum (papers/README.md 3.5); by what, and whether centred, is unknown.

    Raises:
        InputError: nan, or features that are not (N, d).
    """
    sigma = _sigma(as_moments(features), centre)
    return sigma / sigma[0]


def effective_rank(features: Rows | Moments, *, centre: bool = False) -> float:
    """exp(H) in [1, min(N, d)], H = -Σ_k p_k ln p_k, p_k = σ_k / Σ_l σ_l. nan if all σ are 0.

    Source: Roy & Vetterli 2007. Input, ``centre`` and errors as in `singular_values`.
    """
    sigma = _sigma(as_moments(features), centre)
    return float(torch.special.entr(sigma / sigma.sum()).sum().exp())


def coding_length(features: Rows | Moments) -> float:
    """R in nats of l2-normalised features X (N, d): what one image takes when coded up to a mean squared error ε²:

        R = 1/2 log det(I + d / (N ε²) XᵀX),   ε = `EPSILON`

    Source: the rate of Yu et al. 2020 as t-ReX uses it, on l2-normalised features (a recollection, papers/README.md 3.5); ε and
    whether the total of all images is meant are unknown. ``features`` may be their `Moments`, l2-normalised.

    Raises:
        InputError: nan, features that are not (N, d), or moments of features that were not l2-normalised.
    """
    moments = as_moments(features, normalise=True)
    squares = _eigenvalues(moments.gram)
    return float(torch.log1p(len(squares) / (moments.count * EPSILON**2) * squares).sum()) / 2


def _sigma(moments: Moments, centre: bool) -> Tensor:
    """σ (min(N, d),) in units of the features, descending."""
    squares = _eigenvalues(moments.scatter if centre else moments.gram)
    sigma = torch.where(squares > len(squares) * torch.finfo(squares.dtype).eps * squares[0], squares, 0).sqrt()
    return sigma[: min(moments.count, len(sigma))]


def _eigenvalues(matrix: Tensor) -> Tensor:
    """Of a positive semi-definite matrix, descending."""
    return torch.linalg.eigvalsh(matrix).clamp(min=0).flip(0)
