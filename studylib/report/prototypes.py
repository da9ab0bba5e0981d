"""The class vectors that a loss compares with, against prototypes: means of the projector's outputs of a class."""

from collections.abc import Sequence

import pandas as pd

from studylib.report import statistics

PROTOTYPES = {
    "prototype_similarity": "Cosine with the own class's mean",
    "prototype_similarity_others": "Cosine with other classes' means",
}
"""names for readers of the measures of `class_vectors`"""


def class_vectors(frame: pd.DataFrame, variants: Sequence[str]) -> pd.DataFrame:
    """The rows of `PROTOTYPES` of some ``variants``, at the projector's output and of training images, under these names."""
    rows = statistics.select(frame, variant=list(variants), layer="projector", split="train")
    return rows.replace({"measure": PROTOTYPES})
