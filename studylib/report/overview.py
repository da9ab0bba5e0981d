"""What each method is worth and what it costs, upstream and elsewhere, and how methods compare at equal compute."""

from collections.abc import Sequence

import pandas as pd

from studylib.report import statistics

UPSTREAM = ("knn_top1", "linear_top1")
COST = ("fastest_epoch", "passes", "passes_without_gradient")
"""Seconds on this machine; passes of a whole image through the encoder for each training image, with gradient and without"""


def overview(frame: pd.DataFrame, upstream: str, transfer: Sequence[str]) -> pd.DataFrame:
    """The rows at the end of training that say what a method is worth and what it costs, ordered by measure.

    On held-out images of the pre-training classes ``upstream``: kNN and linear accuracy, φ (squared distances) and R. On the
    sets ``transfer``: the mean log-odds of the linear probe's accuracy. Of training: `COST`.
    """
    end = statistics.at_end(frame)
    test = statistics.select(end, layer="stage5", split="test")
    own = statistics.select(test, dataset=upstream, measure=[*UPSTREAM, "phi", "redundancy"])
    own = own[(own["measure"] != "phi") | (own["protocol"] == "squared")]
    score = statistics.over_datasets(statistics.select(test, measure="linear_top1"), transfer)
    cost = statistics.select(end, measure=list(COST))
    order = [*UPSTREAM, "linear_top1_log_odds", "phi", "redundancy", *dict.fromkeys(cost["measure"])]
    rows = pd.concat([own, score, cost])
    return rows.sort_values("measure", key=lambda names: names.map(order.index), kind="stable")


def by_passes(frame: pd.DataFrame, cost: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the encoder's passes over a training image in place of epochs.

    Args:
        frame: rows at several epochs.
        cost: rows of the measures ``passes`` and ``passes_without_gradient`` of each method; both count, of the first seed.
    """
    passes = statistics.select(cost, measure=list(COST[1:]), seed=0).groupby("method")["value"].sum()
    return frame.assign(epoch=frame["epoch"] * frame["method"].map(passes))


def equal_compute(epochs: pd.DataFrame, passes: pd.DataFrame) -> pd.DataFrame:
    """The rows after as many epochs as all methods train, and those at equal compute; the column ``when`` says which.

    Equal compute: the last snapshot of each run that took no more passes than the whole training of the cheapest run.

    Args:
        epochs: rows of one measure and data set at several epochs.
        passes: the same rows by `by_passes`.
    """
    budget = passes.groupby("run")["epoch"].max().min()
    moments = {"equal epochs": epochs, f"equal compute (at most {budget:g} passes)": passes[passes["epoch"] <= budget]}
    last = [
        part[part["epoch"] == part.groupby("run")["epoch"].transform("max")].assign(when=when) for when, part in moments.items()
    ]
    return pd.concat(last)
