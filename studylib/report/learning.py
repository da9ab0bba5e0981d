"""Whether each method learned at all: supervised ones against SL upstream, self-supervised ones against random weights."""

import pandas as pd

from studylib.method_table import USING_LABELS
from studylib.report import statistics, style, tables


def random_start(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with SL's rows before the first step as those of a method ``random``: all methods start from its encoder."""
    first = statistics.select(frame, method="sl", epoch=0)
    return pd.concat([frame.drop(first.index), first.assign(method="random", variant="random")], ignore_index=True)


def learning(frame: pd.DataFrame, *, upstream: str = "knn_top1", transfer: str = "linear_top1_log_odds") -> pd.DataFrame:
    """A table with a row for each method: ``upstream`` as a share of SL's, and ``transfer`` beyond random weights.

    Both are paired over seeds, with 95 % intervals. Each measure of ``frame`` must come from one data set, or from means over
    several by `statistics.over_datasets`; random weights by `random_start`.
    """
    body = []
    reached = statistics.select(frame, measure=upstream).pivot(index="seed", columns="method", values="value")
    for method in style.ordered(set(frame["method"]) - {"random"}):
        share = reached[method] / reached["sl"] if {method, "sl"} <= set(reached) else []
        beyond = statistics.paired_difference(frame, transfer, "random", method)
        body.append(
            {"Method": style.look(method).label}
            | {"Labels": "yes" if method in USING_LABELS else "no"}
            | {f"{style.measure_label(upstream)}, share of SL's": tables.number(*statistics.interval(share))}
            | {f"{style.measure_label(transfer)}, beyond random": tables.number(*beyond, transfer, signed=True)}
            | {"Beyond random": statistics.verdict(*beyond, "higher").replace("supported", "yes").replace("contradicted", "no")}
        )
    return pd.DataFrame(body)
