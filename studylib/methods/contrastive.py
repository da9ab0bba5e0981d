"""SupCon and SimCLR: each view must be closer to its positives than to all other views of the batch.

    L = -(1/A) Σ_i (1/|P(i)|) Σ_{p in P(i)} log [ exp(z_i·z_p/τ) / Σ_{a != i} exp(z_i·z_a/τ) ]

SupCon (Khosla et al. 2020, L_out): P(i) = other views of the same class. SimCLR's NT-Xent (Chen et al. 2020): P(i) = other
views of the same image, which is the same formula with images as classes.
"""

import math

import torch
from torch import Tensor

from studylib import distributed
from studylib.config import RunConfig
from studylib.methods.batch import Batch
from studylib.methods.method import Method, similarities


class Contrastive(Method):
    """``supcon`` and ``simclr``."""

    def __init__(self, config: RunConfig, classes: int, mean: Tensor, std: Tensor):
        """``classes`` is not needed; ``mean``, ``std`` (3,) of the training images in [0, 1]."""
        super().__init__(config, mean, std)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Contrastive loss of all views, and the share (%) of views whose nearest other view is a positive."""
        z = self.project(batch.views)
        groups = (batch.labels if self.config.method == "supcon" else batch.ids).repeat(len(batch.views))
        others, other_groups = distributed.gather(z), distributed.gather(groups)
        first = distributed.rank() * len(z)
        itself = torch.arange(first, first + len(z), device=z.device)[:, None] == torch.arange(len(others), device=z.device)
        similarity = (similarities(z, others) / self.config.temperature).masked_fill(itself, -math.inf)
        positive = (groups[:, None] == other_groups) & ~itself
        log_share = similarity - similarity.logsumexp(1, keepdim=True)
        loss = -log_share.masked_fill(~positive, 0.0).sum(1) / positive.sum(1)
        nearest = similarity.argmax(1, keepdim=True)
        return loss.mean(), {"train_top1": 100 * positive.gather(1, nearest).float().mean()}
