"""Runs out of an archive into ``runs/``, where a finished one is as good as one trained there (`studylib.training.archive`).

| here | what becomes of it |
|---|---|
| not begun | restored |
| behind: fewer epochs or steps, or not finished | brought forward |
| as far, but lacking snapshots or the checkpoint, or with rounded ones where the archive's are not | completed |
| as far and as full, or further on | left as it is |
| other metrics, data or weights for the same epochs | a conflict: nothing of any run is written |

A snapshot that is here is only ever replaced where it is rounded and the archive's is not.
"""

import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from studylib import files, paths
from studylib.config import SCHEMA, from_dict
from studylib.errors import InputError
from studylib.training import checkpoint
from studylib.training.archive import MEMORY, round_large
from studylib.training.parts import MIB, Reader, opened
from studylib.training.record import Run

FILE = re.compile(r"config\.json|record\.json|metrics\.jsonl|timing\.jsonl|checkpoint\.pt|DONE|snapshots/epoch-\d{4,}\.pt")


class Archived:
    """A run in an archive whose content was checked."""

    def __init__(self, name: str, archive: Reader):
        """``name``: its folder.

        Raises:
            InputError: its settings are not of this version or not those of its name, or it is not whole.
        """
        self.name, self.archive = name, archive
        self.files = [path.partition("/")[2] for path in archive.files if path.partition("/")[0] == name]
        try:
            self.config = from_dict(json.loads(self.read("config.json")))
            self.record = json.loads(self.read("record.json"))
            self.rows = self.read("metrics.jsonl").splitlines() if "metrics.jsonl" in self.files else []
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("run", name, f"its archive cannot be used here: {error}") from error
        if self.config.name != name:
            raise InputError("run", name, f"holds the settings of {self.config.name}; archive it again where it was trained")
        self.snapshots = {int(path[len("snapshots/epoch-") : -len(".pt")]): path for path in self.files if "snapshots/" in path}
        self.done = "DONE" in self.files
        epochs = self.config.optimisation.epochs
        whole = len(self.rows) == epochs and epochs in self.snapshots if self.done else len(self.rows) <= epochs
        if not whole or "archived" not in self.record[-1]:
            raise InputError("run", name, "is not whole in the archive; archive it again where it was trained")

    def read(self, name: str) -> bytes:
        """Content of one of its files."""
        return self.archive.read(f"{self.name}/{name}")

    @property
    def size(self) -> float:
        """MiB in the archive."""
        return sum(self.archive.files[f"{self.name}/{name}"]["size"] for name in self.files) / MIB


def tensors(content: bytes) -> dict[str, Any]:
    """What is in a snapshot's or checkpoint's file; no code is run."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def restore(given: Sequence[Path], say: Callable[[str], Any] = print) -> dict[str, int]:
    """Put the runs of an archive, ``given`` as all of its parts, into ``runs/``; ``say`` receives a line for each.

    Everything is read and checked first. Returns how many runs were restored, brought forward, ...

    Raises:
        InputError: a part is missing or damaged, a run cannot be used here, or one here conflicts with it; nothing was written.
    """
    counts: dict[str, int] = {}
    with opened(given, SCHEMA) as archive:
        for path in archive.files:
            if not FILE.fullmatch(path.partition("/")[2]):
                raise InputError("FILE", path, "is no file of a run; the archive was not made by `studylib archive`")
            archive.read(path)
        found = [Archived(name, archive) for name in dict.fromkeys(path.partition("/")[0] for path in archive.files)]
        files.usable(paths.runs(), "STUDYLIB_RUNS")
        for archived in found:  # all conflicts are found before anything is written
            run = Run(archived.config)
            if (run.folder / "config.json").exists():
                with run.locked(say):
                    plan(run, archived)
        for archived in found:
            run = Run(archived.config)
            with run.locked(say):
                planned = plan(run, archived)
                put(run, archived, planned)
            counts[planned.what] = counts.get(planned.what, 0) + 1
            done = f"{len(archived.rows)}/{run.epochs} epochs"
            say(f"{run.name}  {done}  {archived.size:.2f} MiB  {planned.what}{planned.why}")
    return counts


class Plan(NamedTuple):
    """What becomes of a run."""

    what: str
    """in a word or two"""
    why: str = ""
    """and the details"""
    names: Sequence[str] = ()
    """files to write, in an order in which it may be interrupted"""
    fuller: Sequence[int] = ()
    """epochs whose snapshots are here in fuller precision"""


def plan(run: Run, archived: Archived) -> Plan:
    """What is to become of a run that is locked.

    Raises:
        InputError: the two conflict.
    """
    file = run.folder / "metrics.jsonl"
    rows = file.read_bytes().splitlines() if file.exists() else []
    common = min(len(rows), len(archived.rows))
    first = archived.record[0]
    if rows[:common] != archived.rows[:common]:
        raise conflict(run, "other metrics")
    if run.sessions() and (run.data_sha256, run.processes) != (first["data_sha256"], first.get("processes", 1)):
        raise conflict(run, "other images or another number of processes")
    here = progress(run.done, rows, checkpoint.load(run.checkpoint) if run.checkpoint.exists() else None)
    resumes = "checkpoint.pt" in archived.files
    there = progress(archived.done, archived.rows, tensors(archived.read("checkpoint.pt")) if resumes else None)
    if here > there:
        return Plan("left as it is", f": further on here, {'finished' if run.done else f'{len(rows)} epochs'}")
    compared = {epoch: compare(run, archived, epoch) for epoch in archived.snapshots}
    names = [archived.snapshots[epoch] for epoch, state in compared.items() if state == "lacking"]
    if resumes and (here < there or not run.checkpoint.exists()):
        names.append("checkpoint.pt")
    if here < there:
        names += [name for name in ("timing.jsonl", "metrics.jsonl", "DONE") if name in archived.files]
    names, fuller = ["record.json", *names], [epoch for epoch, state in compared.items() if state == "fuller"]
    if not run.sessions():
        return Plan("restored", "", names)
    if here < there:
        return Plan("brought forward", f" from {len(rows)} epochs", names, fuller)
    return Plan("completed", "", names, fuller) if names[1:] else Plan("already here")


def progress(done: bool, rows: Sequence[Any], state: dict[str, Any] | None) -> tuple[bool, tuple[int, int]]:
    """How far a run is, to be compared: finished or not, then epochs and steps of its metrics or its checkpoint."""
    return done, max((len(rows), 0), (state["epoch"], state["step"]) if state and not done else (0, 0))


def compare(run: Run, archived: Archived, epoch: int) -> str:
    """Whether the archive's snapshot is ``lacking`` here, the ``same``, or here in ``fuller`` precision.

    Raises:
        InputError: they are of different weights; the memory, of which the archive has only sums, is not compared.
    """
    if not run.snapshot(epoch).exists():
        return "lacking"
    snapshots = checkpoint.load(run.snapshot(epoch)), tensors(archived.read(archived.snapshots[epoch]))
    ours, theirs = (
        {name: value for name, value in snapshot["weights"].items() if not name.startswith(MEMORY)} for snapshot in snapshots
    )
    rounded = ["rounded" in snapshot for snapshot in snapshots]
    if any(rounded):
        round_large(ours), round_large(theirs)
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise conflict(run, f"other weights after {epoch} epochs")
    return "same" if rounded[0] == rounded[1] else "lacking" if rounded[0] else "fuller"


def conflict(run: Run, what: str) -> InputError:
    """That the run here has ``what`` than the archive."""
    return InputError("run", str(run.folder), f"has {what} than the archive; move that folder away, or leave the archive out")


def put(run: Run, archived: Archived, planned: Plan) -> None:
    """Write the planned files of a run that is locked; ``DONE`` last."""
    for name in planned.names:
        if name == "record.json":
            files.write_json(run.folder / name, record(run, archived, planned.fuller))
        elif name == "DONE":
            run.finish()
        else:
            content = archived.read(name)
            if name.startswith("snapshots/"):
                forget(run, name)
                content = in_float32(content)
            files.write(run.folder / name, lambda file, content=content: file.write(content))


def in_float32(content: bytes) -> bytes:
    """A snapshot's file with rounded tensors in float32 again, so that whatever reads it need not know; others as they are."""
    snapshot = tensors(content)
    if "rounded" not in snapshot:
        return content
    weights = snapshot["weights"]
    weights.update({name: value.float() for name, value in weights.items() if value.dtype == torch.float16})
    buffer = io.BytesIO()
    torch.save(snapshot, buffer)
    return buffer.getvalue()


def record(run: Run, archived: Archived, fuller: Sequence[int]) -> list[dict[str, Any]]:
    """The archive's record with the sessions that only this place knows and the epochs whose snapshots are ``fuller`` here."""
    *sessions, entry = archived.record
    own = [one for one in run.sessions() if one not in sessions and one.get("archived") != entry["archived"]]
    return [*sessions, *own, entry | ({"fuller_here": fuller} if fuller else {})]


def forget(run: Run, name: str) -> None:
    """Remove what was computed from other weights of a snapshot that is written: its features and the results of its epoch."""
    file = run.folder / name
    epoch = int(file.stem.removeprefix("epoch-"))
    for results in (run.folder / "results").glob("[!.]*.json"):
        if any(row["epoch"] == epoch for row in files.read_json(results, list)):
            results.unlink()
    for features in (paths.cache() / "features").glob(f"{run.name}-{file.stem}-*.pt"):
        features.unlink()
