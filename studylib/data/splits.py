"""Parts of classes, and stratified splits of images."""

from functools import cache
from importlib import resources

import torch
import yaml
from torch import Tensor

from studylib.errors import InputError, require


@cache
def parts() -> dict[str, dict[str, list[str]]]:
    """Class names of the named parts of each image set, from ``splits.yaml``."""
    text = (resources.files("studylib") / "data" / "splits.yaml").read_text()
    return {
        name: {part: [str(c) for c in classes] for part, classes in found.items()}
        for name, found in yaml.safe_load(text).items()
    }


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
