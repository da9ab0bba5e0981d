"""Losses against independent implementations: pytorch-metric-learning and lightly, which only the tests need."""

import pytest
import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss
from pytorch_metric_learning import distances, losses
from test_losses import build, rows

from studylib.methods import Batch
from studylib.methods.look import leave_one_out

LABELS = torch.tensor([0, 1, 2, 0, 1, 0, 2])


def projected(method, z, views, **overrides):
    """``loss`` and gradient of a method whose projections are ``z`` (M B, p), in float64."""
    model = build(method, **overrides)
    z = z.clone().requires_grad_()
    model.project = lambda seen: z[: len(seen) * len(z) // views]
    count = len(z) // views
    images = [torch.zeros(count, 3, 4, 4, dtype=torch.float64)] * views
    return model, z, Batch(images, LABELS[:count], torch.arange(count))


def assert_same(loss, expected, z):
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    ours, theirs = torch.autograd.grad(loss, z, retain_graph=True)[0], torch.autograd.grad(expected, z)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("views", [2, 3])
def test_supcon(views):
    model, z, batch = projected("supcon", rows(7 * views, 16, 1), views, temperature=0.3, multi_crop__global_crops=views)
    assert_same(model.loss(batch)[0], losses.SupConLoss(temperature=0.3)(z, LABELS.repeat(views)), z)


def test_simclr():
    model, z, batch = projected("simclr", rows(14, 16, 2), 2, temperature=0.3)
    assert_same(model.loss(batch)[0], losses.NTXentLoss(temperature=0.3)(z, torch.arange(7).repeat(2)), z)
    theirs = NTXentLoss(temperature=0.3)(z[:7], z[7:])
    assert_same(model.loss(batch)[0], theirs, z)


def test_look_with_all_neighbours_is_nca():
    """pytorch-metric-learning's NCA among the rows themselves; ours with the same rows as keys, their own left out."""
    z = rows(7, 16, 3).requires_grad_()
    theirs = losses.NCALoss(softmax_scale=1 / 0.2, distance=distances.CosineSimilarity())(z, LABELS)
    keys = z.detach().clone()
    numbers = torch.arange(7)
    options = {"k": 7, "temperature": 0.2}
    torch.testing.assert_close(leave_one_out(z, LABELS, numbers, keys, LABELS, numbers, **options)[0].mean(), theirs)
    both = leave_one_out(z, LABELS, numbers, z, LABELS, numbers, **options)[0].mean()
    assert_same(both, theirs, z)


def test_trex_plain_is_the_normalised_softmax():
    model, z, batch = projected("trex_plain", rows(21, 16, 4), 3, temperature=0.3)
    theirs = losses.NormalizedSoftmaxLoss(4, 16, temperature=0.3)
    theirs.W.data = model.weight.detach().T.clone()
    assert_same(model.loss(batch)[0], theirs(z, LABELS.repeat(3)), z)


@pytest.mark.parametrize("method", ["moco_v1", "moco_v2"])
def test_moco(method):
    model, z, batch = projected(method, rows(14, 16, 5), 2, temperature=0.3)
    keys, queue = rows(7, 16, 6), torch.nn.functional.normalize(rows(64, 16, 7), dim=1)
    model.bank.push(queue, torch.zeros(64, dtype=torch.int64), torch.arange(64))
    model.average.project = lambda seen: keys
    theirs = NTXentLoss(temperature=0.3, memory_bank_size=(64, 16)).double()
    theirs.memory_bank.bank = queue.clone()
    theirs.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
    assert_same(model.loss(batch)[0], theirs(z[:7], keys), z)


def test_byol():
    model, z, batch = projected("byol", rows(14, 16, 8), 2)
    targets = rows(14, 16, 9)
    model.predictor = torch.nn.Identity()
    model.average.project = lambda seen: torch.cat((targets[7:], targets[:7]))
    cosine = NegativeCosineSimilarity()
    assert_same(model.loss(batch)[0], 4 + 2 * cosine(z[:7], targets[7:]) + 2 * cosine(z[7:], targets[:7]), z)


def test_dino():
    """Theirs takes logits; ours makes them, the cosines with unit-norm prototypes."""
    local = {"multi_crop__local_crops": 1, "multi_crop__local_size": 8}
    given = {"temperature": 0.125, "dino__teacher_temperature": 0.0625, **local}  # exact in lightly's float32 schedule
    model, z, batch = projected("dino", rows(21, 16, 10), 3, **given)
    targets = rows(14, 16, 11)
    model.average.project = lambda seen: targets
    unit = torch.nn.functional.normalize
    student = unit(z, dim=1) @ unit(model.prototypes, dim=1).T
    teacher = unit(targets, dim=1) @ unit(model.average_prototypes, dim=1).T
    temperatures = {"warmup_teacher_temp": 0.0625, "teacher_temp": 0.0625, "student_temp": 0.125}
    theirs = DINOLoss(output_dim=len(model.prototypes), warmup_teacher_temp_epochs=1, **temperatures).double()
    expected = theirs(list(teacher.detach().chunk(2)), list(student.chunk(3)), epoch=0)
    assert_same(model.loss(batch)[0], expected, z)
