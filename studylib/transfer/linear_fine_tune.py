"""Cross-entropy fine-tuning with a linear layer, on the budget of memory fine-tuning, whose rival it is (claim L5).

    L = (1/B) Σ_i CE(W BN(f(x_i)) + b, y_i)

f is frozen (``linear``) or trained along (``encoder``). The head is that of `studylib.transfer.fine_tune`; values are ours.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from studylib.data import ImageSet
from studylib.data.augment import Augmentation
from studylib.errors import InputError, choose
from studylib.transfer import descent
from studylib.transfer.fine_tune import fit_classifier
from studylib.transfer.inputs import check_sets
from studylib.transfer.sgd import MOMENTUM


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Steps, optimiser and choice, the same for both kinds of fine-tuning so that they can be compared; values are ours."""

    name: ClassVar[str]
    trains: ClassVar[tuple[str, ...]]

    what: str = "encoder"
    """what is trained: the encoder, or what stands on it while it is frozen"""
    learning_rates: tuple[float, ...]
    batch: int = 32
    weight_decay: float = 0.0
    momentum: float = MOMENTUM
    search_epochs: int = 4
    """of each point of the grid; a grid of one point is not tuned"""
    epochs: int = 8
    """of the final fit"""
    held_out: float = 0.3
    crop_scale: tuple[float, float] = (0.25, 1.0)
    """range of a training crop's share of the image for ``encoder``; a frozen one sees whole images, once"""
    seed: int = 0
    """of the split, the start, the batches and the crops"""

    def __post_init__(self) -> None:
        choose(f"{self.name}.what", self.what, self.trains)
        if self.batch < 2:
            raise InputError(f"{self.name}.batch", self.batch, "must be at least 2: BatchNorm needs two images")
        if not 0 <= self.weight_decay < float("inf"):
            raise InputError(f"{self.name}.weight_decay", self.weight_decay, "must be at least 0")
        if not 0 <= self.momentum < 1:
            raise InputError(f"{self.name}.momentum", self.momentum, "must be in [0, 1)")
        descent.check_budget(self.name, self)

    def grid(self) -> list[tuple]:
        """Settings to choose from, lr first, in the order in which equals are preferred."""
        return [(lr,) for lr in self.learning_rates]

    def said(self) -> str:
        """The kind, in a few words."""
        raise NotImplementedError

    def describe(self) -> str:
        """Everything in one line."""
        trained = f"encoder trained along on {descent.describe_crops(self)}" if self.what == "encoder" else "encoder frozen"
        return (
            f"{self.said()}, {trained}; SGD (momentum {self.momentum:g}, batch {self.batch}, weight decay "
            f"{self.weight_decay:g}, lr ×0.1 at 1/2 and 3/4), lr {descent.said(self.learning_rates)}; "
            f"{descent.describe_tuning(self)}"
        )


@dataclass(frozen=True, kw_only=True)
class LinearFineTune(Budget):
    """BatchNorm1d(affine=True) + Linear under cross-entropy."""

    name: ClassVar[str] = "linear_fine_tune"
    trains: ClassVar[tuple[str, ...]] = ("encoder", "linear")

    learning_rates: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003)

    def said(self) -> str:
        return "cross-entropy fine-tuning: BatchNorm + linear layer"


@dataclass(frozen=True)
class BudgetResult:
    """Accuracies on the test images in %, and what they cost."""

    top1: float
    mean_per_class: float
    """mean over the classes that have test images"""
    learning_rate: float
    at_grid_edge: bool
    """whether lr is the largest or smallest of several, so that a better one may lie outside"""
    images_seen: int
    """images, or their frozen features, in all steps of choice and final fit"""
    failed: int
    """points of the grid that diverged"""
    validation: tuple[tuple[float, ...], ...]
    """(the grid's settings, held-out top-1 in % or nan) over the grid; nothing for a grid of one point"""
    seconds: float = field(compare=False)
    """of choice, final fit and prediction, and of encoding if frozen features were not given"""
    seconds_training: float = field(compare=False)
    """of final fit and prediction"""


def linear_fine_tune_accuracy(
    network: nn.Module,
    images: ImageSet,
    protocol: LinearFineTune,
    device: str | torch.device | None = None,
    *,
    features: Tensor | None = None,
) -> BudgetResult:
    """Test accuracy of the linear layer with the best held-out learning rate, fitted to all training images.

    ``network`` maps images (B, 3, H, W), uint8 or float in [0, 1], to features (B, d); see
    `studylib.transfer.fine_tune.trainable`. A copy is trained. ``features`` (N, d) of all ``images`` by the network, if they
    are known, spare it the encoding where it is frozen. The test images are used once, after the choice.

    Raises:
        InputError: a set without training or test images or with one class, or a network that does not give features.
        RunError: every point of the grid, or the final fit, diverged.
    """

    def fit(body: nn.Module, point: tuple[float], *data: Tensor, **options: Any) -> Tensor | None:
        return fit_classifier(body, *data, lr=point[0], **options)

    found = carry_out(network, images, protocol, device, features, lambda width: nn.Identity(), fit)
    return BudgetResult(learning_rate=found.pop("point")[0], **found)


def carry_out(
    network: nn.Module,
    images: ImageSet,
    protocol: Budget,
    device: str | torch.device | None,
    features: Tensor | None,
    start: Callable[[int], nn.Module],
    fit: Callable[..., Tensor | None],
) -> dict[str, Any]:
    """As `studylib.transfer.descent.choose_and_fit`, on crops with the network or on frozen features with ``start(d)``.

    ``fit(body, point, seen, labels, unseen, **options)`` trains a copy of ``body``, the network or ``start(d)``.
    """
    body, train, test, device = descent.prepare(network, images, device)
    crop = Augmentation(crop_scale=protocol.crop_scale, flip=0.5 if images.flip else 0.0)
    started = time.monotonic()
    if protocol.what != "encoder":
        if features is not None and len(features) != len(images.labels):
            raise InputError(
                "features", (*features.shape,), f"must be those of the {len(images.labels)} images, in their order"
            )
        parts = (0, 1) if features is None else (features[images.split == 0], features[images.split == 1])
        if features is None:
            parts = tuple(descent.encode(body, part[0], device) for part in (train, test))
        train, test = (parts[0].cpu().float(), train[1]), (parts[1].cpu().float(), test[1])
        check_sets(*train, *test, images.num_classes)
        body, crop = start(train[0].shape[1]), None
    encoded = time.monotonic()
    options = {"batch": protocol.batch, "weight_decay": protocol.weight_decay, "momentum": protocol.momentum}
    options |= {"crop": crop, "seed": protocol.seed, "device": device}

    def attempt(point: tuple, epochs: int, *data: Tensor) -> Tensor | None:
        return fit(body, point, *data, epochs=epochs, **options)

    found = descent.choose_and_fit(protocol, train, test, attempt, lambda point: protocol.batch)
    return found | {"seconds": found["seconds"] + encoded - started}
