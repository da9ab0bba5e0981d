"""Feature redundancy R: how much the dimensions of a feature repeat each other (SL-MLP)."""

from studylib.errors import InputError
from studylib.measures.moments import Moments, as_moments
from studylib.measures.stream import Rows


def redundancy(features: Rows | Moments) -> float:
    """R in [0, 1] of features (N, d), with ρ the Pearson correlation over images, accumulated in float64:

        R = 1/d² Σ_a Σ_b |ρ(f_a, f_b)|

    A dimension that is the same for every image has no correlation; it is left out, and d counts the others, so that
    dying dimensions do not look like less redundancy. nan if none remains.

    Source: a recollection of SL-MLP, diagonal included (papers/README.md 2.3). ``features`` may be their `Moments`, to share a
    pass.

    Raises:
        InputError: features are not (N, d) with N of two or more, or hold nan.
    """
    moments = as_moments(features)
    if moments.count < 2:
        raise InputError("features", (moments.count, len(moments.mean)), "must be (N, d) with at least two images")
    deviation = moments.scatter.diagonal().sqrt()
    varies = deviation > 0
    if not varies.any():
        return float("nan")
    correlation = moments.scatter[varies][:, varies] / deviation[varies] / deviation[varies, None]
    return float(correlation.abs().clamp(max=1).mean())
