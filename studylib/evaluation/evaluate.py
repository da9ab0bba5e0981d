"""What an encoder is worth on a data set: measures at its layers and transfer accuracy, as rows of the results table."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from studylib import device as devices
from studylib import files, paths, precision
from studylib.data import DETECTION, find, load
from studylib.errors import InputError, choose
from studylib.evaluation.features import PROTOCOL, extract
from studylib.evaluation.measure import MEASURES
from studylib.evaluation.probe import Subject, name_of, probe
from studylib.external import External
from studylib.training import Run
from studylib.transfer import Knn, LinearProbe

VERSION = 4  # raised when a measure or a protocol changes, so that old values are not taken for new ones


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One data set, seen by the weights of one moment, at some layers."""

    dataset: str
    layers: tuple[str, ...] = ("stage5",)
    """``stage1`` to ``stage5`` (the encoder's output), ``projector1``, ..., ``projector``; layers a run lacks are left out"""
    epoch: int | None = None
    """epochs of pre-training, by default all"""
    measures: str = "papers"
    """papers: φ, R and, against the pre-training set, Π; all: the whole suite; spectrum, modes, prototypes: what is in neither;
    none (`studylib.evaluation.measure`)"""
    protocols: tuple[Any, ...] = (Knn(), LinearProbe())
    """transfer protocols (`studylib.evaluation.probe.PROTOCOLS`)"""

    def __post_init__(self) -> None:
        choose("measures", self.measures, MEASURES)
        detection = self.dataset in DETECTION
        for protocol in self.protocols:
            if (name_of(protocol) == "detection") != detection:
                fix = f"is for {'sets with boxes' if not detection else 'image sets'}; {self.dataset} is not one"
                raise InputError("protocol", name_of(protocol), fix)
        if detection and self.measures != "none":
            raise InputError("measures", self.measures, f"must be none for {self.dataset}, whose images have no class")


def cached(source: Run | External, evaluation: Evaluation) -> list[Path]:
    """Files that hold the rows of an evaluation once it is done: one for each layer of the measures and of each protocol."""
    return [file for _, _, file in _parts(source, evaluation)]


def _parts(source: Run | External, evaluation: Evaluation) -> list[tuple[str, Any, Path]]:
    """(layer, kind of measures or a protocol, file); the file's name depends on all that its content does."""
    given = [] if evaluation.measures == "none" else [evaluation.measures]
    name = evaluation.dataset.replace("/", "_").replace("@", "_")
    found = []
    for layer in evaluation.layers:
        for part in [*given, *evaluation.protocols]:
            kind = part if isinstance(part, str) else name_of(part)
            what = f"{PROTOCOL} {VERSION} {checksum(evaluation.dataset)} {evaluation.epoch} {layer} {part!r}"
            key = hashlib.sha256(what.encode()).hexdigest()[:10]
            found.append((layer, part, source.folder / "results" / f"{name}-{layer}-{kind}-{key}.json"))
    return found


def checksum(dataset: str) -> str:
    """Of the images and labels of a set; read once in a process."""
    return _checksum(dataset, tuple(paths.data_folders()))


@cache
def _checksum(dataset: str, folders: tuple[Path, ...]) -> str:
    return find(dataset).checksum


def evaluate(source: Run | External, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows (dataset, epoch, layer, split, protocol, measure, value) of one evaluation; each part is kept once it is computed.

    Accuracies are in %. Measures are computed on the ``train`` and on the ``test`` rows of the data set and say so.

    Raises:
        InputError: a data set that cannot be read or that a protocol cannot use, or a run that was trained on other images.
    """
    missing = [part for part in _parts(source, evaluation) if not part[2].exists()]
    if missing:
        with precision.kernels(devices.find(), "float32"):
            _compute(source, evaluation, missing)
    return [row for file in cached(source, evaluation) for row in json.loads(file.read_text())]


def _compute(source: Run | External, evaluation: Evaluation, missing: list[tuple[str, Any, Path]]) -> None:
    if source.pretraining_set and checksum(source.pretraining_set) != source.data_sha256:
        raise InputError("run", source.name, f"was trained on another {source.pretraining_set}; move {source.folder} away")
    wanted = {layer for layer, _, _ in missing}
    upstream = None
    measured = any(isinstance(part, str) for _, part, _ in missing)
    if measured and source.pretraining_set not in (None, evaluation.dataset):
        upstream = extract(source, load(source.pretraining_set), evaluation.epoch, wanted)
    images = find(evaluation.dataset)
    seen = None if evaluation.dataset in DETECTION else extract(source, images, evaluation.epoch, wanted)
    epoch = source.epochs if evaluation.epoch is None else evaluation.epoch
    for layer, part, file in missing:
        rows = []
        if seen is not None and layer not in seen.layers:
            pass  # the run has no such layer: no rows
        elif isinstance(part, str):
            for split in ("train", "test"):
                rows += [{"split": split} | row for row in MEASURES[part](images, seen, upstream, layer, split)]
        else:
            rows += probe(Subject(source, evaluation.epoch, images, seen, layer), part)
        at = {"dataset": evaluation.dataset, "epoch": epoch, "layer": layer}
        files.write_json(file, [at | row for row in rows])
