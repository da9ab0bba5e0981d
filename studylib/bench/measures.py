"""Seconds and memory of the measures: of φ, Π and R, of the whole suite, and of features too many for the memory."""

import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studylib import measures
from studylib.bench.process import Memory, alone
from studylib.evaluation.features import Features
from studylib.evaluation.measure import all_measures

IMAGES, DIMENSIONS, CLASSES, MODES = 50_000, 512, 100, 4
MAPPED_IMAGES, MAPPED_DIMENSIONS, MAPPED_CLASSES = 128_000, 2048, 1000
IMAGENET = 1_281_167  # training images of ImageNet-1K (papers/README.md 3.3)


def measures_seconds() -> dict[str, Any]:
    """Seconds of every measure of `all_measures` and the spectrum, on 50,000 × 512 float32 features of 100 classes.

    Four hidden labels in each class; the pre-training set is another 50,000 × 512. The features are rectified noise, in
    which k-means takes longest to find its clusters.
    """
    seconds = alone(suite_alone, IMAGES, DIMENSIONS, CLASSES, MODES)
    total = sum(seconds.values())
    costly = sorted(seconds.items(), key=lambda item: -item[1])
    details = ", ".join(f"{name} {value:.1f} s" for name, value in costly) + f", {torch.get_num_threads()} threads"
    return {"name": "measures_seconds", "value": total, "unit": "s", "target": "< 30", "details": details}


def suite_alone(images: int, dimensions: int, classes: int, modes: int) -> dict[str, float]:
    """Measure -> seconds."""
    _suite(4 * classes * modes, 8, classes, modes)  # libraries load
    return _suite(images, dimensions, classes, modes)


def _suite(images: int, dimensions: int, classes: int, modes: int) -> dict[str, float]:
    labels, split = torch.arange(images) % classes, torch.ones(images, dtype=torch.int64)
    hidden = {"mode": (torch.arange(images) // classes % modes, tuple(map(str, range(modes))))}
    seen, pre = (
        Features(name, {"stage5": features(images, dimensions, seed)}, labels, split, classes)
        for seed, name in enumerate(("own", "pre-training"))
    )
    seconds: dict[str, float] = {}
    at = time.perf_counter()
    for row in all_measures(SimpleNamespace(split=split, hidden=hidden), seen, pre, "stage5", "test"):
        now = time.perf_counter()
        name = row["measure"].removesuffix("_nmi")  # what a measure takes is in the first of its rows
        seconds[name] = seconds.get(name, 0.0) + now - at
        at = now
    measures.singular_values(seen.layers["stage5"])
    seconds["singular_values"] = time.perf_counter() - at
    return {name: value for name, value in seconds.items() if value > 0.005 * sum(seconds.values())}


def measures_memory() -> dict[str, Any]:
    """Peak memory of φ, Π and R on the same features, as a multiple of the features, the features included."""
    taken = alone(papers_alone, IMAGES, DIMENSIONS, CLASSES)
    value = 1 + taken / (IMAGES * DIMENSIONS * 4)
    details = "peak memory of a process of its own above what it had before, and the features"
    return {"name": "measures_memory", "value": value, "unit": "× features", "target": "< 3", "details": details}


def papers_alone(images: int, dimensions: int, classes: int) -> int:
    """Bytes beyond the features."""
    x, y = features(images, dimensions, 0), torch.arange(images) % classes
    _papers(x[: 2 * classes], y[: 2 * classes])  # libraries load
    with Memory() as memory:
        _papers(x, y)
    return memory.taken


def _papers(x: Tensor, y: Tensor) -> None:
    measures.discriminative_ratio(x, y)
    centres = measures.class_centres(x, y)
    measures.mixtureness(*centres.chunk(2))
    measures.redundancy(x)


def measures_memmap() -> dict[str, Any]:
    """Peak memory in GiB of all measures that stream, on 128,000 × 2048 float16 features in a file that is mapped.

    The time for the training images of ImageNet-1K is that times 10: the passes take as many times longer, the rest
    (eigenvalues of d x d matrices) takes no longer, so it is too large if anything. Memory does not grow with the rows.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npy"
        write(file, MAPPED_IMAGES, MAPPED_DIMENSIONS)
        found = alone(streamed_alone, file, MAPPED_CLASSES)
    minutes = sum(found["seconds"].values()) * IMAGENET / MAPPED_IMAGES / 60
    details = (
        f"{MAPPED_IMAGES:,} × {MAPPED_DIMENSIONS} rows in {sum(found['seconds'].values()):.0f} s ("
        + ", ".join(f"{name} {value:.0f}" for name, value in found["seconds"].items())
        + f"), {torch.get_num_threads()} threads: {minutes:.0f} min for {IMAGENET:,}; peak of a process of its own above what "
        "it had before, pages of the file not included"
    )
    return {"name": "measures_memmap", "value": found["memory"] / 2**30, "unit": "GiB", "target": "< 2", "details": details}


def write(file: Path, images: int, dimensions: int) -> None:
    """A file of rectified noise (N, d) float16, made of one block of 4096 rows, shifted along the features."""
    mapped = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(images, dimensions))
    block = features(4096, dimensions, 0).numpy().astype(np.float16)
    for number, start in enumerate(range(0, images, len(block))):
        part = mapped[start : start + len(block)]
        part[:] = np.roll(block, number, axis=1)[: len(part)]
    mapped.flush()


def streamed_alone(file: Path, classes: int) -> dict[str, Any]:
    """Seconds of each measure, and bytes."""
    x = np.load(file, mmap_mode="r")
    y = torch.arange(len(x)) % classes
    _stream(np.array(x[: 2 * classes]), y[: 2 * classes])  # libraries load
    with Memory() as memory:
        seconds = _stream(x, y)
    return {"seconds": seconds, "memory": memory.taken}


def _stream(x: np.ndarray, y: Tensor) -> dict[str, float]:
    seconds = {}
    at = time.perf_counter()

    def done(name: str) -> None:
        nonlocal at
        now = time.perf_counter()
        seconds[name] = now - at
        at = now

    plain, unit = measures.moments(x), measures.moments(x, normalise=True)
    done("moments")
    measures.redundancy(plain)
    measures.singular_values(plain)
    measures.effective_rank(plain)
    measures.coding_length(unit)
    measures.frechet_distance(plain, plain)
    done("from the moments")
    measures.discriminative_ratio(x, y)
    done("φ")
    measures.mixtureness(*measures.class_centres(x, y).chunk(2))
    done("Π")
    measures.class_separation(x, y)
    done("class separation")
    measures.neural_collapse(x, y)
    done("neural collapse")
    measures.sparsity(x)
    done("sparsity")
    return seconds


def features(images: int, dimensions: int, seed: int) -> Tensor:
    """Rectified Gaussian features (N, d) float32."""
    return torch.randn(images, dimensions, generator=torch.Generator().manual_seed(seed)).relu_()
