"""Ablations by numbers: accuracy on both sides of the transfer, and differences of two rows with a verdict."""

from collections.abc import Iterable, Sequence

import pandas as pd

from studylib.report import statistics, style, tables


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


def contrasts(frame: pd.DataFrame, tests: Iterable[tuple[str, str, str, str, str]]) -> pd.DataFrame:
    """A table of text with a row for each test: the difference of two variants, paired over seeds, and the verdict.

    Args:
        frame: with one value for each seed of a variant and measure, as from `both_sides`.
        tests: (claim, variant, the variant it is compared with, measure, ``higher`` or ``lower``: what is claimed of the
            first). A variant without results makes the test "not run".

    Raises:
        InputError: several values for a seed of a variant, such as those of two data sets.
    """
    body = []
    for claim, variant, other, measure, direction in tests:
        difference = statistics.paired_difference(frame, measure, other, variant, column="variant")
        rows = statistics.select(frame, measure=measure, variant=[variant, other])
        body.append(
            {"Claim": claim, "Compared": f"{_name(variant)} against {_name(other)}"}
            | {"Measure": style.measure_label(measure)}
            | {"On": ", ".join(style.dataset_label(name) for name in dict.fromkeys(rows["dataset"])) or tables.MISSING}
            | {"Difference": tables.number(*difference, measure, signed=True)}
            | {"Claimed": direction, "Verdict": statistics.verdict(*difference, direction)}
        )
    return pd.DataFrame(body)


def _name(variant: str) -> str:
    """A variant for readers; one such as ``byol on`` begins with a method."""
    method, space, rest = variant.partition(" ")
    return f"{style.look(method).label}{space}{rest}" if method in style.METHODS else variant
