"""Few-shot transfer by episodes of a few classes; for N images of every class see `studylib.transfer.per_class`."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from studylib.errors import InputError, require
from studylib.transfer.accuracy import interval
from studylib.transfer.batched_logistic import fit_predict
from studylib.transfer.inputs import check_set

TOGETHER = 50  # ours: episodes solved at a time, 60 MB of queries for 2048 dimensions


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Logistic regression on l2-normalised features of a few images of a few classes, many times over.

    All values are those of the 12-domain benchmark (transfer_broad, code:configs.py, system/utils_finetune.py; papers/README.md
    2.6), but for the seed.
    """

    ways: int = 5
    shots: int = 5
    queries: int = 15
    """of each class"""
    episodes: int = 600
    C: float = 1.0
    seed: int = 0
    """of the episodes; ours"""

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1), ("episodes", 1)):
            require(f"episodes.{name}", getattr(self, name), getattr(self, name) >= least, f"must be at least {least}")
        require("episodes.C", self.C, self.C > 0, "must be positive")

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        return (
            f"few-shot: {self.episodes} episodes, {self.ways}-way {self.shots}-shot, {self.queries} queries each, logistic "
            f"regression (C={self.C:g}), features l2-normalised, seed {self.seed}; mean with a 95 % interval over episodes"
        )


@dataclass(frozen=True)
class EpisodesResult:
    """Accuracy over episodes in %. Every class has as many queries, so that top-1 is the mean per class as well."""

    top1: float
    half_width: float
    """of the 95 % interval over episodes (Student's t); nan for one episode"""
    left_out: int
    """classes that have images, but too few for an episode"""
    converged: bool
    """whether the fits of all episodes reached the tolerance"""


def episode_accuracy(features: Tensor, labels: Tensor, num_classes: int, protocol: Episodes) -> EpisodesResult:
    """Mean accuracy over episodes drawn from features (N, d) and labels (N,) in 0 ... num_classes-1.

    In each, ``ways`` classes are drawn, and of each class different images to fit on and to classify. The benchmark draws
    from all images of a data set, training and test: nothing is chosen on either.

    Deviation: classes with fewer than shots + queries images are left out and counted, where the benchmark's code repeats
    images, which then may be both fitted to and classified.

    Raises:
        InputError: fewer than ``ways`` classes have images enough; or as `studylib.transfer.inputs.check_set`.
    """
    check_set("episodes", features, labels, num_classes)
    rows = class_rows(labels)
    enough = large_classes(rows, protocol)
    if len(enough) < protocol.ways:
        fix = f"only {len(enough)} classes have {protocol.shots + protocol.queries} images; ask for fewer classes or queries"
        raise InputError("episodes.ways", protocol.ways, fix)
    generator = torch.Generator().manual_seed(protocol.seed)
    drawn = torch.stack([_draw(enough, protocol, generator) for _ in range(protocol.episodes)])  # (episodes, ways, images)
    targets = torch.arange(protocol.ways, device=features.device)
    accuracy, converged = [], []
    for part in drawn.to(features.device).split(TOGETHER):
        images = functional.normalize(features[part].double(), dim=3)
        seen, unseen = images.split((protocol.shots, protocol.queries), dim=2)
        predicted, reached = fit_predict(
            seen.flatten(1, 2), targets.repeat_interleave(protocol.shots), unseen.flatten(1, 2), protocol.ways, C=protocol.C
        )
        right = predicted == targets.repeat_interleave(protocol.queries)
        accuracy += (100 * right.double().mean(1)).tolist()
        converged += reached.tolist()
    mean, half_width = interval(accuracy)
    return EpisodesResult(mean, half_width, len(rows) - len(enough), all(converged))


def applies(labels: Tensor, protocol: Episodes) -> bool:
    """Whether images with these ``labels`` (N,) have the classes that episodes need."""
    return len(large_classes(class_rows(labels), protocol)) >= protocol.ways


def large_classes(rows: list[Tensor], protocol: Episodes) -> list[Tensor]:
    """Those classes of `class_rows` that have images enough for an episode."""
    return [images for images in rows if len(images) >= protocol.shots + protocol.queries]


def class_rows(labels: Tensor) -> list[Tensor]:
    """The rows of each class that is present in ``labels`` (N,), in order, on the CPU."""
    return [(labels == label).nonzero()[:, 0].cpu() for label in labels.unique()]


def _draw(rows: list[Tensor], protocol: Episodes, generator: torch.Generator) -> Tensor:
    """Rows (ways, shots + queries) of one episode."""
    classes = torch.randperm(len(rows), generator=generator)[: protocol.ways].tolist()
    count = protocol.shots + protocol.queries
    return torch.stack([rows[c][torch.randperm(len(rows[c]), generator=generator)[:count]] for c in classes])
