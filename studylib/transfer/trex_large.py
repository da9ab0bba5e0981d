"""t-ReX's linear protocol for its large data sets (IN1K, CoG, iNat): SGD on l2-normalised features."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from studylib.data.splits import stratified_split
from studylib.errors import require
from studylib.transfer import tpe
from studylib.transfer.accuracy import mean_per_class, top1
from studylib.transfer.inputs import check_sets
from studylib.transfer.protocols import HELD_OUT
from studylib.transfer.sgd import MOMENTUM, train_heads

RANGES = {"learning_rate": (1e-1, 1e2), "weight_decay": (1e-12, 1e-4)}
"""what the trials look in: t-ReX's; the product of the ends must be below 1 (`studylib.transfer.sgd.train_heads`)"""


@dataclass(frozen=True, kw_only=True)
class TrexLarge:
    """A linear layer trained by SGD; learning rate and weight decay chosen by TPE on held-out training images.

    All values are t-ReX's (code:transfer/classifier_training.py, logreg_trainer.py; papers/README.md 3.3), but for the seed.
    """

    epochs: int = 100
    batch: int = 1024
    trials: int = 30
    seed: int = 0
    """of the split, the trials, the initial weights and the batches; ours (t-ReX: several, averaged)"""

    def __post_init__(self) -> None:
        for field in ("epochs", "batch", "trials"):
            require(f"trex_large.{field}", getattr(self, field), getattr(self, field) >= 1, "must be at least 1")

    def schedule(self) -> list[float]:
        """Factor of the learning rate by epoch: a cosine, one epoch late as in t-ReX's code (papers/README.md 3.7, item 8)."""
        return [(1 + math.cos(math.pi * max(epoch - 1, 0) / self.epochs)) / 2 for epoch in range(self.epochs)]

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        rates, decays = (f"{low:g}…{high:g}" for low, high in RANGES.values())
        return (
            f"t-ReX, large sets: linear layer, features l2-normalised, SGD (momentum {MOMENTUM}, batch {self.batch}, "
            f"{self.epochs} epochs, cosine), {self.trials} TPE trials of lr in {rates} and weight decay in {decays} on "
            f"{HELD_OUT:.0%} of the training images (stratified, seed {self.seed}), refitted on all"
        )


@dataclass(frozen=True)
class TrexLargeResult:
    """Accuracies on the test images in %, and how they came about."""

    top1: float
    mean_per_class: float
    """mean over the classes that have test images (t-ReX's code calls it m_ap)"""
    learning_rate: float
    weight_decay: float
    at_grid_edge: bool
    """whether the learning rate is within 5 % of an end of its range (in the logarithm), or the weight decay of its upper
    end, so that a better one may lie outside; the smallest weight decay is as good as none"""
    validation: tuple[tuple[float, float, float], ...]
    """(learning rate, weight decay, held-out top-1 in %) of each trial, in order"""


def trex_large_probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: TrexLarge
) -> TrexLargeResult:
    """Test accuracy of a linear layer with the hyper-parameters of the best trial (the first of equals).

    ``train`` (n, d) and ``test`` (m, d), labels in 0 ... num_classes-1; computed where ``train`` is. A score is that of
    the last epoch. The test images are used once, after the choice.

    Deviations: of a class of n images round(0.2 n) are held out, not int(0.2 n), and a class of one image is kept for
    fitting (`studylib.data.splits.stratified_split`); each fit starts from the same weights and order of images, where
    t-ReX's code goes on with one random generator; a class without a training image is never predicted.

    Raises:
        InputError: as `studylib.transfer.inputs.check_sets` and `stratified_split`.
    """
    check_sets(train, train_labels, test, test_labels, num_classes)
    fit, held_out = stratified_split(train_labels, HELD_OUT, protocol.seed)
    train_labels, test_labels, test = (values.to(train.device) for values in (train_labels, test_labels, test))
    train, test = (functional.normalize(features.float(), dim=1) for features in (train, test))

    def predict(values: dict[str, float], seen: Tensor, labels: Tensor, unseen: Tensor) -> Tensor:
        rates, decays = [values["learning_rate"]], [values["weight_decay"]]
        options = {"batch": protocol.batch, "schedule": protocol.schedule(), "seed": protocol.seed}
        return train_heads(seen, labels, rates, decays, **options).predict(unseen)[0]

    seen, seen_labels, unseen, unseen_labels = train[fit], train_labels[fit], train[held_out], train_labels[held_out]
    trials = tpe.search(
        lambda values: top1(predict(values, seen, seen_labels, unseen), unseen_labels),
        RANGES,
        trials=protocol.trials,
        seed=protocol.seed,
        joint=True,
    )
    best = tpe.best(trials)
    rate, decay = best["learning_rate"], best["weight_decay"]
    low, high = RANGES["weight_decay"]
    predicted = predict(best, train, train_labels, test)
    return TrexLargeResult(
        top1=top1(predicted, test_labels),
        mean_per_class=mean_per_class(predicted, test_labels),
        learning_rate=rate,
        weight_decay=decay,
        at_grid_edge=tpe.at_edge(rate, *RANGES["learning_rate"])
        or (tpe.at_edge(decay, low, high) and decay > (low * high) ** 0.5),
        validation=tuple((values["learning_rate"], values["weight_decay"], value) for values, value in trials),
    )
