"""What a method is worth and costs, equal compute, and the measure suite's rows, on constructed results."""

import pandas as pd
import pytest

from studylib import report
from studylib.report import statistics, suite

PASSES = {"sl": (1.0, 0.0), "trex": (1.5, 0.5)}


def row(method, seed, measure, value, epoch=4, dataset="glyphs", layer="stage5", split="test", protocol="p", variant=""):
    about = {"scale": "test", "method": method, "variant": variant or method, "run": f"{method}{variant}{seed}", "seed": seed}
    about |= {"epoch": epoch, "dataset": dataset, "layer": layer, "split": split, "protocol": protocol}
    return about | {"measure": measure, "value": value}


def frame(seeds=2) -> pd.DataFrame:
    """t-ReX costs twice as much as SL; accuracies grow by 10 an epoch."""
    rows = []
    for method, (with_gradient, without) in PASSES.items():
        for seed in range(seeds):
            for epoch in (1, 2, 4):
                for place, dataset in enumerate(("glyphs", "greek", "digits")):
                    rows.append(row(method, seed, "linear_top1", 10.0 * epoch + seed - place, epoch, dataset))
                rows.append(row(method, seed, "phi", 1.0, epoch, protocol="squared"))
                rows.append(row(method, seed, "phi", 2.0, epoch, protocol="not squared"))
            rows += [row(method, seed, "redundancy", 0.5), row(method, seed, "knn_top1", 70.0)]
            rows.append(row(method, seed, "linear_top1", 99.0, layer="stage4"))
            cost = {"fastest_epoch": 3.0, "passes": with_gradient, "passes_without_gradient": without}
            rows += [row(method, seed, name, value, layer="", split="train") for name, value in cost.items()]
    return pd.DataFrame(rows)


def test_overview_has_one_row_of_each_measure_in_the_order_of_the_table():
    found = report.overview(frame(), "glyphs", ["greek", "digits"])
    order = ["knn_top1", "linear_top1", "linear_top1_log_odds", "phi", "redundancy"]
    assert list(dict.fromkeys(found.measure)) == [*order, "fastest_epoch", "passes", "passes_without_gradient"]
    assert not found.duplicated(["method", "seed", "measure"]).any()
    assert set(found.epoch) == {4}
    assert set(found[found.measure == "phi"].value) == {1.0}
    one = found[(found.method == "trex") & (found.seed == 1)].set_index("measure").value
    assert one["linear_top1"] == 41.0
    assert one["linear_top1_log_odds"] == pytest.approx((statistics.log_odds(40.0) + statistics.log_odds(39.0)) / 2)


def test_equal_compute_ends_with_the_cheapest_method():
    rows = frame()
    moments = rows[(rows.measure == "linear_top1") & (rows.dataset == "greek")]
    spent = report.by_passes(moments, rows)
    assert sorted(set(spent[spent.method == "trex"].epoch)) == [2.0, 4.0, 8.0]
    assert sorted(set(spent[spent.method == "sl"].epoch)) == [1.0, 2.0, 4.0]
    found = report.equal_compute(moments, spent)
    values = found[found.seed == 0].set_index(["method", "when"]).value
    assert values["sl", "equal epochs"] == values["trex", "equal epochs"] == 39.0
    assert values["sl", "equal compute (at most 4 passes)"] == 39.0
    assert values["trex", "equal compute (at most 4 passes)"] == 19.0  # after two epochs
    assert len(found) == 2 * 2 * 2


def test_held_out_rows_are_there_once():
    clusters = "k-means in each class, as many clusters as it has of case"
    rows = pd.DataFrame([row("sl", 0, "modes_nmi", 0.5, protocol=clusters), row("sl", 0, "phi", 0.1, split="train")])
    found = suite.held_out(pd.concat([rows, rows.assign(value=0.7)]))
    assert found[["measure", "protocol", "value"]].values.tolist() == [["modes_nmi", "inside classes: case", 0.5]]


def test_measures_of_the_suite_are_named_once():
    rows = pd.DataFrame([row("sl", 0, name, 0.5) for name in ("modes_ari", "phi", "modes_nmi", "linear_top1")])
    names = suite.measures(rows)
    assert len(names) == len(set(names))
    assert names[-2:] == ["modes_ari", "modes_nmi"]
    assert set(suite.FIGURE) < set(names) and "linear_top1" not in names


def test_phi_and_transfer_are_of_one_set_and_kind_each():
    rows = pd.concat([frame(), pd.DataFrame([row("trex", 0, "phi", 9.5, protocol="squared", variant="depth 1")])])
    found = suite.phi_and_transfer(rows, "glyphs", "greek")
    assert not found.duplicated(["method", "seed", "epoch", "measure"]).any()
    assert set(found.dataset[found.measure == "phi"]) == {"glyphs"}
    assert set(found.dataset[found.measure == "linear_top1"]) == {"greek"}
    assert len(found) == 2 * 2 * 2 * 3 and 9.5 not in set(found.value)
