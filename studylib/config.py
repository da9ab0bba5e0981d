"""The settings of a pre-training run, checked on construction, and the run id that is their hash."""

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass, field
from typing import Any

from studylib import precision
from studylib.data.augment import Augmentation
from studylib.errors import choose, require
from studylib.method_table import METHODS
from studylib.scale import scale
from studylib.values import build

SCHEMA = 2  # raised when the meaning of a setting changes, so that old runs are not taken for new ones


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A ResNet of basic or bottleneck blocks (`studylib.models.encoder`)."""

    arch: str = "resnet10"
    """resnet10, resnet18, resnet34, resnet50 or resnet101"""
    width: int = 64
    """channels of the first stage; the later stages have 2, 4 and 8 times as many (64: torchvision's networks)"""
    stem: str = "conv7"
    """conv7: 7x7 stride 2 and max-pooling (ImageNet); conv3: 3x3 stride 1 (32 px); conv3s2: 3x3 stride 2 (32 px, cheaper)"""

    def __post_init__(self) -> None:
        choose("encoder.arch", self.arch, ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101"))
        choose("encoder.stem", self.stem, ("conv7", "conv3", "conv3s2"))
        require("encoder.width", self.width, self.width >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Projector:
    """L hidden blocks of linear layer, batch norm and activation, then a linear layer; each part can be left out."""

    hidden_layers: int = 0
    """number of hidden blocks L; if ``out`` is 0, too, there is no projector. At 0 the settings of blocks (width, linear,
    batch_norm, activation, bias) have no effect"""
    width: int = 2048
    """width of the hidden linear layers"""
    out: int = 0
    """width of the last linear layer; 0: no such layer"""
    linear: bool = True
    """whether the hidden blocks have a linear layer"""
    batch_norm: bool = True
    activation: str = "relu"
    """relu, gelu or none"""
    bias: bool = True
    """bias of the hidden linear layers"""
    out_bias: bool = True
    input_l2: bool = False
    """l2-normalise the encoder's features first"""

    def __post_init__(self) -> None:
        choose("projector.activation", self.activation, ("relu", "gelu", "none"))
        require("projector.hidden_layers", self.hidden_layers, self.hidden_layers >= 0, "must be 0 or more")
        require("projector.width", self.width, self.width >= 1, "must be at least 1")
        require("projector.out", self.out, self.out >= 0, "must be 0 (no last layer) or more")

    @property
    def exists(self) -> bool:
        return self.hidden_layers > 0 or self.out > 0

    @property
    def empty(self) -> bool:
        """Whether it has hidden blocks without any layer, and no last layer."""
        return self.exists and not (self.linear or self.batch_norm or self.activation != "none" or self.out)


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """SGD with linear warm-up and a cosine to ``final_lr``, per step."""

    epochs: int = 100
    batch: int = 256
    lr: float = 0.1
    """peak learning rate for a batch of 256; scaled linearly with the batch"""
    final_lr: float = 1e-6
    warmup_epochs: float = 10.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    """on parameters of two or more dimensions only"""
    precision: str = "auto"
    """auto: bfloat16 autocast on a GPU and float32 on a CPU; float32, or tf32 on a GPU (`studylib.precision`)"""
    capture: str = "auto"
    """auto: on a GPU steps are replayed as CUDA graphs (`studylib.training.capture`); off: operation after operation"""

    def __post_init__(self) -> None:
        choose("optimisation.precision", self.precision, precision.SETTINGS)
        choose("optimisation.capture", self.capture, ("auto", "off"))
        require("optimisation.epochs", self.epochs, self.epochs >= 0, "must be 0 (keep the random start) or more")
        require("optimisation.batch", self.batch, self.batch >= 2, "must be at least 2 (batch norm needs two images)")
        require("optimisation.momentum", self.momentum, 0 <= self.momentum < 1, "must be in [0, 1)")
        require("optimisation.lr", self.lr, self.lr > 0, "must be positive")
        for name in ("final_lr", "warmup_epochs", "weight_decay"):
            require(f"optimisation.{name}", getattr(self, name), getattr(self, name) >= 0, "must be 0 or more")

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        return self.lr * self.batch / 256


@dataclass(frozen=True, kw_only=True)
class MultiCrop:
    """The number of crops of an image; local ones are smaller and cover less of it (t-ReX, papers/README.md 3.2)."""

    global_crops: int = 1
    """crops that are drawn by ``augmentation``"""
    local_crops: int = 0
    local_size: int = 0
    """side of the local crops in pixels"""
    local_scale: tuple[float, float] = (0.05, 0.25)
    """range of a local crop's share of the image's area"""
    local_blur: float = 0.0
    """probability of blurring a local crop; local crops are never solarised"""

    def __post_init__(self) -> None:
        require("multi_crop.global_crops", self.global_crops, self.global_crops >= 1, "must be at least 1")
        require("multi_crop.local_crops", self.local_crops, self.local_crops >= 0, "must be 0 or more")
        fits = self.local_size >= 1 if self.local_crops else self.local_size == 0
        fix = "must be positive with local crops, and 0 without"
        require("multi_crop.local_size", self.local_size, fits, fix)
        low, high = self.local_scale
        require(
            "multi_crop.local_scale", self.local_scale, 0 < low <= high <= 1, "must be two shares in (0, 1], the smaller first"
        )
        require("multi_crop.local_blur", self.local_blur, 0 <= self.local_blur <= 1, "is a probability: must be in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Settings of ``sl`` and ``sl_mlp``."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        require("cross_entropy.label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class Ema:
    """The second network, an exponential moving average of encoder and projector: average <- m average + (1 - m) trained."""

    momentum: float = 0.999
    """m"""
    ramp: bool = False
    """raise m to 1 along half a cosine until the end of training (BYOL, DINO)"""
    buffers: str = "own"
    """own: only parameters are averaged; the average normalises by the statistics of its own batches (the official t-ReX,
    MoCo, BYOL). average: running statistics are averaged as well, and the average normalises by them"""

    def __post_init__(self) -> None:
        require("ema.momentum", self.momentum, 0 <= self.momentum < 1, "must be in [0, 1)")
        choose("ema.buffers", self.buffers, ("own", "average"))


@dataclass(frozen=True, kw_only=True)
class Bank:
    """The ring buffer of keys made by the moving average, with labels and sample ids."""

    length: int = 8192
    start: str = "empty"
    """empty: slots that were not written are ignored; random: filled with random keys and labels (the official t-ReX)"""
    tail: str = "wrap"
    """wrap: a batch that does not fit before the end continues at the beginning; drop: its rest is lost (the official t-ReX)"""

    def __post_init__(self) -> None:
        require("bank.length", self.length, self.length >= 2, "must be at least 2")
        choose("bank.start", self.start, ("empty", "random"))
        choose("bank.tail", self.tail, ("wrap", "drop"))


@dataclass(frozen=True, kw_only=True)
class Look:
    """Settings of ``look``; all values are ours, as the paper's are unknown (papers/README.md 1.2)."""

    k: int = 200
    """number of neighbours in the loss; with the length of the bank it is soft-neighbour NCA"""
    no_positive: str = "skip"
    """anchors without a neighbour of their class: skip (as in SNCA's code), or nearest: add the nearest key of the class"""
    start: str = "falling"
    """how training starts from random weights. falling: k falls linearly from the bank's length; warmup: cross entropy
    first; ramp: the momentum rises linearly from 0; filled: no gradient until the bank is full; fixed: no change of the loss"""
    start_share: float = 0.4
    """share of the training steps that falling, warmup and ramp take"""

    def __post_init__(self) -> None:
        require("look.k", self.k, self.k >= 1, "must be at least 1")
        choose("look.no_positive", self.no_positive, ("skip", "nearest"))
        alone = self.k == 1 and self.no_positive == "skip"
        require("look.k", self.k, not alone, "one neighbour has the class or not: nothing to learn; at least 2")
        choose("look.start", self.start, ("falling", "warmup", "ramp", "filled", "fixed"))
        require("look.start_share", self.start_share, 0 < self.start_share <= 1, "must be in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class TRexPlain:
    """Settings of ``trex_plain``, t-ReX without OCM: class weights are learned."""

    weight_std: float = 0.0
    """standard deviation of the initial class weights; 0: those of nn.Linear (code:trex.py). Another value is ours: only the
    direction of a weight vector matters, and a step turns a short vector further than a long one"""

    def __post_init__(self) -> None:
        require("trex_plain.weight_std", self.weight_std, self.weight_std >= 0, "must be 0 (as nn.Linear) or more")


@dataclass(frozen=True, kw_only=True)
class Byol:
    """Settings of ``byol``."""

    width: int = 4096
    """width of the predictor's hidden layer (BYOL's for ResNet-50)"""

    def __post_init__(self) -> None:
        require("byol.width", self.width, self.width >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Dino:
    """Settings of ``dino``; ``temperature`` is the student's."""

    prototypes: int = 4096
    """number of outputs of the head; the loss compares the two networks' softmaxes over them"""
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9

    def __post_init__(self) -> None:
        require("dino.prototypes", self.prototypes, self.prototypes >= 2, "must be at least 2")
        require("dino.teacher_temperature", self.teacher_temperature, self.teacher_temperature > 0, "must be positive")
        require("dino.centre_momentum", self.centre_momentum, 0 <= self.centre_momentum < 1, "must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """What is measured during training; no choice depends on it."""

    every: int = 1
    """epochs between upstream kNN accuracies; 0 for never"""
    gallery: int = 5000
    """number of training images in which neighbours are searched, of nine tenths"""
    queries: int = 2000
    """number of training images that are classified, of the other tenth"""
    snapshots: str = "final"
    """final; ends: also the random weights; log: weights after 0, 1, 2, 4, 8, ... epochs and at the end"""

    def __post_init__(self) -> None:
        choose("monitor.snapshots", self.snapshots, ("final", "ends", "log"))
        require("monitor.every", self.every, self.every >= 0, "must be 0 (never) or more")
        for name in ("gallery", "queries"):
            require(f"monitor.{name}", getattr(self, name), getattr(self, name) >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines the weights and metrics of a pre-training run."""

    method: str
    seed: int
    data: str
    """name of a data set, optionally with a part of its classes, such as ``cifar100/natural``"""
    encoder: Encoder = field(default_factory=Encoder)
    projector: Projector = field(default_factory=Projector)
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimisation: Optimisation = field(default_factory=Optimisation)
    multi_crop: MultiCrop = field(default_factory=MultiCrop)
    temperature: float = 0.1
    """τ of the losses on cosine similarities"""
    cross_entropy: CrossEntropy = field(default_factory=CrossEntropy)
    ema: Ema = field(default_factory=Ema)
    bank: Bank = field(default_factory=Bank)
    look: Look = field(default_factory=Look)
    trex_plain: TRexPlain = field(default_factory=TRexPlain)
    byol: Byol = field(default_factory=Byol)
    dino: Dino = field(default_factory=Dino)
    monitor: Monitor = field(default_factory=Monitor)

    def __post_init__(self) -> None:
        choose("method", self.method, METHODS)
        require("seed", self.seed, 0 <= self.seed < 2**32, "must be in [0, 2^32)")
        require("temperature", self.temperature, self.temperature > 0, "must be positive")
        if self.method == "sl":
            require("projector", "given", not self.projector.exists, "sl has none; use method=sl_mlp")
        if self.method == "sl_mlp":
            require("projector", "none", self.projector.exists, "sl_mlp needs one; use method=sl for none")
        fix = "the blocks would be empty, and there is no last layer"
        require("projector.hidden_layers", self.projector.hidden_layers, not self.projector.empty, fix)
        row = METHODS[self.method]
        given = changed(self)
        for name in sorted({name for other in METHODS.values() for name in other.groups} - set(row.groups)):
            fix = f"{self.method} does not use it; its own settings are {', '.join(row.groups)}"
            require(name, given.get(name), name not in given, fix)
        crops, (least, most) = self.multi_crop.global_crops, row.views
        wanted = "two views: must be 2" if least == most else f"views: at least {least}"
        require("multi_crop.global_crops", crops, least <= crops <= most, f"{self.method} compares {wanted}")
        local = self.multi_crop.local_crops
        require("multi_crop.local_crops", local, row.local_crops or local == 0, f"{self.method} uses none: must be 0")
        if "bank" in row.groups:
            length, batch = self.bank.length, self.optimisation.batch
            require("bank.length", length, length >= batch, f"must hold at least one batch of {batch}")
        if "look" in row.groups:
            require("look.k", self.look.k, self.look.k <= self.bank.length, f"is more than bank.length={self.bank.length}")
            waits = self.look.start != "filled" or self.bank.start == "empty"
            require("look.start", self.look.start, waits, f"waits for nothing with bank.start={self.bank.start}")

    @property
    def id(self) -> str:
        """Ten hexadecimal digits that name the run.

        Settings at their default are not part of the hash, so that a new setting leaves the ids of old runs as they are;
        ``training.record`` compares the whole stored configuration, so that a changed default is refused.
        """
        content = json.dumps([SCHEMA, changed(self)], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.method}-{self.id}"


def to_dict(config: Any) -> dict[str, Any]:
    """The settings as nested dictionaries of JSON types."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def changed(config: Any) -> dict[str, Any]:
    """The settings that differ from their defaults, as nested dictionaries of JSON types."""
    given = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            if inner := changed(value):
                given[item.name] = inner
        elif item.default is dataclasses.MISSING or value != item.default:
            given[item.name] = list(value) if isinstance(value, tuple) else value
    return given


def from_dict(settings: dict[str, Any]) -> RunConfig:
    """The configuration whose ``to_dict`` or ``changed`` gave ``settings``."""
    return build(RunConfig, settings)


def field_names(kind: type = RunConfig, prefix: str = "") -> dict[str, Any]:
    """Dotted names of all settings with their types."""
    names = {}
    for name, hint in typing.get_type_hints(kind).items():
        names |= field_names(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else {prefix + name: hint}
    return names


def resolve(scale_name: str, method: str, seed: int = 0, overrides: dict[str, Any] | None = None) -> RunConfig:
    """The run of ``method`` with ``seed`` at a scale, with dotted ``overrides`` such as ``{"projector.width": 512}``.

    Later ones win: defaults, the scale's settings of all runs, the method's own (`method_table`), the scale's of the method,
    ``overrides``.

    Raises:
        InputError: unknown scale, method or setting, wrong type, value out of range.
    """
    content = scale(scale_name)
    row = METHODS[choose("method", method, METHODS)]
    file = f"scales/{scale_name}.yaml"
    sources = {
        f"{file}: common": content.common,
        f"method_table: {method}": row.settings,
        f"{file}: {method}": content.methods.get(method, {}),
        "parameter": overrides or {},
    }
    settings: dict[str, Any] = {}
    names = field_names()
    for source, given in sources.items():
        for dotted, value in given.items():
            full = [name for name in names if name.endswith(f".{dotted}")]
            require(source, dotted, dotted in names or not full, f"write {' or '.join(full)}")
            choose(source, dotted, names)
            require(source, dotted, dotted not in ("method", "seed"), f"use --{dotted}")
            group, _, name = dotted.rpartition(".")
            (settings.setdefault(group, {}) if group else settings)[name] = value
    config = from_dict(settings | {"method": method, "seed": seed})
    refuse_idle(config)
    return config


def refuse_idle(config: RunConfig) -> None:
    """Raise an `InputError` if a schedule of a new run never peaks, falls or ends; what is stored stays readable."""
    chosen, look = config.optimisation, config.look
    falls = chosen.epochs == 0 or chosen.warmup_epochs < chosen.epochs
    fix = f"must be less than optimisation.epochs={chosen.epochs}, or the rate never falls"
    require("optimisation.warmup_epochs", chosen.warmup_epochs, falls, fix)
    fix = f"must be at most the peak, optimisation.lr · batch / 256 = {chosen.peak:g}, or the rate rises to the end"
    require("optimisation.final_lr", chosen.final_lr, chosen.final_lr <= chosen.peak * (1 + 1e-9), fix)
    ends = look.start != "warmup" or look.start_share < 1
    require("look.start_share", look.start_share, ends, "must be below 1 with look.start=warmup, or no step has LOOK's loss")
