"""Full-network transfer: encoder and a new head trained together on another data set, as in the 12-domain benchmark.

    L = (1/B) Σ_i CE(W BN(f(x_i)) + b, y_i)

f, BN's scale and shift, W and b are all trained. Source: Islam et al., transfer_broad, code:scripts/run_transfer_bn.sh
(papers.md 2.6).
"""

import copy
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from studylib.data import ImageSet
from studylib.data.augment import Augmentation, to_float
from studylib.errors import InputError
from studylib.external import External
from studylib.models.encoder import Encoder, Normalise
from studylib.training import Run
from studylib.training.loop import INITIALISATION, seed_of
from studylib.transfer import descent
from studylib.transfer.sgd import MOMENTUM


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """BatchNorm1d(affine=True) + Linear on an encoder that is trained along, chosen from a grid on held-out training images.

    All values are the 12-domain benchmark's (papers.md 2.6), but for the crops and the seed.
    """

    learning_rates: tuple[float, ...] = (0.01, 0.001)
    batches: tuple[int, ...] = (128, 32)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-5)
    search_epochs: int = 20
    """of each point of the grid; a grid of one point is not tuned"""
    epochs: int = 50
    """of the final fit"""
    held_out: float = 0.3
    crop_scale: tuple[float, float] = (0.25, 1.0)
    """range of a training crop's share of the image; ours"""
    seed: int = 0
    """of the split, the head's start, the batches and the crops; ours"""

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 2:
            raise InputError(
                "fine_tune.batches", self.batches, "must be some numbers of at least 2: BatchNorm needs two images"
            )
        if not self.weight_decays or not all(0 <= decay < math.inf for decay in self.weight_decays):
            raise InputError("fine_tune.weight_decays", self.weight_decays, "must be some numbers of at least 0")
        descent.check_budget("fine_tune", self)

    def grid(self) -> list[tuple[float, int, float]]:
        """(lr, batch, weight decay), in the order in which equals are preferred."""
        return list(itertools.product(self.learning_rates, self.batches, self.weight_decays))

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        return (
            f"fine-tuning: BatchNorm + linear layer, encoder trained along, SGD (momentum {MOMENTUM}, lr ×0.1 at 1/2 and 3/4), "
            f"{descent.describe_crops(self)}; lr {descent.said(self.learning_rates)}, batch {descent.said(self.batches)}, "
            f"weight decay {descent.said(self.weight_decays)}; {descent.describe_tuning(self)}"
        )


@dataclass(frozen=True)
class FineTuneResult:
    """Accuracies on the test images in %, and how they came about."""

    top1: float
    mean_per_class: float
    """mean over the classes that have test images"""
    learning_rate: float
    batch: int
    weight_decay: float
    at_grid_edge: bool
    """whether lr is the largest or smallest of several, so that a better one may lie outside"""
    epochs: int
    """of the final fit"""
    images_seen: int
    """images in all steps of choice and final fit"""
    failed: int
    """points of the grid that diverged"""
    validation: tuple[tuple[Any, ...], ...]
    """(lr, batch, weight decay, held-out top-1 in % or nan) over the grid; nothing for a grid of one point"""
    seconds: float = field(compare=False)
    """of choice, final fit and prediction"""
    seconds_training: float = field(compare=False)
    """of final fit and prediction"""


def fine_tune_accuracy(
    network: nn.Module, images: ImageSet, protocol: FineTune, device: str | torch.device | None = None
) -> FineTuneResult:
    """Test accuracy of ``network`` and a head after the final fit with the best settings (of equals the first of the grid).

    ``network`` maps images (B, 3, H, W), uint8 or float in [0, 1], to features (B, d), as `trainable` gives it; a copy is
    trained. Images are cropped, and mirrored where the set allows it. Weight decay is on all parameters, and an epoch's last
    batch is left out if it is not full. The test images are used once, after the choice.

    Deviations: held-out images are stratified; a set of fewer images than a batch is one batch; a class without a training
    image is never predicted; images have the encoder's size, not 224 px.

    Raises:
        InputError: a set without training or test images or with one class, or a network that does not give features.
        RunError: every point of the grid, or the final fit, diverged.
    """
    network, train, test, device = descent.prepare(network, images, device)
    crop = Augmentation(crop_scale=protocol.crop_scale, flip=0.5 if images.flip else 0.0)

    def fit(point: tuple[float, int, float], epochs: int, seen: Tensor, labels: Tensor, unseen: Tensor) -> Tensor | None:
        lr, batch, decay = point
        options = {"lr": lr, "batch": batch, "weight_decay": decay, "momentum": MOMENTUM, "epochs": epochs, "crop": crop}
        return fit_classifier(network, seen, labels, unseen, seed=protocol.seed, device=device, **options)

    found = descent.choose_and_fit(protocol, train, test, fit, batch=lambda point: point[1])
    lr, batch, decay = found.pop("point")
    return FineTuneResult(learning_rate=lr, batch=batch, weight_decay=decay, epochs=protocol.epochs, **found)


def fit_classifier(
    network: nn.Module, seen: Tensor, labels: Tensor, unseen: Tensor, *, seed: int, device: torch.device, **options: Any
) -> Tensor | None:
    """Classes of ``unseen`` by a copy of ``network`` and a BatchNorm and linear layer trained with it; None if that diverged.

    ``seen`` are images or whatever else ``network`` takes, ``options`` those of `studylib.transfer.descent.descend`.
    """
    classes, targets = labels.unique(return_inverse=True)
    width = descent.encode(network, seen[:2], device).shape[1]
    linear = nn.utils.skip_init(nn.Linear, width, len(classes))  # Linear's own start draws from everyone's generator
    generator = torch.Generator().manual_seed(seed_of(seed, INITIALISATION, 0))
    for parameter in linear.parameters():
        nn.init.uniform_(parameter, -(width**-0.5), width**-0.5, generator=generator)
    model = nn.Sequential(copy.deepcopy(network), nn.BatchNorm1d(width), linear).to(device)
    targets = targets.to(device)

    def loss(inputs: Tensor, rows: Tensor) -> Tensor:
        return functional.cross_entropy(model(inputs), targets[rows])

    if not descent.descend(model, seen, loss, seed=seed, device=device, **options):
        return None
    return classes[descent.encode(model, unseen, device).argmax(1).cpu()]


class Trainable(nn.Module):
    """Images (B, 3, H, W), uint8 or float in [0, 1], -> features (B, d): resized as in
    `studylib.evaluation.features` to ``size``."""

    def __init__(self, normalise: Normalise, encoder: Encoder, size: int):
        super().__init__()
        self.normalise, self.encoder, self.size = normalise, encoder, size

    def forward(self, images: Tensor) -> Tensor:
        images = images if images.dtype == torch.uint8 else 255 * images
        return self.encoder(self.normalise(to_float(images, self.size)))


def trainable(source: Run | External, epoch: int | None = None) -> Trainable:
    """Encoder of ``source`` after ``epoch`` epochs (by default all), with its normalisation and image size, on the CPU.

    Raises:
        InputError: the run kept no such weights, or the file holds no ResNet that we know.
    """
    network, size = source.network(epoch, torch.device("cpu"))
    return Trainable(network.normalise, network.encoder, size)
