"""A ring buffer of keys with their labels and sample ids; all of it is in the state dict and survives a restart."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from studylib import config, distributed


class Bank(nn.Module):
    """Q = {(v_n, y_n, id_n)}, first in, first out.

    ``bank.start`` and ``bank.tail`` offer the official t-ReX's ways (random content to begin with; the rest of a batch that
    does not fit before the end is lost) beside ours (what was not written does not count; nothing is lost).
    """

    keys: Tensor
    labels: Tensor
    ids: Tensor

    def __init__(self, settings: config.Bank, width: int, classes: int):
        super().__init__()
        length, random = settings.length, settings.start == "random"
        self.tail = settings.tail
        self.register_buffer("keys", torch.randn(length, width) if random else torch.zeros(length, width))
        self.register_buffer("labels", torch.randint(classes, (length,)) if random else torch.full((length,), -1))
        self.register_buffer("ids", torch.full((length,), -1))
        self.pointer = 0
        """row that is written next"""
        self.filled = length if random else 0
        """rows that count, from the first"""

    def __len__(self) -> int:
        return len(self.keys)

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.pointer, self.filled])

    def set_extra_state(self, state: Tensor) -> None:
        self.pointer, self.filled = state.tolist()

    def content(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys (F, p), labels (F,) and ids (F,) of what counts."""
        return self.keys[: self.filled], self.labels[: self.filled], self.ids[: self.filled]

    @torch.no_grad()
    def push(self, keys: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Write the keys (B, p) of all processes with their labels (B,) and ids (B,) over the oldest rows."""
        new = [distributed.gather(values) for values in (keys.to(self.keys.dtype), labels, ids)]
        length, count = len(self), len(new[0])
        first = min(count, length - self.pointer)
        spans = [(slice(self.pointer, self.pointer + first), slice(0, first))]
        if self.tail == "wrap" and first < count:
            spans.append((slice(0, count - first), slice(first, count)))
        for rows, source in spans:
            for held, values in zip((self.keys, self.labels, self.ids), new, strict=True):
                held[rows] = values[source]
        end = self.pointer + count
        self.filled = max(self.filled, min(end, length))
        self.pointer = end % length if self.tail == "wrap" else (0 if end >= length else end)

    def prototypes(self, classes: int) -> Tensor:
        """u_c = sum of the keys of class c, (C, p); zero for a class that is absent.

        A product with one-hot labels: unlike ``index_add_`` it adds in a fixed order on a GPU.
        """
        keys, labels, _ = self.content()
        with torch.autocast(keys.device.type, enabled=False):
            return functional.one_hot(labels, classes).to(keys.dtype).T @ keys
