"""Shared by all tests: one thread, a picture-less Matplotlib, one cache of rendered glyphs."""

import os
import tempfile
from pathlib import Path

import matplotlib
import pytest
import torch

from studylib import data

matplotlib.use("Agg")
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, and deterministic kernels of tests on a GPU need it
os.environ.pop("STUDYLIB_DATA", None)
os.environ["STUDYLIB_PUBLISHED"] = "off"  # no test depends on the results that the repository has


def pytest_configure(config):
    """What ``-m`` asks for leaves out the tests that need a browser, unless it names them."""
    asked = config.option.markexpr
    if "browser" not in asked:
        config.option.markexpr = f"({asked}) and not browser" if asked else "not browser"


@pytest.fixture(scope="session")
def glyph_cache() -> Path:
    """A cache folder shared by all test processes of this user and version, so that glyphs are rendered once."""
    folder = Path(tempfile.gettempdir()) / f"studylib-tests-{os.getuid()}" / "cache"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def own_runs(tmp_path_factory, monkeypatch, glyph_cache):
    """No test writes into the runs of a user; each finds the rendered glyphs."""
    folder = tmp_path_factory.mktemp("own-runs")
    monkeypatch.setenv("STUDYLIB_RUNS", str(folder))
    (folder / "cache").mkdir()
    (folder / "cache" / "data").symlink_to(glyph_cache / "data")
    data.forget()


@pytest.fixture
def empty_cache(tmp_path_factory, monkeypatch):
    """A runs folder without anything, for tests that look at the cache of images or damage it."""
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path_factory.mktemp("empty-runs")))


@pytest.fixture
def runs(tmp_path, monkeypatch, glyph_cache):
    """An empty runs folder that shares the rendered glyphs."""
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs" / "cache").mkdir(parents=True)
    (tmp_path / "runs" / "cache" / "data").symlink_to(glyph_cache / "data")
    return tmp_path / "runs"
