"""The second network: an exponential moving average of encoder and projector, which makes keys, targets or prototypes."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from studylib.config import Ema
from studylib.methods.method import Method, project


class Average(nn.Module):
    """Starts as a copy and follows: average <- m average + (1 - m) trained. It has no gradient.

    ``ema.buffers`` says what is done about batch norm: ``own`` keeps to the statistics of the batch it sees, in training
    mode; ``average`` averages the running statistics as the parameters, and normalises by them.
    """

    def __init__(self, trained: Method, settings: Ema):
        super().__init__()
        self.settings = settings
        self.normalise = copy.deepcopy(trained.normalise)
        self.encoder = copy.deepcopy(trained.encoder)
        self.projector = copy.deepcopy(trained.projector)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "Average":
        """With ``buffers: average`` batch norm stays in evaluation mode, so that it uses the averaged statistics."""
        return super().train(mode and self.settings.buffers == "own")

    def momentum(self, progress: float) -> float:
        """m after a share ``progress`` of training: fixed, or 1 - (1 - m) (1 + cos(π progress)) / 2 (BYOL)."""
        m = self.settings.momentum
        return 1 - (1 - m) * (1 + math.cos(math.pi * progress)) / 2 if self.settings.ramp else m

    @torch.no_grad()
    def follow(self, trained: Method, momentum: float) -> None:
        """One step towards the trained network."""
        for own, new in ((self.encoder, trained.encoder), (self.projector, trained.projector)):
            if own is None:
                continue
            for value, target in zip(own.parameters(), new.parameters(), strict=True):
                value.lerp_(target, 1 - momentum)
            if self.settings.buffers == "average":
                for value, target in zip(own.buffers(), new.buffers(), strict=True):
                    value.lerp_(target, 1 - momentum) if value.is_floating_point() else value.copy_(target)

    @torch.no_grad()
    def project(self, views: Sequence[Tensor]) -> Tensor:
        """As `Method.project`, without gradient."""
        return project(self, views)
