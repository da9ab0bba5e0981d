"""Speed and memory, measured; nothing here is asserted in a test."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from studylib.bench.loop import captured_share, loop_efficiency, machine
from studylib.bench.measures import measures_memmap, measures_memory, measures_seconds
from studylib.bench.neighbours import knn_memory, knn_speedup
from studylib.bench.path import path_speedup
from studylib.bench.peers import peers as compare_with_peers
from studylib.bench.probe import probe_speedup
from studylib.errors import InputError, choose

__all__ = ["BENCHMARKS", "ON_A_DEVICE", "machine", "run"]

ON_A_DEVICE: dict[str, Callable[[torch.device], list[dict[str, Any]]]] = {
    benchmark.__name__: benchmark for benchmark in (loop_efficiency, captured_share, compare_with_peers)
}
BENCHMARKS: dict[str, Callable[..., Any]] = ON_A_DEVICE | {
    benchmark.__name__: benchmark
    for benchmark in (
        knn_speedup,
        knn_memory,
        probe_speedup,
        path_speedup,
        measures_seconds,
        measures_memory,
        measures_memmap,
    )
}


def run(names: Iterable[str], device: torch.device) -> list[dict[str, Any]]:
    """Results (name, value, unit, target, details) of the named benchmarks.

    By default of all, which takes about half an hour, or on a GPU of those ``ON_A_DEVICE``.

    Raises:
        InputError: there is no such benchmark, or it does not run on a GPU.
    """
    chosen = [choose("benchmark", name, BENCHMARKS) for name in names or (BENCHMARKS if device.type == "cpu" else ON_A_DEVICE)]
    for name in chosen:
        if device.type != "cpu" and name not in ON_A_DEVICE:
            raise InputError("benchmark", name, f"is of a CPU; on a GPU there are {', '.join(ON_A_DEVICE)}")
    return [row for name in chosen for row in (ON_A_DEVICE[name](device) if name in ON_A_DEVICE else [BENCHMARKS[name]()])]
