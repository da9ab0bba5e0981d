"""Image sets by name."""

import dataclasses
import difflib
import re
from functools import lru_cache
from typing import Any

from studylib import files, paths
from studylib.data import download, packed, splits
from studylib.data.catalogue import EMBEDDED, available, check
from studylib.data.download import fetch
from studylib.data.imageset import ImageSet
from studylib.errors import InputError, choose, require

__all__ = [
    "DETECTION",
    "EMBEDDED",
    "ImageSet",
    "available",
    "boxes",
    "check",
    "checksum",
    "fetch",
    "find",
    "forget",
    "is_here",
    "load",
]

HELD_OUT = "held_out"
DETECTION = ("scenes", "scenes/few", "coco")
"""names of the sets of images with boxes, which `boxes` gives"""


def boxes(name: str) -> Any:
    """The detection set ``name``: `studylib.data.scenes.Scenes`, embedded, or `studylib.data.coco.Coco`, the user's.

    ``scenes/few`` are the first 16 training and 8 test images of ``scenes``, enough to check that everything runs.

    Raises:
        InputError: there is no such set, or COCO is not in the folders of ``STUDYLIB_DATA``.
    """
    if choose("data", name, DETECTION) == "coco":
        from studylib.data.coco import coco

        return coco()
    from studylib.data import scenes

    return scenes.render() if name == "scenes" else dataclasses.replace(scenes.render(16, 8), name=name)


def find(spec: str) -> Any:
    """The set ``spec``, of images with a class (`load`) or with boxes (`boxes`)."""
    return boxes(spec) if spec in DETECTION else load(spec)


def load(spec: str) -> ImageSet:
    """The image set ``NAME[/PART][@LABELS][:held_out]``.

    ``NAME`` is embedded or packed; ``PART`` takes some of its classes (``splits.yaml``); ``LABELS`` asks for other labels
    of the same images (``glyphs@face``, ``cifar100@coarse``); ``:held_out`` is without its test images, and a tenth of the
    training images is in their place: what settings are chosen on. The last two sets of a process are kept, unless their
    files change.

    Raises:
        InputError: it is unknown, missing or damaged, or cannot be trained and tested on.
    """
    return _load(spec, _stamps(spec))


def checksum(spec: str) -> str:
    """SHA-256 of the images and labels of the set ``spec``; read once in a process, unless its files change.

    Raises:
        InputError: as `find`.
    """
    return _checksum(spec, (*_stamps(spec), *paths.data_folders()))


def is_here(spec: str) -> bool:
    """Whether the set ``spec`` is embedded or its files are there, be they damaged."""
    base = _base(spec)
    if base == "coco":
        from studylib.data.coco import places

        return any(place.is_dir() for place in places())
    return base in EMBEDDED or base == "scenes" or packed.find(base) is not None


def forget() -> None:
    """Read sets anew from now on."""
    _load.cache_clear()
    _checksum.cache_clear()


def _base(spec: str) -> str:
    """``NAME`` of ``NAME/PART@LABELS``."""
    return re.split("[/@:]", spec, maxsplit=1)[0]


def _stamps(spec: str) -> tuple[tuple[int, int], ...]:
    """Of the files of a packed set, so that what is kept of it in a process is not used when they have changed."""
    file = packed.find(_base(spec))
    return tuple(files.stamp(part) for part in (file, file.with_suffix(".json")) if part.exists()) if file else ()


@lru_cache
def _checksum(spec: str, _files: tuple) -> str:
    return find(spec).checksum


@lru_cache(maxsize=2)  # the pre-training set, and the one that features are taken of
def _load(spec: str, _stamps: tuple[tuple[int, int], ...]) -> ImageSet:
    whole, colon, ending = spec.partition(":")
    name, at, labels = whole.partition("@")
    name, slash, part = name.partition("/")
    if not name or (slash and not part) or (at and not labels) or ending != (HELD_OUT if colon else ""):
        raise InputError("data", spec, f"write NAME, NAME/PART, NAME@LABELS or NAME/PART@LABELS, and perhaps :{HELD_OUT}")
    images = _whole(name)
    if part:
        known = splits.parts().get(name)
        require("data", spec, known, f"{name} has no parts; write {name}")
        chosen = known[choose(f"part of {name}", part, known)]
        images = images.only(chosen.classes, f"{name}/{part}").fewer(chosen.images)
    if labels:
        images = images.relabelled(labels, whole)
    images = images.checked()
    return images.held_out(spec).checked() if colon else images


def _whole(name: str) -> ImageSet:
    if name in EMBEDDED:
        from studylib.data import glyphs

        return glyphs.render(name)
    if file := packed.find(name):
        return packed.read(file)
    raise _missing(name)


def _missing(name: str) -> InputError:
    known = dict.fromkeys([*EMBEDDED, *packed.names(), *download.sources()])
    searched = ", ".join(map(str, paths.data_folders()))
    if name in known:
        return InputError(
            "data",
            name,
            f"is in none of {searched}; call: studylib data fetch {name}, or name the folder of {name}.npz in STUDYLIB_DATA",
        )
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(
        "data",
        name,
        f"unknown, and {name}.npz is in none of {searched}; {hint}valid: {', '.join(known)}; "
        "a packed set of your own: name its folder in STUDYLIB_DATA",
    )
