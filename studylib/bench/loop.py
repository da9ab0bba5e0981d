"""The training loop: how much of its time is not the step's, and how much of a GPU one process with captured steps uses."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from studylib import device as devices
from studylib import precision
from studylib.config import RunConfig, resolve
from studylib.data import ImageSet, load
from studylib.data.augment import draw
from studylib.device import usable_cores
from studylib.methods import METHODS
from studylib.training import Run, train
from studylib.training.capture import WARM_UP, captured, own_stream
from studylib.training.loop import channel_statistics
from studylib.training.record import commit
from studylib.training.step import Inputs, Step

ROUNDS = 3
PATIENCE_S = 120  # for processes that are to start together
PROCESSES = (1, 4, 10)  # that take eager steps on one GPU at the same time
STEPS = {32: 150, 224: 20}  # that are timed on a GPU, by the side of the images
NOISE = {32: 35_940, 224: 6_500}  # images of noise, by their side: 140 and 25 batches for training and a hundred images
QUIET = {"monitor.every": 0, "monitor.snapshots": "final"}
SHORT = {"optimisation.epochs": 2, "optimisation.warmup_epochs": 1, "optimisation.batch": 256}
AT_32_PX = {
    "sl, width 32": ("sl", {"encoder.width": 32}),
    "sl, width 64": ("sl", {"encoder.width": 64}),
    "look, width 32": ("look", {"encoder.width": 32}),
    "trex_star, width 32": ("trex_star", {"encoder.width": 32, "multi_crop.local_crops": 4}),
}


def cases(device: torch.device, more: bool) -> Iterator[tuple[str, RunConfig, ImageSet]]:
    """(name, configuration, images): methods at scale ``quick`` on a CPU; on a GPU with a ResNet-18 at scale ``small`` on noise
    of 32 px and, if ``more``, SL with a ResNet-50 at 224 px."""
    if device.type == "cpu":
        for method in ("sl", "look", "trex_star"):
            config = resolve("quick", method, 0, QUIET | {"optimisation.epochs": 3})
            yield method, config, load(config.data)
        return
    images = noise(32)
    for name, (method, settings) in AT_32_PX.items():
        yield name, resolve("small", method, 0, QUIET | SHORT | settings), images
    if more:
        large = {"encoder.arch": "resnet50", "encoder.stem": "conv7", "encoder.width": 64}
        yield "sl, ResNet-50 at 224 px", resolve("small", "sl", 0, QUIET | SHORT | large), noise(224)


def noise(side: int) -> ImageSet:
    """Images of noise in 100 classes, all for training but the last hundred."""
    count = NOISE[side]
    images = torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels, split = torch.arange(count) % 100, (torch.arange(count) >= count - 100).long()
    return ImageSet(f"noise{side}", images, labels, tuple(map(str, range(100))), split)


def loop_efficiency(device: torch.device) -> list[dict[str, Any]]:
    """images/s of the real loop in its last epoch ÷ images/s of its bare step on one resident batch.

    Both augment, and are captured where the loop captures. In turn in one process with the same threads, three rounds, the
    median of the ratios. On a CPU methods at scale ``quick``; on a GPU with a ResNet-18 at scale ``small`` and a ResNet-50 at
    224 px, in batches of 256 of noise.
    """
    rows = []
    for name, config, images in cases(device, more=True):
        ratios, real, bare = [], [], []
        steps = STEPS[images.images.shape[-1]] if device.type == "cuda" else 40
        for round_ in range(ROUNDS):
            before = bare_speed(config, images, device, steps)
            real.append(real_speed(dataclasses.replace(config, seed=round_), images, device))
            bare.append((before + bare_speed(config, images, device, steps)) / 2)
            ratios.append(real[-1] / bare[-1])
        details = f"loop {median(real):,.0f}, bare step {median(bare):,.0f} images/s"
        about = {"name": f"loop_efficiency: {name}", "value": median(ratios), "unit": "ratio"}
        rows.append(about | {"target": ">= 0.93" if device.type == "cpu" else ">= 0.95", "details": details})
    return rows


def captured_share(device: torch.device) -> list[dict[str, Any]]:
    """images/s of one process with captured steps ÷ the best total of 1 to 10 processes at a time with eager steps.

    The bare step, augmentation included, on one GPU, in one run. On a CPU, where nothing is captured, one process to as many
    as there are cores, with a thread each: what one process leaves of the machine.
    """
    counts = PROCESSES if device.type == "cuda" else tuple(range(1, usable_cores() + 1))
    rows, context = [], get_context("spawn")
    barriers = {count: context.Barrier(count) for count in counts}
    with ProcessPoolExecutor(max(counts), context, _join, (barriers,)) as pool:
        for name, config, images in cases(device, more=False):
            small = dataclasses.replace(images, name="batch").select(torch.arange(config.optimisation.batch))
            steps = STEPS[32] if device.type == "cuda" else 40
            one = median(bare_speed(config, small, device, steps) for _ in range(ROUNDS))
            eager = dataclasses.replace(config, optimisation=dataclasses.replace(config.optimisation, capture="off"))
            totals = {}
            for count in counts:
                waiting = [pool.submit(_eager, eager, small, device, count) for _ in range(count)]
                totals[count] = sum(speed.result() for speed in waiting)
            details = f"one {one:,.0f} images/s; eager " + ", ".join(f"{n}: {total:,.0f}" for n, total in totals.items())
            about = {"name": f"captured_share: {name}", "value": one / max(totals.values()), "unit": "ratio"}
            rows.append(about | {"target": ">= 0.8" if device.type == "cuda" else "none", "details": details})
    return rows


def _join(barriers: dict[int, Any]) -> None:
    global _barriers
    _barriers = barriers
    torch.set_num_threads(1)


def _eager(config: RunConfig, images: ImageSet, device: torch.device, count: int) -> float:
    steps = STEPS[32] // 3 if device.type == "cuda" else 20
    return bare_speed(config, images, device, steps, partial(_barriers[count].wait, PATIENCE_S))


def real_speed(config: RunConfig, images: ImageSet, device: torch.device) -> float:
    """images/s of `train` on ``images`` in its last epoch, in a runs folder that is thrown away."""
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, STUDYLIB_RUNS=folder),
        patch("studylib.training.loop.load", lambda _: images),
    ):
        train(config, device=str(device), say=lambda line: print(line) if "not captured" in line else None)
        return Run(config).timing()[-1]["images_per_s"]


def bare_speed(config: RunConfig, images: ImageSet, device: torch.device, steps: int, ready: Callable[[], Any] = int) -> float:
    """images/s of the loop's step, captured where the loop would, given the same resident batch again and again.

    ``ready`` is called before the clock starts.
    """
    count, settings = config.optimisation.batch, config.optimisation
    train_set = images.train
    pixels, labels = train_set.images[:count].to(device), train_set.labels[:count].to(device)
    method = METHODS[config.method](config, images.num_classes, *channel_statistics(pixels)).to(device).train()
    generator = torch.Generator(device).manual_seed(0)
    with precision.kernels(device, settings.precision, fastest=True), own_stream(device):
        step = Step(method, settings, device)
        take_step = captured(step, settings.capture, device, print)
        numbers = torch.stack([draw(len(labels), generator) for _ in method.views])
        inputs = Inputs(pixels, labels, torch.arange(len(labels), device=device), numbers)
        if bank := getattr(method, "bank", None):  # full, as it is for most of the training
            classes = torch.arange(len(bank), device=device) % images.num_classes
            bank.push(torch.randn_like(bank.keys), classes, bank.ids.clone())
        for index in range(WARM_UP + 2 + steps):
            if index == WARM_UP + 2:  # kernels are chosen and steps captured
                synchronise(device)
                ready()
                started = time.perf_counter()
            take_step(inputs, method.phase(1.0))
        synchronise(device)
    return steps * len(labels) / (time.perf_counter() - started)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, Any]:
    """What figures were measured on: device, versions, threads, and the commit (with whether files differ from it)."""
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"device": devices.name_of(device), **versions, "threads": torch.get_num_threads(), "commit": commit()}
