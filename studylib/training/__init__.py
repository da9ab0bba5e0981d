"""Pre-training: one visible loop, exact resume, and the folder of a run."""

from studylib.training.loop import refuse_other_data, train
from studylib.training.record import Run

__all__ = ["Run", "refuse_other_data", "train"]
