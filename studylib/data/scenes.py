"""An embedded detection set: scenes of Greek letters in the typefaces that Matplotlib ships, with tight boxes.

As in ``glyphs``, a class is a letter in both cases and sixteen faces, and training and test scenes draw from the same forms;
the letters are those whose capitals are no Latin ones, so that pre-training on ``glyphs`` has seen none of them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from studylib.data import cache, glyphs
from studylib.errors import require

RENDERER = 1  # raised when a change here changes the scenes
LETTERS = "γδθλξπσφψω"
# All that follows is ours.
SIDE = 64
COUNT = (1, 6)  # letters of a scene; fewer where no free place is found
SIZE = (10, 28)  # longer side of a letter in pixels
TURN = 20  # degrees to either side, as in glyphs
INK = 0.25  # coverage from which a pixel belongs to a letter
OVERLAP = 0.15  # largest part of a box that another box covers; ink never covers ink
PLACES = 20  # tried for a letter
DRAWN = 96  # pixels of the em before it is reduced


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images with boxes, divided into training and test rows; offers what `studylib.transfer.detection` reads."""

    name: str
    images: Tensor
    """(N, 3, H, W) uint8"""
    boxes: Sequence[Tensor]
    """N tensors (n, 4) float32: x1, y1, x2, y2 in pixels, where x2 and y2 are the first column and row beyond the ink"""
    labels: Sequence[Tensor]
    """N tensors (n,) int64 in 0 ... C - 1"""
    split: Tensor
    """(N,) int64: 0 train, 1 test"""
    classes: tuple[str, ...]
    flip: bool = False
    """whether a mirrored object is of the same class"""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def size(self) -> int:
        """The shorter side of the images in pixels."""
        return min(self.images.shape[-2:])

    @property
    def train(self) -> "Scenes":
        """The training rows."""
        return self.select((self.split == 0).nonzero()[:, 0])

    @property
    def test(self) -> "Scenes":
        """The test rows."""
        return self.select((self.split == 1).nonzero()[:, 0])

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of images, boxes, labels and split, hexadecimal."""
        return cache.checksum((self.images, *self.boxes, *self.labels, self.split))

    def select(self, rows: Tensor) -> "Scenes":
        """The given rows (a tensor of indices), in that order, with all classes."""
        boxes, labels = ([values[row] for row in rows.tolist()] for values in (self.boxes, self.labels))
        return Scenes(self.name, self.images[rows], boxes, labels, self.split[rows], self.classes, self.flip)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Image (3, H, W) float32 in [0, 1], and its ``boxes`` (n, 4) and ``labels`` (n,)."""
        return self.images[index].float() / 255, {"boxes": self.boxes[index], "labels": self.labels[index]}


def render(train: int = 300, test: int = 200, seed: int = 0) -> Scenes:
    """The embedded scenes, 64 px RGB, 1 to 6 letters of 10 classes each; made in seconds and kept in the cache.

    A scene depends on the seed, its part and its place in it alone: more scenes leave the first ones as they are. The same
    fonts, Pillow and NumPy give the same bytes.

    Raises:
        InputError: a part is empty, or the seed is negative.
        RunError: this Matplotlib does not ship the typefaces.
    """
    for field, value, least in (("scenes.train", train, 1), ("scenes.test", test, 1), ("scenes.seed", seed, 0)):
        require(field, value, value >= least, f"must be at least {least}")
    made_by = f"{RENDERER} Pillow {PIL.__version__} NumPy {numpy.__version__} fonts {glyphs.fonts_checksum()}"
    key = hashlib.sha256(f"{LETTERS} {train} {test} {seed} {made_by}".encode()).hexdigest()[:12]
    found = cache.keep(f"scenes-{key}", lambda: _scenes((train, test), seed))
    boxes, labels = (found[name].split(found["counts"].tolist()) for name in ("boxes", "labels"))
    return Scenes("scenes", found["images"], boxes, labels, found["split"], tuple(LETTERS))


def _scenes(parts: tuple[int, int], seed: int) -> dict[str, Tensor]:
    """Images, split and counts (N,), boxes (M, 4) and labels (M,) of all scenes one after the other."""
    made = [scene(seed, split, index) for split, count in enumerate(parts) for index in range(count)]
    images, boxes, labels = zip(*made, strict=True)
    return {
        "images": torch.from_numpy(numpy.stack(images)),
        "boxes": torch.from_numpy(numpy.concatenate(boxes)),
        "labels": torch.from_numpy(numpy.concatenate(labels)),
        "counts": torch.tensor([len(values) for values in labels]),
        "split": torch.tensor([split for split, count in enumerate(parts) for _ in range(count)]),
    }


def scene(seed: int, split: int, index: int) -> tuple[NDArray[numpy.uint8], NDArray[numpy.float32], NDArray[numpy.int64]]:
    """Image (3, 64, 64), boxes (n, 4) and labels (n,) of one scene."""
    random = numpy.random.default_rng([seed, split, index])
    layers, boxes, labels = place(random)
    return colour(layers, random), boxes, labels


def place(
    random: numpy.random.Generator,
) -> tuple[NDArray[numpy.float32], NDArray[numpy.float32], NDArray[numpy.int64]]:
    """Coverages (n, 64, 64) in [0, 1] of the letters of a scene, their boxes (n, 4) and labels (n,)."""
    layers, boxes, labels = [], [], []
    for _ in range(random.integers(COUNT[0], COUNT[1] + 1)):
        label, face = int(random.integers(len(LETTERS))), int(random.integers(len(glyphs.FACES)))
        character = (LETTERS[label], LETTERS[label].upper())[random.integers(2)]
        drawn = letter(character, face, int(random.integers(SIZE[0], SIZE[1] + 1)), random.uniform(-TURN, TURN))
        height, width = drawn.shape
        for _ in range(PLACES):
            x, y = int(random.integers(SIDE - width + 1)), int(random.integers(SIDE - height + 1))
            box = numpy.array([x, y, x + width, y + height], dtype=numpy.float32)
            layer = numpy.zeros((SIDE, SIDE), dtype=numpy.float32)
            layer[y : y + height, x : x + width] = drawn
            if all(covered(box, other) <= OVERLAP for other in boxes) and not any((layer * other).any() for other in layers):
                layers, boxes, labels = [*layers, layer], [*boxes, box], [*labels, label]
                break
    return numpy.stack(layers), numpy.stack(boxes), numpy.array(labels)


def letter(character: str, face: int, size: int, angle: float) -> NDArray[numpy.float32]:
    """Coverage (h, w) in [0, 1] of a character turned by ``angle`` degrees, cut to its ink.

    The longer side is ``size``, or a little less where a thin end fades below `INK` when it is reduced.
    """
    canvas = Image.new("L", (2 * DRAWN, 2 * DRAWN))
    ImageDraw.Draw(canvas).text((DRAWN, DRAWN), character, fill=255, font=glyphs.font(face, DRAWN), anchor="mm")
    turned = canvas.rotate(angle, Image.Resampling.BICUBIC)
    turned = turned.crop(turned.getbbox())
    scale = size / max(turned.size)
    small = turned.resize([max(1, round(side * scale)) for side in turned.size], Image.Resampling.BILINEAR)
    coverage = numpy.asarray(small, dtype=numpy.float32) / 255
    rows, columns = ((coverage >= INK).any(axis).nonzero()[0] for axis in (1, 0))
    return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def covered(box: NDArray[numpy.float32], other: NDArray[numpy.float32]) -> float:
    """Area that two boxes share, as a part of the smaller box."""
    sides = numpy.minimum(box[2:], other[2:]) - numpy.maximum(box[:2], other[:2])
    area = min(float((values[2:] - values[:2]).prod()) for values in (box, other))
    return float(sides.clip(0).prod()) / area


def colour(layers: NDArray[numpy.float32], random: numpy.random.Generator) -> NDArray[numpy.uint8]:
    """Image (3, 64, 64): each letter in an ink of its own on paper with a gradient and stains, and noise.

    The luma of each ink and of the middle of the paper are at least 0.35 apart, as in glyphs.
    """
    luma = numpy.array([0.299, 0.587, 0.114])
    paper, angle = random.random(3), random.uniform(0, 2 * numpy.pi)
    slope = numpy.linspace(-1, 1, SIDE)
    gradient = (numpy.cos(angle) * slope[None] + numpy.sin(angle) * slope[:, None]) * random.uniform(-0.12, 0.12, (3, 1, 1))
    stains = Image.fromarray(random.uniform(-0.06, 0.06, (9, 9)).astype(numpy.float32))
    image = paper[:, None, None] + gradient + numpy.asarray(stains.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    for layer in layers:
        while abs((ink := random.random(3)) @ luma - paper @ luma) < glyphs.LEAST_CONTRAST:
            pass
        image = (1 - layer) * image + layer * ink[:, None, None]
    return ((image + random.normal(0, 0.04, image.shape)).clip(0, 1) * 255).round().astype(numpy.uint8)
