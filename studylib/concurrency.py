"""How many runs each GPU trains at a time: one more as long as that raises what they do together by a tenth.

Images/s of different methods cannot be added up: a cheap run beside a dear one would raise the sum by the time that it
takes from it. What is compared is how much runs of the same kind slow down by one more beside them. Where n runs per GPU are
each v times as fast as one alone, the GPU does n·v times as much work: that is the total.
"""

import time
from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch

from studylib.cost import speed_key
from studylib.training import Run

MOST = 10  # ours: runs per GPU
GAIN = 1.1  # ours: what one more run per GPU must make of the total
WINDOWS = 2  # ours: paces of each run that are averaged, about 5 s each


def another(totals: Sequence[tuple[int, float]]) -> bool:
    """Whether to try one more run per GPU.

    Args:
        totals: (runs per GPU, their total speed, in that of one run alone), in the order in which they were tried.
    """
    (runs, total), before = totals[-1], totals[-2][1] if len(totals) > 1 else 0.0
    return runs < MOST and total >= GAIN * before


def total(totals: Sequence[tuple[int, float]], before: dict[Any, float], now: dict[Any, float]) -> float | None:
    """Total speed after one more run per GPU; None where no kind of run was measured with both numbers.

    Args:
        totals: as `another`'s, without what is asked for.
        before, now: images/s of one run of each kind, with the last number of ``totals`` and with one more per GPU.
    """
    common = before.keys() & now.keys()
    if not common:
        return None
    runs, known = totals[-1]
    return (runs + 1) * known / runs * mean(now[kind] / before[kind] for kind in common)


def room(gpus: int, each: int) -> bool:
    """Whether every GPU has free memory for one more run beside ``each``: twice what one of them takes."""
    memory = [torch.cuda.mem_get_info(gpu) for gpu in range(gpus)]
    return all(free >= 2 * (whole - free) / each for free, whole in memory)


class Concurrency:
    """The number of runs on ``gpus`` GPUs, found while they train."""

    def __init__(self, gpus: int):
        self.gpus, self.each, self.settled = gpus, 1, False
        self.totals: list[tuple[int, float]] = []
        self._rates: dict[Any, float] = {}  # images/s of each kind with the last number in totals
        self._paces: dict[str, list[dict[str, Any]]] = {}
        self._since = 0.0

    def workers(self, runs: Sequence[Run]) -> int:
        """How many are to train now, given those that do; called again and again."""
        if not self.settled and len(runs) == self.gpus * self.each and (rates := self._measured(runs)):
            found = total(self.totals, self._rates, rates) if self.totals else 1.0
            if found is not None:
                self._decide(found, rates)
        return self.gpus * self.each

    def _measured(self, runs: Sequence[Run]) -> dict[Any, float]:
        """images/s of each kind of run, from paces of a time in which all ``runs`` trained; empty until there are enough."""
        if self._paces.keys() != {run.name for run in runs}:
            self._paces, self._since = {run.name: [] for run in runs}, time.time()
        for run in runs:
            known = self._paces[run.name]
            if pace := run.pace(known[-1]["time"] if known else self._since):
                known.append(pace)
        if not all(self._paces.values()):
            return {}
        together = max(known[0]["time"] for known in self._paces.values())
        rates: dict[Any, list[float]] = {}
        for run in runs:
            # The first pace after that moment began before it.
            after = [pace["images_per_s"] for pace in self._paces[run.name] if pace["time"] > together][1:]
            if len(after) < WINDOWS:
                return {}
            rates.setdefault(speed_key(run.config), []).append(mean(after))
        return {kind: mean(found) for kind, found in rates.items()}

    def _decide(self, found: float, rates: dict[Any, float]) -> None:
        self.totals.append((self.each, found))
        if another(self.totals) and room(self.gpus, self.each):
            self.each, self._rates = self.each + 1, rates
            return
        self.settled = True
        if len(self.totals) > 1 and found < GAIN * self.totals[-2][1]:
            self.each -= 1
