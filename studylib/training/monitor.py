"""What is looked at while a run trains: kNN accuracy on the pre-training classes, and when weights are kept."""

from typing import Any

import torch

from studylib import neighbours
from studylib.config import RunConfig
from studylib.data import ImageSet
from studylib.data.augment import to_float
from studylib.data.imageset import TENTH
from studylib.data.splits import stratified_split


@torch.no_grad()
def upstream_accuracy(method: Any, train: ImageSet, config: RunConfig, seed: int, device: torch.device) -> float:
    """kNN accuracy (%) of a tenth of the training images among the others, on at most ``monitor.queries`` and
    ``monitor.gallery``. It says whether a run learns; no test image is looked at.

    ``seed`` chooses the images. They are whole and of the side trained at, as those that features are extracted of.
    """
    method.eval()
    size = config.augmentation.size or train.size
    features = []
    parts = stratified_split(train.labels, TENTH, 0)
    for rows, limit in zip(parts, (config.monitor.gallery, config.monitor.queries), strict=True):
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:limit]
        part = train.select(rows[chosen])
        batches = part.images.split(512)
        found = [method.encoder(method.normalise(to_float(images.to(device), size))).float() for images in batches]
        features.append((torch.cat(found), part.labels.to(device)))
    (gallery, gallery_labels), (queries, labels) = features
    k = min(20, len(gallery))
    predicted = neighbours.classify(queries, gallery, gallery_labels, train.num_classes, k=k, backend="torch")
    return 100 * float((predicted == labels).double().mean())


def snapshot_epochs(epochs: int, kind: str) -> set[int]:
    """Epochs after which weights are kept: the last, for ``ends`` and ``log`` also 0, and for ``log`` 1, 2, 4, 8, ..."""
    powers = {2**power for power in range(20) if 2**power <= epochs}
    return {epochs} | {"final": set(), "ends": {0}, "log": {0} | powers}[kind]
