"""Encoders against torchvision's own networks, projectors against their formula."""

import itertools

import pytest
import torch
import torchvision
from torch.nn import functional

from studylib import config
from studylib.models import STAGES, Encoder, Projector


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_weights_of_torchvision_load_and_give_the_same_features(arch):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, arch)(weights=None).eval()
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    ours = Encoder(config.Encoder(arch=arch, width=64, stem="conv7")).eval()
    ours.load_state_dict(state)  # strict: every key is accounted for
    theirs.fc = torch.nn.Identity()
    images = torch.rand(2, 3, 65, 65)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
        assert ours(images).shape == (2, ours.features)


@pytest.mark.parametrize(("stem", "side"), [("conv3", 32), ("conv3s2", 16), ("conv7", 8)])
def test_stages_are_the_pooled_maps_of_each_stage(stem, side):
    encoder = Encoder(config.Encoder(arch="resnet10", width=4, stem=stem)).eval()
    seen = {}
    for stage, module in (
        ("stage1", encoder.maxpool),
        *((f"stage{i + 1}", getattr(encoder, f"layer{i}")) for i in range(1, 5)),
    ):
        module.register_forward_hook(lambda _, __, out, stage=stage: seen.__setitem__(stage, out))
    with torch.no_grad():
        stages = encoder.stages(torch.rand(3, 3, 32, 32))
    assert tuple(stages) == STAGES
    assert seen["stage1"].shape[-1] == side
    for stage, width in zip(STAGES, (4, 4, 8, 16, 32), strict=True):
        assert stages[stage].shape == (3, width)
        torch.testing.assert_close(stages[stage], seen[stage].flatten(2).mean(2))


def test_sl_mlp_projector_is_its_formula():
    torch.manual_seed(1)
    projector = Projector(config.Projector(hidden_layers=1, width=7, out=5), features=6)
    features = torch.randn(11, 6)
    first, norm = projector.hidden[0][0], projector.hidden[0][1]
    hidden = features @ first.weight.T + first.bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
    expected = hidden.clamp_min(0) @ projector.out.weight.T + projector.out.bias
    torch.testing.assert_close(projector(features), expected)
    assert set(projector.layers(features)) == {"projector1", "projector"}
    assert projector.outputs == 5


def test_trex_projector_is_a_setting_of_the_same_module():
    settings = config.Projector(hidden_layers=3, width=8, out=4, activation="gelu", input_l2=True, out_bias=False)
    projector = Projector(settings, features=6)
    features = torch.randn(9, 6)
    torch.testing.assert_close(projector(features), projector(3 * features))  # l2-normalised input
    kinds = [[type(part).__name__ for part in block] for block in projector.hidden]
    assert kinds == [["Linear", "BatchNorm1d", "GELU"]] * 3
    assert projector.out.bias is None
    hidden = functional.gelu(torch.zeros(1))
    assert hidden.item() == 0.0


@pytest.mark.parametrize(("linear", "norm", "relu"), list(itertools.product((False, True), repeat=3)))
def test_every_part_of_the_projector_can_be_left_out(linear, norm, relu):
    settings = config.Projector(
        hidden_layers=1, width=5, out=3 if linear else 0, linear=linear, batch_norm=norm, activation="relu" if relu else "none"
    )
    projector = Projector(settings, features=4)
    kinds = [type(part).__name__ for part in projector.hidden[0]]
    assert kinds == [name for name, on in (("Linear", linear), ("BatchNorm1d", norm), ("ReLU", relu)) if on]
    assert projector(torch.randn(6, 4)).shape == (6, 3 if linear else 4)
    if not (linear or norm):
        features = torch.rand(6, 4)  # not negative, as pooled ResNet features are
        assert torch.equal(projector(features), features)
