"""The measures of one layer's features on one data set, as rows: those of the papers' tables, or the whole suite."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from studylib import measures
from studylib.data import ImageSet
from studylib.features import Features

# The papers leave open whether distances are squared and features normalised (papers.md 2.3): all are computed.
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
    rows = images.split == {"train": 0, "test": 1}[split]
    for hidden, (values, _) in images.hidden.items():
        own = values[rows]
        known = own >= 0  # an image may have no such label
        if split == "train" or all(len(own[known & (labels == label)].unique()) < 2 for label in labels.unique()):
            continue  # the label does not divide any class; of the training images k-means would take longest
        kept, classes = features[known], labels[known].unique(return_inverse=True)[1]
        found = measures.find_modes(kept, classes, own[known])
        for name in ("nmi", "ari", "silhouette"):
            how = f"k-means in each class, as many clusters as it has of {hidden}"
            yield _row(f"modes_{name}", how, getattr(found, name))
    if pre:
        others = _part(pre, layer, split)[0]
        yield _row("frechet_distance", "to the pre-training set", measures.frechet_distance(features, others))
        how = "to the pre-training set, RBF of the median distance"
        yield _row("squared_mmd", how, measures.squared_mmd(features, others))


MEASURES: dict[str, Callable[..., Rows]] = {
    "none": lambda *_: iter(()),
    "papers": paper_measures,
    "all": all_measures,
}


def _part(seen: Features, layer: str, split: str) -> tuple[Tensor, Tensor]:
    """Features and labels of a split, which may lack a class: numbered anew."""
    features, labels = seen.part(layer, split)
    return features, labels.unique(return_inverse=True)[1]


def _row(measure: str, protocol: str, value: float) -> dict[str, Any]:
    return {"protocol": protocol, "measure": measure, "value": value}
