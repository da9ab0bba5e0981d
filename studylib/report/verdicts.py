"""The verdicts of all claims at a glance: a row for each claim, a mark for each of its tests."""

import pandas as pd
from matplotlib.figure import Figure

from studylib.report import style

LOOKS = {
    "contradicted": ("#D55E00", "X"),
    "undecided": ("#444444", "o"),
    "supported": ("#009E73", "s"),
    "not trained enough": ("#B8860B", "v"),
    "not run": ("#777777", "d"),
}
PLACES = tuple(LOOKS)
FURTHER = "#A8A8A8"


def verdicts(found: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data) of `claims.judge`'s table: the verdict on a claim is large, its tests are small and grey.

    A test that decides alone is not drawn a second time.
    """
    claims = list(dict.fromkeys(found["claim"]))
    half = -(-len(claims) // 2) or 1
    figure = style.canvas(2, 0.7 + 0.17 * half)
    for axes, part in zip(figure.subplots(1, 2), (claims[:half], claims[half:]), strict=True):
        for y, claim in enumerate(part):
            tests = found[found["claim"] == claim]
            decides, whole = tests["role"] == "primary", tests["verdict"].iloc[0]
            colour, marker = LOOKS[whole]
            axes.scatter(PLACES.index(whole) - 0.1, y, s=26, color=colour, marker=marker, zorder=3)
            small = tests.loc[~decides | (decides.sum() > 1), "reading"]
            for place, reading in enumerate(PLACES):
                for i in range((small == reading).sum()):
                    looks = {"color": FURTHER, "marker": LOOKS[reading][1], "linewidths": 0}
                    axes.scatter(place + 0.05 + 0.12 * (i + 1), y, s=9, zorder=2, **looks)
        axes.set_yticks(range(len(part)), part)
        axes.set_xticks(range(len(PLACES)), [place.replace(" trained ", " trained\n") for place in PLACES])
        axes.set_xlim(-0.5, len(PLACES) - 0.3)
        axes.set_ylim(half - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
    style.note(figure, "large: verdict on the claim; small, grey: readings of its tests, by their 95 % intervals")
    columns = ["paper", "claim", "test", "role", "scale", "reading", "verdict", "p_claim", "estimate", "low", "high", "n"]
    return figure, found[columns]
