"""LOOK's memory-based fine-tuning, our reconstruction: the leave-one-out kNN loss against a memory of the training images.

    L = -(1/B) Σ_i log [ Σ_{j in N_k(i), y_j = y_i} exp(s_ij/τ) / Σ_{j in N_k(i)} exp(s_ij/τ) ],   s_ij = z_i · v_j

z: unit-norm embedding of training image i, with gradient; v_j: that of image j when it was last in a batch; N_k(i): the k
largest s_ij over j ≠ i. Test images are classified by the weighted vote of their k nearest training images: there is no
classifier. Source: that such fine-tuning exists, arXiv 2110.06014; its form and every value are ours (papers/README.md 1.1,
1.2).
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from studylib import neighbours
from studylib.data import ImageSet
from studylib.methods.look import leave_one_out
from studylib.transfer import descent
from studylib.transfer.linear_fine_tune import Budget

NO_POSITIVE = "nearest"  # ours: an image with none of its class among its neighbours gets the nearest one of it


@dataclass(frozen=True, kw_only=True)
class MemoryFineTune(Budget):
    """The encoder, or a linear ``projection`` of its frozen features, under the leave-one-out kNN loss; values are ours."""

    name: ClassVar[str] = "memory_fine_tune"
    trains: ClassVar[tuple[str, ...]] = ("encoder", "projection")

    learning_rates: tuple[float, ...] = (0.03, 0.01)
    ks: tuple[int, ...] = (5, 20)
    """neighbours that decide, in the loss and in the vote"""
    temperatures: tuple[float, ...] = (0.07,)
    """τ, of the loss and of the vote"""

    def __post_init__(self) -> None:
        for name, values in (("ks", self.ks), ("temperatures", self.temperatures)):
            self.check(name, bool(values) and min(values) > 0, "must be some positive numbers")
        super().__post_init__()

    def grid(self) -> list[tuple[float, int, float]]:
        """(lr, k, τ), in the order in which equals are preferred."""
        return list(itertools.product(self.learning_rates, self.ks, self.temperatures))

    def options(self, point: tuple[float, int, float]) -> dict[str, Any]:
        return super().options(point) | {"k": point[1], "temperature": point[2]}

    def kind(self) -> str:
        return (
            f"memory fine-tuning (our reconstruction of LOOK's): leave-one-out kNN loss of the {self.what}, "
            f"k={descent.joined(self.ks)}, τ={descent.joined(self.temperatures)}, no positive: {NO_POSITIVE}"
        )


@dataclass(frozen=True, kw_only=True)
class MemoryFineTuneResult(descent.Result):
    """Accuracies on the test images in %, and how they came about."""

    k: int
    temperature: float


def memory_fine_tune_accuracy(
    network: nn.Module, images: ImageSet, protocol: MemoryFineTune, *, features: Tensor | None = None
) -> MemoryFineTuneResult:
    """Test accuracy by weighted kNN among all training images, with the lr, k and τ best on held-out training images.

    The test images are used once, after the choice. Arguments and errors are those of `studylib.transfer.descent.carry_out`.
    """
    (_, k, temperature), fields = descent.carry_out(network, images, protocol, fit_memory, head=Projection, features=features)
    return MemoryFineTuneResult(**fields, k=k, temperature=temperature)


class Projection(nn.Module):
    """A linear layer (d × d) of l2-normalised features (B, d) that starts as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.eye(width)), nn.Parameter(torch.zeros(width))

    def forward(self, features: Tensor) -> Tensor:
        return functional.linear(functional.normalize(features, dim=1), self.weight, self.bias)


class Memory:
    """v: the embeddings (N, p) of all training images, with their labels (N,) and ids 0 ... N-1."""

    def __init__(self, embeddings: Tensor, labels: Tensor):
        self.embeddings = embeddings.clone()
        self.labels, self.ids = labels, torch.arange(len(labels), device=labels.device)

    def loss(self, z: Tensor, rows: Tensor, **options: Any) -> Tensor:
        """L of the embeddings z (B, p) of the images ``rows`` (B,), which then take their rows of the memory."""
        losses, _ = leave_one_out(z, self.labels[rows], rows, self.embeddings, self.labels, self.ids, **options)
        self.embeddings[rows] = z.detach().to(self.embeddings)
        return losses.mean()


def fit_memory(
    body: nn.Module,
    values: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    k: int,
    temperature: float,
    device: torch.device,
    **options: Any,
) -> Tensor | None:
    """Classes of ``queries`` after a copy of ``body`` was trained with the memory; None if that diverged.

    The memory begins with all of ``values`` in eval mode. A step writes the embeddings that its loss was computed from, those
    before the weights move (as SNCA's memory), so that no image passes twice. After the last step all are embedded anew,
    whole and in eval mode, for the vote. ``options`` are those of `studylib.transfer.descent.descend`.
    """
    body, labels = copy.deepcopy(body).to(device), labels.to(device)
    memory = Memory(descent.encode(body, values, device), labels)

    def loss(inputs: Tensor, rows: Tensor) -> Tensor:
        return memory.loss(body(inputs), rows, k=k, temperature=temperature, no_positive=NO_POSITIVE)

    if not descent.descend(body, values, loss, device=device, **options):
        return None
    gallery, queries = (descent.encode(body, images, device) for images in (values, queries))
    k, classes = min(k, len(gallery)), int(labels.max()) + 1
    return neighbours.classify(queries, gallery, labels, classes, k=k, temperature=temperature).cpu()
