"""Benchmarks on tiny sizes: that they run and say what they measured. No time is asserted."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from studylib import bench
from studylib.bench import loop, measures, neighbours, path, peers, probe, process
from studylib.config import resolve
from studylib.data import load
from studylib.data.augment import augment, draw
from studylib.errors import InputError
from studylib.methods.method import crops
from studylib.models.encoder import Normalise
from studylib.training.loop import channel_statistics, refuse_unfit

pytestmark = pytest.mark.slow


def check(result, unit):
    assert set(result) == {"name", "value", "unit", "target", "details"}
    assert result["value"] >= 0
    assert result["unit"] == unit


def test_benchmarks_are_named_after_what_they_are():
    assert all(benchmark.__name__ == name and benchmark.__doc__ for name, benchmark in bench.BENCHMARKS.items())


@pytest.fixture
def in_this_process(monkeypatch):
    """What a benchmark does in a process of its own is done here: that a new process is like this one, `alone` shows below."""
    for module in (measures, neighbours):
        monkeypatch.setattr(module, "alone", lambda function, *arguments: function(*arguments))


@pytest.fixture
def tiny_loop(monkeypatch, runs):
    """Two methods on noise, in one round; at most two processes, for which threads stand."""
    pool = ThreadPoolExecutor
    monkeypatch.setattr(loop, "ProcessPoolExecutor", lambda count, _, start, given: pool(count, "", start, given))
    monkeypatch.setattr(loop, "ROUNDS", 1)
    monkeypatch.setattr(loop, "NOISE", {32: 300})
    monkeypatch.setattr(loop, "usable_cores", lambda: 2)
    configs = {method: resolve("smoke", method, 0, loop.QUIET | {"bank.length": 70}) for method in ("look", "trex")}
    configs["sl"] = resolve("smoke", "sl", 0, loop.QUIET)
    given = [(method, config, loop.noise(32)) for method, config in configs.items()]
    monkeypatch.setattr(loop, "cases", lambda device, more: given[: 3 if more else 1])


def test_loop_and_captured_share(tiny_loop):
    results = bench.run(["loop_efficiency", "captured_share"], torch.device("cpu"))
    efficiency, share = "loop_efficiency", "captured_share"
    assert [row["name"] for row in results] == [f"{efficiency}: {name}" for name in ("look", "trex", "sl")] + [f"{share}: look"]
    for row in results:
        check(row, "ratio")
        assert row["value"] > 0
    assert "eager 1: " in results[-1]["details"]
    assert ", 2: " in results[-1]["details"]


@pytest.mark.parametrize(("device", "count"), [("cpu", 3), ("cuda", 5)])
def test_cases_of_the_loop_fit_their_images(monkeypatch, runs, device, count):
    """Also those that are only for a GPU."""
    monkeypatch.setattr(loop, "NOISE", {32: 400, 224: 360})
    found = list(loop.cases(torch.device(device), more=True))
    assert len(found) == count
    for _, config, images in found:
        refuse_unfit(config, images)
        assert config.monitor.every == 0


def test_benchmarks_of_a_cpu_are_refused_on_a_gpu():
    with pytest.raises(InputError, match="benchmark=.probe_speedup.: is of a CPU; on a GPU there are loop_efficiency, "):
        bench.run(["probe_speedup"], torch.device("cuda:0"))


def test_neighbours(monkeypatch, in_this_process):
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


def test_measures(monkeypatch, in_this_process):
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


@pytest.fixture
def tiny_peers(monkeypatch, runs):
    """The comparison with others on 192 images, in one round, with a worker and a core."""
    sizes = {"data": "glyphs_georgian/few", "encoder.arch": "resnet10", "encoder.width": 8, "encoder.stem": "conv3s2"}
    monkeypatch.setitem(peers.SIZES, "cpu", sizes | {"optimisation.batch": 64})
    monkeypatch.setattr(peers, "usable_cores", lambda: 1)
    for name, value in {"ROUNDS": 1, "WORKERS": 1, "OUR_EPOCHS": 1}.items():
        monkeypatch.setattr(peers, name, value)


def test_peers(tiny_peers):
    results = bench.run(["peers"], torch.device("cpu"))
    names = [f"peers: {part}, {peer}" for peer in ("dataloader", "lightly") for part in ("input", "loop")]
    assert [result["name"] for result in results] == names
    for result in results:
        check(result, "ratio")
        assert result["value"] > 0
        assert "with 1 workers; 1 cores" in result["details"]


def test_peers_without_lightly_and_with_more_cores(tiny_peers, monkeypatch):
    found = {1: {"input": [(6.0, 2.0)], "loop": [(3.0, 2.0)]}, 4: {"input": [(6.0, 8.0)], "loop": [(3.0, 4.0)]}}
    monkeypatch.setattr(peers, "compare", lambda peer, config, images, device, workers, rounds: found[workers])
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    monkeypatch.setattr(peers, "usable_cores", lambda: 4)
    rows = peers.peers(torch.device("cpu"))
    assert [(row["name"], row["value"]) for row in rows] == [
        ("peers: input, dataloader", 3.0),
        ("peers: loop, dataloader", 1.5),
    ]
    for row in rows:
        assert " 2 images/s with 1 workers, " in row["details"]
        assert " with 4 workers (ratio 0.75); 4 cores" in row["details"]
        assert row["details"].endswith("lightly is not installed, its rows are left out")


def test_a_ratio_is_the_median_of_the_rounds():
    assert peers.ratio([(1.0, 1.0), (9.0, 2.0), (4.0, 2.0)]) == 2.0


@pytest.mark.parametrize(("peer", "method"), [("dataloader", "sl"), ("lightly", "trex_plain")])
def test_peers_make_what_we_make(runs, peer, method):
    """Crops of the same number and size, and pixels of the same mean and spread."""
    torch.manual_seed(0)
    config = resolve("quick", method, 0, peers.SETTINGS | (peers.MULTI_CROP if peer == "lightly" else {}))
    images = load("glyphs_georgian/few")
    loader = torch.utils.data.DataLoader(peers.DATASETS[peer](config, images), 192)
    theirs, labels, *_ = next(iter(loader))
    theirs = theirs if isinstance(theirs, list) else [theirs]
    normalise = Normalise(*channel_statistics(images.train.images))
    generator = torch.Generator().manual_seed(0)
    views = crops(config.augmentation, config.multi_crop)
    ours = [normalise(augment(images.train.images, view, draw(192, generator))) for view in views]
    assert torch.equal(labels, images.train.labels)
    assert [view.shape for view in theirs] == [view.shape for view in ours]
    for a, b in zip(theirs, ours, strict=True):
        assert abs(a.mean() - b.mean()) < 0.1
        assert abs(a.std() - b.std()) < 0.1
        assert abs(a.mean(1).std() - b.mean(1).std()) < 0.1
