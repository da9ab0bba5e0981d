"""In which precision a step is computed: what ``optimisation.precision`` means, and what is exact whatever it says.

| setting | on a GPU | elsewhere |
|---|---|---|
| ``auto`` | bfloat16 autocast; what it leaves in float32 without TF32 | float32 |
| ``tf32`` | float32, whose products and convolutions round their factors to TF32's 10 bits | float32 |
| ``float32`` | float32 | float32 |
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

SETTINGS = ("auto", "tf32", "float32")


def used(device: torch.device, setting: str) -> str:
    """``bfloat16``, ``tf32`` or ``float32``: what ``setting`` means on ``device``."""
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if setting == "auto" else setting


@contextmanager
def kernels(device: torch.device, setting: str, *, fastest: bool = False) -> Iterator[None]:
    """On a GPU, while the block runs: TF32 if ``setting`` asks for it and not if it does not.

    ``fastest``: with the convolutions that cuDNN finds to be fastest for each shape (not where PyTorch is told to be
    deterministic: which these are differs from time to time).
    """
    if device.type != "cuda":
        yield
        return
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = products.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    products.allow_tf32 = cudnn.allow_tf32 = setting == "tf32"
    cudnn.benchmark = fastest and not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        products.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def autocast(device: torch.device, setting: str) -> AbstractContextManager:
    """bfloat16 autocast where ``setting`` asks for it."""
    return torch.autocast(device.type, torch.bfloat16) if used(device, setting) == "bfloat16" else nullcontext()


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Neither autocast (some devices, such as ``meta``, have none) nor TF32 in products, whatever the setting says.

    Their gradients are computed after the block, and follow the setting where it is ``tf32``.
    """
    products = torch.backends.cuda.matmul
    known, before = torch.amp.is_autocast_available(device.type), products.allow_tf32
    with torch.autocast(device.type, enabled=False) if known else nullcontext():
        products.allow_tf32 = False
        try:
            yield
        finally:
            products.allow_tf32 = before


def full(values: Tensor) -> Tensor:
    """``values`` in float32 at least."""
    return values if values.dtype == torch.float64 else values.float()
