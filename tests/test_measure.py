"""The measure suite on an encoder: every row is what its function gives, and is kept."""

import math
from types import SimpleNamespace

import pytest
import torch

from studylib import measures
from studylib.config import resolve
from studylib.data import load
from studylib.evaluation import features
from studylib.evaluation.evaluate import Evaluation, evaluate
from studylib.evaluation.features import Features
from studylib.evaluation.measure import MEASURES
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
    spread = float(others.double().sub(others.double().mean(0)).square().sum()) / (len(others) - 1)
    per_variance = "frechet_per_variance", "to the pre-training set, ÷ the variance of its features"
    expected[per_variance] = measures.frechet_distance(own, others) / spread
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-12), key


def test_modes_are_scored_against_every_hidden_label(run, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(run.folder.parent))
    images = load("glyphs/few")
    rows = suite_of(run, "glyphs/few", layer="stage3", split="test")
    assert {row["layer"] for row in rows} == {"stage3"}
    hidden = [row["protocol"].split(" of ")[1] for row in rows if row["measure"] == "modes_nmi"]
    assert hidden == ["case", "face"] and set(images.hidden) - set(hidden) == {"group", "triple"}  # these divide no class
    assert not [row for row in rows if row["measure"] == "mixtureness"]  # the pre-training set itself
    values, labels = features.extract(run, images).part("stage3", "test")
    name = hidden[0]
    expected = measures.find_modes(values, labels, images.hidden[name][0][images.split == 1])
    found = [row["value"] for row in rows if row["measure"] == "modes_ari" and row["protocol"].endswith(name)]
    assert found == pytest.approx([expected.ari])
    train = suite_of(run, "glyphs/few", layer="stage3", split="train")
    assert not [row for row in train if row["measure"].startswith("modes")]  # of held-out images only


def constructed(hidden=None, **more):
    """(images, features): two classes of 40 training and 40 held-out images each, at one layer of 6 dimensions."""
    generator = torch.Generator().manual_seed(0)
    labels, split = torch.arange(160) % 2, torch.arange(160) // 80
    values = torch.randn(160, 6, generator=generator) * torch.tensor([4.0, 3, 2, 1, 0.5, 0.1]) + 5
    return SimpleNamespace(split=split, hidden=hidden or {}), Features("", {"stage5": values}, labels, split, 2, **more)


def rows_of(kind, images, seen, split="test", layer="stage5", pre=None):
    found = list(MEASURES[kind].rows(images, seen, pre, layer, split))
    assert len({(row["measure"], row["protocol"]) for row in found}) == len(found)
    return found


def test_the_spectrum_is_that_of_the_centred_held_out_features():
    images, seen = constructed()
    x = seen.layers["stage5"][80:].double()
    sigma = torch.linalg.svdvals(x - x.mean(0))
    rows = rows_of("spectrum", images, seen)
    assert [row["protocol"] for row in rows] == [f"centred, rank {rank} of 6" for rank in (1, 2, 4, 6)]
    expected = [float(sigma[rank - 1] / sigma[0]) for rank in (1, 2, 4, 6)]
    assert [row["value"] for row in rows] == pytest.approx(expected, rel=1e-9)
    assert rows_of("spectrum", images, seen, split="train") == []


def test_the_number_of_modes_is_found_and_compared_with_what_is_hidden():
    images, seen = constructed()
    mode = torch.arange(160) // 2 % 4  # four modes of each class, all far apart
    seen.layers["stage5"][:] = 0.01 * torch.randn(160, 6, generator=torch.Generator().manual_seed(1))
    seen.layers["stage5"][torch.arange(160), mode] += 1
    pairs = torch.where(seen.labels == 0, mode // 2, -1)  # known of the first class alone, each label two modes
    images.hidden = {"mode": (mode, list("abcd")), "pair": (pairs, list("ab")), "same": (seen.labels, list("ab"))}
    found = {(row["protocol"].split(" of ")[1], row["measure"]): row["value"] for row in rows_of("modes", images, seen)}
    assert {hidden for hidden, _ in found} == {"mode", "pair"}  # the third divides no class
    assert [found["mode", f"modes_{name}"] for name in ("number", "hidden", "chosen_nmi", "chosen_ari")] == [4, 4, 1, 1]
    assert [found["pair", f"modes_{name}"] for name in ("number", "hidden")] == [4, 2]
    own = seen.labels[80:] == 0
    direct = measures.find_modes(
        seen.layers["stage5"][80:][own], torch.zeros(40, dtype=torch.long), pairs[80:][own], clusters="silhouette"
    )
    assert found["pair", "modes_chosen_nmi"] == pytest.approx(direct.nmi) == pytest.approx(2 / 3)
    assert rows_of("modes", images, seen, split="train") == []


def test_class_vectors_of_the_loss_are_compared_with_class_means():
    vectors = torch.randn(2, 6, generator=torch.Generator().manual_seed(2))
    head = SimpleNamespace(class_vectors=lambda: vectors)
    images, seen = constructed(network=lambda: (head, 32))
    unit = torch.nn.functional.normalize(seen.layers["stage5"][:80].double(), dim=1)
    means = torch.stack([unit[seen.labels[:80] == label].mean(0) for label in (0, 1)])
    cosine = torch.nn.functional.cosine_similarity(means[:, None], vectors[None].double(), dim=2)
    rows = rows_of("prototypes", images, seen, split="train")
    assert [row["measure"] for row in rows] == ["prototype_similarity", "prototype_similarity_others"]
    expected = [float(cosine.trace() / 2), float((cosine[0, 1] + cosine[1, 0]) / 2)]
    assert [row["value"] for row in rows] == pytest.approx(expected, rel=1e-6)
    assert rows_of("prototypes", images, seen) == []  # held-out images
    assert rows_of("prototypes", images, seen, split="train", pre=seen) == []  # another set than that of pre-training
    vectors = torch.zeros(2, 6)  # an empty memory
    assert rows_of("prototypes", images, seen, split="train") == []
    head.class_vectors = lambda: None
    assert rows_of("prototypes", images, seen, split="train") == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["trex_plain", "trex"])
def test_class_vectors_are_those_of_the_snapshot(method, run, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(run.folder.parent))
    config = resolve("smoke", method)
    train(config, say=str)
    images, found = load(config.data), {}
    for epoch in (0, 1, None):
        evaluation = Evaluation(
            dataset=config.data, layers=("stage5", "projector"), epoch=epoch, measures="prototypes", protocols=()
        )
        rows = evaluate(Run(config), evaluation)
        assert {(row["layer"], row["split"]) for row in rows} <= {("projector", "train")}  # what the loss sees
        found[epoch] = [row["value"] for row in rows]
    assert bool(found[0]) == (method == "trex_plain")  # the memory starts empty
    network, _ = Run(config).network(1, torch.device("cpu"))
    vectors = network.weight if method == "trex_plain" else network.bank.prototypes(images.num_classes)
    outputs, labels = features.extract(Run(config), images, 1).part("projector", "train")
    means = measures.prototypes(outputs, labels, images.num_classes, normalise=True)
    expected = measures.prototype_similarity(means, vectors)
    assert found[1] == pytest.approx([expected.matching, expected.others])
    assert found[1] != found[None]
