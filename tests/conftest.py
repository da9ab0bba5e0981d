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


@pytest.fixture(scope="session")
def glyph_cache() -> Path:
    """A cache folder shared by all test processes of this user and version, so that glyphs are rendered once."""
    folder = Path(tempfile.gettempdir()) / f"studylib-tests-{os.getuid()}" / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    """No test writes into the runs of a user."""
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "own-runs"))
    data.forget()


@pytest.fixture
def runs(tmp_path, monkeypatch, glyph_cache):
    """An empty runs folder that shares the rendered glyphs."""
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cache").symlink_to(glyph_cache)
    return tmp_path / "runs"
