"""A ring buffer of keys with their labels and sample ids; all of it is in the state dict and survives a restart."""

import torch
from torch import Tensor, nn

from studylib import config, distributed
from studylib.precision import exact


class Bank(nn.Module):
    """Q = {(v_n, y_n, id_n)}, first in, first out.

    ``bank.start`` and ``bank.tail`` offer the official t-ReX's ways (random content to begin with; the rest of a batch that
    does not fit before the end is lost) beside ours (what was not written does not count; nothing is lost).
    """

    keys: Tensor
    labels: Tensor
    ids: Tensor
    pointer: Tensor
    """() int64, row that is written next"""

    def __init__(self, settings: config.Bank, width: int, classes: int):
        super().__init__()
        length, random = settings.length, settings.start == "random"
        self.tail = settings.tail
        self.register_buffer("keys", torch.randn(length, width) if random else torch.zeros(length, width))
        self.register_buffer("labels", torch.randint(classes, (length,)) if random else torch.full((length,), -1))
        self.register_buffer("ids", torch.full((length,), -1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.filled = length if random else 0
        """rows that count, from the first"""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def full(self) -> bool:
        """Whether every row counts, as it does from then on: pushes are the same operations again and again."""
        return self.filled == len(self)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.filled)

    def set_extra_state(self, state: Tensor) -> None:
        self.filled = int(state)

    def content(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys (F, p), labels (F,) and ids (F,) of what counts."""
        return self.keys[: self.filled], self.labels[: self.filled], self.ids[: self.filled]

    @torch.no_grad()
    def push(self, keys: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Write the keys (B, p) of all processes with their labels (B,) and ids (B,) over the oldest rows.

        B is at most the length; where they go is a tensor, so that a push asks the host for nothing.
        """
        new = [distributed.gather(values) for values in (keys.to(self.keys.dtype), labels, ids)]
        length, count = len(self), len(new[0])
        places = self.pointer + torch.arange(count, device=self.keys.device)
        rows, lost = places % length, (places >= length) & (self.tail == "drop")
        for held, values in zip((self.keys, self.labels, self.ids), new, strict=True):
            held.index_copy_(0, rows, torch.where(lost.view(-1, *[1] * (values.ndim - 1)), held[rows], values))
        end = self.pointer + count
        self.pointer.copy_(end % length if self.tail == "wrap" else end * (end < length))
        self.filled = min(self.filled + count, length)

    def resize(self, length: int) -> None:
        """Empty it and make it ``length`` rows long, as long as the state is that is loaded next."""
        for name, content in (("keys", 0.0), ("labels", -1), ("ids", -1)):
            held = getattr(self, name)
            setattr(self, name, held.new_full((length, *held.shape[1:]), content))
        self.pointer.zero_()
        self.filled = 0

    def condense(self, classes: int) -> None:
        """Keep only the class vectors: a key u_c for each class, without a sample id."""
        vectors = self.prototypes(classes)
        self.resize(classes)
        self.push(vectors, torch.arange(classes, device=vectors.device), self.ids.clone())

    def prototypes(self, classes: int) -> Tensor:
        """u_c = sum of the keys of class c, (C, p); zero for a class that is absent.

        A product with one-hot labels: unlike ``index_add_`` it adds in a fixed order on a GPU.
        """
        keys, labels, _ = self.content()
        with exact(keys.device):
            return (labels == torch.arange(classes, device=keys.device)[:, None]).to(keys.dtype) @ keys
