"""Features of a data set at the layers of a trained run, under a named protocol, cached by what they depend on."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from studylib import device as devices
from studylib import paths, precision
from studylib.data import ImageSet
from studylib.data.augment import to_float
from studylib.errors import RunError
from studylib.external import External
from studylib.training import Run, checkpoint

PROTOCOL = "eval mode, float32, whole image resized to the pre-training size (bilinear, antialiased), global average pooling"


@dataclass(frozen=True)
class Features:
    """Layers by name, each (N, d) float32, for the rows of one data set in their order, on the device of the labels."""

    name: str
    layers: dict[str, Tensor]
    labels: Tensor
    split: Tensor
    num_classes: int
    network: Callable[[], tuple[nn.Module, int]] | None = None
    """reads the network that they are of, and the side of its images"""
    last: str = "stage5"
    """the last layer of the network, which its loss sees"""

    def part(self, layer: str, split: str) -> tuple[Tensor, Tensor]:
        """Features (n, d) and labels (n,) of the ``train`` or ``test`` rows."""
        rows = self.split == {"train": 0, "test": 1}[split]
        return self.layers[layer][rows], self.labels[rows]


def extract(
    run: Run | External,
    images: ImageSet,
    epoch: int | None = None,
    layers: Sequence[str] | None = None,
    device: str | torch.device | None = None,
) -> Features:
    """Features of ``images`` by the weights of ``run`` after ``epoch`` epochs (by default the last), on ``device``.

    Of ``layers`` those that the run has, by default all. Each is cached under ``runs/cache/features``.

    Raises:
        InputError: the run has no such snapshot, or there is no such device.
        RunError: a feature is not finite; nothing is kept.
    """
    where = devices.find(device)
    weights, name = run.snapshot(epoch).stem, re.sub("[/@:]", "_", images.name)
    files = {}
    for layer in run.layers if layers is None else [layer for layer in run.layers if layer in layers]:
        key = hashlib.sha256(f"{PROTOCOL} {layer} {images.checksum} {run.trained}".encode()).hexdigest()[:10]
        files[layer] = paths.cache() / "features" / f"{run.name}-{weights}-{name}-{layer}-{key}.pt"
    missing = [layer for layer, file in files.items() if not file.exists()]
    if missing:
        for layer, values in _compute(run, epoch, images, missing, where).items():
            checkpoint.save(files[layer], {"features": values})
    found = {layer: checkpoint.load(file, where)["features"] for layer, file in files.items()}
    network = partial(run.network, epoch, torch.device("cpu"))
    return Features(
        images.name, found, images.labels.to(where), images.split.to(where), images.num_classes, network, run.layers[-1]
    )


@torch.no_grad()
def _compute(
    run: Run | External, epoch: int | None, images: ImageSet, layers: Sequence[str], device: torch.device
) -> dict[str, Tensor]:
    network, size = run.network(epoch, device)
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with precision.kernels(device, "float32"):
        for batch in images.images.split(512):
            seen = network.layers(to_float(batch.to(device), size))
            for layer in layers:
                found[layer].append(seen[layer].float().cpu())
    whole = {layer: torch.cat(parts) for layer, parts in found.items()}
    for layer, values in whole.items():
        if strange := int((~values.isfinite()).any(1).sum()):
            fix = "its weights or their normalisation are broken; no protocol can use it"
            raise RunError(
                f"{run.name}: features of {strange} of {len(values)} images of {images.name} at {layer} are not finite; {fix}"
            )
    return whole
