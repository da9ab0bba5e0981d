"""The bank, the moving average and the multi-crop forward against plain loops."""

import copy
import math

import pytest
import torch
from torch import nn

from studylib import config
from studylib.config import resolve
from studylib.data.augment import Augmentation
from studylib.methods import METHODS, Batch
from studylib.methods.bank import Bank
from studylib.methods.method import crops, encode, similarities

pytestmark = pytest.mark.slow


def pushes(bank, sizes, classes=3):
    """Push batches of these sizes with keys 0, 1, 2, ...; returns all that was pushed, in order, as (key, label, id)."""
    pushed, number = [], 0
    for size in sizes:
        new = range(number, number + size)
        bank.push(
            torch.tensor([[float(n), -float(n)] for n in new]).reshape(size, 2),
            torch.tensor([n % classes for n in new], dtype=torch.int64),
            torch.tensor([1000 + n for n in new], dtype=torch.int64),
        )
        pushed.append([(float(n), n % classes, 1000 + n) for n in new])
        number += size
    return pushed


def content(bank):
    keys, labels, ids = bank.content()
    assert torch.equal(keys[:, 1], -keys[:, 0])
    return list(zip(keys[:, 0].tolist(), labels.tolist(), ids.tolist(), strict=True))


@pytest.mark.parametrize("sizes", [[3], [7], [3, 3], [3, 3, 3], [7, 7], [5] * 9, [4, 1, 6, 2, 7, 3]])
def test_bank_keeps_the_latest_rows_whatever_the_sizes(sizes):
    bank, ring, pointer = Bank(config.Bank(length=7), 2, 3), {}, 0
    for batch in pushes(bank, sizes):
        for row in batch:  # one at a time, at the next place
            ring[pointer % 7] = row
            pointer += 1
    assert content(bank) == [ring[place] for place in sorted(ring)]
    assert bank.filled == min(7, sum(sizes))
    assert {row[2] for row in content(bank)} == {1000 + n for n in range(sum(sizes))[-7:]}


@pytest.mark.parametrize("sizes", [[3, 3, 3], [7, 2], [5] * 9, [4, 1, 6, 2, 7, 3]])
def test_bank_that_drops_loses_the_rest_of_a_batch_and_starts_again(sizes):
    bank, ring, pointer = Bank(config.Bank(length=7, tail="drop"), 2, 3), {}, 0
    for batch in pushes(bank, sizes):
        for offset, row in enumerate(batch):
            if pointer + offset < 7:
                ring[pointer + offset] = row
        pointer = 0 if pointer + len(batch) >= 7 else pointer + len(batch)
    assert content(bank) == [ring[place] for place in sorted(ring)]
    assert bank.pointer == pointer


def test_random_bank_counts_from_the_start():
    torch.manual_seed(0)
    bank = Bank(config.Bank(length=500, start="random"), 4, 3)
    keys, labels, ids = bank.content()
    assert keys.shape == (500, 4)
    assert float(keys.std()) == pytest.approx(1, abs=0.1)
    assert set(labels.tolist()) == {0, 1, 2}
    assert set(ids.tolist()) == {-1}


def test_bank_survives_its_state_dict():
    bank, other = Bank(config.Bank(length=7), 2, 3), Bank(config.Bank(length=7), 2, 3)
    pushes(bank, [5, 4])
    other.load_state_dict(bank.state_dict())
    assert (other.pointer, other.filled) == (2, 7)
    assert content(other) == content(bank)
    for each in (bank, other):
        each.push(torch.full((3, 2), 99.0), torch.tensor([1, 1, 1]), torch.tensor([1, 2, 3]))
    assert torch.equal(other.keys, bank.keys)


def test_prototypes_are_sums_per_class_and_zero_where_none_is():
    bank = Bank(config.Bank(length=7), 2, 4)
    pushes(bank, [5])
    expected = [[0.0, 0.0] for _ in range(4)]
    for key, label, _ in content(bank):
        expected[label][0] += key
        expected[label][1] -= key
    assert bank.prototypes(4).tolist() == expected
    assert expected[3] == [0, 0]


def build(method, **overrides):
    settings = resolve("smoke", method, 0, {name.replace("__", "."): value for name, value in overrides.items()})
    torch.manual_seed(0)
    return METHODS[method](settings, 4, torch.full((3,), 0.5), torch.full((3,), 0.25))


def disturb(method):
    """Move all that is trained, and its running statistics."""
    with torch.no_grad():
        for tensor in [*method.encoder.parameters(), *method.encoder.buffers(), *method.projector.parameters()]:
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
            else:
                tensor.add_(5)


@pytest.mark.parametrize("buffers", ["own", "average"])
def test_average_follows_parameters_and_buffers_as_asked(buffers):
    method = build("trex", ema__buffers=buffers).train()
    before = copy.deepcopy(method.average.state_dict())
    disturb(method)
    trained = {"encoder." + k: v for k, v in method.encoder.state_dict().items()}
    trained |= {"projector." + k: v for k, v in method.projector.state_dict().items()}
    method.average.update(method, torch.tensor(0.8, dtype=torch.float64))
    parameters = dict(method.average.named_parameters())
    for name, value in method.average.state_dict().items():
        if name.startswith("normalise"):
            expected = before[name]
        elif name in parameters or (buffers == "average" and value.is_floating_point()):
            expected = 0.8 * before[name] + 0.2 * trained[name]
        else:
            expected = trained[name] if buffers == "average" else before[name]
        torch.testing.assert_close(value, expected)
    assert method.average.training == (buffers == "own")
    method.eval()
    assert not method.average.training


def test_average_starts_as_a_copy_without_gradient():
    for name in ("look", "trex", "moco_v1", "moco_v2", "byol", "dino"):
        method = build(name)
        for own, new in ((method.average.encoder, method.encoder), (method.average.projector, method.projector)):
            assert all(torch.equal(own.state_dict()[key], value) for key, value in new.state_dict().items())
        assert not any(parameter.requires_grad for parameter in method.average.parameters())


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_momentum_ramps_to_one_along_a_cosine(progress):
    fixed, ramped = (build("byol", ema__momentum=0.9, ema__ramp=ramp).average for ramp in (False, True))
    share = torch.tensor(progress, dtype=torch.float64)
    assert fixed.momentum(share) == 0.9
    assert float(ramped.momentum(share)) == pytest.approx(1 - 0.1 * (math.cos(math.pi * progress) + 1) / 2)


def test_crops_of_one_resolution_share_their_batch_statistics():
    """Once per resolution, in the order of the views; batch norm of 8 px and of 6 px crops apart."""
    generator = torch.Generator().manual_seed(0)
    views = [torch.rand(4, 3, side, side, generator=generator, dtype=torch.float64) for side in (8, 6, 8, 6, 6)]
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    calls = []
    found = encode(lambda images: calls.append(len(images)) or network(images), views)
    assert calls == [8, 12]
    convolved = [network[0](view) for view in views]
    for side in (8, 6):
        places = [place for place, view in enumerate(views) if view.shape[-1] == side]
        for channel in range(5):
            values = [value for place in places for value in convolved[place][:, channel].flatten().tolist()]
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
            for place in places:
                normed = (convolved[place][:, channel] - mean) / math.sqrt(variance + 1e-5)
                torch.testing.assert_close(found[4 * place : 4 * place + 4, channel], normed.mean((1, 2)))


def test_crops_asked_for_are_global_then_local():
    base = Augmentation(crop_scale=(0.25, 1), blur=0.2, solarise=0.2)
    multi = config.MultiCrop(global_crops=2, local_crops=3, local_size=12, local_scale=(0.05, 0.25), local_blur=0.5)
    found = crops(base, multi)
    assert found[:2] == [base, base]
    assert found[2:] == [Augmentation(size=12, crop_scale=(0.05, 0.25), blur=0.5, solarise=0.0)] * 3


def test_similarities_are_cosines_and_a_zero_vector_has_none():
    rows, others = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[6.0, 8.0], [4.0, -3.0]])
    torch.testing.assert_close(similarities(rows, others), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("method", METHODS)
def test_state_dict_holds_all_that_a_step_changes(method):
    """A copy made from the state dict goes on as the original, bit for bit, whatever the other start was."""
    first, second = build(method).train(), build(method).train()
    disturb(second) if second.projector else None
    generator = torch.Generator().manual_seed(1)

    def step(model, seed):
        views = [torch.rand(6, 3, view.size or 16, view.size or 16, generator=generator) for view in model.views]
        progress = torch.tensor(0.1, dtype=torch.float64)
        batch = Batch(views, torch.arange(6) % 4, torch.arange(6) + seed, progress, model.phase(0.1))
        loss, _ = model.loss(batch)
        model.zero_grad()
        loss.backward()
        model.before_step(batch)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=0.1)
        model.after_step(batch)
        return loss.detach()

    for seed in (0, 6, 12):
        step(first, seed)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for seed in (0, 18):
        generator.manual_seed(seed)
        expected = step(first, seed)
        generator.manual_seed(seed)
        assert step(second, seed) == expected
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
