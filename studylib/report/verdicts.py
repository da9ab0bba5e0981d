"""The verdicts of all claims at a glance: a row for each claim, a mark for each of its tests."""

import pandas as pd
from matplotlib.figure import Figure

from studylib.report import style

PLACES = ("contradicted", "inconclusive", "supported", "not run")
LOOKS = {
    "contradicted": ("#D55E00", "X"),
    "inconclusive": ("#888888", "o"),
    "supported": ("#009E73", "s"),
    "not run": ("#BBBBBB", "d"),
}


def verdicts(found: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of `claims.judge`'s table: the test that decides on a claim is filled, the others are hollow."""
    claims = list(dict.fromkeys(found["claim"]))
    half = -(-len(claims) // 2) or 1
    figure = style.canvas(2, 0.7 + 0.17 * half)
    for axes, part in zip(figure.subplots(1, 2), (claims[:half], claims[half:]), strict=True):
        for y, claim in enumerate(part):
            tests = found[found["claim"] == claim]
            others = tests.loc[tests["test"] > 1, "verdict"]
            for place, verdict in enumerate(PLACES):
                colour, marker = LOOKS[verdict]
                count = int((others == verdict).sum())
                for i in range(count):
                    line = {"facecolors": "none", "edgecolors": colour, "linewidths": 0.9}
                    axes.scatter(place + 0.16 * (i + 1), y, s=15, marker=marker, zorder=2, **line)
                if (tests.loc[tests["test"] == 1, "verdict"] == verdict).any():
                    axes.scatter(place - 0.1, y, s=26, color=colour, marker=marker, zorder=3)
        axes.set_yticks(range(len(part)), part)
        axes.set_xticks(range(len(PLACES)), PLACES)
        axes.set_xlim(-0.5, len(PLACES) - 0.3)
        axes.set_ylim(half - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
    style.note(figure, "filled: the test that decides; hollow: further tests of the claim")
    return figure, found[["paper", "claim", "test", "scale", "verdict", "estimate", "low", "high", "n"]]
