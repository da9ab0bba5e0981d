"""Transfer by nearest neighbours."""

from dataclasses import dataclass

from torch import Tensor

from studylib import neighbours
from studylib.transfer.accuracy import mean_per_class, top1
from studylib.transfer.protocols import Knn


@dataclass(frozen=True)
class KnnResult:
    """Accuracies on the test images in %."""

    top1: float
    mean_per_class: float
    """mean over the classes that have test images"""


def knn_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    num_classes: int,
    protocol: Knn,
    *,
    backend: str = "auto",
) -> KnnResult:
    """Accuracy of the weighted kNN classifier on ``test`` (m, d), with ``train`` (n, d) as the gallery.

    With fewer than ``protocol.k`` training images all of them vote. ``backend`` as in `studylib.neighbours.search`.
    """
    k = min(protocol.k, len(train))
    predicted = neighbours.classify(
        test, train, train_labels, num_classes, k=k, temperature=protocol.temperature, backend=backend
    ).to(test_labels.device)
    return KnnResult(top1(predicted, test_labels), mean_per_class(predicted, test_labels))
