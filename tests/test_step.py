"""The step as a pure function: on a device without values, captured (by a stand-in for CUDA graphs), and on every CPU."""

import math
import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode

from studylib import config
from studylib.data.augment import draw
from studylib.methods import METHODS
from studylib.methods.batch import STEADY
from studylib.training.capture import WARM_UP, Captured, largest_difference
from studylib.training.step import Inputs, Step

pytestmark = pytest.mark.slow

CLASSES, SIDE = 4, 24
VARIANTS = {method: (method, {}) for method in METHODS}
VARIANTS |= {f"look, {start}": ("look", {"look.start": start}) for start in ("warmup", "ramp", "fixed")}
VARIANTS |= {
    "look, filled": ("look", {"look.start": "filled", "look.no_positive": "nearest"}),
    "trex, averaged buffers, drop": ("trex", {"ema.buffers": "average", "bank.tail": "drop"}),
    "sl, every colour": ("sl", {"augmentation.blur": 0.5, "augmentation.solarise": 0.2, "cross_entropy.label_smoothing": 0.1}),
}


def settings(method, **overrides):
    small = {"optimisation.batch": 8} | ({"bank.length": 20} if "bank" in config.METHODS[method].groups else {})
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


class OnDevice(TorchFunctionMode):
    """Refuses what makes a tensor of values on the host: it would have to be copied to the device in every step."""

    refused = (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, torch.Tensor.new_tensor)

    def __torch_function__(self, function, types, arguments=(), options=None):
        assert function not in self.refused, f"{function.__name__} makes a tensor on the host"
        return function(*arguments, **(options or {}))


def python_state(step):
    """What the modules of a step hold beside tensors and modules, which a replay would not change."""
    plain = (int, float, str, bool, tuple, list, type(None))
    return {
        (name, key): value
        for name, module in step.method.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, plain) and not key.startswith("_")
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_asks_the_host_for_nothing(variant):
    """On ``meta`` tensors have no values: whatever needs one on the host fails. The memory (20 rows, batch 8) wraps around.

    Where steps repeat, Python keeps nothing from one to the next.
    """
    method, overrides = VARIANTS[variant]
    step = step_of(settings(method, **overrides), "meta")
    assert step.method.repeats(STEADY) == (getattr(step.method, "bank", None) is None)
    repeated = 0
    for number, progress in enumerate((0.0, 0.0, 0.0, 0.1, 0.2, 0.9)):
        given, phase = inputs(step, number, "meta"), step.method.phase(progress)
        step.rate.fill_(0.1)
        before, repeats = python_state(step), step.method.repeats(phase)
        with OnDevice() if number else nullcontext():  # constants are made in the first step
            step(given, phase)
        if repeats:
            assert python_state(step) == before
            repeated += 1
    assert step.totals["loss"].device.type == "meta"
    assert repeated >= 1


def curious(loss):
    return loss if loss > 0 else -loss


def copied(loss):
    return loss + torch.tensor([0.0, 1.0], device=loss.device).sum()


@pytest.mark.parametrize(("asks", "error"), [(curious, RuntimeError), (copied, AssertionError)])
def test_a_step_that_asks_the_host_is_told(monkeypatch, asks, error):
    """The test above can fail."""
    real = METHODS["sl"].loss
    monkeypatch.setattr(METHODS["sl"], "loss", lambda *given: (asks(real(*given)[0]), {}))
    step = step_of(settings("sl"), "meta")
    given = inputs(step, 0, "meta")
    with pytest.raises(error, match=r"meta tensors|on the host"), OnDevice():
        step(given, STEADY)


def test_the_average_of_trex_moves_before_the_weights():
    """As in the official code (papers/README.md 3.1): towards the weights that the loss has seen; its keys enter the memory."""
    step = step_of(settings("trex", **{"ema.momentum": 0.75}))
    step.rate.fill_(0.1)
    step(inputs(step, 0), STEADY)
    pairs = [*zip(step.method.average.encoder.parameters(), step.method.encoder.parameters(), strict=True)]
    old, seen = [own.clone() for own, _ in pairs], [new.detach().clone() for _, new in pairs]
    step(inputs(step, 1), STEADY)
    for (own, new), value, target in zip(pairs, old, seen, strict=True):
        torch.testing.assert_close(own, 0.75 * value + 0.25 * target)
        assert not torch.equal(new, target)
    assert step.method.bank.filled == 16


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


def both(method, overrides, capture, count=24):
    """Steps of a method plainly, and by `Captured` with ``capture``; what was said of it, and how often it replayed.

    ``capture``: gets the step to take, and the `Captured`; returns what is replayed.
    """
    asked = settings(method, **overrides)
    plain, other, said = step_of(asked), step_of(asked), []
    replays = []

    def counting(take):
        replay = capture(take, captured)
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
    """With a stand-in that takes the step again on the memory of its capture: same bits, and as many replays as there can be.

    Three steps of a phase are plain; a memory of 20 is full after three steps of 8; LOOK's start takes ten steps of 24.
    """
    method, overrides = VARIANTS[variant]
    plain, other, said, replays = both(method, overrides, lambda take, _: take)
    assert same(plain, other)
    assert said == []
    memory = getattr(plain.method, "bank", None) is not None
    special = {"look": (10 - 3 - WARM_UP) + (14 - WARM_UP), "look, warmup": 14 - WARM_UP}
    assert replays == special.get(variant, 24 - 3 * memory - WARM_UP)


@pytest.mark.parametrize("method", ["sl", "trex"])
def test_a_replay_of_other_memory_is_seen_and_steps_are_plain_from_then_on(method):
    """A graph that goes on reading other images than those that it is given."""

    def stale(take, captured):
        wrong = type(captured.inputs)(*(values.flip(-1).clone() for values in captured.inputs))
        return lambda: captured.step(wrong, STEADY)

    plain, other, said, replays = both(method, {}, stale)
    assert same(plain, other)
    assert replays == 1
    assert len(said) == 1
    assert "a replay differs by" in said[0]


@pytest.mark.parametrize("forgotten", ["average", "pointer", "momentum", "total", "nan"])
def test_a_replay_that_forgets_something_small_is_seen(forgotten):
    """What moves far (keys, ids, the sums of the log) does not hide it."""

    def careless(take, captured):
        method, optimiser = captured.step.method, captured.step.optimiser
        kept = {
            "average": [*method.average.parameters()],
            "pointer": [method.bank.pointer],
            "momentum": [state["momentum_buffer"] for state in optimiser.state.values()],
            "total": [captured.step.totals["loss"]],
            "nan": [next(method.parameters())],
        }[forgotten]

        def replay():
            before = [values.detach().clone() for values in kept]
            take()
            with torch.no_grad():
                for values, value in zip(kept, before, strict=True):
                    values.copy_(value if forgotten != "nan" else value * float("nan"))

        return replay

    plain, other, said, _ = both("look", {"ema.momentum": 0.999}, careless)
    assert same(plain, other)
    assert len(said) == 1


def test_a_step_that_cannot_be_captured_is_taken_plainly_and_said_once():
    """What is said is the first of the errors: ending a capture raises another."""

    def refuse(take, _):
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors")
        finally:
            raise RuntimeError("capture was ended before")

    plain, other, said, replays = both("byol", {}, refuse)
    assert same(plain, other)
    assert replays == 0
    assert said == ["steps are not captured: operation not permitted when stream is capturing"]


def test_largest_difference_of_replays():
    """Share of the change in the norm of each group; a counter or label that is wrong is wrong."""
    before = [torch.zeros(3), torch.zeros(2), torch.tensor([5, 900]), torch.zeros(2)]
    plain = [torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 4.0]), torch.tensor([6, 0]), torch.tensor([9.0, 0.0])]

    def of(first=plain[0], third=plain[2], last=plain[3]):
        return largest_difference([[first, plain[1]], [third], [last]], plain, before)

    assert of() == 0
    assert of(first=plain[0] + torch.tensor([0.0, 0.5, 0.0])) == pytest.approx(0.5 / 5)
    assert of(third=torch.tensor([5, 0])) == math.inf
    assert of(first=plain[0] * math.nan) == math.inf
    assert of(last=torch.tensor([0.0, 0.0])) == pytest.approx(1)


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
