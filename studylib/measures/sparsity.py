"""Sparsity: how many dimensions of a feature vector are zero, or nearly (t-ReX)."""

from studylib.measures.stream import Rows, chunks

THRESHOLD = 1e-5  # ours, in units of the features: t-ReX's threshold is unknown


def sparsity(features: Rows) -> float:
    """Share in [0, 1] of near-zero dimensions of features (N, d), mean over images; 1 is all zero:

        S = 1/N Σ_i 1/d #{a : |f_ia| ≤ t},   t = `THRESHOLD`

    Source: a recollection of t-ReX (papers/README.md 3.5); threshold and normalisation are unknown, features are taken as they
    are.

    Raises:
        InputError: nan, or features that are not (N, d).
    """
    return sum(float((values.abs() <= THRESHOLD).double().mean(1).sum()) for values in chunks(features)) / len(features)
