"""The whole measure suite on one data set for one encoder at one layer, kept once it is computed."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from studylib import files, measures
from studylib.data import load
from studylib.errors import choose
from studylib.evaluate import paper_measures
from studylib.external import External
from studylib.features import PROTOCOL, Features, extract
from studylib.training import Run

VERSION = 1  # raised when a measure changes, so that old values are not taken for new ones


def measure(
    source: Run | External, dataset: str, *, layer: str = "stage5", split: str = "test", epoch: int | None = None
) -> list[dict[str, Any]]:
    """Rows (dataset, epoch, layer, split, protocol, measure, value) of every measure; computed once, kept with the encoder.

    Of the data set itself: φ and its distances, intra-class distance, class separation, NC1, redundancy, effective rank,
    coding length, sparsity; modes inside classes for every hidden label of the set. Against the pre-training set, for our
    own runs and other sets: mixtureness, Fréchet distance and squared MMD.

    Raises:
        InputError: an unknown layer, or a data set that cannot be read.
    """
    images = load(dataset)
    key = hashlib.sha256(json.dumps([PROTOCOL, VERSION, images.checksum, layer, split, epoch]).encode()).hexdigest()[:10]
    file = source.folder / "results" / f"measures-{dataset.replace('/', '_').replace('@', '_')}-{key}.json"
    if not file.exists():
        seen = extract(source, images, epoch)
        choose("layer", layer, seen.layers)
        pre = extract(source, load(source.pretraining_set), epoch) if source.pretraining_set not in (None, dataset) else None
        rows = [(row["measure"], row["protocol"], row["value"]) for row in paper_measures(layer, split, seen, pre)]
        rows += [*_own(seen, layer, split), *_modes(images, seen, layer, split)]
        rows += _between(pre, seen, layer, split) if pre else []
        at = {"dataset": dataset, "epoch": source.epochs if epoch is None else epoch, "layer": layer, "split": split}
        files.write_json(file, [at | {"protocol": how, "measure": name, "value": value} for name, how, value in rows])
    return json.loads(file.read_text())


def _own(seen: Features, layer: str, split: str) -> Iterator[tuple[str, str, float]]:
    features, labels = _part(seen, layer, split)
    plain, unit = measures.moments(features), measures.moments(features, normalise=True)
    separation = measures.class_separation(features, labels)
    yield "intra_class_distance", "l2-normalised", measures.intra_class_distance(features, labels)
    yield "class_separation", "cosine", separation.r2
    yield "neural_collapse", "classes weigh equally", measures.neural_collapse(features, labels)
    yield "effective_rank", "not centred", measures.effective_rank(plain)
    yield "effective_rank", "centred", measures.effective_rank(plain, centre=True)
    yield "coding_length", "ε = 0.5, l2-normalised, per image", measures.coding_length(unit)
    yield "sparsity", "share of |x| below 1e-5", measures.sparsity(features)


def _modes(images: Any, seen: Features, layer: str, split: str) -> Iterator[tuple[str, str, float]]:
    features, labels = _part(seen, layer, split)
    rows = images.split == {"train": 0, "test": 1}[split]
    for hidden, (values, _) in images.hidden.items():
        found = measures.find_modes(features, labels, values[rows])
        for name in ("nmi", "ari", "silhouette"):
            yield f"modes_{name}", f"k-means in each class, as many clusters as it has of {hidden}", getattr(found, name)


def _between(pre: Features, seen: Features, layer: str, split: str) -> Iterator[tuple[str, str, float]]:
    features, others = seen.part(layer, split)[0], pre.part(layer, split)[0]
    yield "frechet_distance", "to the pre-training set", measures.frechet_distance(features, others)
    yield "squared_mmd", "to the pre-training set, RBF of the median distance", measures.squared_mmd(features, others)


def _part(seen: Features, layer: str, split: str) -> tuple[Any, Any]:
    """Features and labels of a split, which may lack a class: numbered anew."""
    features, labels = seen.part(layer, split)
    return features, labels.unique(return_inverse=True)[1]
