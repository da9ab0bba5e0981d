"""Transfer protocols as named objects: what they hold is printed with every table."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from studylib.errors import InputError, choose, require

TOLERANCE = 5e-7  # ours: keeps the objective within 1e-4 of the minimum, see `studylib.transfer.fit_path`
MAX_ITERATIONS = 500  # ours
HELD_OUT = 0.2  # share of the training images that settings are chosen on; t-ReX's (code:transfer/logreg)
GAIN = 0.01  # ours: share of the cross entropy that features have to explain for C to be chosen by likelihood
NORMALISE = {"none": "as they are", "l2": "l2-normalised"}


@dataclass(frozen=True, kw_only=True)
class Knn:
    """Weighted kNN by cosine similarity; k and T as usual in this field (papers/README.md 4: sl-vs-ssl-cl, unic)."""

    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        require("knn.k", self.k, self.k >= 1, "must be at least 1")
        require("knn.temperature", self.temperature, self.temperature > 0, "must be positive")

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        return f"kNN: cosine, k={self.k}, votes exp(s/{self.temperature:g})"


@dataclass(frozen=True, kw_only=True)
class KnnGrid:
    """Weighted kNN by cosine similarity, k and T chosen on held-out training images.

    The k are those of sl-vs-ssl-cl (papers/README.md 2.8), which UNIC's range lies within; the T around its 0.07 are ours.
    """

    k: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    temperature: tuple[float, ...] = (0.02, 0.07, 0.2)
    split_seed: int = 0

    def __post_init__(self) -> None:
        require("knn_grid.k", self.k, self.k and min(self.k) >= 1, "must be numbers of at least 1")
        if not self.temperature or not min(self.temperature) > 0:
            raise InputError("knn_grid.temperature", self.temperature, "must be positive numbers")

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        ks, temperatures = ("|".join(f"{value:g}" for value in values) for values in (self.k, self.temperature))
        return (
            f"kNN: cosine, k={ks}, votes exp(s/T), T={temperatures} chosen on {HELD_OUT:.0%} of the training images "
            f"(stratified, seed {self.split_seed})"
        )


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """Multinomial logistic regression over a grid of C, chosen on held-out training images, then fitted on all.

    The range of C is t-ReX's (code:transfer/logreg), which tries 30 random C.
    """

    C_low: float = 1e-5
    C_high: float = 1e6
    values: int = 20
    """number of C, evenly spaced in the logarithm; ours"""
    split_seed: int = 0
    search_tolerance: float = 1e-3
    """share of the objective that may be missing when a fit stops (`studylib.transfer.fit_path`), while C is searched for;
    the final fit has the default, `TOLERANCE`; ours"""
    max_iterations: int = MAX_ITERATIONS
    """of L-BFGS for each C; a fit that needs more is reported; ours"""
    patience: int = 2
    """larger C that are tried after the best so far, before the search ends; 0: the whole grid; ours"""
    normalise: str = "none"
    """none: features as they are (t-ReX); l2: each image's features to length 1"""

    def __post_init__(self) -> None:
        choose("linear.normalise", self.normalise, NORMALISE)
        if not 0 < self.C_low <= self.C_high:
            raise InputError("linear.C_low", self.C_low, f"must be positive and at most C_high={self.C_high:g}")
        if self.values < 1 or (self.values > 1 and self.C_low == self.C_high):
            raise InputError("linear.values", self.values, "must be at least 1, and 1 if C_low is C_high")
        require("linear.search_tolerance", self.search_tolerance, self.search_tolerance > 0, "must be positive")
        require("linear.patience", self.patience, self.patience >= 0, "must be 0, for the whole grid, or more")
        require("linear.max_iterations", self.max_iterations, self.max_iterations >= 1, "must be at least 1")

    def grid(self) -> Tensor:
        """The C (values,) float64, ascending."""
        return torch.logspace(math.log10(self.C_low), math.log10(self.C_high), self.values, dtype=torch.float64)

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        return (
            f"linear: logistic regression by L-BFGS (tolerance {TOLERANCE:g}), features {NORMALISE[self.normalise]}; "
            f"of {self.values} C in {self.C_low:g}…{self.C_high:g} that of the highest likelihood on {HELD_OUT:.0%} of "
            f"the training images (stratified, seed {self.split_seed}; tolerance {self.search_tolerance:g}, "
            + (f"until {self.patience} larger ones are worse" if self.patience else "all of them")
            + f"), of the highest accuracy where no cross entropy is {GAIN:.0%} below that of the classes' shares; "
            + "refitted on all"
        )


@dataclass(frozen=True, kw_only=True)
class TrainLinear(LinearProbe):
    """`LinearProbe`, scored on the training images that it was fitted on: how far a network has learned them.

    The same for every method; the accuracy that training logs is not: LOOK's loss has none, and t-ReX's counts local crops.
    """

    C_low: float = 1e-4
    C_high: float = 1e2
    """ours: beyond it no fit to a whole pre-training set converged in minutes"""
    values: int = 7

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        return f"accuracy on the training images; {super().describe()}"
