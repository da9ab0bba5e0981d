"""Accuracies in %."""

import math
from collections.abc import Sequence

from torch import Tensor


def top1(predicted: Tensor, labels: Tensor) -> float:
    """Share of images (N,) whose predicted class is theirs, in %."""
    return 100 * float((predicted == labels).double().mean())


def mean_per_class(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes present in ``labels`` (N,) of the share of their images that are predicted right, in %."""
    present, classes = labels.unique(return_inverse=True)
    right = (predicted == labels).double()
    sums = right.new_zeros(len(present)).index_add_(0, classes, right)  # sums of ones: any order gives the same
    return 100 * float((sums / classes.bincount()).mean())


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of some accuracies, and the half width of Student's 95 % interval of it (nan for a single one)."""
    from scipy import special

    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return mean, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, float(special.stdtrit(n - 1, 0.975)) * math.sqrt(variance / n)
