"""Many small logistic regressions at once, those of few-shot episodes.

Each has its own few features X (n, d), all the same targets. W is a combination of the images, so a problem is solved
among them: features are centred, which the free intercept makes up for, and rotated into the eigenvectors of their n × n
Gram matrix. There the Hessian of cross-entropy is nowhere above C s_j / 2 (s_j: eigenvalue; Böhning 1992), a diagonal, and
accelerated gradient steps with its inverse need no line search, so that all problems can step together.
"""

import torch
from torch import Tensor

from studylib.errors import require

TOLERANCE = 1e-6  # ours: largest gradient of the mean loss at which a fit has converged; scikit-learn's is 1e-4
MAX_ITERATIONS = 5000  # ours


def fit_predict(
    support: Tensor, targets: Tensor, queries: Tensor, classes: int, *, C: float = 1.0, max_iterations: int = MAX_ITERATIONS
) -> tuple[Tensor, Tensor]:
    """Classes (E, q) of queries (E, q, d) by logistic regressions of support (E, n, d), and whether each (E,) converged.

    The objective is that of scikit-learn, C Σ CE + |W|² / 2 (for two classes |W|², its binary |w|² / 2). ``targets`` (n,)
    are in 0 ... classes-1. Computed in float64.

    Raises:
        InputError: C is not positive.
    """
    require("C", C, C > 0, "must be positive")
    support, queries = support.double(), queries.double()
    total, mean = support.square().sum((1, 2)), support.mean(1, keepdim=True)
    support, queries = support - mean, queries - mean
    spectrum, rotation = torch.linalg.eigh(support @ support.mT)  # (E, n), (E, n, n)
    # Directions without variance hold rounding only: their weights stay 0.
    floor = torch.maximum(1e-12 * support.square().sum((1, 2)), 1e-24 * total)[:, None]
    scale = torch.where(spectrum > floor, spectrum, torch.inf).rsqrt()
    length = torch.where(spectrum > floor, spectrum, 0.0).sqrt()
    seen = rotation * length[:, None]  # (E, n, n): the support images along the eigenvectors
    unseen = queries @ support.mT @ (rotation * scale[:, None])
    ones = seen.new_ones(1, 1, 1)
    seen, unseen = (torch.cat((x, ones.expand(*x.shape[:2], 1)), dim=2) for x in (seen, unseen))  # last, the intercept
    solution, converged = _minimise(seen, targets, classes, C, max_iterations)
    return (unseen @ solution).argmax(2), converged


def _minimise(design: Tensor, targets: Tensor, classes: int, C: float, max_iterations: int) -> tuple[Tensor, Tensor]:
    """Weights (E, r, M) for design (E, n, r), whose columns are orthogonal and whose last one is 1; whether they converged."""
    wanted = torch.nn.functional.one_hot(targets, classes).to(design)  # (n, M)
    penalty = design.new_full((design.shape[2], 1), 2.0 if classes == 2 else 1.0)
    penalty[-1] = 0  # the intercept is free
    bound = C / 2 * design.square().sum(1)[:, :, None] + penalty  # (E, r, 1)
    weights = design.new_zeros(len(design), design.shape[2], classes)
    point, pace = weights, design.new_ones(len(design), 1, 1)
    for _ in range(max_iterations):
        gradient = C * design.mT @ ((design @ point).softmax(2) - wanted) + penalty * point
        converged = gradient.abs().amax((1, 2)) <= TOLERANCE * C * len(targets)
        if converged.all():
            break
        moved = point - gradient / bound
        # Nesterov's momentum, started anew where it points uphill (O'Donoghue and Candès 2015).
        pace = torch.where((gradient * (moved - weights)).sum((1, 2), keepdim=True) > 0, 1.0, pace)
        faster = (1 + (1 + 4 * pace * pace).sqrt()) / 2
        point = moved + (pace - 1) / faster * (moved - weights)
        weights, pace = moved, faster
    return point, converged
