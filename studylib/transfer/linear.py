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

`linear_probe` looks for the best C with fits to a loose tolerance, from the smallest C on, and stops when larger ones are no
longer better. Best is the highest likelihood of held-out images: with some tens of them it tells C apart where accuracy does
not. On 13 sets and 10 trained encoders of ours that gave 0.6 % more test top-1 than the highest accuracy (standard error
0.15 %), on random weights 1.2 %.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from studylib.data.splits import stratified_split
from studylib.errors import InputError, require
from studylib.transfer.accuracy import mean_per_class, top1
from studylib.transfer.protocols import GAIN, MAX_ITERATIONS, TOLERANCE, LinearProbe

MEMORY = 10  # pairs of L-BFGS, as scikit-learn's (SciPy's default)
SHORTEST_STEP = 1e-9  # ours: a line search that comes to this has met rounding
LIVE = 1e-12  # ours: share of the largest eigenvalue below which there is only rounding
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
    """whether the fits for the C that were tried reached ``search_tolerance``, and the final one ``tolerance``"""
    validation: tuple[tuple[float, float, float], ...]
    """(C, mean held-out cross entropy, held-out top-1 in %) for each C that was tried"""


def linear_probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: LinearProbe
) -> LinearResult:
    """Test accuracy of a linear classifier whose C is chosen on a held-out part of the training images.

    ``train`` (n, d) and ``test`` (m, d) float, labels in 0 ... num_classes-1. The C of the highest held-out likelihood is
    taken, of equals the smaller one; where no likelihood is 1 % better than that of the classes' shares, the C of the highest
    accuracy. The classifier is then fitted to all training images, and the test images are used once.

    Raises:
        InputError: as `fit_path` and `stratified_split`.
    """
    grid = protocol.grid()
    _check(train, train_labels, grid, num_classes)
    train, test = _single(train), _single(test)
    fit, held_out = (
        rows.to(train.device) for rows in stratified_split(train_labels.cpu(), protocol.held_out, protocol.split_seed)
    )
    seen, unseen = normalised(protocol.normalise, train, test)
    axes = _Axes(seen)
    design = axes.place(seen)
    if protocol.normalise == "standardise":  # by what is known from the images fitted to
        seen_part, held_part = normalised(protocol.normalise, train[fit], train[held_out])
        part = _Axes(seen_part)
        fitted, held = part.place(seen_part), part.place(held_part)
    else:  # solutions do not depend on the axes, so that those of all images serve for a part of them
        fitted, held = design[fit], design[held_out]
    present, targets = train_labels.unique(return_inverse=True)
    best, fits, scores = _search(_Problem(fitted, targets[fit], len(present)), held, targets[held_out], protocol)
    start = None if protocol.normalise == "standardise" else fits[best].solution
    problem = _Problem(design, targets, len(present))
    final = next(_fits(problem, grid[best : best + 1], protocol.tolerance, protocol.max_iterations, start))
    predicted = present[(final.solution @ axes.place(unseen).T).argmax(0)]
    return LinearResult(
        top1=top1(predicted, test_labels),
        mean_per_class=mean_per_class(predicted, test_labels),
        C=float(grid[best]),
        at_grid_edge=len(grid) > 1 and best in (0, len(grid) - 1),
        converged=all(one.converged for one in (*fits, final)),
        validation=tuple((C, *score) for C, score in zip(grid.tolist(), scores, strict=False)),
    )


def choose_C(
    features: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor, num_classes: int, protocol: LinearProbe
) -> tuple[int, bool]:
    """Which C of the protocol's grid `linear_probe` would choose from fits to ``features`` (n, d), by the likelihood of
    ``held_out`` (m, d) (where that says nothing, by accuracy), and whether the fits converged. All held-out classes are among
    ``labels``.

    Raises:
        InputError: as `fit_path`.
    """
    _check(features, labels, protocol.grid(), num_classes)
    present, targets = labels.unique(return_inverse=True)
    features, held_out = _single(features), _single(held_out)
    axes = _Axes(features)
    problem = _Problem(axes.place(features), targets, len(present))
    best, fits, _ = _search(problem, axes.place(held_out), torch.searchsorted(present, held_out_labels), protocol)
    return best, all(one.converged for one in fits)


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

    Products are in the dtype of the features (at least float32), losses are summed in float64. Logits are carried
    on from one C to the next, which costs F about one part in a million for every hundred C.

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
    single = _single(features)
    axes = _Axes(single)
    fits = list(_fits(_Problem(axes.place(single), targets, len(present)), grid, tolerance, max_iterations))
    weights = features.new_zeros(len(grid), features.shape[1], num_classes)
    bias = features.new_full((len(grid), num_classes), -torch.inf)
    for number, one in enumerate(fits):
        w, b = axes.leave(one.solution)
        weights[number][:, present] = w.to(features.dtype)
        bias[number, present] = b.to(features.dtype)
    return Path(
        weights,
        bias,
        objective=torch.tensor([one.objective for one in fits], dtype=torch.float64),
        converged=torch.tensor([one.converged for one in fits]),
        iterations=torch.tensor([one.iterations for one in fits]),
    )


def _single(features: Tensor) -> Tensor:
    """``features`` in at least float32: there are no eigenvectors in half precision."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _check(features: Tensor, labels: Tensor, grid: Tensor, num_classes: int) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise InputError("features", (*features.shape,), f"must be (N, d) with N labels, not {(*labels.shape,)}")
    require("features", str(features.dtype), features.is_floating_point(), "must be floating-point numbers")
    if len(labels) == 0 or labels.min() == labels.max():
        raise InputError("labels", labels[:1].tolist(), "the only class; a classifier needs images of at least two")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError("labels", int(labels.max()), f"must be between 0 and {num_classes - 1}")
    require("features", None, features.isfinite().all(), "some are infinite or not a number")
    if len(grid) == 0 or not (grid > 0).all() or not (grid.diff() > 0).all():
        raise InputError("grid", grid.tolist(), "must be positive and ascending")


class _Axes:
    """Where problems are solved: features less their mean, along the eigenvectors of their covariance, and a 1.

    Weights are a combination of the images, so that if there are fewer images than dimensions no more directions are needed
    than images; their products, of which the eigenvectors come, are fewer too.
    """

    def __init__(self, features: Tensor) -> None:
        self.mean = sum(part.double().sum(0) for part in features.split(CHUNK)) / len(features)
        """(d,) float64"""
        if len(features) < features.shape[1]:
            centred = torch.cat(list(self._centred(features))).double()
            spectrum, vectors = torch.linalg.eigh(centred @ centred.T)
            live = spectrum > LIVE * spectrum.max()
            self.rotation = (centred.T @ (vectors[:, live] / spectrum[live].sqrt())).to(features.dtype)
        else:
            self.rotation = torch.linalg.eigh(sum(part.T @ part for part in self._centred(features)))[1]
        """(d, r)"""

    def _centred(self, features: Tensor) -> Iterator[Tensor]:
        """Chunks of rows; the difference is taken in float64, since means may be large."""
        return ((part.double() - self.mean).to(features.dtype) for part in features.split(CHUNK))

    def place(self, features: Tensor) -> Tensor:
        """Features (n, d) as (n, r + 1)."""
        along = torch.cat([part @ self.rotation for part in self._centred(features)])
        return torch.cat((along, along.new_ones(len(along), 1)), dim=1)

    def leave(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (d, M) of the features as they were, and the bias (M,), float64."""
        weights = (self.rotation @ solution[:, :-1].T).double()
        return weights, solution[:, -1].double() - self.mean @ weights


class _Problem:
    """F over solutions (M, r + 1), the weights of r centred and rotated features and, last, the intercepts."""

    def __init__(self, design: Tensor, targets: Tensor, classes: int) -> None:
        self.design = design  # (N, r + 1)
        self.own = targets[None]
        self.classes = classes
        self.scale = design.square().sum(0)
        self.penalty = torch.full_like(self.scale, 2.0 if classes == 2 else 1.0)
        self.penalty[-1] = 0  # the intercept is free

    def start(self) -> Tensor:
        """The solution for C → 0: no weights, and intercepts that give each class its share of the images.

        From intercepts of 0 the smallest C would end with some of these still missing, and be better or worse by that alone.
        """
        weights = self.design.new_zeros(self.classes, self.design.shape[1])
        weights[:, -1] = (self.own[0].bincount(minlength=self.classes) / self.own.shape[1]).log().to(weights.dtype)
        return weights

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


@dataclass(frozen=True)
class _Fit:
    solution: Tensor
    """(M, r + 1)"""
    objective: float
    converged: bool
    iterations: int


def _search(
    problem: _Problem, held_out: Tensor, targets: Tensor, protocol: LinearProbe
) -> tuple[int, list[_Fit], list[tuple[float, float]]]:
    """Number of the best C, and of each C that was tried the fit and the cross entropy and top-1 in % of ``held_out``.

    Where no C tells the held-out images 1 % better than the classes' shares do, all are tried and the highest accuracy wins:
    poor features overfit before they help, so that the likelihood would rather do without them.
    """
    fits, scores = [], []
    shares = problem.start()[:, -1]
    enough = (1 - GAIN) * float(functional.cross_entropy(shares.double().expand(len(targets), -1), targets))
    for one in _fits(problem, protocol.grid(), protocol.search_tolerance, protocol.max_iterations):
        logits = held_out @ one.solution.T
        right = (logits.argmax(1) == targets).double().mean()
        fits.append(one)
        scores.append((float(functional.cross_entropy(logits.double(), targets)), 100 * float(right)))
        best = min(range(len(scores)), key=lambda number: scores[number][0])  # the first of equals
        if protocol.patience and scores[best][0] <= enough and len(scores) - 1 - best >= protocol.patience:
            break
    if scores[best][0] > enough:
        best = max(range(len(scores)), key=lambda number: scores[number][1])
    return best, fits, scores


def _fits(
    problem: _Problem, grid: Tensor, tolerance: float, max_iterations: int, start: Tensor | None = None
) -> Iterator[_Fit]:
    """The solution for every C of the grid, the first from ``start``."""
    weights = problem.start() if start is None else start
    here, before = (weights, problem.logits(weights)), None
    for number, C in enumerate(grid.tolist()):
        start = here
        if before is not None:  # solutions are smooth in log C, so go on as from the last but one to the last
            a, b, c = grid[number - 2 : number + 1].double().log().tolist()
            start = tuple(torch.lerp(old, new, (c - a) / (b - a)) for old, new in zip(before, here, strict=True))
        solution, logits, *rest = _minimise(problem, C, *start, tolerance, max_iterations)
        yield _Fit(solution, *rest)
        here, before = (solution, logits), here if number else None


def _minimise(
    problem: _Problem, C: float, weights: Tensor, logits: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, float, bool, int]:
    """Solution, its logits, F there, whether it converged, and the iterations it took."""
    rounding = torch.finfo(weights.dtype).eps
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
            return weights, logits, f, True, number
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
    return weights, logits, f, False, max_iterations


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
    return float(torch.dot(a.flatten(), b.flatten()))
