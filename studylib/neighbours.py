"""Exact nearest neighbours by cosine similarity, and the weighted vote of the kNN classifier."""

import importlib.util

import torch
from torch import Tensor
from torch.nn import functional

from studylib.errors import InputError, choose, require

CHUNK = 32768  # ours: rows of the gallery compared at a time
BLOCK = 2**24  # ours: similarities at a time, 64 MB: 512 queries with a chunk of the gallery
GROUPS = 512  # ours: of the columns of a block, when its largest are looked for
TIE = 2**-22  # ours: similarities that differ by less may be those of equal rows, summed in another order
FAISS_GPU_K = 2048  # faiss on a GPU finds no more neighbours than this


def search(queries: Tensor, gallery: Tensor, k: int, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Similarities (Q, k), descending, and rows (Q, k) of the k of ``gallery`` (N, d) most similar to ``queries`` (Q, d).

    Features are l2-normalised in float32 (a zero feature has similarity 0 to all). Equally similar rows stand in the
    order of the gallery, and of those that compete for the last places the first ones are taken, whatever the backend.
    Results are where ``gallery`` is.

    ``backend``: ``torch`` (holds no more than 64 MB of the similarities, but for queries near equal rows), ``faiss`` (an exact
    flat index, on the GPU if the gallery is there), or ``auto`` for faiss where it is installed and can. All are exact.

    Raises:
        InputError: k is not in 1 ... N, the widths differ, or the backend is unknown.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise InputError("queries", (*queries.shape,), f"must be (Q, d) with the d of the gallery {(*gallery.shape,)}")
    require("k", k, 1 <= k <= len(gallery), f"must be between 1 and the {len(gallery)} images of the gallery")
    choose("backend", backend, ("auto", "faiss", "torch"))
    more = min(k + 1, len(gallery))  # the one beyond tells whether the last place is contested
    if backend == "auto":
        backend = "faiss" if _faiss_can(gallery, more) else "torch"
    queries, gallery = (functional.normalize(rows.float(), dim=1) for rows in (queries.to(gallery.device), gallery))
    similarity, rows = _ordered(*(_faiss if backend == "faiss" else _torch)(queries, gallery, more))
    contested = _contested(similarity, rows, gallery)
    similarity, rows = similarity[:, :k].contiguous(), rows[:, :k].contiguous()
    for part in contested.split(GROUPS) if len(contested) else ():
        similarity[part], rows[part] = _first(queries[part], gallery, k)
    return similarity, rows


def _contested(similarity: Tensor, rows: Tensor, gallery: Tensor) -> Tensor:
    """Queries among whose neighbours, or the first one beyond, two that follow each other are equal rows of the gallery.

    A backend may sum them in another order, and so put either first.
    """
    query, place = (similarity[:, :-1] - similarity[:, 1:] <= TIE).nonzero(as_tuple=True)
    pairs = zip(rows[query, place].split(CHUNK), rows[query, place + 1].split(CHUNK), strict=True)
    equal = [(gallery[one] == gallery[other]).all(1) for one, other in pairs] if len(query) else []
    return query[torch.cat(equal)].unique() if equal else query


def _first(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k most similar, of equal ones the first; in float64, where equal rows have the same similarity to a float32."""
    best = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64, device=gallery.device)
    for start in range(0, len(gallery), CHUNK):
        block = gallery[start : start + CHUNK]
        values = torch.cat((best[0], (queries.double() @ block.double().T).float()), dim=1)
        own = torch.arange(start, start + len(block), device=gallery.device).expand(len(queries), -1)
        values, order = values.sort(dim=1, descending=True, stable=True)
        best = values[:, :k], torch.cat((best[1], own), dim=1).gather(1, order[:, :k])
    return best


def _faiss_can(gallery: Tensor, k: int) -> bool:
    if importlib.util.find_spec("faiss") is None:
        return False
    if not gallery.is_cuda:
        return True
    import faiss

    return k <= FAISS_GPU_K and hasattr(faiss, "GpuIndexFlatIP") and faiss.get_num_gpus() > 0


def _faiss(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    import faiss  # after torch, so that one CUDA runtime is loaded

    if gallery.is_cuda and _faiss_can(gallery, k):
        options = faiss.GpuIndexFlatConfig()
        options.device = gallery.device.index
        index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), gallery.shape[1], options)
    else:
        index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery.cpu().numpy())
    similarity, rows = index.search(queries.cpu().numpy(), k)
    return torch.from_numpy(similarity).to(gallery.device), torch.from_numpy(rows).to(gallery.device)


def _torch(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    nearest = []
    chunk = min(CHUNK, len(gallery))
    parts = queries.split(max(1, BLOCK // chunk))
    room = queries.new_empty(len(parts[0]) * chunk)  # memory asked for anew is slow to come
    for part in parts:
        best = part.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.int64, device=part.device)
        for start in range(0, len(gallery), chunk):
            block = gallery[start : start + chunk]
            similarity = room[: len(part) * len(block)].view(len(part), len(block))
            top, rows = _largest(torch.mm(part, block.T, out=similarity), k)
            values, rows = torch.cat((best[0], top), dim=1), torch.cat((best[1], rows + start), dim=1)
            top, order = values.topk(min(k, values.shape[1]), dim=1, sorted=False)
            best = top, rows.gather(1, order)
        nearest.append(best)
    similarity, rows = zip(*nearest, strict=True)
    return torch.cat(similarity), torch.cat(rows)


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of ``values`` (Q, n) and their columns, in any order; all n if k is more.

    Column c is in group c mod 512. The k largest are in the k groups of largest maximum (an element of another group has k
    maxima that are no smaller), so only these are sorted through: a third of the time at n = 32,768 and k = 20.
    """
    members = values.shape[1] // GROUPS
    if members < 2 or 2 * k > GROUPS:
        return values.topk(min(k, values.shape[1]), dim=1, sorted=False)
    grouped = values[:, : members * GROUPS].unflatten(1, (members, GROUPS))
    groups = grouped.amax(1).topk(k, dim=1, sorted=False).indices[:, None, :].expand(-1, members, -1)  # (Q, members, k)
    firsts = torch.arange(0, members * GROUPS, GROUPS, device=values.device)[:, None]
    rest = torch.arange(members * GROUPS, values.shape[1], device=values.device)
    columns = torch.cat(((groups + firsts).flatten(1), rest.expand(len(values), -1)), dim=1)
    top, order = values.gather(1, columns).topk(k, dim=1, sorted=False)
    return top, columns.gather(1, order)


def _ordered(similarity: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    rows, order = rows.sort(dim=1)
    similarity, again = similarity.gather(1, order).sort(dim=1, descending=True, stable=True)
    return similarity, rows.gather(1, again)


def classify(
    queries: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    num_classes: int,
    *,
    k: int = 20,
    temperature: float = 0.07,
    backend: str = "auto",
) -> Tensor:
    """Class (Q,) with the largest vote among the k nearest of the gallery: argmax_c sum_j exp(s_j / T) [y_j = c].

    k = 20 and T = 0.07 are usual in this field (papers/README.md 4: sl-vs-ssl-cl, unic). Of equal votes the lower class wins.
    ``gallery_labels`` (N,) are in 0 ... num_classes-1. The result is where ``gallery`` is.

    Raises:
        InputError: as `search`; the temperature is not positive; or the labels do not match the gallery.
    """
    require("temperature", temperature, temperature > 0, "must be positive")
    if gallery_labels.shape != gallery.shape[:1] or int(gallery_labels.max()) >= num_classes:
        raise InputError("gallery_labels", (*gallery_labels.shape,), f"must be {len(gallery)} labels below {num_classes}")
    similarity, rows = search(queries, gallery, k, backend=backend)
    return vote(similarity, gallery_labels.to(rows.device)[rows], num_classes, temperature)


def vote(similarity: Tensor, classes: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Class (Q,) with the largest vote, from the ``similarity`` (Q, k), descending, and ``classes`` (Q, k) of neighbours."""
    weights = ((similarity - similarity[:, :1]).double() / temperature).exp()  # the nearest has weight 1: no overflow
    votes = weights.new_zeros(len(weights), num_classes)
    for neighbour in range(classes.shape[1]):  # one at a time, so that the order of additions is fixed on a GPU as well
        votes.scatter_add_(1, classes[:, neighbour, None], weights[:, neighbour, None])
    return votes.argmax(1)
