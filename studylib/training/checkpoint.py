"""Checkpoints: written whole or not at all, read without executing pickles."""

from pathlib import Path
from typing import Any

import torch

from studylib import files
from studylib.errors import RunError


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    files.write(path, lambda file: torch.save(state, file))


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `save` wrote; only tensors and plain values are read, no code is run.

    Raises:
        RunError: the file is damaged; the message names it.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}); delete it to start from what is left") from error
