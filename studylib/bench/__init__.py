"""Speed and memory, measured; nothing here is asserted in a test."""

from collections.abc import Callable, Iterable
from typing import Any

from studylib.bench.loop import loop_efficiency
from studylib.bench.measures import measures_memmap, measures_memory, measures_seconds
from studylib.bench.neighbours import knn_memory, knn_speedup
from studylib.bench.path import path_speedup
from studylib.bench.probe import probe_speedup
from studylib.errors import choose

BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    benchmark.__name__: benchmark
    for benchmark in (
        loop_efficiency,
        knn_speedup,
        knn_memory,
        probe_speedup,
        path_speedup,
        measures_seconds,
        measures_memory,
        measures_memmap,
    )
}


def run(names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Results (name, value, unit, target, details) of the named benchmarks, by default of all, which takes about half an hour.

    Raises:
        InputError: there is no such benchmark.
    """
    chosen = [choose("benchmark", name, BENCHMARKS) for name in names or BENCHMARKS]
    return [BENCHMARKS[name]() for name in chosen]
