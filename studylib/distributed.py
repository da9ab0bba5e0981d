"""Several processes training one network: what they exchange, and batch norm over all of them.

With one process every function is the identity. Under ``torchrun`` each process holds its share of every batch; losses are
means over that share and gradients are averaged, so that a step is that of one process with the whole batch.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from studylib import values
from studylib.errors import RunError, require


def size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def started() -> int:
    """How many processes ``torchrun`` started, by its environment.

    Raises:
        InputError: ``WORLD_SIZE`` is no number, or stands alone, as schedulers set it: the processes would not find each other.
    """
    count = values.read("WORLD_SIZE", os.environ.get("WORLD_SIZE") or 1, int)
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    fix = f"{', '.join(missing)} not set; start the processes with torchrun, or unset WORLD_SIZE to train with one"
    require("WORLD_SIZE", count, count == 1 or not missing, fix)
    return count


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Join the processes that ``torchrun`` started, if it did: NCCL on GPUs, Gloo on CPUs.

    Raises:
        InputError: as `started`.
    """
    if distributed.is_initialized() or started() == 1:
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All processes' rows; the gradient of a row is the sum over the processes that used it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(size())]
        distributed.all_gather(parts, rows.contiguous())
        ctx.count = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient[rank() * ctx.count : (rank() + 1) * ctx.count]


def gather(rows: Tensor) -> Tensor:
    """Rows (B, ...) of all processes in their order, (size B, ...); gradients flow back to each."""
    return _Gather.apply(rows) if size() > 1 else rows


class _Sum(torch.autograd.Function):
    """The sum over all processes, of values and of gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


def mean(values: Tensor) -> Tensor:
    """Mean of ``values`` over the processes, elementwise."""
    return _Sum.apply(values) / size() if size() > 1 else values


def any_of(*flags: bool) -> list[bool]:
    """Each flag, true if it is in any process."""
    if size() == 1:
        return list(flags)
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    seen = torch.tensor(flags, dtype=torch.int32, device=device)
    distributed.all_reduce(seen, distributed.ReduceOp.MAX)
    return seen.bool().tolist()


def refuse_difference(numbers: list[int], what: str) -> None:
    """Raise a `RunError` unless ``numbers`` are the same in all processes; ``what`` says what they are."""
    if size() == 1:
        return
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    seen = gather(torch.tensor([numbers], device=device))
    if (seen != seen[0]).any():
        raise RunError(f"the {size()} processes differ in {what}: {seen.tolist()}; the folder must be shared by all")


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all processes, in the plain operations that PyTorch's own lacks on a CPU."""

    def _check_input_dim(self, values: Tensor) -> None:
        pass

    def forward(self, values: Tensor) -> Tensor:
        """``values`` (B, C, ...) normalised per channel; the statistics of all processes count alike."""
        if not self.training:
            return super().forward(values)
        axes = [axis for axis in range(values.ndim) if axis != 1]
        count = values.numel() // values.shape[1] * size()
        shape = [1, -1] + [1] * (values.ndim - 2)
        centre = mean(values.mean(axes))
        variance = mean((values - centre.view(shape)).square().mean(axes))
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(centre, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scaled = (values - centre.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        return scaled * self.weight.view(shape) + self.bias.view(shape)


def synchronise(method: nn.Module, device: torch.device) -> nn.Module:
    """``method`` with every batch norm over all processes; itself if there is one."""
    if size() == 1:
        return method
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(method)
    for module in list(method.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                synced = SyncBatchNorm(child.num_features, child.eps, child.momentum, child.affine)
                synced.load_state_dict(child.state_dict())
                for own, old in zip(synced.parameters(), child.parameters(), strict=True):
                    own.requires_grad_(old.requires_grad)
                setattr(module, name, synced.to(child.running_mean.dtype).train(child.training))
    return method


class _Loss(nn.Module):
    """``method.loss`` as the forward pass that DistributedDataParallel wants."""

    def __init__(self, method: nn.Module):
        super().__init__()
        self.method = method

    def forward(self, batch: Any) -> Any:
        return self.method.loss(batch)


def averaging(method: nn.Module, device: torch.device) -> Callable[[Any], Any]:
    """``method.loss``; with several processes, one whose gradients are averaged over them."""
    if size() == 1:
        return method.loss
    options = {"device_ids": [device] if device.type == "cuda" else None, "broadcast_buffers": False}
    options |= {"find_unused_parameters": method.unused_parameters}
    return DistributedDataParallel(_Loss(method), **options)
