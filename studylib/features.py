"""Features of a data set at every layer of a trained run, under a named protocol, cached by what they depend on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from studylib import paths
from studylib.data import ImageSet
from studylib.data.augment import to_float
from studylib.errors import InputError
from studylib.methods import METHODS
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

    def part(self, layer: str, split: str) -> tuple[Tensor, Tensor]:
        """Features (n, d) and labels (n,) of the ``train`` or ``test`` rows."""
        rows = self.split == {"train": 0, "test": 1}[split]
        return self.layers[layer][rows], self.labels[rows]


def extract(run: Run, images: ImageSet, epoch: int | None = None, device: str | None = None) -> Features:
    """All layers of ``images`` seen by the weights of ``run`` after ``epoch`` epochs (by default the last).

    Cached under ``runs/cache/features``.

    Raises:
        InputError: the run has no such snapshot.
    """
    file = run.snapshot(epoch)
    if not file.exists():
        raise InputError("epoch", epoch, f"{run.config.name} kept no such weights; they are in {run.folder / 'snapshots'}")
    key = hashlib.sha256(f"{PROTOCOL} {images.checksum}".encode()).hexdigest()[:10]
    cached = (
        paths.cache() / "features" / f"{run.config.name}-{file.stem}-{images.name.replace('/', '_').replace('@', '_')}-{key}.pt"
    )
    if cached.exists():
        layers = checkpoint.load(cached)
    else:
        layers = _compute(run, file, images, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        checkpoint.save(cached, layers)
    return Features(images.name, layers, images.labels, images.split, images.num_classes)


@torch.no_grad()
def _compute(run: Run, file: Path, images: ImageSet, device: torch.device) -> dict[str, Tensor]:
    snapshot = checkpoint.load(file, device)
    method = METHODS[run.config.method](run.config, snapshot["classes"], torch.zeros(3), torch.ones(3)).to(device)
    method.load_state_dict(snapshot["weights"])
    method.to(memory_format=torch.channels_last).eval()
    found: dict[str, list[Tensor]] = {}
    for batch in images.images.split(512):
        for name, values in method.layers(channels_last(to_float(batch.to(device), snapshot["size"]))).items():
            found.setdefault(name, []).append(values.float().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}
