"""Accuracy on both sides of the transfer: what an ablation compares."""

from collections.abc import Sequence

import pandas as pd

from studylib.report import statistics


def mean_accuracy(frame: pd.DataFrame, datasets: Sequence[str], measure: str = "linear_top1") -> pd.DataFrame:
    """The mean over ``datasets`` of ``measure`` at the end of training, at the encoder's output: a row for each run."""
    end = statistics.select(statistics.at_end(frame), layer="stage5", split="test", measure=measure)
    return statistics.over_datasets(end, datasets, how="mean")


def both_sides(
    frame: pd.DataFrame,
    upstream: str,
    transfer: Sequence[str],
    *,
    measures: Sequence[str] = ("linear_top1", "knn_top1"),
    how: str = "log_odds",
    layer: str = "stage5",
) -> pd.DataFrame:
    """The rows of held-out images at the end of training that an ablation compares.

    Args:
        measures: those on the pre-training classes ``upstream``.
        transfer: the sets on which the linear probe is averaged within each run, by `statistics.over_datasets`.
        how: ``log_odds`` or ``mean``, of them; with ``mean``, ``linear_top1`` cannot be among ``measures``.
    """
    end = statistics.select(statistics.at_end(frame), layer=layer, split="test")
    own = statistics.select(end, dataset=upstream, measure=list(measures))
    elsewhere = statistics.over_datasets(statistics.select(end, measure="linear_top1"), transfer, how=how)
    if len(transfer) == 1:
        elsewhere = elsewhere.assign(dataset=transfer[0])
    parts = [part for part in (own, elsewhere) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else own
