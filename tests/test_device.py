"""Devices by name, without a GPU: PyTorch's answers are replaced."""

import pytest
import torch

from studylib import device, precision
from studylib.errors import InputError


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs, of which the second is the current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def test_a_gpu_always_has_its_index(gpus, monkeypatch):
    assert str(device.find()) == str(device.find("cuda")) == "cuda:1"
    assert str(device.find("cuda:0")) == "cuda:0"
    assert str(device.find(torch.device("cuda"))) == "cuda:1"
    assert str(device.find("cpu")) == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert str(device.find("cuda")) == "cuda:0"


@pytest.mark.parametrize(
    ("name", "said"),
    [("cuda:2", "there are 2 GPUs"), ("mps", "is not supported"), ("gpu", "is none; write cpu"), ("meta", "is not supported")],
)
def test_devices_that_are_not_there_are_refused(gpus, name, said):
    with pytest.raises(InputError, match=f"device='{name}': {said}"):
        device.find(name)


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(device.find()) == "cpu"
    with pytest.raises(InputError, match="device='cuda': no GPU can be used here; write cpu"):
        device.find("cuda")


def test_what_a_precision_means():
    gpu, cpu = torch.device("cuda:0"), torch.device("cpu")
    assert [precision.used(gpu, setting) for setting in precision.SETTINGS] == ["bfloat16", "tf32", "float32"]
    assert {precision.used(cpu, setting) for setting in precision.SETTINGS} == {"float32"}


def test_tf32_is_as_asked_inside_and_as_before_outside():
    gpu, products = torch.device("cuda:0"), torch.backends.cuda.matmul
    before = products.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    for setting, allowed in (("tf32", True), ("auto", False), ("float32", False)):
        with precision.kernels(gpu, setting, fastest=True):
            assert (products.allow_tf32, torch.backends.cudnn.allow_tf32) == (allowed, allowed)
            assert torch.backends.cudnn.benchmark
            with precision.exact(gpu):
                assert not products.allow_tf32
            assert products.allow_tf32 == allowed
    assert before == (products.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)
