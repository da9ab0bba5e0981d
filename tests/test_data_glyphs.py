"""Embedded sets: the same bytes each time, every class in both parts, hidden labels, no missing or clipped character."""

import hashlib
import math
import multiprocessing

import numpy
import pytest
import torch
from PIL import ImageFont

from studylib import data, paths
from studylib.data import cache, glyphs
from studylib.errors import InputError, RunError

SETS = ("glyphs", "glyphs_greek", "glyphs_cyrillic", "glyphs_armenian", "glyphs_georgian")
LUMA = torch.tensor([0.299, 0.587, 0.114])


@pytest.fixture
def shared(tmp_path, monkeypatch, glyph_cache):
    """An empty runs folder that shares the rendered glyphs."""
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cache").symlink_to(glyph_cache)


def _digest(tensors) -> str:
    return hashlib.sha256(b"".join(values.numpy().tobytes() for values in tensors.values())).hexdigest()


def _rendered(name: str) -> str:
    return _digest(glyphs.characters(name))


@pytest.mark.slow
def test_same_bytes_in_another_process_and_other_bytes_for_another_name(shared):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_rendered, ("glyphs_georgian",))
    made = glyphs.characters("glyphs_georgian")
    assert there == _digest(made)
    assert torch.equal(data.load("glyphs_georgian").images, made["images"])  # if not, RENDERER has to be raised
    random = [numpy.random.default_rng(list(name.encode())).random() for name in SETS]
    assert len(set(random)) == len(SETS)


@pytest.mark.parametrize("name", [*SETS, "digits"])
def test_every_class_is_in_both_parts_in_the_announced_numbers(shared, name):
    images = data.load(name)
    assert images.images.shape == (len(images.labels), 3, 32, 32)
    assert (images.images.dtype, images.labels.dtype, images.split.dtype) == (torch.uint8, torch.int64, torch.int64)
    assert not images.flip
    assert glyphs.size_of(name) == (len(images.train.labels), len(images.test.labels), images.num_classes)
    assert glyphs.labels_of(name) == tuple(images.hidden)
    for part in (images.train, images.test):
        counts = torch.bincount(part.labels, minlength=images.num_classes)
        assert len(counts) == images.num_classes
        assert counts.min() == counts.max() or (name == "digits" and counts.min() > 50)


def test_latin_holds_every_case_and_face_equally_often(shared):
    images = data.load("glyphs")
    case, face = images.hidden["case"][0], images.hidden["face"][0]
    for split, each in ((0, 8), (1, 2)):
        for label, letter in enumerate(images.classes):
            rows = (images.labels == label) & (images.split == split)
            seen = torch.stack((case[rows], face[rows]), 1).unique(dim=0, return_counts=True)
            expected = 16 if letter.isdigit() else 32
            assert len(seen[0]) == expected
            assert (seen[1] == each * 32 // expected).all()
    is_digit = torch.tensor([letter.isdigit() for letter in images.classes])[images.labels]
    assert torch.equal(case == -1, is_digit)


@pytest.mark.parametrize(("labels", "size"), [("group", 6), ("triple", 3)])
def test_classes_of_several_characters_hide_which_it_is(labels, size):
    grouped = data.load(f"glyphs@{labels}")
    assert grouped.num_classes == 36 // size and set(grouped.hidden) >= {"class", "case", "face"}
    letters, names = grouped.hidden["class"]
    pairs = {(label, letter) for label, letter in zip(grouped.labels.tolist(), letters.tolist(), strict=True)}
    assert len(pairs) == 36  # each character is in one class alone
    assert all(names[letter] in grouped.classes[label] for label, letter in pairs)
    assert {len(name) for name in grouped.classes} == {size}
    assert torch.equal(grouped.images, data.load("glyphs").images)


@pytest.mark.parametrize("name", SETS)
def test_hidden_labels_are_those_of_the_drawn_characters(monkeypatch, name):
    drawn = []

    def record(character, face, random):
        drawn.append((character, face))
        return numpy.zeros((32, 32), dtype=numpy.float32)

    monkeypatch.setattr(glyphs, "shape", record)
    monkeypatch.setattr(glyphs, "colour", lambda alpha, random: numpy.zeros((len(alpha), 3, 32, 32), dtype=numpy.uint8))
    found = glyphs.characters(name)
    assert len(drawn) == len(found["labels"])
    for (character, face), label, case, marked in zip(
        drawn, found["labels"].tolist(), found["case"].tolist(), found["face"].tolist(), strict=True
    ):
        letter = glyphs.ALPHABETS[name][label]
        assert character.lower() == letter
        assert face == marked
        assert ord(character) in glyphs.characters_of(face)
        cased = letter != letter.upper() and name != "glyphs_georgian"
        assert case == (character == letter.upper() if cased else -1)


@pytest.mark.parametrize("name", SETS)
def test_no_missing_character_box_and_all_characters_differ(name):
    for face in range(len(glyphs.FACES)):
        font = ImageFont.truetype(str(glyphs.font_file(face)), 40)
        missing = bytes(font.getmask("\U0010fffe"))
        used = [
            c for letter in glyphs.ALPHABETS[name] for _, c in glyphs._cases(letter) if ord(c) in glyphs.characters_of(face)
        ]
        shapes = [bytes(font.getmask(character)) for character in used]
        assert missing not in shapes
        assert all(any(shape) for shape in shapes)
    assert len(glyphs.characters_of(0)) > 1000


def test_faces_lack_some_scripts_and_those_are_left_out(shared):
    face, names = data.load("glyphs_georgian").hidden["face"]
    assert {names[index] for index in face.unique()} == {name for name in names if name.startswith("DejaVu")}
    assert len(data.load("glyphs_greek").hidden["face"][0].unique()) == 16


def test_characters_are_whole_and_of_some_size():
    random = numpy.random.default_rng(0)
    for character in "WMjQ@ЩЮЖΩშგ":
        for face in range(len(glyphs.FACES)):
            if ord(character) in glyphs.characters_of(face):
                alpha = glyphs.shape(character, face, random)
                edge = max(alpha[0].max(), alpha[-1].max(), alpha[:, 0].max(), alpha[:, -1].max())
                assert edge < 0.1, (character, face)
                assert alpha.sum() > 10, (character, face)
                assert alpha.max() > 0.4, (character, face)


def test_position_size_and_rotation_vary():
    random = numpy.random.default_rng(0)
    alphas = numpy.stack([glyphs.shape("I", 8, random) for _ in range(200)])
    mass = alphas.sum((1, 2))
    place = numpy.arange(32) - 15.5
    x, y = (alphas.sum(axis) @ place / mass for axis in (1, 2))
    xy = ((alphas * (place[None, :, None] - y[:, None, None]) * (place[None, None] - x[:, None, None])).sum((1, 2))) / mass
    assert x.std() > 2
    assert y.std() > 1
    assert mass.std() / mass.mean() > 0.1
    assert xy.min() < -1 < 1 < xy.max()


def test_ink_and_paper_keep_their_contrast():
    half = numpy.zeros((400, 32, 32), dtype=numpy.float32)
    half[:, :, 16:] = 1
    images = torch.from_numpy(glyphs.colour(half, numpy.random.default_rng(1))).float() / 255
    ink, paper = images[:, :, :, 16:].mean((2, 3)) @ LUMA, images[:, :, :, :16].mean((2, 3)) @ LUMA
    # the half of the paper that is seen is up to 0.06 off its middle (gradient), clipping takes a little of the noise
    assert (ink - paper).abs().min() > glyphs.LEAST_CONTRAST - 0.09
    assert images.std((2, 3)).min() > 0.02
    assert len(torch.unique(images[:, :, 5, 5], dim=0)) == 400


def test_letters_case_and_face_are_tasks(shared):
    case = data.load("glyphs/letters@case")
    assert (case.classes, len(case.labels), case.name) == (("lower", "upper"), 26 * 320, "glyphs/letters@case")
    assert torch.bincount(case.labels).tolist() == [26 * 160] * 2
    face = data.load("glyphs@face")
    assert (face.num_classes, len(face.labels)) == (16, 36 * 320)
    letters = data.load("glyphs/letters")
    assert "".join(letters.classes) == "abcdefghijklmnopqrstuvwxyz"
    assert torch.equal(letters.images, data.load("glyphs").images[: 26 * 320])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "write NAME"),
        ("glyphs/", "write NAME"),
        ("glyphs@", "write NAME"),
        ("@case", "write NAME"),
        ("glyfs", "did you mean 'glyphs'?"),
        ("glyphs/leters", "did you mean 'letters'?"),
        ("digits/few", "digits has no parts"),
        ("glyphs@cases", "did you mean 'case'?"),
        ("glyphs_georgian@case", "valid: face"),
        ("digits@case", "digits has no other labels"),
    ],
)
def test_bad_names_are_refused(shared, spec, said):
    with pytest.raises(InputError, match=".") as caught:
        data.load(spec)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def _cached(name: str):
    (file,) = (paths.cache() / "data").glob(f"{name}-*.pt")
    return file


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "other", "pickle"])
def test_a_damaged_cache_is_made_anew(monkeypatch, damage):
    before = data.load("digits").checksum
    file = _cached("digits")
    content = bytearray(file.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
    elif damage == "cut":
        del content[len(content) // 3 :]
    elif damage == "empty":
        content.clear()
    file.write_bytes(content)
    if damage == "other":
        torch.save({"images": torch.zeros(2)}, file)
    elif damage == "pickle":
        torch.save({"tensors": {"images": math.prod}}, file)
    made = []
    monkeypatch.setattr(glyphs, "digits", lambda make=glyphs.digits: made.append(1) or make())
    for _ in range(2):
        data.forget()
        assert data.load("digits").checksum == before
    assert made == [1]


@pytest.mark.usefixtures("empty_cache")
def test_another_renderer_or_other_fonts_do_not_read_the_old_cache(monkeypatch):
    data.load("digits")
    monkeypatch.setattr(glyphs, "RENDERER", -1)
    data.forget()
    data.load("digits")
    assert len(list((paths.cache() / "data").glob("digits-*.pt"))) == 2


@pytest.mark.usefixtures("empty_cache")
def test_nothing_is_left_when_making_fails():
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.keep("x", fail)
    assert not list((paths.cache() / "data").glob("*.pt"))
    assert cache.keep("x", lambda: {"a": torch.ones(2)})["a"].tolist() == [1, 1]


def test_a_matplotlib_without_fonts_is_told_in_one_line(monkeypatch, tmp_path):
    glyphs.fonts_checksum.cache_clear()
    monkeypatch.setattr(glyphs.matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(RunError, match="DejaVuSans is not in this Matplotlib"):
        data.load("glyphs_greek")
    glyphs.fonts_checksum.cache_clear()


def test_digits_are_the_published_ones():
    from sklearn.datasets import load_digits

    images = data.load("digits")
    published = load_digits()
    assert torch.equal(images.labels, torch.from_numpy(published.target).long())
    small = torch.nn.functional.avg_pool2d(images.images[:, :1].float(), 4)[:, 0] / 255 * 16
    assert (small - torch.from_numpy(published.images)).abs().mean() < 1
    assert torch.equal(images.images[:, 0], images.images[:, 2])
