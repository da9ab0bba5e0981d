"""How much faster the probe by a path of C is than 30 trials by Optuna, on the transfer sets that are there."""

import time
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from studylib.config import Encoder as EncoderSettings
from studylib.data import ImageSet, load
from studylib.data.augment import to_float
from studylib.models.encoder import Encoder
from studylib.suites import missing, suite
from studylib.transfer import LinearPath, TrexSmall8, linear_probe, trex_small8_probe

ENCODER = EncoderSettings(arch="resnet10", width=64, stem="conv3s2")
SIZE = 32
LARGER = ("cifar100/artefact",)  # 15,000 training images; the sets of the suite have 320 to 1,500


def path_speedup() -> dict[str, Any]:
    """Seconds of `trex_small8_probe` ÷ seconds of `linear_probe`, over all sets, with their mean test accuracies.

    The sets are those of the suite ``small`` that are there (STUDYLIB_DATA) and `LARGER`, or where none is the embedded
    ones of ``quick``. A larger set takes most of the time of both, so the ratio is given without it and by set as well.
    Features (N, 512) are those of a ResNet-10 with random weights, seed 0, so that anybody has them. Both probes run with
    their defaults, in turn on each set: 20 C and a final fit to tolerance 5e-7 of the objective, and 30 fits of
    scikit-learn and a final one to its own tolerance, which is looser (see `probe_speedup` for equal ones).
    """
    names = [*suite("small"), *LARGER]
    names = [name for name in names if name not in missing(names)] or suite("quick")
    torch.manual_seed(0)
    encoder = Encoder(ENCODER).eval()
    seconds, accuracies, failed = {"path": [], "trials": []}, {"path": [], "trials": []}, {"path": 0, "trials": 0}
    for number, name in enumerate(names):
        sets = features(encoder, load(name))
        probes = {"path": (linear_probe, LinearPath()), "trials": (trex_small8_probe, TrexSmall8())}
        if number == 0:  # libraries load and choose kernels
            linear_probe(*sets, LinearPath(values=2, C_low=1e-3, C_high=1e-2))
            trex_small8_probe(*sets, TrexSmall8(trials=2, C_low=1e-3, C_high=1e-2))
        for side, (probe, protocol) in probes.items():
            started = time.perf_counter()
            found = probe(*sets, protocol)
            seconds[side].append(time.perf_counter() - started)
            accuracies[side].append(found.top1)
            failed[side] += not found.converged
    ratios = [b / a for a, b in zip(seconds["path"], seconds["trials"], strict=True)]
    details = "; ".join(
        f"{side} {sum(seconds[side]):.1f} s, mean accuracy {fmean(accuracies[side]):.2f} %, {failed[side]} sets not converged"
        for side in seconds
    )
    each = ", ".join(f"{name} {ratio:.0f}" for name, ratio in zip(names, ratios, strict=True))
    gains = [a - b for a, b in zip(accuracies["path"], accuracies["trials"], strict=True)]
    error = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    details += (
        f"; difference {fmean(gains):+.2f} %, standard error over sets {error:.2f}; mean of the ratios {fmean(ratios):.1f}: "
        f"{each}; {torch.get_num_threads()} threads"
    )
    smaller = [[s for s, name in zip(seconds[side], names, strict=True) if name not in LARGER] for side in ("path", "trials")]
    if 0 < len(smaller[0]) < len(names):
        details += f"; without {', '.join(LARGER)} {sum(smaller[1]) / sum(smaller[0]):.1f}"
    value = sum(seconds["trials"]) / sum(seconds["path"])
    return {"name": "path_speedup", "value": value, "unit": "ratio", "target": ">= 50", "details": details}


@torch.no_grad()
def features(encoder: Encoder, images: ImageSet) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Training features (n, d) and labels, test features (m, d) and labels, and the number of classes."""
    values = torch.cat([encoder(to_float(part, SIZE) - 0.5) for part in images.images.split(256)])
    train = images.split == 0
    return values[train], images.labels[train], values[~train], images.labels[~train], images.num_classes
