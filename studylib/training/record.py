"""The folder of a run: what was asked, what was measured, on what it ran, and whether it is done.

``config.json`` the settings · ``metrics.jsonl`` a row per epoch, a function of the settings and the number of processes
alone · ``timing.jsonl`` the same epochs by the clock · ``record.json`` machine, versions, commit and data of each session ·
``checkpoint.pt`` while it runs · ``snapshots/epoch-0012.pt`` weights that are kept · ``DONE`` when all of it is there.
"""

import json
import platform
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from filelock import FileLock, Timeout

from studylib import files, paths
from studylib.config import RunConfig, from_dict, to_dict
from studylib.errors import InputError
from studylib.methods import METHODS
from studylib.methods.method import Method
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
    def epochs(self) -> int:
        """Epochs after which it is done."""
        return self.config.optimisation.epochs

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def done(self) -> bool:
        return (self.folder / "DONE").exists()

    def snapshot(self, epoch: int | None = None) -> Path:
        """File with the weights after ``epoch`` epochs, by default all of them."""
        return self.folder / "snapshots" / f"epoch-{self.config.optimisation.epochs if epoch is None else epoch:04d}.pt"

    def network(self, epoch: int | None, device: torch.device) -> tuple[Method, int]:
        """The method with its weights after ``epoch`` epochs, in eval mode, and the side S of the images it was trained on.

        Its ``layers`` takes images (B, 3, S, S) in [0, 1]; ``normalise`` and ``encoder`` are what is trained on elsewhere.

        Raises:
            InputError: no such weights were kept.
        """
        file = self.snapshot(epoch)
        if not file.exists():
            raise InputError("epoch", epoch, f"{self.name} kept no such weights; they are in {self.folder / 'snapshots'}")
        snapshot = checkpoint.load(file, device)
        method = METHODS[self.config.method](self.config, snapshot["classes"], torch.zeros(3), torch.ones(3)).to(device)
        method.load_state_dict(snapshot["weights"])
        return method.to(memory_format=torch.channels_last).eval(), snapshot["size"]

    def metrics(self) -> list[dict[str, Any]]:
        """Rows of the epochs so far."""
        return self._rows("metrics.jsonl")

    def timing(self) -> list[dict[str, Any]]:
        """Seconds and images/s of the epochs so far."""
        return self._rows("timing.jsonl")

    def _rows(self, name: str) -> list[dict[str, Any]]:
        file = self.folder / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def write_rows(self, metrics: list[dict[str, Any]], timing: list[dict[str, Any]]) -> None:
        """Replace both tables."""
        for name, rows in (("metrics.jsonl", metrics), ("timing.jsonl", timing)):
            files.write_text(self.folder / name, "".join(json.dumps(row) + "\n" for row in rows))

    def sessions(self) -> list[dict[str, Any]]:
        """Each time that this run was started or resumed: when, on what, with which software and data."""
        file = self.folder / "record.json"
        return json.loads(file.read_text()) if file.exists() else []

    @property
    def data_sha256(self) -> str | None:
        """Checksum of the image set that the run was trained on; nothing before it was started."""
        return self.sessions()[0]["data_sha256"] if self.sessions() else None

    @property
    def processes(self) -> int | None:
        """How many processes train it; nothing before it was started."""
        return self.sessions()[0].get("processes", 1) if self.sessions() else None

    def begin(self, facts: dict[str, Any]) -> None:
        """Add a session to ``record.json``: ``facts`` (device, data checksum) and the software it runs on."""
        software = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        files.write_json(
            self.folder / "record.json", [*self.sessions(), {"started": started, "commit": commit(), **software, **facts}]
        )

    def finish(self) -> None:
        """Mark the run as done and drop what only a restart would need."""
        files.write_text(self.folder / "DONE", f"{self.config.optimisation.epochs} epochs\n")
        self.checkpoint.unlink(missing_ok=True)

    @contextmanager
    def locked(self, say: Any = print) -> Any:
        """Hold the run for this process; one that comes second waits, and says so.

        Raises:
            InputError: the folder cannot be written, or holds a different configuration.
        """
        files.usable(self.folder, "STUDYLIB_RUNS")
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{self.config.name}: another process is working on this run; waiting for it")
            lock.acquire()
        try:
            self._agree()
            yield
        finally:
            lock.release()

    def _agree(self) -> None:
        file = self.folder / "config.json"
        if file.exists():
            stored = from_dict(json.loads(file.read_text()))
            if stored != self.config:
                raise InputError("run", str(self.folder), "holds other settings under the same id; move that folder away")
        else:
            files.write_json(file, to_dict(self.config))


def find_run(folder: Path) -> Run:
    """The run whose folder this is.

    Raises:
        InputError: it holds no run.
    """
    if not (folder / "config.json").exists():
        raise InputError(
            "run", str(folder), "is not the folder of a run (it has no config.json); `studylib pretrain` prints it"
        )
    run = Run(from_dict(json.loads((folder / "config.json").read_text())))
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
