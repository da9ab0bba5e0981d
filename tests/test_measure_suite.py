"""The measures that stream, against double loops in float64 written from their formulas, their invariances and their limits."""

import itertools
import math

import numpy as np
import pytest
import torch

from studylib import measures
from studylib.errors import InputError

CHUNKS = [1, 8, 61, 4096]  # of 61 rows


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
STREAMED = {
    "class_separation": lambda f, y: measures.class_separation(f, y, chunk=8).r2,
    "class_separation without self": lambda f, y: measures.class_separation(f, y, include_self=False, chunk=8).r2,
    "neural_collapse": lambda f, y: measures.neural_collapse(f, y, chunk=8),
    "singular_values": lambda f, y: measures.singular_values(f, chunk=8).tolist(),
    "effective_rank": lambda f, y: measures.effective_rank(f, chunk=8),
    "coding_length": lambda f, y: measures.coding_length(f, chunk=8),
    "sparsity": lambda f, y: measures.sparsity(f, threshold=0.3, relative=True, chunk=8),
    "redundancy": lambda f, y: measures.redundancy(f, chunk=8),
    "frechet_distance": lambda f, y: measures.frechet_distance(f, draw(47, 5, seed=7), chunk=8),
    "prototypes": lambda f, y: measures.prototypes(f, y, 6, chunk=8).flatten().tolist(),
    "moments": lambda f, y: measures.moments(f, chunk=8).gram.flatten().tolist(),
}
ANY_ORDER = {
    "intra_class_distance": lambda f, y: measures.intra_class_distance(f, y, chunk=8),
    "squared_mmd": lambda f, y: measures.squared_mmd(f, draw(47, 5, seed=7), bandwidth=2.0, chunk=8),
    "find_modes": lambda f, y: measures.find_modes(f, y, clusters="silhouette").silhouette,
    "discriminative_ratio": lambda f, y: measures.discriminative_ratio(f, y, chunk=8).phi,
}
ALL = STREAMED | ANY_ORDER
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


@pytest.mark.parametrize("name", STREAMED)
def test_chunks_that_are_read_once_are_as_good_as_a_tensor(name, sample):
    features, labels = sample
    whole = pytest.approx(STREAMED[name](features, labels), rel=1e-12)
    assert STREAMED[name](iter(features.split(13)), labels) == whole
    assert STREAMED[name]([part.numpy() for part in features.split(60)], labels) == whole


@pytest.mark.parametrize("name", ANY_ORDER)
def test_chunks_are_refused_where_rows_are_needed_in_any_order(name, sample):
    with pytest.raises(InputError, match="is read once, in order; give a tensor"):
        ANY_ORDER[name](iter(sample[0].split(13)), sample[1])


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


@pytest.mark.parametrize("labels", [60, 62])
def test_a_stream_of_another_length_than_its_labels_is_refused(labels):
    with pytest.raises(InputError, match=f"labels={labels}: labels do not match the rows"):
        measures.class_separation(iter(draw(61, 5).split(13)), torch.arange(labels) % 2)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([draw(3, 5), draw(3, 4)], r"features=\(3, 4\): chunk differs in width from the 5 of those before"),
        ([], "features: has no rows"),
        ([[1.0, 2.0]], "features='list': must be a tensor"),
        (draw(3, 0), r"features=\(3, 0\): must be \(N, d\) with d > 0"),
    ],
)
def test_chunks_that_are_no_features_are_refused(features, message):
    with pytest.raises(InputError, match=message):
        measures.moments(features)


@pytest.mark.parametrize("measure", [measures.intra_class_distance, measures.class_separation])
def test_a_chunk_has_at_least_one_row(measure, sample):
    with pytest.raises(InputError, match="chunk=0: must be at least one row"):
        measure(*sample, chunk=0)
    with pytest.raises(InputError, match="chunk=0: must be at least one row"):
        measures.squared_mmd(sample[0], sample[0], chunk=0)


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
@pytest.mark.parametrize("chunk", CHUNKS)
def test_moments_are_the_double_loop(sample, normalise, chunk):
    rows = rows_of(sample[0], normalise)
    found = measures.moments(sample[0], normalise=normalise, chunk=chunk)
    assert found.count == 61
    assert found.mean.tolist() == pytest.approx(mean_row(rows), rel=1e-12)
    assert found.scatter.numpy() == pytest.approx(covariance(rows, 1), rel=1e-11, abs=1e-13)
    gram = [[sum(r[a] * r[b] for r in rows) for b in range(5)] for a in range(5)]
    assert found.gram.numpy() == pytest.approx(np.array(gram), rel=1e-12)


def test_moments_far_from_the_origin_lose_nothing():
    features = draw(500, 4).double()
    near, far = measures.moments(features, chunk=7), measures.moments(features + 1e6, chunk=7)
    torch.testing.assert_close(far.scatter, near.scatter, rtol=1e-7, atol=1e-7)


def test_a_constant_dimension_has_exactly_no_scatter():
    features = torch.cat((draw(61, 2), torch.full((61, 1), 0.1)), dim=1)
    found = measures.moments(features, chunk=7)
    assert not found.scatter[2].any()
    assert found.mean[2] == features[0, 2].double()


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_class_moments_are_the_double_loop(sample, balanced, normalise, chunk):
    classes = by_class(rows_of(sample[0], normalise), sample[1])
    found = measures.class_moments(*sample, balanced=balanced, normalise=normalise, chunk=chunk)
    assert found.counts.tolist() == [len(rows) for rows in classes]
    assert found.means.numpy() == pytest.approx(np.array([mean_row(rows) for rows in classes]), rel=1e-12)
    spread = [sum(math.dist(row, mean_row(rows)) ** 2 for row in rows) / len(rows) for rows in classes]
    assert found.spread.tolist() == pytest.approx(spread, rel=1e-11, abs=1e-14)
    within = sum(covariance(rows, len(rows)) * (1 / 5 if balanced else len(rows) / 61) for rows in classes)
    assert found.within.numpy() == pytest.approx(within, rel=1e-11, abs=1e-14)
    assert measures.class_moments(*sample, scatter=False).within is None


# --- intra-class distance


def slow_intra(features, labels, normalise, squared, include_self):
    means = []
    for rows in by_class(rows_of(features, normalise), labels):
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if include_self or i != j]
        if pairs:
            means.append(sum(math.dist(rows[i], rows[j]) ** (2 if squared else 1) for i, j in pairs) / len(pairs))
    return sum(means) / len(means)


@pytest.mark.parametrize(("normalise", "squared", "include_self"), list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("chunk", CHUNKS)
def test_intra_class_distance_is_the_double_loop(sample, normalise, squared, include_self, chunk):
    options = {"normalise": normalise, "squared": squared, "include_self": include_self}
    found = measures.intra_class_distance(*sample, **options, chunk=chunk)
    assert found == pytest.approx(slow_intra(*sample, **options), rel=1e-10)


def test_intra_class_distance_is_of_unit_vectors_not_squared_without_self_pairs(sample):
    assert measures.intra_class_distance(*sample) == pytest.approx(slow_intra(*sample, True, False, False), rel=1e-10)


def test_intra_class_distance_of_points_on_a_line():
    features = torch.tensor([[0.0], [1], [3], [10], [30]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    assert measures.intra_class_distance(features, labels, normalise=False) == pytest.approx((2 + 20) / 2)


def test_intra_class_distance_of_tight_classes_far_away():
    # Product-form distances around the origin would be rounding errors of 1e4² = 1e8 here.
    features, labels = 1e-4 * draw(40, 6).double(), torch.arange(40) % 2
    near = measures.intra_class_distance(features, labels, normalise=False)
    assert measures.intra_class_distance(features + 1e4, labels, normalise=False) == pytest.approx(near, rel=1e-7)


def test_intra_class_distance_of_equal_images_is_exactly_zero():
    features = torch.tensor([[0.1, 0.7], [0.3, 0.9]])[torch.tensor([0, 1, 0, 1, 1])]
    for normalise in (True, False):
        assert measures.intra_class_distance(features, torch.tensor([0, 1, 0, 1, 1]), normalise=normalise, chunk=2) == 0


def test_intra_class_distance_of_single_images():
    assert math.isnan(measures.intra_class_distance(draw(3, 2), torch.arange(3)))
    assert measures.intra_class_distance(draw(3, 2), torch.arange(3), include_self=True) == 0


# --- class separation


def cosine_distance(a, b):
    return 1 - dot(unit(a), unit(b))


def slow_separation(features, labels, include_self, balanced):
    """Sums and numbers of pairs of each two classes, then the means."""
    classes = by_class(rows_of(features), labels)
    found = {}
    for j, k in itertools.product(range(len(classes)), repeat=2):
        pairs = [
            cosine_distance(a, b)
            for (s, a), (t, b) in itertools.product(enumerate(classes[j]), enumerate(classes[k]))
            if include_self or (j, s) != (k, t)
        ]
        if pairs:
            found[j, k] = pairs

    def mean(keys):
        if balanced:
            return sum(sum(found[key]) / len(found[key]) for key in keys) / len(keys)
        return sum(sum(found[key]) for key in keys) / sum(len(found[key]) for key in keys)

    within, total = mean([key for key in found if key[0] == key[1]]), mean(list(found))
    return 1 - within / total, within, total


@pytest.mark.parametrize(("include_self", "balanced"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("zeros", [0, 3])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_class_separation_is_the_double_loop(sample, include_self, balanced, zeros, chunk):
    features, labels = sample
    features = features - 3
    features[:zeros] = 0
    found = measures.class_separation(features, labels, include_self=include_self, balanced=balanced, chunk=chunk)
    expected = slow_separation(features, labels, include_self, balanced)
    assert (found.r2, found.within, found.total) == pytest.approx(expected, rel=1e-10)


def test_class_separation_is_kornbliths_by_default(sample):
    assert measures.class_separation(*sample).r2 == pytest.approx(slow_separation(*sample, True, True)[0], rel=1e-10)


def test_class_separation_at_its_limits():
    labels = torch.tensor([0, 0, 1, 1, 1])
    points = torch.tensor([[0.1, 0.7], [0.3, -0.9]])[labels]
    assert measures.class_separation(points, labels).r2 == 1
    alike = draw(4, 3).repeat(2, 1)
    assert measures.class_separation(alike, torch.tensor([0] * 4 + [1] * 4)).r2 == pytest.approx(0, abs=1e-12)
    for features in (torch.full((5, 2), 0.1), torch.arange(1.0, 6)[:, None].double() * torch.tensor([[0.1, 0.7]])):
        assert math.isnan(measures.class_separation(features, labels).r2)
        assert math.isnan(measures.class_separation(features, labels, include_self=False).r2)
    assert math.isnan(measures.class_separation(draw(3, 2), torch.arange(3), include_self=False).within)


# --- neural collapse


def slow_collapse(features, labels, balanced):
    classes = by_class(rows_of(features), labels)
    share = [1 / len(classes) if balanced else len(rows) / len(labels) for rows in classes]
    within = sum(w * covariance(rows, len(rows)) for w, rows in zip(share, classes, strict=True))
    means = np.array([mean_row(rows) for rows in classes])
    centre = sum(w * mean for w, mean in zip(share, means, strict=True))
    between = sum(w * np.outer(mean - centre, mean - centre) for w, mean in zip(share, means, strict=True))
    return np.trace(within @ np.linalg.pinv(between, hermitian=True)) / len(classes)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_neural_collapse_is_its_formula(sample, balanced, classes, chunk):
    features, labels = sample[0], sample[1] % classes
    found = measures.neural_collapse(features, labels, balanced=balanced, chunk=chunk)
    assert found == pytest.approx(slow_collapse(features, labels, balanced), rel=1e-9)


def test_neural_collapse_with_more_classes_than_dimensions():
    features, labels = draw(90, 3) + draw(9, 3, seed=1)[torch.arange(90) % 9], torch.arange(90) % 9
    assert measures.neural_collapse(features, labels) == pytest.approx(slow_collapse(features, labels, True), rel=1e-9)
    assert measures.neural_collapse(features, labels, balanced=False) == pytest.approx(
        measures.neural_collapse(features, labels), rel=1e-12
    )


def test_neural_collapse_counts_directions_between_means_that_are_large_enough():
    # Means 0, (2, 0), (0, 0.02) and noise of variance 1 in both dimensions: S_B has a small eigenvalue that rtol drops.
    noise = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    means = torch.tensor([[0.0, 0], [2, 0], [0, 0.02]])
    features = (means[:, None] + noise).flatten(0, 1)
    labels = torch.arange(3).repeat_interleave(4)
    assert measures.neural_collapse(features, labels) > 1000
    between = torch.cov(means.double().T, correction=0)
    top = float(torch.linalg.eigvalsh(between)[-1])
    assert measures.neural_collapse(features, labels, rtol=0.01) == pytest.approx(1 / top / 3, rel=1e-6)


def test_neural_collapse_does_not_depend_on_a_shift_and_is_quadratic_in_the_noise():
    labels = torch.arange(60) % 3
    means, noise = draw(3, 5, seed=1).double()[labels], draw(60, 5).double()
    noise -= measures.class_centres(noise, labels)[labels]
    base = measures.neural_collapse(means + 1e-3 * noise, labels)
    assert measures.neural_collapse(means + 1e-3 * noise + 5, labels) == pytest.approx(base, rel=1e-7)
    assert measures.neural_collapse(means + 1e-5 * noise, labels) == pytest.approx(1e-4 * base, rel=1e-6)


def test_neural_collapse_at_its_limits():
    labels = torch.tensor([0, 0, 1, 1])
    assert measures.neural_collapse(torch.tensor([[0.1, 0.7], [0.3, -0.9]])[labels], labels, chunk=3) == 0
    assert measures.neural_collapse(torch.tensor([[1.0], [2], [1], [2]]), labels) == math.inf
    assert math.isnan(measures.neural_collapse(torch.full((4, 2), 0.1), labels, chunk=3))
    with pytest.raises(InputError, match="labels=1: class; neural collapse needs at least two"):
        measures.neural_collapse(draw(4, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(InputError, match=r"rtol=1: must be in \[0, 1\)"):
        measures.neural_collapse(draw(4, 2), labels, rtol=1)


# --- spectrum


def slow_sigma(features, normalise, centre):
    rows = np.array(rows_of(features, normalise))
    return np.linalg.svd(rows - rows.mean(0) if centre else rows, compute_uv=False)


@pytest.mark.parametrize(("normalise", "centre"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("chunk", CHUNKS)
def test_spectrum_is_that_of_the_features(sample, normalise, centre, chunk):
    options = {"normalise": normalise, "centre": centre}
    sigma = slow_sigma(sample[0], **options)
    for scale, by in (("largest", sigma[0]), ("sum", sigma.sum()), ("none", 1)):
        found = measures.singular_values(sample[0], scale=scale, **options, chunk=chunk)
        assert found.tolist() == pytest.approx((sigma / by).tolist(), rel=1e-10)
    for squared in (True, False):
        p = sigma ** (2 if squared else 1) / (sigma ** (2 if squared else 1)).sum()
        rank = math.exp(-sum(v * math.log(v) for v in p))
        assert measures.effective_rank(sample[0], squared=squared, **options, chunk=chunk) == pytest.approx(rank, rel=1e-10)
    for eps in (0.1, 0.5, 3.0):
        rows = np.array(rows_of(sample[0], normalise))
        rows = rows - rows.mean(0) if centre else rows
        rate = np.linalg.slogdet(np.eye(5) + 5 / (61 * eps**2) * rows.T @ rows)[1] / 2
        found = measures.coding_length(sample[0], eps=eps, **options, chunk=chunk)
        assert found == pytest.approx(rate, rel=1e-10)
        whole = measures.coding_length(sample[0], eps=eps, total=True, **options, chunk=chunk)
        assert whole == pytest.approx(66 * rate, rel=1e-10)


def test_spectrum_defaults(sample):
    features = sample[0]
    assert measures.singular_values(features).tolist() == pytest.approx(
        (slow_sigma(features, False, False) / slow_sigma(features, False, False)[0]).tolist(), rel=1e-10
    )
    assert measures.effective_rank(features) == measures.effective_rank(features, squared=False, normalise=False, centre=False)
    assert measures.coding_length(features) == measures.coding_length(features, eps=0.5, normalise=True, centre=False)


def test_spectrum_of_fewer_rows_than_dimensions():
    features = draw(4, 9)
    sigma = slow_sigma(features, False, False)
    assert measures.singular_values(features, scale="none").tolist() == pytest.approx(sigma.tolist(), rel=1e-9)
    rate = np.linalg.slogdet(np.eye(4) + 9 / 4 / 0.25 * np.array(rows_of(features)) @ np.array(rows_of(features)).T)[1] / 2
    assert measures.coding_length(features, normalise=False) == pytest.approx(rate, rel=1e-10)


def test_spectrum_of_known_features():
    # Every axis is used alike: rank d. One direction only: rank 1. What rounding leaves of the others is 0.
    axes = torch.eye(6).repeat(5, 1)
    assert measures.singular_values(axes).tolist() == pytest.approx([1] * 6)
    assert measures.effective_rank(axes) == pytest.approx(6)
    assert measures.coding_length(axes, eps=1.0) == pytest.approx(6 / 2 * math.log(2))
    line = torch.arange(1.0, 31)[:, None].double() * draw(1, 6).double()
    assert measures.singular_values(line)[1:].tolist() == [0] * 5
    assert measures.effective_rank(line) == pytest.approx(1, abs=1e-12)


def test_spectrum_of_constant_features():
    constant = torch.full((30, 4), 0.1)
    assert measures.effective_rank(constant) == pytest.approx(1)
    assert math.isnan(measures.effective_rank(constant, centre=True))
    assert measures.singular_values(constant, centre=True).isnan().all()
    assert measures.singular_values(constant, centre=True, scale="none").tolist() == [0] * 4
    assert measures.coding_length(constant, centre=True) == 0
    assert measures.coding_length(torch.zeros(3, 4)) == 0


def test_moments_serve_the_spectrum_and_say_when_they_cannot(sample):
    features = sample[0]
    raw, unit_rows = measures.moments(features), measures.moments(features, normalise=True)
    assert measures.effective_rank(raw) == measures.effective_rank(features)
    assert torch.equal(measures.singular_values(unit_rows, normalise=True), measures.singular_values(features, normalise=True))
    assert measures.coding_length(unit_rows) == measures.coding_length(features)
    assert measures.redundancy(raw) == measures.redundancy(features)
    assert measures.frechet_distance(raw, draw(9, 5)) == measures.frechet_distance(features, draw(9, 5))
    for measure, seen in [
        (measures.coding_length, raw),
        (measures.effective_rank, unit_rows),
        (measures.redundancy, unit_rows),
    ]:
        with pytest.raises(InputError, match="but the moments were taken with normalise="):
            measure(seen)


def test_spectrum_refuses_options_it_does_not_know():
    with pytest.raises(InputError, match="scale='larges': unknown; did you mean 'largest'"):
        measures.singular_values(draw(4, 2), scale="larges")
    for eps in (0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="eps=.*: must be positive and finite"):
            measures.coding_length(draw(4, 2), eps=eps)


# --- sparsity


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_sparsity_is_the_double_loop(relative, normalise, threshold, chunk):
    features = draw(61, 7).relu()
    features[5] = 0
    shares = []
    for row in rows_of(features, normalise):
        bound = threshold * max(abs(v) for v in row) if relative else threshold
        shares.append(sum(abs(v) <= bound for v in row) / len(row))
    found = measures.sparsity(features, threshold=threshold, relative=relative, normalise=normalise, chunk=chunk)
    assert found == pytest.approx(sum(shares) / 61, rel=1e-12)


def test_sparsity_of_known_features():
    features = torch.tensor([[0.0, 1e-6, -1, 2], [0, 0, 0, 0]])
    assert measures.sparsity(features) == pytest.approx((2 / 4 + 1) / 2)
    assert measures.sparsity(features, threshold=0) == pytest.approx((1 / 4 + 1) / 2)
    assert measures.sparsity(features, threshold=0.5, relative=True) == pytest.approx((3 / 4 + 1) / 2)
    assert measures.sparsity(1e6 * features, threshold=0.5, relative=True) == pytest.approx((3 / 4 + 1) / 2)
    assert measures.sparsity(torch.full((3, 4), 0.1)) == 0


@pytest.mark.parametrize(("threshold", "relative"), [(-1e-9, False), (math.inf, False), (math.nan, False), (1.0, True)])
def test_sparsity_refuses_thresholds_without_meaning(threshold, relative):
    with pytest.raises(InputError, match="threshold=.*: must be 0 or more"):
        measures.sparsity(draw(4, 2), threshold=threshold, relative=relative)


# --- Fréchet distance


def slow_frechet(a, b, normalise, unbiased):
    a, b = rows_of(a, normalise), rows_of(b, normalise)
    first, second = (covariance(rows, len(rows) - unbiased) for rows in (a, b))
    # The eigenvalues of Σ_a Σ_b are those of a symmetric matrix, so their roots sum up to the trace of its root.
    cross = np.sqrt(np.linalg.eigvals(first @ second).real.clip(min=0)).sum()
    return math.dist(mean_row(a), mean_row(b)) ** 2 + np.trace(first) + np.trace(second) - 2 * cross


@pytest.mark.parametrize(("normalise", "unbiased"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("chunk", CHUNKS)
def test_frechet_distance_is_its_formula(sample, other, normalise, unbiased, chunk):
    options = {"normalise": normalise, "unbiased": unbiased}
    found = measures.frechet_distance(sample[0], other, **options, chunk=chunk)
    assert found == pytest.approx(slow_frechet(sample[0], other, **options), rel=1e-9)
    assert measures.frechet_distance(other, sample[0], **options) == pytest.approx(found, rel=1e-9)


def test_frechet_distance_of_known_features(sample):
    features = sample[0].double()
    assert measures.frechet_distance(features, features) == pytest.approx(0, abs=1e-12)
    assert measures.frechet_distance(features, features + 2) == pytest.approx(4 * 5, rel=1e-12)
    # On a line: (μ_a - μ_b)² + (σ_a - σ_b)².
    line = torch.tensor([[-1.0], [1]])
    assert measures.frechet_distance(line, 3 * line + 5, unbiased=False) == pytest.approx(25 + 4)
    assert measures.frechet_distance(torch.full((5, 2), 0.1), torch.full((3, 2), 0.1)) == 0
    # Fewer rows than dimensions: covariances without full rank.
    few = draw(3, 9).double()
    assert measures.frechet_distance(few, few @ rotation(9)) == pytest.approx(
        slow_frechet(few, few @ rotation(9), False, True), rel=1e-6
    )


def test_distances_turn_and_scale_with_the_features(sample, other):
    a, b = sample[0].double(), other.double()
    moved_a, moved_b = 3 * a @ rotation(5) + 1, 3 * b @ rotation(5) + 1
    assert measures.frechet_distance(moved_a, moved_b) == pytest.approx(9 * measures.frechet_distance(a, b), rel=1e-9)
    assert measures.squared_mmd(moved_a, moved_b) == pytest.approx(measures.squared_mmd(a, b), rel=1e-9)
    assert measures.squared_mmd(a, b, bandwidth=2.0) == pytest.approx(
        measures.squared_mmd(moved_a, moved_b, bandwidth=6.0), rel=1e-9
    )


def test_frechet_distance_refuses_what_it_cannot_measure():
    with pytest.raises(InputError, match="a=1: row; a covariance needs at least two"):
        measures.frechet_distance(draw(1, 2), draw(3, 2))
    with pytest.raises(InputError, match="b=1: row; a covariance needs at least two"):
        measures.frechet_distance(draw(3, 2), draw(1, 2))
    with pytest.raises(InputError, match=r"b='\(M, 3\)': must have the 2 dimensions of a"):
        measures.frechet_distance(draw(3, 2), draw(3, 3))


# --- maximum mean discrepancy


def slow_mmd(a, b, bandwidth, unbiased):
    def kernel(x, y):
        return math.exp(-(math.dist(x, y) ** 2) / (2 * bandwidth**2))

    def own(rows):
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if not unbiased or i != j]
        return sum(kernel(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    return own(a) + own(b) - 2 * sum(kernel(x, y) for x in a for y in b) / len(a) / len(b)


@pytest.mark.parametrize(("normalise", "unbiased"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("chunk", CHUNKS)
def test_mmd_is_the_double_loop(sample, other, normalise, unbiased, chunk):
    a, b = rows_of(sample[0], normalise), rows_of(other, normalise)
    options = {"normalise": normalise, "unbiased": unbiased, "chunk": chunk}
    pool = a + b
    distances = sorted(math.dist(pool[i], pool[j]) for i in range(len(pool)) for j in range(i))
    median = distances[(len(distances) - 1) // 2]
    assert measures.squared_mmd(sample[0], other, **options) == pytest.approx(slow_mmd(a, b, median, unbiased), rel=1e-9)
    found = measures.squared_mmd(sample[0], other, bandwidth=0.7, **options)
    assert found == pytest.approx(slow_mmd(a, b, 0.7, unbiased), rel=1e-9)


def test_mmd_of_a_sample_of_the_rows(sample, other):
    options = {"bandwidth": 2.0, "rows": 20}
    first = measures.squared_mmd(sample[0], other, **options, seed=1)
    assert first == measures.squared_mmd(sample[0], other, **options, seed=1)
    assert first != measures.squared_mmd(sample[0], other, **options, seed=2)
    # All rows: the same in any order.
    assert measures.squared_mmd(sample[0].flip(0), other, bandwidth=2.0, rows=None, seed=1) == pytest.approx(
        measures.squared_mmd(sample[0], other, bandwidth=2.0, rows=1000, seed=2), rel=1e-12
    )
    # Over many draws the unbiased value of a sample is that of all rows.
    values = [measures.squared_mmd(sample[0], other, **options, seed=seed) for seed in range(300)]
    error = np.std(values) / math.sqrt(300)
    assert abs(np.mean(values) - measures.squared_mmd(sample[0], other, bandwidth=2.0)) < 4 * error


def test_mmd_of_the_median_of_a_seeded_sample():
    a, b = draw(900, 3), draw(800, 3, seed=1) + 1
    assert measures.squared_mmd(a, b, seed=3) == measures.squared_mmd(a, b, seed=3)
    assert measures.squared_mmd(a, b, seed=3) == pytest.approx(measures.squared_mmd(a, b, seed=4), rel=0.05)


def test_mmd_of_known_features(sample):
    features = sample[0]
    assert measures.squared_mmd(features, features, unbiased=False) == pytest.approx(0, abs=1e-14)
    assert measures.squared_mmd(features, features) < 0
    assert measures.squared_mmd(features, features + 1e3, bandwidth=1e-2, unbiased=False) == pytest.approx(2 / 61)
    assert measures.squared_mmd(draw(4, 2)[:1], draw(1, 2, seed=1) + 1e3, bandwidth=1.0, unbiased=False) == 2
    constant = torch.full((5, 2), 0.1)
    assert math.isnan(measures.squared_mmd(constant, constant))
    assert measures.squared_mmd(constant, constant, bandwidth=1.0) == 0
    assert math.isnan(measures.squared_mmd(draw(1, 2), draw(1, 2), unbiased=False))


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (1, 3, {}, "a=1: row; the unbiased estimate needs at least two"),
        (3, 1, {}, "b=1: row; the unbiased estimate needs at least two"),
        (3, 3, {"bandwidth": 0.0}, "bandwidth=0.0: must be positive and finite"),
        (3, 3, {"bandwidth": math.nan}, "bandwidth=nan: must be positive and finite"),
        (3, 3, {"rows": 1}, "rows=1: must be at least 2, or None for all"),
    ],
)
def test_mmd_refuses_what_it_cannot_measure(a, b, options, message):
    with pytest.raises(InputError, match=message):
        measures.squared_mmd(draw(a, 2), draw(b, 2), **options)


def test_mmd_refuses_other_widths_and_streams():
    with pytest.raises(InputError, match=r"b='\(M, 3\)': must have the 2 dimensions of a"):
        measures.squared_mmd(draw(3, 2), draw(3, 3))
    with pytest.raises(InputError, match="features='list': is read once, in order"):
        measures.squared_mmd(draw(3, 2), [draw(3, 2)])


# --- prototypes


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_prototypes_are_the_double_loop(sample, normalise, chunk):
    found = measures.prototypes(*sample, 7, normalise=normalise, chunk=chunk)
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
@pytest.mark.parametrize("normalise", [True, False])
def test_modes_are_recovered(modal, clusters, normalise):
    features, labels, hidden = modal
    found = measures.find_modes(features, labels, hidden, clusters=clusters, normalise=normalise)
    assert (found.number, found.hidden, found.classes) == (3, 3, 2)
    assert (found.nmi, found.ari) == pytest.approx((1, 1))
    order = torch.randperm(96, generator=torch.Generator().manual_seed(6))
    again = measures.find_modes(features[order], labels[order], hidden[order], clusters=clusters, normalise=normalise)
    assert again.silhouette == pytest.approx(found.silhouette, rel=1e-9)
    parts = [(features[labels == c], hidden[labels == c].tolist()) for c in (0, 1)]
    silhouette = sum(slow_silhouette(rows_of(points, normalise), groups) for points, groups in parts) / 2
    assert found.silhouette == pytest.approx(silhouette, rel=1e-9) == pytest.approx(found.hidden_silhouette, rel=1e-9)


def test_modes_are_scored_by_counting(sample):
    """k-means on features without modes: its clusters are found again with the same seed, and scored by loops."""
    from sklearn.cluster import KMeans

    features, labels = sample
    hidden = torch.arange(61) % 3
    found = measures.find_modes(features, labels, hidden, normalise=False, seed=4, starts=2)
    scores = []
    for c in (0, 1, 2):  # classes 3 and 4 have one image
        points = features[labels == c].double().numpy()
        groups = KMeans(3, n_init=2, random_state=4).fit_predict(points)
        scores.append(slow_scores(points.tolist(), hidden[labels == c].tolist(), groups.tolist()))
    expected = np.mean(scores, axis=0).tolist()
    assert [found.nmi, found.ari, found.silhouette] == pytest.approx(expected, rel=1e-9)
    assert (found.number, found.hidden, found.classes) == (3, 3, 3)
    slow = [slow_silhouette(features[labels == c].tolist(), hidden[labels == c].tolist()) for c in (0, 1, 2)]
    assert found.hidden_silhouette == pytest.approx(np.mean(slow), rel=1e-5)


def test_modes_without_hidden_labels(modal):
    found = measures.find_modes(modal[0], modal[1], clusters="silhouette")
    assert found.number == 3
    assert found.silhouette == measures.find_modes(*modal, clusters="silhouette").silhouette
    assert all(math.isnan(v) for v in (found.nmi, found.ari, found.hidden, found.hidden_silhouette))
    assert measures.find_modes(modal[0], modal[1], clusters="silhouette", largest=2).number == 2


def test_modes_of_a_single_cloud_are_one_only_if_asked():
    features, labels = draw(40, 6), torch.zeros(40, dtype=torch.int64)
    options = {"clusters": "silhouette", "normalise": False}
    assert measures.find_modes(features, labels, **options).number > 1
    one = measures.find_modes(features, labels, torch.arange(40) % 2, one_below=0.5, **options)
    assert (one.number, one.nmi, one.ari) == (1, 0, 0)
    assert math.isnan(one.silhouette)


def test_modes_are_the_same_with_the_same_seed(sample):
    first, again = (measures.find_modes(*sample, torch.arange(61) % 3, seed=1) for _ in range(2))
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
    for options, message in [
        ({}, "hidden: is needed to give the number of clusters"),
        ({"hidden": hidden[:-1]}, r"hidden=\(95,\): must be integers \(96,\), one per image"),
        ({"hidden": hidden.float()}, r"hidden=\(96,\): must be integers"),
        ({"hidden": hidden, "clusters": "silhouete"}, "did you mean 'silhouette'"),
        ({"hidden": hidden, "largest": 1}, "largest=1: is too few"),
        ({"hidden": hidden, "starts": 0}, "starts=0: is too few"),
    ]:
        with pytest.raises(InputError, match=message):
            measures.find_modes(features, labels, **options)
