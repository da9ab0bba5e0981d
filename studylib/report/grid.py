"""What `studylib grid` prints of a grid's results: means over data sets, and what they say of the papers' claims."""

import pandas as pd

from studylib.config import scale
from studylib.report import claims, statistics, tables


def grid_summary(results: pd.DataFrame, grid: str, scale_name: str) -> str:
    """Accuracies of the encoder's output at the end of training, by kNN on the pre-training classes and by a linear probe as
    means over the other sets, and what they say of the claims."""
    end = statistics.select(statistics.at_end(results), layer="stage5", split="test")
    own = end["dataset"] == scale(scale_name).upstream
    parts = (statistics.select(end[own], measure="knn_top1"), statistics.select(end[~own], measure="linear_top1"))
    means = pd.concat([statistics.over_datasets(part, how="mean") for part in parts])
    accuracies = tables.summary(means, rows=("variant",), columns="measure").to_string(index=False)
    tests = claims.judge({grid: results}, scale_name)
    return f"{accuracies}\n{claims.sentences(tests[tests['reading'] != 'not run'])}"
