"""Feature redundancy R: how much the dimensions of a feature repeat each other (SL-MLP)."""

from studylib.errors import InputError
from studylib.measures.moments import Moments, as_moments
from studylib.measures.stream import CHUNK, Rows


def redundancy(features: Rows | Moments, *, include_diagonal: bool = True, chunk: int = CHUNK) -> float:
    """R in [0, 1] of features (N, d), with ρ the Pearson correlation over images, accumulated in float64:

        R = 1/d² Σ_a Σ_b |ρ(f_a, f_b)|,   without the diagonal: R = 1/(d (d-1)) Σ_a Σ_{b≠a} |ρ(f_a, f_b)|

    A dimension that is the same for every image has no correlation; it is left out, and d counts the others, so that
    dying dimensions do not look like less redundancy. nan if none remains (or only one, without the diagonal).

    Source: a recollection of SL-MLP, diagonal included (papers.md 2.3). ``features`` may be their `Moments`, to share a pass.

    Raises:
        InputError: features are not (N, d) with N of two or more, or hold nan.
    """
    seen = as_moments(features, chunk=chunk)
    if seen.count < 2:
        raise InputError("features", (seen.count, len(seen.mean)), "must be (N, d) with at least two images")
    products = seen.scatter
    deviation = products.diagonal().sqrt()
    live = deviation > 0
    count = int(live.sum())
    if count < (1 if include_diagonal else 2):
        return float("nan")
    correlation = (products[live][:, live] / deviation[live] / deviation[live, None]).abs().clamp(max=1)
    if include_diagonal:
        return float(correlation.mean())
    return float((correlation.sum() - correlation.diagonal().sum()) / (count * (count - 1)))
