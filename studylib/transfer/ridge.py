"""Ridge regression to the classes for a whole grid of penalties from one eigendecomposition: a cheap probe to monitor with."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from studylib.data.splits import stratified_split
from studylib.errors import InputError, require
from studylib.transfer.accuracy import mean_per_class, top1
from studylib.transfer.inputs import check_set, check_sets

CHUNK = 4096  # ours: rows taken to float64 at a time


@dataclass(frozen=True, kw_only=True)
class RidgeProbe:
    """Ridge regression of centred one-hot targets, the penalty chosen on held-out training images, then fitted on all.

    All values are ours. Penalties are shares of the mean eigenvalue of the features' covariance, so that the grid does
    not depend on the scale of the features.
    """

    low: float = 1e-6
    high: float = 1e3
    values: int = 28
    """number of penalties, evenly spaced in the logarithm: three for each factor of ten"""
    held_out: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        require("ridge.low", self.low, 0 < self.low <= self.high, f"must be positive and at most high={self.high:g}")
        if self.values < 1 or (self.values > 1 and self.low == self.high):
            raise InputError("ridge.values", self.values, "must be at least 1, and 1 if low is high")
        require("ridge.held_out", self.held_out, 0 < self.held_out < 1, "must be between 0 and 1")

    def grid(self) -> Tensor:
        """The penalties (values,) float64, ascending."""
        return torch.logspace(math.log10(self.low), math.log10(self.high), self.values, dtype=torch.float64)

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        return (
            f"ridge: regression of centred one-hot targets, {self.values} penalties in {self.low:g}…{self.high:g} of the "
            f"mean eigenvalue chosen on {self.held_out:.0%} of the training images (stratified, seed {self.split_seed}), "
            "refitted on all"
        )


@dataclass(frozen=True)
class RidgeResult:
    """Accuracies on the test images in %, and how they came about."""

    top1: float
    mean_per_class: float
    """mean over the classes that have test images"""
    penalty: float
    at_grid_edge: bool
    """whether the best penalty is the first or last of the grid, so that a better one may lie outside"""
    validation: tuple[tuple[float, float], ...]
    """(penalty, held-out top-1 in %) for each of the grid"""


@dataclass(frozen=True)
class Ridge:
    """What is needed to solve for any penalty, float64; r is the rank of the centred features."""

    mean: Tensor
    """(d,)"""
    shares: Tensor
    """(classes,), of the images"""
    rotation: Tensor
    """(d, r) eigenvectors of the covariance"""
    spectrum: Tensor
    """(r,) its eigenvalues times N"""
    projected: Tensor
    """(r, classes), rotated features times targets"""
    unit: float
    """N times the mean eigenvalue of the covariance, what penalties are measured in"""

    def solve(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Weights (d, classes) and bias (classes,) that minimise |Y - X W - b|² + penalty unit |W|²."""
        weights = self.rotation @ (self.projected / (self.spectrum + penalty * self.unit)[:, None])
        return weights, self.shares - self.mean @ weights

    def predict(self, features: Tensor, penalties: Tensor) -> Tensor:
        """Classes (K, N) of features (N, d), those of the largest output, for K penalties."""
        found = []
        for part in features.split(CHUNK):
            rotated = (part.double() - self.mean) @ self.rotation
            solutions = (self.projected / (self.spectrum + value * self.unit)[:, None] for value in penalties.tolist())
            found.append(torch.stack([(rotated @ solution + self.shares).argmax(1) for solution in solutions]))
        return torch.cat(found, dim=1)


def fit_ridge(features: Tensor, labels: Tensor, num_classes: int) -> Ridge:
    """The one eigendecomposition for features (N, d) and labels (N,) in 0 ... num_classes-1, in float64 by chunks.

    Raises:
        InputError: as `studylib.transfer.inputs.check_set`.
    """
    check_set("train", features, labels, num_classes)
    width = features.shape[1]
    # Around the first image a constant dimension is exactly 0, which a rounded mean would not make it.
    first = features[0].double()
    mean = sum((part.double() - first).sum(0) for part in features.split(CHUNK)) / len(features)
    products, targets = mean.new_zeros(width, width), mean.new_zeros(width, num_classes)
    for part, own in zip(features.split(CHUNK), labels.split(CHUNK), strict=True):
        centred = part.double() - first - mean
        products += centred.T @ centred
        targets += centred.T @ functional.one_hot(own, num_classes).double()  # centring the targets changes nothing here
    spectrum, rotation = torch.linalg.eigh(products)
    # Directions without variance hold rounding only; of constant features none is left.
    live = spectrum > torch.finfo(torch.float64).eps * max(features.shape) * spectrum.max()
    rotation, spectrum = rotation[:, live], spectrum[live]
    shares = functional.one_hot(labels, num_classes).double().mean(0)
    return Ridge(first + mean, shares, rotation, spectrum, rotation.T @ targets, float(spectrum.sum()) / width)


def ridge_probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: RidgeProbe
) -> RidgeResult:
    """Test accuracy of ridge regression whose penalty is chosen on a held-out part of the training images.

    ``train`` (n, d) and ``test`` (m, d), labels in 0 ... num_classes-1; computed where ``train`` is. Of equal held-out
    scores the larger penalty is taken. The test images are used once, after the choice.

    Source of the idea that one eigendecomposition serves all penalties: big_vision's few-shot evaluator.

    Raises:
        InputError: as `studylib.transfer.inputs.check_sets` and `stratified_split`.
    """
    check_sets(train, train_labels, test, test_labels, num_classes)
    grid = protocol.grid()
    fit, held_out = stratified_split(train_labels, protocol.held_out, protocol.split_seed)
    train_labels, test_labels, test = (values.to(train.device) for values in (train_labels, test_labels, test))
    predicted = fit_ridge(train[fit], train_labels[fit], num_classes).predict(train[held_out], grid)
    scores = [top1(row, train_labels[held_out]) for row in predicted]
    best = max(range(len(grid)), key=lambda number: (scores[number], number))
    predicted = fit_ridge(train, train_labels, num_classes).predict(test, grid[best : best + 1])[0]
    return RidgeResult(
        top1=top1(predicted, test_labels),
        mean_per_class=mean_per_class(predicted, test_labels),
        penalty=float(grid[best]),
        at_grid_edge=len(grid) > 1 and best in (0, len(grid) - 1),
        validation=tuple(zip(grid.tolist(), scores, strict=True)),
    )
