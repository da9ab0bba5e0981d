"""The pre-training methods, one idea per file.

A method owns its modules and offers what the training loop needs: ``views`` (the augmentations of an image it wants),
``loss(batch)`` -> (scalar, logs), ``after_step()``, ``layers(images)`` for whoever measures features, and ``state_dict``
with everything that must survive a restart.
"""

from studylib.methods.batch import Batch
from studylib.methods.cross_entropy import CrossEntropy

METHODS = {"sl": CrossEntropy, "sl_mlp": CrossEntropy}

__all__ = ["METHODS", "Batch", "CrossEntropy"]
