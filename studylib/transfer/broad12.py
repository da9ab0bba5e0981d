"""The linear protocol of the 12-domain benchmark: batch normalisation and a linear layer, by SGD over a small grid."""

import itertools
from dataclasses import dataclass

from torch import Tensor

from studylib.data.splits import stratified_split
from studylib.errors import InputError
from studylib.transfer.accuracy import mean_per_class, top1
from studylib.transfer.inputs import check_sets
from studylib.transfer.sgd import MOMENTUM, Heads, train_heads

HELD_OUT = 0.3  # share of the training images that settings are chosen on (papers/README.md 2.6)


@dataclass(frozen=True, kw_only=True)
class Broad12:
    """BatchNorm1d(affine=False) + Linear on frozen features, chosen from a grid on held-out training images.

    All values are those of the benchmark that SL-MLP uses (transfer_broad, code:scripts/run_linear_bn.sh; papers/README.md
    2.6), but for the seed.
    """

    learning_rates: tuple[float, ...] = (0.01, 0.001)
    batches: tuple[int, ...] = (128, 32)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-5)
    search_epochs: int = 20
    epochs: int = 50
    """of the final fit"""
    seed: int = 0
    """of the split, the initial weights and the batches; ours"""

    def __post_init__(self) -> None:
        if not self.learning_rates or not all(rate > 0 for rate in self.learning_rates):
            raise InputError("broad12.learning_rates", self.learning_rates, "must be some positive numbers")
        if not self.batches or min(self.batches) < 2:
            raise InputError(
                "broad12.batches", self.batches, "must be some numbers of at least 2, as BatchNorm needs two images"
            )
        if not self.weight_decays or not all(0 <= decay * max(self.learning_rates) < 1 for decay in self.weight_decays):
            raise InputError("broad12.weight_decays", self.weight_decays, "must be some numbers of at least 0; × lr below 1")
        for field in ("search_epochs", "epochs"):
            if getattr(self, field) < 1:
                raise InputError(f"broad12.{field}", getattr(self, field), "must be at least 1")

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        rates, batches, decays = (
            "|".join(f"{value:g}" for value in values) for values in (self.learning_rates, self.batches, self.weight_decays)
        )
        return (
            f"12-domain: BatchNorm without affine + linear layer on frozen features, no augmentation, SGD (momentum "
            f"{MOMENTUM}, lr ×0.1 at 1/2 and 3/4); lr {rates}, batch {batches}, weight decay {decays} tried for "
            f"{self.search_epochs} epochs, scored on {HELD_OUT:.0%} held-out training images "
            f"(stratified, seed {self.seed}), then {self.epochs} epochs on all"
        )


@dataclass(frozen=True)
class Broad12Result:
    """Accuracies on the test images in %, and how they came about."""

    top1: float
    mean_per_class: float
    """mean over the classes that have test images"""
    learning_rate: float
    batch: int
    weight_decay: float
    at_grid_edge: bool
    """whether the learning rate is the largest or smallest of several, so that a better one may lie outside; with the
    benchmark's two values it always is"""
    validation: tuple[tuple[float, int, float, float], ...]
    """(learning rate, batch, weight decay, held-out top-1 in %) over the grid"""


def broad12_probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: Broad12
) -> Broad12Result:
    """Test accuracy of the head with the best held-out top-1 after the last epoch (of equals the first of the grid).

    ``train`` (n, d) and ``test`` (m, d), labels in 0 ... num_classes-1; computed where ``train`` is. The learning rate
    falls to a tenth at half and at three quarters of the epochs in the search as in the final fit, and an epoch's last
    batch is left out if it is not full, as in the benchmark's code. The test images are used once, after the choice.

    Deviations: no augmentation in training, because features are frozen and extracted once (the benchmark crops and flips
    anew in every epoch); the held-out images are stratified and all of them scored; a data set of fewer images than a
    batch is one batch; a class without a training image is never predicted.

    Raises:
        InputError: as `studylib.transfer.inputs.check_sets` and `stratified_split`.
    """
    check_sets(train, train_labels, test, test_labels, num_classes)
    fit, held_out = stratified_split(train_labels, HELD_OUT, protocol.seed)
    train_labels, test_labels, test = (values.to(train.device) for values in (train_labels, test_labels, test))
    pairs = list(itertools.product(protocol.learning_rates, protocol.weight_decays))
    scores = {}
    for batch in protocol.batches:
        heads = _fit(train[fit], train_labels[fit], pairs, batch, protocol.search_epochs, protocol.seed)
        for (rate, decay), predicted in zip(pairs, heads.predict(train[held_out]), strict=True):
            scores[rate, batch, decay] = top1(predicted, train_labels[held_out])
    grid = list(itertools.product(protocol.learning_rates, protocol.batches, protocol.weight_decays))
    rate, batch, decay = max(grid, key=scores.__getitem__)  # the first of equals
    final = _fit(train, train_labels, [(rate, decay)], batch, protocol.epochs, protocol.seed)
    predicted = final.predict(test)[0]
    return Broad12Result(
        top1=top1(predicted, test_labels),
        mean_per_class=mean_per_class(predicted, test_labels),
        learning_rate=rate,
        batch=batch,
        weight_decay=decay,
        at_grid_edge=len(set(protocol.learning_rates)) > 1
        and rate in (min(protocol.learning_rates), max(protocol.learning_rates)),
        validation=tuple((*point, scores[point]) for point in grid),
    )


def _fit(features: Tensor, labels: Tensor, pairs: list[tuple[float, float]], batch: int, epochs: int, seed: int) -> Heads:
    """A head for each pair of learning rate and weight decay."""
    # Whole epochs, rounded down as in the benchmark's script: 25 and 37 of 50.
    schedule = [0.1 ** ((epoch >= epochs // 2) + (epoch >= epochs * 3 // 4)) for epoch in range(epochs)]
    rates, decays = zip(*pairs, strict=True)
    return train_heads(
        features, labels, rates, decays, batch=batch, schedule=schedule, seed=seed, drop_last=True, batch_norm=True
    )
