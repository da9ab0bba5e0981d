"""Every loss and its gradient in float64 against double loops written from the formulas; the gradient by differences."""

import math
from dataclasses import replace

import pytest
import torch

from studylib.config import resolve
from studylib.methods import METHODS, Batch
from studylib.methods.look import leave_one_out

CLASSES = 4


def build(method, **overrides):
    """A method at scale ``smoke`` in float64."""
    config = resolve("smoke", method, 0, {name.replace("__", "."): value for name, value in overrides.items()})
    torch.manual_seed(0)
    return METHODS[method](config, CLASSES, torch.full((3,), 0.5), torch.full((3,), 0.25)).double()


def rows(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(labels, views=1):
    labels = torch.tensor(labels)
    return Batch([torch.zeros(len(labels), 3, 4, 4, dtype=torch.float64)] * views, labels, torch.arange(len(labels)) + 10)


def at(model, data, progress):
    """The batch after that share of training."""
    return replace(data, progress=torch.tensor(progress, dtype=torch.float64), phase=model.phase(progress))


def cosine(a, b):
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def log_softmax(values, index):
    highest = max(values)
    return values[index] - highest - math.log(sum(math.exp(value - highest) for value in values))


def check(model, data, z, oracle):
    """``model.loss`` with projections ``z`` (M B, p) is ``oracle`` of them as lists, and so is its gradient."""
    z = z.clone().requires_grad_()
    model.project = lambda views: z if len(views) == len(data.views) else z[: len(views) * len(data.labels)]
    loss, _ = model.loss(data)
    assert loss.shape == ()
    assert float(loss.detach()) == pytest.approx(oracle(z.tolist()), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, z)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            moved = [z.detach().clone(), z.detach().clone()]
            moved[0][i, j] += 1e-5
            moved[1][i, j] -= 1e-5
            slope = (oracle(moved[0].tolist()) - oracle(moved[1].tolist())) / 2e-5
            assert float(gradient[i, j]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


# --- LOOK ------------------------------------------------------------------------------------------------------------------


def look_oracle(z, labels, ids, keys, key_labels, key_ids, k, tau, no_positive):
    total = 0.0
    for anchor, label, own in zip(z, labels, ids, strict=True):
        found = []
        for key, key_label, key_id in zip(keys, key_labels, key_ids, strict=True):
            if key_id != own:
                found.append((cosine(anchor, key), key_label))
        found.sort(reverse=True)
        near = found[:k]
        if no_positive == "nearest" and label not in [key_label for _, key_label in near]:
            near += [pair for pair in found if pair[1] == label][:1]
        positive = sum(math.exp(s / tau) for s, key_label in near if key_label == label)
        if positive:
            total -= math.log(positive / sum(math.exp(s / tau) for s, _ in near))
    return total / len(z)


@pytest.mark.parametrize(
    ("k", "no_positive"),
    [(1, "nearest"), (3, "skip"), (3, "nearest"), (8, "skip"), (8, "nearest"), (64, "skip"), (64, "nearest")],
)
@pytest.mark.parametrize("views", [1, 3])
def test_look_is_the_leave_one_out_loss_of_weighted_knn(k, no_positive, views):
    """Keys of the anchors' own images are among the bank's: ids 10 and 12; class 3 is not in it."""
    model = build("look", look__k=k, look__no_positive=no_positive, look__start="fixed", bank__length=64, temperature=0.2)
    data = batch([0, 1, 1, 3, 2], views)
    labels, ids = torch.tensor([0, 1, 1, 0, 2, 0, 1]), torch.tensor([10, 3, 12, 4, 10, 5, 6])
    keys = rows(7, model.outputs, 1)
    keys[:, 4:] = 0
    model.bank.push(keys, labels, ids)
    z = rows(5 * views, model.outputs, 2)[:, :4]
    z = torch.cat((z, torch.zeros(len(z), model.outputs - 4)), 1)
    anchors = (data.labels.repeat(views).tolist(), data.ids.repeat(views).tolist())
    fixed = (keys.tolist(), labels.tolist(), ids.tolist(), k, 0.2, no_positive)
    check(model, data, z, lambda z: look_oracle(z, *anchors, *fixed))


def test_look_with_k_the_bank_is_soft_neighbour_nca():
    """p_i = sum over the class / sum over all, the own entry 0; anchors with p_i = 0 left out, divided by all (SNCA)."""
    z, keys = rows(6, 5, 1), rows(9, 5, 2)
    labels, key_labels = torch.tensor([0, 1, 2, 0, 1, 3]), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    losses, counted = leave_one_out(z, labels, torch.arange(6), keys, key_labels, torch.arange(9), k=9, temperature=0.05)
    weights = torch.exp(torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(keys, dim=1).T / 0.05)
    weights[torch.arange(6), torch.arange(6)] = 0
    p = (weights * (labels[:, None] == key_labels)).sum(1) / weights.sum(1)
    assert counted.tolist() == [True] * 5 + [False]
    torch.testing.assert_close(losses[:5], -p[:5].log())
    assert losses[5] == 0


def test_look_on_an_empty_bank_has_no_loss_and_no_gradient():
    model = build("look")
    z = rows(3, model.outputs, 1).requires_grad_()
    model.project = lambda views: z
    loss, logs = model.loss(batch([0, 1, 2]))
    (gradient,) = torch.autograd.grad(loss, z)
    assert float(loss.detach()) == 0
    assert not gradient.any()
    assert float(logs["no_positive"]) == 100


def test_look_shows_nan_instead_of_skipping_it():
    z, keys = torch.full((2, 3), math.nan), rows(4, 3, 2).float()
    for no_positive in ("skip", "nearest"):
        options = {"k": 2, "temperature": 0.1, "no_positive": no_positive}
        losses, _ = leave_one_out(
            z, torch.tensor([0, 1]), torch.arange(2), keys, torch.arange(4) % 2, torch.arange(4) + 9, **options
        )
        assert losses.isnan().all()


def test_look_anchors_that_do_not_count_have_finite_zero_gradients():
    """One anchor sees only itself, one no key of its class."""
    z, keys = rows(2, 3, 1).requires_grad_(), rows(1, 3, 2)
    for k in (1, 5):
        losses, counted = leave_one_out(
            z, torch.tensor([0, 1]), torch.tensor([7, 8]), keys, torch.tensor([0]), torch.tensor([7]), k=k, temperature=0.1
        )
        (gradient,) = torch.autograd.grad(losses.sum(), z)
        assert not counted.any()
        assert losses.tolist() == [0, 0]
        assert gradient.tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(("start", "expected"), [("falling", [128, 98, 68, 8, 8]), ("fixed", [8] * 5)])
def test_look_k_falls_linearly_from_the_length_of_the_bank(start, expected):
    model, data = build("look", look__start=start, look__k=8, look__start_share=0.4), batch([0, 1, 2])
    found = [model.loss(at(model, data, progress))[1]["k"] for progress in (0.0, 0.1, 0.2, 0.4, 0.9)]
    assert [float(k) for k in found] == expected


@pytest.mark.parametrize("no_positive", ["skip", "nearest"])
@pytest.mark.parametrize("k", [1, 2, 5, 9, 30])
def test_look_masks_the_ranks_beyond_a_k_that_is_a_tensor(k, no_positive):
    """Values, anchors that count and gradients are those of the top k."""
    z, keys = rows(6, 5, 1), rows(9, 5, 2)
    given = torch.tensor([0, 1, 2, 0, 1, 3]), torch.arange(6), keys, torch.arange(9) % 3, torch.arange(9)
    found = []
    for number in (k, torch.tensor(float(k))):
        own = z.clone().requires_grad_()
        losses, counted = leave_one_out(own, given[0], *given[1:], k=number, temperature=0.1, no_positive=no_positive)
        found.append((losses.detach(), counted, *torch.autograd.grad(losses.sum(), own)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_keys_as_near_as_the_last_that_decides_decide_with_it_where_ranks_are_masked():
    z, keys = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, -2.0]])
    labels, options = torch.tensor([0, 1, 0, 1]), {"k": torch.tensor(2.0), "temperature": 1.0}
    losses, _ = leave_one_out(z, labels[:1], torch.tensor([9]), keys, labels, torch.arange(4), **options)
    assert float(losses) == pytest.approx(-math.log((math.e + 1) / (math.e + 3)))


def test_look_starts():
    """warmup: cross entropy until its share is over; filled: no gradient until the bank is full; ramp: momentum from 0."""
    data = batch([0, 1, 2])
    warm = build("look", look__start="warmup")
    z = rows(3, warm.outputs, 1)
    warm.project = lambda views: z
    early, late = (warm.loss(at(warm, data, progress))[0].detach() for progress in (0.39, 0.4))
    assert early == torch.nn.functional.cross_entropy(warm.classifier(z), data.labels).detach()
    assert late == 0  # the bank is empty

    filled = build("look", look__start="filled", look__k=8, bank__length=64)
    z = z.requires_grad_()
    filled.project = lambda views: z
    for count, some in ((63, False), (1, True)):
        filled.bank.push(rows(count, filled.outputs, 5), torch.arange(count) % 3, torch.arange(count))
        (gradient,) = torch.autograd.grad(filled.loss(at(filled, data, 0.0))[0], z)
        assert bool(gradient.any()) == some

    ramp = build("look", look__start="ramp", ema__momentum=0.9)
    seen = []
    ramp.average.update = lambda trained, momentum: seen.append(float(momentum))
    ramp.average.project = lambda views: rows(3, ramp.outputs, 1)
    for progress in (0.0, 0.2, 0.4, 0.7):
        ramp.after_step(at(ramp, data, progress))
    assert seen == pytest.approx([0, 0.45, 0.9, 0.9])


# --- t-ReX -----------------------------------------------------------------------------------------------------------------


def cosine_softmax(z, labels, weights, tau):
    return -sum(
        log_softmax([cosine(row, weight) / tau for weight in weights], label) for row, label in zip(z, labels, strict=True)
    ) / len(z)


@pytest.mark.parametrize("method", ["trex", "trex_star"])
def test_trex_classifies_all_crops_against_prototypes_of_the_bank(method):
    """w_c = sum of the un-normalised keys of the class; class 3 is absent: its vector is 0 and its logit 0."""
    model, data = build(method, temperature=0.3), batch([0, 2, 3], views=3)
    keys, labels = 5 * rows(7, model.outputs, 1), [0, 1, 2, 0, 1, 2, 0]
    model.bank.push(keys, torch.tensor(labels), torch.arange(7))
    weights = [
        [sum(float(key[j]) for key, label in zip(keys, labels, strict=True) if label == c) for j in range(model.outputs)]
        for c in range(CLASSES)
    ]
    assert weights[3] == [0] * model.outputs
    targets = data.labels.repeat(3).tolist()
    check(model, data, rows(9, model.outputs, 2), lambda z: cosine_softmax(z, targets, weights, 0.3))
    assert not any(parameter.requires_grad for parameter in model.average.parameters())


def test_trex_plain_learns_its_class_vectors():
    model, data = build("trex_plain", temperature=0.3), batch([0, 2, 3], views=3)
    z, targets = rows(9, model.outputs, 2), data.labels.repeat(3).tolist()
    check(model, data, z, lambda z: cosine_softmax(z, targets, model.weight.tolist(), 0.3))
    model.zero_grad()
    model.loss(data)[0].backward()
    moved = []
    for step in (1e-5, -1e-5):
        weight = model.weight.detach().clone()
        weight[2, 1] += step
        moved.append(cosine_softmax(z.tolist(), targets, weight.tolist(), 0.3))
    assert float(model.weight.grad[2, 1]) == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-5, abs=1e-9)


def test_class_weights_of_trex_plain_start_as_those_of_a_linear_layer():
    model = build("trex_plain")
    bound = 1 / math.sqrt(model.outputs)
    assert bound / 2 < float(model.weight.detach().abs().max()) <= bound
    drawn = build("trex_plain", trex_plain__weight_std=0.5)
    assert float(drawn.weight.detach().abs().max()) > bound


def test_trex_with_nothing_in_the_bank_does_not_learn():
    model, data = build("trex"), batch([0, 2, 3], views=3)
    z = rows(9, model.outputs, 1).requires_grad_()
    model.project = lambda views: z
    loss, _ = model.loss(data)
    assert float(loss.detach()) == pytest.approx(math.log(CLASSES))
    assert not torch.autograd.grad(loss, z)[0].any()


def test_trex_head_starts_from_a_truncated_normal():
    model = build("trex", projector__width=400, projector__out=300)
    for layer in [module for module in model.projector.modules() if isinstance(module, torch.nn.Linear)][1:]:
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
        assert layer.bias is None or not layer.bias.any()


# --- contrastive -----------------------------------------------------------------------------------------------------------


def contrastive_oracle(z, groups, tau):
    total = 0.0
    for i, anchor in enumerate(z):
        others = [a for a in range(len(z)) if a != i]
        values = [cosine(anchor, z[a]) / tau for a in others]
        positives = [place for place, a in enumerate(others) if groups[a] == groups[i]]
        total -= sum(log_softmax(values, place) for place in positives) / len(positives)
    return total / len(z)


@pytest.mark.parametrize("method", ["supcon", "simclr"])
@pytest.mark.parametrize("views", [2, 3])
def test_contrastive_loss(method, views):
    model, data = build(method, temperature=0.4, multi_crop__global_crops=views), batch([0, 1, 0, 3], views)
    groups = (data.labels if method == "supcon" else data.ids).repeat(views).tolist()
    check(model, data, rows(4 * views, model.outputs, 3), lambda z: contrastive_oracle(z, groups, 0.4))


# --- MoCo, BYOL, DINO ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["moco_v1", "moco_v2"])
@pytest.mark.parametrize("held", [0, 5])
def test_moco_finds_the_key_among_the_queue(method, held):
    model, data = build(method, temperature=0.2), batch([0, 1, 0], 2)
    queue, keys = rows(held, model.outputs, 4), rows(3, model.outputs, 5)
    model.bank.push(queue, torch.zeros(held, dtype=torch.int64), torch.arange(held))
    model.average.project = lambda views: keys

    def oracle(z):
        total = 0.0
        for query, key in zip(z[:3], keys.tolist(), strict=True):
            total -= log_softmax([cosine(query, other) / 0.2 for other in [key, *queue.tolist()]], 0)
        return total / 3

    check(model, data, rows(6, model.outputs, 6), oracle)
    model.after_step(data)
    torch.testing.assert_close(model.bank.content()[0][held:], keys)


def test_byol_predicts_the_other_view():
    model, data = build("byol"), batch([0, 1, 2], 2)
    targets = rows(6, model.outputs, 7)
    data = Batch([data.views[0], data.views[1].clone()], data.labels, data.ids)
    model.average.project = lambda views: torch.cat([targets[:3] if view is data.views[0] else targets[3:] for view in views])
    model.predictor = torch.nn.Identity()

    def oracle(z):
        total = 0.0
        for i in range(3):
            total += 2 - 2 * cosine(z[i], targets[3 + i].tolist())  # first view predicts the second's target
            total += 2 - 2 * cosine(z[3 + i], targets[i].tolist())
        return total / 3

    check(model, data, rows(6, model.outputs, 8), oracle)


def test_dino_matches_distributions_over_prototypes():
    model = build("dino", temperature=0.3, multi_crop__local_crops=1, multi_crop__local_size=16, dino__prototypes=5)
    data = batch([0, 1, 2], 3)
    targets = rows(6, model.outputs, 7)
    model.average.project = lambda views: targets
    model.average_prototypes.copy_(rows(5, model.outputs, 9))
    model.centre.copy_(rows(1, 5, 10)[0])
    centre = model.centre.tolist()

    def oracle(z):
        weights, averaged, total, pairs = model.prototypes.tolist(), model.average_prototypes.tolist(), 0.0, 0
        for g in range(2):
            for v in range(3):
                if v == g:
                    continue
                pairs += 1
                for i in range(3):
                    teacher = [
                        (cosine(targets[3 * g + i].tolist(), w) - c) / 0.04 for w, c in zip(averaged, centre, strict=True)
                    ]
                    student = [cosine(z[3 * v + i], w) / 0.3 for w in weights]
                    total -= sum(math.exp(log_softmax(teacher, c)) * log_softmax(student, c) for c in range(5)) / 3
        return total / pairs

    check(model, data, rows(9, model.outputs, 8), oracle)
    expected = [
        0.9 * c + 0.1 * sum(cosine(row, w) for row in targets.tolist()) / 6
        for c, w in zip(centre, model.average_prototypes.tolist(), strict=True)
    ]
    model.average.update = lambda trained, momentum: None
    model.after_step(data)
    assert model.centre.tolist() == pytest.approx(expected)
