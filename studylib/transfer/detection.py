"""Transfer to detection: a Faster R-CNN with a feature pyramid on the pre-trained encoder, all of it fine-tuned (claim S3).

SL-MLP's own protocol is Mask R-CNN R50-FPN in Detectron2 on COCO with an unknown schedule (papers/README.md 2.6). This is its
detector without masks, by torchvision, so that the embedded scenes (`studylib.data.scenes`) and COCO are seen by the same code.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from studylib import device as devices
from studylib.errors import InputError, RunError
from studylib.external import External
from studylib.models.encoder import Encoder
from studylib.training import Run
from studylib.transfer.detector import COCO_1X, MOMENTUM, WEIGHT_DECAY, Detection, detector

__all__ = ["COCO_1X", "Detection", "DetectionResult", "detection_accuracy"]

STEPS = (2 / 3, 8 / 9)  # of the training, where the rate falls to a tenth; Detectron2's 1x schedule


class Part(Protocol):
    """Training or test images with boxes: `studylib.data.scenes.Scenes` or `studylib.data.coco.CocoPart`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Image (3, H, W) in [0, 1], ``boxes`` (n, 4) in pixels, ``labels`` (n,) and perhaps ``iscrowd`` (n,)."""
        ...


class Boxes(Protocol):
    """A detection set."""

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part
    size: int
    """short side of its images in pixels, or what they are usually resized to"""
    flip: bool
    """whether a mirrored object is of the same class"""


@dataclass(frozen=True)
class DetectionResult:
    """COCO's average precision on the test images in %, and what it cost."""

    ap: float
    """mean over IoU 0.50, 0.55 ... 0.95 and over the classes that have test boxes"""
    ap50: float
    ap75: float
    losses: tuple[float, ...]
    """mean training loss of each epoch"""
    seconds: float
    """for training and testing"""


def detection_accuracy(
    source: Run | External, data: Boxes, protocol: Detection, *, epoch: int | None = None, device: str | None = None
) -> DetectionResult:
    """AP on the test images of ``data`` after fine-tuning on its training images from the weights after ``epoch`` epochs.

    ``epoch`` 0 gives the floor: the same detector on random weights. The source itself is not changed. On a CPU
    the result is a function of the arguments alone.

    Raises:
        InputError: there are no such weights, or a part has no boxes.
        RunError: the loss is not finite.
    """
    for part in ("train", "test"):
        count = len(getattr(data, part))
        if not any(len(getattr(data, part)[index][1]["boxes"]) for index in range(count)):
            raise InputError("data", data.name, f"has no {part} image with a box")
    where = devices.find(device)
    start = time.perf_counter()
    with torch.random.fork_rng([where] if where.type == "cuda" else []):
        encoder, *constants = encoder_of(source, epoch)  # draws random numbers, more of them for a method with a projector
        torch.manual_seed(protocol.seed)
        network = detector(encoder, *constants, len(data.classes), data.size, protocol).to(where)
        losses = tuple(fine_tune(network, data, protocol))
        ap, ap50, ap75 = average_precision(network, data.test, protocol.batch)
    return DetectionResult(ap, ap50, ap75, losses, time.perf_counter() - start)


def encoder_of(source: Run | External, epoch: int | None) -> tuple[Encoder, list[float], list[float]]:
    """A new encoder with the weights of ``source``, and mean and std of the images that it expects."""
    network, _ = source.network(epoch, torch.device("cpu"))
    return network.encoder, network.normalise.mean.flatten().tolist(), network.normalise.std.flatten().tolist()


def fine_tune(network: nn.Module, data: Boxes, protocol: Detection) -> Iterator[float]:
    """Train ``network``; the mean loss of each epoch."""
    network.train()
    device = next(network.parameters()).device
    trained = [values for values in network.parameters() if values.requires_grad]
    optimiser = torch.optim.SGD(trained, protocol.lr, MOMENTUM, weight_decay=WEIGHT_DECAY)
    batches = loader(data.train, protocol.batch, shuffle=torch.Generator().manual_seed(protocol.seed))
    total, step = protocol.epochs * len(batches), 0
    for _ in range(protocol.epochs):
        losses = []
        for images, targets in batches:
            factor = min(1.0, (step + 1) / (protocol.warmup + 1)) * 0.1 ** sum(step >= part * total for part in STEPS)
            for group in optimiser.param_groups:
                group["lr"] = protocol.lr * factor
            pairs = [prepared(*pair, data.flip, device) for pair in zip(images, targets, strict=True)]
            loss = sum(network(*map(list, zip(*pairs, strict=True))).values())
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise RunError(
                    f"detection on {data.name}: the loss is {losses[-1]} at step {step + 1} of {total}; "
                    f"lower detection.lr (now {protocol.lr:g}) or lengthen detection.warmup (now {protocol.warmup} steps)"
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
        yield sum(losses) / len(losses)


def prepared(image: Tensor, target: dict[str, Tensor], flip: bool, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """An image and its target for training: crowds left out, classes counted from 1, half of them mirrored if ``flip``."""
    boxes, labels = target["boxes"], target["labels"] + 1
    if "iscrowd" in target:
        boxes, labels = boxes[~target["iscrowd"]], labels[~target["iscrowd"]]
    if flip and torch.rand(()) < 0.5:
        image, boxes = image.flip(2), boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])
        boxes = boxes + boxes.new_tensor([image.shape[2], 0, image.shape[2], 0])
    return image.to(device), {"boxes": boxes.to(device), "labels": labels.to(device)}


@torch.no_grad()
def average_precision(network: nn.Module, test: Part, batch: int) -> tuple[float, float, float]:
    """AP, AP50 and AP75 in %, by torchmetrics and pycocotools."""
    from torchmetrics.detection import MeanAveragePrecision

    network.eval()
    device, metric = next(network.parameters()).device, MeanAveragePrecision(backend="pycocotools")
    for images, targets in loader(test, batch):
        predicted = [
            {name: values.cpu() for name, values in one.items()} for one in network([image.to(device) for image in images])
        ]
        metric.update([one | {"labels": one["labels"] - 1} for one in predicted], list(targets))
    values = metric.compute()
    return tuple(100 * float(values[name]) for name in ("map", "map_50", "map_75"))


def loader(part: Part, batch: int, shuffle: torch.Generator | None = None) -> torch.utils.data.DataLoader:
    """Batches of (images, targets), tuples of equal length."""
    return torch.utils.data.DataLoader(part, batch, shuffle=shuffle is not None, generator=shuffle, collate_fn=paired)


def paired(items: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[tuple, tuple]:
    """A list of pairs as a pair of tuples."""
    return tuple(zip(*items, strict=True))
