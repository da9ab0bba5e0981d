"""Transfer by nearest neighbours."""

from dataclasses import dataclass

from torch import Tensor

from studylib import neighbours
from studylib.transfer.protocols import Knn


@dataclass(frozen=True)
class KnnResult:
    """Accuracies in %."""

    top1: float
    mean_per_class: float


def knn_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int, protocol: Knn) -> KnnResult:
    """Accuracy of the weighted kNN classifier on ``test`` (m, d) with ``train`` (n, d) as gallery.

    With fewer than ``protocol.k`` training images all of them vote.
    """
    k = min(protocol.k, len(train))
    found = neighbours.classify(test, train, train_labels, num_classes, k=k, temperature=protocol.temperature)
    right = (found.cpu() == test_labels.cpu()).double()
    per_class = [float(right[test_labels == label].mean()) for label in test_labels.unique()]
    return KnnResult(100 * float(right.mean()), 100 * sum(per_class) / len(per_class))
