"""The table of `studylib evaluate`: an encoder's accuracies on data sets, and what its features measure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from studylib.errors import InputError, choose
from studylib.evaluation.evaluate import Evaluation, evaluate
from studylib.evaluation.probe import default, known
from studylib.external import External
from studylib.report import log_odds
from studylib.training import Run


@dataclass(frozen=True)
class SetResult:
    """What was found on one data set, of held-out images."""

    dataset: str
    accuracies: dict[str, float]
    """measure, such as ``knn`` or ``detection_ap`` -> %"""
    not_converged: list[str]
    """fits that did not converge everywhere"""
    measures: list[dict[str, str]]
    """rows (measure, protocol, value); none if they were not asked for"""
    unfit: dict[str, InputError] = field(default_factory=dict)
    """protocol -> why the set is not one for it"""


def evaluate_sets(
    source: Run | External,
    datasets: Sequence[str],
    protocols: Sequence[str],
    *,
    layer: str = "stage5",
    epoch: int | None = None,
    measures: bool = False,
) -> Iterator[SetResult]:
    """The result on each of ``datasets``, once it is computed, by the ``protocols`` with their default settings.

    Raises:
        InputError: there is no such protocol, layer or epoch, or a protocol is not for that kind of set or layer; before
            anything is computed.
    """
    choose("layer", layer, source.layers)
    names = [known(name) for name in protocols]
    kinds = {"layers": (layer,), "epoch": epoch, "measures": "all" if measures else "none"}
    settings = {dataset: tuple(default(name, dataset) for name in names) for dataset in datasets}
    for evaluation in [Evaluation(dataset=dataset, protocols=these, **kinds) for dataset, these in settings.items()]:
        unfit: dict[str, InputError] = {}
        rows = evaluate(source, evaluation, unfit)
        described = [protocol.describe() for protocol in evaluation.protocols]
        rows = [row for row in rows if row["split"] != "train" or row["protocol"] in described]
        yield SetResult(
            evaluation.dataset,
            unfit=unfit,
            accuracies={
                row["measure"].replace("_top1", ""): row["value"]
                for row in rows
                if "_top1" in row["measure"] or row["measure"].endswith("_ap")
            },
            not_converged=[
                row["measure"].replace("_converged", " ").strip()
                for row in rows
                if "_converged" in row["measure"] and not row["value"]
            ],
            measures=[
                {"measure": row["measure"], "protocol": row["protocol"], "value": f"{row['value']:.4g}"}
                for row in rows
                if row["protocol"] not in described
            ],
        )


def accuracy_rows(results: Sequence[SetResult], *, mean: bool) -> list[dict[str, Any]]:
    """A row of accuracies in % for each data set and, with ``mean``, the mean log-odds of those that all sets have."""
    rows = [
        {"data set": result.dataset} | {name: f"{value:.1f}" for name, value in result.accuracies.items()} for result in results
    ]
    if mean:
        values: dict[str, list[float]] = {}
        for result in results:
            for name, value in result.accuracies.items():
                values.setdefault(name, []).append(value)
        whole = {name: column for name, column in values.items() if len(column) == len(results)}
        means = {name: f"{sum(map(log_odds, column)) / len(column):.3f}" for name, column in whole.items()}
        rows.append({"data set": "mean log-odds"} | means)
    return rows
