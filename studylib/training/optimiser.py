"""SGD, and its learning rate as a function of the step."""

import math

import torch
from torch import Tensor, nn

from studylib.config import Optimisation


def sgd(method: nn.Module, settings: Optimisation, rate: Tensor) -> torch.optim.SGD:
    """SGD with weight decay on parameters of two or more dimensions only (as t-ReX, code:main.py).

    ``rate`` () is read at each step: fill it to change the learning rate.
    """
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = trained[0].device.type in ("cpu", "cuda")
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=fused)


def learning_rate(number: int, steps: int, settings: Optimisation) -> float:
    """Rate of step ``number`` (from 0) with ``steps`` per epoch: linear warm-up from 0, then a cosine to ``final_lr``."""
    peak, warmup = settings.peak, settings.warmup_epochs * steps
    if number < warmup:
        return peak * (number + 1) / math.ceil(warmup)
    progress = (number - warmup) / max(1.0, settings.epochs * steps - warmup)
    return settings.final_lr + (peak - settings.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
