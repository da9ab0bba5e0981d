"""What the results say of SL-MLP's claims: the difference that tests each, its interval, and a verdict by rule."""

from collections.abc import Sequence

import pandas as pd

from studylib import papers
from studylib.report.statistics import at_end, interval, over_datasets, paired_difference, select, verdict
from studylib.report.tables import number


def last_stage(frame: pd.DataFrame) -> pd.DataFrame:
    """Linear accuracy after stage 5 less that after stage 4: a row per run and data set, measure ``last_stage_gain``."""
    rows = select(frame, measure="linear_top1", layer=["stage4", "stage5"])
    by = [name for name in rows if name not in ("layer", "value")]
    wide = rows.pivot_table(index=by, columns="layer", values="value", dropna=False).reindex(columns=["stage4", "stage5"])
    gains = (wide["stage5"] - wide["stage4"]).dropna().rename("value").reset_index()
    return gains.assign(layer="stage5", measure="last_stage_gain").reindex(columns=list(frame.columns))


def sl_mlp(frame: pd.DataFrame, upstream: str, unseen: Sequence[str], stagewise: Sequence[str]) -> pd.DataFrame:
    """A row for each test of a claim: statement, published evidence, SL, SL-MLP, their paired difference, verdict.

    Values are those at the end of pre-training, of held-out images, at the encoder's output, averaged over data sets within
    each seed. A claim whose measure is not in ``frame`` is "not run".
    """
    end = select(at_end(frame), split="test")
    out = select(end, layer="stage5")
    phi, redundancy = (select(out, measure=name) for name in ("phi", "redundancy"))
    tests = [
        ("S1", "linear top-1 on unseen classes (%)", select(out, measure="linear_top1", dataset=unseen), unseen, "higher"),
        ("S1", "kNN top-1 on unseen classes (%)", select(out, measure="knn_top1", dataset=unseen), unseen, "higher"),
        ("S4", "gain of the last stage, unseen classes (%)", last_stage(end), stagewise, "higher"),
        ("S6", "φ, pre-training classes", select(phi, protocol="squared"), [upstream], "lower"),
        ("S6", "φ, l2-normalised", select(phi, protocol="squared, l2-normalised"), [upstream], "lower"),
        ("S7", "Π (k = 5), unseen classes", select(out, measure="mixtureness", protocol="k=5"), unseen, "higher"),
        ("S8", "R, pre-training classes", redundancy, [upstream], "lower"),
        ("S8", "R, unseen classes", redundancy, unseen, "lower"),
    ]
    claims, rows = papers.load("sl_mlp")["claims"], []
    for claim, tested, values, datasets, direction in tests:
        means = over_datasets(values, datasets, how="mean")
        measure = means["measure"].iloc[0] if len(means) else ""
        shown = {label: number(*interval(select(means, method=name)["value"]), measure) for name, label in METHODS.items()}
        difference = paired_difference(means, measure, *METHODS)
        rows.append(
            {
                "Claim": claim,
                "Statement": claims[claim]["statement"],
                "Published": claims[claim]["evidence"],
                "Tested by": tested,
            }
            | shown
            | {
                "SL-MLP − SL": number(*difference, measure, signed=True),
                "Claimed": direction,
                "Verdict": verdict(*difference, direction),
            }
        )
    return pd.DataFrame(rows)


METHODS = {"sl": "SL", "sl_mlp": "SL-MLP"}


def probe_notes(frame: pd.DataFrame) -> str:
    """How many linear probes chose C at the edge of their grid, and how many had not converged."""
    edge, converged = (select(frame, measure=f"linear_{name}")["value"] for name in ("at_grid_edge", "converged"))
    return (
        f"of {len(edge)} linear probes {int(edge.sum())} chose C at the edge of the grid and "
        f"{int((converged == 0).sum())} stopped before they had converged"
    )


def sentences(reading: pd.DataFrame) -> str:
    """The verdicts in words, a line for each test."""
    return "\n".join(
        f"{row['Claim']} {row['Verdict']}: {row['Statement']} ({row['Tested by']}: SL {row['SL']}, SL-MLP {row['SL-MLP']}, "
        f"difference {row['SL-MLP − SL']})"
        for row in reading.to_dict("records")
    )
