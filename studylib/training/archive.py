"""Runs in small files, to be carried from where they were trained to where they are evaluated (`studylib.training.restore`).

What an archived run is less than the run itself stands at the end of its ``record.json``:

- A memory (`studylib.methods.bank`) is condensed to its class vectors, a key for each class.
- ``half`` rounds tensors of ``LARGE`` values or more in two dimensions or more to float16, unless the rounding changes one by
  more than float16's own precision (values too large or too small for it). Such a snapshot holds ``rounded``. Of five methods
  at ``quick`` no kNN accuracy on two sets changed by it, and of linear ones the largest change was 0.17 %.
- ``last`` leaves out all snapshots but the last, and only ``resume`` adds the checkpoint of an unfinished run, as it is.
"""

import io
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studylib import files, paths
from studylib.config import SCHEMA, RunConfig
from studylib.errors import InputError, require
from studylib.method_table import METHODS
from studylib.methods.bank import Bank
from studylib.training import checkpoint
from studylib.training.monitor import snapshot_epochs
from studylib.training.parts import MIB, Writer
from studylib.training.record import Run, find_run

LARGE = 4096  # ours: values from which a tensor is worth rounding; what is smaller (batch norm) weighs next to nothing
PRECISION = 2**-11  # largest relative error of rounding to float16, where it has all its digits
MEMORY = "bank."  # names of a memory's tensors begin with it


def archive(
    out: Path,
    folders: Sequence[Path] = (),
    *,
    half: bool = False,
    max_mib: float = 15.0,
    last: bool = False,
    resume: bool = False,
    say: Callable[[str], Any] = print,
) -> list[Path]:
    """Write runs to ``out`` or, if it would be larger than ``max_mib`` MiB, to ``out-01.zip``, ``out-02.zip``, ...

    An earlier archive of the same name is replaced. An unfinished run is held while it is read.

    Args:
        folders: the runs, by default all under ``runs/``.
        half: round large tensors of snapshots to float16.
        last: only the last snapshot of each run.
        resume: with the checkpoints of unfinished runs, so that they can go on elsewhere.
        say: receives a line for each run.

    Returns:
        the files written.

    Raises:
        InputError: a folder holds no run of this version, a run lacks a snapshot or a checkpoint that is to be archived,
            ``max_mib`` is too small, or ``out`` cannot be written or is something else.
        RunError: a snapshot is damaged, or the disk is full.
    """
    require("OUT", str(out), out.suffix == ".zip", "must end in .zip")
    require("--max-mib", max_mib, 0.01 <= max_mib < math.inf, "must be at least 0.01")
    out, runs = out.absolute(), chosen(folders, say)
    snapshots(runs, last, resume)
    files.writable(out, "OUT")
    with tempfile.TemporaryFile(dir=out.parent) as spool:
        writer = Writer(spool)
        for run in runs:
            with nullcontext() if run.done else run.locked(say):
                epochs, before = to_keep(run, last, resume), spool.tell()
                for name, content in contents(run, epochs, half, resume):
                    with files.told(out, lambda: sum(weights.stat().st_size for weights in snapshots(runs, last, resume))):
                        writer.add(f"{run.name}/{name}", content)
                unfinished = "" if run.done else ", unfinished, with checkpoint" if resume else ", unfinished"
                done = f"{len(run.metrics())}/{run.epochs} epochs{unfinished}"
            size = (spool.tell() - before) / MIB
            say(f"{run.name}  {done}, snapshots {' '.join(map(str, epochs)) or 'none'}  {size:.2f} MiB")
        return writer.write(out, max_mib, SCHEMA)


def chosen(folders: Sequence[Path], say: Callable[[str], Any]) -> list[Run]:
    """The runs in ``folders``, by default all under ``runs/`` that can be archived; ``say`` tells of the others."""
    runs: dict[str, Run] = {}
    for folder in folders or sorted(file.parent for file in paths.runs().glob("*/record.json")):
        try:
            run = begun(folder)
        except InputError as error:
            if folders:
                raise
            say(f"left out: {error}")
            continue
        if runs.setdefault(run.name, run).folder != run.folder:
            raise InputError("RUN", str(folder), f"is the run in {runs[run.name].folder} once more; leave one out")
    if not runs:
        raise InputError("RUN", str(paths.runs()), "holds no run; train one, or name another place (STUDYLIB_RUNS)")
    return list(runs.values())


def begun(folder: Path) -> Run:
    """The run in ``folder``.

    Raises:
        InputError: there is none, it is not of this version, or nothing of it was computed.
    """
    try:
        run = find_run(folder)
    except InputError as error:
        raise InputError("RUN", str(folder), f"cannot be archived: {error}") from error
    if run.folder.name != run.name:
        fix = f"is not called {run.name} as its settings say: renamed, or of another studylib; archive it with that one"
        raise InputError("RUN", str(folder), fix)
    require("RUN", str(folder), run.sessions(), "was never begun; train it, or leave it out")
    return run


def promised(run: Run) -> list[int]:
    """Epochs after which the configuration keeps weights; of an unfinished run those it has finished."""
    finished = run.epochs if run.done else len(run.metrics())
    return sorted(epoch for epoch in snapshot_epochs(run.epochs, run.config.monitor.snapshots) if epoch <= finished)


def to_keep(run: Run, last: bool, resume: bool) -> list[int]:
    """Epochs of the snapshots to archive.

    Raises:
        InputError: one of them, or the checkpoint that ``resume`` asks for, is missing.
    """
    epochs = promised(run)[-1:] if last else promised(run)
    if missing := [run.snapshot(epoch).name for epoch in epochs if not run.snapshot(epoch).exists()]:
        fix = f"lacks {', '.join(missing)}; archive it where they are, or only the last one (--last)"
        raise InputError("RUN", str(run.folder), fix)
    if resume and not run.done and not run.checkpoint.exists():
        raise InputError("RUN", str(run.folder), "has no checkpoint.pt to go on from; archive it without --resume")
    return epochs


def snapshots(runs: Sequence[Run], last: bool, resume: bool) -> list[Path]:
    """The files that `to_keep` says to archive."""
    return [run.snapshot(epoch) for run in runs for epoch in to_keep(run, last, resume)]


def contents(run: Run, epochs: list[int], half: bool, resume: bool) -> Iterator[tuple[str, bytes]]:
    """The archived files of a run, (name in its folder, content), one after the other."""
    yield "config.json", (run.folder / "config.json").read_bytes()
    left_out = {
        "snapshots": [epoch for epoch in promised(run) if epoch not in epochs],
        "memory": "all but its class vectors" if "bank" in METHODS[run.config.method].groups else None,
        "checkpoint": not run.done and not resume,
    }
    rounded = f"snapshots: tensors of {LARGE} values or more to float16" if half else None
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = [*run.sessions(), {"archived": now, "left_out": left_out, "rounded": rounded}]
    yield "record.json", json.dumps(record, indent=1, sort_keys=True).encode()
    for name in ("metrics.jsonl", "timing.jsonl"):
        if (run.folder / name).exists():
            yield name, (run.folder / name).read_bytes()
    for epoch in epochs:
        file = run.snapshot(epoch)
        snapshot = checkpoint.load(file)
        buffer = io.BytesIO()
        if reduce(snapshot, run.config, half):
            torch.save(snapshot, buffer)
        yield f"snapshots/{file.name}", buffer.getvalue() or file.read_bytes()
    if resume and not run.done:
        yield run.checkpoint.name, run.checkpoint.read_bytes()
    if run.done:
        yield "DONE", (run.folder / "DONE").read_bytes()


def reduce(snapshot: dict[str, Any], config: RunConfig, half: bool) -> bool:
    """Condense the memory of a snapshot and, with ``half``, round its large tensors, in place; whether that changed it."""
    weights, condensed = snapshot["weights"], False
    if f"{MEMORY}keys" in weights:
        condense(weights, config, snapshot["classes"])
        condensed = True
    if not (half and round_large(weights)):
        return condensed
    snapshot["rounded"] = "float16"
    return True


def condense(weights: dict[str, Any], config: RunConfig, classes: int) -> None:
    """Replace the memory in a state dict by its class vectors, in place."""
    length, width = weights[f"{MEMORY}keys"].shape
    bank = Bank(config.bank, width, classes)
    bank.resize(length)
    bank.load_state_dict({name.removeprefix(MEMORY): value for name, value in weights.items() if name.startswith(MEMORY)})
    bank.condense(classes)
    weights.update({MEMORY + name: value for name, value in bank.state_dict().items()})


def round_large(weights: dict[str, Any]) -> bool:
    """Round large tensors of a state dict to float16 where it can hold them, in place; whether there were any."""
    rounded = False
    for name, value in weights.items():
        if value.dtype == torch.float32 and value.ndim >= 2 and value.numel() >= LARGE and fits_half(value):
            weights[name], rounded = value.half(), True
    return rounded


def fits_half(value: Tensor) -> bool:
    """Whether float16 holds a float32 tensor with all of its digits: nothing overflows, and hardly anything underflows."""
    exact = value.double()
    return bool((value.half().double() - exact).norm() <= PRECISION * exact.norm())
