"""Exact nearest neighbours by cosine similarity, and the weighted vote of the kNN classifier."""

import importlib.util

import torch
from torch import Tensor
from torch.nn import functional

from studylib.errors import InputError, choose

CHUNK = 4096  # ours: rows of queries and of gallery compared at a time, 64 MB of similarities


def search(queries: Tensor, gallery: Tensor, k: int, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Similarities (Q, k), descending, and gallery rows (Q, k) of the k most similar of ``gallery`` (N, d) to ``queries`` (Q, d).

    ``backend``: ``faiss``, ``torch``, or ``auto`` for faiss on a CPU where it is installed. Both are exact; the torch one
    runs where the tensors are and never holds more than a chunk of the similarities.

    Raises:
        InputError: k is not in 1 ... N.
    """
    if not 1 <= k <= len(gallery):
        raise InputError("k", k, f"must be between 1 and the {len(gallery)} images of the gallery")
    choose("backend", backend, ("auto", "faiss", "torch"))
    queries, gallery = functional.normalize(queries.float(), dim=1), functional.normalize(gallery.float(), dim=1)
    if backend == "auto":
        backend = "faiss" if not gallery.is_cuda and importlib.util.find_spec("faiss") else "torch"
    return _faiss(queries, gallery, k) if backend == "faiss" else _torch(queries, gallery, k)


def _faiss(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    import faiss

    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery.cpu().numpy())
    similarity, rows = index.search(queries.cpu().numpy(), k)
    return torch.from_numpy(similarity), torch.from_numpy(rows)


def _torch(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    found = []
    for part in queries.split(CHUNK):
        best = part.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.int64, device=part.device)
        for start in range(0, len(gallery), CHUNK):
            similarity = part @ gallery[start : start + CHUNK].T
            top, rows = similarity.topk(min(k, similarity.shape[1]), dim=1)
            values, rows = torch.cat((best[0], top), dim=1), torch.cat((best[1], rows + start), dim=1)
            top, order = values.topk(min(k, values.shape[1]), dim=1)
            best = top, rows.gather(1, order)
        found.append(best)
    similarity, rows = zip(*found, strict=True)
    return torch.cat(similarity), torch.cat(rows)


def classify(
    queries: Tensor,
    gallery: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    k: int = 20,
    temperature: float = 0.07,
    backend: str = "auto",
) -> Tensor:
    """Class (Q,) with the largest vote among the k nearest of the gallery: argmax_c sum_j exp(s_j / T) [y_j = c].

    k = 20 and T = 0.07 are usual in this field (papers.md 4: sl-vs-ssl-cl, unic). ``labels`` (N,) are the gallery's.
    """
    similarity, rows = search(queries, gallery, k, backend=backend)
    weights = ((similarity - similarity[:, :1]) / temperature).exp()  # the nearest has weight 1: no overflow
    votes = weights.new_zeros(len(weights), num_classes)
    return votes.scatter_add_(1, labels.to(rows.device)[rows], weights).argmax(1)
