"""Embedded image sets: characters rendered from the typefaces inside Matplotlib, and scikit-learn's handwritten digits.

A class of ``glyphs`` is a letter and holds its lower and upper case in sixteen faces, so that whether an encoder keeps
differences inside a class is a transfer task (``glyphs/letters@case``, ``glyphs@face``) and not a matter of looking. Classes
of several characters (``glyphs@group``, ``glyphs@triple``) hide more: which character it is.
Some characters look alike in some faces (l and I, o and 0, Latin and Cyrillic or Greek capitals): no classifier gets them all.
"""

import functools
import hashlib
import math
from pathlib import Path

import matplotlib
import numpy
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from studylib.data import cache
from studylib.data.imageset import ImageSet
from studylib.data.splits import stratified_split
from studylib.errors import RunError

RENDERER = 2  # raised when a change here changes the images
SIDE = 32
MARGIN = 3  # ours: pixels of the doubled canvas between a character and its edge
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
CASES = ("lower", "upper")
LATIN = "abcdefghijklmnopqrstuvwxyz0123456789"
ALPHABETS = {
    "glyphs": LATIN,
    "glyphs_greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "glyphs_cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "glyphs_armenian": "աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ",
    "glyphs_georgian": "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ",
}
IMAGES = {"glyphs": (256, 64)}  # training and test images of a class: 8 and 2 of each case and face
IMAGES_TRANSFER = (48, 24)
GROUPS = {"group": 6, "triple": 3}
"""other labels of ``glyphs``, and how many of the 36 characters each of their values stands for"""
LEAST_CONTRAST = 0.35  # ours: difference of luma between ink and paper, of 1


def render(name: str) -> ImageSet:
    """The embedded set ``name``, 32 px RGB; made in seconds and kept in the cache, where a damaged file is made anew.

    The same fonts, Pillow and NumPy give the same bytes.

    Raises:
        RunError: this Matplotlib does not ship the typefaces.
    """
    classes = ALPHABETS.get(name, "0123456789")
    fonts = "" if name == "digits" else fonts_checksum()
    made_by = f"{RENDERER} Pillow {PIL.__version__} NumPy {numpy.__version__} fonts {fonts}"
    key = hashlib.sha256(f"{name} {classes} {made_by}".encode()).hexdigest()[:12]
    found = cache.keep(f"{name}-{key}", digits if name == "digits" else lambda: characters(name))
    hidden = {
        labels: (found[labels], names)
        for labels, names in (("case", CASES), ("face", FACES))
        if labels in found and (found[labels] >= 0).any()
    }
    if name == "glyphs":
        hidden |= {labels: grouped(found["labels"], size) for labels, size in GROUPS.items()}
    return ImageSet(name, found["images"], found["labels"], tuple(classes), found["split"], hidden, flip=False)


def size_of(name: str) -> tuple[int, int, int]:
    """Training images, test images and classes of an embedded set, without making it."""
    if name == "digits":
        return 1258, 539, 10
    classes = len(ALPHABETS[name])
    train, test = IMAGES.get(name, IMAGES_TRANSFER)
    return classes * train, classes * test, classes


def labels_of(name: str) -> tuple[str, ...]:
    """Names of the hidden labels of an embedded set."""
    own = {"digits": (), "glyphs_georgian": ("face",), "glyphs": ("case", "face", *GROUPS)}
    return own.get(name, ("case", "face"))


def grouped(labels: Tensor, size: int) -> tuple[Tensor, tuple[str, ...]]:
    """Labels that hide ``labels``: ``size`` characters each, drawn once and for all, and their names, such as ``2fkwy7``.

    A network that learns them alone may keep or give up the differences between the characters of a group.
    """
    drawn = numpy.random.default_rng(size).permutation(len(LATIN)).reshape(-1, size)
    number = torch.empty(len(LATIN), dtype=torch.long)
    number[torch.from_numpy(drawn)] = torch.arange(len(drawn))[:, None]
    return number[labels], tuple("".join(LATIN[letter] for letter in sorted(row)) for row in drawn)


def characters(name: str) -> dict[str, Tensor]:
    """Images, labels, split, case and face of an alphabet.

    Training and test each hold every form (case and face that has the character) of a class equally often, as far as the
    number of images allows; the forms that stand once more are drawn.
    """
    random = numpy.random.default_rng(list(name.encode()))
    rows = []
    for label, letter in enumerate(ALPHABETS[name]):
        forms = [
            (character, case, face)
            for case, character in _cases(letter)
            for face in range(len(FACES))
            if ord(character) in characters_of(face)
        ]
        if not forms:
            raise RunError(f"{name}: no typeface of this Matplotlib has {letter!r}")
        for split, count in enumerate(IMAGES.get(name, IMAGES_TRANSFER)):
            order = random.permutation(len(forms))
            rows += [(label, split, *forms[order[index % len(forms)]]) for index in range(count)]
    alpha = numpy.stack([shape(character, face, random) for _, _, character, _, face in rows])
    images = torch.from_numpy(colour(alpha, random))
    columns = {"labels": 0, "split": 1, "case": 3, "face": 4}
    return {"images": images} | {name: torch.tensor([row[at] for row in rows]) for name, at in columns.items()}


def _cases(letter: str) -> list[tuple[int, str]]:
    """(case, character) of a letter; -1 for the case of a digit or of a script without case."""
    upper = letter.upper()
    if upper == letter or len(upper) != 1 or "\u10d0" <= letter <= "\u10ff":  # Georgian capitals are no letters of their own
        return [(-1, letter)]
    return [(0, letter), (1, upper)]


def shape(character: str, face: int, random: numpy.random.Generator) -> NDArray[numpy.float32]:
    """Coverage (32, 32) in [0, 1] of one whole character, of random position, rotation (±20°) and size.

    Its em is 55 to 90 % of the side, less if it would not fit. Drawn at twice the side and averaged.
    """
    double = 2 * SIDE
    pixels, angle = int(random.integers(int(0.55 * double), int(0.9 * double) + 1)), random.uniform(-20, 20)
    drawn, box, extents = _measure(character, face, pixels, angle)
    if (most := max(extents)) > double - 2 * MARGIN:
        drawn, box, extents = _measure(character, face, int(pixels * (double - 2 * MARGIN) / most), angle)
    middle = [double / 2 + random.uniform(-1, 1) * max(0.0, (double - extent) / 2 - MARGIN) for extent in extents]
    canvas = Image.new("L", (double, double))
    corner = (middle[0] - (box[0] + box[2]) / 2, middle[1] - (box[1] + box[3]) / 2)
    ImageDraw.Draw(canvas).text(corner, character, fill=255, font=drawn)
    turned = canvas.rotate(angle, Image.Resampling.BICUBIC, center=tuple(middle))
    return numpy.asarray(turned.reduce(2), dtype=numpy.float32) / 255


def _measure(character: str, face: int, pixels: int, angle: float) -> tuple[ImageFont.FreeTypeFont, tuple, tuple]:
    """The font, the box (left, top, right, bottom) of a character, and the width and height of that box when turned."""
    drawn = font(face, pixels)
    box = drawn.getbbox(character)
    width, height, turn = box[2] - box[0], box[3] - box[1], math.radians(abs(angle))
    cos, sin = math.cos(turn), math.sin(turn)
    return drawn, box, (width * cos + height * sin, width * sin + height * cos)


def colour(alpha: NDArray[numpy.float32], random: numpy.random.Generator) -> NDArray[numpy.uint8]:
    """Images (N, 3, 32, 32): ink of one colour on paper with a gradient, and noise.

    The luma of ink and of the middle of the paper are at least 0.35 apart; the gradient takes at most 0.17 of that in a corner.
    """
    count = len(alpha)
    ink, paper = random.random((2, count, 3), dtype=numpy.float32)
    luma = numpy.array([0.299, 0.587, 0.114], dtype=numpy.float32)
    while (close := numpy.abs((ink - paper) @ luma) < LEAST_CONTRAST).any():
        ink[close], paper[close] = random.random((2, int(close.sum()), 3), dtype=numpy.float32)
    angle = random.uniform(0, 2 * numpy.pi, (count, 1, 1)).astype(numpy.float32)
    place = numpy.linspace(-1, 1, SIDE, dtype=numpy.float32)
    slope = numpy.cos(angle) * place[None, None, :] + numpy.sin(angle) * place[None, :, None]
    gradient = slope[:, None] * random.uniform(-0.12, 0.12, (count, 3, 1, 1)).astype(numpy.float32)
    images = (1 - alpha[:, None]) * (paper[:, :, None, None] + gradient) + alpha[:, None] * ink[:, :, None, None]
    images += random.normal(0, 0.04, images.shape).astype(numpy.float32)
    return (images.clip(0, 1) * 255).round().astype(numpy.uint8)


def digits() -> dict[str, Tensor]:
    """Images, labels and split of scikit-learn's handwritten digits, 8 px enlarged to 32, 30 % of each class for testing."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    small = torch.from_numpy(loaded.images).float()[:, None] / 16
    large = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
    labels = torch.from_numpy(loaded.target).long()
    split = torch.zeros_like(labels)
    split[stratified_split(labels, 0.3, seed=0)[1]] = 1
    images = (large * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return {"images": images, "labels": labels, "split": split}


@functools.cache
def font(face: int, pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_file(face)), pixels, layout_engine=ImageFont.Layout.BASIC)


def font_file(face: int) -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{FACES[face]}.ttf"


@functools.cache
def characters_of(face: int) -> frozenset[int]:
    """Code points that a face has a shape for."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file(face))).get_charmap())


@functools.cache
def fonts_checksum() -> str:
    """SHA-256 of the sixteen font files."""
    digest = hashlib.sha256()
    for face in range(len(FACES)):
        try:
            digest.update(font_file(face).read_bytes())
        except OSError as error:
            raise RunError(f"typeface {FACES[face]} is not in this Matplotlib ({error}); reinstall it with pip") from error
    return digest.hexdigest()
