"""What every protocol asks of the features and labels it is given."""

from torch import Tensor

from studylib.errors import InputError, require


def check_set(name: str, features: Tensor, labels: Tensor, num_classes: int) -> None:
    """Refuse what is not N images: features (N, d), floating and finite, and labels (N,) in 0 ... num_classes-1.

    Raises:
        InputError: named after ``name``, as ``train`` or ``test``.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise InputError(f"{name}.features", (*features.shape,), f"must be (N, d) with N labels, not {(*labels.shape,)}")
    require(f"{name}.features", (*features.shape,), len(features) != 0, "has no image")
    require(f"{name}.features", str(features.dtype), features.is_floating_point(), "must be floating; convert with .float()")
    require(f"{name}.features", None, features.isfinite().all(), "some are infinite or not a number")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(f"{name}.labels", [int(labels.min()), int(labels.max())], f"must be within 0 ... {num_classes - 1}")


def check_sets(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int) -> None:
    """`check_set` for both; the training images must have two classes, and the features of both the same width.

    Classes may be absent from either set.

    Raises:
        InputError: if they do not.
    """
    check_set("train", train, train_labels, num_classes)
    check_set("test", test, test_labels, num_classes)
    if test.shape[1] != train.shape[1]:
        raise InputError("test.features", (*test.shape,), f"must be as wide as those of the training images, {train.shape[1]}")
    if train_labels.min() == train_labels.max():
        raise InputError("train.labels", train_labels[:1].tolist(), "the only class; a classifier needs images of at least two")
