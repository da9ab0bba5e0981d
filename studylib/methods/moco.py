"""MoCo: a view must be closer to the key of the other view of its image than to the keys in a queue.

    L = -(1/B) Σ_i log [ exp(q_i·k_i/τ) / (exp(q_i·k_i/τ) + Σ_n exp(q_i·v_n/τ)) ]

q: projections of the first view; k: the moving average's of the second, which then enter the queue v. Source: He et al.
2020 (v1: a linear layer as projector) and Chen et al. 2020 (v2: an MLP).

Deviation: keys are not shuffled over GPUs to hide batch statistics; ``ema.buffers=average`` normalises keys by running
statistics instead, which tell nothing about the batch.
"""

import torch
from torch import Tensor
from torch.nn import functional

from studylib.config import RunConfig
from studylib.methods.bank import Bank
from studylib.methods.batch import Batch
from studylib.methods.ema import Average
from studylib.methods.method import Method, similarities
from studylib.precision import full


class MoCo(Method):
    """``moco_v1`` and ``moco_v2``, which differ in their settings."""

    def __init__(self, config: RunConfig, classes: int, mean: Tensor, std: Tensor):
        """``classes`` is not learned from; ``mean``, ``std`` (3,) of the training images in [0, 1]."""
        super().__init__(config, mean, std)
        self.average = Average(self, config.ema)
        self.bank = Bank(config.bank, self.outputs, classes)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of finding the other view's key, and the share (%) of views that find it."""
        query = self.project(batch.views[:1])
        self.new = self.average.project(batch.views[1:])
        matching = functional.cosine_similarity(full(query), full(self.new), dim=1)
        logits = torch.cat((matching[:, None], similarities(query, self.bank.content()[0])), dim=1) / self.config.temperature
        loss = functional.cross_entropy(logits, torch.zeros_like(batch.labels))
        return loss, {"train_top1": 100 * (logits.argmax(1) == 0).float().mean()}

    def after_step(self, batch: Batch) -> None:
        """The keys of this step enter the queue, and the average follows."""
        self.bank.push(self.new, batch.labels, batch.ids)
        self.average.update(self, self.average.momentum(batch.progress))
