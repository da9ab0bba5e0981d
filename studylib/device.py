"""The device that something is computed on, a GPU where there is one, and the cores beside it."""

import os

import torch

from studylib.errors import InputError, require


def find(name: str | torch.device | None = None) -> torch.device:
    """The device ``name`` (``cuda``, ``cuda:1``, ``cpu``), by default this process's GPU or, without one, the CPU.

    A GPU always has its index: without one it is that of ``torchrun``'s LOCAL_RANK, otherwise the current GPU.

    Raises:
        InputError: there is no such device here.
    """
    available = torch.cuda.is_available()
    try:
        device = torch.device(name or ("cuda" if available else "cpu"))
    except RuntimeError as error:
        raise InputError("device", name, "is none; write cpu, cuda or cuda:0") from error
    if device.type == "cpu":
        return device
    require("device", name, device.type == "cuda", "is not supported; write cpu, cuda or cuda:0")
    require("device", name, available, "no GPU can be used here; write cpu")
    if device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK") or torch.cuda.current_device()))
    if device.index >= torch.cuda.device_count():
        raise InputError("device", str(device), f"there are {torch.cuda.device_count()} GPUs, numbered from 0")
    return device


def name_of(device: torch.device) -> str:
    """Name of the GPU, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
