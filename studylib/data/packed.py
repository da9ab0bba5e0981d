"""Packed image sets: ``NAME.npz`` with a ``NAME.json`` in a folder that ``STUDYLIB_DATA`` names.

npz: ``images`` (N, H, W, C) uint8 with C 1 or 3, ``labels`` (N,), ``split`` (N,) 0 train 1 test, and optionally
``coarse_labels`` and ``domain`` (N,). json: ``classes``, ``sha256_npz``, and optionally ``coarse_classes``, ``domains``,
``flip``, source, licence, citation.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy
import torch

from studylib import files, paths
from studylib.data.imageset import ImageSet
from studylib.errors import InputError

NOT_MIRRORED = ("mnist", "notmnist", "omniglot", "sign_digits", "svhn")  # a mirrored sign is another sign
HIDDEN = {"coarse": ("coarse_labels", "coarse_classes"), "domain": ("domain", "domains")}


def find(name: str) -> Path | None:
    """The npz file of the set ``name`` in the first folder that has it."""
    return next((file for folder in paths.data_folders() if (file := folder / f"{name}.npz").exists()), None)


def names() -> list[str]:
    """Names of the sets in all folders."""
    return sorted({file.stem for folder in paths.data_folders() if folder.is_dir() for file in folder.glob("*.npz")})


def read(file: Path) -> ImageSet:
    """The image set in ``file``, its checksum verified; kept unpacked in the cache, as unpacking takes seconds.

    Raises:
        InputError: the file or its description is missing, damaged, or not in the format.
    """
    about = describe(file)
    found = sha256(file)
    if found != about["sha256_npz"]:
        raise InputError(
            "data", file.name, f"is damaged: sha256 is {found[:12]}…, {file.stem}.json says {about['sha256_npz'][:12]}…"
        )
    cached = paths.cache() / "data" / f"{file.stem}-{found[:16]}.pt"
    if not cached.exists():
        arrays = unpack(file, about)
        files.write(cached, lambda out: torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, out))
    arrays = torch.load(cached, weights_only=True, mmap=True)
    hidden = {
        name: (arrays[labels].long(), tuple(about.get(values) or map(str, range(int(arrays[labels].max()) + 1))))
        for name, (labels, values) in HIDDEN.items()
        if labels in arrays
    }
    flip = about.get("flip", file.stem not in NOT_MIRRORED)
    return ImageSet(
        file.stem, arrays["images"], arrays["labels"], tuple(about["classes"]), arrays["split"], hidden, flip
    ).checked()


def describe(file: Path) -> dict[str, Any]:
    """The json beside ``file``."""
    beside = file.with_suffix(".json")
    try:
        about = json.loads(beside.read_text())
    except (OSError, ValueError) as error:
        raise InputError("data", beside.name, f"cannot be read ({type(error).__name__}); {file.name} needs it") from error
    for key in ("classes", "sha256_npz"):
        if not about.get(key):
            raise InputError("data", beside.name, f"has no {key!r}")
    return about


def unpack(file: Path, about: dict[str, Any]) -> dict[str, numpy.ndarray]:
    """Arrays of ``file``: images as (N, 3, H, W) uint8, labels and split as int64."""
    try:
        with numpy.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError("data", file.name, f"cannot be unpacked ({type(error).__name__}: {error})") from error

    def need(ok: bool, what: str) -> None:
        if not ok:
            raise InputError("data", file.name, what)

    for name in ("images", "labels", "split"):
        need(name in arrays, f"has no array {name!r}; it needs images, labels and split")
    images, count = arrays["images"], len(arrays["labels"])
    need(
        images.dtype == numpy.uint8 and images.ndim == 4 and images.shape[3] in (1, 3), "images must be (N, H, W, 1 or 3) uint8"
    )
    for name in {"labels", "split", "coarse_labels", "domain"} & set(arrays):
        need(arrays[name].shape == (len(images),), f"{name} must be ({len(images)},), one for each image")
        need(arrays[name].dtype.kind in "iu", f"{name} must be whole numbers")
        arrays[name] = arrays[name].astype(numpy.int64)
    labels = arrays["labels"]
    need(count > 0, "holds no images")
    need(0 <= labels.min() and labels.max() < len(about["classes"]), f"labels must be in 0 … {len(about['classes']) - 1}")
    need(set(numpy.unique(arrays["split"])) <= {0, 1}, "split must be 0 (train) or 1 (test)")
    arrays["images"] = numpy.ascontiguousarray(numpy.broadcast_to(images, (*images.shape[:3], 3)).transpose(0, 3, 1, 2))
    return arrays


def sha256(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
