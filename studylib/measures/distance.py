"""Distance of two feature distributions, pre-training and evaluation set: controls for the mixtureness Π."""

import torch
from torch import Tensor

from studylib.errors import InputError
from studylib.measures import stream
from studylib.measures.moments import Moments, as_moments
from studylib.measures.pairwise import squared_distances
from studylib.measures.stream import Rows, check_rows, take

ROWS = 5000  # ours: all pairs are compared, and 10,000 rows together take a few seconds
MEDIAN_ROWS = 1000  # ours: half a million distances fix a median


def frechet_distance(a: Rows | Moments, b: Rows | Moments) -> float:
    """Fréchet distance, squared (in squared units of the features), of features (N, d) and (M, d) taken as two Gaussians:

        |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½),   covariances with N - 1

    One pass over each. Either may be its `Moments`.

    Source: Heusel et al. 2017, on the features at hand in place of Inception's. tr (Σ_a Σ_b)^½ is computed as the sum of the
    singular values of Σ_a^½ Σ_b^½, which needs no square root of a matrix that is not symmetric.

    Raises:
        InputError: fewer than two rows in a set, different widths, nan, or features that are not (N, d).
    """
    a, b = as_moments(a), as_moments(b)
    _same_width(len(a.mean), len(b.mean))
    for name, one in (("a", a), ("b", b)):
        if one.count < 2:
            raise InputError(name, one.count, "row; a covariance needs at least two")
    first, second = (one.scatter / (one.count - 1) for one in (a, b))
    cross = torch.linalg.svdvals(_root(first) @ _root(second)).sum()
    spread = first.trace() + second.trace() - 2 * cross
    return float((a.mean - b.mean).square().sum() + spread.clamp(min=0))


def squared_mmd(a: Rows, b: Rows) -> float:
    """Squared maximum mean discrepancy of features (N, d) and (M, d) under the kernel k(x, y) = exp(-|x - y|² / (2 h²)):

        MMD² = mean k(a_i, a_j) + mean k(b_i, b_j) - 2 mean k(a_i, b_j)

    i = j is left out of the first two means (the unbiased estimate), so that the value may be below 0. The bandwidth h is
    the (lower) median distance of two rows of a seeded sample of 500 rows of each set; nan if that is 0. Time grows with the
    square of the rows: at most `ROWS` of each set, drawn by a fixed seed, are compared, a block at a time.

    Source: Gretton et al. 2012, Eqs. 3 and 5; kernel and median heuristic are usual, the samples ours.

    Raises:
        InputError: a set of one row, different widths, nan, or features that are not (N, d).
    """
    sizes = check_rows(a), check_rows(b)
    _same_width(a.shape[1], b.shape[1])
    if min(sizes) < 2:
        raise InputError("ab"[sizes.index(min(sizes))], 1, "row; the unbiased estimate needs at least two")
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(size, generator=generator) for size in sizes]
    samples = [take(features, order[: MEDIAN_ROWS // 2]) for features, order in zip((a, b), orders, strict=True)]
    pool = torch.cat([sample.to(samples[0].device) for sample in samples])
    origin = pool[0].clone()  # around one of the rows, equal rows of a tight set are at distance 0
    bandwidth = float(torch.nn.functional.pdist(pool).median())
    if bandwidth == 0:
        return float("nan")
    blocks = [
        [(features, part) for part in order[:ROWS].sort().values.split(stream.CHUNK)]
        for features, order in zip((a, b), orders, strict=True)
    ]

    def read(block: tuple[Rows, Tensor]) -> Tensor:
        return take(*block).to(origin.device) - origin

    counts = [min(size, ROWS) for size in sizes]
    within = [(_kernel_sum(part, None, read, bandwidth) - n) / (n * (n - 1)) for part, n in zip(blocks, counts, strict=True)]
    return sum(within) - 2 * _kernel_sum(*blocks, read, bandwidth) / (counts[0] * counts[1])


def _kernel_sum(left: list, right: list | None, read, bandwidth: float) -> float:
    """Σ k over all pairs of two sets of blocks, or of one set with itself (``right`` None), its diagonal exactly 1."""
    total = 0.0
    for i, block in enumerate(left):
        x = read(block)
        for j, other in enumerate(left[i:] if right is None else right):
            same = right is None and j == 0
            distance = squared_distances(x, x if same else read(other))
            if same:
                distance.fill_diagonal_(0)
            part = float(distance.mul_(-0.5 / bandwidth**2).exp_().sum())
            total += part if same or right is not None else 2 * part
    return total


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _same_width(a: int, b: int) -> None:
    if a != b:
        raise InputError("b", f"(M, {b})", f"must have the {a} dimensions of a")
