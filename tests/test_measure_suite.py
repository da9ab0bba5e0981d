"""The measures that stream, against double loops in float64 written from their formulas, their invariances and their limits."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch

from studylib import measures
from studylib.errors import InputError
from studylib.measures import distance, stream


@pytest.fixture(autouse=True, params=[8])
def chunk(request, monkeypatch):
    """Rows read at a time: 8 of 61, or as `CHUNKS` has it."""
    monkeypatch.setattr(stream, "CHUNK", request.param)


CHUNKS = pytest.mark.parametrize("chunk", [1, 8, 61, 4096], indirect=True)  # of 61 rows


def draw(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def sample():
    """Features (61, 5) of five classes of different size, two of them of one image, far from the origin."""
    labels = torch.tensor([0] * 7 + [1] * 29 + [2] * 23 + [3, 4])
    labels = labels[torch.randperm(61, generator=torch.Generator().manual_seed(3))]
    return draw(61, 5) + draw(5, 5, seed=1)[labels] + 3, labels


@pytest.fixture
def other():
    return 1.5 * draw(47, 5, seed=7) + 2.5


def rotation(width: int) -> torch.Tensor:
    return torch.linalg.qr(draw(width, width, seed=9).double()).Q


def rows_of(features, normalise=False):
    rows = [[float(v) for v in row] for row in features]
    return [unit(row) for row in rows] if normalise else rows


def unit(row):
    norm = math.sqrt(sum(v * v for v in row))
    return [v / norm for v in row] if norm else row


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def by_class(rows, labels):
    return [[r for r, y in zip(rows, labels.tolist(), strict=True) if y == c] for c in range(int(labels.max()) + 1)]


def mean_row(rows):
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def covariance(rows, divisor):
    centre = mean_row(rows)
    width = range(len(centre))
    return np.array([[sum((r[a] - centre[a]) * (r[b] - centre[b]) for r in rows) / divisor for b in width] for a in width])


# --- all measures: what they are given

# name -> measure of features and labels
ALL = {
    "class_separation": lambda f, y: measures.class_separation(f, y).r2,
    "neural_collapse": measures.neural_collapse,
    "singular_values": lambda f, y: measures.singular_values(f).tolist(),
    "effective_rank": lambda f, y: measures.effective_rank(f),
    "coding_length": lambda f, y: measures.coding_length(f),
    "sparsity": lambda f, y: measures.sparsity(f),
    "redundancy": lambda f, y: measures.redundancy(f),
    "frechet_distance": lambda f, y: measures.frechet_distance(f, draw(47, 5, seed=7)),
    "prototypes": lambda f, y: measures.prototypes(f, y, 6).flatten().tolist(),
    "moments": lambda f, y: measures.moments(f).gram.flatten().tolist(),
    "intra_class_distance": measures.intra_class_distance,
    "squared_mmd": lambda f, y: measures.squared_mmd(f, draw(47, 5, seed=7)),
    "find_modes": lambda f, y: measures.find_modes(f, y, torch.arange(len(y)) % 3).silhouette,
    "discriminative_ratio": lambda f, y: measures.discriminative_ratio(f, y).phi,
}
LABELLED = [
    "class_separation",
    "neural_collapse",
    "prototypes",
    "intra_class_distance",
    "find_modes",
    "discriminative_ratio",
]


@pytest.mark.parametrize("name", ALL)
def test_a_memmap_is_as_good_as_a_tensor(name, sample, tmp_path):
    features, labels = sample
    np.save(tmp_path / "features.npy", features.numpy())
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    assert ALL[name](mapped, labels) == ALL[name](features, labels) == ALL[name](features.numpy(), labels)


# The mean discrepancy and k-means draw rows by their place; they have tests of their own.
@pytest.mark.parametrize("name", [name for name in ALL if name not in ("squared_mmd", "find_modes")])
def test_rows_in_another_order_are_the_same_features(name, sample):
    features, labels = sample
    order = torch.randperm(61, generator=torch.Generator().manual_seed(5))
    assert ALL[name](features[order], labels[order]) == pytest.approx(ALL[name](features, labels), rel=1e-9)


# Prototypes and moments turn with the features; sparsity and redundancy are about the axes.
TURNED = [
    name for name in ALL if name not in ("prototypes", "moments", "sparsity", "redundancy", "frechet_distance", "squared_mmd")
]


@pytest.mark.parametrize("name", TURNED)
def test_measures_do_not_depend_on_rotation_or_scale(name, sample):
    features, labels = sample[0].double(), sample[1]
    moved = ALL[name](3 * features @ rotation(5), labels)
    assert moved == pytest.approx(ALL[name](features, labels), rel=1e-9)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused(name, bad, sample):
    features, labels = sample
    features[44, 2] = bad
    with pytest.raises(InputError, match=f"features={bad}: in (some row|row 44)"):
        ALL[name](features, labels)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(61,), (61, 5, 1), (0, 5)])
def test_features_of_another_shape_are_refused(name, shape):
    with pytest.raises(InputError, match="features|labels" if shape[0] == 0 else "features"):
        ALL[name](torch.zeros(shape), torch.arange(shape[0]) % 2)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_that_do_not_match_are_refused(name, sample):
    features, labels = sample
    with pytest.raises(InputError, match="labels"):
        ALL[name](features, labels[:-1])
    with pytest.raises(InputError, match="labels"):
        ALL[name](features[:-1], labels)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_that_are_no_classes_are_refused(name, sample):
    features, labels = sample
    with pytest.raises(InputError, match=r"labels=-1: is out of range; number the classes 0"):
        ALL[name](features, labels - 1)
    with pytest.raises(InputError, match=r"labels='torch.float32 \(61,\)': must be \(N,\) integers"):
        ALL[name](features, labels.float())
    if name != "prototypes":
        with pytest.raises(InputError, match=r"labels=\[1\]: classes without an image"):
            ALL[name](features, torch.where(labels == 1, 0, labels))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([[1.0, 2.0]], "features='list': must be a tensor or an array"),
        (draw(3, 0), r"features=\(3, 0\): must be \(N, d\) with d > 0"),
    ],
)
def test_what_is_no_features_is_refused(features, message):
    with pytest.raises(InputError, match=message):
        measures.moments(features)


def test_features_are_left_as_they_were(sample):
    features = sample[0].double()
    before = features.clone()
    for measure in ALL.values():
        measure(features, sample[1])
    assert torch.equal(features, before)


def test_half_precision_features_are_measured_in_double(sample):
    features, labels = sample
    half = features.half()
    assert measures.neural_collapse(half, labels) == measures.neural_collapse(half.double(), labels)
    assert measures.intra_class_distance(half, labels) == measures.intra_class_distance(half.double(), labels)


# --- moments


@pytest.mark.parametrize("normalise", [True, False])
@CHUNKS
def test_moments_are_the_double_loop(sample, normalise):
    rows = rows_of(sample[0], normalise)
    found = measures.moments(sample[0], normalise=normalise)
    assert found.count == 61
    assert found.mean.tolist() == pytest.approx(mean_row(rows), rel=1e-12)
    assert found.scatter.numpy() == pytest.approx(covariance(rows, 1), rel=1e-11, abs=1e-13)
    gram = [[sum(r[a] * r[b] for r in rows) for b in range(5)] for a in range(5)]
    assert found.gram.numpy() == pytest.approx(np.array(gram), rel=1e-12)


def test_moments_far_from_the_origin_lose_nothing():
    features = draw(500, 4).double()
    near, far = measures.moments(features), measures.moments(features + 1e6)
    torch.testing.assert_close(far.scatter, near.scatter, rtol=1e-7, atol=1e-7)


def test_a_constant_dimension_has_exactly_no_scatter():
    features = torch.cat((draw(61, 2), torch.full((61, 1), 0.1)), dim=1)
    found = measures.moments(features)
    assert not found.scatter[2].any()
    assert found.mean[2] == features[0, 2].double()


@pytest.mark.parametrize("normalise", [True, False])
@CHUNKS
def test_class_moments_are_the_double_loop(sample, normalise):
    classes = by_class(rows_of(sample[0], normalise), sample[1])
    found = measures.class_moments(*sample, normalise=normalise)
    assert found.counts.tolist() == [len(rows) for rows in classes]
    assert found.means.numpy() == pytest.approx(np.array([mean_row(rows) for rows in classes]), rel=1e-12)
    spread = [sum(math.dist(row, mean_row(rows)) ** 2 for row in rows) / len(rows) for rows in classes]
    assert found.spread.tolist() == pytest.approx(spread, rel=1e-11, abs=1e-14)
    within = sum(covariance(rows, len(rows)) / 5 for rows in classes)
    assert found.within.numpy() == pytest.approx(within, rel=1e-11, abs=1e-14)
    assert measures.class_moments(*sample, scatter=False).within is None


# --- intra-class distance


def slow_intra(features, labels):
    means = []
    for rows in by_class(rows_of(features, normalise=True), labels):
        distances = [math.dist(a, b) for a, b in itertools.permutations(rows, 2)]
        if distances:
            means.append(sum(distances) / len(distances))
    return sum(means) / len(means)


@CHUNKS
def test_intra_class_distance_is_the_double_loop(sample):
    assert measures.intra_class_distance(*sample) == pytest.approx(slow_intra(*sample), rel=1e-10)


def test_intra_class_distance_of_known_directions():
    # Right angles in class 0, opposite directions in class 1: √2 and 2, whatever the lengths.
    features = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [0, 1, 1], [0, -5, -5]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    assert measures.intra_class_distance(features, labels) == pytest.approx((math.sqrt(2) + 2) / 2)


def test_intra_class_distance_of_tight_classes():
    # Distances of unit vectors taken around the origin would be rounding errors of 1e-8 here.
    features, labels = 1e-6 * draw(40, 6).double() + torch.eye(6, dtype=torch.float64)[0], torch.arange(40) % 2
    assert measures.intra_class_distance(features, labels) == pytest.approx(slow_intra(features, labels), rel=1e-7)


def test_intra_class_distance_of_equal_images_is_exactly_zero():
    features = torch.tensor([[0.1, 0.7], [0.3, 0.9]])[torch.tensor([0, 1, 0, 1, 1])]
    assert measures.intra_class_distance(features, torch.tensor([0, 1, 0, 1, 1])) == 0


def test_intra_class_distance_of_single_images_is_not_a_number():
    assert math.isnan(measures.intra_class_distance(draw(3, 2), torch.arange(3)))


# --- class separation


def cosine_distance(a, b):
    return 1 - dot(unit(a), unit(b))


def slow_separation(features, labels):
    classes = by_class(rows_of(features), labels)
    means = {
        (j, k): sum(cosine_distance(a, b) for a in classes[j] for b in classes[k]) / len(classes[j]) / len(classes[k])
        for j, k in itertools.product(range(len(classes)), repeat=2)
    }
    within, total = sum(means[k, k] for k in range(len(classes))) / len(classes), sum(means.values()) / len(means)
    return 1 - within / total, within, total


@pytest.mark.parametrize("zeros", [0, 3])
@CHUNKS
def test_class_separation_is_the_double_loop(sample, zeros):
    features, labels = sample
    features = features - 3
    features[:zeros] = 0
    found = measures.class_separation(features, labels)
    assert (found.r2, found.within, found.total) == pytest.approx(slow_separation(features, labels), rel=1e-10)


def test_class_separation_at_its_limits():
    labels = torch.tensor([0, 0, 1, 1, 1])
    points = torch.tensor([[0.1, 0.7], [0.3, -0.9]])[labels]
    assert measures.class_separation(points, labels).r2 == 1
    alike = draw(4, 3).repeat(2, 1)
    assert measures.class_separation(alike, torch.tensor([0] * 4 + [1] * 4)).r2 == pytest.approx(0, abs=1e-12)
    for features in (torch.full((5, 2), 0.1), torch.arange(1.0, 6)[:, None].double() * torch.tensor([[0.1, 0.7]])):
        assert math.isnan(measures.class_separation(features, labels).r2)


# --- neural collapse


def slow_collapse(features, labels):
    classes = by_class(rows_of(features), labels)
    within = sum(covariance(rows, len(rows)) for rows in classes) / len(classes)
    means = np.array([mean_row(rows) for rows in classes])
    between = np.cov(means.T, bias=True)
    return np.trace(within @ np.linalg.pinv(between, hermitian=True)) / len(classes)


@pytest.mark.parametrize("classes", [2, 3, 5])
@CHUNKS
def test_neural_collapse_is_its_formula(sample, classes):
    features, labels = sample[0], sample[1] % classes
    assert measures.neural_collapse(features, labels) == pytest.approx(slow_collapse(features, labels), rel=1e-9)


def test_neural_collapse_with_more_classes_than_dimensions():
    features, labels = draw(90, 3) + draw(9, 3, seed=1)[torch.arange(90) % 9], torch.arange(90) % 9
    assert measures.neural_collapse(features, labels) == pytest.approx(slow_collapse(features, labels), rel=1e-9)


def test_neural_collapse_does_not_depend_on_a_shift_and_is_quadratic_in_the_noise():
    labels = torch.arange(60) % 3
    means, noise = draw(3, 5, seed=1).double()[labels], draw(60, 5).double()
    noise -= measures.class_centres(noise, labels)[labels]
    base = measures.neural_collapse(means + 1e-3 * noise, labels)
    assert measures.neural_collapse(means + 1e-3 * noise + 5, labels) == pytest.approx(base, rel=1e-7)
    assert measures.neural_collapse(means + 1e-5 * noise, labels) == pytest.approx(1e-4 * base, rel=1e-6)


def test_neural_collapse_at_its_limits():
    labels = torch.tensor([0, 0, 1, 1])
    assert measures.neural_collapse(torch.tensor([[0.1, 0.7], [0.3, -0.9]])[labels], labels) == 0
    assert measures.neural_collapse(torch.tensor([[1.0], [2], [1], [2]]), labels) == math.inf
    assert math.isnan(measures.neural_collapse(torch.full((4, 2), 0.1), labels))
    with pytest.raises(InputError, match="labels=1: class; neural collapse needs at least two"):
        measures.neural_collapse(draw(4, 2), torch.zeros(4, dtype=torch.int64))


# --- spectrum


def slow_sigma(features, centre=False):
    rows = np.array(rows_of(features))
    return np.linalg.svd(rows - rows.mean(0) if centre else rows, compute_uv=False)


@pytest.mark.parametrize("centre", [True, False])
@CHUNKS
def test_spectrum_is_that_of_the_features(sample, centre):
    sigma = slow_sigma(sample[0], centre)
    found = measures.singular_values(sample[0], centre=centre)
    assert found.tolist() == pytest.approx((sigma / sigma[0]).tolist(), rel=1e-10)
    rank = math.exp(-sum(v * math.log(v) for v in sigma / sigma.sum()))
    assert measures.effective_rank(sample[0], centre=centre) == pytest.approx(rank, rel=1e-10)


def slow_length(features):
    rows = np.array(rows_of(features, normalise=True))
    count, width = rows.shape
    return np.linalg.slogdet(np.eye(width) + width / (count * 0.5**2) * rows.T @ rows)[1] / 2


@CHUNKS
def test_coding_length_is_its_formula(sample):
    assert measures.coding_length(sample[0]) == pytest.approx(slow_length(sample[0]), rel=1e-10)


def test_spectrum_is_not_centred_by_default(sample):
    for measure in (lambda *f, **o: measures.singular_values(*f, **o).tolist(), measures.effective_rank):
        assert measure(sample[0]) == measure(sample[0], centre=False) != measure(sample[0], centre=True)


def test_spectrum_of_fewer_rows_than_dimensions():
    features = draw(4, 9)
    sigma = slow_sigma(features)
    assert measures.singular_values(features).tolist() == pytest.approx((sigma / sigma[0]).tolist(), rel=1e-9)
    assert measures.coding_length(features) == pytest.approx(slow_length(features), rel=1e-10)


def test_spectrum_of_known_features():
    # Every axis is used alike: rank d. One direction only: rank 1. What rounding leaves of the others is 0.
    axes = torch.eye(6).repeat(5, 1)
    assert measures.singular_values(axes).tolist() == pytest.approx([1] * 6)
    assert measures.effective_rank(axes) == pytest.approx(6)
    assert measures.coding_length(axes) == pytest.approx(6 / 2 * math.log(1 + 1 / 0.5**2))
    line = torch.arange(1.0, 31)[:, None].double() * draw(1, 6).double()
    assert measures.singular_values(line)[1:].tolist() == [0] * 5
    assert measures.effective_rank(line) == pytest.approx(1, abs=1e-12)


def test_spectrum_of_constant_features():
    constant = torch.full((30, 4), 0.1)
    assert measures.effective_rank(constant) == pytest.approx(1)
    assert math.isnan(measures.effective_rank(constant, centre=True))
    assert measures.singular_values(constant, centre=True).isnan().all()
    assert measures.coding_length(torch.zeros(3, 4)) == 0


def test_moments_serve_the_spectrum_and_say_when_they_cannot(sample):
    features = sample[0]
    raw, unit_rows = measures.moments(features), measures.moments(features, normalise=True)
    assert measures.effective_rank(raw) == measures.effective_rank(features)
    assert torch.equal(measures.singular_values(raw), measures.singular_values(features))
    assert measures.coding_length(unit_rows) == measures.coding_length(features)
    assert measures.redundancy(raw) == measures.redundancy(features)
    assert measures.frechet_distance(raw, draw(9, 5)) == measures.frechet_distance(features, draw(9, 5))
    for measure, moments in [
        (measures.coding_length, raw),
        (measures.effective_rank, unit_rows),
        (measures.redundancy, unit_rows),
    ]:
        with pytest.raises(InputError, match="but the moments were taken with normalise="):
            measure(moments)


# --- sparsity


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5])
@CHUNKS
def test_sparsity_is_the_double_loop(threshold, monkeypatch):
    monkeypatch.setattr(sys.modules["studylib.measures.sparsity"], "THRESHOLD", threshold)
    features = draw(61, 7).relu()
    features[5] = 0
    shares = [sum(abs(v) <= threshold for v in row) / len(row) for row in rows_of(features)]
    assert measures.sparsity(features) == pytest.approx(sum(shares) / 61, rel=1e-12)


def test_sparsity_of_known_features():
    features = torch.tensor([[0.0, 1e-6, -1, 2], [0, 0, 0, 0]])
    assert measures.sparsity(features) == pytest.approx((2 / 4 + 1) / 2)
    assert measures.sparsity(1e6 * features) == pytest.approx((1 / 4 + 1) / 2)
    assert measures.sparsity(torch.full((3, 4), 0.1)) == 0


# --- Fréchet distance


def slow_frechet(a, b):
    a, b = rows_of(a), rows_of(b)
    first, second = (covariance(rows, len(rows) - 1) for rows in (a, b))
    # The eigenvalues of Σ_a Σ_b are those of a symmetric matrix, so their roots sum up to the trace of its root.
    cross = np.sqrt(np.linalg.eigvals(first @ second).real.clip(min=0)).sum()
    return math.dist(mean_row(a), mean_row(b)) ** 2 + np.trace(first) + np.trace(second) - 2 * cross


@CHUNKS
def test_frechet_distance_is_its_formula(sample, other):
    found = measures.frechet_distance(sample[0], other)
    assert found == pytest.approx(slow_frechet(sample[0], other), rel=1e-9)
    assert measures.frechet_distance(other, sample[0]) == pytest.approx(found, rel=1e-9)


def test_frechet_distance_of_known_features(sample):
    features = sample[0].double()
    assert measures.frechet_distance(features, features) == pytest.approx(0, abs=1e-12)
    assert measures.frechet_distance(features, features + 2) == pytest.approx(4 * 5, rel=1e-12)
    # On a line: (μ_a - μ_b)² + (σ_a - σ_b)², with variances 2 and 18.
    line = torch.tensor([[-1.0], [1]])
    assert measures.frechet_distance(line, 3 * line + 5) == pytest.approx(25 + 8)
    assert measures.frechet_distance(torch.full((5, 2), 0.1), torch.full((3, 2), 0.1)) == 0
    # Fewer rows than dimensions: covariances without full rank.
    few = draw(3, 9).double()
    assert measures.frechet_distance(few, few @ rotation(9)) == pytest.approx(slow_frechet(few, few @ rotation(9)), rel=1e-6)


def test_distances_turn_and_scale_with_the_features(sample, other):
    a, b = sample[0].double(), other.double()
    moved_a, moved_b = 3 * a @ rotation(5) + 1, 3 * b @ rotation(5) + 1
    assert measures.frechet_distance(moved_a, moved_b) == pytest.approx(9 * measures.frechet_distance(a, b), rel=1e-9)
    assert measures.squared_mmd(moved_a, moved_b) == pytest.approx(measures.squared_mmd(a, b), rel=1e-9)


def test_frechet_distance_refuses_what_it_cannot_measure():
    with pytest.raises(InputError, match="a=1: row; a covariance needs at least two"):
        measures.frechet_distance(draw(1, 2), draw(3, 2))
    with pytest.raises(InputError, match="b=1: row; a covariance needs at least two"):
        measures.frechet_distance(draw(3, 2), draw(1, 2))
    with pytest.raises(InputError, match=r"b='\(M, 3\)': must have the 2 dimensions of a"):
        measures.frechet_distance(draw(3, 2), draw(3, 3))


# --- maximum mean discrepancy


def slow_mmd(a, b):
    pool = a + b
    distances = sorted(math.dist(x, y) for x, y in itertools.combinations(pool, 2))
    bandwidth = distances[(len(distances) - 1) // 2]

    def kernel(x, y):
        return math.exp(-(math.dist(x, y) ** 2) / (2 * bandwidth**2))

    def within(rows):
        pairs = list(itertools.permutations(rows, 2))
        return sum(kernel(x, y) for x, y in pairs) / len(pairs)

    return within(a) + within(b) - 2 * sum(kernel(x, y) for x in a for y in b) / len(a) / len(b)


@CHUNKS
def test_mmd_is_the_double_loop(sample, other):
    expected = slow_mmd(rows_of(sample[0]), rows_of(other))
    assert measures.squared_mmd(sample[0], other) == pytest.approx(expected, rel=1e-9)


def test_mmd_of_all_rows_does_not_depend_on_their_order(sample, other):
    found = measures.squared_mmd(sample[0], other)
    assert measures.squared_mmd(sample[0].flip(0), other) == pytest.approx(found, rel=1e-12)


def test_mmd_of_a_sample_of_the_rows(sample, other, monkeypatch):
    whole = measures.squared_mmd(sample[0], other)
    monkeypatch.setattr(distance, "ROWS", 20)
    first = measures.squared_mmd(sample[0], other)
    assert first == measures.squared_mmd(sample[0], other) != whole
    # Over many draws, those of the rows in other orders, the unbiased value of a sample is that of all rows.
    orders = (torch.randperm(61, generator=torch.Generator().manual_seed(number)) for number in range(300))
    values = [measures.squared_mmd(sample[0][order], other[order[order < 47]]) for order in orders]
    assert abs(np.mean(values) - whole) < 4 * np.std(values) / math.sqrt(300)


@pytest.mark.slow
def test_mmd_of_the_median_of_a_sample():
    a, b = draw(900, 3), draw(800, 3, seed=1) + 1
    found = measures.squared_mmd(a, b)
    assert found == measures.squared_mmd(a, b)
    assert found == pytest.approx(measures.squared_mmd(a.flip(0), b.flip(0)), rel=0.05)


def test_mmd_of_known_features(sample):
    features = sample[0]
    assert measures.squared_mmd(features, features) < 0
    far = torch.zeros(3, 2), torch.full((3, 2), 1.0)  # most pairs are between the sets: h is their distance
    assert measures.squared_mmd(*far) == pytest.approx(2 - 2 * math.exp(-1 / 2))
    constant = torch.full((5, 2), 0.1)
    assert math.isnan(measures.squared_mmd(constant, constant))


def test_mmd_refuses_a_single_row():
    for a, b, message in ((1, 3, "a=1: row; the unbiased"), (3, 1, "b=1: row; the unbiased estimate needs at least two")):
        with pytest.raises(InputError, match=message):
            measures.squared_mmd(draw(a, 2), draw(b, 2))


def test_mmd_refuses_other_widths_and_lists():
    with pytest.raises(InputError, match=r"b='\(M, 3\)': must have the 2 dimensions of a"):
        measures.squared_mmd(draw(3, 2), draw(3, 3))
    with pytest.raises(InputError, match="features='list': must be a tensor or an array"):
        measures.squared_mmd(draw(3, 2), [draw(3, 2)])


# --- prototypes


@pytest.mark.parametrize("normalise", [True, False])
@CHUNKS
def test_prototypes_are_the_double_loop(sample, normalise):
    found = measures.prototypes(*sample, 7, normalise=normalise)
    expected = [unit([sum(c) for c in zip(*rows, strict=True)]) for rows in by_class(rows_of(sample[0], normalise), sample[1])]
    assert found[:5].numpy() == pytest.approx(np.array(expected), rel=1e-12)
    assert not found[5:].any()  # absent from the bank
    centres = measures.class_centres(*sample, normalise=normalise)
    torch.testing.assert_close(found[:5], torch.nn.functional.normalize(centres, dim=1), rtol=1e-12, atol=1e-14)


def test_prototypes_refuse_a_label_out_of_range(sample):
    with pytest.raises(InputError, match=r"labels=4: is out of range; number the classes 0 \.\.\. 3"):
        measures.prototypes(*sample, 4)


@pytest.mark.parametrize("absent", [(), (1,), (0, 3)])
def test_prototype_similarity_is_the_double_loop(absent):
    p, w = draw(5, 4), draw(5, 4, seed=1) + draw(5, 4)
    p[list(absent)] = 0
    w[4] = w[4] * (0 if absent else 1)
    cosines = {
        (c, k): 1 - cosine_distance(p[c].tolist(), w[k].tolist())
        for c, k in itertools.product(range(5), repeat=2)
        if p[c].any() and w[k].any()
    }
    matching = [v for (c, k), v in cosines.items() if c == k]
    others = [v for (c, k), v in cosines.items() if c != k]
    found = measures.prototype_similarity(p, w)
    assert found.matching == pytest.approx(sum(matching) / len(matching), rel=1e-12)
    assert found.others == pytest.approx(sum(others) / len(others), rel=1e-12)
    assert found.margin == found.matching - found.others
    moved = measures.prototype_similarity(2 * p.double() @ rotation(4), 5 * w.double() @ rotation(4))
    assert (moved.matching, moved.others) == pytest.approx((found.matching, found.others), rel=1e-9)


def test_prototype_similarity_of_known_weights():
    found = measures.prototype_similarity(torch.eye(4), 3 * torch.eye(4))
    assert (found.matching, found.others, found.margin) == (1, 0, 1)
    assert math.isnan(measures.prototype_similarity(torch.zeros(4, 4), torch.eye(4)).matching)
    assert math.isnan(measures.prototype_similarity(torch.ones(1, 4), torch.ones(1, 4)).others)


def test_prototype_similarity_refuses_what_does_not_match():
    with pytest.raises(InputError, match=r"weights=\(4, 3\): must be \(C, d\) as prototypes is \(4, 4\)"):
        measures.prototype_similarity(torch.eye(4), torch.ones(4, 3))
    with pytest.raises(InputError, match="weights: hold nan or infinite values"):
        measures.prototype_similarity(torch.eye(4), torch.full((4, 4), math.nan))


# --- modes


@pytest.fixture
def modal():
    """Features (96, 4) of two classes of three modes (sizes 8, 16, 24) each, their hidden labels, in a mixed order."""
    group = torch.arange(6).repeat_interleave(torch.tensor([8, 16, 24, 24, 16, 8]))
    group = group[torch.randperm(96, generator=torch.Generator().manual_seed(2))]
    centres = torch.linalg.qr(draw(6, 6, seed=4)).Q * 10
    return 0.1 * draw(96, 6) + centres[group], group // 3, group * 7 - 3


def entropy(counts):
    return -sum(c / sum(counts) * math.log(c / sum(counts)) for c in counts if c)


def slow_scores(points, hidden, groups):
    """NMI, ARI and silhouette of one class by counting."""
    n, names = len(points), (sorted(set(hidden)), sorted(set(groups)))
    table = [[sum(h == a and g == b for h, g in zip(hidden, groups, strict=True)) for b in names[1]] for a in names[0]]
    rows, columns = [sum(row) for row in table], [sum(column) for column in zip(*table, strict=True)]
    mutual = entropy(rows) + entropy(columns) - entropy([c for row in table for c in row])
    nmi = mutual / ((entropy(rows) + entropy(columns)) / 2)
    pairs = [sum(math.comb(c, 2) for c in counts) for counts in ([c for row in table for c in row], rows, columns)]
    chance = pairs[1] * pairs[2] / math.comb(n, 2)
    ari = (pairs[0] - chance) / ((pairs[1] + pairs[2]) / 2 - chance)
    return nmi, ari, slow_silhouette(points, groups)


def slow_silhouette(points, groups):
    scores = []
    for i, own in enumerate(groups):
        mean = {}
        for g in set(groups):
            others = [math.dist(points[i], p) for j, p in enumerate(points) if groups[j] == g and j != i]
            mean[g] = sum(others) / len(others) if others else None
        a, b = mean.pop(own), min(mean.values())
        scores.append(0 if a is None else (b - a) / max(a, b))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("clusters", ["hidden", "silhouette"])
def test_modes_are_recovered(modal, clusters):
    features, labels, hidden = modal
    found = measures.find_modes(features, labels, hidden, clusters=clusters)
    assert (found.number, found.hidden, found.classes) == (3, 3, 2)
    assert (found.nmi, found.ari) == pytest.approx((1, 1))
    order = torch.randperm(96, generator=torch.Generator().manual_seed(6))
    again = measures.find_modes(features[order], labels[order], hidden[order], clusters=clusters)
    assert again.silhouette == pytest.approx(found.silhouette, rel=1e-9)
    parts = [(features[labels == c], hidden[labels == c].tolist()) for c in (0, 1)]
    silhouette = sum(slow_silhouette(rows_of(points, normalise=True), groups) for points, groups in parts) / 2
    assert found.silhouette == pytest.approx(silhouette, rel=1e-9) == pytest.approx(found.hidden_silhouette, rel=1e-9)


def test_modes_are_scored_by_counting(sample):
    """k-means on features without modes: its clusters are found again with the same seed, and scored by loops."""
    from sklearn.cluster import KMeans

    features, labels = sample
    hidden = torch.arange(61) % 3
    found = measures.find_modes(features, labels, hidden)
    scores = []
    for c in (0, 1, 2):  # classes 3 and 4 have one image
        points = torch.nn.functional.normalize(features[labels == c].double(), dim=1).numpy()
        groups = KMeans(3, n_init=5, random_state=0).fit_predict(points)
        scores.append(slow_scores(points.tolist(), hidden[labels == c].tolist(), groups.tolist()))
    expected = np.mean(scores, axis=0).tolist()
    assert [found.nmi, found.ari, found.silhouette] == pytest.approx(expected, rel=1e-9)
    assert (found.number, found.hidden, found.classes) == (3, 3, 3)
    slow = [slow_silhouette(rows_of(features[labels == c], normalise=True), hidden[labels == c].tolist()) for c in (0, 1, 2)]
    assert found.hidden_silhouette == pytest.approx(np.mean(slow), rel=1e-5)


def test_no_more_modes_are_looked_for_than_the_largest_number(modal, monkeypatch):
    assert measures.find_modes(*modal, clusters="silhouette").number == 3
    monkeypatch.setattr("studylib.measures.modes.LARGEST", 2)
    assert measures.find_modes(*modal, clusters="silhouette").number == 2


@pytest.mark.parametrize("width", [2, 8, 64])
def test_a_single_cloud_is_one_mode(width):
    cloud = draw(60, width) + 4, torch.zeros(60, dtype=torch.int64), torch.arange(60) % 2
    one = measures.find_modes(*cloud, clusters="silhouette")
    assert (one.number, one.nmi, one.ari) == (1, 0, 0)
    assert math.isnan(one.silhouette)


def test_unrelated_clusters_share_information_by_chance_but_no_ari():
    points, classes = draw(160, 8), torch.zeros(160, dtype=torch.int64)
    found = measures.find_modes(points, classes, torch.arange(160) % 16)
    assert found.nmi > 0.2 and abs(found.ari) < 0.05


def test_modes_are_the_same_again(sample):
    first, again = (measures.find_modes(*sample, torch.arange(61) % 3) for _ in range(2))
    assert str(first) == str(again)


def test_modes_of_collapsed_classes():
    labels = torch.tensor([0] * 5 + [1] * 4)
    hidden = torch.tensor([0, 0, 1, 1, 2, 0, 0, 1, 1])
    points = torch.tensor([[0.1, 0.7], [0.3, 0.9]])[labels]
    for clusters in ("hidden", "silhouette"):
        found = measures.find_modes(points, labels, hidden, clusters=clusters)
        assert (found.number, found.hidden, found.nmi, found.ari, found.classes) == (1, 2.5, 0, 0, 2)
        assert math.isnan(found.silhouette)
    # Two different images cannot make three clusters.
    two = measures.find_modes(torch.tensor([[0.0, 1], [1, 0]])[torch.tensor([0, 0, 0, 1, 1])], labels[:5], hidden[:5])
    assert (two.number, two.hidden, two.silhouette) == (2, 3, 1)


def test_modes_of_small_classes_and_of_one_hidden_label_are_left_out():
    labels = torch.tensor([0, 0, 1, 2, 2, 2, 2, 3, 3, 3])
    hidden = torch.tensor([0, 1, 0, 5, 5, 5, 5, 0, 1, 2])
    found = measures.find_modes(draw(10, 3), labels, hidden)
    assert (found.classes, found.hidden, found.number) == (1, 3, 2)  # three images make no more than two clusters
    assert measures.find_modes(draw(10, 3), labels, hidden, clusters="silhouette").classes == 2
    none = measures.find_modes(draw(2, 3), torch.arange(2), torch.arange(2))
    assert none.classes == 0
    assert math.isnan(none.number)


def test_modes_refuse_what_they_cannot_measure(modal):
    features, labels, hidden = modal
    for given, options, message in [
        (hidden[:-1], {}, r"hidden=\(95,\): must be integers \(96,\), one per image"),
        (hidden.float(), {}, r"hidden=\(96,\): must be integers"),
        (hidden, {"clusters": "silhouete"}, "did you mean 'silhouette'"),
    ]:
        with pytest.raises(InputError, match=message):
            measures.find_modes(features, labels, given, **options)
