"""The table of `studylib evaluate`."""

import math

import pytest

from studylib.evaluation.table import SetResult, accuracy_rows


def result(dataset: str, **accuracies: float) -> SetResult:
    return SetResult(dataset, accuracies, [], [])


@pytest.mark.parametrize("turn", [1, -1])
def test_the_mean_of_a_column_is_over_the_sets_that_have_it(turn):
    results = [result("digits", knn=80.0, per_class_8=60.0), result("pacs", knn=50.0)][::turn]
    *rows, mean = accuracy_rows(results, mean=True)
    assert [row["data set"] for row in rows] == ["digits", "pacs"][::turn]
    assert float(mean["knn"]) == pytest.approx(math.log(80 / 20) / 2, abs=1e-3)
    assert float(mean["per_class_8"]) == pytest.approx(math.log(60 / 40), abs=1e-3)
    assert accuracy_rows(results, mean=False) == rows
