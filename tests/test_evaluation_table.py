"""The table of `studylib evaluate`."""

import math

import pytest

from studylib.cli import table
from studylib.evaluation.table import SetResult, accuracy_rows


def result(dataset: str, **accuracies: float) -> SetResult:
    return SetResult(dataset, accuracies, [], [])


@pytest.mark.parametrize("turn", [1, -1])
def test_a_column_that_only_some_sets_have_is_shown_and_has_no_mean(turn):
    results = [result("digits", knn=80.0, per_class_8=60.0), result("pacs", knn=50.0)][::turn]
    *rows, mean = accuracy_rows(results, mean=True)
    assert [row["data set"] for row in rows] == ["digits", "pacs"][::turn]
    assert float(mean["knn"]) == pytest.approx(math.log(80 / 20) / 2, abs=1e-3)
    assert "per_class_8" not in mean
    lines = table([*rows, mean]).splitlines()
    assert {name in lines[0] for name in ("data set", "knn", "per_class_8")} == {True}
    assert sum("·" in line for line in lines) == 2  # pacs and the mean
    assert accuracy_rows(results, mean=False) == rows
