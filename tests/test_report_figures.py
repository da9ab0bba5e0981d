"""What is drawn: hollow markers are published, kinds differ, labels fit, names hide nothing; and the data in lineages."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from studylib import report
from studylib.papers import published
from studylib.report import layout, style
from studylib.report.components import VARIANTS

pytestmark = pytest.mark.slow

ROW = {"scale": "quick", "epoch": 4, "dataset": "digits", "layer": "stage5", "split": "test", "protocol": "a probe"}


def results(rows: list[dict]) -> pd.DataFrame:
    """Three seeds of each row, which scatter around its value."""
    return pd.DataFrame(
        [ROW | row | {"seed": i, "value": row["value"] + 0.1 * i, "run": "x"} for row in rows for i in range(3)]
    )


def of_methods(*measures: str, methods=("sl", "sl_mlp", "trex"), **more) -> pd.DataFrame:
    rows = [
        {"method": name, "variant": name, "measure": measure, "value": 50.0 + 3 * i + j} | more
        for i, name in enumerate(methods)
        for j, measure in enumerate(measures)
    ]
    return results(rows)


def markers(axes) -> list[tuple[str, bool, float, str]]:
    """(marker, hollow, size, colour) of all that is drawn as a marker, without the caps of intervals."""
    lines = [line for line in axes.lines if line.get_marker() not in ("None", "", "|", "_") and len(line.get_xdata())]
    found = [
        (line.get_marker(), to_hex(line.get_markerfacecolor()) == "#ffffff", line.get_markersize(), to_hex(line.get_color()))
        for line in lines
    ]
    for points in axes.collections:
        if len(points.get_offsets()) and hasattr(points, "get_sizes") and len(points.get_sizes()):
            face = points.get_facecolor()
            colour = to_hex((face if len(face) else points.get_edgecolor())[0])
            found.append(("", not len(face) or colour == "#ffffff", float(points.get_sizes()[0]), colour))
    return found


def hollow(axes) -> set[bool]:
    return {is_hollow for _, is_hollow, _, _ in markers(axes)}


# --- encodings --------------------------------------------------------------------------------------------------------


def test_without_projector_is_lighter_and_smaller_not_hollow():
    rows = [
        {"method": name, "variant": f"{name} {part}", "measure": "linear_top1", "value": 50.0 + 9 * i}
        for name in ("sl", "supcon")
        for i, part in enumerate(("off", "on"))
    ]
    figure, _ = report.with_and_without(results(rows), measures=["linear_top1"])
    assert hollow(figure.axes[0]) == {False}
    drawn = {(size, colour) for _, _, size, colour in markers(figure.axes[0])}
    for name in ("sl", "supcon"):
        full = style.look(name).colour
        light = to_hex(style.lighter(full))
        (on,), (off,) = ([size for size, colour in drawn if colour == wanted] for wanted in (full.lower(), light))
        assert off < on
    handles = figure.legends[0].get_lines()
    assert [handle.get_label()[:7] for handle in handles] == ["without", "with pr"]
    assert not any(to_hex(handle.get_markerfacecolor()) == "#ffffff" for handle in handles)
    assert handles[0].get_markersize() < handles[1].get_markersize()
    assert sum(to_rgb(handles[0].get_color())) > sum(to_rgb(handles[1].get_color()))


def judged(**more) -> pd.DataFrame:
    readings = ["supported", "undecided", "contradicted", "not run", "not trained enough", "supported"]
    rows = [
        {"paper": "LOOK", "claim": f"L{1 + i // 2}", "test": 1 + i % 2, "scale": "quick", "reading": reading}
        | {"verdict": readings[i - i % 2]}
        for i, reading in enumerate(readings)
    ]
    fixed = {"estimate": 1.0, "low": 0.5, "high": 1.5, "n": 3, "p_claim": 0.01, "role": ["primary", "secondary"] * 3}
    return pd.DataFrame(rows).assign(**fixed | more)


@pytest.mark.parametrize(("frame", "small"), [(judged(), 3), (judged(role="primary"), 6)], ids=["one decides", "both decide"])
def test_verdicts_are_filled_and_those_on_claims_large(frame, small):
    figure, data = report.verdicts(frame)
    drawn = [mark for axes in figure.axes for mark in markers(axes)]
    assert len(drawn) == 3 + small and len(data) == 6 and not any(is_hollow for _, is_hollow, _, _ in drawn)
    sizes = sorted(size for _, _, size, _ in drawn)
    assert sizes.count(sizes[-1]) == 3 and sizes[0] < sizes[-1] / 2
    assert "hollow" not in figure._supxlabel.get_text()
    large, others = ({colour for *_, size, colour in drawn if (size == sizes[-1]) == big} for big in (True, False))
    assert len(others) == 1 and not others & large  # tests have one colour, which no verdict has
    assert len(large) == 3  # supported, contradicted, not trained enough


def test_published_panels_are_hollow_and_ours_are_not():
    rows = [
        {"method": "sl", "variant": "sl", "measure": "linear_top1", "value": 50.0, "layer": f"stage{i}"} for i in range(1, 6)
    ]
    figure, _ = report.stagewise(results(rows), published=published("sl_mlp", "stagewise"))
    assert [hollow(axes) for axes in figure.axes] == [{False}, {True}]
    rows = [{"method": "sl_mlp", "variant": name, "measure": "linear_top1", "value": 80.0} for name in VARIANTS]
    figure, _ = report.components(results(rows), published=published("sl_mlp", "components"))
    assert [hollow(axes) for axes in figure.axes] == [{False}, {False}, {True}]
    both = of_methods("linear_top1", "linear_top1_log_odds")
    pair = {"upstream": "linear_top1", "transfer": "linear_top1_log_odds"}
    figure, _ = report.frontier(both, **pair, published=published("trex", "frontier"))
    assert [hollow(axes) for axes in figure.axes] == [{False}, {True}]
    figure, _ = report.frontier(both, **pair)
    assert [hollow(axes) for axes in figure.axes] == [{False}]


UPSTREAM_PROBES = {  # linear RGB as seen without one kind of cones (Machado et al., 2009, severity 1)
    "all cones": np.eye(3),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
}


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour, D65."""
    rgb = np.array(to_rgb(colour))
    linear = np.clip(seen @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 0.0089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", UPSTREAM_PROBES)
def test_published_stages_tell_methods_apart(cones):
    methods = published("sl_mlp", "stagewise")["method"].unique()
    for a, b in itertools.combinations([style.look(name) for name in methods], 2):
        distance = np.linalg.norm(lab(a.colour, UPSTREAM_PROBES[cones]) - lab(b.colour, UPSTREAM_PROBES[cones]))
        assert distance > 20 and a.marker != b.marker, (a.label, b.label, distance)


# --- the published frontier -------------------------------------------------------------------------------------------


def test_frontier_beside_the_published_one():
    table = published("trex", "frontier")
    both = of_methods("linear_top1", "linear_top1_log_odds")
    figure, data = report.frontier(both, upstream="linear_top1", transfer="linear_top1_log_odds", published=table)
    axes = figure.axes[1]
    assert "ImageNet-1K" in axes.get_xlabel() and "log-odds" in axes.get_ylabel() and "published" in axes.get_title()
    places = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert places == list(zip(table["upstream"], table["transfer"], strict=True))
    assert sorted(text.get_text() for text in axes.texts) == sorted(set(table["model"]))
    assert {to_hex(axes.lines[i].get_color()) for i in np.flatnonzero(table["method"] == "trex")} == {"#aa3377"}
    theirs = data[data["source"] != "ours"]
    assert set(theirs["source"]) == {"published, digitised"} and len(theirs) == 2 * len(table)
    assert theirs[theirs["method"] == "t-ReX"]["mean"].tolist() == [78.0, 1.357]
    assert theirs[theirs["method"] == "t-ReX"]["measure"].tolist() == [axes.get_xlabel(), axes.get_ylabel()]
    assert set(data[data["source"] == "ours"]["method"]) == {"sl", "sl_mlp", "trex"}


def test_frontier_alone_says_that_all_is_ours():
    figure, data = report.frontier(of_methods("phi", "redundancy"), upstream="phi", transfer="redundancy")
    assert len(figure.axes) == 1 and set(data["source"]) == {"ours"}


def test_published_envelope_is_complete_and_falls():
    table = published("trex", "frontier")
    edge = table[table["model"].str.startswith("unnamed") | table["model"].isin(["t-ReX", "t-ReX*"])].sort_values("upstream")
    assert len(edge) == 6 and edge["transfer"].is_monotonic_decreasing


# --- labels and names -------------------------------------------------------------------------------------------------


def boxes(figure, texts) -> list:
    figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts]


@pytest.mark.parametrize("count", [4, 6])
def test_labels_stay_beside_their_axes(count):
    measures = ("intra_class_distance", "coding_length", "sparsity", "phi", "effective_rank", "redundancy")[:count]
    frame = of_methods(*measures)
    for draw in (report.comparison, report.over_training):
        figure, _ = draw(frame, measures=measures)
        layout.fit(figure)
        figure.draw_without_rendering()
        for axes in figure.axes:
            assert axes.yaxis.label.get_window_extent().height <= 1.05 * axes.get_window_extent().height, axes.get_ylabel()


@pytest.mark.parametrize(
    ("label", "broken"),
    [
        ("Intra-class distance, l2-normalised", "Intra-class distance,\nl2-normalised"),
        ("Coding length (nats per image)", "Coding length\n(nats per image)"),
        (r"Discriminative ratio $\phi$", "Discriminative\nratio $\\phi$"),
        ("Ours\nLinear probe, top-1 (%)", "Ours\nLinear probe, top-1 (%)"),
        ("Sparsity", "Sparsity"),
    ],
)
def test_in_two(label, broken):
    assert layout.in_two(label) == broken


@pytest.mark.parametrize(("datasets", "turned"), [(("glyphs", "glyphs_greek"), 0), (tuple(style.DATASETS)[:9], 30)])
def test_names_of_data_sets_are_turned_only_if_they_meet(datasets, turned):
    frame = pd.concat([of_methods("phi", "redundancy", "sparsity", dataset=name) for name in datasets])
    figure, _ = report.comparison(frame, measures=("phi", "redundancy", "sparsity"))
    layout.fit(figure)
    assert {label.get_rotation() for axes in figure.axes for label in axes.get_xticklabels()} == {turned}


def along(epochs: dict[int, tuple[float, float]]) -> pd.DataFrame:
    rows = [
        {"method": "sl", "variant": "sl", "epoch": epoch, "measure": name, "value": value}
        for epoch, pair in epochs.items()
        for name, value in zip(("phi", "linear_top1"), pair, strict=True)
    ]
    return results(rows).query("seed == 0")


def test_epochs_are_not_written_on_each_other():
    figure, data = report.trajectory(
        along({0: (0.1, 5), 4: (2, 60), 8: (4, 80), 10: (4.02, 80.5), 12: (6, 90)}), "phi", "linear_top1"
    )
    texts = figure.axes[0].texts
    assert sorted(int(text.get_text()) for text in texts) == [0, 4, 10, 12] and len(data) == 5
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes(figure, texts), 2))


def test_names_of_variants_hide_no_marker():
    rows = []
    for i, (method, variant) in enumerate([("trex", "depth 1"), ("trex", "trex"), ("sl", "sl"), ("look", "look")]):
        about = {"method": method, "variant": variant}
        rows += [about | {"measure": "phi", "value": 2 + 0.01 * i}, about | {"measure": "linear_top1", "value": 80 + 0.1 * i}]
    rows += [{"method": "dino", "variant": "dino", "measure": name, "value": 0.1} for name in ("phi", "linear_top1")]
    figure, _ = report.scatter(results(rows), ["phi"], "linear_top1")
    (axes,) = figure.axes
    (name,) = [text for text in axes.texts if text.get_text() == "depth 1"]
    name.arrow_patch = None  # the line to its point is no part of the text
    (box,) = boxes(figure, [name])
    places = [place for line in axes.lines for place in axes.transData.transform(line.get_xydata())]
    assert not any(box.contains(*place) for place in places)


# --- lineage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch, tmp_path):
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "runs"))

    def start(name: str, data: str, checksum: str) -> None:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"data": data}))
        (folder / "record.json").write_text(json.dumps([{"data_sha256": checksum}, {"data_sha256": "of a later session"}]))

    return start


def test_lineage_names_the_data_of_its_runs(runs):
    runs("sl-0", "glyphs", "aaa")
    runs("sl-1", "glyphs", "aaa")
    runs("look-0", "cifar100", "ccc")
    made = report.lineage(["sl-0", "sl-1", "look-0", "file:resnet", "never-started"], "x", {}, {"digits": "ddd"})
    assert made["data"] == {"cifar100": "ccc", "digits": "ddd", "glyphs": "aaa"} and list(made["data"]) == sorted(made["data"])


def test_files_name_the_data_of_runs_that_began_after_the_lineage(runs, tmp_path):
    """A notebook makes its lineage first, and then its runs."""
    made = report.lineage(["sl-0"], "x", {})
    assert made["data"] == {}
    runs("sl-0", "glyphs", "aaa")
    frame = pd.DataFrame({"a": ["1"]})
    for folder in ("one", "two"):
        figure, data = report.comparison(of_methods("phi"), measures=("phi",))
        report.save(figure, "figure", data, folder=tmp_path / folder, lineage=made)
        report.write_table(frame, "table", folder=tmp_path / folder, caption="", lineage=made)
    for name in ("figure.json", "table.json"):
        content = (tmp_path / "one" / name).read_text()
        assert json.loads(content)["data"] == {"glyphs": "aaa"} and content == (tmp_path / "two" / name).read_text()
    assert made["data"] == {}


def test_lineage_shows_runs_that_were_not_trained_on_the_same_images(runs):
    runs("sl-0", "glyphs", "bbb")
    runs("sl-1", "glyphs", "aaa")
    assert report.lineage(["sl-0", "sl-1"], "x", {})["data"] == {"glyphs": "aaa, bbb"}
