"""What an encoder is worth on a data set: measures at its layers and transfer accuracy, as rows of the results table."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studylib import files
from studylib.data import DETECTION, find, load
from studylib.errors import InputError, choose
from studylib.external import External
from studylib.features import PROTOCOL, extract
from studylib.measure import MEASURES
from studylib.probe import Subject, name_of, probe
from studylib.training import Run
from studylib.transfer import Knn, LinearPath

VERSION = 2  # raised when a measure or a protocol changes, so that old values are not taken for new ones


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One data set, seen by the weights of one moment, at some layers."""

    dataset: str
    layers: tuple[str, ...] = ("stage5",)
    """``stage1`` to ``stage5`` (the encoder's output), ``projector1``, ..., ``projector``; layers a run lacks are left out"""
    epoch: int | None = None
    """epochs of pre-training, by default all"""
    measures: str = "papers"
    """papers: φ, R and, against the pre-training set, Π; all: the whole suite; none (`studylib.measure`)"""
    protocols: tuple[Any, ...] = (Knn(), LinearPath())
    """transfer protocols (`studylib.probe.PROTOCOLS`)"""

    def __post_init__(self) -> None:
        choose("measures", self.measures, MEASURES)
        detection = self.dataset in DETECTION
        for protocol in self.protocols:
            if (name_of(protocol) == "detection") != detection:
                fix = f"is for {'sets with boxes' if not detection else 'image sets'}; {self.dataset} is not one"
                raise InputError("protocol", name_of(protocol), fix)
        if detection and self.measures != "none":
            raise InputError("measures", self.measures, f"must be none for {self.dataset}, whose images have no class")


def cached(source: Run | External, evaluation: Evaluation) -> Path:
    """File that holds the rows of an evaluation once it is done."""
    key = hashlib.sha256(f"{PROTOCOL} {VERSION} {evaluation!r}".encode()).hexdigest()[:10]
    return source.folder / "results" / f"{evaluation.dataset.replace('/', '_').replace('@', '_')}-{key}.json"


def evaluate(source: Run | External, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows (dataset, epoch, layer, split, protocol, measure, value) of one evaluation; computed once and kept with the encoder.

    Accuracies are in %. Measures are computed on the ``train`` and on the ``test`` rows of the data set and say so.

    Raises:
        InputError: a data set that cannot be read or that a protocol cannot use, or a run that was trained on other images.
    """
    file = cached(source, evaluation)
    if not file.exists():
        files.write_json(file, _compute(source, evaluation))
    return json.loads(file.read_text())


def _compute(source: Run | External, evaluation: Evaluation) -> list[dict[str, Any]]:
    upstream = None
    if source.pretraining_set:
        pretraining = load(source.pretraining_set)
        if pretraining.checksum != source.data_sha256:
            raise InputError("run", source.name, f"was trained on another {pretraining.name}; move {source.folder} away")
        if evaluation.measures != "none" and source.pretraining_set != evaluation.dataset:
            upstream = extract(source, pretraining, evaluation.epoch)
    images = find(evaluation.dataset)
    seen = None if evaluation.dataset in DETECTION else extract(source, images, evaluation.epoch)
    rows = []
    for layer in [layer for layer in evaluation.layers if seen is None or layer in seen.layers]:
        found = []
        for split in ("train", "test"):
            found += [{"split": split} | row for row in MEASURES[evaluation.measures](images, seen, upstream, layer, split)]
        for protocol in evaluation.protocols:
            found += probe(Subject(source, evaluation.epoch, images, seen, layer), protocol)
        rows += [{"layer": layer} | row for row in found]
    epoch = source.epochs if evaluation.epoch is None else evaluation.epoch
    return [{"dataset": evaluation.dataset, "epoch": epoch} | row for row in rows]
