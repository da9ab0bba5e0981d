"""How many runs a GPU trains at a time: the decision, and that it is made on paces that can be compared."""

import itertools
import time

import pytest
import torch

from studylib.concurrency import Concurrency, another, total
from studylib.config import resolve
from studylib.training import Run

pytestmark = pytest.mark.slow

PLENTY = (80, 81)  # free memory and all of it


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        ([(1, 1.0)], True),
        ([(1, 1.0), (2, 1.1)], True),
        ([(1, 1.0), (2, 1.09)], False),
        ([(1, 1.0), (2, 1.6), (3, 1.8)], True),
        ([(1, 1.0), (2, 1.6), (3, 1.7)], False),
        ([(1, 1.0), (2, 0.7)], False),
        ([(9, 5.0), (10, 9.0)], False),
    ],
)
def test_one_more_is_tried_while_the_last_raised_the_total_by_a_tenth(totals, expected):
    assert another(totals) == expected


def test_totals_are_compared_by_how_much_the_same_runs_slow_down():
    # A dear run halved by a cheap one beside it: more images/s in all, but no more work.
    assert total([(1, 1.0)], {"dear": 100.0}, {"dear": 50.0, "cheap": 5000.0}) == 1.0
    assert total([(1, 1.0)], {"dear": 100.0}, {"dear": 80.0, "cheap": 10.0}) == pytest.approx(1.6)
    assert total([(1, 1.0), (2, 1.6)], {"a": 10.0, "b": 10.0}, {"a": 8.0, "b": 6.0}) == pytest.approx(3 * 0.8 * 0.7)
    assert total([(1, 1.0)], {"a": 1.0}, {"b": 1.0}) is None


class Simulation:
    """Runs of different cost that train on ``gpus`` GPUs, each of which does ``work`` for n = 1, 2, ... of them together."""

    def __init__(self, monkeypatch, gpus, work, starting=4, length=10**9):
        self.clock, self.work, self.starting, self.length = 1000.0, work, starting, length
        monkeypatch.setattr(time, "time", lambda: self.clock)
        monkeypatch.setattr(Run, "pace", lambda run, since: self.pace(run, since))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: PLENTY)
        methods = itertools.cycle(["sl", "dino", "trex", "look"])
        self.configs = (resolve("smoke", method, seed) for seed, method in enumerate(methods))
        self.speeds = {"sl": 1000.0, "dino": 100.0, "trex": 300.0, "look": 500.0}
        self.paces = {}  # name of a run -> what it noted last
        self.slots = {}  # slot -> (run, turns since it was begun)
        self.search = Concurrency(gpus)

    def pace(self, run, since):
        found = self.paces.get(run.name)
        return found if found and found["time"] > since else None

    def turn(self):
        workers = self.search.workers([run for run, _ in self.slots.values()])
        for slot in range(workers):
            self.slots.setdefault(slot, (Run(next(self.configs)), 0))
        self.clock += 5
        for slot, (run, age) in list(self.slots.items()):
            beside = [age for other, (_, age) in self.slots.items() if other % self.search.gpus == slot % self.search.gpus]
            training = sum(age >= self.starting for age in beside)
            if age > self.starting:
                rate = self.speeds[run.config.method] * self.work[training - 1] / training
                self.paces[run.name] = {"images_per_s": rate, "time": self.clock}
            self.slots[slot] = (run, age + 1)
            if age + 1 == self.length:
                del self.slots[slot]
        return workers


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize(
    ("work", "expected"),
    [
        ([1, 1, 1], 1),
        ([1, 1.6, 1.9, 2.0], 3),
        ([1, 1.2, 0.9, 0.9], 2),
        ([n**0.9 for n in range(1, 20)], 9),  # from 9 to 10 it is less than a tenth
        (list(range(1, 20)), 10),
    ],
)
def test_the_number_that_pays_is_found_whatever_the_mix_of_methods(monkeypatch, gpus, work, expected):
    simulation = Simulation(monkeypatch, gpus, work)
    while not simulation.search.settled:
        simulation.turn()
    assert simulation.turn() == gpus * expected


def test_the_number_is_found_while_runs_come_and_go(monkeypatch):
    simulation = Simulation(monkeypatch, 2, [1, 1.6, 1.9, 2.0], starting=2, length=30)
    for _ in range(400):
        workers = simulation.turn()
    assert workers == 2 * 3


def test_no_run_is_added_that_may_not_fit(monkeypatch):
    simulation = Simulation(monkeypatch, 1, [1, 2, 3, 4])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (80 - 22 * simulation.search.each, 80))
    for _ in range(100):
        workers = simulation.turn()
    assert workers == 2  # of 22 each: twice that is not free beside two


def test_nothing_is_decided_before_all_train(monkeypatch):
    simulation = Simulation(monkeypatch, 2, [1, 2, 3], starting=1000)
    for _ in range(100):
        assert simulation.turn() == 2
    assert simulation.search.totals == []
