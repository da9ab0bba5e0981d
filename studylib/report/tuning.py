"""The settings that were tried for each method, and which was taken."""

import pandas as pd

from studylib.report import statistics, style, tables

SHORT = {"optimisation.lr": "rate", "look.k": "k", "temperature": "τ", "ema.momentum": "momentum"}


def tuning(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of the results of grid ``tuning``: what was tried, and the accuracy on the held-out tenth of the training images
    by kNN and, which decides, by a linear probe; of equal ones the first is taken."""
    end = statistics.select(statistics.at_end(frame), layer="stage5", split="test", measure=["linear_top1", "knn_top1"])
    values = end.pivot_table(index=["method", "variant"], columns="measure", values="value", sort=False)
    body = []
    for method in style.ordered(end["method"]):
        of_method = values.loc[method]
        best = of_method["linear_top1"].idxmax()
        for variant, row in of_method.iterrows():
            tried = variant.removeprefix(f"{method} ")
            for setting, short in SHORT.items():
                tried = tried.replace(f"{setting}=", f"{short} ")
            body.append(
                {"Method": style.look(method).label, "Tried": tried}
                | {"Linear (%)": f"{row['linear_top1']:.1f}", "kNN (%)": f"{row['knn_top1']:.1f}"}
                | {"Taken": "yes" if variant == best else tables.MISSING}
            )
    return pd.DataFrame(body, columns=["Method", "Tried", "Linear (%)", "kNN (%)", "Taken"])
