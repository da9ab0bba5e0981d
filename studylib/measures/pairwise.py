"""Squared Euclidean distances between two sets of rows, by a product."""

import torch
from torch import Tensor


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|² (n, m) of float64 rows (n, d) and (m, d).

    The error is about 1e-16 of |a_i|² + |b_j|²: rows are to be given around an origin among them. (The exact form,
    difference by difference, takes ten times as long at d = 512.)
    """
    squares = a.square().sum(1)[:, None] + b.square().sum(1)
    return torch.addmm(squares, a, b.T, alpha=-2).clamp_(min=0)
