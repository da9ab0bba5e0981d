"""Linear transfer: multinomial logistic regression for a grid of regularisation values, one chosen on held-out images.

For every C of the grid `fit_path` minimises scikit-learn's objective

    F(W, b) = C Σ_i CE(y_i, x_i W + b) + |W|² / 2

(for two classes |W|², which is scikit-learn's binary |w|² / 2 with w = W_1 - W_0) by L-BFGS. What makes it fast: features
are centred, so that the intercept decouples, and rotated into the eigenvectors of their covariance, where
C mean(p (1 - p)) s_j + 1 (s_j: eigenvalue; per class) is close to the diagonal of the Hessian for every C; logits are
linear along a step, so that a line search needs no product with the features and an iteration two of them, with the classes
as rows (with ten classes as columns BLAS takes four to seven times as long); each C starts where the solutions for the
smaller ones point to. One C after the other takes a quarter of the time of all C as one batch
(10,000 × 512 features, 100 classes, one core), because it needs a third of the iterations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from studylib.data.splits import stratified_split
from studylib.errors import InputError
from studylib.transfer.accuracy import mean_per_class, top1
from studylib.transfer.protocols import MAX_ITERATIONS, TOLERANCE, LinearPath

MEMORY = 10  # pairs of L-BFGS, as scikit-learn's (SciPy's default)
SHORTEST_STEP = 1e-9  # ours: a line search that comes to this has met rounding
CHUNK = 4096  # ours: rows taken to float64 at a time


@dataclass(frozen=True)
class Path:
    """Solutions for K values of C: logits of features (N, d) are features @ weights[k] + bias[k]."""

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

    def predict(self, features: Tensor) -> Tensor:
        """Classes (K, N) of features (N, d)."""
        return torch.stack([(features @ w + b).argmax(1) for w, b in zip(self.weights, self.bias, strict=True)])


@dataclass(frozen=True)
class LinearResult:
    """Accuracies on the test images in %, and how they came about."""

    top1: float
    mean_per_class: float
    """mean over the classes that have test images"""
    C: float
    at_grid_edge: bool
    """whether the best C is the first or last of the grid, so that a better one may lie outside"""
    converged: bool
    """whether the fits for all C, and the final one, reached the tolerance"""
    validation: tuple[tuple[float, float], ...]
    """(C, held-out top-1 in %) for each C of the grid"""


def linear_probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: LinearPath
) -> LinearResult:
    """Test accuracy of a linear classifier whose C is chosen on a held-out part of the training images.

    ``train`` (n, d) and ``test`` (m, d) float, labels in 0 ... num_classes-1. Of equal held-out scores the smaller C is
    taken. The classifier is then fitted to all training images, and the test images are used once.

    Raises:
        InputError: as `fit_path` and `stratified_split`.
    """
    grid = protocol.grid()
    options = {"tolerance": protocol.tolerance, "max_iterations": protocol.max_iterations}
    fit, held_out = (
        rows.to(train.device) for rows in stratified_split(train_labels.cpu(), protocol.held_out, protocol.split_seed)
    )
    seen, unseen = normalised(protocol.normalise, train[fit], train[held_out])
    path = fit_path(seen, train_labels[fit], grid, num_classes, **options)
    right = (path.predict(unseen) == train_labels[held_out]).sum(1)
    best = int(right.argmax())  # the first of equals
    seen, unseen = normalised(protocol.normalise, train, test)
    final = fit_path(seen, train_labels, grid[best : best + 1], num_classes, **options)
    predicted = final.predict(unseen)[0]
    return LinearResult(
        top1=top1(predicted, test_labels),
        mean_per_class=mean_per_class(predicted, test_labels),
        C=float(grid[best]),
        at_grid_edge=len(grid) > 1 and best in (0, len(grid) - 1),
        converged=bool(path.converged.all() and final.converged.all()),
        validation=tuple(zip(grid.tolist(), (100 * right.double() / len(held_out)).tolist(), strict=True)),
    )


def normalised(normalise: str, train: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets of features, normalised by what is known from the first."""
    if normalise == "l2":
        return functional.normalize(train, dim=1), functional.normalize(other, dim=1)
    if normalise == "standardise":
        mean, deviation = train.double().mean(0), train.double().std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)  # a constant dimension becomes 0
        return ((train - mean) / deviation).to(train.dtype), ((other - mean) / deviation).to(train.dtype)
    return train, other


def fit_path(
    features: Tensor,
    labels: Tensor,
    grid: Tensor,
    num_classes: int,
    *,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Path:
    """Logistic regressions of features (N, d) and labels (N,) for every C of the ascending ``grid`` (K,).

    Products are in the dtype of the features, sums over images and eigenvectors in float64.

    Args:
        tolerance: a C has converged when the estimated distance g' H⁻¹ g / 2 to the minimum (g: gradient, H⁻¹: L-BFGS's
            inverse Hessian) and the last decrease are both below this share of the objective. At the default the
            objective was within 1e-4 of the minimum, mostly 1e-5, wherever we compared.
        max_iterations: for each C; one that needs more is reported as not converged.

    Raises:
        InputError: fewer than two classes present, a label outside 0 ... num_classes-1, features that are not finite or
            do not match the labels, or a grid that is not positive and ascending.
    """
    _check(features, labels, grid, num_classes)
    present, targets = labels.unique(return_inverse=True)
    mean, rotation, spectrum = _principal_axes(features)
    design = torch.cat([((part.double() - mean) @ rotation).to(features.dtype) for part in features.split(CHUNK)])
    problem = _Problem(design, targets, spectrum, len(present))
    solutions: list[Tensor] = []
    found = []
    for number, C in enumerate(grid.tolist()):
        start = problem.zeros() if not solutions else solutions[-1]
        if number > 1:  # solutions are smooth in log C, so go on as from the last but one to the last
            a, b, c = grid[number - 2 : number + 1].double().log().tolist()
            start = start + (c - b) / (b - a) * (solutions[-1] - solutions[-2])
        solution, *rest = _minimise(problem, C, start, tolerance, max_iterations)
        solutions.append(solution)
        found.append(rest)
    objective, converged, iterations = zip(*found, strict=True)
    weights = features.new_zeros(len(grid), features.shape[1], num_classes)
    bias = features.new_full((len(grid), num_classes), -torch.inf)
    for number, solution in enumerate(solutions):
        w = rotation @ solution[:, :-1].T.double()
        weights[number][:, present] = w.to(features.dtype)
        bias[number, present] = (solution[:, -1].double() - mean @ w).to(features.dtype)
    return Path(weights, bias, torch.tensor(objective, dtype=torch.float64), torch.tensor(converged), torch.tensor(iterations))


def _check(features: Tensor, labels: Tensor, grid: Tensor, num_classes: int) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise InputError("features", (*features.shape,), f"must be (N, d) with N labels, not {(*labels.shape,)}")
    if len(labels) == 0 or labels.min() == labels.max():
        raise InputError("labels", labels[:1].tolist(), "the only class; a classifier needs images of at least two")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError("labels", int(labels.max()), f"must be between 0 and {num_classes - 1}")
    if not features.isfinite().all():
        raise InputError("features", None, "some are infinite or not a number")
    if len(grid) == 0 or not (grid > 0).all() or not (grid.diff() > 0).all():
        raise InputError("grid", grid.tolist(), "must be positive and ascending")


def _principal_axes(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (d,), eigenvectors (d, r) and eigenvalues (r,) of the covariance times N, float64, where these are not zero.

    W is a combination of the images, hence zero along the other directions; there are many if N < d.
    """
    mean = sum(part.double().sum(0) for part in features.split(CHUNK)) / len(features)
    products = sum((part.double() - mean).T @ (part.double() - mean) for part in features.split(CHUNK))
    spectrum, rotation = torch.linalg.eigh(products)
    live = spectrum > torch.finfo(torch.float64).eps * max(features.shape) * spectrum.max()
    return mean, rotation[:, live], spectrum[live]


class _Problem:
    """F over solutions (M, r + 1), the weights of r centred and rotated features and, last, the intercepts."""

    def __init__(self, design: Tensor, targets: Tensor, spectrum: Tensor, classes: int) -> None:
        self.design = torch.cat((design, design.new_ones(len(design), 1)), dim=1)  # (N, r + 1)
        self.own = targets[None]
        self.classes = classes
        self.scale = torch.cat((spectrum, spectrum.new_tensor([float(len(targets))]))).to(design.dtype)
        self.penalty = torch.full_like(self.scale, 2.0 if classes == 2 else 1.0)
        self.penalty[-1] = 0  # the intercept is free

    def zeros(self) -> Tensor:
        return self.design.new_zeros(self.classes, self.design.shape[1])

    def logits(self, weights: Tensor) -> Tensor:
        """Logits (M, N); linear in the weights."""
        return weights @ self.design.T

    def value(self, logits: Tensor, weights: Tensor, C: float) -> tuple[float, Tensor]:
        """F, and the residuals p - 1[y] (M, N).

        Everything is computed from the logits less that of the own class, so that losses and 1 - p_y keep their digits
        when they are tiny: a large C makes them the whole objective.
        """
        relative = logits - logits.gather(0, self.own)
        top = relative.amax(0, keepdim=True)  # at least 0, the own class
        others = relative.sub_(top).exp_().scatter_(0, self.own, 0.0)
        rest, own = others.sum(0, keepdim=True), (-top).exp()
        loss = torch.where(top == 0, rest.log1p(), top + (own + rest).log())
        residual = others.div_(own + rest)
        residual.scatter_(0, self.own, -residual.sum(0, keepdim=True))
        return C * float(loss.double().sum()) + 0.5 * float((self.penalty * weights.square()).double().sum()), residual

    def gradient(self, residual: Tensor, weights: Tensor, C: float) -> tuple[Tensor, Tensor]:
        """Gradient (M, r + 1), and the diagonal Hessian of images whose p (1 - p) do not depend on their features."""
        # The mean of p (1 - p) = |residual| - residual², for the own class and the others; norms make no copy of residuals.
        once, twice = (torch.linalg.vector_norm(residual, order, dim=1, keepdim=True) for order in (1, 2))
        hessian = C * ((once - twice.square()) / residual.shape[1]) * self.scale + self.penalty
        return C * (residual @ self.design) + self.penalty * weights, hessian.clamp_min(1e-12 * float(hessian.max()))


def _minimise(
    problem: _Problem, C: float, weights: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, float, bool, int]:
    """Solution, F there, whether it converged, and the iterations it took."""
    rounding = torch.finfo(weights.dtype).eps
    logits = problem.logits(weights)
    f, residual = problem.value(logits, weights, C)
    g, h = problem.gradient(residual, weights, C)
    pairs: list[tuple[Tensor, Tensor, float]] = []
    decrease = torch.inf
    for number in range(max_iterations):
        direction = -_times_inverse_hessian(g, h, pairs)
        slope = _dot(g, direction)
        if slope > 0:  # rounding spoilt the memory
            pairs, direction = [], -g / h
            slope = _dot(g, direction)
        if max(decrease, -0.5 * slope) <= tolerance * f:
            return weights, f, True, number
        along, step = problem.logits(direction), 1.0
        while True:
            moved = step * direction
            new_f, residual = problem.value(logits + step * along, weights + moved, C)
            if new_f <= f + 1e-4 * step * slope + rounding * f or step < SHORTEST_STEP:
                break
            step /= 2
        weights = weights + moved
        # Sums of rounded steps drift, so logits are computed afresh at times.
        logits = logits + step * along if (number + 1) % 20 else problem.logits(weights)
        decrease, old_g, f = abs(f - new_f), g, new_f
        g, h = problem.gradient(residual, weights, C)
        curvature = _dot(moved, g - old_g)
        if curvature > 0:
            pairs = [*pairs[1 - MEMORY :], (moved, g - old_g, 1 / curvature)]
    return weights, f, False, max_iterations


def _times_inverse_hessian(g: Tensor, h: Tensor, pairs: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    """L-BFGS's two loops; they start from the diagonal ``h``, scaled to the curvature met in the last step."""
    if not pairs:
        return g / h
    q, shares = g, []
    for s, y, rho in reversed(pairs):
        shares.append(rho * _dot(s, q))
        q = q - shares[-1] * y
    _, y, rho = pairs[-1]
    q = q / h / (rho * _dot(y, y / h))
    for (s, y, rho), share in zip(pairs, reversed(shares), strict=True):
        q = q + (share - rho * _dot(y, q)) * s
    return q


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).double().sum())
