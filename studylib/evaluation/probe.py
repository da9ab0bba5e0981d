"""Every transfer protocol by its name, carried out on one layer of one encoder."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from studylib import device as devices
from studylib import transfer
from studylib.errors import InputError, choose, require
from studylib.evaluation.features import Features
from studylib.external import External
from studylib.training import Run


@dataclass(frozen=True)
class Subject:
    """What a protocol is carried out on: a data set, seen by one layer of an encoder after ``epoch`` epochs."""

    source: Run | External
    epoch: int | None
    images: Any
    """an `studylib.data.ImageSet`, or a set with boxes for detection"""
    seen: Features | None
    """its features; none of a set with boxes"""
    layer: str

    @property
    def device(self) -> torch.device:
        """Where protocols of frozen features are carried out."""
        return devices.find()

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """Training features and labels, test features and labels, and the number of classes.

        Raises:
            InputError: there are none of training or of test images.
        """
        rows = *self.seen.part(self.layer, "train"), *self.seen.part(self.layer, "test")
        require("data", self.seen.name, all(map(len, rows)), "has no training images, or no test images")
        return *(values.to(self.device) for values in rows), self.seen.num_classes

    @property
    def whole(self) -> tuple[Tensor, Tensor, int]:
        """Features and labels of all images, and the number of classes."""
        return self.seen.layers[self.layer].to(self.device), self.seen.labels.to(self.device), self.seen.num_classes


def _frozen(run: Callable) -> Callable[[Subject, Any], Any]:
    return lambda subject, protocol: run(*subject.parts, protocol)


def _on_training_images(subject: Subject, protocol: transfer.TrainLinear) -> transfer.LinearResult:
    train, labels, *_, classes = subject.parts
    return transfer.linear_probe(train, labels, train, labels, classes, protocol)


def _trained(run: Callable, *, frozen: bool = False) -> Callable[[Subject, Any], Any]:
    """Of the whole encoder; ``features`` of its output are handed on where the protocol can keep it frozen."""

    def carry_out(subject: Subject, protocol: Any) -> Any:
        known = {"features": subject.seen.layers["stage5"].cpu()} if frozen else {}
        return run(transfer.trainable(subject.source, subject.epoch), subject.images, protocol, **known)

    return carry_out


class Protocol(NamedTuple):
    """A transfer protocol."""

    settings: type
    """class of its settings"""
    carry_out: Callable[[Subject, Any], Any]
    version: int
    """raised when its results change, so that its stored results, and no others, are computed again; what several protocols
    share counts for each of them"""
    of_output: bool = False
    """whether it trains the encoder, and so starts from its output alone"""


PROTOCOLS: dict[str, Protocol] = {
    "knn": Protocol(transfer.Knn, _frozen(transfer.knn_accuracy), 4),
    "knn_grid": Protocol(transfer.KnnGrid, _frozen(transfer.knn_grid_accuracy), 4),
    "linear": Protocol(transfer.LinearProbe, _frozen(transfer.linear_probe), 4),
    "train_linear": Protocol(transfer.TrainLinear, _on_training_images, 1),
    "trex_small8": Protocol(transfer.TrexSmall8, _frozen(transfer.trex_small8_probe), 4),
    "trex_large": Protocol(transfer.TrexLarge, _frozen(transfer.trex_large_probe), 4),
    "broad12": Protocol(transfer.Broad12, _frozen(transfer.broad12_probe), 4),
    "ridge": Protocol(transfer.RidgeProbe, _frozen(transfer.ridge_probe), 4),
    "episodes": Protocol(transfer.Episodes, lambda subject, protocol: transfer.episode_accuracy(*subject.whole, protocol), 4),
    "per_class": Protocol(transfer.PerClass, _frozen(transfer.per_class_accuracy), 4),
    "fine_tune": Protocol(transfer.FineTune, _trained(transfer.fine_tune_accuracy), 4, True),
    "detection": Protocol(
        transfer.Detection,
        lambda it, protocol: transfer.detection_accuracy(it.source, it.images, protocol, epoch=it.epoch),
        5,
        True,
    ),
    "linear_fine_tune": Protocol(transfer.LinearFineTune, _trained(transfer.linear_fine_tune_accuracy, frozen=True), 4, True),
    "memory_fine_tune": Protocol(transfer.MemoryFineTune, _trained(transfer.memory_fine_tune_accuracy, frozen=True), 4, True),
}

RENAMED = {"path": "linear"}
"""former name of a protocol -> its name"""


def known(name: str) -> str:
    """``name`` of a protocol.

    Raises:
        InputError: there is no such protocol, or it has another name now.
    """
    if name in RENAMED:
        raise InputError("protocol", name, f"is now called {RENAMED[name]}")
    return choose("protocol", name, PROTOCOLS)


def default(name: str, dataset: str) -> Any:
    """The protocol ``name`` with its default settings; COCO's detector is another than that of the embedded scenes.

    Raises:
        InputError: there is no such protocol.
    """
    settings = PROTOCOLS[known(name)].settings
    return transfer.COCO_1X if (name, dataset) == ("detection", "coco") else settings()


def name_of(protocol: Any) -> str:
    """The name in `PROTOCOLS` of a protocol object.

    Raises:
        InputError: it is none.
    """
    for name, row in PROTOCOLS.items():
        if type(protocol) is row.settings:
            return name
    raise InputError("protocol", type(protocol).__name__, f"is none; valid: {', '.join(PROTOCOLS)}")


def prefix_of(protocol: Any) -> str:
    """What the measures of a protocol begin with: its name, and whether it leaves frozen what it could train."""
    name = name_of(protocol)
    return name + ("_frozen" if getattr(protocol, "what", "encoder") != "encoder" else "")


def probe(subject: Subject, protocol: Any) -> Iterator[dict[str, Any]]:
    """Rows (split, protocol, measure, value): the numbers of the protocol's result and the ``seconds`` it took.

    Measures are ``knn_top1`` (%), ``broad12_top1``, ``linear_C``, ``linear_converged``, ``trex_small8_seconds``, ...; those
    of ``per_class`` end in the number of images. Episodes are drawn from all images of the set, training and test;
    `TrainLinear` is scored on the training images; everything else is fitted on them and scored on test images.

    Raises:
        InputError: the data set is one that the protocol cannot use.
    """
    name = name_of(protocol)
    started = time.monotonic()
    found = PROTOCOLS[name].carry_out(subject, protocol)
    numbers = {"seconds": time.monotonic() - started}
    results = found if isinstance(found, list) else [found]
    if name == "per_class":  # where no class has N images, the result is that of a smaller N
        classes = len(subject.seen.part(subject.layer, "train")[1].unique())
        results = [result for result in results if result.short < classes]
    for result in results:
        ending = f"_{result.images}" if isinstance(found, list) else ""
        for item in dataclasses.fields(result):
            value = getattr(result, item.name)
            if isinstance(value, bool | int | float) and not (ending and item.name == "images"):
                numbers[item.name + ending] = float(value)
    split, prefix = {"episodes": "all", "train_linear": "train"}.get(name, "test"), prefix_of(protocol)
    for measure, value in numbers.items():
        yield {"split": split, "protocol": protocol.describe(), "measure": f"{prefix}_{measure}", "value": value}
