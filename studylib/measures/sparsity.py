"""Sparsity: how many dimensions of a feature vector are zero, or nearly (t-ReX)."""

from studylib.errors import InputError
from studylib.measures.stream import CHUNK, Rows, chunks

THRESHOLD = 1e-5  # ours: t-ReX's threshold is unknown


def sparsity(
    features: Rows, *, threshold: float = THRESHOLD, relative: bool = False, normalise: bool = False, chunk: int = CHUNK
) -> float:
    """Share in [0, 1] of near-zero dimensions of features (N, d), mean over images; 1 is all zero:

        S = 1/N Σ_i 1/d #{a : |f_ia| ≤ t},   ``relative``: |f_ia| ≤ t max_b |f_ib|

    ``threshold``: t, in units of the features (0: exact zeros) or, if relative, a share of the largest magnitude of the
    vector. ``normalise``: l2-normalise first, which matters for an absolute t only.

    Source: a recollection of t-ReX (papers.md 3.5); threshold and normalisation are unknown.

    Raises:
        InputError: t is negative, infinite, or, if relative, not below 1; nan, or features that are not (N, d).
    """
    if not 0 <= threshold < (1 if relative else float("inf")):
        raise InputError("threshold", threshold, "must be 0 or more, finite, and below 1 if relative")
    zeros, rows = 0.0, 0
    for values in chunks(features, normalise=normalise, chunk=chunk):
        size = values.abs()
        bound = threshold * size.amax(dim=1, keepdim=True) if relative else threshold
        zeros += float((size <= bound).double().mean(1).sum())
        rows += len(values)
    return zeros / rows
