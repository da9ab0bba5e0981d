"""The training loop, whole and in one place, for one process or several under ``torchrun``.

Nothing random is carried from step to step: the order of an epoch and the augmentation of a step are drawn from
generators seeded by (seed, purpose, number). A run killed anywhere therefore goes on from its last checkpoint exactly as
if it had never stopped.
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from studylib import device as devices
from studylib import distributed, files, paths, precision
from studylib.config import Optimisation, RunConfig
from studylib.data import ImageSet, checksum, is_here, load
from studylib.data.augment import draw
from studylib.errors import RESUME_EXIT, InputError, RunError
from studylib.methods import METHODS
from studylib.training import checkpoint
from studylib.training.capture import captured, own_stream
from studylib.training.monitor import snapshot_epochs, upstream_accuracy
from studylib.training.optimiser import learning_rate
from studylib.training.passes import EncoderPasses
from studylib.training.record import Run
from studylib.training.step import Inputs, Step

DIVERGED = 10.0  # ours: an epoch whose mean loss is this many times the first loss is not learning
LOOK_UP = 20  # ours: steps between two looks at the loss and at other processes, for which a GPU has to wait
PACE_S = 5.0  # ours: seconds between two notes of how fast a run trains
INITIALISATION, ORDER, AUGMENTATION, MONITOR = range(4)


def train(
    config: RunConfig, *, device: str | None = None, save_every_s: float = 60.0, say: Callable[[str], Any] = print
) -> Path:
    """Folder of the finished run of ``config``; trains what is missing.

    Called again it does nothing; killed at any moment and called again it ends with the same weights and metrics, bit for
    bit on a CPU with the same number of threads. Under ``torchrun`` each process takes its share of every batch (and draws
    its own augmentations, so that other numbers of processes end with other weights).

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:1``, by default a GPU if there is one.
        save_every_s: seconds between checkpoints inside an epoch (each epoch ends with one); 0 for every step.
        say: receives one line per epoch.

    Raises:
        InputError: data or settings cannot be used, or the run was begun on other images than its data set has.
        RunError: the loss or a weight is not finite, or the loss has grown tenfold; the last good checkpoint is kept.
        SystemExit: with code 75 after SIGTERM, once the state is saved (``torchrun`` itself then exits with 1).
    """
    run = Run(config)
    if run.done:
        refuse_other_data([run])
        return run.folder
    where = devices.find(device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    with distributed.group(where), stop_requested() as stop:
        files.usable(paths.runs(), "STUDYLIB_RUNS")
        images = load(config.data)
        refuse_unfit(config, images)
        first_process = distributed.rank() == 0  # it holds the run's folder and writes
        with run.locked(say, stop) if first_process else nullcontext():
            if not any(distributed.any_of(run.done)):
                with precision.kernels(where, config.optimisation.precision, fastest=True), own_stream(where):
                    _train(run, images, where, save_every_s, say if first_process else str, stop)
    return run.folder


def _train(run: Run, images: ImageSet, device: torch.device, save_every_s: float, say: Callable, stop: threading.Event) -> None:
    config, settings, train_set = run.config, run.config.optimisation, images.train
    steps = len(train_set.labels) // settings.batch  # the last, smaller batch of an epoch is left out
    share = settings.batch // distributed.size()
    own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    labels = train_set.labels.to(device)
    pixels = train_set.images.to(device) if fits(train_set.images, device) else train_set.images
    torch.manual_seed(seed_of(config.seed, INITIALISATION, 0))
    method = METHODS[config.method](config, images.num_classes, *channel_statistics(pixels)).to(device)
    method = distributed.synchronise(method, device)
    step = Step(method, settings, device)
    run.refuse_incomplete()
    state = {"epoch": 0, "step": 0, "first_loss": 0.0, "seconds": 0.0, "metrics": [], "timing": []}
    if run.checkpoint.exists():
        stored = checkpoint.load(run.checkpoint, device)
        step.load(stored)
        state = {name: stored[name] for name in state}
    refuse_other_data([run])
    if run.processes not in (None, distributed.size()):
        raise InputError("processes", distributed.size(), f"{config.name} was begun with {run.processes}; go on with as many")
    distributed.refuse_difference([state["epoch"], state["step"]], f"the checkpoints that they see in {run.folder}")
    first_process = distributed.rank() == 0
    if (begun := run.precision) not in (None, now := precision.used(device, settings.precision)):
        say(f"{config.name}: was begun in {begun} and goes on in {now}")
    if first_process:
        run.begin(
            {"device": devices.name_of(device), "processes": distributed.size(), "threads": torch.get_num_threads()}
            | {"precision": now, "data_sha256": images.checksum}
        )
    kept = snapshot_epochs(settings.epochs, config.monitor.snapshots)
    if first_process and 0 in kept and state["epoch"] == state["step"] == 0:
        keep(run, 0, method, images)

    take_step = captured(step, settings.capture, device, lambda why: say(f"{config.name}: {why}"))
    generator = torch.Generator(device)
    passes: dict[str, float] = {}
    last_save, mark = time.monotonic(), None
    for epoch in range(state["epoch"], settings.epochs):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed_of(config.seed, ORDER, epoch)))
        order = order.to(pixels.device)
        method.train()
        started, first = time.monotonic() - state["seconds"], state["step"]
        for index in range(first, steps):
            number = epoch * steps + index
            rows = order[index * settings.batch : (index + 1) * settings.batch][own]
            generator.manual_seed(seed_of(config.seed, AUGMENTATION, number * distributed.size() + distributed.rank()))
            numbers = torch.stack([draw(share, generator) for _ in method.views])
            chosen, rows = pixels.index_select(0, rows).to(device), rows.to(device)
            progress = number / (settings.epochs * steps)
            step.progress.fill_(progress)
            step.rate.fill_(rate := learning_rate(number, steps, settings))
            with nullcontext() if passes else EncoderPasses(method, passes, pixels.shape[-2:], share):
                take_step(Inputs(chosen, labels[rows], rows, numbers), method.phase(progress))
            state["step"] = index + 1
            state["seconds"] = time.monotonic() - started
            look_up = index % LOOK_UP == 0 or index + 1 == steps
            if device.type == "cpu" or look_up:
                refuse_divergence(state, step.totals, settings)
            if look_up and first_process:
                mark = note_pace(run, mark, number + 1, steps)
            if (distributed.size() == 1 or look_up) and index + 1 < steps:  # the last step is saved with its epoch
                stopping, due = distributed.any_of(stop.is_set(), time.monotonic() - last_save >= save_every_s)
                if stopping or due:
                    refuse_divergence(state, step.totals, settings)
                    refuse_not_finite(method, epoch + 1, settings)
                    save(run, step, state)
                    last_save = time.monotonic()
                if stopping:
                    say(f"{config.name}: saved in epoch {epoch + 1} after step {index + 1} of {steps}; call again to go on")
                    sys.exit(RESUME_EXIT)

        stepped = time.monotonic()
        clock = {"epoch": epoch + 1, "images_per_s": steps * settings.batch / (stepped - started), **passes}
        refuse_not_finite(method, epoch + 1, settings)
        row = {"epoch": epoch + 1, "step": (epoch + 1) * steps, "lr": rate}
        for name, total in step.totals.items():
            row[name] = float(total) / steps
            total.zero_()
        if config.monitor.every and ((epoch + 1) % config.monitor.every == 0 or epoch + 1 == settings.epochs):
            row["knn_top1"] = upstream_accuracy(method, train_set, config, seed_of(config.seed, MONITOR, 0), device)
        state["metrics"].append(row)
        state["timing"].append(clock | {"seconds": time.monotonic() - started})
        state |= {"epoch": epoch + 1, "step": 0, "seconds": 0.0}
        if first_process and epoch + 1 in kept:
            keep(run, epoch + 1, method, images)
        save(run, step, state)
        last_save = time.monotonic()
        mark = mark and (mark[0] + last_save - stepped, mark[1])  # the time of the monitor and of saving is not training's
        say(line(config, row, state["timing"][-1]))
        if any(distributed.any_of(stop.is_set())) and epoch + 1 < settings.epochs:
            say(f"{config.name}: saved after epoch {epoch + 1}; call again to go on")
            sys.exit(RESUME_EXIT)
    if first_process:
        run.finish()


def refuse_unfit(config: RunConfig, images: ImageSet) -> None:
    """Raise an `InputError` where settings, data and the number of processes do not fit together."""
    settings, count = config.optimisation, int((images.split == 0).sum())
    steps = count // settings.batch
    if steps == 0:
        raise InputError("optimisation.batch", settings.batch, f"{config.data} has only {count} training images")
    if settings.batch % distributed.size():
        raise InputError("optimisation.batch", settings.batch, f"must be a multiple of the {distributed.size()} processes")
    for name, size in (
        ("augmentation.size", config.augmentation.size),
        ("multi_crop.local_size", config.multi_crop.local_size),
    ):
        if size > images.size:
            raise InputError(name, size, f"is larger than the {images.size} px images of {config.data}")
    if (
        config.method == "look"
        and config.look.start == "filled"
        and config.bank.length >= settings.epochs * steps * settings.batch
    ):
        raise InputError(
            "bank.length", config.bank.length, "is not filled before training ends; look.start=filled would never train"
        )


def keep(run: Run, epoch: int, method: nn.Module, images: ImageSet) -> None:
    """Write the weights after ``epoch`` epochs, with the number of classes and the side of the images they were trained on."""
    size = run.config.augmentation.size or images.size
    content = {"classes": images.num_classes, "size": size, "weights": method.state_dict()}
    checkpoint.save(run.snapshot(epoch), content)


def save(run: Run, step: Step, state: dict[str, Any]) -> None:
    """Write the checkpoint, then the tables it holds; the first process does it for all."""
    if distributed.rank() > 0:
        return
    checkpoint.save(run.checkpoint, {**state, **step.state()})
    run.write_rows(state["metrics"], state["timing"])


def seed_of(seed: int, purpose: int, number: int) -> int:
    """Seed of the random numbers for one purpose and step; different for each."""
    return int(numpy.random.SeedSequence([seed, purpose, number]).generate_state(1, numpy.uint64)[0] >> numpy.uint64(1))


def note_pace(run: Run, mark: tuple[float, int] | None, done: int, steps: int) -> tuple[float, int]:
    """Write how fast ``run`` trains since ``mark`` (time, steps done) if that is ``PACE_S`` ago; the next mark.

    The first mark is after the first look, so that choosing kernels does not count; capturing a step still does.
    """
    now = time.monotonic()
    if mark is None or now - mark[0] < PACE_S:
        return mark or (now, done)
    epoch, step = divmod(done - 1, steps)
    run.write_pace(epoch + 1, step + 1, steps, (done - mark[1]) * run.config.optimisation.batch / (now - mark[0]))
    return now, done


def refuse_divergence(state: dict[str, Any], totals: dict[str, Tensor], settings: Optimisation) -> None:
    """Raise a `RunError` when the epoch's mean loss is not finite or far above the first step's."""
    mean, first = float(totals["loss"]) / state["step"], state["first_loss"]
    if not first:  # losses against a memory begin with 0, while there is nothing in it
        first = state["first_loss"] = mean
    if not math.isfinite(mean) or mean > DIVERGED * max(1.0, abs(first)):
        raise RunError(
            f"diverged: mean loss {mean:.3g} in epoch {state['epoch'] + 1} after step {state['step']} (first loss {first:.3g});"
            f" the last good checkpoint is kept; lower optimisation.lr={settings.lr:g}"
        )


def refuse_not_finite(method: nn.Module, epoch: int, settings: Optimisation) -> None:
    """Raise a `RunError` when a weight or a statistic is not finite, which the loss of the step before cannot tell."""
    named = (name for name, value in method.state_dict().items() if value.is_floating_point() and not value.isfinite().all())
    if strange := next(named, None):
        raise RunError(
            f"diverged: {strange} is not finite in epoch {epoch}; the last good checkpoint is kept; "
            f"lower optimisation.lr={settings.lr:g}"
        )


def refuse_other_data(runs: Iterable[Run]) -> None:
    """Raise an `InputError` that names the runs whose data set has other images now than those that they were begun on.

    Of a set that is not here nothing can be said.
    """
    changed: dict[str, list[Run]] = {}
    for run in runs:
        begun_on = run.data_sha256
        if begun_on and is_here(run.config.data) and begun_on != checksum(run.config.data):
            changed.setdefault(run.config.data, []).append(run)
    for data, these in changed.items():
        names = ", ".join(run.name for run in these)
        fix = f"put the images back, or move {these[0].folder if len(these) == 1 else 'their folders'} away to train anew"
        raise InputError("data", data, f"is not what {names} {'was' if len(these) == 1 else 'were'} begun on; {fix}")


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether all images can lie on ``device`` and leave half of its free memory to the network."""
    return device.type != "cuda" or images.numel() < torch.cuda.mem_get_info(device)[0] / 2


def channel_statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (3,) of uint8 images (N, 3, H, W) in [0, 1]."""
    sums, squares = torch.zeros(2, 3, dtype=torch.float64, device=pixels.device)
    for part in pixels.split(512):
        values = part.double() / 255
        sums, squares = sums + values.sum((0, 2, 3)), squares + values.square().sum((0, 2, 3))
    count = pixels.numel() / 3
    mean = sums / count
    return mean.float(), (squares / count - mean.square()).clamp_min(1e-6).sqrt().float()


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that SIGTERM sets while the block runs (in the main thread; elsewhere it stays unset)."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def line(config: RunConfig, row: dict[str, Any], clock: dict[str, Any]) -> str:
    """One aligned line: the row of ``metrics.jsonl``, then the clock."""
    left = (config.optimisation.epochs - row["epoch"]) * clock["seconds"]
    shown = [f"{name} {value:<8.4g}" if isinstance(value, float) else f"{name} {value:<5d}" for name, value in row.items()]
    return f"{config.name} seed {config.seed}  {' '.join(shown)} {clock['images_per_s']:.0f} images/s  {left:.0f} s left"
