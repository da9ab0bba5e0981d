"""LOOK, our reconstruction: an image must share its class with most of its k nearest neighbours.

    s_ij = z_i · v_j,  N_k(i) = the k largest s_ij among the bank's keys that are not of image i itself,
    L = -(1/A) Σ_i log [ Σ_{j in N_k(i), y_j = y_i} exp(s_ij/τ) / Σ_{j in N_k(i)} exp(s_ij/τ) ]

z: unit-norm projections of all views, with gradient; v: unit-norm projections by the moving average, kept in a bank.
Source: the idea (weighted kNN, leave-one-out) arXiv 2110.06014; the form and every value are ours (papers/README.md 1.2). With
k = the bank's length it is soft-neighbour NCA (SNCA, microsoft/snca.pytorch).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from studylib.config import RunConfig
from studylib.methods.bank import Bank
from studylib.methods.batch import STEADY, Batch
from studylib.methods.ema import Average
from studylib.methods.method import Method, similarities


class Look(Method):
    """``look``."""

    def __init__(self, config: RunConfig, classes: int, mean: Tensor, std: Tensor):
        """``classes``: C; ``mean``, ``std`` (3,) of the training images in [0, 1]."""
        super().__init__(config, mean, std)
        self.average = Average(self, config.ema)
        self.bank = Bank(config.bank, self.outputs, classes)
        self.unused_parameters = config.look.start == "warmup"
        self.classifier = nn.Linear(self.outputs, classes) if self.unused_parameters else None

    def phase(self, progress: float) -> str:
        """``falling`` and ``warmup`` while that start lasts, ``filled`` until the bank is full."""
        start = self.config.look.start
        lasts = not self.bank.full if start == "filled" else progress < self.config.look.start_share
        return start if start in ("falling", "warmup", "filled") and lasts else STEADY

    def repeats(self, phase: str) -> bool:
        """Not in ``warmup`` and ``filled``, nor until the bank is full."""
        return super().repeats(phase) and phase in ("falling", STEADY)

    def started(self, progress: Tensor) -> Tensor:
        """Share () of the start that is over, in [0, 1]."""
        return (progress / self.config.look.start_share).clamp(max=1.0)

    def k(self, progress: Tensor) -> Tensor:
        """Neighbours () that decide in ``falling``: from the bank's length Q linearly to k."""
        length = len(self.bank)
        return (length + (self.config.look.k - length) * self.started(progress)).round()

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Leave-one-out loss of all views; in the log k, and the share (%) of views without a neighbour of their class."""
        z, views = self.project(batch.views), len(batch.views)
        labels, ids = batch.labels.repeat(views), batch.ids.repeat(views)
        k = self.k(batch.progress) if batch.phase == "falling" else self.config.look.k
        if z.device.type == "cpu":  # where reading it costs nothing, and sorting all keys does
            k = int(k)
        options = {"k": k, "temperature": self.config.temperature, "no_positive": self.config.look.no_positive}
        losses, counted = leave_one_out(z, labels, ids, *self.bank.content(), **options)
        loss = losses.mean()
        if batch.phase == "warmup":
            loss = functional.cross_entropy(self.classifier(z), labels)
        elif batch.phase == "filled":
            loss = loss * 0
        return loss, {"k": 0 * batch.progress + k, "no_positive": 100 * (~counted).float().mean()}

    def after_step(self, batch: Batch) -> None:
        """The average follows, and its keys of the first crop enter the bank."""
        momentum = self.average.momentum(batch.progress)
        if self.config.look.start == "ramp":
            momentum = momentum * self.started(batch.progress)
        self.average.update(self, momentum)
        self.bank.push(self.average.project(batch.views[:1]), batch.labels, batch.ids)


def leave_one_out(
    z: Tensor,
    labels: Tensor,
    ids: Tensor,
    keys: Tensor,
    key_labels: Tensor,
    key_ids: Tensor,
    *,
    k: int | Tensor,
    temperature: float,
    no_positive: str = "skip",
) -> tuple[Tensor, Tensor]:
    """Losses (A,) of anchors z (A, p) with their labels and ids among keys (F, p) with theirs, and which of them count.

    Keys with the anchor's id are left out. Where fewer than k are left, all of them decide. An anchor without a neighbour of
    its class has loss 0 and no gradient (``skip``), or the nearest key of its class joins its neighbours (``nearest``).

    A k that changes from step to step is a tensor (): keys beyond that rank are masked instead of left out, so that the
    operations are the same for every k; keys that are exactly as near as the one of rank k decide with it.
    """
    if not len(keys):
        return 0 * z.sum(1), torch.zeros(len(z), dtype=torch.bool, device=z.device)
    similarity = similarities(z, keys) / temperature
    similarity = similarity.masked_fill(ids[:, None] == key_ids, -math.inf)
    if isinstance(k, Tensor):
        same = key_labels == labels[:, None]
        near = similarity.masked_fill(similarity < value_of_rank(similarity.detach(), k), -math.inf)
    else:
        near, rows = similarity.topk(min(k, len(keys)), dim=1)
        same = key_labels[rows] == labels[:, None]
    if no_positive == "nearest":
        best = similarity.masked_fill(key_labels != labels[:, None], -math.inf).amax(1, keepdim=True)
        lacking = ~(same & (near != -math.inf)).any(1, keepdim=True)
        near = torch.cat((near, best.masked_fill(~lacking, -math.inf)), dim=1)
        same = torch.cat((same, lacking), dim=1)
    own = near.masked_fill(~same, -math.inf)
    counted = (own != -math.inf).any(1)  # NaN counts, so that it is seen
    near, own = (values.masked_fill(~counted[:, None], 0.0) for values in (near, own))
    return near.logsumexp(1) - own.logsumexp(1), counted


def value_of_rank(values: Tensor, rank: Tensor) -> Tensor:
    """The ``rank``-th largest of each row of values (A, F), from 1; the smallest where there are fewer: (A, 1)."""
    place = rank.long().clamp(max=values.shape[1]) - 1
    return values.sort(dim=1, descending=True).values.gather(1, place.expand(len(values), 1))
