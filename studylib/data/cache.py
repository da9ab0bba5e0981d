"""Image sets that take seconds to make, kept on disk and shown to be whole whenever they are read."""

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from studylib import files, paths


def keep(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that ``make`` returns, from the cache if it holds them under ``name``.

    A missing or damaged file is made anew, by one process while others wait. The tensors are mapped from the file, not read.

    Raises:
        InputError: the cache cannot be written.
    """
    file = paths.cache() / "data" / f"{name}.pt"
    if (found := _read(file)) is not None:
        return found
    files.usable(file.parent, "STUDYLIB_RUNS")
    with FileLock(file.with_suffix(".lock")):
        if (found := _read(file)) is None:
            found = make()
            content = {"tensors": found, "checksum": checksum(found.values())}
            files.write(file, lambda out: torch.save(content, out))
    return found


def checksum(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of shapes and contents, hexadecimal."""
    digest = hashlib.sha256()
    for values in tensors:
        digest.update(str(tuple(values.shape)).encode())
        digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()


def _read(file: Path) -> dict[str, Tensor] | None:
    try:
        found = torch.load(file, weights_only=True, mmap=True)
        return found["tensors"] if _checksum(file, files.stamp(file)) == found["checksum"] else None
    except Exception:  # a damaged file fails in many ways, and all of them mean that it has to be made anew
        return None


@cache
def _checksum(file: Path, _stamp: tuple[int, int]) -> str:
    """Of the tensors in ``file``, read once in a process unless the file changes."""
    return checksum(torch.load(file, weights_only=True, mmap=True)["tensors"].values())
