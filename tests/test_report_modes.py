"""Pictures of modes on features with known clusters, and curves of a run's metrics."""

import json

import numpy as np
import pytest

from studylib import report
from studylib.config import resolve
from studylib.errors import InputError
from studylib.report.figures import _render
from studylib.training import Run

CLASSES = ("a", "b")


def constructed():
    """Two classes; in SL's features each is one cluster, in LOOK's those of class a are two, by its hidden label, 3 to 1."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    hidden = np.concatenate([np.repeat([0, 1], [30, 10]), np.full(40, -1)])
    directions = np.eye(6)
    sl, look = directions[labels], np.where(labels == 0, hidden, 2)
    noise = 0.05 * random.normal(size=(80, 6))
    images = np.full((80, 3, 8, 8), 0, dtype=np.uint8) + np.arange(80, dtype=np.uint8)[:, None, None, None]
    return images, labels, hidden, {"sl": sl + noise, "look": directions[look] + noise}


def test_clusters_are_those_of_the_features():
    images, labels, hidden, features = constructed()
    options = {"chosen": ["a", "b"], "clusters": 2, "nearest": 4, "hidden": hidden, "hidden_classes": ("lower", "upper")}
    figure, data = report.mode_images(images, labels, CLASSES, features, **options)
    assert len(data) == 2 * 2 * 2 * 4
    look = data[(data["method"] == "look") & (data["class"] == "a")].drop_duplicates("cluster")
    assert look["share"].tolist() == [0.75, 0.25]  # the largest on top
    assert look["hidden"].tolist() == ["lower", "upper"] and look["hidden_share"].tolist() == [1.0, 1.0]
    assert (labels[data["row"]] == data["class"].map(CLASSES.index)).all()
    assert data[data["class"] == "b"]["hidden"].eq("").all()  # no image of it has one
    (panel,) = [axes for axes in figure.axes if axes.get_title() == "LOOK"]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["75 %: lower 100 %", "25 %: upper 100 %"]
    assert _render(figure, "png")


def test_the_nearest_images_come_first():
    images, labels, _, features = constructed()
    _, data = report.mode_images(images, labels, CLASSES, features, chosen=["b"], clusters=1, nearest=3)
    x = features["look"][40:] / np.linalg.norm(features["look"][40:], axis=1, keepdims=True)
    expected = 40 + np.argsort(np.linalg.norm(x - x.mean(0), axis=1))[:3]
    assert data[data["method"] == "look"]["row"].tolist() == expected.tolist()


def test_fewer_different_images_than_clusters():
    images, labels, _, features = constructed()
    same = {"sl": np.ones_like(features["sl"])}
    figure, data = report.mode_images(images, labels, CLASSES, same, chosen=["a"], clusters=4, nearest=2)
    assert data["share"].unique().tolist() == [1.0] and _render(figure, "png")


def test_what_does_not_fit_is_refused():
    images, labels, hidden, features = constructed()
    with pytest.raises(InputError, match="class"):
        report.mode_images(images, labels, CLASSES, features, chosen=["c"])
    with pytest.raises(InputError, match="uint8"):
        report.mode_images(images / 255, labels, CLASSES, features, chosen=["a"])
    with pytest.raises(InputError, match="need one for each"):
        report.mode_images(images, labels, CLASSES, {"sl": features["sl"][:5]}, chosen=["a"])
    with pytest.raises(InputError, match="each with a name"):
        report.mode_images(images, labels, CLASSES, features, chosen=["a"], hidden=hidden, hidden_classes=("one",))


def test_training_curves_are_the_rows_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path))
    runs = [Run(resolve("smoke", method)) for method in ("sl", "look")]
    written = [
        {"epoch": 1, "step": 16, "lr": 0.1, "loss": 2.0},
        {"epoch": 2, "step": 32, "lr": 0.0, "loss": 1.0, "knn_top1": 50.0},
    ]
    runs[0].folder.mkdir()
    (runs[0].folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    figure, data = report.training_curves(runs)
    assert len(data) == 2 and list(data)[:3] == ["method", "run", "seed"]
    assert data["loss"].tolist() == [2.0, 1.0] and data["knn_top1"].dropna().tolist() == [50.0]
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 1]
    assert _render(figure, "png")
    figure, data = report.training_curves(runs[1:])  # not begun
    assert data.empty and [axes.texts[0].get_text() for axes in figure.axes] == ["no results"] * 3
    assert _render(figure, "png")


def test_training_in_words(runs):
    run = Run(resolve("smoke", "trex"))  # 2 epochs in batches of 64; two local crops of 16 px beside one of 32 px
    said = report.training_cost(run).splitlines()
    steps = int(said[0].split()[3])
    assert said[0].startswith(f"2 epochs of {steps} steps of 64 images: {2 * steps * 64:,} images of ")
    assert said[1] == f"about 1.50 passes for each, {1.5 * 2 * steps * 64:,.0f} in all"
    assert said[2] == "epochs done before: 0"
    run.folder.mkdir()
    rows = [{"epoch": 1, "loss": 2.0, "knn_top1": 50.0}, {"epoch": 2, "loss": 1.5}, {"epoch": 3, "loss": 1.0, "knn_top1": 40.0}]
    run.write_rows(rows, [{"epoch": epoch, "seconds": 2.0} for epoch in (1, 2, 3)])
    (run.folder / "record.json").write_text('[{"device": "a machine"}]')
    assert report.training_cost(run).endswith("epochs done before: 3")
    assert report.training_time(run) == "6 s for 3 epochs on a machine"
    lines = report.training_reading(run).splitlines()
    assert lines[0] == "loss 2.000 in the first epoch, 1.000 in the last"
    assert lines[1] == "kNN top-1 40.0 % at the end; highest 50.0 % after epoch 1"
    assert lines[2:] == [f"  {run.name}/{name}" for name in ("metrics.jsonl", "record.json", "timing.jsonl")]
