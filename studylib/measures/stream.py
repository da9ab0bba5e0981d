"""Features read in chunks of float64 rows, from a tensor or from an array on disk."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from studylib.errors import InputError

CHUNK = 2048  # ours: rows taken to float64 at a time, 32 MB of them at d = 2048; a measure holds up to five such blocks

Rows = Tensor | np.ndarray
"""features (N, d): a tensor or a NumPy array (a memmap stays on disk)"""


def chunks(features: Rows, *, normalise: bool = False) -> Iterator[Tensor]:
    """At most `CHUNK` rows (n, d) float64 at a time, on the device of the features; not to be written to.

    Args:
        normalise: l2-normalise each row; a row of zeros stays zero.

    Raises:
        InputError: as `check_rows`, or a value is nan or infinite.
    """
    for start in range(0, check_rows(features), CHUNK):
        yield _double(features[start : start + CHUNK], start, normalise)


def labelled_chunks(features: Rows, labels: Tensor, *, normalise: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """`chunks` with their part (n,) of ``labels`` (N,), on the same device.

    Raises:
        InputError: as `chunks`, or there are not as many labels as rows.
    """
    check_rows(features, labels)
    for values, classes in zip(chunks(features, normalise=normalise), labels.split(CHUNK), strict=True):
        yield values, classes.to(values.device)


def check_rows(features: Rows, labels: Tensor | None = None) -> int:
    """Number of rows of features.

    Raises:
        InputError: they are not (N, d) with N and d above 0, or not as many as ``labels``.
    """
    if not isinstance(features, Tensor | np.ndarray):
        raise InputError("features", type(features).__name__, "must be a tensor or an array")
    if features.ndim != 2 or features.shape[1] == 0:
        raise InputError("features", (*features.shape,), "must be (N, d) with d > 0")
    if len(features) == 0 or (labels is not None and len(features) != len(labels)):
        expected = "N > 0" if labels is None else f"N = {len(labels)} labels"
        raise InputError("features", (*features.shape,), f"must be (N, d) with {expected}")
    return len(features)


def take(features: Rows, rows: Tensor, *, normalise: bool = False) -> Tensor:
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


def first_of_each_class(labels: Tensor) -> Tensor:
    """Row (C,) of the first image of each class.

    Raises:
        InputError: as `class_counts`.
    """
    rows = torch.arange(len(labels), device=labels.device)
    return torch.full_like(class_counts(labels), len(labels)).scatter_reduce(0, labels, rows, "amin")


def add_by_class(sums: Tensor, values: Tensor, classes: Tensor) -> None:
    """Add each row of ``values`` (n, ...) to the row of ``sums`` (C, ...) that is its class."""
    if sums.is_cuda:  # index_add_ on CUDA depends on the order of its threads, a product does not
        sums += (functional.one_hot(classes, len(sums)).to(sums.dtype).T @ values.flatten(1)).view_as(sums)
    else:
        sums.index_add_(0, classes, values)


def _double(block: Rows, first_row: int | None, normalise: bool) -> Tensor:
    # An array is copied: it may be a memmap that must not be written to.
    values = block.detach().double() if isinstance(block, Tensor) else torch.from_numpy(np.array(block, dtype=np.float64))
    finite = values.isfinite().all(dim=1)
    if not finite.all():
        bad = int((~finite).nonzero()[0, 0])
        where = "some row" if first_row is None else f"row {first_row + bad}"
        raise InputError(
            "features", values[bad][~values[bad].isfinite()][0].item(), f"in {where}; find out where it comes from"
        )
    return functional.normalize(values, dim=1) if normalise else values
