"""t-ReX's linear protocol for its eight small data sets: logistic regression, 30 values of C tried by TPE."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from studylib.data.splits import stratified_split
from studylib.errors import InputError, require
from studylib.transfer import tpe
from studylib.transfer.accuracy import mean_per_class, top1
from studylib.transfer.inputs import check_sets
from studylib.transfer.protocols import HELD_OUT


@dataclass(frozen=True, kw_only=True)
class TrexSmall8:
    """scikit-learn's L-BFGS logistic regression on features as they are; C chosen by TPE on held-out training images.

    All values are t-ReX's (code:transfer/classifier_training.py, logreg_trainer.py; papers/README.md 3.3), but for the seed.
    """

    C_low: float = 1e-5
    C_high: float = 1e6
    trials: int = 30
    max_iterations: int = 2000
    """of L-BFGS in one fit; a fit that needs more is reported"""
    seed: int = 0
    """of the split and of the trials; ours (t-ReX: several, averaged)"""

    def __post_init__(self) -> None:
        if not 0 < self.C_low < self.C_high:
            raise InputError("trex_small8.C_low", self.C_low, f"must be positive and below C_high={self.C_high:g}")
        for field in ("trials", "max_iterations"):
            require(f"trex_small8.{field}", getattr(self, field), getattr(self, field) >= 1, "must be at least 1")

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        return (
            f"t-ReX, small sets: logistic regression (scikit-learn, L-BFGS, at most {self.max_iterations} iterations), "
            f"features as they are, {self.trials} TPE trials of C in {self.C_low:g}…{self.C_high:g} on {HELD_OUT:.0%} of "
            f"the training images (stratified, seed {self.seed}), refitted on all"
        )


@dataclass(frozen=True)
class TrexSmall8Result:
    """Accuracies on the test images in %, and how they came about."""

    top1: float
    mean_per_class: float
    """mean over the classes that have test images (t-ReX's code calls it m_ap)"""
    C: float
    at_grid_edge: bool
    """whether C is within 5 % of an end of its range (in the logarithm), so that a better one may lie outside"""
    converged: bool
    """whether the fits of all trials, and the final one, converged"""
    validation: tuple[tuple[float, float], ...]
    """(C, held-out top-1 in %) of each trial, in order"""


def trex_small8_probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: TrexSmall8
) -> TrexSmall8Result:
    """Test accuracy of scikit-learn's logistic regression with the C of the best trial (the first of equals).

    ``train`` (n, d) and ``test`` (m, d), labels in 0 ... num_classes-1. The test images are used once, after the choice.

    Deviation: of a class of n images round(0.2 n) are held out, not int(0.2 n), and a class of one image is kept for
    fitting where t-ReX's code stops (`studylib.data.splits.stratified_split`).

    Raises:
        InputError: as `studylib.transfer.inputs.check_sets` and `stratified_split`.
    """
    check_sets(train, train_labels, test, test_labels, num_classes)
    fit, held_out = stratified_split(train_labels, HELD_OUT, protocol.seed)
    train, test, train_labels, test_labels = (values.cpu() for values in (train, test, train_labels, test_labels))
    converged = []

    def predict(C: float, seen: Tensor, labels: Tensor, unseen: Tensor) -> Tensor:
        predicted, reached = _predict(C, seen, labels, unseen, protocol.max_iterations)
        converged.append(reached)
        return predicted

    def score(values: dict[str, float]) -> float:
        predicted = predict(values["C"], train[fit], train_labels[fit], train[held_out])
        return top1(predicted, train_labels[held_out])

    trials = tpe.search(score, {"C": (protocol.C_low, protocol.C_high)}, trials=protocol.trials, seed=protocol.seed)
    C = tpe.best(trials)["C"]
    predicted = predict(C, train, train_labels, test)
    return TrexSmall8Result(
        top1=top1(predicted, test_labels),
        mean_per_class=mean_per_class(predicted, test_labels),
        C=C,
        at_grid_edge=tpe.at_edge(C, protocol.C_low, protocol.C_high),
        converged=all(converged),
        validation=tuple((values["C"], value) for values, value in trials),
    )


def _predict(C: float, seen: Tensor, labels: Tensor, unseen: Tensor, max_iterations: int) -> tuple[Tensor, bool]:
    """Classes of ``unseen``, and whether the fit to ``seen`` converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    dtype = torch.promote_types(seen.dtype, torch.float32)  # NumPy has no bfloat16
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        # Its penalty is l2 by default; to say so is deprecated.
        model = LogisticRegression(C=C, max_iter=max_iterations).fit(seen.to(dtype).numpy(), labels.numpy())
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    reached = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return torch.from_numpy(model.predict(unseen.to(dtype).numpy())), reached
