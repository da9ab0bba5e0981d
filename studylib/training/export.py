"""The encoder of a run as a file that torchvision's models load."""

from collections import OrderedDict
from pathlib import Path

from studylib import files
from studylib.errors import InputError
from studylib.external import CONSTANTS
from studylib.training import checkpoint
from studylib.training.record import find_run

PREFIX = "encoder."


def export_encoder(folder: Path, file: Path, epoch: int | None = None) -> tuple[list[float], list[float]]:
    """Write the encoder's weights after ``epoch`` epochs (by default all) as a plain state dict, without all else.

    Its keys are torchvision's ``resnet18`` or ``resnet50`` without ``fc``. Returns mean and standard deviation per channel
    of the images in [0, 1] that the encoder wants subtracted and divided by. They are in the metadata of the state dict, too,
    with the side of the images and the stem, so that the file is evaluated as the run is (`studylib.external`).

    Raises:
        InputError: ``folder`` holds no run, the run kept no such weights, or ``file`` cannot be written.
    """
    run = find_run(folder)
    snapshot = run.snapshot(epoch)
    if not snapshot.exists():
        kept = ", ".join(str(int(path.stem.split("-")[1])) for path in sorted(snapshot.parent.glob("epoch-*.pt"))) or "none yet"
        raise InputError(
            "epoch", epoch if epoch is not None else "the last", f"no such weights in {folder}; kept epochs: {kept}"
        )
    files.writable(file, "FILE")
    content, settings = checkpoint.load(snapshot), run.config.encoder
    weights = content["weights"]
    own = (name for name in weights if name.startswith(PREFIX))
    encoder = OrderedDict((name.removeprefix(PREFIX), weights[name].contiguous()) for name in own)
    mean, std = (tuple(weights[f"normalise.{name}"].flatten().tolist()) for name in ("mean", "std"))
    encoder._metadata = {CONSTANTS: {"size": content["size"], "mean": mean, "std": std, "stem": settings.stem}}
    checkpoint.save(file.absolute(), encoder)
    return list(mean), list(std)
