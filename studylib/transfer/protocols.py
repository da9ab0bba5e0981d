"""Transfer protocols as named objects: what they hold is printed with every table."""

from dataclasses import dataclass

from studylib.errors import InputError, choose


@dataclass(frozen=True, kw_only=True)
class Knn:
    """Weighted kNN by cosine similarity; k and T as usual in this field (papers.md 4: sl-vs-ssl-cl, unic)."""

    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError("knn.k", self.k, "must be at least 1")
        if not self.temperature > 0:
            raise InputError("knn.temperature", self.temperature, "must be positive")

    def describe(self) -> str:
        return f"kNN: cosine, k={self.k}, votes exp(s/{self.temperature:g})"


@dataclass(frozen=True, kw_only=True)
class LinearPath:
    """Multinomial logistic regression over a whole grid of C, chosen on held-out training images, then fitted on all.

    The range of C is t-ReX's (code:transfer/logreg, 1e-5 to 1e6, where it is searched by 30 random trials); the share of
    held-out images is too.
    """

    C_low: float = 1e-5
    C_high: float = 1e6
    values: int = 20
    """number of C, evenly spaced in the logarithm; ours"""
    held_out: float = 0.2
    split_seed: int = 0
    normalise: str = "none"
    """none: features as they are; l2: each image's features to length 1"""

    def __post_init__(self) -> None:
        choose("linear.normalise", self.normalise, ("none", "l2"))
        if not 0 < self.C_low <= self.C_high:
            raise InputError("linear.C_low", self.C_low, f"must be positive and at most C_high={self.C_high:g}")
        if self.values < 1:
            raise InputError("linear.values", self.values, "must be at least 1")
        if not 0 < self.held_out < 1:
            raise InputError("linear.held_out", self.held_out, "must be between 0 and 1")

    def describe(self) -> str:
        return (
            f"linear: L-BFGS logistic regression, features {'l2-normalised' if self.normalise == 'l2' else 'as they are'}, "
            f"{self.values} C in {self.C_low:g}…{self.C_high:g} chosen on {self.held_out:.0%} of training images "
            f"(stratified, seed {self.split_seed}), refitted on all"
        )
