"""Benchmarks on tiny sizes: that they run and say what they measured. No time is asserted."""

import numpy as np
import pytest
import torch

from studylib import bench
from studylib.bench import measures, neighbours, path, probe, process


def check(result, unit):
    assert set(result) == {"name", "value", "unit", "target", "details"}
    assert result["value"] >= 0
    assert result["unit"] == unit


def test_benchmarks_are_named_after_what_they_are():
    assert all(benchmark.__name__ == name and benchmark.__doc__ for name, benchmark in bench.BENCHMARKS.items())


def test_neighbours(monkeypatch):
    for name, value in {"QUERIES": 300, "GALLERY": 1100, "DIMENSIONS": 16, "SUBSET": 50, "ROUNDS": 1}.items():
        monkeypatch.setattr(neighbours, name, value)
    result = neighbours.knn_speedup()
    check(result, "ratio")
    assert "100.000% of neighbours equal" in result["details"]
    check(neighbours.knn_memory(), "GiB")


def test_probe(monkeypatch):
    for name, value in {"IMAGES": 300, "HELD_OUT": 70, "DIMENSIONS": 12, "CLASSES": 5}.items():
        monkeypatch.setattr(probe, name, value)
    result = probe.probe_speedup()
    check(result, "ratio")
    assert "held-out images: ours C = " in result["details"]
    assert ", scikit-learn C = " in result["details"]


def test_path(monkeypatch):
    monkeypatch.setattr(path, "suite", lambda name: ["digits"])
    monkeypatch.setattr(path, "ENCODER", path.EncoderSettings(arch="resnet10", width=2, stem="conv3s2"))
    result = path.path_speedup()
    check(result, "ratio")
    assert "digits" in result["details"]


def test_path_has_embedded_sets_where_there_are_no_others(monkeypatch):
    asked = []
    monkeypatch.setattr(path, "missing", lambda names: dict.fromkeys(names, "not there"))
    monkeypatch.setattr(path, "features", lambda encoder, images: asked.append(images.name) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        path.path_speedup()
    assert asked == ["glyphs_greek"]


def test_measures(monkeypatch):
    sizes = {"IMAGES": 230, "DIMENSIONS": 6, "CLASSES": 7, "MODES": 2}
    sizes |= {"MAPPED_IMAGES": 5000, "MAPPED_DIMENSIONS": 6, "MAPPED_CLASSES": 8}
    for name, value in sizes.items():
        monkeypatch.setattr(measures, name, value)
    result = measures.measures_seconds()
    check(result, "s")
    assert "modes" in result["details"]
    check(measures.measures_memory(), "× features")
    result = measures.measures_memmap()
    check(result, "GiB")
    assert "5,000 × 6 rows" in result["details"]


def test_the_mapped_features_are_not_all_alike(tmp_path):
    measures.write(tmp_path / "features.npy", 5000, 6)
    values = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert (values.dtype, values.shape) == (np.float16, (5000, 6))
    assert not np.array_equal(values[:904], values[4096:])
    assert np.array_equal(np.roll(values[:904], 1, axis=1), values[4096:])


def test_memory_is_that_of_the_block():
    with process.Memory() as memory:
        torch.ones(2**26).sum()  # 256 MiB
    assert 0.8 * 2**28 < memory.taken < 1.5 * 2**28


def threads():
    return torch.get_num_threads()


def test_a_process_of_its_own_has_as_many_threads():
    assert process.alone(threads) == torch.get_num_threads()
