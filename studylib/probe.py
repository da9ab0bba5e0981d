"""One protocol on one data set for one frozen encoder, kept once it is computed; every protocol by its name."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

from studylib import files, transfer
from studylib.data import load
from studylib.errors import choose
from studylib.external import External
from studylib.features import PROTOCOL, extract
from studylib.training import Run

PROTOCOLS: dict[str, tuple[Any, Callable]] = {
    "knn": (transfer.Knn(), transfer.knn_accuracy),
    "path": (transfer.LinearPath(), transfer.linear_probe),
    "trex_small8": (transfer.TrexSmall8(), transfer.trex_small8_probe),
    "trex_large": (transfer.TrexLarge(), transfer.trex_large_probe),
    "broad12": (transfer.Broad12(), transfer.broad12_probe),
    "ridge": (transfer.RidgePath(), transfer.ridge_probe),
    "episodes": (transfer.Episodes(), transfer.episode_accuracy),
    "per_class": (transfer.PerClass(), transfer.per_class_accuracy),
}
"""name -> (the protocol, the function that carries it out)"""


def probe(
    source: Run | External, dataset: str, name: str, *, layer: str = "stage5", epoch: int | None = None
) -> list[dict[str, Any]]:
    """Rows (dataset, epoch, layer, split, protocol, measure, value) of one protocol; computed once and kept with the encoder.

    Measures are the numbers of the protocol's result (``top1`` in %, ``C``, ``converged``, ...) and the ``seconds`` it took;
    for ``per_class`` their names end in the number of images. Episodes are drawn from all images of the set, training and
    test; everything else is fitted on training and scored on test images.

    Raises:
        InputError: an unknown protocol or layer, a data set that cannot be read, or one that the protocol cannot use.
    """
    protocol, run = PROTOCOLS[choose("protocol", name, PROTOCOLS)]
    images = load(dataset)
    given = [PROTOCOL, images.checksum, name, dataclasses.asdict(protocol), layer, epoch]
    key = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:10]
    file = source.folder / "results" / f"{name}-{dataset.replace('/', '_').replace('@', '_')}-{key}.json"
    if file.exists():
        return json.loads(file.read_text())
    seen = extract(source, images, epoch)
    choose("layer", layer, seen.layers)
    started = time.monotonic()
    if name == "episodes":
        found = run(seen.layers[layer], seen.labels, seen.num_classes, protocol)
    else:
        found = run(*seen.part(layer, "train"), *seen.part(layer, "test"), seen.num_classes, protocol)
    numbers = {"seconds": time.monotonic() - started}
    for result in found if isinstance(found, list) else [found]:
        ending = f"_{result.images}" if isinstance(found, list) else ""
        for item in dataclasses.fields(result):
            value = getattr(result, item.name)
            if isinstance(value, bool | int | float) and item.name != "images":
                numbers[item.name + ending] = float(value)
    at = {"dataset": dataset, "epoch": source.epochs if epoch is None else epoch, "layer": layer}
    at |= {"split": "all" if name == "episodes" else "test", "protocol": protocol.describe()}
    files.write_json(file, [at | {"measure": measure, "value": value} for measure, value in numbers.items()])
    return json.loads(file.read_text())
