"""How much faster the probe by a path of C is than 30 trials by Optuna, on the transfer sets that are there."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from studylib.config import Encoder as EncoderSettings
from studylib.data import ImageSet, load
from studylib.data.augment import to_float
from studylib.models.encoder import Encoder
from studylib.suites import missing, suite
from studylib.transfer import LinearProbe, TrexSmall8, linear_probe, trex_small8_probe

ENCODER = EncoderSettings(arch="resnet10", width=64, stem="conv3s2")
SIZE = 32


def path_speedup() -> dict[str, Any]:
    """Seconds of `trex_small8_probe` ÷ seconds of `linear_probe`, over all sets, with their mean test accuracies.

    The sets are those of the suite ``small`` that are there (STUDYLIB_DATA), or where none is the embedded ones of ``quick``.
    Features (N, 512) are those of a ResNet-10 with random weights, seed 0, so that anybody has them. Both probes run with
    their defaults, in turn on each set: up to 20 C and a final fit to tolerance 5e-7 of the objective, and 30 fits of
    scikit-learn and a final one to its own tolerance, which is looser (see `probe_speedup` for equal ones). scikit-learn has
    one thread: with two it took eight times as long (592 s instead of 74 s on 13 sets and two cores), for its products are
    small. Ours has all; the ratio with one is given as well.
    """
    from threadpoolctl import threadpool_limits  # which scikit-learn brings

    names = [name for name in suite("small") if name not in missing(suite("small"))] or suite("quick")
    torch.manual_seed(0)
    encoder = Encoder(ENCODER).eval()
    seconds, accuracies, failed = {"path": [], "trials": []}, {"path": [], "trials": []}, {"path": 0, "trials": 0}
    alone = 0.0
    for number, name in enumerate(names):
        sets = features(encoder, load(name))
        if number == 0:  # libraries load and choose kernels
            linear_probe(*sets, LinearProbe())
            trex_small8_probe(*sets, TrexSmall8(trials=2, C_low=1e-3, C_high=1e-2))
        found, before = timed(linear_probe, sets, LinearProbe())
        with threadpool_limits(1):
            trials, theirs = timed(trex_small8_probe, sets, TrexSmall8())
        after = timed(linear_probe, sets, LinearProbe())[1]  # in case the machine is busier at one time
        for side, result, spent in (("path", found, (before + after) / 2), ("trials", trials, theirs)):
            seconds[side].append(spent)
            accuracies[side].append(result.top1)
            failed[side] += not result.converged
        with one_thread():
            alone += timed(linear_probe, sets, LinearProbe())[1]
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
        f"{each}; {torch.get_num_threads()} threads, with one {sum(seconds['trials']) / alone:.1f}"
    )
    value = sum(seconds["trials"]) / sum(seconds["path"])
    return {"name": "path_speedup", "value": value, "unit": "ratio", "target": ">= 50", "details": details}


def timed(probe: Callable[..., Any], sets: tuple[Any, ...], protocol: Any) -> tuple[Any, float]:
    """What a probe found, and the seconds it took."""
    started = time.perf_counter()
    return probe(*sets, protocol), time.perf_counter() - started


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def features(encoder: Encoder, images: ImageSet) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Training features (n, d) and labels, test features (m, d) and labels, and the number of classes."""
    values = torch.cat([encoder(to_float(part, SIZE) - 0.5) for part in images.images.split(256)])
    train = images.split == 0
    return values[train], images.labels[train], values[~train], images.labels[~train], images.num_classes
