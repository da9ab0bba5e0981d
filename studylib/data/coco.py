"""COCO's detection set where the user has it, read image by image; nothing is downloaded.

Layout, as it is published: ``coco/train2017/*.jpg``, ``coco/val2017/*.jpg``, ``coco/annotations/instances_train2017.json`` and
``instances_val2017.json``. 118,287 and 5,000 images of 80 classes; Lin et al., ECCV 2014, arXiv 1405.0312.
"""

import contextlib
import hashlib
import io
import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import CocoDetection
from torchvision.transforms.functional import pil_to_tensor

from studylib import files, paths
from studylib.errors import InputError, require

PARTS = {"train": "train2017", "test": "val2017"}
HOW = (
    "download train2017.zip, val2017.zip and annotations_trainval2017.zip from https://cocodataset.org, unpack them in one "
    "folder named coco, and name the folder above it in STUDYLIB_DATA"
)
END = b"\xff\xd9"  # of every JPEG


@dataclass(frozen=True, eq=False)
class CocoPart:
    """Training or test images, of differing sizes, each read when it is asked for."""

    source: CocoDetection
    number: dict[int, int]
    """label by COCO's category id"""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Image (3, H, W) float32 in [0, 1]; ``boxes`` (n, 4) x1, y1, x2, y2 in pixels, ``labels`` (n,), ``iscrowd`` (n,).

        Boxes without area, of which COCO has a few, are left out.
        """
        image, objects = self.source[index]
        objects = [found for found in objects if min(found["bbox"][2:]) > 0]
        boxes = torch.tensor([found["bbox"] for found in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        target = {
            "boxes": boxes,
            "labels": torch.tensor([self.number[found["category_id"]] for found in objects], dtype=torch.long),
            "iscrowd": torch.tensor([bool(found.get("iscrowd", 0)) for found in objects], dtype=torch.bool),
        }
        return pil_to_tensor(image).float() / 255, target


@dataclass(frozen=True, eq=False)
class Coco:
    """COCO 2017; offers what `studylib.transfer.detection` reads."""

    folder: Path
    classes: tuple[str, ...]
    train: CocoPart
    test: CocoPart
    """val2017: test2017 has no public boxes"""

    name = "coco"
    size = 800
    """short side to which detectors resize the images; Detectron2's"""
    flip = True
    """a mirrored object is of the same class"""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the two annotation files, hexadecimal."""
        digest = hashlib.sha256()
        for part in PARTS.values():
            digest.update((self.folder / "annotations" / f"instances_{part}.json").read_bytes())
        return digest.hexdigest()


def places() -> list[Path]:
    """Where COCO may lie: the folders ``coco`` in those of ``STUDYLIB_DATA``."""
    return [folder / "coco" for folder in paths.data_folders()]


def coco(folder: Path | None = None) -> Coco:
    """COCO 2017 in ``folder``, by default the first of `places` that there is.

    Raises:
        InputError: a file or folder is missing; the message names it and says where to get it. Annotations are damaged, or an
            image is missing or cut off.
    """
    if folder is None:
        folder = next((place for place in places() if place.is_dir()), None)
        if folder is None:
            raise InputError("data", "coco", f"there is no {' nor '.join(map(str, places()))}; {HOW}")
    for part in PARTS.values():
        for needed in (folder / part, folder / "annotations" / f"instances_{part}.json"):
            require("data", "coco", needed.exists(), f"{needed} is missing; {HOW}")
    sources = {name: _part(folder / part, folder / "annotations" / f"instances_{part}.json") for name, part in PARTS.items()}
    categories = sources["train"].coco.cats
    number = {category: label for label, category in enumerate(sorted(categories))}
    classes = tuple(categories[category]["name"] for category in number)
    return Coco(folder, classes, CocoPart(sources["train"], number), CocoPart(sources["test"], number))


def _part(folder: Path, annotations: Path) -> CocoDetection:
    """Images in ``folder``, all of which can be read, with ``annotations``."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            source = CocoDetection(str(folder), str(annotations))
        names = tuple(image["file_name"] for image in source.coco.imgs.values())
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        fix = f"{annotations} is damaged ({type(error).__name__}: {error}); unpack it again"
        raise InputError("data", "coco", fix) from error
    require("data", "coco", names and source.coco.cats, f"{annotations} names no images or no categories; unpack it again")
    _refuse_unreadable(folder, names, files.stamp(annotations))
    return source


@cache
def _refuse_unreadable(folder: Path, names: tuple[str, ...], _stamp: tuple[int, int]) -> None:
    """Raise an `InputError` that names an image which is missing or cut off; once in a process.

    One that ends as a JPEG does is not decoded: 123,000 take seconds.
    """
    for file in (folder / name for name in names):
        try:
            with file.open("rb") as opened:
                opened.seek(max(opened.seek(0, os.SEEK_END) - len(END), 0))
                if opened.read() != END:
                    with Image.open(file) as image:
                        image.load()
        except (OSError, SyntaxError) as error:
            raise InputError("data", "coco", f"{file} cannot be read ({error}); unpack it again") from error
