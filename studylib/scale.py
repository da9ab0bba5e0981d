"""What a scale is: the sizes of all runs, the data sets they are evaluated on, and how many runs of each grid are planned."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from studylib.errors import choose, require
from studylib.method_table import METHODS
from studylib.values import build, refuse_twice

FOLDER = resources.files("studylib") / "scales"
MOST_SEEDS = 12  # ours: seeds of a row that a study may be asked for, and that are looked for beyond a scale's plan


@dataclass(frozen=True, kw_only=True)
class Modes:
    """Data of the grid ``modes``: pre-training on labels that hide others."""

    data: str
    hidden: tuple[str, ...]
    """the same images with the hidden labels; none where the scale has no such labels"""


@dataclass(frozen=True, kw_only=True)
class Regime:
    """Data of the grid ``regime``: pre-training on labels that hide more or less, until the training images are learned."""

    data: tuple[str, ...]
    """the same images with other labels; none where the scale leaves this out"""
    transfer: tuple[str, ...]
    """what transfer is measured on, the same for all of ``data``"""
    common: dict[str, Any]
    """dotted settings of every run"""
    methods: dict[str, Any]
    """dotted settings of each method"""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What SL must reach for a scale's networks to count as trained; claims are judged by no others."""

    measure: str
    """``train_linear_top1``, a linear probe's accuracy on the training images, or ``linear_top1``, on held-out ones"""
    least: float
    """in %"""

    def __post_init__(self) -> None:
        choose("gate.measure", self.measure, ("train_linear_top1", "linear_top1"))
        require("gate.least", self.least, 0 <= self.least <= 100, "is in %: must be in [0, 100]")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One file of ``studylib/scales``; data sets are named as `studylib.data.load` takes them."""

    name: str
    about: str
    """the scale in a line: data, side of the images, encoder, epochs"""
    seeds: dict[str, Any]
    """seeds of each planned grid: one number for all its rows, or a number for each planned row"""
    common: dict[str, Any]
    """dotted settings of every run; a method's own settings (`method_table`) win"""
    methods: dict[str, Any]
    """dotted settings of each method; they win over its own"""
    gate: Gate
    upstream: str
    """what is pre-trained on"""
    unseen: tuple[str, ...]
    """classes that pre-training does not have"""
    domains: tuple[str, ...]
    """other domains, and differences inside the pre-training classes"""
    stagewise: tuple[str, ...]
    """sets that are also evaluated at inner layers"""
    suite: str
    """name in `studylib.suites` of the sets of grid ``protocols``"""
    fine_tune: tuple[str, ...]
    detection: str
    trials: bool
    """whether t-ReX's protocol for small sets is carried out"""
    tuning: dict[str, Any]
    """values of settings that grid ``tuning`` tries for each method, every one with every other"""
    fine_tune_grid: bool
    """whether fine-tuning searches the benchmark's whole grid, or takes one point of it"""
    backbone: str
    """the second encoder of grid ``backbones``"""
    modes: Modes
    regime: Regime
    published: dict[str, Any]
    """as ``seeds``: runs beyond the plan that are shown where they are done, here or published, and never computed unasked"""

    def __post_init__(self) -> None:
        for method, settings in self.methods.items():
            choose(f"scales/{self.name}.yaml: method", method, METHODS)
            field = f"scales/{self.name}.yaml: methods.{method}"
            require(field, settings, isinstance(settings, dict), "must be settings with values")
        for method in self.tuning:
            choose(f"scales/{self.name}.yaml: tuning", method, METHODS)
        for grid, seeds in (*self.seeds.items(), *self.published.items()):
            counts = seeds.values() if isinstance(seeds, dict) else [seeds]
            good = all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts)
            fix = "must be a number of seeds from 0 up, or one for each row"
            require(f"scales/{self.name}.yaml: seeds.{grid}", seeds, good, fix)

    @property
    def transfer(self) -> tuple[str, ...]:
        """All sets that transfer is measured on: unseen classes, then other domains."""
        return self.unseen + self.domains


def check_seeds(count: int) -> int:
    """``count`` seeds of every row of every grid, if a study can be asked for them.

    Raises:
        InputError: it is negative.
    """
    require("seeds", count, count >= 0, "must be 0, which takes what the scale plans, or more")
    return count


def scales() -> list[str]:
    """Names of all scales, sorted; no file is read."""
    names = (file.name for file in FOLDER.iterdir() if not file.name.startswith("."))  # ._NAME.yaml is of macOS
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


@cache
def scale(name: str) -> Scale:
    """The scale ``name``.

    Raises:
        InputError: there is no such scale, or its file has an unknown, missing or mistyped field, or one twice.
    """
    text = (FOLDER / f"{choose('scale', name, scales())}.yaml").read_text(encoding="utf-8")
    refuse_twice("scale", name, text)
    return read(name, yaml.safe_load(text))


def read(name: str, content: dict[str, Any]) -> Scale:
    """The scale ``name`` from what its YAML file holds.

    Raises:
        InputError: a field is unknown (the nearest one is named), missing or of the wrong type.
    """
    return build(Scale, content | {"name": name}, f"scales/{name}.yaml: ")
