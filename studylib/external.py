"""Encoders that were trained elsewhere: torchvision's weights, the released t-ReX files, or what `studylib export` wrote.

Any file with a ResNet under torchvision's names, however deep it lies inside a checkpoint, is evaluated as our own runs are.
"""

import argparse
import hashlib
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from studylib import config, files, paths
from studylib.errors import InputError, choose, require
from studylib.models.encoder import BLOCKS, STAGES, Encoder, Normalise

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's constants
HEADS = ("fc.", "classifier.", "head.")
CONSTANTS = "studylib"  # name among a state dict's metadata, which load_state_dict reads by the names of modules


@dataclass(frozen=True)
class External:
    """An encoder in a file; offers what `studylib.evaluation.features` and `studylib.evaluation.evaluate` need of a run."""

    file: Path
    size: int | None = None
    """side of the images it gets, in pixels; this and what follows are by default what `studylib export` wrote into the file or
    else torchvision's: 224 px and ImageNet's constants"""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    stem: str = ""
    """conv3 or conv3s2 where the first convolution is 3x3: in the file of another its stride is not said"""
    which: str = ""
    """name (`networks`) of the one to read where the file holds several; by default the one with the shortest prefix"""

    pretraining_set = None
    trained = ""  # the name tells weights apart
    layers = STAGES
    epochs = None

    @cached_property
    def name(self) -> str:
        """Names the cached results: the file's name and a checksum of its content and of how images are prepared."""
        known = self.constants
        prepared = f"{known['size']} {known['mean']} {known['std']} {known['stem']}{self.which and f' {self.which}'}".encode()
        return f"{self.file.stem}-{hashlib.sha256(self.file.read_bytes() + prepared).hexdigest()[:10]}"

    @cached_property
    def constants(self) -> dict[str, Any]:
        """``size``, ``mean``, ``std`` and ``stem``: what is given, else what the file carries, else torchvision's.

        Raises:
            InputError: the file is not there or cannot be read.
        """
        carried = getattr(read(self.file), "_metadata", {}).get(CONSTANTS, {})
        given = {"size": self.size, "mean": self.mean, "std": self.std, "stem": self.stem or None}
        usual = {"size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "stem": ""}
        return usual | carried | {name: value for name, value in given.items() if value is not None}

    @property
    def choice(self) -> str:
        """A sentence on which network is read, and which are not, of a file that holds several; else empty.

        Raises:
            InputError: the file cannot be read, or holds no network that is called ``which``.
        """
        chosen, *others = [found.name for found in networks(self.file, self.which)]
        return f"{self.file.name}: {chosen} is read; it also holds {', '.join(others)}" if others else ""

    @property
    def folder(self) -> Path:
        return paths.runs() / "external" / self.name

    def snapshot(self, epoch: int | None = None) -> Path:
        """The file itself.

        Raises:
            InputError: an epoch is asked for; a file has none.
        """
        require("epoch", epoch, epoch is None, f"{self.file.name} holds one moment only; leave the epoch out")
        return self.file

    def network(self, epoch: int | None, device: torch.device) -> tuple["Network", int]:
        """The encoder behind its normalisation, in eval mode, and the side of the images it gets.

        Raises:
            InputError: the file cannot be read without running code, or holds no ResNet that we know.
        """
        known = self.constants
        settings, weights = read_encoder(self.file, known["stem"], self.which)
        encoder = Encoder(settings)
        encoder.load_state_dict(weights)
        network = Network(Normalise(torch.tensor(known["mean"]), torch.tensor(known["std"])), encoder)
        return network.to(device).eval(), known["size"]


class Network(nn.Module):
    """What a file holds, with the names of our own methods (`studylib.methods.Method`)."""

    def __init__(self, normalise: Normalise, encoder: Encoder):
        super().__init__()
        self.normalise, self.encoder = normalise, encoder

    def class_vectors(self) -> None:
        """None: heads are dropped."""

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """The five stages (B, d) of images (B, 3, S, S) in [0, 1]."""
        return self.encoder.stages(self.normalise(images))


def read_encoder(file: Path, stem: str = "", which: str = "") -> tuple[config.Encoder, dict[str, Tensor]]:
    """Architecture and weights of the ResNet in ``file``; only tensors and plain values are read, no code is run.

    The network is found by its names, below any prefix (``module.encoder.``) and any level of the checkpoint; ``which`` is
    its name where there are several (`networks`). What else stands under that prefix must be a head (``fc`` and the like),
    which is dropped, or another network.

    Raises:
        InputError: unreadable, no ResNet, one that we do not know, or keys that would be left over or are missing.
    """
    found, *others = networks(file, which)
    inner = [one for one in others if one.tensors is found.tensors and one.prefix.startswith(found.prefix)]
    dropped = (*HEADS, *(one.prefix.removeprefix(found.prefix) for one in inner))
    own = {name.removeprefix(found.prefix): value for name, value in found.tensors.items() if name.startswith(found.prefix)}
    own = {name: value for name, value in own.items() if not name.startswith(dropped)}
    settings = architecture(file, own, stem)
    expected = Encoder(settings).state_dict()
    missing = [name for name in expected if name not in own and not name.endswith("num_batches_tracked")]
    strange = [name for name in own if name not in expected]
    wrong = [name for name in expected if name in own and own[name].shape != expected[name].shape]
    for what, names in (("lacks", missing), ("has unknown", strange), ("has other shapes of", wrong)):
        if names:
            raise InputError("encoder", str(file), f"{what} {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}")
    return settings, {name: own.get(name, value) for name, value in expected.items()}


def read(file: Path) -> Any:
    """What a checkpoint holds; only tensors and plain values are read, no code is run.

    Raises:
        InputError: it is not there, or cannot be read that way.
    """
    require("encoder", str(file), file.is_file(), "is not a file")
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
        files.refuse_bomb(sum(item.file_size for item in archive.infolist()), "encoder", file)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # full t-ReX checkpoints hold their arguments
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError("encoder", str(file), f"cannot be read without running code in it: {what}") from error


class Found(NamedTuple):
    """A ResNet in a checkpoint."""

    name: str
    """the way to it through the nested dictionaries and its prefix there: ``state_dict.module.encoder``; ``.`` for neither"""
    prefix: str
    """of its tensors' names"""
    tensors: dict[str, Tensor]
    """the state dict that it is in"""


def networks(file: Path, which: str = "") -> list[Found]:
    """The ResNets in ``file``: first the one called ``which``, by default that with the shortest prefix, then the others.

    Raises:
        InputError: the file cannot be read, or holds no ResNet, or none of that name.
    """
    found = sorted(nested(read(file)), key=lambda one: len(one.prefix))
    require("encoder", str(file), found, "holds no ResNet under torchvision's names (conv1.weight, layer1.0.conv1.weight)")
    chosen = choose("network", which, [one.name for one in found]) if which else found[0].name
    return sorted(found, key=lambda one: one.name != chosen)


def nested(content: Any, way: str = "") -> list[Found]:
    """Every ResNet in a checkpoint's nested dictionaries, which ``way`` led to."""
    if not isinstance(content, dict):
        return []
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    starts = [name.removesuffix("conv1.weight") for name in tensors if name.endswith("conv1.weight")]
    starts = [start for start in starts if f"{start}layer1.0.conv1.weight" in tensors]
    found = [Found(f"{way}{start}".rstrip(".") or ".", start, tensors) for start in starts]
    return found + [one for name, value in content.items() for one in nested(value, f"{way}{name}.")]


def architecture(file: Path, tensors: dict[str, Tensor], stem: str) -> config.Encoder:
    """The settings that describe a ResNet's state dict."""
    blocks = [len({name.split(".")[1] for name in tensors if name.startswith(f"layer{stage}.")}) for stage in range(1, 5)]
    bottleneck = "layer1.0.conv3.weight" in tensors
    known = {(count, block == "Bottleneck"): arch for arch, (block, count) in BLOCKS.items()}
    arch = known.get((tuple(blocks), bottleneck))
    require("encoder", str(file), arch is not None, f"is a ResNet of {blocks} blocks; known are {', '.join(BLOCKS)}")
    if not stem:
        if tensors["conv1.weight"].shape[-1] != 7:
            raise InputError("stem", stem, "the first convolution is 3x3: say conv3 (stride 1) or conv3s2 (stride 2)")
        stem = "conv7"
    return config.Encoder(arch=arch, width=len(tensors["conv1.weight"]), stem=stem)
