"""Figures over layers and over ranks, drawn from constructed rows."""

import numpy as np
import pandas as pd
import pytest

from studylib import report
from studylib.errors import InputError
from studylib.report.figures import _render

pytestmark = pytest.mark.slow


def row(method, seed, layer, measure, value, protocol="p", epoch=4, dataset="glyphs"):
    about = {"scale": "test", "method": method, "variant": method, "run": f"{method}{seed}", "seed": seed, "epoch": epoch}
    return (
        about
        | {"dataset": dataset, "layer": layer, "split": "test", "protocol": protocol}
        | {"measure": measure, "value": value}
    )


def frame(seeds=3):
    layers = {"sl": ["stage1", "stage5"], "sl_mlp": ["stage5", "projector1", "projector"]}
    rows = [
        row(method, seed, layer, measure, place + seed, epoch=epoch)
        for method, own in layers.items()
        for seed in range(seeds)
        for place, layer in enumerate(own)
        for measure in ("phi", "redundancy")
        for epoch in (1, 4)
    ]
    for method in layers:
        for seed in range(seeds):
            for rank, value in ((8, 0.0), (1, 1.0), (2, 0.5 + 0.1 * seed), (4, 0.01 * (1 + 9 * seed))):
                rows.append(row(method, seed, "stage5", "singular_value", value, f"centred, rank {rank} of 8"))
    return pd.DataFrame(rows, columns=list(row("sl", 0, "stage1", "phi", 0.0)))


@pytest.mark.parametrize("seeds", [1, 3])
def test_layers_are_in_the_order_of_the_forward_pass(seeds):
    figure, data = report.over_layers(frame(seeds), measures=("phi", "redundancy", "sparsity"))
    found = data[data["measure"] == "phi"].set_index(["method", "layer"])["mean"]
    assert found["sl_mlp", "projector"] == pytest.approx(2 + (seeds - 1) / 2)  # at the end, over seeds
    assert len(data) == 2 * 5
    first, _, empty = figure.axes
    assert [text.get_text() for text in first.get_xticklabels()] == ["1", "5", "h1", "out"]
    lines = {tuple(np.round(line.get_xdata()).tolist()) for line in first.lines if len(line.get_xdata()) > 1}
    assert {(0, 1), (1, 2, 3)} <= lines
    assert [text.get_text() for text in empty.texts] == ["no results"]
    assert _render(figure, "png")


def test_one_data_set_at_a_time():
    twice = pd.concat([frame(1), frame(1).assign(dataset="digits")])
    with pytest.raises(InputError, match="values that would be mixed"):
        report.over_layers(twice, measures=("phi",))
    with pytest.raises(InputError, match="values that would be mixed"):
        report.spectrum(twice)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_spectrum_is_drawn_by_rank(seeds):
    figure, data = report.spectrum(frame(seeds), layers=("stage5", "projector"))
    found = data.set_index(["method", "rank"])["mean"]
    assert found["sl", 2] == pytest.approx(0.5 + 0.1 * (seeds - 1) / 2) and found["sl", 8] == 0
    panel, empty = figure.axes
    assert panel.get_yscale() == panel.get_xscale() == "log"
    assert [line.get_xdata().tolist() for line in panel.lines] == [[1, 2, 4]] * 2  # in order, and without the 0
    assert [text.get_text() for text in empty.texts] == ["no results"]
    assert _render(figure, "png")
    assert panel.get_ylim()[0] > 1e-4


def test_nothing_is_shown_as_nothing():
    for figure, data in (report.spectrum(frame()[:0]), report.over_layers(frame()[:0], measures=("phi",))):
        assert data.empty and _render(figure, "png")
        assert "no results" in [text.get_text() for text in figure.axes[0].texts]
