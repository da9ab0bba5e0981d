"""The encoder of a run as a file that torchvision's models load."""

from pathlib import Path

from studylib import files
from studylib.errors import InputError
from studylib.training import checkpoint
from studylib.training.record import find_run

PREFIX = "encoder."


def export_encoder(folder: Path, file: Path, epoch: int | None = None) -> tuple[list[float], list[float]]:
    """Write the encoder's weights after ``epoch`` epochs (by default all) as a plain state dict, without all else.

    Its keys are torchvision's ``resnet18`` or ``resnet50`` without ``fc``. Returns mean and standard deviation per channel
    of the images in [0, 1] that the encoder wants subtracted and divided by: a state dict of torchvision has no place for them.

    Raises:
        InputError: ``folder`` holds no run, or the run kept no such weights.
    """
    snapshot = find_run(folder).snapshot(epoch)
    if not snapshot.exists():
        kept = ", ".join(str(int(path.stem.split("-")[1])) for path in sorted(snapshot.parent.glob("epoch-*.pt"))) or "none yet"
        raise InputError(
            "epoch", epoch if epoch is not None else "the last", f"no such weights in {folder}; kept epochs: {kept}"
        )
    files.usable(file.absolute().parent, "FILE")
    weights = checkpoint.load(snapshot)["weights"]
    encoder = {name.removeprefix(PREFIX): value.contiguous() for name, value in weights.items() if name.startswith(PREFIX)}
    checkpoint.save(file.absolute(), encoder)
    return weights["normalise.mean"].flatten().tolist(), weights["normalise.std"].flatten().tolist()
