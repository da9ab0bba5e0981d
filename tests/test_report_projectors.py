"""Projector ablations: both sides of the transfer, depth and on/off figures, by hand."""

import math

import pandas as pd
import pytest

from studylib import report

pytestmark = pytest.mark.slow

SETS = ["greek", "digits"]


def runs(variants: dict[str, tuple[str, float]], seeds=3, epochs=(2, 4)) -> pd.DataFrame:
    """variant -> (method, base): linear accuracy base + seed upstream, less 20 (greek), 30 (digits); half of it at epoch 2."""
    rows = []
    for variant, (method, base) in variants.items():
        for seed in range(seeds):
            for epoch in epochs:
                for dataset, less in (("glyphs", 0), ("greek", 20), ("digits", 30)):
                    value = (base + seed - less) * epoch / max(epochs)
                    row = {"scale": "quick", "method": method, "variant": variant, "run": f"{variant}-{seed}", "seed": seed}
                    row |= {"epoch": epoch, "dataset": dataset, "layer": "stage5", "protocol": "a probe"}
                    rows += [row | {"split": "test", "measure": "linear_top1", "value": value}]
                    rows += [row | {"split": "train", "measure": "phi", "value": 1.0}]
                rows += [row | {"split": "test", "dataset": "glyphs", "measure": "monitor_knn_top1", "value": base - seed}]
    columns = [
        "scale",
        "method",
        "variant",
        "run",
        "seed",
        "epoch",
        "dataset",
        "layer",
        "split",
        "protocol",
        "measure",
        "value",
    ]
    return pd.DataFrame(rows, columns=columns)


DEPTHS = {"depth 0": ("trex", 60.0), "depth 1": ("trex", 70.0), "depth 3": ("trex", 72.0)}
ON_OFF = {"sl off": ("sl", 60.0), "sl on": ("sl_mlp", 64.0), "byol off": ("byol", 55.0)}


def drawn(figure) -> bytes:
    """The figure goes through layout and rendering."""
    from studylib.report.figures import _render

    return _render(figure, "png")


def test_both_sides_by_hand():
    sides = report.both_sides(runs(DEPTHS), "glyphs", SETS)
    assert set(sides["epoch"]) == {4} and set(sides["split"]) == {"test"}
    one = sides[(sides["variant"] == "depth 1") & (sides["seed"] == 2)].set_index("measure")["value"]
    assert one["linear_top1"] == 72.0
    assert one["linear_top1_log_odds"] == pytest.approx((math.log(52 / 48) + math.log(42 / 58)) / 2)
    assert len(sides) == 3 * 3 * 2


def test_both_sides_as_means():
    sides = report.both_sides(runs(DEPTHS), "glyphs", SETS, measures=("monitor_knn_top1",), how="mean")
    one = sides[(sides["variant"] == "depth 0") & (sides["seed"] == 1)].set_index("measure")["value"]
    assert one.to_dict() == {"monitor_knn_top1": 59.0, "linear_top1": 36.0}


def test_both_sides_names_a_single_set():
    sides = report.both_sides(runs(DEPTHS), "glyphs", ["greek"])
    assert set(sides["dataset"]) == {"glyphs", "greek"}


@pytest.mark.parametrize("frame", [runs(DEPTHS, seeds=0), runs(ON_OFF)[:0]], ids=["no seeds", "no rows"])
def test_nothing_is_shown_as_nothing(frame):
    sides = report.both_sides(frame, "glyphs", SETS)
    assert sides.empty
    for draw in (report.depth, report.with_and_without):
        figure, data = draw(sides, measures=("linear_top1", "linear_top1_log_odds"))
        assert data.empty
        assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["no results"] * 2
        assert drawn(figure)


@pytest.mark.parametrize("seeds", [1, 3])
def test_depth(seeds):
    sides = report.both_sides(runs(DEPTHS | {"base": ("trex", 1.0)}, seeds=seeds), "glyphs", SETS)
    figure, data = report.depth(sides, measures=("linear_top1", "linear_top1_log_odds"))
    own = data[data["measure"] == "linear_top1"]
    assert own["hidden_layers"].tolist() == [0, 1, 3]
    assert own["mean"].tolist() == [base + (seeds - 1) / 2 for base in (60, 70, 72)]
    assert set(data["n"]) == {seeds}
    assert [axes.get_title() for axes in figure.axes] == ["Latin, digits", "mean of 2 sets"]
    assert drawn(figure)


def test_depth_has_a_line_for_each_method_and_a_panel_for_each_set():
    frame = pd.concat([runs(DEPTHS), runs({"depth 2": ("sl_mlp", 50.0)})])
    figure, data = report.depth(frame[frame["measure"] != "phi"], measures=("monitor_knn_top1", "linear_top1"))
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == [
        *["Latin, digits"] * 2,
        "greek",
        "handwritten digits",
    ]
    assert set(data["method"]) == {"trex", "sl_mlp"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SL-MLP", "t-ReX"]
    assert drawn(figure)


@pytest.mark.parametrize("seeds", [1, 3])
def test_with_and_without(seeds):
    sides = report.both_sides(runs(ON_OFF, seeds=seeds), "glyphs", SETS, measures=("monitor_knn_top1",), how="mean")
    figure, data = report.with_and_without(sides, measures=("monitor_knn_top1", "linear_top1"))
    found = data[data["measure"] == "linear_top1"].set_index(["base", "projector"])["mean"]
    assert found.to_dict() == {(name, kind): base - 25 + (seeds - 1) / 2 for name, kind, base in BASES}
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["SL", "BYOL"]
    assert drawn(figure)


BASES = [("sl", "off", 60.0), ("sl", "on", 64.0), ("byol", "off", 55.0)]


def test_projector_effect_tells_method_and_projector_apart():
    found = report.projector_effect(runs(ON_OFF | {"depth 1": ("trex", 70.0)}))
    assert set(zip(found.method, found.variant, strict=True)) == {("sl", "without"), ("sl", "with"), ("byol", "without")}
    end = report.select(found, measure="linear_top1", dataset="glyphs", epoch=4)
    gain = report.paired_difference(report.select(end, method="sl"), "linear_top1", "without", "with", column="variant")
    assert gain == (4.0, 0.0, 3)
    assert report.projector_effect(runs({})).empty


def test_variants_with_titles():
    figure, _ = report.variants(runs(DEPTHS), measures=("monitor_knn_top1",), titles=("Pre-training classes",))
    assert [axes.get_title() for axes in figure.axes] == ["Pre-training classes"]
    drawn(figure)
