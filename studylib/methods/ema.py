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

    def momentum(self, progress: Tensor) -> Tensor:
        """m (), after a share ``progress`` () of training: fixed, or 1 - (1 - m) (1 + cos(π progress)) / 2 (BYOL)."""
        m = self.settings.momentum
        return 1 - (1 - m) * (1 + (math.pi * progress).cos()) / 2 if self.settings.ramp else torch.full_like(progress, m)

    def update(self, trained: Method, momentum: Tensor) -> None:
        """One step towards the trained network, by its share 1 - ``momentum`` ()."""
        pairs = [(self.encoder, trained.encoder), (self.projector, trained.projector)]
        pairs = [(own, new) for own, new in pairs if own is not None]
        tensors = [pair for own, new in pairs for pair in zip(own.parameters(), new.parameters(), strict=True)]
        if self.settings.buffers == "average":
            tensors += [pair for own, new in pairs for pair in zip(own.buffers(), new.buffers(), strict=True)]
        approach([pair for pair in tensors if pair[0].is_floating_point()], 1 - momentum)
        for counter, target in tensors:
            if not counter.is_floating_point():
                counter.copy_(target)

    @torch.no_grad()
    def project(self, views: Sequence[Tensor]) -> Tensor:
        """As `Method.project`, without gradient."""
        return project(self, views)


@torch.no_grad()
def approach(pairs: Sequence[tuple[Tensor, Tensor]], share: Tensor) -> None:
    """value <- value + share (target - value) for each pair (value, target), in place; ``share`` () is read on their device."""
    values, targets = ([pair[which] for pair in pairs] for which in (0, 1))
    steps = torch._foreach_sub(targets, values)
    torch._foreach_mul_(steps, share.to(values[0].dtype))
    torch._foreach_add_(values, steps)
