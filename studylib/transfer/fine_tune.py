"""Full-network transfer: encoder and a new head trained together on another data set, as in the 12-domain benchmark.

    L = (1/B) Σ_i CE(W BN(f(x_i)) + b, y_i)

f, BN's scale and shift, W and b are all trained. Source: Islam et al., transfer_broad, code:scripts/run_transfer_bn.sh
(papers/README.md 2.6).
"""

import copy
import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from studylib.data import ImageSet
from studylib.data.augment import to_float
from studylib.external import External
from studylib.models.encoder import Encoder, Normalise
from studylib.training import Run
from studylib.training.loop import INITIALISATION, seed_of
from studylib.transfer import descent
from studylib.transfer.sgd import MOMENTUM


@dataclass(frozen=True, kw_only=True)
class FineTune(descent.Settings):
    """BatchNorm1d(affine=True) + Linear on an encoder that is trained along, chosen from a grid on held-out training images.

    All values are the 12-domain benchmark's (papers/README.md 2.6), but for the crops and the seed.
    """

    name: ClassVar[str] = "fine_tune"

    learning_rates: tuple[float, ...] = (0.01, 0.001)
    batches: tuple[int, ...] = (128, 32)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-5)
    search_epochs: int = 20
    epochs: int = 50

    def __post_init__(self) -> None:
        usable = bool(self.batches) and min(self.batches) >= 2
        self.check("batches", usable, "must be some numbers of at least 2: BatchNorm needs two images")
        usable = bool(self.weight_decays) and all(0 <= decay < math.inf for decay in self.weight_decays)
        self.check("weight_decays", usable, "must be some numbers of at least 0")
        super().__post_init__()

    def grid(self) -> list[tuple[float, int, float]]:
        """(lr, batch, weight decay), in the order in which equals are preferred."""
        return list(itertools.product(self.learning_rates, self.batches, self.weight_decays))

    def options(self, point: tuple[float, int, float]) -> dict[str, Any]:
        return dict(zip(("lr", "batch", "weight_decay"), point, strict=True))

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        rates, batches, decays = map(descent.joined, (self.learning_rates, self.batches, self.weight_decays))
        return (
            f"fine-tuning: BatchNorm + linear layer, encoder trained along, SGD (momentum {MOMENTUM}, lr ×0.1 at 1/2 and 3/4), "
            f"{descent.describe_crops()}; lr {rates}, batch {batches}, weight decay {decays}; {self.describe_tuning()}"
        )


@dataclass(frozen=True, kw_only=True)
class FineTuneResult(descent.Result):
    """Accuracies on the test images in %, and how they came about."""

    batch: int
    weight_decay: float
    epochs: int
    """of the final fit"""


def fine_tune_accuracy(network: nn.Module, images: ImageSet, protocol: FineTune) -> FineTuneResult:
    """Test accuracy of ``network`` and a head after the final fit with the best settings (of equals the first of the grid).

    ``network`` is as `trainable` gives it. Images are cropped, and mirrored where the set allows it. Weight decay is on all
    parameters, and an epoch's last batch is left out if it is not full. The test images are used once, after the choice.

    Deviations: held-out images are stratified; a set of fewer images than a batch is one batch; a class without a training
    image is never predicted; images have the encoder's size, not 224 px.

    Arguments and errors are those of `studylib.transfer.descent.carry_out`.
    """
    (_, batch, decay), fields = descent.carry_out(network, images, protocol, fit_classifier)
    return FineTuneResult(**fields, batch=batch, weight_decay=decay, epochs=protocol.epochs)


def fit_classifier(
    body: nn.Module, values: Tensor, labels: Tensor, queries: Tensor, *, seed: int, device: torch.device, **options: Any
) -> Tensor | None:
    """Classes of ``queries`` by a copy of ``body`` and a BatchNorm and linear layer trained with it; None if that diverged.

    ``values`` are images or whatever else ``body`` takes, ``options`` those of `studylib.transfer.descent.descend`.
    """
    classes, targets = labels.unique(return_inverse=True)
    width = descent.encode(body, values[:2], device).shape[1]
    linear = nn.utils.skip_init(nn.Linear, width, len(classes))  # Linear's own start draws from everyone's generator
    generator = torch.Generator().manual_seed(seed_of(seed, INITIALISATION, 0))
    for parameter in linear.parameters():
        nn.init.uniform_(parameter, -(width**-0.5), width**-0.5, generator=generator)
    model = nn.Sequential(copy.deepcopy(body), nn.BatchNorm1d(width), linear).to(device)
    targets = targets.to(device)

    def loss(inputs: Tensor, rows: Tensor) -> Tensor:
        return functional.cross_entropy(model(inputs), targets[rows])

    if not descent.descend(model, values, loss, seed=seed, device=device, **options):
        return None
    return classes[descent.encode(model, queries, device).argmax(1).cpu()]


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
