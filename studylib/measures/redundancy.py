"""Feature redundancy R: how much the dimensions of a feature repeat each other (SL-MLP)."""

from torch import Tensor

from studylib.errors import InputError

CHUNK = 4096  # ours: rows taken to float64 at a time


def redundancy(features: Tensor, *, include_diagonal: bool = True, chunk: int = CHUNK) -> float:
    """R in [0, 1] of features (N, d), with ρ the Pearson correlation over images, accumulated in float64:

        R = 1/d² Σ_a Σ_b |ρ(f_a, f_b)|,   without the diagonal: R = 1/(d (d-1)) Σ_a Σ_{b≠a} |ρ(f_a, f_b)|

    A dimension that is the same for every image has no correlation; it is left out, and d counts the others, so that
    dying dimensions do not look like less redundancy. nan if none remains (or only one, without the diagonal).

    Source: a recollection of SL-MLP, diagonal included (papers.md 2.3).

    Raises:
        InputError: features are not (N, d) with N of two or more.
    """
    if features.ndim != 2 or len(features) < 2:
        raise InputError("features", (*features.shape,), "must be (N, d) with at least two images")
    # Around the first image a constant dimension is exactly 0, which a rounded mean would not make it.
    first = features[0].double()
    mean = sum((part.double() - first).sum(0) for part in features.split(chunk)) / len(features)
    products = first.new_zeros(len(first), len(first))
    for part in features.split(chunk):
        centred = part.double() - first - mean
        products += centred.T @ centred
    deviation = products.diagonal().sqrt()
    live = deviation > 0
    count = int(live.sum())
    if count < (1 if include_diagonal else 2):
        return float("nan")
    correlation = (products[live][:, live] / deviation[live] / deviation[live, None]).abs().clamp(max=1)
    if include_diagonal:
        return float(correlation.mean())
    return float((correlation.sum() - correlation.diagonal().sum()) / (count * (count - 1)))
