"""How much of the time the training loop spends on anything but the network."""

import dataclasses
import os
import tempfile
import time
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from studylib.config import RunConfig, resolve
from studylib.data import load
from studylib.data.augment import augment
from studylib.methods import METHODS, Batch
from studylib.training import Run, train
from studylib.training.loop import autocast, channel_statistics, channels_last, sgd

ROUNDS = 3


def loop_efficiency() -> dict[str, Any]:
    """images/s of the real ``sl`` loop with its augmentation ÷ images/s of the bare step on one resident batch.

    Both at scale ``quick``, in turn in one process with the same threads; the median of three rounds.
    """
    config = resolve("quick", "sl", 0, {"monitor.every": 0, "monitor.snapshots": "final", "optimisation.epochs": 2})
    images = load(config.data)
    ratios, real, bare = [], [], []
    for round_ in range(ROUNDS):
        bare.append(bare_speed(config, images))
        real.append(real_speed(dataclasses.replace(config, seed=round_)))
        ratios.append(real[-1] / ((bare[-1] + bare_speed(config, images)) / 2))
    details = f"loop {median(real):.0f}, bare step {median(bare):.0f} images/s, {torch.get_num_threads()} threads"
    return {"name": "loop_efficiency", "value": median(ratios), "unit": "ratio", "target": ">= 0.85", "details": details}


def real_speed(config: RunConfig) -> float:
    """images/s of `train` in its second epoch, in a runs folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, STUDYLIB_RUNS=folder):
        train(config, say=str)
        return Run(config).timing()[-1]["images_per_s"]


def bare_speed(config: RunConfig, images: Any, steps: int = 40) -> float:
    """images/s of forward, backward, optimiser step and what follows it, on one augmented batch that is already there."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pixels = images.train.images[: config.optimisation.batch].to(device)
    labels = images.train.labels[: config.optimisation.batch].to(device)
    method = METHODS[config.method](config, images.num_classes, *channel_statistics(pixels)).to(device)
    method.to(memory_format=torch.channels_last).train()
    optimiser = sgd(method, config.optimisation)
    generator = torch.Generator(device).manual_seed(0)
    views = [channels_last(augment(pixels, view, generator)) for view in method.views]
    batch = Batch(views, labels, torch.arange(len(labels), device=device))
    for step in range(steps + 5):
        if step == 5:  # the first steps choose kernels and fill caches
            synchronise(device)
            started = time.perf_counter()
        with autocast(device, config.optimisation.precision):
            loss, _ = method.loss(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with autocast(device, config.optimisation.precision):
            method.after_step(batch)
    synchronise(device)
    return steps * len(labels) / (time.perf_counter() - started)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
