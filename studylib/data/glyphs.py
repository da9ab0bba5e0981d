"""Embedded image sets: characters rendered from the typefaces inside Matplotlib, and scikit-learn's handwritten digits.

A class of ``glyphs`` is a letter and holds its lower and upper case in sixteen faces, so that whether an encoder keeps
differences inside a class is a transfer task (``glyphs/letters@case``, ``glyphs@face``) and not a matter of looking.
"""

import hashlib
from functools import cache
from pathlib import Path

import matplotlib
import numpy
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from studylib import files, paths
from studylib.data.imageset import ImageSet
from studylib.data.splits import stratified_split
from studylib.errors import RunError

RENDERER = 1  # raised when a change here changes the images
SIDE = 32
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
LEAST_CONTRAST = 0.35  # ours: difference of luma between ink and paper, of 1


def render(name: str) -> ImageSet:
    """The embedded set ``name``, 32 px RGB; made in seconds and kept in the cache, where a damaged file is made anew.

    The same fonts, Pillow and NumPy give the same bytes.
    """
    make = digits if name == "digits" else lambda: characters(name)
    fonts = "" if name == "digits" else fonts_checksum()
    key = hashlib.sha256(f"{RENDERER} {name} {fonts}".encode()).hexdigest()[:12]
    cached = paths.cache() / "data" / f"{name}-{key}.pt"
    if not (found := _read(cached)):
        made = make()
        found = {"images": made.images, "labels": made.labels, "split": made.split, "checksum": made.checksum}
        found |= {"classes": list(made.classes), "hidden": {k: [v, list(names)] for k, (v, names) in made.hidden.items()}}
        files.write(cached, lambda out: torch.save(found, out))
    hidden = {labels: (values, tuple(names)) for labels, (values, names) in found["hidden"].items()}
    return ImageSet(name, found["images"], found["labels"], tuple(found["classes"]), found["split"], hidden, flip=False)


def _read(file: Path) -> dict | None:
    """What the cache holds, or nothing when it is missing or damaged."""
    try:
        found = torch.load(file, weights_only=True)
    except Exception:
        return None
    same = ImageSet("", found["images"], found["labels"], (), found["split"]).checksum == found["checksum"]
    return found if same else None


def characters(name: str) -> ImageSet:
    """Every character of an alphabet in every case and face that has it, equally often in training and test."""
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
    labels, split, case, face = (torch.tensor([row[column] for row in rows]) for column in (0, 1, 3, 4))
    hidden = {"case": (case, CASES), "face": (face, FACES)}
    return ImageSet(name, images, labels, tuple(ALPHABETS[name]), split, hidden, flip=False)


def _cases(letter: str) -> list[tuple[int, str]]:
    """(case, character) of a letter; -1 for the case of a digit or of a script without case."""
    upper = letter.upper()
    if upper == letter or len(upper) != 1 or "\u10d0" <= letter <= "\u10ff":  # Georgian capitals are no letters of their own
        return [(-1, letter)]
    return [(0, letter), (1, upper)]


def shape(character: str, face: int, random: numpy.random.Generator) -> NDArray[numpy.float32]:
    """Coverage (32, 32) in [0, 1] of one character of random size (55 to 90 % of the side), position and rotation (±20°)."""
    double = 2 * SIDE
    drawn = font(face, int(random.integers(int(0.55 * double), int(0.9 * double) + 1)))
    left, top, right, bottom = drawn.getbbox(character)
    canvas = Image.new("L", (double, double))
    room = [max(0.0, (double - extent) / 2 - 4) for extent in (right - left, bottom - top)]
    middle = [double / 2 + random.uniform(-1, 1) * space for space in room]
    ImageDraw.Draw(canvas).text((middle[0] - (left + right) / 2, middle[1] - (top + bottom) / 2), character, fill=255, font=drawn)
    turned = canvas.rotate(random.uniform(-20, 20), Image.Resampling.BICUBIC, center=tuple(middle))
    return numpy.asarray(turned.reduce(2), dtype=numpy.float32) / 255


def colour(alpha: NDArray[numpy.float32], random: numpy.random.Generator) -> NDArray[numpy.uint8]:
    """Images (N, 3, 32, 32): ink of one colour on paper with a gradient, and noise; luma of both at least 0.35 apart."""
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


def digits() -> ImageSet:
    """scikit-learn's handwritten digits, 8 px enlarged to 32, 30 % of each class for testing."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    small = torch.from_numpy(loaded.images).float()[:, None] / 16
    large = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
    labels = torch.from_numpy(loaded.target).long()
    split = torch.zeros_like(labels)
    split[stratified_split(labels, 0.3, seed=0)[1]] = 1
    images = (large * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return ImageSet("digits", images, labels, tuple(map(str, range(10))), split, flip=False)


@cache
def font(face: int, pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_file(face)), pixels)


def font_file(face: int) -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{FACES[face]}.ttf"


@cache
def characters_of(face: int) -> frozenset[int]:
    """Code points that a face has a shape for."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file(face))).get_charmap())


@cache
def fonts_checksum() -> str:
    """SHA-256 of the sixteen font files."""
    digest = hashlib.sha256()
    for face in range(len(FACES)):
        digest.update(font_file(face).read_bytes())
    return digest.hexdigest()
