"""DINO: all crops must give the distribution over prototypes that the moving average gives to the global crops.

    L = mean over pairs (global crop g, other crop v) of -Σ_c p'_c(g) log p_c(v),
    p = softmax(z·w_c / τ),  p' = softmax((z'·w'_c - centre_c) / τ')

z: unit-norm projections, w_c: unit-norm prototypes, learned; the centre is a moving average of z'·w'. Source: Caron et al.
2021. Deviations: prototypes of unit norm, none of them frozen in the first epoch; a fixed temperature of the teacher; the
optimiser and schedule of all methods here.
"""

import torch
from torch import Tensor, nn

from studylib import distributed
from studylib.config import RunConfig
from studylib.methods.batch import Batch
from studylib.methods.ema import Average, approach
from studylib.methods.method import Method, similarities


class Dino(Method):
    """``dino``."""

    centre: Tensor

    def __init__(self, config: RunConfig, classes: int, mean: Tensor, std: Tensor):
        """``classes`` is not needed; ``mean``, ``std`` (3,) of the training images in [0, 1]."""
        super().__init__(config, mean, std)
        self.prototypes = nn.Parameter(torch.randn(config.dino.prototypes, self.outputs))
        self.average = Average(self, config.ema)
        self.register_buffer("average_prototypes", self.prototypes.detach().clone())
        self.register_buffer("centre", torch.zeros(config.dino.prototypes))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy over the pairs of crops, and the entropy of the mean target (0: collapsed on one prototype)."""
        views, settings = batch.views, self.config.dino
        student = (similarities(self.project(views), self.prototypes) / self.config.temperature).log_softmax(1)
        with torch.no_grad():
            self.new = similarities(self.average.project(views[:2]), self.average_prototypes)
            teacher = ((self.new - self.centre) / settings.teacher_temperature).softmax(1)
        student, teacher = student.chunk(len(views)), teacher.chunk(2)
        pairs = [(target, found) for g, target in enumerate(teacher) for v, found in enumerate(student) if v != g]
        loss = sum(-(target * found).sum(1).mean() for target, found in pairs) / len(pairs)
        mean = distributed.mean(torch.cat(teacher).mean(0))
        return loss, {"target_entropy": -(mean * mean.clamp_min(1e-12).log()).sum()}

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        """The centre, the average and its prototypes follow."""
        self.centre.lerp_(distributed.mean(self.new.mean(0)), 1 - self.config.dino.centre_momentum)
        momentum = self.average.momentum(batch.progress)
        self.average.update(self, momentum)
        approach([(self.average_prototypes, self.prototypes)], 1 - momentum)
