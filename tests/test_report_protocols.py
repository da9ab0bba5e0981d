"""Which protocol changes which conclusion, on constructed results with a known answer."""

import math

import pandas as pd
import pytest

from studylib import report
from studylib.report import statistics

pytestmark = pytest.mark.slow

SETS = ("one", "two", "three")
SMALL = ("two", "three")


def rows(method, seed, dataset, measure, value, split="test"):
    at = {"scale": "quick", "method": method, "variant": method, "run": f"{method}-{seed}", "seed": seed, "epoch": 4}
    return at | {"dataset": dataset, "layer": "stage5", "split": split, "protocol": "p", "measure": measure, "value": value}


def frame(seeds=3):
    """LOOK is better than SL by the reference probe and worse by the small protocol, which two of three sets have."""
    found = []
    for seed in range(seeds):
        for place, dataset in enumerate(SETS):
            noise = seed + 3 * place
            for method, better in (("random", -30), ("sl", 0), ("look", 5), ("trex", 0.1 * (-1) ** seed)):
                found.append(rows(method, seed, dataset, "linear_top1", 60 + better + noise))
                found.append(rows(method, seed, dataset, "episodes_top1", 60 + better + noise, split="all"))
                found.append(rows(method, seed, dataset, "linear_seconds", 3.0))
                found.append(rows(method, seed, dataset, "monitor_knn_top1", 30.0))
                found.append(rows(method, seed, dataset, "per_class_top1_4", 40 + better + noise))
                if dataset in SMALL:
                    found.append(rows(method, seed, dataset, "trex_small8_top1", 60 - better + noise))
    return pd.DataFrame(found)


def test_every_protocol_is_averaged_over_the_sets_it_has():
    means = report.by_protocol(frame())
    assert list(dict.fromkeys(means.measure)) == ["linear_top1", "episodes_top1", "per_class_top1_4", "trex_small8_top1"]
    value = means[(means.measure == "trex_small8_top1") & (means.method == "look") & (means.seed == 1)].value.item()
    assert value == pytest.approx((60 - 5 + 1 + 3 + 60 - 5 + 1 + 6) / 2)
    value = means[(means.measure == "linear_top1") & (means.method == "look") & (means.seed == 1)].value.item()
    assert value == pytest.approx(60 + 5 + 1 + 3)


def test_a_conclusion_is_compared_with_the_reference_on_the_same_sets():
    found = report.conclusions(frame()).set_index(["measure", "method"])
    expected = []
    for seed in range(3):
        odds = [
            statistics.log_odds(55 + seed + 3 * place) - statistics.log_odds(60 + seed + 3 * place)
            for place, dataset in enumerate(SETS)
            if dataset in SMALL
        ]
        expected.append(sum(odds) / 2)
    row = found.loc["trex_small8_top1", "look"]
    assert (row["sets"], row["n"], row["verdict"], row["reference_verdict"]) == (2, 3, "worse", "better")
    assert row["mean"] == pytest.approx(sum(expected) / 3)
    assert row["half_width"] == pytest.approx(statistics.interval(expected)[1])
    same = statistics.log_odds(65 + 3) - statistics.log_odds(60 + 3) + statistics.log_odds(65 + 6) - statistics.log_odds(66)
    by_seed = [  # of the reference, on two and three only
        sum(statistics.log_odds(65 + s + p) - statistics.log_odds(60 + s + p) for p in (3, 6)) / 2 for s in range(3)
    ]
    assert by_seed[0] == pytest.approx(same / 2)
    assert row["reference_mean"] == pytest.approx(sum(by_seed) / 3)
    change = statistics.interval([one - two for one, two in zip(expected, by_seed, strict=True)])
    assert (row["change_mean"], row["change_half_width"]) == pytest.approx(change[:2])
    assert row["changed"]
    assert not found.loc["episodes_top1", "look"].changed  # the same accuracies as the reference
    assert found.loc["linear_top1", "trex"].verdict == "undecided"
    assert found.loc["linear_top1", "random"].verdict == "worse"


def test_changes_are_those_whose_gain_is_another():
    table = report.changes(report.conclusions(frame()))
    found = [(row.Protocol, row.Method, row.Conclusion) for _, row in table.iterrows()]
    small = "L-BFGS, 30 trials (t-ReX, small)"
    assert (small, "LOOK", "worse, not better") in found
    assert (small, "random weights", "better, not worse") in found
    assert not [row for row in found if row[0] == "5-way 5-shot"]
    one = report.conclusions(frame(seeds=1))
    assert set(one.verdict) == {"undecided"}  # one seed decides nothing
    assert one.half_width.isna().all() and not one.changed.any()
    assert report.changes(one).empty


def test_score_of_trex_takes_each_set_by_its_own_protocol():
    large = pd.DataFrame(
        [rows(method, seed, "one", "trex_large_top1", 30.0 + seed) for method in ("sl", "look") for seed in (0, 1)]
    )
    found = report.trex_score(pd.concat([frame(), large], ignore_index=True))
    score = report.by_protocol(found, how="log_odds")
    value = score[(score.measure == "trex_top1_log_odds") & (score.method == "look") & (score.seed == 1)].value.item()
    assert value == pytest.approx(sum(statistics.log_odds(v) for v in (31.0, 60 - 5 + 1 + 3, 60 - 5 + 1 + 6)) / 3)
    assert score[(score.measure == "trex_top1_log_odds") & (score.method == "trex")].empty  # it lacks the large set


def test_rivals_are_paired_over_seeds():
    found = []
    for seed in range(3):
        for dataset in ("one", "two"):
            for name, better, seconds in (("memory", 2 + seed, 7.0), ("linear", 0, 3.0)):
                found.append(rows("sl", seed, dataset, f"{name}_fine_tune_top1", 60 + 5 * seed + better))
                found.append(rows("sl", seed, dataset, f"{name}_fine_tune_seconds", seconds))
    table = report.rivals(pd.DataFrame(found))
    assert len(table) == 1 and table.Encoder.item() == "trained along"
    assert table["Memory − linear"].item() == "+3.0 ± 2.5 (n = 3)"  # 2, 3, 4
    assert table["Memory (s)"].item() == "14.0 ± 0.0 (n = 3)"  # of both data sets


def test_a_set_that_a_method_lacks_leaves_it_without_a_verdict():
    lacking = frame()
    lacking = lacking[~((lacking.method == "trex") & (lacking.dataset == "two"))]
    found = report.conclusions(lacking).set_index(["measure", "method"])
    assert found.loc["linear_top1", "trex"].verdict == "not run"
    assert math.isnan(found.loc["linear_top1", "trex"]["mean"])


def test_figure_has_a_row_for_each_protocol_and_no_random_weights():
    found = report.conclusions(frame())
    figure, data = report.protocols(found)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["Linear probe", "5-way 5-shot", "4 images per class", "L-BFGS, 30 trials (t-ReX, small)"]
    assert set(data.method) == {"look", "trex"}
    assert "log-odds" in figure.axes[0].get_xlabel()
    assert "n = 3" in figure.get_supxlabel()
    figure, data = report.protocols(found.iloc[:0])
    assert data.empty


def test_reading_names_every_protocol_once():
    lines = report.reading(report.conclusions(frame())).splitlines()
    assert [line.split(" against")[0] for line in lines] == ["random weights", "LOOK", "t-ReX"]
    assert lines[1] == (
        "LOOK against SL: better by 3 (Linear probe; 5-way 5-shot; 4 images per class), "
        "worse by 1 (L-BFGS, 30 trials (t-ReX, small))"
    )
    assert lines[2].startswith("t-ReX against SL: undecided by 4 (")


def test_where_the_reference_has_no_verdict_nothing_changes():
    boxes = [
        rows(method, seed, "scenes", "detection_ap", 40 + better + seed)
        for seed in range(3)
        for method, better in (("sl", 0), ("look", 9))
    ]
    found = report.conclusions(pd.concat([frame(), pd.DataFrame(boxes)], ignore_index=True))
    row = found.set_index(["measure", "method"]).loc["detection_ap", "look"]
    assert (row["verdict"], row["reference_verdict"]) == ("better", "not run")
    assert not row["changed"]


def test_protocols_are_described_with_their_sets():
    rows = frame(1).assign(protocol=lambda table: table.measure.str.split("_").str[0])
    lines = report.carried_out(rows)
    assert lines == [
        "linear: on one, two, three",
        "episodes: on one, two, three",
        "per: on one, two, three",
        "trex: on two, three",
    ]


def test_share_of_changed_comparisons_counts_the_table():
    found = report.conclusions(frame())
    changed, _, compared = report.changed_share(found).partition(" of ")
    assert int(changed) == len(report.changes(found)) > 0
    assert int(compared) == 3 * 3  # three protocols beside the reference, three methods beside SL
    assert report.changed_share(report.conclusions(frame(0).reindex(columns=list(frame(1))))) == "0 of 0"


def test_seconds_are_those_of_timed_parts():
    found = report.protocol_seconds(frame())
    assert found.values.tolist() == [["linear_seconds", 3.0]]
