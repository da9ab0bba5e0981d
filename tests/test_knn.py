"""kNN transfer against hand-made answers, and its protocol."""

import pytest
import torch

from studylib.errors import InputError
from studylib.transfer import Knn, KnnResult, knn_accuracy


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_accuracies_by_hand(backend):
    gallery, labels = torch.eye(3), torch.tensor([0, 1, 2])
    # Images of class 0 are found three times of four, the one of class 1 is not; class 2 has no test image.
    queries, truth = torch.eye(3)[[0, 0, 0, 1, 2]], torch.tensor([0, 0, 0, 0, 1])
    found = knn_accuracy(gallery, labels, queries, truth, 3, Knn(k=1), backend=backend)
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
