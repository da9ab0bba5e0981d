"""One training step as a pure function: what the loop repeats, and what a GPU captures."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from studylib import distributed, precision
from studylib.config import Optimisation
from studylib.data.augment import augment
from studylib.methods import Batch, Method
from studylib.training.optimiser import sgd


class Inputs(NamedTuple):
    """What a step is given, on its device; the images of this process."""

    images: Tensor
    """(B, 3, H, W) uint8"""
    labels: Tensor
    """(B,) class of each image"""
    ids: Tensor
    """(B,) row of each image in the training set"""
    numbers: Tensor
    """(V, 14, B) random numbers for the augmentation of each view"""


class Step:
    """One training step, from images and random numbers to new weights, in operations that ask the host for nothing.

    What changes from step to step is a tensor that it reads, so that on a GPU the step can be captured and replayed.
    """

    def __init__(self, method: Method, settings: Optimisation, device: torch.device):
        self.method, self.precision, self.views = method, settings.precision, method.views
        self.progress = torch.zeros((), dtype=torch.float64, device=device)
        """share of the training steps that are done"""
        self.rate = torch.zeros((), device=device if device.type == "cuda" else "cpu")
        """learning rate, where the optimiser reads it"""
        self.optimiser = sgd(method, settings, self.rate)
        self.loss = distributed.averaging(method, device)
        self.totals: dict[str, Tensor] = {}
        """sums of the loss and of what the method logs, () float64 each"""

    def __call__(self, inputs: Inputs, phase: str) -> None:
        device = inputs.images.device
        with precision.exact(device):
            views = [augment(inputs.images, view, drawn) for view, drawn in zip(self.views, inputs.numbers, strict=True)]
        batch = Batch(views, inputs.labels, inputs.ids, self.progress, phase)
        with precision.autocast(device, self.precision):
            loss, logs = self.loss(batch)
        self.optimiser.zero_grad()
        loss.backward()
        with precision.autocast(device, self.precision):
            self.method.before_step(batch)
        self.optimiser.step()
        with precision.autocast(device, self.precision):
            self.method.after_step(batch)
        for name, value in {"loss": loss.detach(), **logs}.items():
            value = distributed.mean(value.double())
            if name not in self.totals:
                self.totals[name] = torch.zeros_like(value)
            self.totals[name] += value

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {"method": self.method.state_dict(), "optimiser": self.optimiser.state_dict(), "totals": self.totals}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, on this device."""
        self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.totals = state["totals"]
