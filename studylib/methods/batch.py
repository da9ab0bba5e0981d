"""What the training loop hands to a method."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

STEADY = "steady"


@dataclass(frozen=True)
class Batch:
    """The images of one training step, augmented, and what is known of them; under ``torchrun`` a process's share."""

    views: list[Tensor]
    """for each augmentation that the method asked for: (B, 3, H, W) float in [0, 1]"""
    labels: Tensor
    """(B,) class of each image"""
    ids: Tensor
    """(B,) row of each image in the training set"""
    progress: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    """() float64, where the method computes: share of the training steps that are done, in [0, 1)"""
    phase: str = STEADY
    """what `Method.phase` says of that share"""
