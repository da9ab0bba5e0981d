"""Image sets that torchvision downloads (``sources.yaml``), packed in the format of `studylib.data.packed`."""

import functools
import http.client
import tarfile
import urllib.error
import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy
import torch
import yaml
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from studylib import paths
from studylib.data import packed
from studylib.data.splits import first
from studylib.errors import InputError, RunError, choose, require

DOWNLOAD_FAILED = (
    *(urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError),
    *(RuntimeError, EOFError, tarfile.TarError, zipfile.BadZipFile),  # torchvision: not found, or a damaged download
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """How torchvision names a set; the fields are explained in ``sources.yaml``."""

    dataset: str
    train: list[dict[str, Any]]
    test: list[dict[str, Any]] | int
    native: bool = False
    flip: bool = True
    about: str
    citation: str

    @property
    def drawn(self) -> int | None:
        """How many images of each class are drawn to be tested on; None of a set that has a test part."""
        return self.test if isinstance(self.test, int) else None


@functools.cache
def sources() -> dict[str, Source]:
    """The sets that can be fetched, by name."""
    text = (resources.files("studylib") / "data" / "sources.yaml").read_text(encoding="utf-8")
    return {name: Source(**fields) for name, fields in yaml.safe_load(text).items()}


def fetch(name: str, size: int = 64) -> Path:
    """Download the set ``name`` with torchvision and pack it under ``paths.fetched_data()``; the npz file.

    Native sets are kept as they are; images of other sets become ``size`` × ``size`` px: the short side resized (bilinear,
    antialiased), the centre cut out. Called again with the same size it does nothing.

    Raises:
        InputError: the name is unknown or the size is not in 8 … 1024.
        RunError: the download failed, or an image of it cannot be read.
    """
    source = sources()[choose("data", name, sources())]
    require("size", size, 8 <= size <= 1024, "is the side of the images in pixels: must be in 8 … 1024")
    file, raw = paths.fetched_data() / f"{name}.npz", paths.cache() / "torchvision" / name
    resize = "none" if source.native else f"short side to {size} px (bilinear, antialiased), centre cut out"
    raw.mkdir(parents=True, exist_ok=True)
    with FileLock(raw.with_suffix(".lock")):
        if not _is_packed(file, {"resize": resize, "test_of_each_class": source.drawn}):
            arrays, classes = _download(name, source, raw, None if source.native else size)
            about = {"title": f"{name} ({source.about})", "classes": classes, "citation": source.citation, "flip": source.flip}
            about |= {"source": f"torchvision {source.dataset}", "resize": resize}
            about |= {"test_of_each_class": source.drawn} if source.drawn else {}
            if name in _coarse():
                coarse = _coarse()[name]
                number = {fine: index for index, members in enumerate(coarse.values()) for fine in members}
                arrays["coarse_labels"] = numpy.array([number[fine] for fine in classes])[arrays["labels"]]
                about["coarse_classes"] = list(coarse)
            packed.write(file, arrays, about)
    return file


def _is_packed(file: Path, rule: dict[str, Any]) -> bool:
    """Whether ``file`` is whole and was packed by that rule."""
    try:
        about = packed.describe(file)
        same = all(about.get(name) == value for name, value in rule.items())
        return same and packed.sha256(file) == about["sha256_npz"]
    except (InputError, OSError, KeyError):
        return False


@functools.cache
def _coarse() -> dict[str, dict[str, list[str]]]:
    return yaml.safe_load((resources.files("studylib") / "data" / "coarse.yaml").read_text(encoding="utf-8"))


def _download(name: str, source: Source, folder: Path, size: int | None) -> tuple[dict[str, NDArray], list[str]]:
    """Images (N, H, W, 3 or 1), labels and split (N,), and class names."""
    from torchvision import datasets

    make = getattr(datasets, source.dataset)
    wanted = [
        (options, split) for split, parts in enumerate((source.train, [] if source.drawn else source.test)) for options in parts
    ]
    try:
        parts = [(make(str(folder), download=True, **options), split) for options, split in wanted]
    except DOWNLOAD_FAILED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        mend = f"check the network and call again, or name a folder with {name}.npz and {name}.json in STUDYLIB_DATA"
        raise RunError(f"{name}: the download failed ({reason}); {mend}") from error
    try:
        rows = [(_pixels(image, size), int(label), split) for part, split in parts for image, label in part]
    except (OSError, SyntaxError) as error:  # as Pillow tells of what is cut off or no image
        raise RunError(f"{name}: an image cannot be read ({error}); delete {folder} and call again") from error
    images, labels, split = (numpy.array(column) for column in zip(*rows, strict=True))
    if source.drawn:
        split[first(torch.from_numpy(labels), source.drawn).numpy()] = 1
    classes = getattr(parts[0][0], "classes", None) or range(int(labels.max()) + 1)
    return {"images": images, "labels": labels, "split": split}, [str(known) for known in classes]


def _pixels(image: Image.Image, size: int | None) -> NDArray[numpy.uint8]:
    """(size, size, 3); without a size (H, W, 3), or (H, W, 1) of a grey image."""
    if size or image.mode != "L":
        image = image.convert("RGB")
    if size:
        short = min(image.size)
        left, top = ((side - short) / 2 for side in image.size)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short))
    array = numpy.asarray(image)
    return array if array.ndim == 3 else array[:, :, None]
