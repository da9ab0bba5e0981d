"""Statistics by hand, figures on constructed results, files that are stable and name no machine."""

import getpass
import json
import math
import re
import socket
import zlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studylib import paths, report
from studylib.errors import InputError
from studylib.papers import published
from studylib.report import statistics, style, tables
from studylib.report.components import VARIANTS

pytestmark = pytest.mark.slow

METHODS = ("sl", "sl_mlp")
SETS = ("glyphs", "glyphs_greek", "digits")


def results(methods=METHODS, seeds=3, datasets=SETS, epochs=(0, 1, 4)) -> pd.DataFrame:
    """A results table in which every value can be told apart."""
    random, rows = np.random.default_rng(0), []
    for i, method in enumerate(methods):
        for seed in range(seeds):
            base = {"scale": "quick", "method": method, "variant": method, "run": f"{method}-{seed}", "seed": seed}
            for dataset, epoch, stage in ((d, e, s) for d in datasets for e in epochs for s in range(1, 6)):
                place = {"epoch": epoch, "dataset": dataset, "layer": f"stage{stage}", "split": "test"}
                values = {"linear_top1": 50 + 3 * i + 4 * stage + epoch, "phi": 2 - 0.1 * i, "redundancy": 0.2 + 0.01 * i}
                for measure, value in values.items():
                    row = {"protocol": f"of {measure}", "measure": measure, "value": value * random.uniform(0.98, 1.02)}
                    rows.append(base | place | row)
    return pd.DataFrame(rows)


def ablation(seeds=3, without=()) -> pd.DataFrame:
    parts = [name for name in VARIANTS if name not in without]
    return pd.DataFrame(
        [
            {"method": "sl_mlp", "variant": name, "seed": seed, "epoch": 4, "dataset": "digits", "layer": "stage5"}
            | {"measure": "linear_top1", "value": 80 + i + 0.3 * seed}
            for i, name in enumerate(parts)
            for seed in range(seeds)
        ],
        columns=["method", "variant", "seed", "epoch", "dataset", "layer", "measure", "value"],
    )


# --- statistics -------------------------------------------------------------------------------------------------------


def test_interval_by_hand():
    # sd = 1, sqrt(3) = 1.7320508, t(0.975, 2) = 4.3026527
    assert report.interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.3026527 / 1.7320508, 3), rel=1e-7)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_interval_agrees_with_scipy(level):
    values = np.random.default_rng(1).normal(size=7)
    mean, half, n = report.interval(values, level)
    low, high = stats.t.interval(level, 6, loc=values.mean(), scale=stats.sem(values))
    assert (mean - half, mean + half, n) == pytest.approx((low, high, 7), rel=1e-12)


@pytest.mark.parametrize(
    ("measure", "values"),
    [
        ("linear_top1", (97.0, 99.9)),
        ("linear_top1", (100.0, 100.0, 99.0)),
        ("linear_top1", (*[100.0] * 7, 20.0)),
        ("phi", (0.02, 0.4)),
        ("phi", (*[1.0] * 11, 100.0)),
        ("redundancy", (0.01, 0.3, 0.01)),
        ("sparsity", (0.0, 0.0001, 0.0)),
    ],
)
def test_limits_stay_within_what_a_measure_can_be_and_hold_the_mean(measure, values):
    mean, half, n = statistics.interval(values)
    least, most = style.bounds(measure)
    assert mean - half < least or mean + half > most  # the plain interval does not
    low, high = statistics.limits(mean, half, n, measure)
    assert least <= low < mean < high <= most and (n == 2 or (least < low and high < most))


def test_limits_by_hand():
    values = [80.0, 90.0, 95.0]
    mean, half, n = statistics.interval(values)
    share, reach = mean / 100, half / 100
    odds, reach = math.log(share / (1 - share)), reach / (share * (1 - share))
    expected = [100 / (1 + math.exp(-end)) for end in (odds - reach, odds + reach)]
    assert statistics.limits(mean, half, n, "linear_top1") == pytest.approx(expected)
    assert statistics.limits(2.0, 1.0, 3, "phi") == pytest.approx((2 * math.exp(-0.5), 2 * math.exp(0.5)))
    assert statistics.limits(1.0, 3.0, 3, "linear_top1_log_odds") == (-2.0, 4.0)
    for exact in (0.0, 100.0):
        assert statistics.limits(exact, 0.0, 3, "linear_top1") == (exact, exact)
    assert statistics.limits(0.0, 0.0, 3, "phi") == (0.0, 0.0)
    assert all(map(math.isnan, statistics.limits(*statistics.interval([1.0]), "phi")))
    assert all(map(math.isnan, statistics.limits(*statistics.interval([]), "linear_top1")))


def test_a_cell_shows_limits_where_the_plain_interval_leaves_them():
    rows = [{"method": "sl", "seed": seed, "measure": "linear_top1", "dataset": "digits", "value": value}
            for seed, value in enumerate((97.0, 99.9))]  # fmt: skip
    (cell,) = tables.summary(pd.DataFrame(rows))["SL"]
    assert cell == "98.5 [80.0, 100.0] (n = 2)"


def test_a_set_of_that_name_with_other_images_has_no_floor(monkeypatch, tmp_path):
    monkeypatch.setenv("STUDYLIB_DATA", str(tmp_path))
    for count, floor in ((1000, 50.2), (50000, math.nan)):
        (tmp_path / "cifar10.npz").touch()
        (tmp_path / "cifar10.json").write_text(json.dumps({"classes": ["a"], "sha256_npz": "0", "n_train": count}))
        tables.floor.cache_clear()
        assert tables.floor("cifar10") == pytest.approx(floor, nan_ok=True)
    tables.floor.cache_clear()


def test_what_is_below_the_floor_of_a_real_set_is_marked():
    rows = [{"method": method, "seed": 0, "measure": "linear_top1", "dataset": name, "value": value}
            for name in ("rsscn7", "digits") for method, value in (("sl", 69.1), ("sl_mlp", 69.3))]  # fmt: skip
    table = tables.summary(pd.DataFrame(rows))
    assert table.to_numpy().tolist() == [
        ["RSSCN7", "69.1 (n = 1) ↓", "69.3 (n = 1)", "69.2"],
        ["handwritten digits", "69.1 (n = 1)", "69.3 (n = 1)", "·"],
    ]
    assert tables.FLOOR not in tables.summary(pd.DataFrame(rows[2:]))
    assert r"69.1 (n = 1) $\downarrow$" in tables.latex(table, "x", "y") and "---: |" in tables.markdown(table)


def test_interval_of_few_and_missing():
    mean, half, n = report.interval([math.nan, 5.0])
    assert (mean, n) == (5.0, 1) and math.isnan(half)
    mean, half, n = report.interval([math.nan])
    assert n == 0 and math.isnan(mean) and math.isnan(half)
    assert report.interval([1.0, math.nan, 3.0])[::2] == (2.0, 2)


def frame_of(values: dict[str, dict[int, float]], measure="phi") -> pd.DataFrame:
    rows = [{"method": m, "seed": s, "measure": measure, "value": v} for m, by in values.items() for s, v in by.items()]
    return pd.DataFrame(rows)


def test_paired_difference_by_hand():
    frame = frame_of({"sl": {0: 1.0, 1: 5.0, 2: 3.0, 7: 100.0}, "sl_mlp": {2: 6.0, 1: 7.0, 0: 2.0, 9: 0.0}})
    # pairs: 1, 2, 3; what only one has is left out
    assert report.paired_difference(frame, "phi", "sl", "sl_mlp") == pytest.approx((2.0, 2.4841377, 3), rel=1e-7)
    assert report.paired_difference(frame, "phi", "sl_mlp", "sl")[0] == pytest.approx(-2.0)


def test_paired_difference_of_nothing():
    frame = frame_of({"sl": {0: 1.0}})
    assert report.paired_difference(frame, "phi", "sl", "sl_mlp")[2] == 0
    assert report.paired_difference(frame, "redundancy", "sl", "sl_mlp")[2] == 0


def test_mixed_rows_are_refused_and_named():
    frame = results()
    with pytest.raises(InputError, match=r"mixed \(epoch: 0, 1, 4; layer: stage1"):
        report.paired_difference(report.select(frame, dataset="digits"), "phi", "sl", "sl_mlp")
    with pytest.raises(InputError, match="select one kind"):
        report.transfer(pd.concat([frame, frame.assign(protocol="another")]))


@pytest.mark.parametrize(
    ("difference", "direction", "expected"),
    [
        ((2.0, 1.0, 3), "higher", "supported"),
        ((2.0, 1.0, 3), "lower", "contradicted"),
        ((-2.0, 1.0, 3), "lower", "supported"),
        ((-2.0, 1.0, 3), "higher", "contradicted"),
        ((1.0, 2.0, 3), "higher", "undecided"),
        ((1.0, 1.0, 3), "higher", "undecided"),
        ((0.0, 0.0, 3), "higher", "undecided"),
        ((5.0, math.nan, 1), "higher", "undecided"),
        ((math.nan, math.nan, 0), "higher", "not run"),
    ],
)
def test_verdict(difference, direction, expected):
    assert report.verdict(*difference, direction) == expected


def test_verdict_refuses_another_direction():
    with pytest.raises(InputError, match="did you mean 'higher'"):
        report.verdict(1.0, 0.1, 3, "highr")


def test_log_odds():
    assert report.log_odds(50.0) == pytest.approx(0.0)
    assert report.log_odds(np.array([75.0, 25.0])) == pytest.approx([math.log(3), -math.log(3)])
    assert report.log_odds(100.0) == pytest.approx(math.log(0.9995 / 0.0005)) == -report.log_odds(0.0)


def test_over_datasets_by_hand():
    rows = [
        ("sl", 0, "a", 50.0),
        ("sl", 0, "b", 75.0),
        ("sl", 1, "a", 60.0),
        ("sl_mlp", 0, "a", 75.0),
        ("sl_mlp", 0, "b", 75.0),
    ]
    frame = pd.DataFrame(rows, columns=["method", "seed", "dataset", "value"]).assign(measure="linear_top1")
    odds = report.over_datasets(frame)
    assert odds["value"].tolist() == pytest.approx([math.log(3) / 2, math.log(3)])  # seed 1 lacks b: it has no mean
    assert set(odds["measure"]) == {"linear_top1_log_odds"} and set(odds["dataset"]) == {"mean of 2 sets"}
    assert report.over_datasets(frame, how="mean")["value"].tolist() == pytest.approx([62.5, 75.0])
    assert len(report.over_datasets(frame, ["a"], how="mean")) == 3
    assert report.over_datasets(frame, ["a", "b", "c"]).empty


def test_at_end_keeps_the_last_epoch_of_each_method():
    rows = [("sl", 0, 4), ("sl", 0, 10), ("sl", 1, 4), ("look", 0, 20)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "epoch"]).assign(variant="x")
    assert report.at_end(frame).values.tolist() == [["sl", 0, 10, "x"], ["look", 0, 20, "x"]]  # seed 1 is not there yet


def test_select_refuses_unknown_columns():
    with pytest.raises(InputError, match="did you mean 'dataset'"):
        report.select(results(), datasets="digits")
    assert set(report.select(results(), dataset=["digits", "nothing"])["dataset"]) == {"digits"}


# --- figures ----------------------------------------------------------------------------------------------------------

CASES = {
    "two methods": results(),
    "one seed": results(seeds=1),
    "one method": results(methods=("look",), seeds=2),
    "all methods": results(methods=tuple(style.METHODS), seeds=1, datasets=("digits",), epochs=(4,)),
    "a method lacks a data set": results().query("not (method == 'sl' and dataset == 'digits')"),
    "nothing": results()[:0],
}


def drawn(figure) -> bytes:
    """The figure goes through layout and rendering."""
    from studylib.report.figures import _render

    return _render(figure, "png")


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return CASES[request.param]


def test_transfer(case):
    groups = {"seen": ["glyphs"], "other": ["glyphs_greek", "digits", "never_run"]}
    figure, data = report.transfer(case, groups=groups)
    end = case[(case["epoch"] == 4) & (case["layer"] == "stage5") & (case["measure"] == "linear_top1")]
    for row in data.itertuples():
        values = end[(end["dataset"] == row.dataset) & (end["method"] == row.method)]["value"]
        assert row.mean == pytest.approx(values.mean()) and row.n == len(values)
    assert len(data) == len(end.drop_duplicates(["dataset", "method"]))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts.count("no results") == 4 - end["dataset"].nunique()
    assert drawn(figure)


def test_stagewise(case):
    figure, data = report.stagewise(case, published=published("sl_mlp", "stagewise"))
    ours = data[data["source"] == "ours"]
    assert len(data) - len(ours) == 35
    assert sorted(set(ours["stage"])) == ([] if case.empty else [1, 2, 3, 4, 5])
    assert drawn(figure)


def test_stagewise_leaves_a_gap_for_a_missing_stage():
    frame = results(methods=("sl",), datasets=("digits",)).query("layer != 'stage3'")
    figure, data = report.stagewise(frame)
    (line,) = [line for line in figure.axes[0].lines if len(line.get_ydata()) == 5]
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True, False, False]
    assert sorted(data["stage"]) == [1, 2, 4, 5]


def test_over_training(case):
    figure, data = report.over_training(case, measures=("phi", "linear_top1"))
    assert set(data["epoch"]) == set(case["epoch"])
    assert drawn(figure)


def test_comparison(case):
    figure, data = report.comparison(case, measures=("phi", "redundancy", "mixtureness"))
    assert "mixtureness" not in set(data["measure"])
    assert [text.get_text() for text in figure.axes[2].texts] == ["no results"]
    points = data.dropna(subset="seed")
    assert len(points) == len(case.query("epoch == 4 and layer == 'stage5' and measure in ('phi', 'redundancy')"))
    assert drawn(figure)


@pytest.mark.parametrize(
    "frame", [ablation(), ablation(seeds=1, without=["relu"]), ablation(seeds=0)], ids=["all", "one", "none"]
)
def test_components(frame):
    figure, data = report.components(frame, published=published("sl_mlp", "components"), same={"relu": "none"})
    ours = data[data["source"] == "ours"].set_index("variant")
    assert len(data) - len(ours) == 8
    assert len(ours) == (8 if len(frame) else 0)
    if len(frame):
        assert ours.loc["relu", "mean"] == ours.loc["none", "mean"] and ours.loc["relu", "equals"] == "none"
    assert [text.get_text() for text in figure.axes[1].texts].count("not run") == 8 - len(ours)
    assert drawn(figure)


@pytest.mark.parametrize(
    ("variant", "label"),
    [
        ("sl_mlp resnet18", "SL-MLP ResNet-18"),
        ("moco_v2 off", "MoCo v2, no projector"),
        ("sl on", "SL, projector"),
        ("trex, crops of trex_star", "t-ReX, crops of t-ReX*"),
        ("linear+bn", "linear+bn"),
        ("depth 3", "depth 3"),
        ("random start, dropped tail", "random start, dropped tail"),
    ],
)
def test_variants_have_names_for_readers(variant, label):
    assert style.variant_label(variant) == label


@pytest.mark.parametrize(
    "frame", [ablation(), ablation(seeds=1, without=["relu"]), ablation(seeds=0)], ids=["all", "one", "none"]
)
def test_variants(frame):
    figure, data = report.variants(frame, measures=("linear_top1", "knn_top1"), order=VARIANTS)
    assert list(data["variant"]) == [name for name in VARIANTS if name in set(frame["variant"])]
    for row in data.itertuples():
        values = frame[frame["variant"] == row.variant]["value"]
        assert row.mean == pytest.approx(values.mean()) and row.n == len(values)
    assert [text.get_text() for text in figure.axes[0].texts].count("not run") == 8 - len(data)
    assert [text.get_text() for text in figure.axes[1].texts].count("not run") == 8
    assert drawn(figure)


def test_frontier(case):
    """φ and R of one data set as x and y; a method that lacks one of them is named, not drawn."""
    frame = case[case["dataset"] == "digits"]
    lacking = set(frame["method"][:1])
    frame = frame[~(frame["method"].isin(lacking) & (frame["measure"] == "redundancy"))].query("layer == 'stage5'")
    figure, data = report.frontier(frame, upstream="phi", transfer="redundancy")
    end = statistics.at_end(frame)
    for row in data.itertuples():
        values = end[(end["method"] == row.method) & (end["measure"] == row.measure)]["value"]
        assert row.mean == pytest.approx(values.mean()) and row.n == len(values)
    drawn_methods = set(data[data["measure"] == "redundancy"]["method"])
    assert len(figure.axes[0].containers) == 2 * len(drawn_methods)
    assert ("without results" in figure._supxlabel.get_text()) == bool(lacking)
    assert drawn(figure)


def test_learning_is_paired_over_seeds_and_random_weights_are_the_first_epoch():
    rows = []
    for method, base in (("sl", 80.0), ("look", 72.0), ("simclr", 10.0)):
        for seed in range(3):
            run = {"method": method, "variant": method, "seed": seed, "dataset": "x", "layer": "stage5"}
            rows.append(run | {"epoch": 4, "measure": "knn_top1", "value": base + seed})
            rows.append(run | {"epoch": 4, "measure": "linear_top1_log_odds", "value": base / 10 + 0.1 * seed})
            if method == "sl":
                rows.append(run | {"epoch": 0, "measure": "linear_top1_log_odds", "value": 1.0 + 0.1 * seed})
    frame = report.random_start(pd.DataFrame(rows))
    assert frame[frame["epoch"] == 0]["method"].unique().tolist() == ["random"]
    assert len(frame) == len(rows)
    table = report.learning(frame).set_index("Method")
    shares = [(72 + seed) / (80 + seed) for seed in range(3)]
    mean, half, _ = report.interval(shares)
    assert table.loc["LOOK"].iloc[1] == f"{mean:.3f} ± {half:.3f} (n = 3)"
    assert table.loc["LOOK"].iloc[2].startswith("+6.200 ± 0.000")
    assert table.loc["SimCLR", "Labels"] == "no"
    assert table.loc["SimCLR", "Beyond random"] in ("undecided", "no")


def test_methods_that_have_hardly_learned_do_not_stretch_the_axis_of_transfer():
    values = {"sl": (90, 92), "sl_mlp": (85, 93), "look": (80, 94), "dino": (8, 91), "random": (5, 60)}
    rows = [
        {"method": method, "variant": method, "seed": seed, "epoch": 4, "dataset": name, "layer": "stage5"}
        | {"measure": "linear_top1", "value": value + seed}
        for method, of_sets in values.items()
        for name, value in zip(("glyphs_greek", "digits"), of_sets, strict=True)
        for seed in (0, 1)
    ]
    figure, table = report.transfer(pd.DataFrame(rows))
    (axes,) = figure.axes
    assert 60 < axes.get_xlim()[0] < 80
    assert [text.get_text() for text in axes.texts] == ["← random weights 6, DINO 8", "← random weights 60"]
    assert len(table) == 10 and drawn(figure)


def test_embedding_is_deterministic_and_bounded():
    random = np.random.default_rng(0)
    features = {name: random.normal(size=(37, 5)) for name in ("sl_mlp", "sl")}
    labels, hidden = np.arange(37) % 3, np.arange(37) % 2
    keywords = {"hidden": hidden, "hidden_classes": ("lower", "upper"), "perplexity": 5.0}
    figure, data = report.embedding(features, labels, ("a", "b", "c"), **keywords)
    assert [axes.get_title() for axes in figure.axes] == ["SL", "SL-MLP"]
    assert len(data) == 74 and set(data["hidden"]) == {"lower", "upper"}
    pd.testing.assert_frame_equal(data, report.embedding(features, labels, ("a", "b", "c"), **keywords)[1])
    assert drawn(figure)
    with pytest.raises(InputError, match="at most 12"):
        report.embedding(features, labels, [str(i) for i in range(13)])
    with pytest.raises(InputError, match="more than perplexity 40"):
        report.embedding(features, labels, "abc", perplexity=40)


def test_samples_shows_the_first_images_of_each_class():
    images = np.random.default_rng(0).integers(0, 256, size=(11, 3, 8, 8), dtype=np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 4, 0])
    figure, data = report.samples(images, labels, list("abcde"), per_class=3)
    assert data.groupby("class")["row"].apply(list).to_dict() == {"a": [0, 2, 4], "b": [1, 3, 5], "e": [9]}
    sheet = figure.axes[0].images[0].get_array()
    assert (sheet[:8, 10:18] == images[2].transpose(1, 2, 0)).all()
    assert drawn(figure)
    with pytest.raises(InputError, match="uint8"):
        report.samples(images.astype(float), labels, list("abcde"))


def test_a_dollar_sign_in_a_class_is_no_mathematics():
    images, labels = np.zeros((4, 3, 8, 8), dtype=np.uint8), np.array([0, 1, 0, 1])
    figure, data = report.samples(images, labels, [r"$\frac{", "a $5 note"], per_class=1)
    assert drawn(figure) and list(data["class"]) == [r"$\frac{", "a $5 note"]
    features = {"sl": np.random.default_rng(0).normal(size=(12, 3))}
    classes = np.arange(12) % 2
    figure, _ = report.embedding(features, classes, ("$x$", "$"), hidden=classes, hidden_classes=("a$", "b$"), perplexity=3.0)
    assert drawn(figure)
    pictures = np.zeros((12, 3, 8, 8), dtype=np.uint8)
    names = {"hidden": classes, "hidden_classes": ("$a", "$b")}
    assert drawn(report.mode_images(pictures, classes, ("$x$", "$"), features, chosen=("$x$", "$"), **names)[0])


def test_styles_tell_methods_apart():
    looks = list(style.METHODS.values())
    assert len({look.label for look in looks}) == len({look.colour for look in looks}) == len(looks)
    assert style.ordered(["sl_mlp", "random", "sl", "sl"]) == ["random", "sl", "sl_mlp"]
    with pytest.raises(InputError, match="did you mean 'sl_mlp'"):
        report.transfer(results(methods=("sl_mpl",)))
    assert style.dataset_label("cifar100/level2@coarse") == "CIFAR-100 level2 coarse"


# --- files ------------------------------------------------------------------------------------------------------------


def origin(parameters=None):
    frame = results()
    return report.lineage(frame["run"], "notebooks/02_sl_mlp.ipynb", parameters or {"scale": "quick"}, {"digits": "abc"})


def test_save_is_stable_and_complete(tmp_path):
    where = [tmp_path / "one", tmp_path / "two"]
    for folder in where:
        figure, data = report.transfer(results(), groups={"all": SETS})
        assert report.save(figure, "transfer", data, folder=folder, lineage=origin()) == folder / "transfer.pdf"
    names = sorted(file.name for file in where[0].iterdir())
    assert names == ["transfer.csv", "transfer.json", "transfer.pdf", "transfer.png"]
    assert all((where[0] / name).read_bytes() == (where[1] / name).read_bytes() for name in names)
    pd.testing.assert_frame_equal(pd.read_csv(where[0] / "transfer.csv"), data, rtol=1e-9)


def test_pdf_embeds_truetype_at_the_column_width(tmp_path):
    figure, data = report.comparison(results(), measures=("phi", "redundancy", "linear_top1"))
    content = report.save(figure, "a", data, folder=tmp_path, lineage={}).read_bytes()
    streams = [zlib.decompress(part) for part in re.findall(rb"stream\r?\n(x.*?)\r?\nendstream", content, re.DOTALL)]
    everything = b"".join([content, *streams])
    assert b"/Type3" not in everything and b"/FontFile2" in everything and b"/CreationDate" not in everything
    width = float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", everything)[1])
    assert width == pytest.approx(72 * 6.875)


def test_lineage_names_no_machine(tmp_path):
    made = origin({"scale": "quick", "folder": str(tmp_path), "nested": {"path": [tmp_path / "x"]}, "lr": 0.1, "on": True})
    assert made["runs"] == sorted(f"{method}-{seed}" for method in METHODS for seed in range(3))
    assert made["notebook"] == "02_sl_mlp" and made["data"] == {"digits": "abc"}
    assert made["parameters"] == {"folder": tmp_path.name, "lr": 0.1, "nested": {"path": ["x"]}, "on": True, "scale": "quick"}
    assert {"python", "torch", "matplotlib", "studylib"} <= set(made["versions"])
    assert made["commit"] is None or re.fullmatch(r"[0-9a-f]{40}", made["commit"])
    text = json.dumps(made)
    known = [str(tmp_path), str(paths.REPOSITORY), socket.gethostname(), str(paths.Path.home())]
    assert not [word for word in known if word in text], text
    assert f'"{getpass.getuser()}"' not in text


def test_lineage_without_git(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    made = origin()
    assert made["commit"] is None and made["dirty"] is None


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((85.321, 1.234, 3, "linear_top1"), "85.3 ± 1.2 (n = 3)"),
        ((85.321, math.nan, 1, "linear_top1"), "85.3 (n = 1)"),
        ((-0.0312, 0.004, 5, "class_separation"), "−0.031 ± 0.004 (n = 5)"),
        ((123.456, 7.8, 3, "intra"), "123 ± 8 (n = 3)"),
        ((0.012345, 0.00123, 3, "intra"), "0.0123 ± 0.0012 (n = 3)"),
        ((math.nan, math.nan, 0, "phi"), "·"),
    ],
)
def test_number(given, expected):
    assert tables.number(*given) == expected


def test_number_signed():
    assert tables.number(1.0, 0.5, 3, "linear_top1", signed=True) == "+1.0 ± 0.5 (n = 3)"


def test_summary_shows_what_is_missing():
    frame = report.select(report.at_end(results()), layer="stage5", measure=["linear_top1", "phi"])
    frame = frame[~((frame["method"] == "sl_mlp") & (frame["dataset"] == "digits"))]
    table = report.summary(frame, rows=("dataset", "measure"), difference=("sl", "sl_mlp"))
    assert list(table.columns) == ["Data set", "Measure", "SL", "SL-MLP", "SL-MLP − SL"]
    digits = table[table["Data set"] == "handwritten digits"]
    assert digits["SL-MLP"].tolist() == ["·", "·"] and digits["SL-MLP − SL"].tolist() == ["·", "·"]
    assert "·" not in digits["SL"].tolist()
    values = frame.query("dataset == 'glyphs' and measure == 'phi' and method == 'sl'")["value"]
    phi = table[(table["Data set"] == "Latin, digits") & (table["Measure"] == "Discriminative ratio φ")]
    assert phi["SL"].item() == tables.number(*statistics.interval(values), "phi")
    assert list(report.summary(frame[:0]).columns) == ["Data set"]


@pytest.mark.parametrize(
    ("cells", "side"),
    [
        (["1.0 ± 0.1 (n = 3)", "·", "nan", ""], "r"),
        (["0.71 [0.20, 0.93] (n = 12)", "· (n = 2)", "−0.5"], "r"),
        (["+1.2 %", "1e-05"], "r"),
        (["4 images per class", "1.0"], "l"),
        (["5-way 5-shot"], "l"),
        (["−1.0 **contradicted**", "·"], "l"),
        ([], "l"),
    ],
)
def test_columns_of_numbers_stand_to_the_right(cells, side):
    lines = tables.markdown(pd.DataFrame({"name": cells, "x": cells})).splitlines()
    left, right = lines[1].strip("| ").split(" | ")
    assert not left.endswith(":") and right.endswith(":") == (side == "r")
    assert rf"\begin{{tabular}}{{l{side}}}" in tables.latex(pd.DataFrame({"name": cells, "x": cells}), "x", "y")


def test_write_table_in_three_forms(tmp_path):
    frame = pd.DataFrame({"Data set": ["a_b", "50 % & more"], "Ratio φ": ["1.0 ± 0.1 (n = 3)", "·"], r"x $\phi$": ["−1", "|"]})
    path = report.write_table(frame, "numbers", folder=tmp_path, caption="At 100 %.", lineage=origin())
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".csv", ".json", ".md", ".tex"]
    lines = path.read_text().splitlines()
    assert lines[0] == "At 100 %." and lines[2].startswith("| Data set ") and r"\|" in lines[5]
    assert len({len(line) for line in lines[2:5]}) == 1
    assert [rule.endswith(":") for rule in lines[3].strip("| ").split(" | ")] == [False, True, False]
    tex = (tmp_path / "numbers.tex").read_text()
    assert r"a\_b & 1.0 $\pm$ 0.1 (n = 3) & $-$1 \\" in tex and r"50 \% \& more & $\cdot$" in tex
    assert r"Data set & Ratio $\phi$ & x $\phi$ \\" in tex and r"\toprule" in tex and r"\caption{At 100 \%.}" in tex
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "numbers.csv"), frame)
