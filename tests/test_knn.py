"""kNN transfer against hand-made answers, and its protocol."""

import math

import pytest
import torch

from studylib.data.splits import stratified_split
from studylib.errors import InputError
from studylib.transfer import Knn, KnnGrid, KnnResult, knn_accuracy, knn_grid_accuracy


def test_accuracies_by_hand():
    gallery, labels = torch.eye(3), torch.tensor([0, 1, 2])
    # Images of class 0 are found three times of four, the one of class 1 is not; class 2 has no test image.
    queries, truth = torch.eye(3)[[0, 0, 0, 1, 2]], torch.tensor([0, 0, 0, 0, 1])
    found = knn_accuracy(gallery, labels, queries, truth, 3, Knn(k=1))
    assert found == KnnResult(top1=pytest.approx(60), mean_per_class=pytest.approx((75 + 0) / 2))


def test_temperature_and_k_of_the_protocol_are_used():
    # Similarities to the query: 1 for one image of class 0, 0.8 for two of class 1.
    gallery = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    data = gallery, torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.0]]), torch.tensor([0]), 2
    assert knn_accuracy(*data, Knn(k=3, temperature=0.07)).top1 == 100  # 1 against 2 exp(-0.2 / 0.07)
    assert knn_accuracy(*data, Knn(k=3, temperature=1.0)).top1 == 0  # 1 against 2 exp(-0.2)
    assert knn_accuracy(*data, Knn(k=1, temperature=1.0)).top1 == 100


def test_with_few_training_images_all_vote():
    gallery, labels = torch.eye(4)[:3], torch.tensor([0, 1, 1])
    data = gallery, labels, torch.tensor([[1.0, 0.99, 0.99, 0.0]]), torch.tensor([1]), 2
    assert knn_accuracy(*data, Knn(k=20, temperature=1.0)) == knn_accuracy(*data, Knn(k=3, temperature=1.0))
    assert knn_accuracy(*data, Knn(k=20, temperature=1.0)).top1 == 100


def test_the_protocol_says_what_it_is_and_refuses_nonsense():
    assert Knn().describe() == "kNN: cosine, k=20, votes exp(s/0.07)"
    for options, field in (({"k": 0}, "knn.k=0"), ({"temperature": 0.0}, r"knn.temperature=0\.0")):
        with pytest.raises(InputError, match=field):
            Knn(**options)
    with pytest.raises(TypeError):
        Knn(20)


def test_grid_is_chosen_on_held_out_images_by_a_slow_loop():
    generator = torch.Generator().manual_seed(3)
    train, test = torch.randn(61, 5, generator=generator), torch.randn(17, 5, generator=generator)
    labels, truth = torch.arange(61) % 4, torch.arange(17) % 4
    protocol = KnnGrid(k=(3, 1, 7, 500), temperature=(0.5, 0.05), split_seed=2)
    found = knn_grid_accuracy(train, labels, test, truth, 4, protocol)
    fit, held_out = stratified_split(labels, 0.2, 2)

    def predicted(image, gallery, classes, k, temperature):
        cosines = [float(torch.nn.functional.cosine_similarity(image, other, dim=0)) for other in gallery]
        nearest = sorted(range(len(gallery)), key=lambda row: -cosines[row])[:k]
        votes = [sum(math.exp(cosines[row] / temperature) for row in nearest if classes[row] == c) for c in range(4)]
        return votes.index(max(votes))

    expected = {}
    for k in (1, 3, 7, len(fit)):
        for temperature in (0.05, 0.5):
            gallery = train[fit], labels[fit].tolist()
            found_classes = [predicted(train[row], *gallery, k, temperature) for row in held_out.tolist()]
            right = [one == truth for one, truth in zip(found_classes, labels[held_out].tolist(), strict=True)]
            expected[k, temperature] = 100 * sum(right) / len(right)
    assert {(k, temperature): score for k, temperature, score in found.validation} == pytest.approx(expected)
    best = next(point for point, score in expected.items() if score == max(expected.values()))
    assert (found.k, found.temperature) == best
    assert found.at_grid_edge  # of two temperatures both are ends
    assert found.top1 == knn_accuracy(train, labels, test, truth, 4, Knn(k=best[0], temperature=best[1])).top1
    other = knn_grid_accuracy(train, labels, test, truth.flip(0), 4, protocol)
    assert (other.k, other.temperature) == best  # test labels choose nothing


def test_grid_refuses_what_it_cannot_use():
    for field, value in (("k", ()), ("k", (0, 5)), ("temperature", (0.0,))):
        with pytest.raises(InputError, match=f"knn_grid.{field}"):
            KnnGrid(**{field: value})
