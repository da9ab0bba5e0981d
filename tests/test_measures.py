"""The measures against double loops in float64 written from their formulas, their invariances and their limits."""

import itertools
import math

import pytest
import torch

from studylib.errors import InputError
from studylib.measures import class_centres, discriminative_ratio, mixtureness, redundancy, stream


def draw(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def sample():
    """Features (61, 5) of four classes of different size, far from the origin."""
    labels = torch.tensor([0] * 7 + [1] * 30 + [2] * 23 + [3])
    labels = labels[torch.randperm(61, generator=torch.Generator().manual_seed(3))]
    return draw(61, 5) + draw(4, 5, seed=1)[labels] + 10, labels


def rotation(width: int) -> torch.Tensor:
    return torch.linalg.qr(draw(width, width, seed=9).double()).Q


# --- discriminative ratio


def slow_centres(features, labels, normalise=False):
    rows = [[float(v) for v in row] for row in features]
    if normalise:
        rows = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in rows]
    centres = []
    for c in range(int(labels.max()) + 1):
        own = [row for row, label in zip(rows, labels.tolist(), strict=True) if label == c]
        centres.append([sum(column) / len(own) for column in zip(*own, strict=True)])
    return rows, centres


def slow_ratio(features, labels, squared, normalise):
    rows, centres = slow_centres(features, labels, normalise)
    power = 2 if squared else 1
    classes = range(len(centres))
    inter = sum(math.dist(centres[j], centres[k]) ** power for j in classes for k in classes if k != j)
    inter /= len(centres) * (len(centres) - 1)
    intra = 0.0
    for j in classes:
        own = [row for row, label in zip(rows, labels.tolist(), strict=True) if label == j]
        intra += sum(math.dist(row, centres[j]) ** power for row in own) / len(own) / len(centres)
    return inter / intra, inter, intra


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("chunk", [1, 8, 61, 4096])
def test_discriminative_ratio_is_the_double_loop(sample, squared, normalise, chunk, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK", chunk)
    found = discriminative_ratio(*sample, squared=squared, normalise=normalise)
    expected = slow_ratio(*sample, squared, normalise)
    assert (found.phi, found.inter, found.intra) == pytest.approx(expected, rel=1e-12)


def test_discriminative_ratio_is_squared_and_not_normalised_by_default(sample):
    assert discriminative_ratio(*sample).phi == pytest.approx(slow_ratio(*sample, True, False)[0], rel=1e-12)


@pytest.mark.parametrize("normalise", [True, False])
def test_class_centres_are_means(sample, normalise, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK", 8)
    expected = torch.tensor(slow_centres(*sample, normalise)[1], dtype=torch.float64)
    torch.testing.assert_close(class_centres(*sample, normalise=normalise), expected, rtol=1e-12, atol=0)


def test_more_classes_than_one_block_of_centres():
    features, labels = draw(1203, 3), torch.arange(1203) % 401
    found = discriminative_ratio(features, labels)
    centres = class_centres(features, labels)
    inter = sum(float((centres - centres[j]).square().sum()) for j in range(401)) / 401 / 400
    assert found.inter == pytest.approx(inter, rel=1e-12)


@pytest.mark.parametrize("squared", [True, False])
def test_discriminative_ratio_is_invariant_to_rotation_shift_and_scale(sample, squared):
    features, labels = sample[0].double(), sample[1]
    before = discriminative_ratio(features, labels, squared=squared)
    moved = discriminative_ratio(3 * (features @ rotation(5)) + 4, labels, squared=squared)
    assert moved.phi == pytest.approx(before.phi, rel=1e-9)
    assert moved.intra == pytest.approx(before.intra * (9 if squared else 3), rel=1e-9)


def test_collapsed_classes_have_an_infinite_ratio_and_a_single_point_none():
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    features = torch.tensor([[0.1, 0.7], [0.3, 0.9]])[labels]
    for squared, normalise in itertools.product((True, False), repeat=2):
        assert discriminative_ratio(features, labels, squared=squared, normalise=normalise).phi == math.inf
        point = discriminative_ratio(torch.full((7, 2), 0.1), labels, squared=squared, normalise=normalise)
        assert math.isnan(point.phi)
        assert (point.inter, point.intra) == (0, 0)


def test_discriminative_ratio_refuses_what_it_cannot_measure(sample):
    features, labels = sample
    gap = torch.where(labels == 1, 5, labels)
    for broken, message in [
        ((features, gap), r"labels=\[1, 4\]: classes without an image"),
        ((features, labels[:-1]), r"features=\(61, 5\): must be \(N, d\)"),
        ((features[:, 0], labels), r"features=\(61,\): must be \(N, d\)"),
        ((features[:0], labels[:0]), r"features=\(0, 5\)"),
        ((features, torch.zeros_like(labels)), "labels=1: class; a discriminative ratio needs at least two"),
    ]:
        with pytest.raises(InputError, match=message):
            discriminative_ratio(*broken)
    with pytest.raises(InputError, match="classes without an image"):
        class_centres(features, gap)


# --- mixtureness


def slow_mixtureness(pre, own, k):
    everything = [*pre.tolist(), *own.tolist()]
    shares = []
    for i, centre in enumerate(own.tolist()):
        others = [j for j in range(len(everything)) if j != len(pre) + i]
        nearest = sorted(others, key=lambda j: (math.dist(centre, everything[j]), j))[:k]
        shares.append(sum(j >= len(pre) for j in nearest) / k)
    expected = len(own) / len(everything)
    return 1 - sum(abs(share - expected) for share in shares) / len(shares)


@pytest.mark.parametrize("k", [1, 5, 23])
def test_mixtureness_is_the_double_loop(k):
    pre, own = draw(17, 3), draw(7, 3, seed=1) + 0.5
    assert mixtureness(pre, own, k=k) == pytest.approx(slow_mixtureness(pre, own, k), rel=1e-12)
    assert mixtureness(own, pre, k=k) == pytest.approx(slow_mixtureness(own, pre, k), rel=1e-12)


def test_mixtureness_of_more_points_than_one_block():
    pre, own = draw(100, 3), draw(270, 3, seed=1) + 0.5
    assert mixtureness(pre, own, k=3) == pytest.approx(slow_mixtureness(pre, own, 3), rel=1e-12)


def test_mixtureness_has_five_neighbours_by_default():
    pre, own = draw(17, 3), draw(7, 3, seed=1) + 0.5
    assert mixtureness(pre, own) == mixtureness(pre, own, k=5) != mixtureness(pre, own, k=4)


def test_mixtureness_of_separated_sets():
    # All neighbours of an evaluation centre are evaluation centres: r = 1, so Π = 1 - (1 - 4/10).
    assert mixtureness(draw(6, 3), draw(4, 3, seed=1) + 1e3, k=3) == pytest.approx(0.4)


def test_mixtureness_of_mixed_sets():
    # On a line the two sets take turns; with k = 2 the inner centres have r = 0, with k = 4 they have r = 1/2 = E / (P + E).
    line = torch.arange(4000.0)[:, None]
    pre, own = line[0::2], line[1::2]
    assert mixtureness(pre, own, k=2) == pytest.approx(0.5, abs=1e-3)
    assert mixtureness(pre, own, k=4) == pytest.approx(1.0, abs=1e-3)


def test_mixtureness_does_not_depend_on_rotation_shift_or_scale():
    pre, own = draw(17, 3).double(), draw(7, 3, seed=1).double()
    moved = mixtureness(2 * pre @ rotation(3) + 1, 2 * own @ rotation(3) + 1, k=4)
    assert moved == pytest.approx(mixtureness(pre, own, k=4), rel=1e-12)


def test_a_centre_is_not_its_own_neighbour_even_among_copies():
    # Nearest to each evaluation centre is its copy in the pre-training set.
    centres = draw(6, 3)
    assert mixtureness(centres, centres, k=1) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("pre", "own", "k", "message"),
    [
        ((3, 2), (4, 2), 0, "k=0: must be between 1 and 6"),
        ((3, 2), (4, 2), 7, "k=7: must be between 1 and 6"),
        ((3, 2), (4, 3), 1, r"eval_centres=\(4, 3\): must be \(E, d\)"),
        ((3, 2), (4,), 1, r"eval_centres=\(4,\)"),
        ((0, 2), (4, 2), 1, "eval_centres=4: and 0 pre_centres"),
    ],
)
def test_mixtureness_refuses_what_it_cannot_measure(pre, own, k, message):
    with pytest.raises(InputError, match=message):
        mixtureness(torch.zeros(pre), torch.zeros(own), k=k)


# --- redundancy


def pearson(a, b):
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    products = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    return products / math.sqrt(sum((x - ma) ** 2 for x in a)) / math.sqrt(sum((y - mb) ** 2 for y in b))


def slow_redundancy(features):
    columns = [column for column in features.T.tolist() if len(set(column)) > 1]
    return sum(abs(pearson(a, b)) for a in columns for b in columns) / len(columns) ** 2


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_redundancy_is_the_double_loop(chunk, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK", chunk)
    features = draw(45, 6) @ draw(6, 6, seed=1) + 100
    assert redundancy(features) == pytest.approx(slow_redundancy(features), rel=1e-9)


def test_redundancy_does_not_depend_on_scale_sign_or_shift_of_a_dimension():
    features = (draw(45, 6) @ draw(6, 6, seed=1)).double()
    scale = torch.tensor([1.0, -2.0, 1e3, 1e-3, 5.0, -1.0], dtype=torch.float64)
    assert redundancy(features * scale + 7 * scale) == pytest.approx(redundancy(features), rel=1e-9)


def test_redundancy_of_copies_is_one_and_of_orthogonal_dimensions_only_the_diagonal():
    column = draw(20, 1)
    assert redundancy(column * torch.tensor([1.0, -2.0, 4.0])) == pytest.approx(1)
    orthogonal = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert redundancy(orthogonal) == pytest.approx(1 / 2)


def test_dead_dimensions_are_left_out():
    features = draw(45, 4) @ draw(4, 4, seed=1)
    dead = torch.cat((torch.full((45, 1), 0.1), features, torch.zeros(45, 2)), dim=1)
    expected = redundancy(features)
    assert redundancy(dead) == pytest.approx(expected, rel=1e-12)
    assert slow_redundancy(dead) == pytest.approx(expected, rel=1e-9)


def test_redundancy_without_a_live_dimension_is_not_a_number():
    assert math.isnan(redundancy(torch.full((9, 3), 0.1)))
    assert redundancy(draw(9, 1)) == pytest.approx(1)
    with pytest.raises(InputError, match=r"features=\(1, 3\): must be \(N, d\) with at least two images"):
        redundancy(torch.ones(1, 3))


def test_features_are_left_as_they_were(sample):
    features = sample[0].clone()
    discriminative_ratio(*sample, normalise=True)
    redundancy(sample[0])
    assert torch.equal(features, sample[0])
