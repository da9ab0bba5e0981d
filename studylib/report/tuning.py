"""The settings that were tried for each method, and which the scale has."""

import pandas as pd

from studylib.config import resolve
from studylib.report import statistics, style, tables

SHORT = {"optimisation.lr": "rate", "look.k": "k", "temperature": "τ", "ema.momentum": "momentum"}


def tuning(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of the results of grid ``tuning``: what was tried, and the accuracy on the held-out tenth of the training images
    by kNN and, which decides, by a linear probe; of equal ones the first is best. Which is best, and which the scale has."""
    end = statistics.select(statistics.at_end(frame), layer="stage5", split="test", measure=["linear_top1", "knn_top1"])
    values = end.pivot_table(index=["method", "variant"], columns="measure", values="value", sort=False)
    values = values.reindex(columns=["linear_top1", "knn_top1"])
    body = []
    for method in style.ordered(end["method"]):
        of_method = values.loc[method]
        taken, best = resolve(end["scale"].iloc[0], method), of_method["linear_top1"].max()
        best = of_method.index[of_method["linear_top1"] == best][:1]
        for variant, row in of_method.iterrows():
            tried = dict(part.split("=") for part in variant.split(" ")[1:])
            same = all(str(_setting(taken, name)) == value for name, value in tried.items())
            yes = ["best"] * (variant in best) + ["taken"] * same
            body.append(
                {"Method": style.look(method).label}
                | {"Tried": ", ".join(f"{SHORT.get(name, name)} {value}" for name, value in tried.items())}
                | {"Linear (%)": f"{row['linear_top1']:.1f}", "kNN (%)": f"{row['knn_top1']:.1f}"}
                | {"": ", ".join(yes) or tables.MISSING}
            )
    return pd.DataFrame(body, columns=["Method", "Tried", "Linear (%)", "kNN (%)", ""])


def _setting(config: object, name: str) -> object:
    """The setting of a run with a dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config
