"""Protocols that train on downstream images: the memory's loss against slow loops, and what they must not touch or see."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from studylib import config, neighbours
from studylib.config import resolve
from studylib.data import ImageSet
from studylib.data.augment import Augmentation, to_float
from studylib.data.splits import stratified_split
from studylib.errors import InputError, RunError
from studylib.external import External
from studylib.methods import METHODS
from studylib.models import Encoder
from studylib.training import Run, checkpoint
from studylib.transfer import descent
from studylib.transfer.fine_tune import FineTune, fine_tune_accuracy, trainable
from studylib.transfer.linear_fine_tune import LinearFineTune, linear_fine_tune_accuracy
from studylib.transfer.memory_fine_tune import Memory, MemoryFineTune, Projection, fit_memory, memory_fine_tune_accuracy

pytestmark = pytest.mark.slow

ONE = {"search_epochs": 0, "epochs": 2}
CASES = {
    "full": (fine_tune_accuracy, FineTune(learning_rates=(0.1,), batches=(16,), weight_decays=(0.0,), **ONE)),
    "memory": (memory_fine_tune_accuracy, MemoryFineTune(learning_rates=(0.1,), ks=(5,), batch=16, **ONE)),
    "projection": (
        memory_fine_tune_accuracy,
        MemoryFineTune(what="projection", learning_rates=(0.1,), ks=(5,), batch=16, **ONE),
    ),
    "linear": (linear_fine_tune_accuracy, LinearFineTune(what="linear", learning_rates=(0.1,), batch=16, **ONE)),
    "unfrozen": (linear_fine_tune_accuracy, LinearFineTune(learning_rates=(0.1,), batch=16, **ONE)),
}
FROZEN = {"projection", "linear"}


class Tiny(nn.Module):
    """A network of few weights with batch normalisation, as the encoders have."""

    def __init__(self, seed=0):
        super().__init__()
        self.convolution, self.norm = nn.utils.skip_init(nn.Conv2d, 3, 8, 1), nn.BatchNorm2d(8)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.convolution.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)

    def forward(self, images):
        images = images if images.is_floating_point() else images.float() / 255
        return self.norm(self.convolution(images)).relu().mean((2, 3))


def picture_set(labels, split, seed=0, classes=None, flip=True):
    """Plain colours: red and green are anything, blue tells the class, of which all shades lie close together."""
    generator = torch.Generator().manual_seed(seed)
    colours = 255 * torch.rand(len(labels), 3, generator=generator)
    colours[:, 2] = 90 + 30 * labels
    noise = 4 * torch.randn(len(labels), 3, 6, 6, generator=generator)
    images = (colours[:, :, None, None] + noise).clamp(0, 255).byte()
    names = tuple(map(str, range(classes or int(labels.max()) + 1)))
    return ImageSet("colours", images, labels, names, split, flip=flip)


@pytest.fixture(scope="module")
def pictures():
    rows = torch.arange(180)
    return picture_set(rows % 3, (rows >= 90).long())


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def grid_of(name):
    """The case with a grid of several points: its function and protocol."""
    function, protocol = CASES[name]
    return function, dataclasses.replace(protocol, learning_rates=(0.1, 0.01), search_epochs=2)


def choices(result):
    """What was decided before the test images were seen."""
    left_out = ("top1", "mean_per_class", "seconds", "seconds_training")
    return {name: value for name, value in vars(result).items() if name not in left_out}


# --- the memory


def slow_losses(z, rows, memory, labels, k, temperature, no_positive):
    """Leave-one-out kNN losses of a batch, an image and a neighbour at a time."""

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    losses = []
    for anchor, row in zip(z, rows, strict=True):
        others = [(cosine(anchor, memory[j]), labels[j]) for j in range(len(memory)) if j != row]
        near = sorted(others, reverse=True)[:k]
        same = [s for s, label in others if label == labels[row]]
        if no_positive == "nearest" and same and all(label != labels[row] for _, label in near):
            near.append((max(same), labels[row]))
        own = sum(math.exp(s / temperature) for s, label in near if label == labels[row])
        losses.append(-math.log(own / sum(math.exp(s / temperature) for s, _ in near)) if own else 0.0)
    return losses


@pytest.mark.parametrize("no_positive", ["nearest", "skip"])
@pytest.mark.parametrize("k", [1, 3, 50])
def test_memory_loss_is_the_slow_loops_and_each_step_rewrites_its_rows(k, no_positive):
    generator = torch.Generator().manual_seed(k)
    start = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2] * 3 + [0, 1, 3])
    memory, slow = Memory(start, labels), start.tolist()
    for rows in ([0, 5, 11, 3], [5, 1, 2, 7], [0, 1, 5, 11]):
        z = torch.randn(4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        found = memory.loss(z, torch.tensor(rows), k=k, temperature=0.3, no_positive=no_positive)
        losses = slow_losses(z.tolist(), rows, slow, labels.tolist(), k, 0.3, no_positive)
        assert float(found.detach()) == pytest.approx(sum(losses) / 4)
        found.backward()
        assert z.grad.isfinite().all() and bool(z.grad.any()) == (sum(losses) > 0)
        assert not memory.embeddings.requires_grad
        for row, values in zip(rows, z.tolist(), strict=True):
            slow[row] = values
        assert memory.embeddings.tolist() == slow


def test_an_image_never_finds_itself():
    """What the memory holds of an image is of no matter to it, were it its own perfect match; to all others it is."""
    generator = torch.Generator().manual_seed(0)
    start, z = torch.randn(9, 4, generator=generator), torch.randn(9, 4, generator=generator)
    labels = torch.arange(9) % 3

    def loss(row, embeddings):
        return float(Memory(embeddings, labels).loss(z[[row]], torch.tensor([row]), k=8, temperature=0.5, no_positive="skip"))

    for row in range(9):
        changed = start.clone()
        changed[row] = z[row]
        assert loss(row, changed) == loss(row, start)
        other = (row + 3) % 9  # of its class
        changed[other] = z[row]
        assert loss(row, changed) < loss(row, start)


def test_the_memory_begins_with_all_images_and_every_epoch_writes_each_once(monkeypatch):
    features, labels = torch.randn(24, 5, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
    seen, whole = [], Memory.loss

    def recording(self, z, rows, **options):
        seen.append((self.embeddings.clone(), rows.tolist()))
        return whole(self, z, rows, **options)

    monkeypatch.setattr(Memory, "loss", recording)
    options = {"lr": 0.1, "batch": 8, "weight_decay": 0.0, "momentum": 0.9, "epochs": 2, "seed": 0, "crop": None}
    options |= {"k": 5, "temperature": 0.1, "device": torch.device("cpu")}
    given, classify = [], neighbours.classify

    def classifying(queries, gallery, *rest, **how):
        given.append((queries, gallery))
        return classify(queries, gallery, *rest, **how)

    monkeypatch.setattr(neighbours, "classify", classifying)
    fit_memory(Projection(5), features, labels, features[:2], **options)
    ((queries, gallery),) = given
    assert torch.equal(queries, gallery[:2])  # all are embedded anew for the vote, by the same weights
    assert not torch.allclose(gallery[seen[-1][1]], seen[-1][0][seen[-1][1]])
    unit = features / features.norm(dim=1, keepdim=True)
    torch.testing.assert_close(seen[0][0], unit)  # the projection starts as the identity
    for epoch in (seen[:3], seen[3:]):
        assert sorted(row for _, rows in epoch for row in rows) == list(range(24))
    kept = [row for row in range(24) if row not in seen[0][1]]
    assert torch.equal(seen[1][0][kept], seen[0][0][kept])
    assert not torch.allclose(seen[3][0], seen[0][0])
    assert seen[0][1] + seen[1][1] + seen[2][1] != seen[3][1] + seen[4][1] + seen[5][1]


# --- the steps


def test_rates_fall_and_the_rest_of_a_batch_is_left_out():
    class Weight(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.zeros(1))

    weight, seen = Weight(), []

    def loss(inputs, rows):
        assert torch.equal(inputs[:, 0].long(), rows)
        seen.append((float(weight.value.detach()), len(rows)))
        return weight.value.sum()

    options = {"lr": 1.0, "batch": 4, "weight_decay": 0.0, "momentum": 0.0, "epochs": 5, "seed": 0, "crop": None}
    assert descent.descend(weight, torch.arange(11.0)[:, None], loss, device=torch.device("cpu"), **options)
    assert [count for _, count in seen] == [4] * 10 and descent.steps_of(11, 4, 5) == 40
    steps = [
        before - after for (before, _), (after, _) in zip(seen, [*seen[1:], (float(weight.value.detach()), 0)], strict=True)
    ]
    assert steps == pytest.approx([1.0] * 4 + [0.1] * 2 + [0.01] * 4, rel=1e-3)  # at 2 and 3 of 5 epochs


def test_order_and_crops_are_drawn_by_the_seed():
    images, crop, seen = torch.arange(20 * 12).view(20, 3, 2, 2).byte(), Augmentation(crop_scale=(0.2, 0.9)), {}
    for seed in (0, 0, 1):
        steps = seen.setdefault(seed, [])

        def loss(inputs, rows, steps=steps):
            steps.append((rows.tolist(), inputs.tolist()))
            return inputs.sum().requires_grad_()

        options = {"lr": 1.0, "batch": 20, "weight_decay": 0.0, "momentum": 0.0, "epochs": 2, "seed": seed, "crop": crop}
        descent.descend(nn.Linear(1, 1), images, loss, device=torch.device("cpu"), **options)
    first, second, *again = seen[0]
    assert again == [first, second]
    orders, crops = zip(first, second, *seen[1], strict=True)
    assert len(set(map(tuple, orders))) == 4  # another in every epoch and for every seed
    by_row = [dict(zip(order, map(str, inputs), strict=True)) for order, inputs in zip(orders, crops, strict=True)]
    assert all(len({found[row] for found in by_row}) == 4 for row in range(20))


@pytest.mark.parametrize("mirrored", [True, False])
def test_images_are_cropped_anew_and_mirrored_only_where_the_set_allows_it(monkeypatch, mirrored):
    rows = torch.arange(40)
    pictures = picture_set(rows % 2, (rows >= 20).long(), flip=mirrored)
    ramp = (torch.arange(6) * 40).byte().expand(40, 3, 6, 6)
    pictures = dataclasses.replace(pictures, images=ramp.contiguous())
    seen, forward = [], Tiny.forward

    def recording(self, images):
        if self.training:
            seen.append(images)
        return forward(self, images)

    monkeypatch.setattr(Tiny, "forward", recording)
    fine_tune_accuracy(Tiny(), pictures, CASES["full"][1])
    batches = torch.cat(seen)
    assert batches.is_floating_point() and batches.min() >= 0 and batches.max() <= 1
    slopes = batches[:, 0, 0, -1] - batches[:, 0, 0, 0]
    assert bool((slopes < 0).any()) == mirrored and len(slopes.unique()) > 20


# --- every protocol


def test_it_is_the_same_again_and_the_seed_matters(pictures, case):
    function, protocol = grid_of(case)
    state = torch.get_rng_state()
    first = function(Tiny(), pictures, protocol)
    assert torch.equal(torch.get_rng_state(), state)
    assert function(Tiny(), pictures, protocol) == first
    others = [function(Tiny(), pictures, dataclasses.replace(protocol, seed=seed)) for seed in (1, 2)]
    assert any(other.validation != first.validation or other.top1 != first.top1 for other in others)
    assert first.seconds > first.seconds_training > 0


def test_what_was_given_stays_as_it_was_and_only_unfrozen_encoders_are_trained(pictures, case, monkeypatch):
    function, protocol = CASES[case]
    network = Tiny().train().requires_grad_(False)
    before, trained, descend = copy.deepcopy(network.state_dict()), [], descent.descend

    def recording(model, *arguments, **options):
        start = copy.deepcopy(model.state_dict())
        finished = descend(model, *arguments, **options)
        trained.append((start, model.state_dict()))
        return finished

    monkeypatch.setattr(descent, "descend", recording)
    function(network, pictures, protocol)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training and not any(parameter.requires_grad for parameter in network.parameters())
    ((start, end),) = trained
    convolutions = [name for name in start if "convolution" in name]
    assert bool(convolutions) == (case not in FROZEN)
    assert all(not torch.equal(start[name], end[name]) for name in convolutions if name.endswith("weight"))
    assert any(not torch.equal(start[name], end[name]) for name in start)


def test_frozen_features_may_be_given(pictures, monkeypatch):
    features = descent.encode(Tiny(), pictures.images, torch.device("cpu"))
    for name in FROZEN:
        function, protocol = grid_of(name)
        whole = function(Tiny(), pictures, protocol)
        assert function(Tiny(), pictures, protocol, features=features) == whole
        other = function(Tiny(seed=9), pictures, protocol, features=features)
        assert other == whole  # nothing else is asked of the network
        with pytest.raises(InputError, match="features=.*180 images"):
            function(Tiny(), pictures, protocol, features=features[:-1])


def test_test_images_and_labels_have_no_part_in_the_choice(pictures, case):
    function, protocol = grid_of(case)
    generator = torch.Generator().manual_seed(3)
    test = pictures.split == 1
    labels = torch.where(test, torch.randint(3, (180,), generator=generator), pictures.labels)
    noise = torch.randint(256, pictures.images.shape, generator=generator).byte()
    images = torch.where(test[:, None, None, None], noise, pictures.images)
    first = function(Tiny(), pictures, protocol)
    other = function(Tiny(), dataclasses.replace(pictures, labels=labels, images=images), protocol)
    assert choices(other) == choices(first) and len(first.validation) == 2
    assert other.top1 != first.top1


def test_the_best_on_held_out_images_is_chosen_the_first_of_equals(monkeypatch):
    labels = torch.arange(20) % 2
    protocol = LinearFineTune(learning_rates=(0.4, 0.3, 0.2, 0.1), batch=4)
    kept, held_out = stratified_split(labels, 0.3, 0)
    share = {0.4: 0.5, 0.3: math.nan, 0.2: 1.0, 0.1: 1.0}
    calls = []

    def fit(point, epochs, seen, seen_labels, unseen):
        calls.append((point[0], epochs, seen[:, 0].tolist(), unseen[:, 0].tolist()))
        if math.isnan(share[point[0]]):
            return None
        truth = unseen[:, 0].long() % 2
        return torch.where(torch.arange(len(truth)) < share[point[0]] * len(truth), truth, 1 - truth)

    features = torch.arange(30.0)[:, None]
    point, found = descent.choose_and_fit(protocol, (features[:20], labels), (features[20:], torch.arange(10) % 2), fit)
    assert (point, found["failed"], found["at_grid_edge"], found["top1"]) == ((0.2,), 1, False, 100)
    assert found["validation"][0] == (0.4, 50) and math.isnan(found["validation"][1][1])
    assert [call[:2] for call in calls] == [(0.4, 4), (0.3, 4), (0.2, 4), (0.1, 4), (0.2, 8)]
    assert all(call[2:] == (kept.tolist(), held_out.tolist()) for call in calls[:4])
    assert calls[4][2:] == (list(range(20)), list(range(20, 30)))
    assert found["images_seen"] == 4 * 4 * 12 + 8 * 20


def test_classes_of_one_two_and_three_images(case):
    function, protocol = grid_of(case)
    counts = torch.tensor([1, 2, 3, 20])
    labels = torch.cat((torch.repeat_interleave(torch.arange(4), counts), torch.arange(12) % 5))  # class 4 only in the test
    pictures = picture_set(labels, (torch.arange(38) >= 26).long(), classes=5)
    found = function(Tiny(), pictures, protocol)
    assert found.failed == 0 and len(found.validation) == 2 and 0 <= found.mean_per_class <= 80
    few = pictures.select(torch.tensor([0, 1, 2, 30, 31]))  # three training images, less than any batch
    assert 0 <= function(Tiny(), few, protocol).top1 <= 100


def test_a_class_without_training_images_is_never_predicted(case):
    function, protocol = CASES[case]
    rows = torch.arange(60)
    labels = torch.where(rows < 40, 2 * (rows % 2), 1)  # classes 0 and 2; all test images are of class 1
    assert function(Tiny(), picture_set(labels, (rows >= 40).long()), protocol).top1 == 0


@pytest.mark.parametrize("name", CASES)
def test_what_can_be_learned_is_learned(pictures, name):
    """Blue tells the class, and is the least of what the network sees at first."""
    function, protocol = CASES[name]
    if name in FROZEN:
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(180, 8, generator=generator)
        features[:, 0] = pictures.labels - 1 + 0.1 * features[:, 0]
        options = {"features": features}
    else:
        options = {}
    still = dataclasses.replace(protocol, learning_rates=(1e-9,), epochs=1)
    learned = dataclasses.replace(protocol, epochs=20)
    assert function(Tiny(), pictures, still, **options).top1 < 80
    found = function(Tiny(), pictures, learned, **options)
    assert found.top1 > 90 and found.mean_per_class > 90


def test_a_grid_of_one_point_is_not_tuned(pictures, case, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("nothing is to be held out")

    monkeypatch.setattr(descent, "stratified_split", refuse)
    function, protocol = CASES[case]
    found = function(Tiny(), pictures, protocol)
    assert (found.validation, found.at_grid_edge, found.failed, found.images_seen) == ((), False, 0, 2 * 80)
    assert "tried" not in protocol.describe() and "held-out" in grid_of(case)[1].describe()


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"projection"}))  # of unit length, it cannot
def test_what_diverges_is_not_chosen(pictures, name):
    function, protocol = CASES[name]
    found = function(Tiny(), pictures, dataclasses.replace(protocol, learning_rates=(1e38, 0.01), search_epochs=3))
    assert (found.learning_rate, found.failed) == (0.01, 1) and math.isnan(found.validation[0][-1])
    for learning_rates in ((1e38,), (1e38, 2e38)):
        with pytest.raises(RunError, match=r"diverged.*lower learning_rates"):
            function(Tiny(), pictures, dataclasses.replace(protocol, learning_rates=learning_rates, search_epochs=3))


# --- what cannot be used


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (FineTune, {"learning_rates": ()}, "fine_tune.learning_rates"),
        (FineTune, {"learning_rates": (0.1, -1.0)}, "fine_tune.learning_rates"),
        (FineTune, {"batches": (1,)}, "fine_tune.batches"),
        (FineTune, {"weight_decays": (-1.0,)}, "fine_tune.weight_decays"),
        (FineTune, {"epochs": 0}, "fine_tune.epochs"),
        (FineTune, {"search_epochs": 0}, "fine_tune.search_epochs=0: must be at least 1 for a grid of 12"),
        (LinearFineTune, {"what": "projection"}, "linear_fine_tune.what"),
        (LinearFineTune, {"batch": 1}, "linear_fine_tune.batch"),
        (MemoryFineTune, {"what": "linear"}, "memory_fine_tune.what"),
        (MemoryFineTune, {"ks": (0,)}, "memory_fine_tune.ks"),
        (MemoryFineTune, {"ks": ()}, "memory_fine_tune.ks"),
        (MemoryFineTune, {"temperatures": (0.0,)}, "memory_fine_tune.temperatures"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(kind, fields, message):
    with pytest.raises(InputError, match=message):
        kind(**fields)


def test_images_and_networks_that_cannot_be_used_are_refused(pictures, case):
    function, protocol = CASES[case]
    with pytest.raises(InputError, match="test.features.*no image"):
        function(Tiny(), pictures.train, protocol)
    with pytest.raises(InputError, match="train.labels.*only class"):
        function(Tiny(), dataclasses.replace(pictures, labels=torch.zeros(180, dtype=torch.int64)), protocol)
    with pytest.raises(InputError, match="network.features"):
        function(Tiny().convolution.double(), dataclasses.replace(pictures, images=pictures.images.double()), protocol)


def test_descriptions_say_everything():
    said = FineTune().describe()
    for part in (
        "lr 0.01|0.001",
        "batch 128|32",
        "weight decay 0|0.0001|1e-05",
        "20 epochs",
        "30% held-out",
        "50 epochs",
        "25%",
    ):
        assert part in said
    assert "frozen" in LinearFineTune(what="linear").describe() and "frozen" not in LinearFineTune().describe()
    said = MemoryFineTune(what="projection", ks=(3, 9)).describe()
    assert "projection" in said and "k=3|9" in said and "frozen" in said and "our reconstruction" in said


# --- encoders


def test_trainable_is_the_sources_network(tmp_path, runs):
    settings = config.Encoder(arch="resnet10", width=8, stem="conv3")
    torch.manual_seed(0)
    torch.save(Encoder(settings).state_dict(), tmp_path / "encoder.pth")
    external = External(tmp_path / "encoder.pth", size=16, stem="conv3")
    run = Run(resolve("quick", "sl_mlp", overrides={"encoder.width": 8}))
    method = METHODS["sl_mlp"](run.config, 5, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6]))
    checkpoint.save(run.snapshot(), {"classes": 5, "size": 24, "weights": method.state_dict()})
    images = torch.randint(256, (3, 3, 20, 20), generator=torch.Generator().manual_seed(0)).byte()
    for source in (external, run):
        network, (frozen, size) = trainable(source).eval(), source.network(None, torch.device("cpu"))
        with torch.no_grad():
            features = network(images)
            torch.testing.assert_close(features, frozen.layers(to_float(images, size))["stage5"])
            torch.testing.assert_close(network(images.float() / 255), features, rtol=1e-4, atol=1e-5)
        network(images).sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        assert not [name for name, _ in network.named_parameters() if "projector" in name]
