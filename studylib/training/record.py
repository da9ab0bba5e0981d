"""The folder of a run: what was asked, what was measured, on what it ran, and whether it is done.

``config.json`` the settings · ``metrics.jsonl`` a row per epoch, a function of the settings and the number of processes
alone · ``timing.jsonl`` the same epochs by the clock · ``record.json`` machine, versions, commit and data of each session ·
``checkpoint.pt`` while it runs · ``pace.json`` how fast it trains · ``snapshots/epoch-0012.pt`` weights that are kept ·
``DONE`` when all of it is there.
"""

import hashlib
import json
import platform
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from studylib import files, paths
from studylib.config import RunConfig, from_dict, to_dict
from studylib.errors import RESUME_EXIT, InputError, require
from studylib.methods import METHODS
from studylib.methods.method import Method
from studylib.models import STAGES, layer_names
from studylib.training import checkpoint


class Run:
    """The folder of one configuration, ``runs/<method>-<id>``."""

    def __init__(self, config: RunConfig):
        self.config = config
        self.folder = paths.runs() / config.name

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.config.name

    @property
    def pretraining_set(self) -> str:
        """The data set it is trained on."""
        return self.config.data

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers whose features can be read, the encoder's stages and then the projector's layers."""
        return (*STAGES, *layer_names(self.config.projector))

    @property
    def epochs(self) -> int:
        """Epochs after which it is done."""
        return self.config.optimisation.epochs

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def done(self) -> bool:
        """Whether it is trained to its end and the weights of that are there."""
        return (self.folder / "DONE").exists() and self.snapshot().exists()

    def snapshot(self, epoch: int | None = None) -> Path:
        """File with the weights after ``epoch`` epochs, by default all of them."""
        return self.folder / "snapshots" / f"epoch-{self.config.optimisation.epochs if epoch is None else epoch:04d}.pt"

    def network(self, epoch: int | None, device: torch.device) -> tuple[Method, int]:
        """The method with its weights after ``epoch`` epochs, in eval mode, and the side S of the images it was trained on.

        Its ``layers`` takes images (B, 3, S, S) in [0, 1]; ``normalise`` and ``encoder`` are what is trained on elsewhere.

        Raises:
            InputError: no such weights were kept, or they were left out of an archive.
        """
        file = self.snapshot(epoch)
        if not file.exists():
            asked = self.epochs if epoch is None else epoch
            if any(asked in entry["left_out"]["snapshots"] for entry in self.archived()):
                fix = f"`studylib archive --last` left these weights of {self.name} out; archive it again without --last"
                raise InputError("epoch", epoch, fix)
            raise InputError("epoch", epoch, f"{self.name} kept no such weights; they are in {self.folder / 'snapshots'}")
        snapshot = checkpoint.load(file, device)
        method = METHODS[self.config.method](self.config, snapshot["classes"], torch.zeros(3), torch.ones(3)).to(device)
        if "bank.keys" in snapshot["weights"]:
            method.bank.resize(len(snapshot["weights"]["bank.keys"]))  # an archived memory is shorter
        method.load_state_dict(snapshot["weights"])
        return method.eval(), snapshot["size"]

    def metrics(self) -> list[dict[str, Any]]:
        """Rows of the epochs so far."""
        return self._rows("metrics.jsonl")

    def timing(self) -> list[dict[str, Any]]:
        """Seconds and images/s of the epochs so far."""
        return self._rows("timing.jsonl")

    def _rows(self, name: str) -> list[dict[str, Any]]:
        file = self.folder / name
        return files.read_json(file, list, anew(self.folder), lines=True) if file.exists() else []

    def write_rows(self, metrics: list[dict[str, Any]], timing: list[dict[str, Any]]) -> None:
        """Replace both tables."""
        for name, rows in (("metrics.jsonl", metrics), ("timing.jsonl", timing)):
            files.write_text(self.folder / name, "".join(json.dumps(row) + "\n" for row in rows))

    def write_pace(self, epoch: int, step: int, steps: int, images_per_s: float) -> None:
        """Note in ``pace.json`` how far and how fast it is: in epoch ``epoch``, from 1, after ``step`` of its ``steps``."""
        row = {"epoch": epoch, "step": step, "steps": steps, "images_per_s": images_per_s, "time": time.time()}
        files.write_json(self.folder / "pace.json", row)

    def pace(self, since: float = 0.0) -> dict[str, Any] | None:
        """What `write_pace` noted last, and its ``time``; None where nothing was after ``since`` (both in s since 1970)."""
        file = self.folder / "pace.json"
        row = files.read_json(file, dict) if file.exists() else None
        return row if row and row["time"] > since else None

    def sessions(self) -> list[dict[str, Any]]:
        """Each time that this run was started or resumed: when, on what, with which software and data; and `archived`."""
        return record_of(self.folder) if (self.folder / "record.json").exists() else []

    def archived(self) -> list[dict[str, Any]]:
        """What stands in the record about each archive it came from (`studylib.training.archive`)."""
        return [session for session in self.sessions() if "archived" in session]

    def refuse_incomplete(self) -> None:
        """Raise an `InputError` if it came unfinished out of an archive and lacks the checkpoint to go on from."""
        archived = self.archived()
        if not archived or self.done or self.checkpoint.exists():
            return
        fix = "was not restored to its end; call `studylib restore` again"
        if archived[-1]["left_out"]["checkpoint"]:
            fix = "was archived without its checkpoint; archive it again with --resume where it was trained"
        raise InputError("run", self.name, f"{fix}, or move {self.folder} away to train anew")

    @property
    def data_sha256(self) -> str | None:
        """Checksum of the image set that the run was trained on; nothing before it was started."""
        return self.sessions()[0]["data_sha256"] if self.sessions() else None

    @property
    def trained(self) -> str:
        """Tells apart trainings of these settings, on other images or another machine: what is computed of one is not found
        for the other. A hash of ``metrics.jsonl``, which has the losses of all epochs in all digits, and of the data's
        checksum."""
        known = [self.folder / name for name in ("metrics.jsonl", "record.json")]
        return _hash(self.folder, *(files.stamp(file) if file.exists() else None for file in known))

    @property
    def processes(self) -> int | None:
        """How many processes train it; nothing before it was started."""
        return self.sessions()[0].get("processes", 1) if self.sessions() else None

    @property
    def precision(self) -> str | None:
        """In which precision it was begun (`studylib.precision.used`); nothing before it was started."""
        return self.sessions()[0].get("precision") if self.sessions() else None

    def begin(self, facts: dict[str, Any]) -> None:
        """Add a session to ``record.json``: ``facts`` (device, data checksum) and the software it runs on."""
        software = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": version("torchvision")}
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        (self.folder / "DONE").unlink(missing_ok=True)  # of weights that are gone
        files.write_json(
            self.folder / "record.json", [*self.sessions(), {"started": started, "commit": commit(), **software, **facts}]
        )

    def finish(self) -> None:
        """Mark the run as done and drop what only a restart would need."""
        files.write_text(self.folder / "DONE", f"{self.config.optimisation.epochs} epochs\n")
        self.checkpoint.unlink(missing_ok=True)

    @contextmanager
    def locked(self, say: Any = print, stop: threading.Event | None = None) -> Any:
        """Hold the run for this process; one that comes second waits, and says so, until it is told to ``stop``.

        Raises:
            InputError: the folder cannot be written, or holds a different configuration.
            SystemExit: with code 75, as it was told to stop before it was its turn.
        """
        files.usable(self.folder, "STUDYLIB_RUNS")
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{self.config.name}: another process is working on this run; waiting for it")
            while not lock.is_locked:
                if stop and stop.is_set():
                    sys.exit(RESUME_EXIT)
                with suppress(Timeout):
                    lock.acquire(timeout=1)
        try:
            self._agree()
            yield
        finally:
            lock.release()

    def _agree(self) -> None:
        file = self.folder / "config.json"
        if file.exists():
            stored = from_dict(files.read_json(file, dict))
            if stored != self.config:
                raise InputError("run", str(self.folder), "holds other settings under the same id; move that folder away")
        else:
            files.write_json(file, to_dict(self.config))


@lru_cache(maxsize=4096)
def _hash(folder: Path, metrics: tuple[int, int] | None, record: tuple[int, int] | None) -> str:
    losses = (folder / "metrics.jsonl").read_bytes() if metrics else b""
    data = record_of(folder)[0]["data_sha256"] if record else None
    return hashlib.sha256(losses + str(data).encode()).hexdigest()[:10]


def anew(folder: Path) -> str:
    """What to do about a damaged file of the run in ``folder``."""
    return f"delete it to go on from checkpoint.pt or, where that is gone, {folder} to train anew"


def record_of(folder: Path) -> list[dict[str, Any]]:
    """The record of the run in ``folder``: a row for each time it was started or resumed.

    Raises:
        InputError: it is damaged; nothing else says what the run was trained on.
    """
    file, fix = folder / "record.json", f"put it back from a copy or an archive, or move {folder} away to train anew"
    rows = files.read_json(file, list, fix)
    require("file", str(file), rows and all(isinstance(row, dict) for row in rows), f"holds no sessions; {fix}")
    return rows


SETTINGS = "delete it, and the command that trained the run makes it again"


def find_run(folder: Path) -> Run:
    """The run whose folder this is.

    Raises:
        InputError: it holds no run, or its settings are damaged.
    """
    if not (folder / "config.json").exists():
        raise InputError(
            "run", str(folder), "is not the folder of a run (it has no config.json); `studylib pretrain` prints it"
        )
    run = Run(from_dict(files.read_json(folder / "config.json", dict, SETTINGS)))
    run.folder = folder.absolute()
    return run


def commit() -> tuple[str | None, bool | None]:
    """Commit of the repository, and whether tracked files other than published figures differ from it; None without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(paths.REPOSITORY), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != paths.REPOSITORY.resolve():
            return None, None  # installed inside some other repository
        changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{paths.PUBLISHED_FIGURES.name}")
        return git("rev-parse", "HEAD"), bool(changes)
    except (OSError, subprocess.SubprocessError):
        return None, None
