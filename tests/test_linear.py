"""The linear probe against scikit-learn, slow loops and the choices it must not make."""

import dataclasses
import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from studylib.data.splits import stratified_split
from studylib.errors import InputError
from studylib.transfer import LinearProbe, fit_path, linear, linear_probe
from studylib.transfer.accuracy import mean_per_class, top1

GRID = LinearProbe().grid()


def draw(rows, width, classes, noise, seed=0):
    """A mixture with a class per component and a decaying spectrum, rectified."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    spread = torch.arange(1, width + 1) ** -0.5
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    noisy = torch.randn(classes, width, generator=generator)[labels] + noise * torch.randn(rows, width, generator=generator)
    return torch.relu(noisy * spread @ rotation + 0.3), labels


def slow_objective(features, labels, weights, bias, C):
    """F by loops over images and classes, in Python floats; weights (d, M) of the classes that are present."""
    total = 0.0
    weights, bias = weights.double().tolist(), bias.double().tolist()
    for x, y in zip(features.double().tolist(), labels.tolist(), strict=True):
        logits = [b + sum(a * w[c] for a, w in zip(x, weights, strict=True)) for c, b in enumerate(bias)]
        top = max(logits)
        total += top + math.log(sum(math.exp(z - top) for z in logits)) - logits[y]
    return C * total + 0.5 * sum(w * w for row in weights for w in row)


def objective(features, labels, weights, bias, C):
    loss = torch.nn.functional.cross_entropy(features.double() @ weights.double() + bias.double(), labels, reduction="sum")
    return C * float(loss) + 0.5 * float(weights.double().square().sum())


def reference(features, labels, C):
    """scikit-learn's weights (d, M) and bias (M,), converged as far as float64 allows."""
    model = LogisticRegression(C=C, tol=1e-12, max_iter=100_000).fit(features.double().numpy(), labels.numpy())
    return torch.tensor(model.coef_.T), torch.tensor(model.intercept_)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_objective_is_what_is_reported(dtype):
    features, labels = draw(47, 6, 3, 2.0)
    path = fit_path(features.to(dtype), labels, GRID, 3)
    for number, C in enumerate(GRID.tolist()):
        slow = slow_objective(features, labels, path.weights[number], path.bias[number], C)
        assert float(path.objective[number]) == pytest.approx(slow, rel=1e-5)
        assert objective(features, labels, path.weights[number], path.bias[number], C) == pytest.approx(slow, rel=1e-9)
    assert path.converged.all()


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.5, 1.5, 3.0])  # separable, nearly, and not at all
def test_objective_and_predictions_are_scikit_learns_at_every_C(noise):
    features, labels = draw(300, 20, 7, noise)
    path = fit_path(features, labels, GRID, 7)
    exact = fit_path(features.double(), labels, GRID, 7, tolerance=1e-10).predict(features.double())
    for number, C in enumerate(GRID.tolist()):
        weights, bias = reference(features, labels, C)
        best = objective(features, labels, weights, bias, C)
        assert objective(features, labels, path.weights[number], path.bias[number], C) == pytest.approx(best, rel=1e-4)
        theirs = (features.double() @ weights + bias).argmax(1)
        # At the smallest C all logits are equal but for the sixth digit, where scikit-learn stops.
        assert (exact[number] == theirs).double().mean() == 1 or (number == 0 and C < 1e-4)
    assert path.converged.all()


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
def test_scale_and_offset_of_features_do_not_hurt(offset, scale):
    features, labels = draw(200, 10, 4, 2.0)
    features = (scale * (features + offset)).double()
    path = fit_path(features, labels, GRID[4:16:3], 4)
    for number, C in enumerate(GRID[4:16:3].tolist()):
        # The intercept is free, so scikit-learn may solve the centred problem, which is easier for it.
        best = objective(features - features.mean(0), labels, *reference(features - features.mean(0), labels, C), C)
        assert objective(features, labels, path.weights[number], path.bias[number], C) == pytest.approx(best, rel=1e-4)


def test_two_classes_are_scikit_learns_binary_regression():
    features, labels = draw(101, 8, 2, 3.0)
    path = fit_path(features, labels, GRID, 2)
    for number, C in enumerate(GRID.tolist()):
        weights, bias = (values.flatten() for values in reference(features, labels, C))
        logits = features.double() @ weights + bias
        binary = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.double(), reduction="sum")
        best = C * float(binary) + 0.5 * float(weights.square().sum())
        assert float(path.objective[number]) == pytest.approx(best, rel=1e-4)
        difference = path.weights[number].double() @ torch.tensor([-1.0, 1.0], dtype=torch.float64)
        torch.testing.assert_close(difference, weights, rtol=0.05, atol=0.05 * float(weights.norm()))


def test_fewer_images_than_dimensions():
    features, labels = draw(31, 80, 5, 1.0)
    path = fit_path(features, labels, GRID, 5)
    assert path.converged.all()
    for number, C in enumerate(GRID.tolist()):
        best = objective(features, labels, *reference(features, labels, C), C)
        assert objective(features, labels, path.weights[number], path.bias[number], C) == pytest.approx(best, rel=1e-4)


def test_an_absent_class_is_never_predicted_and_changes_nothing_else():
    features, labels = draw(90, 6, 3, 1.0)
    spread = torch.tensor([0, 2, 4])[labels]
    path, packed = fit_path(features, spread, GRID, 6), fit_path(features, labels, GRID, 3)
    assert torch.equal(path.weights[:, :, [0, 2, 4]], packed.weights)
    assert torch.equal(path.objective, packed.objective)
    assert path.bias[:, [1, 3, 5]].eq(-torch.inf).all()
    assert set(path.predict(torch.randn(200, 6) * 10).unique().tolist()) <= {0, 2, 4}


def test_constant_features_give_the_shares_of_the_classes():
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    path = fit_path(torch.full((10, 4), 0.1), labels, GRID, 3)
    assert path.converged.all()
    assert path.weights.abs().max() < 1e-6
    probability = (path.weights.sum(1) * 0.1 + path.bias).softmax(1)
    torch.testing.assert_close(probability, torch.tensor([0.5, 0.3, 0.2]).expand(len(GRID), 3), atol=1e-3, rtol=0)


def test_a_dead_dimension_and_a_copied_one():
    features, labels = draw(120, 5, 3, 2.0)
    padded = torch.cat((features, features[:, :1], torch.full((120, 1), 3.0)), dim=1)
    path = fit_path(padded, labels, GRID, 3)
    for number, C in enumerate(GRID.tolist()):
        best = objective(padded, labels, *reference(padded, labels, C), C)
        assert objective(padded, labels, path.weights[number], path.bias[number], C) == pytest.approx(best, rel=1e-4)


def test_what_does_not_converge_says_so():
    features, labels = draw(300, 20, 7, 3.0)
    path = fit_path(features, labels, GRID, 7, max_iterations=3)
    assert path.iterations.max() == 3
    assert not path.converged[-1]
    assert path.converged[0]
    assert path.objective.isfinite().all()
    short = linear_probe(features, labels, features, labels, 7, LinearProbe(max_iterations=3))
    assert not short.converged


def test_huge_C_on_separable_data_ends():
    features, labels = draw(60, 10, 3, 0.1)
    grid = torch.tensor([1.0, 1e12], dtype=torch.float64)
    path = fit_path(features, labels, grid, 3, max_iterations=50)
    assert path.iterations.max() <= 50
    assert path.weights.isfinite().all()
    assert (path.predict(features) == labels).all()


def test_any_ascending_grid():
    features, labels = draw(300, 20, 7, 1.5)
    grid = torch.tensor([1e-3, 1e-2, 10.0, 11.0, 1e4])
    path = fit_path(features, labels, grid, 7)
    for number in range(len(grid)):
        single = fit_path(features, labels, grid[number : number + 1], 7)
        assert float(path.objective[number]) == pytest.approx(float(single.objective[0]), rel=1e-4)


# --- the probe


@pytest.fixture
def problem():
    features, labels = draw(330, 12, 6, 2.0)
    order = torch.randperm(330, generator=torch.Generator().manual_seed(5))
    features, labels = features[order], labels[order]
    return features[:230], labels[:230], features[230:], labels[230:], 6


@pytest.mark.parametrize("normalise", ["none", "l2"])
def test_the_probe_is_the_slow_procedure(problem, normalise):
    train, train_labels, test, test_labels, _ = problem
    protocol = LinearProbe(
        values=6, C_low=1e-3, C_high=1e3, normalise=normalise, split_seed=4, patience=0, search_tolerance=1e-9
    )

    def prepared(seen, other):
        if normalise == "l2":
            return seen / seen.norm(dim=1, keepdim=True), other / other.norm(dim=1, keepdim=True)
        return seen, other

    fit, held_out = stratified_split(train_labels, 0.2, 4)
    seen, unseen = prepared(train[fit], train[held_out])
    losses, scores = [], []
    for C in protocol.grid().tolist():
        weights, bias = reference(seen, train_labels[fit], C)
        logits = unseen.double() @ weights + bias
        losses.append(slow_objective(unseen, train_labels[held_out], weights, bias, 1.0) - 0.5 * float(weights.square().sum()))
        scores.append(100 * float((logits.argmax(1) == train_labels[held_out]).double().mean()))
    found = linear_probe(*problem, protocol)
    assert [C for C, *_ in found.validation] == pytest.approx(protocol.grid().tolist())
    assert [loss * len(held_out) for _, loss, _ in found.validation] == pytest.approx(losses, rel=1e-3)
    assert [score for *_, score in found.validation] == pytest.approx(scores)
    assert pytest.approx(protocol.grid()[losses.index(min(losses))].item()) == found.C
    seen, unseen = prepared(train, test)
    weights, bias = reference(seen, train_labels, found.C)
    right = ((unseen.double() @ weights + bias).argmax(1) == test_labels).double()
    assert found.top1 == pytest.approx(100 * float(right.mean()))
    per_class = [float(right[test_labels == c].mean()) for c in range(6)]
    assert found.mean_per_class == pytest.approx(100 * sum(per_class) / 6)
    assert found.converged


def test_the_choice_never_sees_the_test_images(problem):
    train, train_labels, test, test_labels, classes = problem
    protocol = LinearProbe(normalise="l2")
    before = linear_probe(*problem, protocol)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(1))
    permuted = linear_probe(train, train_labels, test, test_labels[order], classes, protocol)
    other = linear_probe(train, train_labels, 100 * torch.randn_like(test), test_labels, classes, protocol)
    assert (before.C, before.validation) == (permuted.C, permuted.validation) == (other.C, other.validation)
    assert permuted.top1 < before.top1


def test_the_best_at_an_end_of_the_grid_is_told():
    # These are separable, so that the likelihood rises with C.
    features = torch.eye(2).repeat_interleave(20, 0) + 0.01 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(2).repeat_interleave(20)
    found = linear_probe(features, labels, features, labels, 2, LinearProbe(C_low=1.0, C_high=100.0, values=3))
    assert (found.C, found.at_grid_edge, found.top1) == (pytest.approx(100), True, 100)
    assert all(score == 100 for *_, score in found.validation)
    single = linear_probe(features, labels, features, labels, 2, LinearProbe(C_low=1.0, C_high=1.0, values=1))
    assert not single.at_grid_edge


def test_of_equal_likelihoods_the_smaller_C_is_chosen():
    labels = torch.arange(40) % 2
    found = linear_probe(torch.ones(40, 3), labels, torch.ones(10, 3), labels[:10], 2, LinearProbe(patience=0, values=4))
    assert pytest.approx(1e-5) == found.C and found.at_grid_edge


def test_the_search_ends_once_larger_C_are_worse(problem):
    whole = linear_probe(*problem, LinearProbe(patience=0))
    losses = [loss for _, loss, _ in whole.validation]
    best = losses.index(min(losses))
    assert len(losses) == 20 and 0 < best < 17 and not whole.at_grid_edge
    for patience in (1, 2):
        found = linear_probe(*problem, LinearProbe(patience=patience))
        assert found.validation == whole.validation[: best + patience + 1]
        assert dataclasses.replace(found, validation=whole.validation) == whole


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("seed", range(4))
def test_the_search_does_not_end_before_it_has_begun(scale, seed):
    """Classes of different sizes and features so small that the smallest C change nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(6), torch.tensor([60, 40, 25, 15, 12, 8]))
    labels = labels[torch.randperm(160, generator=generator)]
    centres = torch.randn(6, 24, generator=generator)
    features = scale * (centres[labels] + torch.randn(160, 24, generator=generator))
    data = features[:120], labels[:120], features[120:], labels[120:], 6
    found, whole = (linear_probe(*data, LinearProbe(patience=patience)) for patience in (2, 0))
    assert found.C == whole.C > 1e-3 and found.top1 == whole.top1 > 60


def test_poor_features_are_chosen_for_by_accuracy():
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(2000) % 20
    features = 0.1 * torch.randn(20, 60, generator=generator)[labels] + torch.randn(2000, 60, generator=generator)
    data = features[:400], labels[:400], features[400:], labels[400:], 20
    found = linear_probe(*data, LinearProbe())
    losses, scores = ([row[column] for row in found.validation] for column in (1, 2))
    assert min(losses) > 0.99 * math.log(20) and len(losses) == 20
    assert found.validation[scores.index(max(scores))][0] == found.C


def test_the_final_fit_is_that_of_the_path_whatever_the_search_took(problem, monkeypatch):
    train, train_labels, test, test_labels, _ = problem
    asked, fits = [], linear._fits
    monkeypatch.setattr(
        linear, "_fits", lambda problem, grid, *rest: asked.append((len(grid), rest[0])) or fits(problem, grid, *rest)
    )
    found = linear_probe(*problem, LinearProbe(search_tolerance=1e-2))
    assert asked == [(20, 1e-2), (1, 5e-7)]
    final = fit_path(train, train_labels, torch.tensor([found.C], dtype=torch.float64), 6)
    assert found.top1 == pytest.approx(top1(final.predict(test)[0], test_labels))


@pytest.mark.parametrize("normalise", ["none", "l2"])
def test_features_of_half_precision_are_fitted_in_single(problem, normalise):
    train, train_labels, test, test_labels, _ = problem
    halves, protocol = ((20_000 * train).half(), (20_000 * test).half()), LinearProbe(normalise=normalise)
    halves = tuple(values.clamp(max=60_000) for values in halves)  # norms would be infinite
    found = linear_probe(halves[0], train_labels, halves[1], test_labels, 6, protocol)
    assert found == linear_probe(halves[0].float(), train_labels, halves[1].float(), test_labels, 6, protocol)
    assert found.top1 > 30
    halves = train.bfloat16(), test.bfloat16()
    grid = GRID[8:10]
    low, full = fit_path(halves[0], train_labels, grid, 6), fit_path(halves[0].float(), train_labels, grid, 6)
    assert torch.equal(low.objective, full.objective) and torch.equal(low.weights, full.weights.bfloat16())
    chosen = [linear.choose_C(x, train_labels, x, train_labels, 6, LinearProbe()) for x in (halves[0], halves[0].float())]
    assert chosen[0] == chosen[1]


def test_the_split_and_everything_after_it_are_reproducible(problem):
    assert linear_probe(*problem, LinearProbe()) == linear_probe(*problem, LinearProbe())
    assert linear_probe(*problem, LinearProbe()).validation != linear_probe(*problem, LinearProbe(split_seed=1)).validation


def test_accuracies_by_hand():
    predicted, labels = torch.tensor([0, 0, 1, 5, 5]), torch.tensor([0, 0, 0, 5, 3])
    assert top1(predicted, labels) == pytest.approx(60)
    assert mean_per_class(predicted, labels) == pytest.approx(100 * (2 / 3 + 1 + 0) / 3)


def test_the_protocol_says_what_it_is():
    assert LinearProbe().describe() == (
        "linear: logistic regression by L-BFGS (tolerance 5e-07), features as they are; of 20 C in 1e-05…1e+06 that of the "
        "highest likelihood on 20% of the training images (stratified, seed 0; tolerance 0.001, until 2 larger ones are worse)"
        ", of the highest accuracy where no cross entropy is 1% below that of the classes' shares; refitted on all"
    )
    assert "tolerance 0.001, all of them)" in LinearProbe(patience=0).describe()
    assert "l2-normalised" in LinearProbe(normalise="l2").describe()
    assert LinearProbe().grid().tolist() == pytest.approx([10 ** (-5 + 11 * i / 19) for i in range(20)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalise": "l3"}, "linear.normalise='l3': unknown; did you mean 'l2'"),
        ({"C_low": 0.0}, r"linear.C_low=0\.0"),
        ({"C_low": 2.0, "C_high": 1.0}, r"linear.C_low=2\.0"),
        ({"values": 0}, "linear.values=0"),
        ({"C_low": 1.0, "C_high": 1.0}, "linear.values=20"),
        ({"search_tolerance": -1.0}, r"linear.search_tolerance=-1\.0"),
        ({"patience": -1}, "linear.patience=-1"),
        ({"max_iterations": 0}, "linear.max_iterations=0"),
    ],
)
def test_the_protocol_refuses_nonsense(options, message):
    with pytest.raises(InputError, match=message):
        LinearProbe(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(30).long()}, "the only class"),
        ({"labels": torch.arange(30) % 4}, "labels=3: must be between 0 and 2"),
        ({"labels": torch.arange(29) % 3}, r"features=\(30, 4\)"),
        ({"features": torch.full((30, 4), torch.nan)}, "infinite or not a number"),
        ({"features": torch.ones(30, 4).long()}, "features='torch.int64': must be floating"),
        ({"grid": torch.tensor([1.0, 0.1])}, "grid=.*ascending"),
        ({"grid": torch.tensor([0.0, 0.1])}, "grid=.*positive"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"features": torch.randn(30, 4), "labels": torch.arange(30) % 3, "grid": GRID, "num_classes": 3} | change
    with pytest.raises(InputError, match=message):
        fit_path(**arguments)
