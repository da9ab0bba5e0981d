"""Features read once, in chunks of float64 rows: a tensor, an array on disk, or chunks that are made while they are read."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from studylib.errors import InputError

CHUNK = 2048  # ours: rows taken to float64 at a time, 32 MB of them at d = 2048; a measure holds up to five such blocks

Rows = Tensor | np.ndarray | Iterable[Tensor | np.ndarray]
"""features (N, d): a tensor, a NumPy array (a memmap stays on disk), or an iterable of such chunks (n, d)"""


def chunks(features: Rows, *, normalise: bool = False, chunk: int = CHUNK) -> Iterator[Tensor]:
    """At most ``chunk`` rows (n, d) float64 at a time, on the device of the features; not to be written to.

    ``normalise``: l2-normalise each row; a row of zeros stays zero.

    Raises:
        InputError: no rows, chunks that are not (n, d) of one d, a value that is nan or infinite, or a chunk below 1.
    """
    check_chunk(chunk)
    width, row = None, 0
    for block in [features] if isinstance(features, Tensor | np.ndarray) else features:
        if width not in (None, _shape(block)[1]):
            raise InputError("features", (*block.shape,), f"chunk differs in width from the {width} of those before")
        width = block.shape[1]
        for start in range(0, len(block), chunk):
            values = _double(block[start : start + chunk], row, normalise)
            yield values
            row += len(values)
    if row == 0:
        raise InputError("features", None, "has no rows; give one or more")


def labelled_chunks(
    features: Rows, labels: Tensor, *, normalise: bool = False, chunk: int = CHUNK
) -> Iterator[tuple[Tensor, Tensor]]:
    """`chunks` with their part (n,) of ``labels`` (N,), on the same device.

    Raises:
        InputError: as `chunks`, or there are not as many labels as rows.
    """
    if isinstance(features, Tensor | np.ndarray):
        check_rows(features, labels)
    row = 0
    for values in chunks(features, normalise=normalise, chunk=chunk):
        classes = labels[row : row + len(values)]
        row += len(values)
        if row > len(labels):
            break
        yield values, classes.to(values.device)
    if row != len(labels):
        raise InputError("labels", len(labels), "labels do not match the rows of the features; give one per row")


def check_chunk(chunk: int) -> None:
    """Refuses chunks of less than one row.

    Raises:
        InputError: as it says.
    """
    if chunk < 1:
        raise InputError("chunk", chunk, "must be at least one row")


def check_rows(features: Rows, labels: Tensor | None = None) -> int:
    """Number of rows of features that can be read in any order.

    Raises:
        InputError: they are chunks read in order, are not (N, d), or are not as many as ``labels``.
    """
    if not isinstance(features, Tensor | np.ndarray):
        raise InputError("features", type(features).__name__, "is read once, in order; give a tensor, an array or a memmap")
    _shape(features)
    if len(features) == 0 or (labels is not None and len(features) != len(labels)):
        asked = "N > 0" if labels is None else f"N = {len(labels)} labels"
        raise InputError("features", (*features.shape,), f"must be (N, d) with {asked}")
    return len(features)


def take(features: Tensor | np.ndarray, rows: Tensor, *, normalise: bool = False) -> Tensor:
    """Some ``rows`` (n,), in their order, as (n, d) float64.

    Raises:
        InputError: a value among them is nan or infinite.
    """
    block = features[rows.to(features.device)] if isinstance(features, Tensor) else features[rows.cpu().numpy()]
    return _double(block, None, normalise)


def class_counts(labels: Tensor, num_classes: int | None = None) -> Tensor:
    """Number of images (C,) of each class. With ``num_classes`` a class may be absent, otherwise it may not.

    Raises:
        InputError: labels are not (N,) integers in 0 ... C-1, or a class has no image.
    """
    if labels.ndim != 1 or len(labels) == 0 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError("labels", f"{labels.dtype} {(*labels.shape,)}", "must be (N,) integers with N > 0")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        top = "C-1" if num_classes is None else num_classes - 1
        raise InputError("labels", low if low < 0 else high, f"is out of range; number the classes 0 ... {top}")
    counts = torch.bincount(labels, minlength=num_classes or 0)
    absent = (counts == 0).nonzero()[:, 0].tolist()
    if absent and num_classes is None:
        raise InputError("labels", absent, "classes without an image; leave them out and number the others 0 ... C-1")
    return counts


def add_by_class(sums: Tensor, values: Tensor, classes: Tensor) -> None:
    """Add each row of ``values`` (n, ...) to the row of ``sums`` (C, ...) that is its class."""
    if sums.is_cuda:  # index_add_ on CUDA depends on the order of its threads, a product does not
        sums += (functional.one_hot(classes, len(sums)).to(sums.dtype).T @ values.flatten(1)).view_as(sums)
    else:
        sums.index_add_(0, classes, values)


def _shape(block: Tensor | np.ndarray) -> tuple[int, int]:
    if not isinstance(block, Tensor | np.ndarray):
        raise InputError("features", type(block).__name__, "must be a tensor, an array, or an iterable of them")
    if block.ndim != 2 or block.shape[1] == 0:
        raise InputError("features", (*block.shape,), "must be (N, d) with d > 0")
    return (*block.shape,)


def _double(block: Tensor | np.ndarray, row: int | None, normalise: bool) -> Tensor:
    # An array is copied: it may be a memmap that must not be written to.
    values = block.detach().double() if isinstance(block, Tensor) else torch.from_numpy(np.array(block, dtype=np.float64))
    finite = values.isfinite().all(dim=1)
    if not finite.all():
        bad = int((~finite).nonzero()[0, 0])
        where = "some row" if row is None else f"row {row + bad}"
        raise InputError(
            "features", values[bad][~values[bad].isfinite()][0].item(), f"in {where}; find out where it comes from"
        )
    return functional.normalize(values, dim=1) if normalise else values
