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
        tensors = self._tensors()
        before = [values.clone() for values in tensors]
        self.step(self.inputs, phase)  # which leaves the device, and Python, as the next one finds them
        plain = [values.clone() for values in tensors]
        _restore(tensors, before)
        self.replays.clear()  # a phase does not come back: its graph's memory is free for the next
        try:
            self.replays[phase] = self.capture(lambda: self.step(self.inputs, phase))
            self.replays[phase]()
            trained = len([*self.step.method.parameters()])
            parts = slice(trained), slice(trained, None)  # what moves far must not hide what does not
            found = max(difference(tensors[part], plain[part], before[part]) for part in parts)
            why = f"a replay differs by {found:.2g} of a step" if found > AGREES else ""
        except RuntimeError as error:
            why = str(error).splitlines()[0]
        if why:
            self.refused = True
            self.say(f"steps are not captured: {why}")
            _restore(tensors, plain)

    def _tensors(self) -> list[Tensor]:
        """All that a step changes."""
        step = self.step
        held = [values for state in step.optimiser.state.values() for values in state.values() if isinstance(values, Tensor)]
        return [*step.method.parameters(), *step.method.buffers(), *held, *step.totals.values()]


@torch.no_grad()
def _restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


@torch.no_grad()
def difference(found: list[Tensor], expected: list[Tensor], before: list[Tensor]) -> float:
    """|found - expected| / |expected - before| in the Euclidean norm of all floating tensors together; or of one of integers
    (counters, labels and places of a memory), if that is larger."""
    floating, largest = [0.0, 0.0], 0.0
    for new, plain, old in zip(found, expected, before, strict=True):
        off, moved = (float((a.double() - b.double()).square().sum()) for a, b in ((new, plain), (plain, old)))
        if new.is_floating_point():
            floating = [floating[0] + off, floating[1] + moved]
        elif off:
            largest = max(largest, off / moved if moved else math.inf)
    return math.sqrt(max(largest, floating[0] / floating[1] if floating[1] else math.inf if floating[0] else 0.0))
