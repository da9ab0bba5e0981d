"""What only a GPU can show: captured steps are plain steps, nothing waits for the host, resumed is uninterrupted.

``python -m pytest -m gpu`` on a machine that has one; elsewhere all of this is skipped. Kernels are deterministic, in float32,
unless a test says otherwise.
"""

import pytest
import torch
from test_step import VARIANTS, inputs, settings, step_of

from studylib import measures, precision
from studylib.cli import main
from studylib.config import resolve
from studylib.methods import METHODS
from studylib.methods.batch import STEADY
from studylib.training import Run, checkpoint, loop, train
from studylib.training.capture import captured, own_stream

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]

STEPS = 20


@pytest.fixture(autouse=True)
def deterministic():
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = before


def steps(asked, capture, said):
    """The state and the sums of the log after `STEPS` steps on the GPU."""
    device, setting = torch.device("cuda:0"), asked.optimisation.precision
    with precision.kernels(device, setting, fastest=True), own_stream(device):
        step = step_of(asked, device)
        take = captured(step, capture, device, said.append)
        for number in range(STEPS):
            progress = number / STEPS
            step.progress.fill_(progress)
            step.rate.fill_(0.1 / (1 + number))
            take(inputs(step, number, device), step.method.phase(progress))
    torch.cuda.synchronize()
    return step, getattr(take, "replays", {})


@pytest.mark.parametrize("variant", VARIANTS)
def test_captured_steps_are_plain_steps(variant):
    method, overrides = VARIANTS[variant]
    asked = settings(method, **{"optimisation.precision": "float32"} | overrides)
    said = []
    plain, _ = steps(asked, "off", said)
    replayed, replays = steps(asked, "auto", said)
    assert said == []
    assert set(replays) == {STEADY}
    for name, value in plain.totals.items():
        torch.testing.assert_close(replayed.totals[name], value, rtol=1e-4, atol=1e-6)
    for name, value in plain.method.state_dict().items():
        torch.testing.assert_close(replayed.method.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_largest_difference_in_bfloat16_with_the_fastest_kernels(method, capsys):
    """Nothing is bitwise there; the losses of 20 steps stay within 2 %, and the largest differences are printed."""
    torch.use_deterministic_algorithms(False)
    said = []
    plain, _ = steps(settings(method), "off", said)
    replayed, _ = steps(settings(method), "auto", said)
    assert said == []
    loss = abs(float(replayed.totals["loss"] / plain.totals["loss"]) - 1)
    pairs = zip(*([values.detach() for values in step.method.parameters()] for step in (replayed, plain)), strict=True)
    weights = max(float((one - other).norm() / other.norm().clamp_min(1e-6)) for one, other in pairs)
    with capsys.disabled():
        print(f"\n{method}: after {STEPS} steps the mean loss differs by {loss:.1e}, a weight tensor by {weights:.1e} at most")
    assert loss < 0.02


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_plain_step_does_not_wait_for_the_gpu(variant):
    """PyTorch raises where the host would wait; the first steps may, to make constants and choose kernels."""
    method, overrides = VARIANTS[variant]
    device = torch.device("cuda:0")
    step = step_of(settings(method, **overrides), device)
    for number, progress in enumerate((0.0, 0.0, 0.0, 0.1, 0.2, 0.9, 0.9, 0.9)):
        values, phase = inputs(step, number, device), step.method.phase(progress)
        torch.cuda.set_sync_debug_mode("error" if number > 2 else "default")
        try:
            step.rate.fill_(0.1)
            step(values, phase)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("method", METHODS)
def test_resumed_equals_uninterrupted_bit_for_bit(runs, monkeypatch, method):
    """Stopped while steps are plain and while they are replayed; ``cuda`` needs no index."""
    config = resolve("smoke", method, 0, {"optimisation.precision": "float32"})
    train(config, device="cuda", say=str)
    expected, metrics = weights(config), (Run(config).folder / "metrics.jsonl").read_bytes()
    Run(config).folder.rename(runs / "uninterrupted")
    saved = loop.save
    for stop in (2, 13, 24):

        def save_then_die(run, step, state, stop=stop):
            saved(run, step, state)
            if 16 * len(state["metrics"]) + state["step"] >= stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            train(config, device="cuda", save_every_s=0, say=str)
    monkeypatch.setattr(loop, "save", saved)
    train(config, device="cuda", save_every_s=1e9, say=str)
    assert all(torch.equal(value, expected[name]) for name, value in weights(config).items())
    assert (Run(config).folder / "metrics.jsonl").read_bytes() == metrics


def weights(config):
    return checkpoint.load(Run(config).snapshot())["weights"]


def test_record_names_the_gpu_and_the_precision(runs, capsys):
    for setting, used in (("auto", "bfloat16"), ("tf32", "tf32"), ("float32", "float32")):
        asked = ["pretrain", "--scale", "smoke", "--method", "sl", "--device", "cuda"]
        assert main([*asked, "-p", f"optimisation.precision={setting}"]) == 0
        run = Run(resolve("smoke", "sl", 0, {"optimisation.precision": setting}))
        assert run.sessions()[0]["precision"] == used
        assert run.sessions()[0]["device"] == torch.cuda.get_device_name(0)
    assert "not captured" not in capsys.readouterr().out
    assert not torch.backends.cuda.matmul.allow_tf32


def test_measures_on_the_gpu_are_those_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(600, 24, generator=generator) * torch.linspace(0.1, 2, 24)
    labels = torch.arange(600) % 6
    there = features.cuda(), labels.cuda()
    for measure in (measures.discriminative_ratio, measures.neural_collapse, measures.intra_class_distance):
        here, other = (measure(*given) for given in ((features, labels), there))
        assert getattr(other, "phi", other) == pytest.approx(getattr(here, "phi", here), rel=1e-10)
    for measure in (measures.redundancy, measures.effective_rank, measures.coding_length):
        assert measure(there[0]) == pytest.approx(measure(features), rel=1e-10)


def test_a_gpu_that_is_not_there_is_refused(capsys):
    assert main(["pretrain", "--scale", "smoke", "--method", "sl", "--device", "cuda:99"]) == 2
    assert "device='cuda:99': there are" in capsys.readouterr().err
