"""Rank correlations over encoders on constructed results, against SciPy and by hand."""

import math

import pandas as pd
import pytest
from scipy import stats

from studylib import report
from studylib.errors import InputError
from studylib.report import correlation
from studylib.report.figures import _render

pytestmark = pytest.mark.slow

METHODS = ("sl", "sl_mlp", "look", "trex", "supcon", "simclr", "byol", "dino")


def row(method, seed, measure, value, protocol="p", variant="", epoch=4):
    at = {"method": method, "variant": variant or method, "seed": seed, "epoch": epoch, "dataset": "d", "layer": "stage5"}
    return at | {"protocol": protocol, "measure": measure, "value": value}


def frame(phi, transfer, seeds=2, spread=0.0):
    """Encoders with the given means of φ and transfer; their seeds lie around them."""
    rows = []
    for method, x, y in zip(METHODS, phi, transfer, strict=False):
        for seed in range(seeds):
            shift = spread * (seed - (seeds - 1) / 2)
            rows += [row(method, seed, "phi", x + shift, "squared"), row(method, seed, "goal", y - shift, "probe")]
    return pd.DataFrame(rows)


X = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
Y = [2.0, 1.0, 4.0, 3.0, 7.0, 8.0, 5.0, 6.0]


def test_agrees_with_scipy_and_averages_seeds():
    found = report.correlations(frame(X, Y, seeds=3, spread=10.0), ["phi"], "goal")
    assert list(found) == ["measure", "protocol", "rho", "low", "high", "n"]
    only = found.iloc[0]
    # squared differences of ranks: 4 times 1 and 4 times 4 (5-7, 6-8, 7-5, 8-6); 1 - 6 * 20 / (8 * 63)
    assert only["rho"] == pytest.approx(1 - 120 / 504) == pytest.approx(stats.spearmanr(X, Y).statistic)
    assert (only["measure"], only["protocol"], only["n"]) == ("phi", "squared", 8)
    assert -1 <= only["low"] < only["rho"] < only["high"] <= 1


def test_ties_share_their_ranks():
    x, y = [1.0, 1.0, 2.0, 2.0, 3.0, 4.0], [1.0, 2.0, 2.0, 2.0, 5.0, 4.0]
    found = report.correlations(frame(x, y), ["phi"], "goal").iloc[0]
    assert found["rho"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found["low"] <= found["rho"] <= found["high"]


def test_a_constant_measure_has_no_correlation():
    found = report.correlations(frame([1.0] * 8, Y), ["phi"], "goal").iloc[0]
    assert found["n"] == 8 and all(math.isnan(found[name]) for name in ("rho", "low", "high"))
    assert report.rho(found) == "· (n = 8)"


def test_four_encoders_have_no_interval_and_two_no_correlation():
    four = report.correlations(frame(X[:4], Y[:4]), ["phi"], "goal").iloc[0]
    assert four["rho"] == pytest.approx(0.6) and four["n"] == 4 and math.isnan(four["low"]) and math.isnan(four["high"])
    two = report.correlations(frame(X[:2], Y[:2]), ["phi"], "goal").iloc[0]
    assert two["n"] == 2 and math.isnan(two["rho"])


def test_missing_rows_are_left_out_and_a_missing_measure_keeps_its_row():
    whole = frame(X, Y, seeds=2)
    lacking = whole[~((whole.method == "dino") & (whole.measure == "goal"))]  # an encoder without target
    lacking.loc[(lacking.method == "byol") & (lacking.measure == "phi"), "value"] = math.nan  # and one without value
    lacking = lacking[~((lacking.method == "sl") & (lacking.seed == 1) & (lacking.measure == "phi"))]  # and a seed
    found = report.correlations(lacking, ["phi", "redundancy"], "goal").set_index("measure")
    assert found.loc["phi", "n"] == 6
    assert found.loc["phi", "rho"] == pytest.approx(stats.spearmanr(X[:6], Y[:6]).statistic)
    assert found.loc["redundancy", "n"] == 0 and math.isnan(found.loc["redundancy", "rho"])
    assert correlation.encoders(lacking, ["phi"], "goal").set_index("method").loc["sl", "n"] == 1
    nothing = report.correlations(whole[:0], ["phi"], "goal")
    assert nothing["n"].tolist() == [0]


def test_a_seed_counts_only_with_both_values():
    rows = [row("sl", 0, "phi", 1.0), row("sl", 1, "phi", 100.0), row("sl", 0, "goal", 5.0)]
    found = correlation.encoders(pd.DataFrame(rows), ["phi"], "goal").iloc[0]
    assert (found["value"], found["target"], found["n"]) == (1.0, 5.0, 1)


def test_protocols_are_apart_and_variants_are_encoders():
    rows = []
    for i, depth in enumerate(("depth 0", "depth 1", "trex")):
        rows += [row("trex", 0, "goal", float(i), variant=depth)]
        rows += [row("trex", 0, "phi", float(-i), how, variant=depth) for how in ("squared", "not squared")]
    found = report.correlations(pd.DataFrame(rows), ["phi"], "goal")
    assert found["protocol"].tolist() == ["squared", "not squared"]
    assert found["rho"].tolist() == [-1.0, -1.0] and found["n"].tolist() == [3, 3]


def test_mixtures_are_refused():
    whole = frame(X, Y)
    with pytest.raises(InputError, match="mixed \\(dataset"):
        report.correlations(pd.concat([whole, whole.assign(dataset="other")]), ["phi"], "goal")
    with pytest.raises(InputError, match="mixed"):
        report.correlations(pd.concat([whole, whole[whole.measure == "goal"].assign(protocol="other")]), ["phi"], "goal")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.9, "positive"), (-0.9, -0.1, "negative"), (-0.1, 0.9, "undecided"), (math.nan, math.nan, "no interval")],
)
def test_what_an_interval_says(low, high, said):
    assert report.sign(low, high) == said


def groups() -> pd.DataFrame:
    weak = report.correlations(frame(X, Y), ["phi"], "goal")
    strong = report.correlations(frame(X, [-x for x in X]).replace("phi", "redundancy"), ["redundancy"], "goal")
    return pd.concat([pd.concat([weak, strong]).assign(group=name) for name in ("seen", "unseen")], ignore_index=True)


def test_table_and_figure_have_the_largest_on_top():
    table = report.predictions(groups())
    assert table["Measure"].str.contains("redundancy").tolist() == [True, False]
    assert table["Sign, unseen"].tolist() == ["negative", "positive"]
    assert table["ρ, seen"].iloc[0] == "−1.00 [−1.00, −0.90] (n = 8)"
    figure, data = report.predictors(groups(), target="transfer")
    assert len(data) == 4
    assert "redundancy" in figure.axes[0].get_yticklabels()[0].get_text()
    assert _render(figure, "png")


@pytest.mark.parametrize(
    "found",
    [groups()[:0], groups()[groups().group == "seen"], report.correlations(frame(X[:4], Y[:4]), ["phi", "inter"], "goal")],
    ids=["nothing", "one group", "no interval"],
)
def test_predictors_of_little(found):
    figure, _ = report.predictors(found, target="transfer")
    assert _render(figure, "png")
    assert len(report.predictions(found)) == found["measure"].nunique()


@pytest.mark.parametrize("rows", [frame(X, Y, seeds=3, spread=0.2), frame(X[:2], Y[:2], seeds=1), frame(X, Y)[:0]])
def test_scatter(rows):
    figure, data = report.scatter(rows, ["phi", "redundancy"], "goal")
    assert len(data) == rows["method"].nunique()
    assert [text.get_text() for text in figure.axes[1].texts] == ["no results"]
    assert _render(figure, "png")


def along(seeds=3) -> pd.DataFrame:
    """φ rises; transfer rises for SL-MLP and falls at the end for SL."""
    rows = []
    for seed in range(seeds):
        for epoch in (0, 1, 2, 4):
            for method, goal in (("sl", {0: 10, 1: 30, 2: 40, 4: 35}), ("sl_mlp", {0: 10, 1: 20, 2: 30, 4: 40})):
                rows.append(row(method, seed, "phi", epoch + 0.01 * seed * epoch, epoch=epoch))
                rows.append(row(method, seed, "linear_top1", goal[epoch] + 0.1 * seed, epoch=epoch))
    return pd.DataFrame(rows)


def test_trajectory_and_how_it_turns():
    figure, data = report.trajectory(along(), "phi", "linear_top1")
    assert len(data) == 8 and set(data["n"]) == {3}
    assert data[(data.method == "sl") & (data.epoch == 4)]["target"].item() == pytest.approx(35.1)
    assert _render(figure, "png")
    table = report.turns(along(), "phi", "linear_top1").set_index("Method")
    assert table["Epochs"].tolist() == ["2 → 4", "2 → 4"]
    assert table.loc["SL"].tolist()[-2:] == ["rises", "falls"]
    assert table.loc["SL-MLP"].tolist()[-2:] == ["rises", "rises"]
    assert report.turns(along(1), "phi", "linear_top1").iloc[0].tolist()[-2:] == ["undecided", "undecided"]
    figure, data = report.trajectory(along()[:0], "phi", "linear_top1")
    assert data.empty and _render(figure, "png")
    assert report.turns(along()[:0], "phi", "linear_top1").empty


def test_long_intervals_are_cut_and_the_note_says_so():
    rows = frame(X, Y, seeds=2, spread=40.0)  # intervals hundreds wide around means of 1 to 8
    figure, _ = report.scatter(rows, ["phi"], "goal")
    low, high = figure.axes[0].get_xlim()
    assert -6 < low < 1 and 8 < high < 14
    assert "cut" in figure.get_supxlabel()
    assert "cut" not in report.scatter(frame(X, Y, seeds=2, spread=0.01), ["phi"], "goal")[0].get_supxlabel()
    assert report.scatter(frame([1.0], [2.0]), ["phi"], "goal")[1]["n"].tolist() == [2]  # one point has no range
    wide = along()
    wide.loc[wide.measure == "phi", "value"] += wide.seed * 5 + 0.1  # below 0 within the interval: no place on a log axis
    figure, _ = report.trajectory(wide, "phi", "linear_top1", log=True)
    assert _render(figure, "png") and figure.axes[0].get_xlim()[0] > 0


def test_correlations_with_all_methods_and_with_labels_alone():
    whole = frame(X, Y)
    parts = {"here": (whole, "goal"), "there": (whole[whole.measure != "phi"], "goal")}
    found = report.by_labels(parts, ["phi", "redundancy"])
    assert found[["who", "group", "n"]].values.tolist() == [["all", "here", 8], ["with labels", "here", 5]]
    five = X[:5], Y[:5]  # those of METHODS that learn from labels
    assert found.rho.tolist() == pytest.approx([stats.spearmanr(X, Y).statistic, stats.spearmanr(*five).statistic])
    assert [name for name in report.predictions(found) if name.startswith("ρ")] == ["ρ, here, all", "ρ, here, with labels"]


def test_the_strongest_is_named_whatever_its_sign():
    whole = frame([-x for x in X], X)
    other = frame(X, Y)
    found = report.by_labels(
        {"here": (pd.concat([whole, other.replace({"phi": "rank"})[other.measure == "phi"]]), "goal")}, ["phi", "rank"]
    )
    lines = report.strongest(found[found.who == "all"]).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("here, all: the strongest is phi (squared), ρ = −1.00 [")
    assert lines[1] == "  of 2 measures 2 have an interval that excludes 0"
