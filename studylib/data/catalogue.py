"""Which image sets there are, and whether the packed ones are in order."""

import collections
import hashlib
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

from studylib import paths
from studylib.data import download, packed, splits
from studylib.errors import InputError, require

EMBEDDED = {
    "glyphs": "letters and digits in sixteen typefaces",
    "glyphs_greek": "Greek letters",
    "glyphs_cyrillic": "Cyrillic letters",
    "glyphs_armenian": "Armenian letters",
    "glyphs_georgian": "Georgian letters",
    "digits": "scikit-learn's handwritten digits",
}


def available() -> list[dict[str, Any]]:
    """Rows (name, where, train, test, classes, shape, labels, note, parts): embedded sets, packed ones, what can be fetched.

    Nothing is made, unpacked or downloaded: the counts of a packed set are those of its description, None where it has none.
    """
    from studylib.data import glyphs

    rows = []
    for name, note in EMBEDDED.items():
        train, test, classes = glyphs.size_of(name)
        about = {"train": train, "test": test, "classes": classes, "shape": "32×32×3"}
        rows.append(_row(name, "embedded", **about, labels=", ".join(glyphs.labels_of(name)), note=note))
    note = "Greek letters with boxes, for detection"
    rows.append(_row("scenes", "embedded", train=300, test=200, classes=10, shape="64×64×3", note=note))
    for name in packed.names():
        file = packed.find(name)
        try:
            about = packed.describe(file)
        except InputError as error:
            rows.append(_row(name, str(file.parent), note=f"unusable: {error}"))
            continue
        counts = {"train": about.get("n_train"), "test": about.get("n_test"), "classes": len(about["classes"])}
        shape = "×".join(map(str, about.get("image_shape") or [])) or None
        labels = ", ".join(label for label, (_, values) in packed.HIDDEN.items() if about.get(values))
        rows.append(_row(name, str(file.parent), **counts, shape=shape, labels=labels, note=about.get("title")))
    present = {row["name"] for row in rows}
    for name, source in download.sources().items():
        if name not in present:
            rows.append(_row(name, f"studylib data fetch {name}", note=source.about))
    return rows


def _row(name: str, where: str, **known: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("train", "test", "classes", "shape", "labels", "note"))
    return {"name": name, "where": where} | empty | {"parts": ", ".join(splits.parts().get(name, {}))} | known


def check(folder: Path | None = None) -> list[dict[str, Any]]:
    """Rows (name, folder, ok, notes) of the packed sets in ``folder``, by default in all known folders, read from the start.

    ``ok`` is whether the set can be used; ``notes`` says why not, or names flaws that it was published with.

    Raises:
        InputError: ``folder`` does not exist or holds no packed set.
    """
    if folder and not folder.is_dir():
        raise InputError("folder", str(folder), "does not exist; name a folder that holds NAME.npz and NAME.json")
    folders = [folder] if folder else [known for known in paths.data_folders() if known.is_dir()]
    found = [file for known in folders for file in packed.inside(known)]
    require("folder", str(folder), found or not folder, "holds no NAME.npz; name a folder of packed sets")
    return [_check(file) for file in found]


def _check(file: Path) -> dict[str, Any]:
    row = {"name": file.stem, "folder": str(file.parent)}
    try:
        about = packed.verify(file)
        arrays = packed.unpack(file, about)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        packed.assemble(file, about, tensors).checked()
    except InputError as error:
        return row | {"ok": False, "notes": str(error)}
    return row | {"ok": True, "notes": "; ".join(flaws(arrays["images"], arrays["labels"], arrays["split"]))}


def flaws(images: NDArray, labels: NDArray, split: NDArray) -> list[str]:
    """What is wrong with a set as published: test images that are also training images, images of more than one class."""
    rows = collections.defaultdict(list)
    for row, image in enumerate(images):
        rows[hashlib.blake2b(image, digest_size=16).digest()].append(row)
    repeated = [numpy.array(same) for same in rows.values() if len(same) > 1]
    leaked = sum(int((split[same] == 1).sum()) for same in repeated if (split[same] == 0).any())
    ambiguous = sum(len(set(labels[same])) > 1 for same in repeated)
    found = [f"{leaked} test images are identical to a training image"] if leaked else []
    return found + ([f"{ambiguous} images stand under two or more classes"] if ambiguous else [])
