"""Files that are either whole or not there, and folders shown to be writable before anything is computed."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from studylib.errors import InputError


def write(path: Path, content: Callable[[BinaryIO], Any]) -> None:
    """Write ``path`` atomically: ``content`` fills a sibling file that is synced and then renamed over it."""
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


def write_text(path: Path, text: str) -> None:
    """Write text atomically, UTF-8."""
    write(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def usable(folder: Path, field: str) -> Path:
    """``folder``, created if it was missing and shown to be writable.

    Raises:
        InputError: it cannot be created or written; names ``field``, the setting it comes from.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise InputError(field, str(folder), f"cannot be written ({error.strerror}); name a folder you may write to") from error


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: while they stay, what was read of the file need not be read again."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
