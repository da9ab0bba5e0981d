"""On a GPU: a training step captured once as a CUDA graph and replayed, as launching its kernels one by one takes longer than
small networks need to compute.

A graph replays the same kernels on the same memory. So what is given to the step is copied to where the graph reads it, and
steps that are other operations (`Method.phase`, `Method.repeats`) are not replayed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from studylib import distributed

WARM_UP = 3  # steps of a phase before its graph: kernels are chosen, momentum and the sums of the log are there
AGREES = 0.1  # ours: largest difference of a replay and a plain step, as a share of what the step changes


def captured(step: Any, setting: str, device: torch.device, say: Callable[[str], Any]) -> Callable[[Any, str], None]:
    """``step`` (`studylib.training.loop.Step`), on a GPU replayed from graphs unless ``setting`` is ``off``.

    It is the plain step, and ``say`` is told why, with several processes.
    """
    if setting == "off" or device.type != "cuda":
        return step
    if distributed.size() > 1:
        say("steps are not captured: there are several processes")
        return step
    return Captured(step, graph_of, say)


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """On a GPU, a stream of its own for the block: a graph cannot be captured on the default one."""
    if device.type != "cuda":
        yield
        return
    stream, before = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(before)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        before.wait_stream(stream)


def graph_of(step: Callable[[], None]) -> Callable[[], None]:
    """Replays what ``step`` does, captured on the current stream without being carried out."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        step()
    return graph.replay


class Captured:
    """A step whose first calls in a phase are plain and whose others are replays of one of them.

    The first replay of each phase is compared with a plain step from the same state; if they differ, or the step cannot be
    captured, all steps are plain from then on, and ``say`` is told once. ``capture`` makes a replay of a step.
    """

    def __init__(self, step: Any, capture: Callable[[Callable[[], None]], Callable[[], None]], say: Callable[[str], Any]):
        self.step, self.capture, self.say = step, capture, say
        self.inputs: Any = None
        self.replays: dict[str, Callable[[], None]] = {}
        self.seen: Counter[str] = Counter()
        self.refused = False

    def __call__(self, inputs: Any, phase: str) -> None:
        if self.refused or not self.step.method.repeats(phase):
            return self.step(inputs, phase)
        self.seen[phase] += 1
        if self.seen[phase] <= WARM_UP:
            return self.step(inputs, phase)
        if self.inputs is None:
            self.inputs = type(inputs)(*(values.clone() for values in inputs))
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        if phase in self.replays:
            return self.replays[phase]()
        return self._first(phase)

    def _first(self, phase: str) -> None:
        """Capture a step of ``phase`` and take the step that is due: by a replay if that is right, plainly if not."""
        groups = self._state()
        tensors = [values for group in groups for values in group]
        self.replays.clear()  # a phase does not come back: its graph's memory is free for the next
        before = plain = None
        try:
            before = [values.clone() for values in tensors]
            self.step(self.inputs, phase)  # which leaves the device, and Python, as the next one finds them
            plain = [values.clone() for values in tensors]
            _restore(tensors, before)
            self.replays[phase] = self.capture(lambda: self.step(self.inputs, phase))
            self.replays[phase]()
            found = largest_difference(groups, plain, before)
            why = "" if found <= AGREES else f"a replay differs by {found:.2g} of a step"
        except RuntimeError as error:
            why = str(cause(error)).splitlines()[0]
        if why:
            self.refused = True
            self.replays.clear()
            self.say(f"steps are not captured: {why}")
            if plain is not None:
                _restore(tensors, plain)
            else:
                _restore(tensors, before or tensors)
                self.step(self.inputs, phase)

    def _state(self) -> list[list[Tensor]]:
        """All that a step changes, in groups within which changes are of one size."""
        step, method = self.step, self.step.method
        buffers = dict(method.named_buffers())
        memory = [values for name, values in buffers.items() if name.startswith("bank.")]
        held = [values for state in step.optimiser.state.values() for values in state.values() if isinstance(values, Tensor)]
        return [
            [values for values in method.parameters() if values.requires_grad],
            [values for values in method.parameters() if not values.requires_grad],
            [values for name, values in buffers.items() if not name.startswith("bank.")],
            memory,
            held,
            *([total] for total in step.totals.values()),
        ]


def cause(error: BaseException) -> BaseException:
    """The error that came first: ending a capture that failed raises another."""
    while error.__context__:
        error = error.__context__
    return error


@torch.no_grad()
def _restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


@torch.no_grad()
def largest_difference(groups: list[list[Tensor]], expected: list[Tensor], before: list[Tensor]) -> float:
    """Largest over ``groups`` of |found - expected| / |expected - before|, in the Euclidean norm of a group's tensors.

    ``expected`` and ``before`` are flat lists. Infinite where an integer differs (counters, labels and places of a memory) or
    where a value is not finite that should be.
    """
    largest, pairs = 0.0, zip(expected, before, strict=True)
    for group in groups:
        off = moved = 0.0
        for found in group:
            plain, old = next(pairs)
            if found.is_floating_point():
                off += float((found.double() - plain.double()).square().sum())
                moved += float((plain.double() - old.double()).square().sum())
            elif not torch.equal(found, plain):
                off = math.inf
        if off:  # also where it is nan
            largest = max(largest, math.sqrt(off / moved) if moved and off < math.inf else math.inf)
    return largest
