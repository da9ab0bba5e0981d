"""Bad input of every kind, by hypothesis: exit code 2 and one line with field, value and fix, before anything is computed.

Through `studylib.cli.main` in this process; derandomised, so that every run tries the same examples. Features of every shape
are given to the protocols themselves: they answer with a share of 100 % or refuse.
"""

import contextlib
import io
import json
import math
import re
import types
import zipfile

import hypothesis
import numpy
import pytest
import torch
import yaml
from hypothesis import strategies as st

from studylib import cli, data, files, method_table, paths, training
from studylib import scale as scales
from studylib.config import field_names
from studylib.data import packed
from studylib.errors import InputError
from studylib.evaluation import probe
from studylib.evaluation.features import Features
from studylib.publishing import launch

pytestmark = pytest.mark.slow


def tried(count: int):
    """``count`` examples, the same in every run."""
    checks = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
    return hypothesis.settings(
        derandomize=True, database=None, deadline=None, max_examples=count, suppress_health_check=checks, print_blob=False
    )


COMPUTED = "something was computed"


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch):
    def computed(*_, **__):
        raise AssertionError(COMPUTED)

    monkeypatch.setattr(training.loop, "_train", computed)
    monkeypatch.setattr(launch, "_run", computed)


def refused(*arguments: str) -> str:
    """What ``studylib ARGUMENTS`` says as it leaves with 2."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(list(arguments))
    said = err.getvalue()
    assert code == 2, (arguments, code, said)
    assert said.startswith("error: ") and said.count("\n") == 1, said
    return said


# --- settings

GROUPS = {name for row in method_table.METHODS.values() for name in row.groups}
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
PAIRS = [
    "",
    "[",
    "[0.1",
    "0.5",
    "[a, b]",
    "[0.9, 0.1]",
    "[0, 1, 2]",
    "{",
    "{a: 1}",
    "[.nan, 1]",
    "[-1, 1]",
    "[0.1, 0.2",
    "!!x",
    "%",
]


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def wrong(kind: type) -> st.SearchStrategy[str]:
    """Text that no setting of that type takes."""
    if kind is int:
        return st.sampled_from(["1.5", "nan", "inf", "1e40", "true", "-1", "0x10", "1,000", "1e-3"]) | WORDS.filter(
            lambda text: not is_number(text)
        )
    if kind is float:
        return st.sampled_from(["nan", "inf", "-inf", "1,5", "-1", "-1e-9", "1e999"]) | WORDS.filter(
            lambda text: not is_number(text)
        )
    if kind is bool:
        return st.sampled_from(["1", "0", "yes", "no", "none"]) | WORDS.filter(
            lambda text: text.strip().lower() not in ("true", "false")
        )
    return WORDS.map("no such {}".format) if kind is str else st.sampled_from(PAIRS)


SETTINGS = {name: kind for name, kind in field_names().items() if name not in ("method", "seed")}


@tried(200)
@hypothesis.given(st.sampled_from(sorted(SETTINGS)).flatmap(lambda name: st.tuples(st.just(name), wrong(SETTINGS[name]))))
def test_settings(runs, given):
    name, value = given
    group = name.split(".")[0]
    methods = [method for method, row in method_table.METHODS.items() if group in row.groups]
    method = methods[0] if group in GROUPS else "sl_mlp"
    said = refused("pretrain", "--scale", "smoke", "--method", method, "-p", f"{name}={value}")
    assert name.split(".")[-1] in said
    assert {file.name for file in runs.iterdir()} == {"cache"}


# --- parameter files of a notebook

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner),
)
DECLARED = {"scale": str, "seeds": int, "settings": str}
RAW = [
    b"\xff\xfe\x00",
    b"a: b: c",
    b"\t- x",
    b"scale: [",
    b"seeds: 1\nseeds: 2",
    b"- 1",
    b"{",
    b"&a [*a",
    b"!!python/object:os.system x",
]


@tried(80)
@hypothesis.given(
    st.one_of(
        st.sampled_from(RAW),
        JUNK.filter(lambda value: value is not None and not isinstance(value, dict)).map(yaml.safe_dump).map(str.encode),
        st.dictionaries(WORDS.filter(lambda name: name not in DECLARED), JUNK, min_size=1).map(yaml.safe_dump).map(str.encode),
        st.sampled_from(["seeds"]).flatmap(lambda name: wrong(int).map(lambda text: yaml.safe_dump({name: text}).encode())),
        st.sampled_from(["scale", "seeds", "settings"]).flatmap(
            lambda name: st.lists(JUNK).map(lambda value: yaml.safe_dump({name: value}).encode())
        ),
    )
)
def test_parameter_files(runs, content):
    file = runs / "params.yaml"
    file.write_bytes(content)
    refused("run", str(paths.NOTEBOOKS / "02_sl_mlp.ipynb"), "--scale", "smoke", "-f", str(file))


# --- packed sets


def arrays() -> dict[str, numpy.ndarray]:
    images = numpy.random.default_rng(0).integers(0, 256, (15, 8, 8, 3), dtype=numpy.uint8)
    return {"images": images, "labels": numpy.arange(15) % 3, "split": (numpy.arange(15) >= 9).astype(int)}


def changed(name: str, change) -> dict[str, numpy.ndarray]:
    content = arrays()
    content[name] = change(content[name])
    return content


ARRAYS = {
    "images of another type": lambda: changed("images", lambda a: a / 255),
    "signed images": lambda: changed("images", lambda a: a.astype(numpy.int8)),
    "two channels": lambda: changed("images", lambda a: a[..., :2]),
    "images without channels": lambda: changed("images", lambda a: a[..., 0]),
    "one image more": lambda: changed("images", lambda a: numpy.concatenate([a, a[:1]])),
    "no images": lambda: {name: values[:0] for name, values in arrays().items()},
    "images of no pixel": lambda: changed("images", lambda a: a[:, :0]),
    "images of objects": lambda: changed("images", lambda a: a.astype(object)),
    "labels of objects": lambda: changed("labels", lambda a: a.astype(object)),
    "labels as text": lambda: changed("labels", lambda a: a.astype(str)),
    "labels as numbers with a point": lambda: changed("labels", lambda a: a + 0.5),
    "labels that are not finite": lambda: changed("labels", lambda a: a * numpy.nan),
    "negative labels": lambda: changed("labels", lambda a: a - 1),
    "labels beyond the classes": lambda: changed("labels", lambda a: a + 1),
    "labels of two dimensions": lambda: changed("labels", lambda a: a[:, None]),
    "a class that no image has": lambda: changed("labels", lambda a: a % 2),
    "one class": lambda: changed("labels", lambda a: a * 0),
    "a third side": lambda: changed("split", lambda a: a * 2),
    "all for training": lambda: changed("split", lambda a: a * 0),
    "all for testing": lambda: changed("split", lambda a: a * 0 + 1),
    "a side as text": lambda: changed("split", lambda a: a.astype(str)),
    **{f"without {name}": (lambda name=name: {k: v for k, v in arrays().items() if k != name}) for name in arrays()},
}
ABOUT = {"classes": ["ant", "bee", "cat"]}
DESCRIPTIONS = st.one_of(
    st.sampled_from(
        ["", "{", "[]", "null", "1", '{"classes": 3}', '{"classes": ["a", "a", "b"]}', '{"classes": ["a"]}', "\x00"]
    ),
    JUNK.filter(lambda value: not isinstance(value, dict)).map(json.dumps),
    st.integers(0, 2).map(lambda count: json.dumps({"classes": ABOUT["classes"][:count]})),
    st.just(json.dumps(ABOUT | {"sha256_npz": "0" * 64})),
)


def train_on(folder) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYLIB_DATA", str(folder))
        data.forget()
        return refused("pretrain", "--scale", "smoke", "--method", "sl", "-p", "data=toy", "-p", "optimisation.batch=4")


@pytest.fixture
def folder(tmp_path):
    numpy.savez(tmp_path / "toy.npz", **arrays())
    (tmp_path / "toy.json").write_text(json.dumps(ABOUT))
    return tmp_path


def described(folder) -> None:
    (folder / "toy.json").write_text(json.dumps(ABOUT | {"sha256_npz": packed.sha256(folder / "toy.npz")}))


def test_what_is_right_is_computed(folder, runs, monkeypatch):
    described(folder)
    with pytest.raises(AssertionError, match=COMPUTED):
        train_on(folder)
    (runs / "params.yaml").write_text("seeds: 2")
    with pytest.raises(AssertionError, match=COMPUTED):
        refused("run", str(paths.NOTEBOOKS / "02_sl_mlp.ipynb"), "--scale", "smoke", "-f", str(runs / "params.yaml"))
    with pytest.raises(AssertionError, match=COMPUTED):
        refused("pretrain", "--scale", "smoke", "--method", "sl_mlp", "-p", "projector.width=16")


@pytest.mark.parametrize("name", ARRAYS)
def test_packed_arrays(folder, name):
    numpy.savez(folder / "toy.npz", **ARRAYS[name]())
    described(folder)
    assert "toy" in train_on(folder)


@tried(40)
@hypothesis.given(DESCRIPTIONS)
def test_packed_descriptions(folder, text):
    (folder / "toy.json").write_text(text)
    assert "toy" in train_on(folder)


@tried(40)
@hypothesis.given(st.floats(0, 1, exclude_max=True), st.booleans())
def test_packed_files_that_are_cut_or_damaged(folder, share, cut):
    numpy.savez(folder / "toy.npz", **arrays())
    described(folder)
    content = bytearray((folder / "toy.npz").read_bytes())
    place = int(share * len(content))
    content[place] ^= 0x5A
    (folder / "toy.npz").write_bytes(content[:place] if cut else content)
    assert "toy" in train_on(folder)


def test_what_unpacks_to_more_than_the_memory_is_refused(folder, tmp_path, monkeypatch, empty_cache):
    described(folder)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "encoder.pth")
    with zipfile.ZipFile(tmp_path / "runs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * 10**6)
    monkeypatch.setattr(files.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1000))
    assert "toy.npz" in (said := train_on(folder)) and "unpacks to 0.0 GiB" in said
    assert "unpacks to" in refused("evaluate", "--encoder", str(tmp_path / "encoder.pth"), "-d", "digits")
    assert "unpacks to" in refused("restore", str(tmp_path / "runs.zip"))


def test_an_array_that_says_it_is_larger_than_any_memory_is_refused(folder):
    header = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**50, 8, 8, 3)})
    with zipfile.ZipFile(folder / "toy.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    described(folder)
    assert "toy.npz" in train_on(folder)


# --- the file of a scale

CONTENT = yaml.safe_load((scales.FOLDER / "smoke.yaml").read_text())


@tried(60)
@hypothesis.given(
    st.one_of(
        st.sampled_from(sorted(CONTENT)).map(lambda name: {key: value for key, value in CONTENT.items() if key != name}),
        WORDS.filter(lambda name: name not in CONTENT).map(lambda name: CONTENT | {name: 1}),
        st.sampled_from(["upstream", "unseen", "domains", "gate", "common", "seeds", "suite", "about", "trials"]).flatmap(
            lambda name: st.sampled_from([None, 3.5, {"x": 1}, [[1]], [{"a": 1}]]).map(lambda value: CONTENT | {name: value})
        ),
        st.sampled_from(sorted(set(CONTENT["common"]) - {"data"})).flatmap(
            lambda name: wrong(SETTINGS[name]).map(lambda value: CONTENT | {"common": CONTENT["common"] | {name: value}})
        ),
    )
)
def test_scales(runs, tmp_path, content):
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scales, "FOLDER", tmp_path)
        scales.scale.cache_clear()
        try:
            refused("pretrain", "--scale", "toy", "--method", "sl_mlp")
        finally:
            scales.scale.cache_clear()


# --- features

FROZEN = [name for name in probe.PROTOCOLS if not probe.PROTOCOLS[name].of_output and not name.startswith(("trex", "broad12"))]


@st.composite
def features(draw) -> tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What they are, features (N, d), labels and split (N,)."""
    train, test = draw(st.integers(0, 12)), draw(st.integers(0, 6))
    width, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(train + test, width, generator=generator)
    labels = torch.randint(0, classes, (train + test,), generator=generator)
    what = draw(st.sampled_from(["random", "constant", "zero", "huge", "tiny", "float16", "float64", "strided"]))
    x = {
        "random": lambda: x,
        "constant": lambda: torch.ones_like(x),
        "zero": lambda: torch.zeros_like(x),
        "huge": lambda: 1e18 * x,
        "tiny": lambda: 1e-18 * x,
        "float16": x.half,
        "float64": x.double,
        "strided": lambda: torch.randn(width, train + test, generator=generator).T,
    }[what]()
    split = (torch.arange(train + test) >= train).long()
    return what, x, labels, split


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", FROZEN)
@tried(15)
@hypothesis.given(features())
def test_features_are_scored_or_refused(name, given):
    _, x, labels, split = given
    seen = Features("toy", {"stage5": x}, labels, split, 4)
    subject = probe.Subject(None, None, None, seen, "stage5")
    try:
        rows = list(probe.probe(subject, probe.default(name, "toy")))
    except InputError as error:
        assert "\n" not in str(error)
        return
    scores = [row["value"] for row in rows if re.search(r"_(top1|mean_per_class)", row["measure"])]
    assert scores and all(0 <= score <= 100 for score in scores), rows
