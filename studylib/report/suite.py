"""The measure suite for readers: which measures go together, of each the one kind that figures show, and S9's pairs."""

import pandas as pd

from studylib.report import statistics

VARIATION = ("phi", "intra_class_distance", "class_separation", "neural_collapse")
SPREAD = ("redundancy", "effective_rank", "coding_length", "sparsity")
DISTANCE = ("mixtureness", "frechet_per_variance", "squared_mmd")
"""Of the unseen classes from the pre-training classes"""
FIGURE = ("phi", "intra_class_distance", *SPREAD)

KINDS = ["squared", "l2-normalised", "cosine", "classes weigh equally", "with the diagonal", "centred", "k=5"]
KINDS += ["ε = 0.5, l2-normalised, per image", "share of |x| below 1e-5"]
KINDS += ["to the pre-training set", "to the pre-training set, RBF of the median distance"]
"""Protocols: one of each measure; the suite has more"""


def held_out(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of held-out images, each once, though two grids may ask for it; modes inside classes have a shorter protocol."""
    rows = statistics.select(
        frame.drop_duplicates([name for name in frame if name != "value"], ignore_index=True), split="test"
    )
    modes = "k-means in each class, as many clusters as it has of "
    return rows.assign(protocol=rows["protocol"].str.replace(modes, "inside classes: "))


def measures(frame: pd.DataFrame) -> list[str]:
    """The names of all measures of the suite in their order; those of modes inside classes as ``frame`` has them."""
    modes = [name for name in frame["measure"].unique() if name.startswith("modes_")]
    return [*VARIATION, "inter", "intra", *SPREAD, *DISTANCE, *modes]


def phi_and_transfer(frame: pd.DataFrame, upstream: str, unseen: str) -> pd.DataFrame:
    """The rows of methods as the scale has them: φ (squared distances) of ``upstream``, then the linear probe on ``unseen``."""
    spread = statistics.select(frame, measure="phi", protocol="squared", dataset=upstream)
    probe = statistics.select(frame, measure="linear_top1", dataset=unseen)
    rows = pd.concat([spread, probe])
    return rows[rows["variant"] == rows["method"]]
