"""Packed sets: what is read, what is refused and how it is said; fetched sets; the catalogue."""

import hashlib
import inspect
import json
import urllib.error

import numpy
import pytest
import torch
import torchvision
from PIL import Image

from studylib import data, paths
from studylib.data import download, packed
from studylib.errors import InputError, RunError

pytestmark = pytest.mark.usefixtures("empty_cache")

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder named by STUDYLIB_DATA, after one that does not exist."""
    (tmp_path / "packed").mkdir()
    monkeypatch.setenv("STUDYLIB_DATA", f"{tmp_path / 'absent'}:{tmp_path / 'packed'}")
    return tmp_path / "packed"


def arrays(channels=3, height=5, width=7) -> dict[str, numpy.ndarray]:
    """Three classes with three training and two test images each."""
    images = numpy.random.default_rng(0).integers(0, 256, (15, height, width, channels), dtype=numpy.uint8)
    return {"images": images, "labels": numpy.arange(15) % 3, "split": (numpy.arange(15) >= 9).astype(int)}


def pack(folder, name="toy", about=None, **changes) -> dict[str, numpy.ndarray]:
    content = {key: value for key, value in (arrays() | changes).items() if value is not None}
    numpy.savez(folder / f"{name}.npz", **content)
    described = {"classes": CLASSES, "sha256_npz": packed.sha256(folder / f"{name}.npz")} | (about or {})
    described = {key: value for key, value in described.items() if value is not None}
    (folder / f"{name}.json").write_text(json.dumps(described))
    return content


def refused(spec="toy") -> str:
    with pytest.raises(InputError) as caught:
        data.load(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_packed_is_read(folder, channels):
    content = pack(folder, **arrays(channels))
    for _ in range(2):  # unpacked, then from the cache
        images = data.load("toy")
        assert images.images.shape == (15, 3, 5, 7)
        assert images.images.is_contiguous()
        expected = numpy.repeat(content["images"], 3, axis=3) if channels == 1 else content["images"]
        assert numpy.array_equal(images.images.permute(0, 2, 3, 1).numpy(), expected)
        assert images.labels.tolist() == content["labels"].tolist()
        assert images.labels.dtype == images.split.dtype == torch.int64
        assert images.split.tolist() == content["split"].tolist()
        assert images.classes == ("ant", "bee", "cat")
        assert images.hidden == {}


@pytest.mark.parametrize("dtype", [numpy.uint8, numpy.int32, numpy.int64])
def test_hidden_labels(folder, dtype):
    coarse, domain = (numpy.arange(15) % 3 > 0).astype(dtype), (numpy.arange(15) % 2).astype(dtype)
    pack(folder, coarse_labels=coarse, domain=domain, about={"coarse_classes": ["insect", "mammal"][::-1]})
    assert data.load("toy@coarse").classes == ("mammal", "insect")
    assert data.load("toy@coarse").labels.tolist() == coarse.tolist()
    assert data.load("toy@domain").classes == ("0", "1")
    assert "did you mean 'domain'" in refused("toy@domian")
    pack(folder, coarse_labels=coarse + dtype(1), about={"coarse_classes": ["insect", "mammal"]})
    assert "coarse_classes has 2 names, but coarse_labels go to 2" in refused()


def test_mirroring_is_told_by_the_description_or_the_name(folder):
    for name, about, expected in (("toy", {}, True), ("mnist", {}, False), ("mnist2", {"flip": False}, False)):
        pack(folder, name, about)
        assert data.load(name).flip is expected
    pack(folder, "omniglot", {"flip": True})
    assert data.load("omniglot").flip


def test_checksum_of_the_images_is_enough(folder):
    images = arrays()["images"]
    good = hashlib.sha256(images.tobytes()).hexdigest()
    pack(folder, about={"sha256_npz": None, "sha256_images_array": good})
    assert len(data.load("toy").labels) == 15
    pack(folder, about={"sha256_npz": None, "sha256_images_array": "0" * 64})
    assert "toy.npz" in refused()
    assert f"sha256 is {good[:12]}…, sha256_images_array in toy.json is 000000000000…" in refused()


def test_a_set_packed_anew_is_read_anew(folder):
    pack(folder)
    before = data.load("toy").checksum
    pack(folder, images=255 - arrays()["images"])
    assert data.load("toy").checksum != before


def test_a_damaged_file_is_refused_though_the_cache_is_good(folder):
    pack(folder)
    data.load("toy")
    content = bytearray((folder / "toy.npz").read_bytes())
    content[300] ^= 1
    (folder / "toy.npz").write_bytes(content)
    said = refused()
    assert "toy.npz" in said
    assert "is damaged: its sha256 is" in said
    assert "sha256_npz in toy.json is" in said


@pytest.mark.parametrize("damage", ["bit", "cut"])
def test_a_damaged_cache_is_made_anew(folder, damage):
    pack(folder)
    before = data.load("toy").checksum
    (file,) = (paths.cache() / "data").glob("toy-*.pt")
    content = bytearray(file.read_bytes())
    if damage == "bit":
        content[len(content) // 4] ^= 1
    else:
        del content[200:]
    file.write_bytes(content)
    data.forget()
    assert data.load("toy").checksum == before
    assert len(file.read_bytes()) > 200


def test_a_file_is_hashed_once_in_a_process_unless_it_changes(folder, monkeypatch):
    hashed, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: hashed.append(given) or digest(*given))
    pack(folder)
    first = data.load("toy")
    assert data.load("toy") is first
    for _ in range(2):
        data.forget()
        assert data.load("toy").checksum == first.checksum
    assert len(hashed) == 1
    pack(folder, images=arrays()["images"] // 2)
    assert data.load("toy").checksum != first.checksum
    assert len(hashed) > 1


@pytest.mark.parametrize("missing", ["images", "labels", "split"])
def test_a_missing_array_is_named(folder, missing):
    pack(folder, **{missing: None})
    assert f"has no array '{missing}'" in refused()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": arrays()["images"].astype(float)}, "images are (15, 5, 7, 3) float64"),
        ({"images": arrays()["images"][..., 0]}, "images are (15, 5, 7) uint8"),
        ({"images": arrays(channels=4)["images"]}, "must be (N, H, W, 1 or 3) uint8"),
        ({"images": numpy.zeros((0, 5, 7, 3), numpy.uint8)}, "holds no images"),
        ({"labels": numpy.arange(14) % 3}, "labels is (14,), but must be (15,)"),
        ({"labels": numpy.arange(15) / 5}, "labels is float64, but must be whole numbers"),
        ({"labels": numpy.arange(15) % 4}, "labels go to 3, but toy.json names 3 classes: 0 … 2"),
        ({"labels": numpy.arange(15) % 3 - 1}, "labels holds -1"),
        ({"split": numpy.arange(15) % 3}, "split holds 2, but must be 0 (train) or 1 (test)"),
        ({"split": numpy.zeros(15, int)}, "has no test images; mark some rows with split 1"),
        ({"split": numpy.ones(15, int)}, "has no train images; mark some rows with split 0"),
        ({"labels": numpy.arange(15) % 2}, "class 'cat' has 0 training image(s), at least 2 are needed"),
        ({"split": numpy.array([1, 1, 0] * 2 + [0] * 9)}, None),
        ({"split": numpy.array([1, 1, 1] * 4 + [0] * 3)}, "class 'ant' has 1 training image(s), at least 2 are needed"),
        ({"domain": numpy.arange(15) - 3}, "domain holds -3"),
        ({"images": numpy.array([None] * 15)}, "cannot be unpacked"),
    ],
)
def test_what_is_not_in_the_format_is_refused(folder, changes, said):
    pack(folder, **changes)
    if said is None:
        assert data.load("toy").num_classes == 3
    else:
        assert said in refused()


def test_a_file_that_is_no_archive_is_refused(folder):
    pack(folder)
    numpy.save(folder / "plain.npy", numpy.zeros(3))
    contents = (b"", b"PK\x03\x04 no archive", (folder / "toy.npz").read_bytes()[:400], (folder / "plain.npy").read_bytes())
    for content in contents:
        (folder / "toy.npz").write_bytes(content)
        (folder / "toy.json").write_text(json.dumps({"classes": CLASSES, "sha256_npz": packed.sha256(folder / "toy.npz")}))
        assert "toy.npz" in refused()
        assert "cannot be unpacked" in refused()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "toy.json': cannot be read (FileNotFoundError)"),
        ("{", "toy.json': cannot be read (JSONDecodeError)"),
        ("[]", "has no 'classes'"),
        ('{"sha256_npz": "0"}', "has no 'classes'"),
        ('{"classes": "abc", "sha256_npz": "0"}', "has no 'classes'"),
        ('{"classes": ["a"]}', "has no 'sha256_npz'; add the output of: sha256sum toy.npz"),
    ],
)
def test_a_bad_description_is_refused(folder, text, said):
    pack(folder)
    (folder / "toy.json").unlink()
    if text is not None:
        (folder / "toy.json").write_text(text)
    assert said in refused()


def test_a_missing_set_says_where_it_was_searched(folder):
    pack(folder)
    said = refused("toyy")
    assert "did you mean 'toy'?" in said
    assert f"toyy.npz is in none of {folder.parent / 'absent'}, {folder}, {paths.fetched_data()}" in said
    assert "STUDYLIB_DATA" in said
    said = refused("svhn")
    assert "call: studylib data fetch svhn" in said
    assert str(folder) in said


def test_a_part_of_a_packed_set(folder):
    names = [*data.splits.parts()["tiny_cog"]["coarse1"].classes, *data.splits.parts()["tiny_cog"]["coarse2"].classes]
    images = arrays()["images"][numpy.arange(32 * 4) % 15]
    labels, split = numpy.arange(32 * 4) % 32, (numpy.arange(32 * 4) >= 64).astype(int)
    pack(folder, "tiny_cog", {"classes": names}, images=images, labels=labels, split=split)
    part = data.load("tiny_cog/coarse2")
    assert part.classes == tuple(names[16:])
    assert part.labels.tolist() == [label - 16 for label in labels if label >= 16]
    assert "unknown" in refused("tiny_cog/level9")


# ---- fetched sets


def fake(images: list[tuple[Image.Image, int]], classes=None):
    """A class as torchvision's; counts how often it was asked."""

    class Fake:
        asked: list = []  # noqa: RUF012

        def __init__(self, root, download=False, **options):
            assert download
            self.asked.append(options)
            self.rows = images[len(images) // 2 :] if options in ({"train": False}, {"split": "test"}) else images
            if classes:
                self.classes = classes

        def __getitem__(self, row):
            return self.rows[row]

        def __len__(self):
            return len(self.rows)

    return Fake


def picture(width, height, seed=0, mode="RGB") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, shape, dtype=numpy.uint8))


def test_fetch_packs_once_and_load_finds_it(monkeypatch):
    source = fake([(picture(28, 28, seed, "L"), seed % 10) for seed in range(40)], ["0 - zero", *map(str, range(1, 10))])
    monkeypatch.setattr(torchvision.datasets, "MNIST", source)
    file = data.fetch("mnist")
    assert data.fetch("mnist") == file == paths.fetched_data() / "mnist.npz"
    assert source.asked == [{"train": True}, {"train": False}]
    images = data.load("mnist")
    assert images.images.shape == (60, 3, 28, 28)
    assert (len(images.train.labels), len(images.test.labels), images.classes[0]) == (40, 20, "0 - zero")
    assert numpy.array_equal(images.images[3, 1].numpy(), numpy.asarray(picture(28, 28, 3, "L")))
    assert not images.flip
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    data.fetch("mnist")
    assert len(source.asked) == 4
    assert torch.equal(data.load("mnist").images, images.images)


def test_fetched_cifar100_has_its_coarse_classes_and_parts(monkeypatch):
    names = sorted({name for part in ("natural", "artefact") for name in data.splits.parts()["cifar100"][part].classes})
    rows = [(picture(32, 32, seed), seed % 100) for seed in range(400)]
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", fake(rows, names))
    data.fetch("cifar100")
    coarse = data.load("cifar100@coarse")
    assert (coarse.num_classes, coarse.classes[0]) == (20, "aquatic_mammals")
    assert torch.bincount(coarse.labels).tolist() == [30] * 20
    beaver = data.load("cifar100").labels == names.index("beaver")
    assert set(coarse.labels[beaver].tolist()) == {0}
    assert data.load("cifar100/artefact").num_classes == 30


def test_large_images_are_resized_and_cut(monkeypatch):
    striped = numpy.zeros((60, 100, 3), dtype=numpy.uint8)
    striped[:, :20, 2] = striped[:, 80:, 2] = 255  # blue outside the middle square
    striped[:, 20:80, 0] = 255
    rows = [(Image.fromarray(striped), 0), (Image.fromarray(striped.transpose(1, 0, 2)), 1), (picture(9, 9, 1, "L"), 0)]
    rows = [*rows, (picture(50, 40).convert("CMYK"), 1)] * 4
    monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", source := fake(rows, ["cat", "dog"]))
    data.fetch("pets", size=17)
    images = data.load("pets")
    assert images.images.shape == (24, 3, 17, 17)
    assert images.images[:2, 0, 1:-1, 1:-1].min() == 255  # the outermost samples reach over the cut
    assert images.images[:2, 2, 1:-1, 1:-1].max() == 0
    data.fetch("pets", size=17)
    assert len(source.asked) == 2
    data.fetch("pets", size=12)
    assert len(source.asked) == 4
    assert data.load("pets").images.shape[2:] == (12, 12)


def test_sets_of_several_or_of_one_part(monkeypatch):
    rows = [(picture(70, 64, seed), seed % 4) for seed in range(40)]
    monkeypatch.setattr(torchvision.datasets, "DTD", source := fake(rows, list("abcd")))
    data.fetch("dtd", size=8)
    assert source.asked == [{"split": "train"}, {"split": "val"}, {"split": "test"}]
    assert (len(data.load("dtd").train.labels), len(data.load("dtd").test.labels)) == (80, 20)
    rows = [(picture(8, 8, seed), seed % 2) for seed in range(3 * 810)]
    monkeypatch.setattr(torchvision.datasets, "EuroSAT", source := fake(rows, ["Forest", "River"]))
    data.fetch("eurosat", size=8)
    assert source.asked == [{}]
    assert torch.bincount(data.load("eurosat").test.labels).tolist() == [810, 810]
    assert torch.bincount(data.load("eurosat").train.labels).tolist() == [405, 405]
    monkeypatch.setattr(torchvision.datasets, "SVHN", fake([(picture(32, 32, seed), seed % 10) for seed in range(60)]))
    data.fetch("svhn")
    assert data.load("svhn").classes == tuple("0123456789")


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("Name or service not known"),
        RuntimeError("Dataset not found or corrupted.\nUse download=True"),
        ConnectionResetError(),
        TimeoutError("timed out"),
    ],
)
def test_a_failed_download_is_told_in_one_line(monkeypatch, error):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(RunError, match="cifar10: the download failed .*; check the network and call again, or") as caught:
        data.fetch("cifar10")
    assert "\n" not in str(caught.value)
    assert not list(paths.fetched_data().glob("*"))


def test_bad_requests_are_refused_before_a_download():
    with pytest.raises(InputError, match="did you mean 'cifar100'"):
        data.fetch("cifar10O0")
    for size in (0, 7, 1025, -64):
        with pytest.raises(InputError, match=f"size={size}"):
            data.fetch("pets", size=size)


def test_sources_are_torchvisions():
    for source in download.sources().values():
        wanted = inspect.signature(getattr(torchvision.datasets, source.dataset)).parameters
        for options in [*source.train, *(source.test if isinstance(source.test, list) else [])]:
            assert set(options) | {"root", "download"} <= set(wanted)


# ---- catalogue


def test_available_names_embedded_packed_and_fetchable_sets(folder):
    pack(folder, about={"n_train": 9, "n_test": 6, "image_shape": [5, 7, 3], "coarse_classes": ["x"], "title": "insects"})
    pack(folder, "pets")
    (folder / "bad.npz").touch()
    rows = {row["name"]: row for row in data.available()}
    assert rows["toy"] | {"where": str(folder), "train": 9, "test": 6, "classes": 3, "shape": "5×7×3"} == rows["toy"]
    assert (rows["toy"]["labels"], rows["toy"]["note"]) == ("coarse", "insects")
    assert rows["glyphs"]["where"] == "embedded"
    assert rows["glyphs"]["parts"].startswith("letters")
    assert rows["bad"]["note"].startswith("unusable: data='bad.json'")
    assert rows["pets"]["where"] == str(folder)
    assert rows["svhn"]["where"] == "studylib data fetch svhn"
    assert len(rows) == len(data.available())
    assert len({tuple(row) for row in rows.values()}) == 1


def test_check_tells_good_from_bad_and_names_flaws(folder):
    images = arrays()["images"].copy()
    images[9] = images[0]  # a test image that is a training image of the same class
    images[13] = images[10]  # two test images of the same class
    images[4] = images[3]  # an image of two classes
    pack(folder, images=images)
    pack(folder, "a")
    pack(folder, "z", split=numpy.zeros(15, int))
    (folder / "a.npz").write_bytes(b"x")
    rows = data.check(folder)
    assert [(row["name"], row["ok"]) for row in rows] == [("a", False), ("toy", True), ("z", False)]
    assert "is damaged" in rows[0]["notes"]
    assert rows[1]["notes"] == "1 test images are identical to a training image; 1 images stand under two or more classes"
    assert "has no test images" in rows[2]["notes"]
    assert data.check() == rows
    assert not (paths.cache() / "data").exists()


def test_check_refuses_a_folder_without_sets(tmp_path):
    assert data.check() == []
    for folder, said in ((tmp_path / "none", "does not exist"), (tmp_path, "holds no NAME.npz")):
        with pytest.raises(InputError, match=said):
            data.check(folder)
