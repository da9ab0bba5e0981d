"""The measure suite on an encoder: every row is what its function gives, and is kept."""

import math

import pytest

from studylib import features, measures
from studylib.config import resolve
from studylib.data import load
from studylib.evaluate import Evaluation, evaluate
from studylib.training import Run, train


@pytest.fixture(scope="module")
def run(tmp_path_factory, glyph_cache):
    folder = tmp_path_factory.mktemp("measure") / "runs"
    (folder / "cache").mkdir(parents=True)
    (glyph_cache / "data").mkdir(exist_ok=True)
    (folder / "cache" / "data").symlink_to(glyph_cache / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYLIB_RUNS", str(folder))
        found = Run(resolve("smoke", "sl"))
        train(found.config, say=str)
        yield found


def suite_of(run, dataset, layer="stage5", split="test"):
    rows = evaluate(run, Evaluation(dataset=dataset, layers=(layer,), measures="all", protocols=()))
    return [row for row in rows if row["split"] == split]


def test_rows_are_what_the_functions_give(run, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(run.folder.parent))
    rows = suite_of(run, "glyphs_georgian/few")
    found = {(row["measure"], row["protocol"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    assert all(isinstance(value, float) and not math.isinf(value) for value in found.values())
    seen, pre = (features.extract(run, load(name)) for name in ("glyphs_georgian/few", "glyphs/few"))
    own, labels = seen.part("stage5", "test")
    others, _ = pre.part("stage5", "test")
    expected = {
        ("phi", "squared"): measures.discriminative_ratio(own, labels).phi,
        ("intra_class_distance", "l2-normalised"): measures.intra_class_distance(own, labels),
        ("redundancy", "with the diagonal"): measures.redundancy(own),
        ("effective_rank", "centred"): measures.effective_rank(own, centre=True),
        ("coding_length", "ε = 0.5, l2-normalised, per image"): measures.coding_length(own),
        ("sparsity", "share of |x| below 1e-5"): measures.sparsity(own),
        ("neural_collapse", "classes weigh equally"): measures.neural_collapse(own, labels),
        ("class_separation", "cosine"): measures.class_separation(own, labels).r2,
        ("frechet_distance", "to the pre-training set"): measures.frechet_distance(own, others),
        ("squared_mmd", "to the pre-training set, RBF of the median distance"): measures.squared_mmd(own, others),
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-12), key


def test_modes_are_scored_against_every_hidden_label(run, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(run.folder.parent))
    images = load("glyphs/few")
    rows = suite_of(run, "glyphs/few", layer="stage3", split="test")
    assert {row["layer"] for row in rows} == {"stage3"}
    hidden = [row["protocol"].split(" of ")[1] for row in rows if row["measure"] == "modes_nmi"]
    assert hidden == list(images.hidden)
    assert not [row for row in rows if row["measure"] == "mixtureness"]  # the pre-training set itself
    values, labels = features.extract(run, images).part("stage3", "test")
    name = hidden[0]
    expected = measures.find_modes(values, labels, images.hidden[name][0][images.split == 1])
    found = [row["value"] for row in rows if row["measure"] == "modes_ari" and row["protocol"].endswith(name)]
    assert found == pytest.approx([expected.ari])
    train = suite_of(run, "glyphs/few", layer="stage3", split="train")
    assert not [row for row in train if row["measure"].startswith("modes")]  # of held-out images only
