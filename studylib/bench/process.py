"""Calls in a process of their own, whose memory is that of the call and not of what ran before."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Any

import psutil
import torch

EVERY_S = 0.002  # between two looks at the memory


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function``, of the top level of a module, returns in a new process with as many threads as here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_call, torch.get_num_threads(), function, arguments).result()


def _call(threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(threads)
    return function(*arguments)


class Memory:
    """Memory of this process while a ``with`` block runs, looked at every 2 ms by a thread.

    Resident memory without what is shared (on Linux), so that pages of a mapped file, which the system takes back when it
    needs them, do not count.
    """

    def __enter__(self) -> "Memory":
        self.start = self.peak = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    @property
    def taken(self) -> int:
        """Bytes of the peak above what there was at the start."""
        return self.peak - self.start

    def _watch(self) -> None:
        while not self._done.wait(EVERY_S):
            self.peak = max(self.peak, self._now())

    @staticmethod
    def _now() -> int:
        seen = psutil.Process(os.getpid()).memory_info()
        return seen.rss - getattr(seen, "shared", 0)
