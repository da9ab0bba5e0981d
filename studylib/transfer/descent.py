"""What the protocols that train on downstream images share: SGD steps, and settings chosen on held-out training images."""

import copy
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from studylib import device as devices
from studylib.data import ImageSet
from studylib.data.augment import Augmentation, Numbers, crop_and_flip, draw
from studylib.data.splits import stratified_split
from studylib.errors import InputError, RunError
from studylib.training.loop import AUGMENTATION, ORDER, seed_of
from studylib.transfer.accuracy import mean_per_class, top1
from studylib.transfer.inputs import check_set, check_sets

TOGETHER = 512  # ours: images encoded at a time
Part = tuple[Tensor, Tensor]  # images or features (N, ...), labels (N,)


class Tunable(Protocol):
    """Fields that these protocols have in common."""

    learning_rates: tuple[float, ...]
    search_epochs: int
    epochs: int
    held_out: float
    crop_scale: tuple[float, float]
    seed: int

    def grid(self) -> list[tuple]:
        """Settings to choose from, lr first, in the order in which equals are preferred."""


def check_budget(name: str, protocol: Tunable) -> None:
    """Raise an `InputError`, named after the protocol's ``name``, for a field that cannot be used."""

    def refuse_unless(ok: bool, field: str, fix: str) -> None:
        if not ok:
            raise InputError(f"{name}.{field}", getattr(protocol, field), fix)

    refuse_unless(
        bool(protocol.learning_rates) and all(0 < lr < math.inf for lr in protocol.learning_rates),
        "learning_rates",
        "must be some positive numbers",
    )
    refuse_unless(protocol.epochs >= 1, "epochs", "must be at least 1")
    points = len(protocol.grid())
    refuse_unless(protocol.search_epochs >= (points > 1), "search_epochs", f"must be at least 1 for a grid of {points} points")
    refuse_unless(0 < protocol.held_out < 1, "held_out", "must be between 0 and 1")
    low, high = protocol.crop_scale
    refuse_unless(0 < low <= high <= 1, "crop_scale", "must be two shares of the image's area in (0, 1], the smaller first")


def said(values: Iterable[Any]) -> str:
    """Values of a grid, such as ``0.01|0.1``."""
    return "|".join(f"{value:g}" for value in values)


def describe_tuning(protocol: Tunable) -> str:
    """How the settings are chosen and how long the final fit is."""
    tuned = (
        f"tried for {protocol.search_epochs} epochs, scored on {protocol.held_out:.0%} held-out training images (stratified), "
        "then "
    )
    return f"{tuned if len(protocol.grid()) > 1 else ''}{protocol.epochs} epochs on all (seed {protocol.seed})"


def describe_crops(protocol: Tunable) -> str:
    """What training images are augmented by."""
    low, high = protocol.crop_scale
    return f"crops of {low:.0%}…{high:.0%} of the image and flips (where the set allows them)"


def prepare(
    network: nn.Module, images: ImageSet, device: str | torch.device | None
) -> tuple[nn.Module, Part, Part, torch.device]:
    """A trainable copy of the network in eval mode, training and test images with their labels, and the device.

    Raises:
        InputError: a part is empty, there is one class, or the network does not give finite features (B, d).
    """
    device = devices.find(device)
    train, test = images.train, images.test
    stand_ins = (value for part in (train, test) for value in (part.labels[:, None].float(), part.labels))
    check_sets(*stand_ins, images.num_classes)
    network = copy.deepcopy(network).to(device).requires_grad_(True).eval()
    check_set("network", encode(network, train.images[:2], device), train.labels[:2], images.num_classes)
    return network, (train.images, train.labels), (test.images, test.labels), device


@torch.no_grad()
def encode(network: nn.Module, values: Tensor, device: torch.device) -> Tensor:
    """Outputs (N, p), float32, of the network in eval mode for images or features (N, ...)."""
    network.eval()
    return torch.cat([network(part.to(device)).float() for part in values.split(TOGETHER)])


def descend(
    network: nn.Module,
    values: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    lr: float,
    batch: int,
    weight_decay: float,
    momentum: float,
    epochs: int,
    seed: int,
    crop: Augmentation | None,
    device: torch.device,
) -> bool:
    """Train ``network`` by SGD on ``loss(inputs, rows)`` over ``values`` (N, ...); False once that is not finite.

    The rate falls to a tenth at half and at three quarters of the epochs (papers.md 2.6), rounded down; an epoch's last
    batch is left out if it is not full, and a set of fewer than a batch is one batch. uint8 images are cropped and flipped
    by ``crop``; features are taken as they are. Order and crops are drawn as in `studylib.training.loop`.
    """
    optimiser = torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    count, generator = len(values), torch.Generator(device)
    steps = count // min(batch, count)
    network.train()
    for epoch in range(epochs):
        for group in optimiser.param_groups:
            group["lr"] = lr * 0.1 ** ((epoch >= epochs // 2) + (epoch >= epochs * 3 // 4))
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed_of(seed, ORDER, epoch)))
        for step, rows in enumerate(order.split(min(batch, count))[:steps]):
            inputs = values[rows].to(device)
            if crop:
                generator.manual_seed(seed_of(seed, AUGMENTATION, epoch * steps + step))
                inputs = crop_and_flip(inputs.float(), crop, Numbers(*draw(len(inputs), generator))) / 255
            value = loss(inputs, rows.to(device))
            if not value.isfinite():
                return False
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    return all(bool(parameter.isfinite().all()) for parameter in network.parameters())


def steps_of(count: int, batch: int, epochs: int) -> int:
    """Images in all steps of `descend`."""
    batch = min(batch, count)
    return count // batch * batch * epochs


def choose_and_fit(
    protocol: Tunable, train: Part, test: Part, fit: Callable[..., Tensor | None], batch: Callable[[tuple], int]
) -> dict[str, Any]:
    """Fields of the result of the settings with the best held-out top-1 (of equals the first), fitted to all of ``train``.

    ``fit(point, epochs, seen, labels, unseen)`` gives the classes of ``unseen``, or None where it diverged; a point that
    does is scored nan and never chosen. ``batch(point)`` is its batch. The test images are used once, after the choice.

    Raises:
        RunError: every point of the grid, or the final fit, diverged.
    """
    (values, labels), (unseen, test_labels) = train, test
    grid, scores, seen = protocol.grid(), [math.nan], 0
    advice = f"lower learning_rates={said(protocol.learning_rates)}"
    started = time.monotonic()
    if len(grid) > 1:
        rows, held_out = stratified_split(labels, protocol.held_out, protocol.seed)
        scores = []
        for point in grid:
            predicted = fit(point, protocol.search_epochs, values[rows], labels[rows], values[held_out])
            scores.append(math.nan if predicted is None else top1(predicted, labels[held_out]))
            seen += steps_of(len(rows), batch(point), protocol.search_epochs)
        if all(map(math.isnan, scores)):
            raise RunError(f"fine-tuning diverged with all {len(grid)} settings; {advice}")
    best = grid[max(range(len(grid)), key=lambda number: -1 if math.isnan(scores[number]) else scores[number])]
    tuned = time.monotonic()
    predicted = fit(best, protocol.epochs, values, labels, unseen)
    if predicted is None:
        raise RunError(f"fine-tuning diverged on all training images with the chosen {best}; {advice}")
    ended = time.monotonic()
    return {
        "point": best,
        "top1": top1(predicted, test_labels),
        "mean_per_class": mean_per_class(predicted, test_labels),
        "at_grid_edge": len(set(protocol.learning_rates)) > 1
        and best[0] in (min(protocol.learning_rates), max(protocol.learning_rates)),
        "images_seen": seen + steps_of(len(labels), batch(best), protocol.epochs),
        "failed": sum(map(math.isnan, scores)) if len(grid) > 1 else 0,
        "validation": tuple((*point, score) for point, score in zip(grid, scores, strict=True)) if len(grid) > 1 else (),
        "seconds": ended - started,
        "seconds_training": ended - tuned,
    }
