"""Packed image sets: ``NAME.npz`` with a ``NAME.json`` in a folder that ``STUDYLIB_DATA`` names.

npz: ``images`` (N, H, W, C) uint8 with C 1 or 3, ``labels`` (N,), ``split`` (N,) 0 train 1 test, and optionally
``coarse_labels`` and ``domain`` (N,). json: ``classes``, ``sha256_npz`` or ``sha256_images_array``, and optionally
``coarse_classes``, ``domains``, ``flip``, source, licence, citation.
"""

import functools
import hashlib
import json
import zipfile
from lzma import LZMAError
from pathlib import Path
from typing import Any
from zlib import error as ZlibError

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from studylib import files, paths
from studylib.data import cache
from studylib.data.imageset import ImageSet
from studylib.errors import InputError, require

NOT_MIRRORED = ("mnist", "notmnist", "omniglot", "sign_digits", "svhn")  # a mirrored sign is another sign
ARRAYS = ("images", "labels", "split", "coarse_labels", "domain")  # what else a file holds is not read
UNREADABLE = (
    *(OSError, ValueError, TypeError, EOFError, NotImplementedError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, LZMAError, ZlibError),
)
HIDDEN = {"coarse": ("coarse_labels", "coarse_classes"), "domain": ("domain", "domains")}


def find(name: str) -> Path | None:
    """The npz file of the set ``name`` in the first folder that has it."""
    return next((file for folder in paths.data_folders() if (file := folder / f"{name}.npz").is_file()), None)


def names() -> list[str]:
    """Names of the sets in all folders."""
    return sorted({file.stem for folder in paths.data_folders() for file in inside(folder)})


def inside(folder: Path) -> list[Path]:
    """The npz files in ``folder``, sorted, without hidden ones: ``._NAME.npz`` is what macOS leaves beside a copy."""
    return sorted(folder.glob("[!.]*.npz"))


def read(file: Path) -> ImageSet:
    """The image set in ``file``, its checksum verified.

    Kept unpacked in the cache under that checksum, as unpacking takes seconds.

    Raises:
        InputError: the file or its description is missing, damaged, or not in the format.
    """
    about = verify(file)
    # what was unpacked was checked against the description, which therefore is part of the key
    key = [about["sha256_npz"], about.get("sha256_images_array"), len(about["classes"])]
    name = f"{file.stem}-{hashlib.sha256(str(key).encode()).hexdigest()[:16]}"
    tensors = cache.keep(name, lambda: {field: torch.from_numpy(array) for field, array in unpack(file, about).items()})
    return assemble(file, about, tensors).checked()


def assemble(file: Path, about: dict[str, Any], tensors: dict[str, Tensor]) -> ImageSet:
    """The image set of what `unpack` returned.

    Raises:
        InputError: hidden labels go beyond their names.
    """
    hidden = {}
    for name, (labels, values) in HIDDEN.items():
        if labels in tensors:
            highest, known = int(tensors[labels].max()), about.get(values)
            if known and highest >= len(known):
                fix = f"{values} has {len(known)} names, but {labels} go to {highest}; name them all"
                raise InputError("data", f"{file.stem}.json", fix)
            hidden[name] = (tensors[labels], tuple(map(str, known or range(highest + 1))))
    flip = bool(about.get("flip", file.stem not in NOT_MIRRORED))
    classes = tuple(map(str, about["classes"]))
    return ImageSet(file.stem, tensors["images"], tensors["labels"], classes, tensors["split"], hidden, flip)


def write(file: Path, arrays: dict[str, NDArray], about: dict[str, Any]) -> None:
    """Write a set as ``file`` (npz) and the json beside it, adding sizes and checksums to ``about``."""
    split, images = arrays["split"], arrays["images"]
    files.write(file, lambda out: numpy.savez_compressed(out, **arrays))
    about = about | {"name": file.stem, "n_train": int((split == 0).sum()), "n_test": int((split == 1).sum())}
    about |= {"image_shape": list(images.shape[1:]), "sha256_npz": sha256(file), "sha256_images_array": _sha256_of(images)}
    files.write_json(file.with_suffix(".json"), about)


def describe(file: Path) -> dict[str, Any]:
    """The json beside ``file``.

    Raises:
        InputError: it is missing, no JSON, or lacks class names or a checksum.
    """
    beside = file.with_suffix(".json")
    try:
        about = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fix = f"cannot be read ({type(error).__name__}), and {file.name} needs it; put the description beside the set"
        raise InputError("data", beside.name, fix) from error
    if not isinstance(about, dict) or not isinstance(about.get("classes"), list) or not about["classes"]:
        raise InputError("data", beside.name, "has no 'classes'; list the name of each class, in the order of the labels")
    if not (about.get("sha256_npz") or about.get("sha256_images_array")):
        raise InputError("data", beside.name, f"has no 'sha256_npz'; add the output of: sha256sum {file.name}")
    return about


def verify(file: Path) -> dict[str, Any]:
    """The json beside ``file``, whose ``sha256_npz`` is that of the file; one that has none gets it.

    Raises:
        InputError: the file is damaged, or see `describe`.
    """
    about, found = describe(file), sha256(file)
    if about.get("sha256_npz") not in (None, found):
        raise _damaged(file, "sha256_npz", found, about)
    return about | {"sha256_npz": found}


def unpack(file: Path, about: dict[str, Any]) -> dict[str, NDArray]:
    """Arrays of ``file``, checked: images as (N, 3, H, W) uint8, labels and split as int64.

    Raises:
        InputError: it cannot be unpacked, is damaged, or is not in the format.
    """
    try:
        with file.open("rb") as opened, numpy.load(opened, allow_pickle=False) as archive:
            read = {f"{name}.npy" for name in ARRAYS}
            size = sum(item.file_size for item in archive.zip.infolist() if item.filename in read)
            files.refuse_bomb(size, "data", Path(file.name))
            arrays = {name: archive[name] for name in ARRAYS if name in archive.files}
    except InputError:
        raise
    except UNREADABLE as error:
        fix = f"cannot be unpacked ({type(error).__name__}: {error}); fetch or copy it again"
        raise InputError("data", file.name, fix) from error

    need = functools.partial(require, "data", file.name)
    for name in ARRAYS[:3]:
        need(name in arrays, f"has no array {name!r}; it needs images, labels and split")
    images, count, classes = arrays["images"], len(arrays["images"]), len(about["classes"])
    shape = f"images are {images.shape} {images.dtype}, but must be (N, H, W, 1 or 3) uint8"
    need(images.dtype == numpy.uint8 and images.ndim == 4 and images.shape[3] in (1, 3), shape)
    need(images.size > 0, "holds no images")
    if about.get("sha256_images_array") not in (None, _sha256_of(images)):
        raise _damaged(file, "sha256_images_array", _sha256_of(images), about)
    for name in [name for name in arrays if name != "images"]:
        array = arrays[name]
        need(array.shape == (count,), f"{name} is {array.shape}, but must be ({count},), one for each image")
        need(array.dtype.kind in "iu", f"{name} is {array.dtype}, but must be whole numbers")
        arrays[name] = array.astype(numpy.int64)
        need(arrays[name].min() >= 0, f"{name} holds {arrays[name].min()}, but must not be negative")
    highest = arrays["labels"].max()
    need(highest < classes, f"labels go to {highest}, but {file.stem}.json names {classes} classes: 0 … {classes - 1}")
    need(arrays["split"].max() <= 1, f"split holds {arrays['split'].max()}, but must be 0 (train) or 1 (test)")
    arrays["images"] = numpy.ascontiguousarray(numpy.broadcast_to(images, (*images.shape[:3], 3)).transpose(0, 3, 1, 2))
    return arrays


def sha256(file: Path) -> str:
    """SHA-256 of a file, hexadecimal; read once in a process unless the file changes."""
    return _sha256(file, files.stamp(file))


@functools.cache
def _sha256(file: Path, _stamp: tuple[int, int]) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sha256_of(images: NDArray) -> str:
    return hashlib.sha256(numpy.ascontiguousarray(images)).hexdigest()


def _damaged(file: Path, field: str, found: str, about: dict[str, Any]) -> InputError:
    what = f"is damaged: its sha256 is {found[:12]}…, {field} in {file.stem}.json is {about[field][:12]}…"
    return InputError("data", file.name, f"{what}; fetch or copy it again")
