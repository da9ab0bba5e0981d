"""The step as a pure function: on a device without values, captured (by a stand-in for CUDA graphs), and on every CPU."""

import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from studylib import config
from studylib.data.augment import draw
from studylib.methods import METHODS
from studylib.methods.batch import STEADY
from studylib.training.capture import WARM_UP, Captured, difference
from studylib.training.loop import Inputs, Step

CLASSES, SIDE = 4, 24
VARIANTS = {method: (method, {}) for method in METHODS}
VARIANTS |= {f"look, {start}": ("look", {"look.start": start}) for start in ("warmup", "ramp", "fixed")}
VARIANTS |= {
    "look, filled": ("look", {"look.start": "filled", "look.no_positive": "nearest"}),
    "trex, averaged buffers, drop": ("trex", {"ema.buffers": "average", "bank.tail": "drop"}),
    "sl, every colour": ("sl", {"augmentation.blur": 0.5, "augmentation.solarise": 0.2, "cross_entropy.label_smoothing": 0.1}),
}


def settings(method, **overrides):
    small = {"optimisation.batch": 8} | ({"bank.length": 20} if "bank" in config.METHODS[method] else {})
    return config.resolve("smoke", method, 0, small | overrides)


def step_of(asked, device="cpu", seed=0):
    torch.manual_seed(seed)
    method = METHODS[asked.method](asked, CLASSES, torch.full((3,), 0.5), torch.full((3,), 0.25))
    return Step(method.to(device).train(), asked.optimisation, torch.device(device))


def inputs(step, number, device="cpu"):
    """Images, labels and random numbers of step ``number``."""
    generator = torch.Generator().manual_seed(number)
    images = torch.randint(256, (8, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    numbers = torch.stack([draw(8, generator) for _ in step.views])
    given = images, torch.arange(8) % CLASSES, torch.arange(8) + 8 * number, numbers
    return Inputs(*(values.to(device) for values in given))


class OnDevice(TorchDispatchMode):
    """Refuses tensors of the host, but for single numbers: they would have to be copied to the device in every step."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        found = operation(*arguments, **(options or {}))
        for value in tree_leaves((arguments, options, found)):
            assert not (isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.ndim), operation
        return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_asks_the_host_for_nothing(variant):
    """On ``meta`` tensors have no values: whatever needs one on the host fails. The memory (20 rows, batch 8) wraps around."""
    method, overrides = VARIANTS[variant]
    step = step_of(settings(method, **overrides), "meta")
    assert step.method.repeats(STEADY) == (not hasattr(step.method, "bank") or step.method.bank is None)
    for number, progress in enumerate((0.0, 0.0, 0.0, 0.1, 0.2, 0.9)):
        step.rate.fill_(0.1)
        given = inputs(step, number, "meta")
        with OnDevice() if number else nullcontext():  # constants are made in the first step
            step(given, step.method.phase(progress))
    assert step.totals["loss"].device.type == "meta"
    assert step.method.repeats(step.method.phase(0.9))


def curious(loss):
    return loss if loss > 0 else -loss


def copied(loss):
    return loss + torch.tensor([0.0, 1.0], device=loss.device).sum()


@pytest.mark.parametrize("asks", [curious, copied])
def test_a_step_that_asks_the_host_is_told(monkeypatch, asks):
    """The test above can fail."""
    real = METHODS["sl"].loss
    monkeypatch.setattr(METHODS["sl"], "loss", lambda *given: (asks(real(*given)[0]), {}))
    step = step_of(settings("sl"), "meta")
    with pytest.raises((RuntimeError, AssertionError)), OnDevice():
        step(inputs(step, 0, "meta"), STEADY)


def test_phases_of_look():
    """What a step consists of, and from when on steps are alike."""
    for start, expected in {
        "falling": ["falling", "falling", STEADY],
        "warmup": ["warmup", "warmup", STEADY],
        "ramp": [STEADY] * 3,
        "fixed": [STEADY] * 3,
        "filled": ["filled", "filled", STEADY],
    }.items():
        step = step_of(settings("look", **{"look.start": start}))
        found = []
        for number, progress in enumerate((0.0, 0.39, 0.4)):
            found.append(step.method.phase(progress))
            assert not step.method.repeats(found[-1])
            step(inputs(step, number), found[-1])
        assert found == (expected if start != "filled" else ["filled"] * 3)
        assert step.method.phase(0.4) == STEADY
        assert step.method.repeats(STEADY)
        assert step.method.repeats("falling")
        assert not step.method.repeats("warmup")


def both(method, overrides, capture, count=12):
    """Steps of a method plainly, and by `Captured` with ``capture``; what was said of it, and how often it replayed."""
    asked = settings(method, **overrides)
    plain, other, said = step_of(asked), step_of(asked), []
    replays = []

    def counting(take):
        replay = capture(take)
        return lambda: replays.append(replay())

    captured = Captured(other, counting, said.append)
    for number in range(count):
        progress = number / count
        for step, take in ((plain, plain), (other, captured)):
            step.progress.fill_(progress)
            step.rate.fill_(0.1 / (1 + number))
            take(inputs(step, number), step.method.phase(progress))
    return plain, other, said, len(replays)


def same(first, second):
    """Whether two steps have come to the same state, bit for bit."""
    one, two = first.state(), second.state()
    pairs = [(one["method"], two["method"]), (one["totals"], two["totals"])]
    pairs += zip(one["optimiser"]["state"].values(), two["optimiser"]["state"].values(), strict=True)
    return all(torch.equal(a[name], b[name]) for a, b in pairs for name in a | b)


@pytest.mark.parametrize("variant", VARIANTS)
def test_captured_steps_are_plain_steps(variant):
    """With a stand-in that repeats the step on the memory of its capture, as a CUDA graph does: same bits, and replays."""
    method, overrides = VARIANTS[variant]
    plain, other, said, replays = both(method, overrides, lambda take: take)
    assert same(plain, other)
    assert said == []
    eager = 2 * (plain.method.phase(0.0) == "falling") + 3 if hasattr(plain.method, "bank") and plain.method.bank else WARM_UP
    assert 12 - WARM_UP - 4 - eager <= replays <= 12 - eager


def test_a_replay_of_other_memory_is_seen_and_steps_are_plain_from_then_on():
    """A graph that goes on reading what was there when it was captured."""

    def stale(take):
        step, old = take.__closure__, None
        cells = {name: cell.cell_contents for name, cell in zip(take.__code__.co_freevars, step, strict=True)}
        own, phase = cells["self"], cells["phase"]
        old = own.inputs
        own.inputs = type(old)(*(values.flip(-1).clone() for values in old))
        wrong = own.inputs
        own.inputs = old
        return lambda: own.step(wrong, phase)

    plain, other, said, replays = both("trex", {}, stale)
    assert same(plain, other)
    assert replays == 1
    assert len(said) == 1
    assert "a replay differs by" in said[0]


def test_a_step_that_cannot_be_captured_is_taken_plainly_and_said_once():
    def refuse(take):
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors")

    plain, other, said, replays = both("byol", {}, refuse)
    assert same(plain, other)
    assert replays == 0
    assert said == ["steps are not captured: operation not permitted when stream is capturing"]


def test_difference_of_replays():
    """Share of the change in the norm of all floating tensors; a counter or label that is wrong counts by itself."""
    before = [torch.zeros(3), torch.zeros(2), torch.tensor(5)]
    plain = [torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 4.0]), torch.tensor(6)]
    assert difference(plain, plain, before) == 0
    off = [plain[0] + torch.tensor([0.0, 0.5, 0.0]), plain[1], plain[2]]
    assert difference(off, plain, before) == pytest.approx(0.5 / 5)
    assert difference([plain[0], plain[1], torch.tensor(5)], plain, before) == pytest.approx(1)
    assert difference([*before[:2], torch.tensor(7)], before, before) == float("inf")


NARROW = """
import torch
from studylib import config
from studylib.methods import METHODS
from test_step import inputs, settings, step_of
for width in (2, 4, 7, 8):
    for arch in ("resnet10", "resnet50"):
        step = step_of(settings("trex", **{"encoder.width": width, "encoder.arch": arch}))
        for number in range(2):
            step.rate.fill_(0.1)
            step(inputs(step, number), "steady")
        assert torch.isfinite(step.totals["loss"])
        print(arch, width, step.method.encoder.memory_format)
"""


def test_narrow_encoders_train_on_cpus_without_avx512():
    """oneDNN's AVX2 kernels write out of bounds where such an encoder is in channels_last, and the process dies."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", NARROW], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("contiguous_format") == 3
    assert done.stdout.count("channels_last") == 5
