"""The pre-training methods, one idea per file.

A method owns its modules and offers what the training loop needs: ``views`` (the augmentations of an image it wants),
``loss(batch)`` -> (scalar, logs), ``before_step(batch)`` and ``after_step(batch)`` around the optimiser's step,
``layers(images)`` for whoever measures features, and ``state_dict`` with everything that must survive a restart.
"""

from importlib import import_module

from studylib import method_table
from studylib.methods.batch import Batch
from studylib.methods.method import Method


def class_of(row: method_table.MethodRow) -> type[Method]:
    """The class that ``row`` names."""
    file, _, name = row.implementation.partition(".")
    return getattr(import_module(f"{__name__}.{file}"), name)


METHODS: dict[str, type[Method]] = {name: class_of(row) for name, row in method_table.METHODS.items()}

__all__ = ["METHODS", "Batch", "Method"]
