"""Files that are either whole or not there, and folders shown to be writable before anything is computed."""

import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from studylib.errors import InputError, RunError, require

FULL = (errno.ENOSPC, errno.EDQUOT)
ON_DISK = (*FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)  # what a user mends, not we


def write(path: Path, content: Callable[[BinaryIO], Any]) -> None:
    """Write ``path`` atomically: ``content`` fills a sibling file that is synced and then renamed over it.

    Raises:
        RunError: the disk is full or cannot be written; what ``path`` held before is kept.
    """
    with told(path, lambda: length(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, sibling = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                content(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(sibling, 0o644)
            os.replace(sibling, path)
        except BaseException:
            Path(sibling).unlink(missing_ok=True)
            raise


@contextmanager
def told(path: Path, needed: Callable[[], int]) -> Iterator[None]:
    """While the block writes ``path``, what the disk refuses is told in a line with the bytes that are ``needed``.

    Raises:
        RunError: whatever error the disk's became (a writer of archives hides it behind its own).
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause and not (isinstance(cause, OSError) and cause.errno in ON_DISK):
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if cause is None:
            raise
        room = ""
        if cause.errno in FULL:
            place = next(folder for folder in path.absolute().parents if folder.exists())
            room = f"it needs {needed():,} bytes, {shutil.disk_usage(place).free:,} are free; "
        fix = f"{room}make room there or name another place; what it held before is kept"
        raise RunError(f"{path} cannot be written ({cause.strerror}): {fix}") from error


class _Length(io.RawIOBase):
    """Counts the bytes that are written to it."""

    bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        count = memoryview(content).nbytes
        self.bytes += count
        return count


def length(content: Callable[[BinaryIO], Any]) -> int:
    """The bytes that ``content`` writes."""
    file = _Length()
    content(file)
    return file.bytes


def write_text(path: Path, text: str) -> None:
    """Write text atomically, UTF-8."""
    write(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path, kind: type, fix: str = "delete it, and it is made again", *, lines: bool = False) -> Any:
    """What the JSON file ``path`` holds, a ``kind`` of value; with ``lines`` the list of what each of its lines holds.

    Raises:
        InputError: it is empty, cut or otherwise damaged; says the ``fix``.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(f"[{','.join(text.splitlines())}]" if lines else text)
    except ValueError as error:
        raise InputError("file", str(path), f"is no whole JSON ({error}); {fix}") from error
    require("file", str(path), isinstance(value, kind), f"holds no {kind.__name__}; {fix}")
    return value


def refuse_bomb(size: int, field: str, file: Path) -> None:
    """Raise an `InputError` if ``size`` bytes, of a zip unpacked, are more than the memory that is free: few bytes may say they
    are many."""
    free = psutil.virtual_memory().available
    fix = f"unpacks to {size / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are free; do not trust it, or free more"
    require(field, str(file), size <= free, fix)


def usable(folder: Path, field: str) -> Path:
    """``folder``, created if it was missing and shown to be writable.

    Raises:
        InputError: it cannot be created or written; names ``field``, the setting it comes from.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"0")  # a full disk has room for names
            return folder
    except OSError as error:
        raise InputError(field, str(folder), f"cannot be written ({error.strerror}); name a folder you may write to") from error


def writable(path: Path, field: str) -> Path:
    """``path``, shown to be a file that can be written, in a folder that is created if it was missing.

    Raises:
        InputError: it is a folder, or as `usable`.
    """
    require(field, str(path), not path.is_dir(), "is a folder; name a file in it")
    usable(path.absolute().parent, field)
    return path


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: while they stay, what was read of the file need not be read again."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
