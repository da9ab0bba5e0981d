"""Parts of classes, and stratified splits of images."""

from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from studylib.errors import InputError, require


class Part(NamedTuple):
    """Some classes of an image set."""

    classes: list[str]
    images: int | None = None
    """training images of each class, the first of a seeded order; None for all"""


@cache
def parts() -> dict[str, dict[str, Part]]:
    """The named parts of each image set, from ``splits.yaml``: a list of classes, or ``classes`` and ``images``."""
    text = (resources.files("studylib") / "data" / "splits.yaml").read_text(encoding="utf-8")
    return {name: {part: _part(content) for part, content in found.items()} for name, found in yaml.safe_load(text).items()}


def _part(content: list[str] | dict[str, Any]) -> Part:
    content = content if isinstance(content, dict) else {"classes": content}
    return Part(**content | {"classes": [str(name) for name in content["classes"]]})


def first(labels: Tensor, count: int) -> Tensor:
    """Rows of ``count`` of each class, or of all where there are fewer, by an order that only the number of labels decides."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    chosen = [order[labels[order] == label][:count] for label in labels.unique()]
    return torch.cat(chosen).sort().values


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to fit on and rows held out: of each class of n images round(fraction n) are held out.

    Of two images or more at least one is held out and at least one kept; a single image is kept. Both results are
    sorted index tensors on the CPU; the same ``seed`` gives the same split.

    Raises:
        InputError: the fraction is not between 0 and 1, or nothing can be held out.
    """
    require("fraction", fraction, 0 < fraction < 1, "must be between 0 and 1")
    if len(labels) == 0 or torch.bincount(labels).max() < 2:
        raise InputError("labels", len(labels), "no class has two images, so none can be held out")
    labels, generator = labels.cpu(), torch.Generator().manual_seed(seed)
    held_out = []
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        held_out.append(rows[torch.randperm(len(rows), generator=generator)[:count]])
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[torch.cat(held_out)] = True
    return (~mask).nonzero()[:, 0], mask.nonzero()[:, 0]
