"""What an encoder is worth on a data set: measures at its layers and transfer accuracy, as rows of the results table."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studylib import device as devices
from studylib import files, precision
from studylib.data import DETECTION, checksum, find, load
from studylib.errors import InputError, choose, require
from studylib.evaluation.features import PROTOCOL as EXTRACTION
from studylib.evaluation.features import extract
from studylib.evaluation.measure import MEASURES
from studylib.evaluation.probe import PROTOCOLS, Subject, name_of, probe
from studylib.external import External
from studylib.training import Run, refuse_other_data
from studylib.transfer import Knn, LinearProbe


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
            other = [layer for layer in self.layers if layer != "stage5"] if PROTOCOLS[name_of(protocol)].of_output else []
            require("layer", " ".join(other), not other, "fine-tuning and detection start from the encoder's output, stage5")
        if detection and self.measures != "none":
            raise InputError("measures", self.measures, f"must be none for {self.dataset}, whose images have no class")


@dataclass(frozen=True)
class Part:
    """What of an evaluation is computed and stored together: its measures, or one of its protocols, at one layer."""

    dataset: str
    epoch: int | None
    layer: str
    task: Any
    """the name of measures, or a protocol"""

    @property
    def kind(self) -> str:
        """Name in `MEASURES` or `PROTOCOLS`."""
        return self.task if isinstance(self.task, str) else name_of(self.task)

    @property
    def version(self) -> int:
        """Version of this kind of result."""
        return (MEASURES if isinstance(self.task, str) else PROTOCOLS)[self.kind].version

    @property
    def settings(self) -> str:
        """Hash of all settings, those of how features are extracted among them."""
        return hashlib.sha256(f"{EXTRACTION} {self.task!r}".encode()).hexdigest()[:10]

    def file(self, source: Run | External) -> Path:
        """Where its rows are stored; the name depends on all that they do: weights, images, settings and version."""
        name = re.sub("[/@:]", "_", self.dataset)
        given = f"{EXTRACTION} {self.version} {source.trained} {checksum(self.dataset)} {self.epoch} {self.layer} {self.task!r}"
        key = hashlib.sha256(given.encode()).hexdigest()[:10]
        return source.folder / "results" / f"{name}-{self.layer}-{self.kind}-{key}.json"


def parts(evaluation: Evaluation) -> list[Part]:
    """The parts of an evaluation, in the order of their rows in the results table."""
    tasks = [*([] if evaluation.measures == "none" else [evaluation.measures]), *evaluation.protocols]
    return [Part(evaluation.dataset, evaluation.epoch, layer, task) for layer in evaluation.layers for task in tasks]


def cached(source: Run | External, evaluation: Evaluation) -> list[Path]:
    """Files that hold the rows of an evaluation once it is done: one for each layer of the measures and of each protocol."""
    return [part.file(source) for part in parts(evaluation)]


def evaluate(
    source: Run | External, evaluation: Evaluation, unfit: dict[str, InputError] | None = None
) -> list[dict[str, Any]]:
    """Rows (dataset, epoch, layer, split, protocol, measure, value) of one evaluation; each part is kept once it is computed.

    Accuracies are in %. Measures are computed on the ``train`` and on the ``test`` rows of the data set and say so.

    Args:
        unfit: receives, by their names, what keeps protocols from using the data set; they have no rows then. Without it the
            first is raised, once all else is computed.

    Raises:
        InputError: a data set that cannot be read or that a protocol cannot use, or a run that was trained on other images.
    """
    found: dict[str, InputError] = {}
    missing = [part for part in parts(evaluation) if not part.file(source).exists()]
    if missing:
        with precision.kernels(devices.find(), "float32"):
            found = _compute(source, evaluation, missing)
    if unfit is None:
        for error in found.values():
            raise error
    else:
        unfit |= found
    fitting = [part.file(source) for part in parts(evaluation) if part.kind not in found]
    return [row for file in fitting for row in files.read_json(file, list)]


def _compute(source: Run | External, evaluation: Evaluation, missing: list[Part]) -> dict[str, InputError]:
    """Computes what is ``missing``; what keeps protocols, by their names, from using the data set."""
    unfit = {}
    if isinstance(source, Run):
        refuse_other_data([source])
    wanted = {part.layer for part in missing}
    upstream = None
    if any(isinstance(part.task, str) for part in missing) and source.pretraining_set not in (None, evaluation.dataset):
        upstream = extract(source, load(source.pretraining_set), evaluation.epoch, wanted)
    images = find(evaluation.dataset)
    features = None if evaluation.dataset in DETECTION else extract(source, images, evaluation.epoch, wanted)
    epoch = source.epochs if evaluation.epoch is None else evaluation.epoch
    for part in missing:
        rows = []
        if features is not None and part.layer not in features.layers:
            pass  # the run has no such layer: no rows
        elif isinstance(part.task, str):
            for split in ("train", "test"):
                measured = MEASURES[part.task].rows(images, features, upstream, part.layer, split)
                rows += [{"split": split} | row for row in measured]
        else:
            try:
                rows += probe(Subject(source, evaluation.epoch, images, features, part.layer), part.task)
            except InputError as error:
                unfit[part.kind] = error
                continue
        at = {"dataset": evaluation.dataset, "epoch": epoch, "layer": part.layer}
        files.write_json(part.file(source), [at | row for row in rows])
    return unfit
