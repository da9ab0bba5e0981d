"""The measures of one layer's features on one data set, as rows: those of the papers' tables, or the whole suite."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from studylib import measures
from studylib.data import ImageSet
from studylib.evaluation.features import Features
from studylib.measures.modes import LARGEST

# The papers leave open whether distances are squared and features normalised (papers/README.md 2.3): all are computed.
VARIANTS = {
    "squared": {"squared": True, "normalise": False},
    "squared, l2-normalised": {"squared": True, "normalise": True},
    "not squared": {"squared": False, "normalise": False},
    "not squared, l2-normalised": {"squared": False, "normalise": True},
}

MIXTURENESS_K = (1, 5, 10)  # the paper's k is unknown: a small range is computed

Rows = Iterator[dict[str, Any]]


def paper_measures(images: ImageSet, seen: Features, pre: Features | None, layer: str, split: str) -> Rows:
    """Rows (protocol, measure, value) of SL-MLP's measures: φ with its distances, R and, against the features ``pre``
    of the pre-training set where that is another one, Π."""
    features, labels = _part(seen, layer, split)
    for name, options in VARIANTS.items():
        ratio = measures.discriminative_ratio(features, labels, **options)
        for part in ("phi", "inter", "intra"):
            yield _row(part, name, getattr(ratio, part))
    yield _row("redundancy", "with the diagonal", measures.redundancy(features))
    if pre:
        centres, own = measures.class_centres(*_part(pre, layer, split)), measures.class_centres(features, labels)
        for k in [k for k in MIXTURENESS_K if k < len(centres) + len(own)]:
            yield _row("mixtureness", f"k={k}", measures.mixtureness(centres, own, k=k))


def all_measures(images: ImageSet, seen: Features, pre: Features | None, layer: str, split: str) -> Rows:
    """Rows (protocol, measure, value) of the whole suite.

    Of the data set itself: those of `paper_measures`, intra-class distance, class separation, NC1, effective rank, coding
    length, sparsity; of held-out images the modes inside classes for every hidden label of the set. Against the pre-training
    set: Π, Fréchet distance and squared MMD.
    """
    yield from paper_measures(images, seen, pre, layer, split)
    features, labels = _part(seen, layer, split)
    plain, unit = measures.moments(features), measures.moments(features, normalise=True)
    yield _row("intra_class_distance", "l2-normalised", measures.intra_class_distance(features, labels))
    yield _row("class_separation", "cosine", measures.class_separation(features, labels).r2)
    yield _row("neural_collapse", "classes weigh equally", measures.neural_collapse(features, labels))
    yield _row("effective_rank", "not centred", measures.effective_rank(plain))
    yield _row("effective_rank", "centred", measures.effective_rank(plain, centre=True))
    yield _row("coding_length", "ε = 0.5, l2-normalised, per image", measures.coding_length(unit))
    yield _row("sparsity", "share of |x| below 1e-5", measures.sparsity(features))
    for hidden, *divided in _divided(images, features, labels, split):
        found = measures.find_modes(*divided)
        for name in ("nmi", "ari", "silhouette"):
            how = f"k-means in each class, as many clusters as it has of {hidden}"
            yield _row(f"modes_{name}", how, getattr(found, name))
    if pre:
        others = _part(pre, layer, split)[0]
        distance, spread = measures.frechet_distance(features, others), others.double().var(0).sum()
        yield _row("frechet_distance", "to the pre-training set", distance)
        yield _row("frechet_per_variance", "to the pre-training set, ÷ the variance of its features", float(distance / spread))
        how = "to the pre-training set, RBF of the median distance"
        yield _row("squared_mmd", how, measures.squared_mmd(features, others))


def spectrum(images: ImageSet, seen: Features, pre: Features | None, layer: str, split: str) -> Rows:
    """Rows of the singular values of centred features of held-out images, relative to the largest: those of rank 1, 2, 4, 8,
    ... and the last. The rank is in the protocol: ``centred, rank 8 of 64``. A value of 0 is one that rounding hides."""
    if split == "test":
        sigma = measures.singular_values(_part(seen, layer, split)[0], centre=True)
        for rank in sorted({2**power for power in range(len(sigma).bit_length())} | {len(sigma)}):
            yield _row("singular_value", f"centred, rank {rank} of {len(sigma)}", float(sigma[rank - 1]))


def number_of_modes(images: ImageSet, seen: Features, pre: Features | None, layer: str, split: str) -> Rows:
    """Rows of how many modes the silhouette finds in the classes of held-out images, how many hidden labels they have, and
    whether the modes are these, for every hidden label of the set; means over the classes that the label divides."""
    for hidden, *divided in _divided(images, *_part(seen, layer, split), split):
        found = measures.find_modes(*divided, clusters="silhouette")
        how = f"k-means in each class, 1 to {LARGEST} clusters by the best silhouette, against labels of {hidden}"
        named = {"number": "number", "hidden": "hidden", "nmi": "chosen_nmi", "ari": "chosen_ari"}
        for name, measure in named.items():
            yield _row(f"modes_{measure}", how, getattr(found, name))


def prototype_similarity(images: ImageSet, seen: Features, pre: Features | None, layer: str, split: str) -> Rows:
    """Rows of the similarity of the class vectors that the loss compares with (learned, or sums of a memory) and the class
    means of l2-normalised features of the training images of the pre-training set, at the layer that the loss sees."""
    if pre is not None or split != "train" or layer != seen.last:
        return
    vectors = seen.network()[0].class_vectors()
    if vectors is None or not vectors.any():  # another method, or a memory before the first step
        return
    means = measures.prototypes(*seen.part(layer, split), seen.num_classes, normalise=True)
    found = measures.prototype_similarity(means, vectors.to(means.device))
    how = "cosine of the loss's class vectors and means of l2-normalised training features"
    yield _row("prototype_similarity", how, found.matching)
    yield _row("prototype_similarity_others", how, found.others)


class Measures(NamedTuple):
    """Measures that are computed together."""

    rows: Callable[..., Rows]
    version: int
    """raised when one of their values changes, so that what is stored of them, and nothing else, is computed again"""


MEASURES: dict[str, Measures] = {
    "none": Measures(lambda *_: iter(()), 4),
    "papers": Measures(paper_measures, 4),  # what changes here changes `all`, too
    "all": Measures(all_measures, 5),
    "spectrum": Measures(spectrum, 4),
    "modes": Measures(number_of_modes, 5),
    "prototypes": Measures(prototype_similarity, 4),
}


def _divided(images: ImageSet, features: Tensor, labels: Tensor, split: str) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """(name, features, classes, hidden labels) of held-out images for each hidden label, in the classes that it divides.

    Of the training images k-means would take longest.
    """
    rows = images.split == {"train": 0, "test": 1}[split]
    for name, (values, _) in images.hidden.items() if split == "test" else ():
        own = values[rows].to(labels.device)
        known = own >= 0  # an image may have no such label
        pairs = torch.stack((labels, own))[:, known].unique(dim=1)
        kept = known & (pairs[0].bincount(minlength=int(labels.max()) + 1) > 1)[labels]
        if kept.any():
            yield name, features[kept], labels[kept].unique(return_inverse=True)[1], own[kept]


def _part(seen: Features, layer: str, split: str) -> tuple[Tensor, Tensor]:
    """Features and labels of a split, which may lack a class: numbered anew."""
    features, labels = seen.part(layer, split)
    return features, labels.unique(return_inverse=True)[1]


def _row(measure: str, protocol: str, value: float) -> dict[str, Any]:
    return {"protocol": protocol, "measure": measure, "value": value}
