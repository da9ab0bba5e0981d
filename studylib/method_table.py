"""The methods: one row each, with everything that tells one from the others except its loss.

To add a method: its file in `studylib.methods`, a row here, its sizes in ``studylib/scales/*.yaml``, and a test of its loss;
a method with settings that no other has also gets a dataclass in `studylib.config`. This module imports no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Style:
    """How figures and tables show a method: its name, its colour and Matplotlib's marker."""

    label: str
    colour: str
    marker: str


@dataclass(frozen=True, kw_only=True)
class MethodRow(Style):
    """What is known of a method without building it."""

    implementation: str
    """the family's class as ``file.Class`` in `studylib.methods`; methods of one family differ in their settings"""
    uses_labels: bool
    paper: str = ""
    """key in `studylib.papers` of the paper whose main results compare the method; empty for ablations and other methods"""
    groups: tuple[str, ...] = ()
    """groups of settings of `RunConfig` that the method uses beside those of every run; others are refused, not ignored"""
    views: tuple[int, float] = (1, math.inf)
    """least and largest number of global crops that the loss is defined for"""
    local_crops: bool = True
    """whether the loss is defined for local crops"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """dotted settings that make the method what it is, at every scale: the shape of its projector, its crops, its second
    network. A scale adds widths, lengths, rates and sizes, and can override these"""


TREX_PROJECTOR = {
    "projector.activation": "gelu",
    "projector.input_l2": True,
    "projector.out_bias": False,
}  # papers/README.md 3.1
TREX_CROPS = {"augmentation.crop_scale": (0.25, 1.0), "multi_crop.local_scale": (0.05, 0.25)}
PAIR = {"projector.hidden_layers": 1, "multi_crop.global_crops": 2}

# In the order of all figures, legends and tables. Colours by Okabe-Ito and Paul Tol, told apart with all common kinds of colour
# vision; markers differ as well.
METHODS = {
    "sl": MethodRow(
        label="SL",
        colour="#D55E00",
        marker="o",
        implementation="cross_entropy.CrossEntropy",
        uses_labels=True,
        paper="sl_mlp",
        groups=("cross_entropy", "multi_crop"),
    ),
    "sl_mlp": MethodRow(
        label="SL-MLP",
        colour="#0072B2",
        marker="s",
        implementation="cross_entropy.CrossEntropy",
        uses_labels=True,
        paper="sl_mlp",
        groups=("cross_entropy", "multi_crop"),
        settings={"projector.hidden_layers": 1},
    ),
    "look": MethodRow(
        label="LOOK",
        colour="#009E73",
        marker="D",
        implementation="look.Look",
        uses_labels=True,
        paper="look",
        groups=("look", "bank", "ema", "temperature", "multi_crop"),
        settings={"projector.hidden_layers": 1},  # ours: the paper's projector is unknown (papers/README.md 1.2)
    ),
    "trex": MethodRow(
        label="t-ReX",
        colour="#AA3377",
        marker="^",
        implementation="trex.TRex",
        uses_labels=True,
        paper="trex",
        groups=("bank", "ema", "temperature", "multi_crop"),
        settings=TREX_PROJECTOR | TREX_CROPS | {"projector.hidden_layers": 3},
    ),
    "trex_star": MethodRow(
        label="t-ReX*",
        colour="#5B2A86",
        marker="v",
        implementation="trex.TRex",
        uses_labels=True,
        paper="trex",
        groups=("bank", "ema", "temperature", "multi_crop"),
        settings=TREX_PROJECTOR
        | {"projector.hidden_layers": 1, "augmentation.crop_scale": (0.40, 1.0), "multi_crop.local_scale": (0.05, 0.40)},
    ),
    "trex_plain": MethodRow(
        label="t-ReX, no OCM",
        colour="#D98CB3",
        marker="d",
        implementation="trex.TRex",
        uses_labels=True,
        groups=("trex_plain", "temperature", "multi_crop"),
        settings=TREX_PROJECTOR | TREX_CROPS | {"projector.hidden_layers": 3},
    ),
    "supcon": MethodRow(
        label="SupCon",
        colour="#E69F00",
        marker="P",
        implementation="contrastive.Contrastive",
        uses_labels=True,
        groups=("temperature", "multi_crop"),
        views=(2, math.inf),
        settings=PAIR,
    ),
    "simclr": MethodRow(
        label="SimCLR",
        colour="#56B4E9",
        marker="X",
        implementation="contrastive.Contrastive",
        uses_labels=False,
        groups=("temperature", "multi_crop"),
        views=(2, math.inf),
        settings=PAIR | {"temperature": 0.2},
    ),
    "moco_v1": MethodRow(
        label="MoCo v1",
        colour="#5233CC",
        marker="<",
        implementation="moco.MoCo",
        uses_labels=False,
        groups=("bank", "ema", "temperature", "multi_crop"),
        views=(2, 2),
        local_crops=False,
        settings={"multi_crop.global_crops": 2, "temperature": 0.07},  # a linear layer as projector
    ),
    "moco_v2": MethodRow(
        label="MoCo v2",
        colour="#465928",
        marker="p",
        implementation="moco.MoCo",
        uses_labels=False,
        groups=("bank", "ema", "temperature", "multi_crop"),
        views=(2, 2),
        local_crops=False,
        settings=PAIR | {"temperature": 0.2},
    ),
    "byol": MethodRow(
        label="BYOL",
        colour="#117766",
        marker=">",
        implementation="byol.Byol",
        uses_labels=False,
        groups=("byol", "ema", "multi_crop"),
        views=(2, 2),
        local_crops=False,
        settings=PAIR | {"ema.ramp": True},
    ),
    "dino": MethodRow(
        label="DINO",
        colour="#222222",
        marker="h",
        implementation="dino.Dino",
        uses_labels=False,
        groups=("dino", "ema", "temperature", "multi_crop"),
        views=(2, 2),
        settings=PAIR | {"ema.ramp": True},
    ),
}

OF_THE_PAPERS = tuple(name for name, row in METHODS.items() if row.paper)
"""SL and the methods that the three papers propose"""
USING_LABELS = tuple(name for name, row in METHODS.items() if row.uses_labels)
