"""What the protocols that train on downstream images share: SGD steps, and settings chosen on held-out training images."""

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from studylib import device as devices
from studylib.data import ImageSet
from studylib.data.augment import Augmentation, Numbers, crop_and_flip, draw
from studylib.data.splits import stratified_split
from studylib.errors import InputError, RunError
from studylib.training.loop import AUGMENTATION, ORDER, seed_of
from studylib.transfer.accuracy import mean_per_class, top1
from studylib.transfer.broad12 import HELD_OUT
from studylib.transfer.inputs import check_set, check_sets
from studylib.transfer.sgd import MOMENTUM

TOGETHER = 512  # ours: images encoded at a time
CROP_SCALE = (0.25, 1.0)  # ours: range of a training crop's share of the image
Part = tuple[Tensor, Tensor]  # images or features (N, ...), labels (N,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that these protocols have in common: a grid to choose from, and the length of choice and final fit."""

    name: ClassVar[str]
    """of the protocol, as errors have it"""
    what: ClassVar[str] = "encoder"
    """what is trained: the encoder, or what stands on it while it is frozen"""

    learning_rates: tuple[float, ...]
    search_epochs: int
    """of each point of the grid; a grid of one point is not tuned"""
    epochs: int
    """of the final fit"""
    seed: int = 0
    """of the split, the start, the batches and the crops; ours"""

    def __post_init__(self) -> None:
        self.check(
            "learning_rates",
            bool(self.learning_rates) and all(0 < lr < math.inf for lr in self.learning_rates),
            "must be some positive numbers",
        )
        self.check("epochs", self.epochs >= 1, "must be at least 1")
        points = len(self.grid())
        self.check("search_epochs", self.search_epochs >= (points > 1), f"must be at least 1 for a grid of {points} points")

    def check(self, field: str, ok: bool, fix: str) -> None:
        """Raise an `InputError` that names ``field`` unless it is ``ok``."""
        if not ok:
            raise InputError(f"{self.name}.{field}", getattr(self, field), fix)

    def grid(self) -> list[tuple]:
        """Points to choose from, the learning rate first, in the order in which equals are preferred."""
        raise NotImplementedError

    def options(self, point: tuple) -> dict[str, Any]:
        """``lr``, ``batch`` and ``weight_decay`` of a point of the grid, and what else the fit takes."""
        raise NotImplementedError

    def describe_tuning(self) -> str:
        """How the settings are chosen and how long the final fit is."""
        tuned = (
            f"tried for {self.search_epochs} epochs, scored on {HELD_OUT:.0%} held-out training images (stratified), then "
            if len(self.grid()) > 1
            else ""
        )
        return f"{tuned}{self.epochs} epochs on all (seed {self.seed})"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Accuracies on the test images in %, and how they came about."""

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
    validation: tuple[tuple[Any, ...], ...]
    """(the point of the grid, held-out top-1 in % or nan) over the grid; nothing for a grid of one point"""
    seconds: float = field(compare=False)
    """of choice, final fit and prediction, and of encoding if frozen features were not given"""
    seconds_training: float = field(compare=False)
    """of final fit and prediction"""


def joined(values: Iterable[float]) -> str:
    """Values of a grid, such as ``0.01|0.1``."""
    return "|".join(f"{value:g}" for value in values)


def describe_crops() -> str:
    """What training images are augmented by."""
    low, high = CROP_SCALE
    return f"crops of {low:.0%}…{high:.0%} of the image and flips (where the set allows them)"


def carry_out(
    network: nn.Module,
    images: ImageSet,
    protocol: Settings,
    fit: Callable[..., Tensor | None],
    *,
    head: Callable[[int], nn.Module] | None = None,
    features: Tensor | None = None,
) -> tuple[tuple, dict[str, Any]]:
    """The chosen point of the grid and the fields of the `Result`, as `choose_and_fit`.

    Args:
        network: maps images (B, 3, H, W), uint8 or float in [0, 1], to features (B, d); it is not changed.
        fit: ``fit(body, values, labels, queries, **options)`` gives the classes of ``queries`` after a copy of ``body`` was
            trained on ``values``, or None where that diverged; options are those of `descend` and of ``protocol.options``.
        head: of the feature's width d: what is trained on frozen features where the protocol does not train the encoder.
        features: (N, d) of all ``images`` by the network: they spare it the encoding where it is frozen.

    Raises:
        InputError: a set without training or test images or with one class, a network that does not give finite features
            (B, d), or ``features`` of another number of images.
        RunError: every point of the grid, or the final fit, diverged.
    """
    device = devices.find()
    train, test = images.train, images.test
    stand_ins = (value for part in (train, test) for value in (part.labels[:, None].float(), part.labels))
    check_sets(*stand_ins, images.num_classes)
    body = copy.deepcopy(network).to(device).requires_grad_(True).eval()
    check_set("network", encode(body, train.images[:2], device), train.labels[:2], images.num_classes)
    parts = (train.images, train.labels), (test.images, test.labels)
    crop = Augmentation(crop_scale=CROP_SCALE, flip=0.5 if images.flip else 0.0)
    started = time.monotonic()
    if protocol.what != "encoder":
        if features is None:
            encoded = (encode(body, part.images, device) for part in (train, test))
        elif len(features) == len(images.labels):
            encoded = (features[images.split == number] for number in (0, 1))
        else:
            fix = f"must be those of the {len(images.labels)} images, in their order"
            raise InputError("features", (*features.shape,), fix)
        parts = tuple((values.cpu().float(), labels) for values, (_, labels) in zip(encoded, parts, strict=True))
        check_sets(*parts[0], *parts[1], images.num_classes)
        body, crop = head(parts[0][0].shape[1]), None
    seconds = time.monotonic() - started
    fixed = {"momentum": MOMENTUM, "crop": crop, "seed": protocol.seed, "device": device}

    def attempt(point: tuple, epochs: int, *data: Tensor) -> Tensor | None:
        return fit(body, *data, epochs=epochs, **protocol.options(point), **fixed)

    point, fields = choose_and_fit(protocol, *parts, attempt)
    return point, fields | {"seconds": fields["seconds"] + seconds}


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

    The rate falls to a tenth at half and at three quarters of the epochs (papers/README.md 2.6), rounded down; an epoch's last
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
    protocol: Settings, train: Part, test: Part, fit: Callable[..., Tensor | None]
) -> tuple[tuple, dict[str, Any]]:
    """The point of the grid with the best held-out top-1 (of equals the first), and the fields of the `Result` with it.

    ``fit(point, epochs, values, labels, queries)`` gives the classes of ``queries``, or None where it diverged; a point that
    does is scored nan and never chosen. The test images are used once, after the choice.

    Raises:
        RunError: every point of the grid, or the final fit, diverged.
    """
    (values, labels), (queries, query_labels) = train, test
    grid, scores, count = protocol.grid(), [math.nan], 0
    advice = f"lower learning_rates={joined(protocol.learning_rates)}"
    started = time.monotonic()
    if len(grid) > 1:
        rows, held_out = stratified_split(labels, HELD_OUT, protocol.seed)
        scores = []
        for point in grid:
            predicted = fit(point, protocol.search_epochs, values[rows], labels[rows], values[held_out])
            scores.append(math.nan if predicted is None else top1(predicted, labels[held_out]))
            count += steps_of(len(rows), protocol.options(point)["batch"], protocol.search_epochs)
        if all(map(math.isnan, scores)):
            raise RunError(f"fine-tuning diverged with all {len(grid)} settings; {advice}")
    best = grid[max(range(len(grid)), key=lambda number: -1 if math.isnan(scores[number]) else scores[number])]
    tuned = time.monotonic()
    predicted = fit(best, protocol.epochs, values, labels, queries)
    if predicted is None:
        raise RunError(f"fine-tuning diverged on all training images with the chosen {best}; {advice}")
    ended = time.monotonic()
    return best, {
        "top1": top1(predicted, query_labels),
        "mean_per_class": mean_per_class(predicted, query_labels),
        "learning_rate": best[0],
        "at_grid_edge": len(set(protocol.learning_rates)) > 1
        and best[0] in (min(protocol.learning_rates), max(protocol.learning_rates)),
        "images_seen": count + steps_of(len(labels), protocol.options(best)["batch"], protocol.epochs),
        "failed": sum(map(math.isnan, scores)) if len(grid) > 1 else 0,
        "validation": tuple((*point, score) for point, score in zip(grid, scores, strict=True)) if len(grid) > 1 else (),
        "seconds": ended - started,
        "seconds_training": ended - tuned,
    }
