"""Features of a data set at every layer of a trained run, under a named protocol, cached by what they depend on."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from studylib import paths
from studylib.data import ImageSet
from studylib.data.augment import to_float
from studylib.external import External
from studylib.training import Run, checkpoint
from studylib.training.loop import channels_last

PROTOCOL = "eval mode, float32, whole image resized to the pre-training size (bilinear, antialiased), global average pooling"


@dataclass(frozen=True)
class Features:
    """Layers by name, each (N, d) float32, for the rows of one data set in their order."""

    name: str
    layers: dict[str, Tensor]
    labels: Tensor
    split: Tensor
    num_classes: int
    network: Callable[[], tuple[nn.Module, int]] | None = None
    """reads the network that they are of, and the side of its images"""

    def part(self, layer: str, split: str) -> tuple[Tensor, Tensor]:
        """Features (n, d) and labels (n,) of the ``train`` or ``test`` rows."""
        rows = self.split == {"train": 0, "test": 1}[split]
        return self.layers[layer][rows], self.labels[rows]


def extract(run: Run | External, images: ImageSet, epoch: int | None = None, device: str | None = None) -> Features:
    """All layers of ``images`` seen by the weights of ``run`` after ``epoch`` epochs (by default the last).

    Cached under ``runs/cache/features``.

    Raises:
        InputError: the run has no such snapshot.
    """
    key = hashlib.sha256(f"{PROTOCOL} {images.checksum}".encode()).hexdigest()[:10]
    weights, name = run.snapshot(epoch).stem, images.name.replace("/", "_").replace("@", "_")
    cached = paths.cache() / "features" / f"{run.name}-{weights}-{name}-{key}.pt"
    if cached.exists():
        layers = checkpoint.load(cached)
    else:
        layers = _compute(run, epoch, images, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        checkpoint.save(cached, layers)
    network = partial(run.network, epoch, torch.device("cpu"))
    return Features(images.name, layers, images.labels, images.split, images.num_classes, network)


@torch.no_grad()
def _compute(run: Run | External, epoch: int | None, images: ImageSet, device: torch.device) -> dict[str, Tensor]:
    network, size = run.network(epoch, device)
    found: dict[str, list[Tensor]] = {}
    for batch in images.images.split(512):
        for name, values in network.layers(channels_last(to_float(batch.to(device), size))).items():
            found.setdefault(name, []).append(values.float().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}
