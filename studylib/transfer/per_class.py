"""Few-shot transfer with N images of every class."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from studylib.data.splits import stratified_split
from studylib.errors import InputError, require
from studylib.transfer.accuracy import interval, mean_per_class, top1
from studylib.transfer.few_shot import class_rows
from studylib.transfer.inputs import check_sets
from studylib.transfer.linear import choose_C, fit_path, normalised
from studylib.transfer.protocols import LinearProbe


@dataclass(frozen=True, kw_only=True)
class PerClass:
    """A linear probe fitted to N images of every class, for several N and draws.

    The N and the five draws are CoG's, and so are l2-normalised features (naver/cog, code:bash-scripts/fewshot.sh,
    feature_ops.py); the probe is our path of logistic regressions.
    """

    images: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    draws: int = 5
    linear: LinearProbe = field(default_factory=lambda: LinearProbe(normalise="l2"))
    """the probe; the d-th draw has the seed ``linear.split_seed + d`` for split and images"""

    def __post_init__(self) -> None:
        if not self.images or min(self.images) < 1 or len(set(self.images)) < len(self.images):
            raise InputError("per_class.images", self.images, "must be some different numbers of at least 1")
        require("per_class.draws", self.draws, self.draws >= 1, "must be at least 1")

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        return (
            f"few-shot: {'|'.join(map(str, self.images))} images per class, {self.draws} draws, C chosen on the whole held-out "
            f"part and drawn images then taken from all; {self.linear.describe()}"
        )


@dataclass(frozen=True)
class PerClassResult:
    """Accuracies with N images per class in %, over draws."""

    images: int
    """N"""
    top1: float
    half_width: float
    """of the 95 % interval of top-1 over draws (Student's t); nan for one draw"""
    mean_per_class: float
    short: int
    """training classes with fewer than N images, which are fitted to with what they have"""
    C: tuple[float, ...]
    """of each draw"""
    at_grid_edge: bool
    """whether any draw's C is the first or last of the grid"""
    converged: bool
    """whether all fits of all draws reached the tolerance"""


def per_class_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: PerClass
) -> list[PerClassResult]:
    """Test accuracy for each N of the protocol. ``train`` (n, d), ``test`` (m, d), labels in 0 ... num_classes-1.

    As in CoG, C is chosen on a held-out part of all training images (more than N of a class) by fits to N images of each
    class of the rest, by the highest likelihood (ours); then N images of each class are drawn from all training images for the
    final fit. A class with fewer images gives what it has. The images for N are among those for a larger N (ours). The test
    images are used once, after the choice.

    Raises:
        InputError: as `studylib.transfer.inputs.check_sets` and `stratified_split`.
    """
    check_sets(train, train_labels, test, test_labels, num_classes)
    linear, labels = protocol.linear, train_labels.cpu()
    train, test = (rows.to(torch.promote_types(rows.dtype, torch.float32)) for rows in (train, test))
    train_labels, test_labels, test = (values.to(train.device) for values in (train_labels, test_labels, test))
    grid, options = linear.grid(), {"tolerance": linear.tolerance, "max_iterations": linear.max_iterations}
    sizes = torch.tensor([len(rows) for rows in class_rows(labels)])
    found = {count: [] for count in protocol.images}
    for draw in range(protocol.draws):
        fit, held_out = stratified_split(labels, linear.held_out, linear.split_seed + draw)
        generator = torch.Generator().manual_seed(linear.split_seed + draw)
        rest, everything = _shuffled(labels, fit, generator), _shuffled(labels, torch.arange(len(labels)), generator)
        for count in protocol.images:
            rows = torch.cat([own[:count] for own in rest])
            seen, unseen = normalised(linear.normalise, train[rows], train[held_out])
            best, reached = choose_C(seen, train_labels[rows], unseen, train_labels[held_out], num_classes, linear)
            rows = torch.cat([own[:count] for own in everything])
            seen, unseen = normalised(linear.normalise, train[rows], test)
            final = fit_path(seen, train_labels[rows], grid[best : best + 1], num_classes, **options)
            predicted = final.predict(unseen)[0]
            scores = top1(predicted, test_labels), mean_per_class(predicted, test_labels)
            found[count].append((*scores, best, reached and bool(final.converged.all())))
    results = []
    for count, draws in found.items():
        accuracy, per_class, best, converged = zip(*draws, strict=True)
        results.append(
            PerClassResult(
                count,
                *interval(accuracy),
                mean_per_class=math.fsum(per_class) / len(per_class),
                short=int((sizes < count).sum()),
                C=tuple(grid[list(best)].tolist()),
                at_grid_edge=len(grid) > 1 and any(number in (0, len(grid) - 1) for number in best),
                converged=all(converged),
            )
        )
    return results


def _shuffled(labels: Tensor, rows: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Those of ``rows`` of each class, in random order."""
    return [rows[own[torch.randperm(len(own), generator=generator)]] for own in class_rows(labels[rows])]
