"""Transfer by nearest neighbours, with one k and temperature or the best of a grid."""

from dataclasses import dataclass
from itertools import product

from torch import Tensor

from studylib import neighbours
from studylib.data.splits import stratified_split
from studylib.transfer.accuracy import mean_per_class, top1
from studylib.transfer.inputs import check_sets
from studylib.transfer.protocols import HELD_OUT, Knn, KnnGrid


@dataclass(frozen=True)
class KnnResult:
    """Accuracies on the test images in %."""

    top1: float
    mean_per_class: float
    """mean over the classes that have test images"""


@dataclass(frozen=True)
class KnnGridResult:
    """Accuracies on the test images in %, and how they came about."""

    top1: float
    mean_per_class: float
    """mean over the classes that have test images"""
    k: int
    temperature: float
    at_grid_edge: bool
    """whether k (of those that the held-out search could use) or the temperature is an end of its grid"""
    validation: tuple[tuple[int, float, float], ...]
    """(k, temperature, held-out top-1 in %) for each of the grid"""


def knn_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: Knn
) -> KnnResult:
    """Accuracy of the weighted kNN classifier on ``test`` (m, d), with ``train`` (n, d) as the gallery.

    With fewer than ``protocol.k`` training images all of them vote.
    """
    k = min(protocol.k, len(train))
    predicted = neighbours.classify(test, train, train_labels, num_classes, k=k, temperature=protocol.temperature)
    predicted = predicted.to(test_labels.device)
    return KnnResult(top1(predicted, test_labels), mean_per_class(predicted, test_labels))


def knn_grid_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: KnnGrid
) -> KnnGridResult:
    """Test accuracy of the weighted kNN classifier with the k and temperature that do best on held-out training images.

    ``train`` (n, d) and ``test`` (m, d), labels in 0 ... num_classes-1. Of equal held-out scores the first of the grid is
    taken (the smaller k, then the lower temperature); then all training images are the gallery, and the test images are
    used once. A k above the number of images is that number.

    Raises:
        InputError: as `studylib.transfer.inputs.check_sets` and `stratified_split`.
    """
    check_sets(train, train_labels, test, test_labels, num_classes)
    fit, held_out = stratified_split(train_labels, HELD_OUT, protocol.split_seed)
    gallery, labels = train[fit], train_labels[fit].to(train.device)
    ks = sorted({min(k, len(fit)) for k in protocol.k})
    similarity, rows = neighbours.search(train[held_out], gallery, ks[-1])
    truth, classes = train_labels[held_out].to(rows.device), labels.to(rows.device)[rows]
    grid = list(product(ks, sorted(protocol.temperature)))
    scores = [
        top1(neighbours.vote(similarity[:, :k], classes[:, :k], num_classes, temperature), truth) for k, temperature in grid
    ]
    best = scores.index(max(scores))
    k, temperature = grid[best]
    result = knn_accuracy(train, train_labels, test, test_labels, num_classes, Knn(k=k, temperature=temperature))
    return KnnGridResult(
        top1=result.top1,
        mean_per_class=result.mean_per_class,
        k=k,
        temperature=temperature,
        at_grid_edge=any(
            len(set(values)) > 1 and best in (min(values), max(values))
            for best, values in ((k, ks), (temperature, protocol.temperature))
        ),
        validation=tuple((*point, score) for point, score in zip(grid, scores, strict=True)),
    )
