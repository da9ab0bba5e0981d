"""Multinomial logistic regression for a whole grid of regularisation values at once.

For every C it minimises scikit-learn's objective  F(W, b) = C sum_i CE(y_i, W x_i + b) + |W|^2 / 2  by L-BFGS. It is
fast because the problem is turned into one that is easy: features are centred (so that the intercept decouples) and
rotated into the eigenvectors of their covariance, where C p(1-p) s_j + 1 (s_j: eigenvalue, p(1-p): mean over the
images, per class) is a good diagonal approximation of the Hessian for every C. Logits are linear in the step, so a line
search needs no product with the features: an iteration costs two of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from studylib.data.splits import stratified_split
from studylib.errors import InputError
from studylib.transfer.protocols import LinearPath

MEMORY = 10  # pairs of L-BFGS, as scikit-learn's (SciPy's default)


@dataclass(frozen=True)
class Path:
    """Solutions for K values of C: logits of x (d,) are x @ weights[k] + bias[k]."""

    weights: Tensor
    """(K, d, classes)"""
    bias: Tensor
    """(K, classes); -inf for a class without a training image"""
    objective: Tensor
    """(K,) float64, F at the solution"""
    converged: Tensor
    """(K,) bool"""
    iterations: Tensor
    """(K,) int64"""


@dataclass(frozen=True)
class LinearResult:
    """Accuracies in %, and how they came about."""

    top1: float
    mean_per_class: float
    C: float
    at_grid_edge: bool
    converged: bool
    validation: tuple[tuple[float, float], ...]
    """(C, held-out top-1 in %) for each C of the grid"""


def fit_path(
    features: Tensor,
    labels: Tensor,
    grid: Tensor,
    num_classes: int,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    block: int = 1,
) -> Path:
    """Logistic regressions of features (N, d) and labels (N,) for every C of the ascending ``grid`` (K,).

    Args:
        tolerance: a C has converged when the estimated distance g' H^-1 g / 2 to the minimum, and the last decrease, are
            below this share of the objective.
        block: values of C optimised together; the next block starts from the last solution of the one before.

    Raises:
        InputError: fewer than two classes are present.
    """
    present, targets = labels.unique(return_inverse=True)
    if len(present) < 2:
        raise InputError("labels", len(present), "class(es) present; a classifier needs at least two")
    mean = features.mean(0)
    centred = features - mean
    spectrum, rotation = torch.linalg.eigh((centred.T @ centred).double())
    spectrum, rotation = spectrum.clamp_min(0), rotation.to(features.dtype)
    design = torch.cat((centred @ rotation, torch.ones_like(centred[:, :1])), dim=1)  # (N, d + 1), the last column for b
    scale = torch.cat((spectrum, spectrum.new_tensor([float(len(labels))]))).to(features.dtype)
    start = design.new_zeros(1, design.shape[1], len(present))
    parts = []
    for some in grid.to(features.device).split(block):
        parts.append(_minimise(design, targets, scale, some, start.expand(len(some), -1, -1), tolerance, max_iterations))
        last = torch.cat([part[0] for part in parts])[-2:]
        start = last[-1:] if len(last) < 2 else 2 * last[-1:] - last[-2:-1]
    solution, objective, converged, iterations = (torch.cat(part) for part in zip(*parts, strict=True))
    weights = features.new_zeros(len(grid), features.shape[1], num_classes)
    bias = features.new_full((len(grid), num_classes), -torch.inf)
    weights[:, :, present] = rotation @ solution[:, :-1]
    bias[:, present] = solution[:, -1] - mean @ weights[:, :, present]
    return Path(weights, bias, objective, converged, iterations)


def _minimise(
    design: Tensor, targets: Tensor, scale: Tensor, grid: Tensor, start: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solutions (K, d + 1, M), objectives, convergence and iterations (K,) of K problems that share their data."""
    size = (len(grid), design.shape[1], start.shape[2])
    penalty = torch.ones_like(scale)
    penalty[-1] = 0  # the intercept is free

    def product(weights: Tensor) -> Tensor:  # (A, d + 1, M) -> logits (A, N, M), as one matrix product
        flat = design @ weights.permute(1, 0, 2).reshape(size[1], -1)
        return flat.view(len(design), len(weights), size[2]).transpose(0, 1)

    def value(logits: Tensor, weights: Tensor, C: Tensor) -> Tensor:
        top, others = _others(logits, targets)
        total = others.sum(2)
        loss = torch.where(top == 0, total.log1p(), top + ((-top).exp() + total).log())
        return C.double() * loss.double().sum(1) + 0.5 * (penalty[:, None] * weights.square()).double().sum((1, 2))

    def gradient(logits: Tensor, weights: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (A, d + 1, M) and the diagonal approximation of the Hessian, of the same shape."""
        top, p = _others(logits, targets)
        total = p.sum(2)
        p = p / ((-top).exp() + total)[:, :, None]
        own = targets.expand(len(p), -1)[:, :, None]
        missing = p.sum(2, keepdim=True)  # 1 - p_y, without its rounding
        curvature = (p * (1 - p)).mean(1)  # (A, M); the own class follows
        curvature.scatter_add_(1, targets.expand(len(p), -1), (missing * (1 - missing))[:, :, 0] / len(targets))
        residual = p.scatter_(2, own, -missing)
        back = (design.T @ residual.transpose(0, 1).reshape(len(design), -1)).view(size[1], len(weights), size[2])
        g = C[:, None, None] * back.transpose(0, 1) + penalty[:, None] * weights
        h = (C[:, None] * curvature)[:, None, :] * scale[:, None] + penalty[:, None]
        return g, h.clamp_min(1e-12 * float(h.max()))

    active = torch.arange(len(grid), device=design.device)
    solution, weights, C = start.clone(), start.clone(), grid.to(design.dtype)
    logits = product(weights)
    f = value(logits, weights, C)
    g, h = gradient(logits, weights, C)
    objective, converged = f.clone(), torch.zeros(len(grid), dtype=torch.bool, device=design.device)
    iterations = torch.zeros(len(grid), dtype=torch.int64, device=design.device)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for number in range(1, max_iterations + 1):
        direction = -_times_inverse_hessian(g, h, pairs)
        slope = (g * direction).double().sum((1, 2))
        uphill = slope >= 0
        if uphill.any():  # rounding spoilt the memory: fall back to the diagonal
            direction = torch.where(uphill[:, None, None], -g / h, direction)
            slope = (g * direction).double().sum((1, 2))
        along = product(direction)
        step = torch.ones_like(C)
        for _ in range(30):
            new_f = value(logits + step[:, None, None] * along, weights + step[:, None, None] * direction, C)
            short = new_f > f + 1e-4 * step * slope + 1e-7 * f.abs()
            if not short.any():
                break
            step = torch.where(short, step / 2, step)
        moved = step[:, None, None] * direction
        weights = weights + moved
        logits = logits + step[:, None, None] * along
        if number % 20 == 0:
            logits = product(weights)  # sums of rounded steps drift
        old_g, old_f, f = g, f, value(logits, weights, C)
        g, h = gradient(logits, weights, C)
        change = g - old_g
        curvature = (moved * change).double().sum((1, 2))
        pairs = [*pairs[-MEMORY + 1 :], (moved, change, torch.where(curvature > 0, 1 / curvature, 0.0).to(C.dtype))]
        distance = 0.5 * (g.square() / h).double().sum((1, 2))
        done = (distance <= tolerance * f.abs()) & ((old_f - f).abs() <= tolerance * f.abs())
        solution[active], objective[active], converged[active] = weights, f, done
        iterations[active] = number
        if done.all():
            break
        if done.any():
            go = ~done
            active, weights, logits, C, f, g, h = (values[go] for values in (active, weights, logits, C, f, g, h))
            pairs = [(s[go], y[go], rho[go]) for s, y, rho in pairs]
    return solution, objective, converged, iterations


def _others(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """With l the logits (A, N, M) less that of the own class: top = max(0, max l) (A, N) and exp(l - top), 0 for the own class.

    The loss is log(exp(-top) + sum) + top and 1 - p_y a ratio of sums of these: both keep their digits when they are tiny,
    which a large C turns into the whole objective.
    """
    own = targets.expand(len(logits), -1)[:, :, None]
    relative = logits - logits.gather(2, own)
    top = relative.amax(2)
    return top, (relative - top[:, :, None]).exp().scatter_(2, own, 0.0)


def _times_inverse_hessian(g: Tensor, h: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """L-BFGS's two loops, with the diagonal ``h`` as the start; a pair with rho = 0 has no effect."""
    q, steps = g, []
    for s, y, rho in reversed(pairs):
        a = rho * (s * q).sum((1, 2))
        q = q - a[:, None, None] * y
        steps.append(a)
    q = q / h
    for (s, y, rho), a in zip(pairs, reversed(steps), strict=True):
        b = rho * (y * q).sum((1, 2))
        q = q + (a - b)[:, None, None] * s
    return q


def linear_probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: LinearPath
) -> LinearResult:
    """Test accuracy of a linear classifier; C is chosen on a held-out part of the training images, equal scores for the smaller.

    ``train`` (n, d), ``test`` (m, d) and their labels. The test images are used once, at the end.
    """
    if protocol.normalise == "l2":
        train, test = functional.normalize(train, dim=1), functional.normalize(test, dim=1)
    low, high = (torch.tensor(value, dtype=torch.float64).log10() for value in (protocol.C_low, protocol.C_high))
    grid = torch.logspace(low, high, protocol.values, dtype=torch.float64).to(train.dtype)
    fit, held_out = stratified_split(train_labels, protocol.held_out, protocol.split_seed)
    path = fit_path(train[fit], train_labels[fit], grid, num_classes)
    logits = torch.einsum("nd,kdc->knc", train[held_out], path.weights) + path.bias[:, None]
    scores = 100 * (logits.argmax(2) == train_labels[held_out]).double().mean(1)
    best = int(scores.argmax())
    final = fit_path(train, train_labels, grid[best : best + 1], num_classes)
    right = (test @ final.weights[0] + final.bias[0]).argmax(1) == test_labels
    per_class = [right[test_labels == label].double().mean() for label in test_labels.unique()]
    return LinearResult(
        top1=100 * float(right.double().mean()),
        mean_per_class=100 * float(torch.stack(per_class).mean()),
        C=float(grid[best]),
        at_grid_edge=protocol.values > 1 and best in (0, protocol.values - 1),
        converged=bool(path.converged[best] and final.converged[0]),
        validation=tuple(zip(grid.tolist(), scores.tolist(), strict=True)),
    )
