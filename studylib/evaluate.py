"""What a trained run is worth on a data set: measures at every layer and transfer accuracy, as rows of the results table."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from studylib import measures
from studylib.data import load
from studylib.features import PROTOCOL, Features, extract
from studylib.training import Run, checkpoint
from studylib.transfer import Knn, LinearPath, knn_accuracy, linear_probe


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


def evaluate(run: Run, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows (dataset, epoch, layer, split, protocol, measure, value) of one evaluation; computed once and kept with the run.

    Accuracies are in %. Measures are computed on the ``train`` and on the ``test`` rows of the data set and say so.
    """
    key = hashlib.sha256(json.dumps([PROTOCOL, asdict(evaluation)], sort_keys=True).encode()).hexdigest()[:10]
    file = run.folder / "results" / f"{evaluation.dataset.replace('/', '_').replace('@', '_')}-{key}.json"
    if not file.exists():
        checkpoint.write_json(file, _compute(run, evaluation))
    return json.loads(file.read_text())


def _compute(run: Run, evaluation: Evaluation) -> list[dict[str, Any]]:
    seen = extract(run, load(evaluation.dataset), evaluation.epoch)
    upstream = extract(run, load(run.config.data), evaluation.epoch) if evaluation.measures else None
    epoch = run.config.optimisation.epochs if evaluation.epoch is None else evaluation.epoch
    rows = []
    for layer in [layer for layer in evaluation.layers if layer in seen.layers]:
        found = []
        if evaluation.measures:
            for split in ("train", "test"):
                found += [(split, *entry) for entry in _measures(layer, split, seen, upstream)]
        if evaluation.transfer:
            found += [("test", *entry) for entry in _transfer(layer, seen, evaluation)]
        for split, protocol, measure, value in found:
            rows.append({"dataset": evaluation.dataset, "epoch": epoch, "layer": layer, "split": split})
            rows[-1] |= {"protocol": protocol, "measure": measure, "value": float(value)}
    return rows
