"""What a trained run is worth on a data set: measures at every layer and transfer accuracy, as rows of the results table."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studylib import files
from studylib.data import load
from studylib.errors import InputError
from studylib.external import External
from studylib.features import PROTOCOL, Features, extract
from studylib.measures import class_centres, discriminative_ratio, mixtureness, redundancy
from studylib.training import Run
from studylib.transfer import Knn, LinearPath, knn_accuracy, linear_probe

# The papers leave open whether distances are squared and features normalised (papers.md 2.3): all are computed.
VARIANTS = {
    "squared": {"squared": True, "normalise": False},
    "squared, l2-normalised": {"squared": True, "normalise": True},
    "not squared": {"squared": False, "normalise": False},
    "not squared, l2-normalised": {"squared": False, "normalise": True},
}

MIXTURENESS_K = (1, 5, 10)  # the paper's k is unknown: a small range is computed


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One data set, seen by the weights of one moment, at some layers."""

    dataset: str
    layers: tuple[str, ...] = ("stage5",)
    """``stage1`` to ``stage5`` (the encoder's output), ``projector1``, ..., ``projector``; layers a run lacks are left out"""
    epoch: int | None = None
    """epochs of pre-training, by default all"""
    measures: bool = True
    """whether to compute φ, R and, against the pre-training set, Π"""
    transfer: bool = True
    """whether to compute kNN and linear accuracy"""
    knn: Knn = field(default_factory=Knn)
    linear: LinearPath = field(default_factory=LinearPath)


def cached(run: Run | External, evaluation: Evaluation) -> Path:
    """File that holds the rows of an evaluation once it is done."""
    key = hashlib.sha256(json.dumps([PROTOCOL, asdict(evaluation)], sort_keys=True).encode()).hexdigest()[:10]
    return run.folder / "results" / f"{evaluation.dataset.replace('/', '_').replace('@', '_')}-{key}.json"


def from_task(settings: dict[str, Any]) -> Evaluation:
    """The evaluation that ``dataclasses.asdict`` and JSON described."""
    protocols = {"knn": Knn(**settings["knn"]), "linear": LinearPath(**settings["linear"])}
    return Evaluation(**settings | protocols | {"layers": tuple(settings["layers"])})


def evaluate(run: Run | External, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows (dataset, epoch, layer, split, protocol, measure, value) of one evaluation; computed once and kept with the run.

    Accuracies are in %. Measures are computed on the ``train`` and on the ``test`` rows of the data set and say so.
    """
    file = cached(run, evaluation)
    if not file.exists():
        files.write_json(file, _compute(run, evaluation))
    return json.loads(file.read_text())


def _compute(run: Run | External, evaluation: Evaluation) -> list[dict[str, Any]]:
    upstream = None
    if run.pretraining_set:
        images = load(run.pretraining_set)
        if images.checksum != run.data_sha256:
            raise InputError("run", run.name, f"was trained on another {images.name}; move {run.folder} away to train anew")
        upstream = extract(run, images, evaluation.epoch) if evaluation.measures else None
    seen = extract(run, load(evaluation.dataset), evaluation.epoch)
    rows = []
    for layer in [layer for layer in evaluation.layers if layer in seen.layers]:
        found = []
        if evaluation.measures:
            for split in ("train", "test"):
                found += [{"split": split} | row for row in paper_measures(layer, split, seen, upstream)]
        if evaluation.transfer:
            found += [{"split": "test"} | row for row in _transfer(layer, seen, evaluation)]
        rows += [{"layer": layer} | row for row in found]
    epoch = run.epochs if evaluation.epoch is None else evaluation.epoch
    return [{"dataset": evaluation.dataset, "epoch": epoch} | row for row in rows]


def paper_measures(layer: str, split: str, seen: Features, upstream: Features | None) -> Iterator[dict[str, Any]]:
    """Rows (protocol, measure, value) of SL-MLP's measures: φ with its distances, R and, if ``upstream`` is another set, Π."""
    features, labels = seen.part(layer, split)
    labels = labels.unique(return_inverse=True)[1]  # a split may lack a class
    for name, options in VARIANTS.items():
        ratio = discriminative_ratio(features, labels, **options)
        for part in ("phi", "inter", "intra"):
            yield {"protocol": name, "measure": part, "value": getattr(ratio, part)}
    yield {"protocol": "with the diagonal", "measure": "redundancy", "value": redundancy(features)}
    if upstream and seen.name != upstream.name:
        pre_features, pre_labels = upstream.part(layer, split)
        pre = class_centres(pre_features, pre_labels.unique(return_inverse=True)[1])
        own = class_centres(features, labels)
        for k in [k for k in MIXTURENESS_K if k < len(pre) + len(own)]:
            yield {"protocol": f"k={k}", "measure": "mixtureness", "value": mixtureness(pre, own, k=k)}


def _transfer(layer: str, seen: Features, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    train, test = seen.part(layer, "train"), seen.part(layer, "test")
    accuracy = knn_accuracy(*train, *test, seen.num_classes, evaluation.knn)
    yield {"protocol": evaluation.knn.describe(), "measure": "knn_top1", "value": accuracy.top1}
    probe = linear_probe(*train, *test, seen.num_classes, evaluation.linear)
    for measure, value in (
        ("linear_top1", probe.top1),
        ("linear_mean_per_class", probe.mean_per_class),
        ("linear_C", probe.C),
        ("linear_at_grid_edge", probe.at_grid_edge),
        ("linear_converged", probe.converged),
    ):
        yield {"protocol": evaluation.linear.describe(), "measure": measure, "value": float(value)}
