"""What all methods share: an encoder, perhaps a projector, the crops they ask for, and cosine similarities."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from studylib.config import MultiCrop, RunConfig
from studylib.data.augment import Augmentation
from studylib.methods.batch import STEADY, Batch
from studylib.models.encoder import Encoder, Normalise
from studylib.models.projector import Projector
from studylib.precision import exact, full


class Method(nn.Module):
    """Encoder f, projector h (or none), and how they are read; a method adds ``loss`` and perhaps ``after_step``."""

    unused_parameters = False
    """whether some trained parameters are without a gradient at times"""

    def __init__(self, config: RunConfig, mean: Tensor, std: Tensor):
        """``mean``, ``std`` (3,) of the training images in [0, 1]."""
        super().__init__()
        self.config = config
        self.normalise = Normalise(mean, std)
        self.encoder = Encoder(config.encoder)
        self.projector = Projector(config.projector, self.encoder.features) if config.projector.exists else None
        self.outputs = self.projector.outputs if self.projector else self.encoder.features
        """p, the width of what the loss sees"""

    @property
    def views(self) -> list[Augmentation]:
        """The augmentations of an image that the method wants, global crops first."""
        return crops(self.config.augmentation, self.config.multi_crop)

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """Features of images (B, 3, H, W) in [0, 1]: ``stage1`` to ``stage5``, then those of the projector."""
        named = self.encoder.stages(self.normalise(images))
        return named | (self.projector.layers(named["stage5"]) if self.projector else {})

    def project(self, views: Sequence[Tensor]) -> Tensor:
        """h(f(x)) of M views (B, 3, H, W), one after the other: (M B, p)."""
        return project(self, views)

    def class_vectors(self) -> Tensor | None:
        """What the loss compares h(f(x)) with by cosine, a vector for each class (C, p); None where there is no such thing."""
        return None

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss of a batch, and values for the log."""
        raise NotImplementedError

    def before_step(self, batch: Batch) -> None:
        """What comes between the gradient and the optimiser's step; for most methods nothing."""

    def after_step(self, batch: Batch) -> None:
        """What follows the optimiser's step: for most methods with a memory or a second network, their change.

        It may use what the last call of ``loss`` made of the same batch.
        """

    def phase(self, progress: float) -> str:
        """Name of the operations that a step consists of after a share ``progress`` of training; `STEADY` for most methods.

        Steps of one phase differ in the values of tensors alone, unless a memory is not full yet (`repeats`).
        """
        return STEADY

    def repeats(self, phase: str) -> bool:
        """Whether all steps of ``phase`` are the same operations on tensors of the same shapes from now on."""
        bank = getattr(self, "bank", None)
        return bank is None or bank.full


def crops(augmentation: Augmentation, multi_crop: MultiCrop) -> list[Augmentation]:
    """The global and then the local crops of an image; only global ones are solarised (t-ReX, code:multi_crop.py)."""
    local = replace(
        augmentation,
        size=multi_crop.local_size,
        crop_scale=multi_crop.local_scale,
        blur=multi_crop.local_blur,
        solarise=0.0,
    )
    return [augmentation] * multi_crop.global_crops + [local] * multi_crop.local_crops


def project(network: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """h(f(x)) (M B, p) of M views by a ``network`` with ``normalise``, ``encoder`` and ``projector`` (or none)."""
    features = encode(lambda images: network.encoder(network.normalise(images)), views)
    return network.projector(features) if network.projector else features


def encode(encoder: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> Tensor:
    """Features (M B, d) of M views, in their order; ``encoder`` runs once for each resolution.

    Batch norm therefore sees the crops of one resolution together, and those of another apart (t-ReX, papers/README.md 3.1).
    """
    features: list[Tensor | None] = [None] * len(views)
    for side in dict.fromkeys(view.shape[-1] for view in views):
        places = [place for place, view in enumerate(views) if view.shape[-1] == side]
        together = encoder(torch.cat([views[place] for place in places]))
        for place, part in zip(places, together.chunk(len(places)), strict=True):
            features[place] = part
    return torch.cat(features)


def similarities(rows: Tensor, others: Tensor) -> Tensor:
    """Cosine similarities (A, N) of rows (A, p) and others (N, p), in float32 or better; a zero vector has 0 with all."""
    with exact(rows.device):
        return functional.normalize(full(rows), dim=1) @ functional.normalize(full(others), dim=1).T
