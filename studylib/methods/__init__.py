"""The pre-training methods, one idea per file.

A method owns its modules and offers what the training loop needs: ``views`` (the augmentations of an image it wants),
``loss(batch)`` -> (scalar, logs), ``before_step(batch)`` and ``after_step(batch)`` around the optimiser's step,
``layers(images)`` for whoever measures features, and ``state_dict`` with everything that must survive a restart.
"""

from studylib.methods.batch import Batch
from studylib.methods.byol import Byol
from studylib.methods.contrastive import Contrastive
from studylib.methods.cross_entropy import CrossEntropy
from studylib.methods.dino import Dino
from studylib.methods.look import Look
from studylib.methods.method import Method
from studylib.methods.moco import MoCo
from studylib.methods.trex import TRex

METHODS: dict[str, type[Method]] = {
    "sl": CrossEntropy,
    "sl_mlp": CrossEntropy,
    "look": Look,
    "trex": TRex,
    "trex_star": TRex,
    "trex_plain": TRex,
    "supcon": Contrastive,
    "simclr": Contrastive,
    "moco_v1": MoCo,
    "moco_v2": MoCo,
    "byol": Byol,
    "dino": Dino,
}

__all__ = ["METHODS", "Batch", "Method"]
