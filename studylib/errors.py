"""The two errors that a user can cause or repair, with messages of one line and exit codes, and the checks that raise them."""

import difflib
from collections.abc import Iterable

RESUME_EXIT = 75  # EX_TEMPFAIL: stopped by SIGTERM after everything was saved; the same call resumes


class InputError(ValueError):
    """A value that cannot be used, refused before any compute. Exit code 2."""

    exit_code = 2

    def __init__(self, field: str, value: object, fix: str):
        """``field``: name of the input; ``value``: what was given; ``fix``: what is wrong with it and what to write instead."""
        super().__init__(f"{field}={value!r}: {fix}" if value is not None else f"{field}: {fix}")


class RunError(RuntimeError):
    """A run that cannot go on (it diverged, or a worker died); its saved files are kept. Exit code 1."""

    exit_code = 1


def choose(field: str, value: object, valid: Iterable[str]) -> str:
    """``value`` if it is one of ``valid``; otherwise an `InputError` that lists them, nearest first."""
    valid = list(valid)
    if value in valid:
        return value
    near = difflib.get_close_matches(str(value), valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(field, value, f"unknown; {hint}valid: {', '.join(valid)}")


def require(field: str, value: object, ok: object, fix: str) -> None:
    """Raise an `InputError` of ``field``, ``value`` and ``fix`` unless ``ok``."""
    if not ok:
        raise InputError(field, value, fix)
