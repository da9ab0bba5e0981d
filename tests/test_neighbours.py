"""Nearest neighbours against double loops, and one backend against the other."""

import math
import sys

import pytest
import torch

from studylib import neighbours
from studylib.errors import InputError


def draw(rows: int, width: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a)) / math.sqrt(sum(float(y) ** 2 for y in b))


def slow_search(queries, gallery, k):
    found = []
    for query in queries:
        similarity = [cosine(query, row) for row in gallery]
        found.append(sorted(range(len(gallery)), key=lambda row: (-similarity[row], row))[:k])
    return found


def slow_classify(queries, gallery, labels, num_classes, k, temperature):
    found = []
    for query, rows in zip(queries, slow_search(queries, gallery, k), strict=True):
        votes = [0.0] * num_classes
        for row in rows:
            votes[int(labels[row])] += math.exp(cosine(query, gallery[row]) / temperature)
        found.append(votes.index(max(votes)))
    return found


@pytest.mark.parametrize("backend", ["torch", "faiss", "auto"])
@pytest.mark.parametrize("k", [1, 5, 53])
def test_search_is_the_double_loop(backend, k):
    queries, gallery = draw(11), draw(53, seed=1)
    similarity, rows = neighbours.search(queries, gallery, k, backend=backend)
    assert rows.tolist() == slow_search(queries, gallery, k)
    expected = [[cosine(queries[q], gallery[row]) for row in found] for q, found in enumerate(rows.tolist())]
    torch.testing.assert_close(similarity, torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("chunk", [1, 3, 10, 52, 53, 1000])
def test_chunks_do_not_matter(monkeypatch, chunk):
    queries, gallery = draw(11), draw(53, seed=1)
    whole = neighbours.search(queries, gallery, 8, backend="torch")
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    similarity, rows = neighbours.search(queries, gallery, 8, backend="torch")
    assert rows.tolist() == slow_search(queries, gallery, 8)
    torch.testing.assert_close(similarity, whole[0])


@pytest.mark.parametrize("chunk", [1, 10, 53])
def test_blocks_of_queries_do_not_matter(monkeypatch, chunk):
    monkeypatch.setattr(neighbours, "BLOCK", 3 * chunk)  # three queries at a time
    queries, gallery = draw(11), draw(53, seed=1)
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    rows = neighbours.search(queries, gallery, 8, backend="torch")[1]
    assert rows.tolist() == slow_search(queries, gallery, 8)


@pytest.mark.parametrize("k", [1, 4, 5, 30])  # of 10 groups: few, half of them, more than half, more than there are
@pytest.mark.parametrize("columns", [9, 10, 19, 20, 53, 60])
def test_the_largest_of_groups_are_the_largest(monkeypatch, k, columns):
    monkeypatch.setattr(neighbours, "GROUPS", 10)
    values = torch.randint(15, (40, columns), generator=torch.Generator().manual_seed(k)).float()  # with ties
    top, found = neighbours._largest(values, k)
    assert top.tolist() == [[row[c] for c in own] for row, own in zip(values.tolist(), found.tolist(), strict=True)]
    assert all(len(set(own)) == min(k, columns) for own in found.tolist())
    assert [sorted(row) for row in top.tolist()] == [sorted(row)[-k:] for row in values.tolist()]


def test_the_backends_agree_beyond_one_chunk():
    queries, gallery = draw(30, 32), draw(2 * neighbours.CHUNK + 17, 32, seed=1)
    ours, theirs = (neighbours.search(queries, gallery, 20, backend=backend) for backend in ("torch", "faiss"))
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-6, rtol=0)
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_equally_similar_rows_stand_in_the_order_of_the_gallery(backend):
    gallery = torch.eye(4)[[2, 0, 1, 0, 2, 0]]
    similarity, rows = neighbours.search(torch.eye(4)[[0, 2]], gallery, 6, backend=backend)
    assert rows.tolist() == [[1, 3, 5, 0, 2, 4], [0, 4, 1, 2, 3, 5]]
    assert similarity.tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_ties_at_the_cut_are_the_same_in_every_call(backend):
    gallery = torch.ones(50, 3)
    first = neighbours.search(torch.ones(7, 3), gallery, 20, backend=backend)[1]
    assert torch.equal(first, neighbours.search(torch.ones(7, 3), gallery, 20, backend=backend)[1])
    assert all(len(set(rows)) == 20 for rows in first.tolist())


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 1.0), (53, 0.5), (53, 1e-3)])
def test_the_vote_is_the_double_loop(backend, k, temperature):
    queries, gallery = draw(41), draw(53, seed=1)
    labels = torch.randint(4, (53,), generator=torch.Generator().manual_seed(2))
    # exp(1 / 1e-3) overflows a double, so the oracle of that temperature is the nearest neighbour
    expected = slow_classify(queries, gallery, labels, 4, *((1, 1.0) if temperature < 0.01 else (k, temperature)))
    found = neighbours.classify(queries, gallery, labels, 4, k=k, temperature=temperature, backend=backend)
    assert found.tolist() == expected


def test_the_default_vote_has_20_neighbours_at_temperature_007():
    queries, gallery, labels = draw(41), draw(53, seed=1), torch.arange(53) % 3
    expected = slow_classify(queries, gallery, labels, 3, 20, 0.07)
    assert neighbours.classify(queries, gallery, labels, 3).tolist() == expected


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize("k", [1, 7, 20, 150])
def test_of_equal_rows_the_first_are_taken(backend, k):
    """Each row of the gallery stands five times, far apart; half of the queries are rows of it."""
    few = draw(60, width=64)
    gallery, queries = few.repeat(5, 1), torch.cat((few[:20], draw(20, width=64, seed=1)))
    found = neighbours.search(queries, gallery, k, backend=backend)[1]
    distinct = neighbours.search(queries, few, 60, backend="torch")[1]
    expected = [[row + 60 * copy for row in rows for copy in range(5)][:k] for rows in distinct.tolist()]
    assert found.tolist() == expected


def test_of_equal_votes_the_lower_class_wins():
    gallery, labels = torch.eye(4)[[0, 0, 1, 1]], torch.tensor([2, 1, 0, 0])
    assert neighbours.classify(torch.eye(4)[:1], gallery, labels, 3, k=2, backend="torch").tolist() == [1]


def test_lengths_of_features_do_not_matter_and_a_zero_feature_is_like_nothing():
    queries, gallery = draw(9), draw(31, seed=1)
    expected = neighbours.search(queries, gallery, 6, backend="torch")[1]
    scaled = neighbours.search(queries * 1e3, gallery * torch.rand(31, 1).add(0.1), 6, backend="torch")[1]
    assert torch.equal(scaled, expected)
    assert neighbours.search(torch.zeros(1, 7), gallery, 3)[0].tolist() == [[0, 0, 0]]


def test_auto_is_torch_without_faiss(monkeypatch):
    monkeypatch.setattr(neighbours.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "faiss", None)  # importing it would fail
    queries, gallery = draw(9), draw(31, seed=1)
    assert neighbours.search(queries, gallery, 4)[1].tolist() == slow_search(queries, gallery, 4)


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("k=0", lambda: neighbours.search(draw(2), draw(5), 0)),
        ("k=6", lambda: neighbours.search(draw(2), draw(5), 6)),
        ("backend='fais'", lambda: neighbours.search(draw(2), draw(5), 1, backend="fais")),
        ("queries=(2, 3)", lambda: neighbours.search(draw(2, 3), draw(5), 1)),
        ("temperature=0", lambda: neighbours.classify(draw(2), draw(5), torch.zeros(5).long(), 2, k=1, temperature=0)),
        ("gallery_labels=(4,)", lambda: neighbours.classify(draw(2), draw(5), torch.zeros(4).long(), 2, k=1)),
        ("gallery_labels=(5,)", lambda: neighbours.classify(draw(2), draw(5), torch.arange(5), 4, k=1)),
    ],
)
def test_bad_input_is_named(field, call):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(field + ":")
