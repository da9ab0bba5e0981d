"""Encoders trained elsewhere: found in checkpoints, refused with a reason, worth the same as our own."""

import argparse
import math
from pathlib import Path

import pytest
import torch
import torchvision

from studylib import config, suites, transfer
from studylib.cli import main
from studylib.config import resolve
from studylib.data import load
from studylib.errors import InputError
from studylib.evaluation import features
from studylib.evaluation.evaluate import Evaluation, evaluate
from studylib.evaluation.probe import PROTOCOLS
from studylib.external import External, read_encoder
from studylib.models.encoder import Encoder
from studylib.notebook import Notebook
from studylib.training import Run, train
from studylib.training.export import export_encoder

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(tmp_path, monkeypatch, glyph_cache):
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs" / "cache").mkdir(parents=True)
    (glyph_cache / "data").mkdir(exist_ok=True)
    (tmp_path / "runs" / "cache" / "data").symlink_to(glyph_cache / "data")
    return tmp_path / "runs"


def saved(tmp_path, content) -> Path:
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
def test_torchvision_weights_give_torchvision_features(tmp_path, arch):
    torch.manual_seed(0)
    network = getattr(torchvision.models, arch)().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    found, size = External(saved(tmp_path, network.state_dict())).network(None, torch.device("cpu"))
    assert size == 224
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        stages = found.layers(images)
        torch.testing.assert_close(stages["stage5"], network((images - mean) / std), rtol=1e-3, atol=1e-4)
    assert list(stages) == ["stage1", "stage2", "stage3", "stage4", "stage5"]


def test_network_is_found_inside_a_checkpoint_with_arguments(tmp_path):
    """As the released full t-ReX checkpoints: arguments as an argparse object, weights below prefixes, heads beside."""
    plain = torchvision.models.resnet18().state_dict()
    state = {f"module.encoder.{name}": value for name, value in plain.items()}
    state |= {"module.projector.0.weight": torch.zeros(2, 2)}
    state |= {f"module.memory.ema.encoder.{name}": value + 1 for name, value in plain.items()}
    content = {"args": argparse.Namespace(epochs=100), "epoch": 100, "net": state}
    settings, weights = read_encoder(saved(tmp_path, content))
    assert (settings.arch, settings.width, settings.stem) == ("resnet18", 64, "conv7")
    assert all(torch.equal(weights[name], value) for name, value in plain.items() if not name.startswith("fc."))


def small(value: float) -> dict[str, torch.Tensor]:
    """A small encoder's weights; the first convolution holds ``value``."""
    weights = Encoder(config.Encoder(width=4)).state_dict()
    return weights | {"conv1.weight": torch.full_like(weights["conv1.weight"], value)}


def below(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"model": small(1), "model_ema": below("module.", small(2))}, ["model", "model_ema.module"]),
        ({"teacher": below("module.", small(2)), "student": below("", small(1))}, ["student", "teacher.module"]),
        (
            {"state_dict": below("encoder_q.", small(1)) | below("encoder_k.", small(2))},
            ["state_dict.encoder_q", "state_dict.encoder_k"],
        ),
        (small(1) | below("ema.", small(2)), [".", "ema"]),
    ],
)
def test_which_of_several_networks_is_read_is_said_and_can_be_chosen(runs, tmp_path, capsys, content, names):
    file = saved(tmp_path, content)
    plain = External(file, size=32)
    assert plain.choice == f"weights.pth: {names[0]} is read; it also holds {names[1]}"
    sources = [plain, *(External(file, size=32, which=name) for name in names)]
    values = [source.network(None, torch.device("cpu"))[0].encoder.conv1.weight.unique().item() for source in sources]
    assert values == [1, 1, 2]
    assert len({source.name for source in sources}) == 3  # results are not mixed up
    with pytest.raises(InputError, match=f"network='x': unknown; .*valid: {names[0]}, {names[1]}"):
        _ = External(file, which="x").choice
    assert main(["evaluate", "--encoder", str(file), "--size", "32", "-d", "digits", "--protocol", "knn"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{plain.choice}; name another with --network"
    assert main(["evaluate", "--encoder", str(file), "--network", "x", "-d", "digits"]) == 2
    assert External(saved(tmp_path, small(1))).choice == ""


def test_encoders_of_a_notebook_may_have_blanks_in_their_paths(runs, tmp_path, capsys):
    file = saved(tmp_path, {"a": small(1), "b": small(2)}).rename(tmp_path / "two networks.pth")
    study = Notebook("test", scale="smoke")
    study.add_encoders(f"'{file}' \"{file}\"", 0)
    assert [source.file for source in study.encoders] == [file, file]
    assert capsys.readouterr().out.count("two networks.pth: a is read; it also holds b; name another as FILE:NETWORK\n") == 2
    study.add_encoders(f"'{file}:b'", 0)
    assert [(source.file, source.which) for source in study.encoders] == [(file, "b")]


def test_what_is_no_encoder_is_refused_and_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    plain = torchvision.models.resnet18().state_dict()
    lacking = {name: value for name, value in plain.items() if name != "layer3.0.bn1.weight"}
    cases = [
        ({"x": Evil()}, "cannot be read without running code"),
        ({"weights": {"a": torch.zeros(1)}}, "holds no ResNet"),
        (lacking, "lacks layer3.0.bn1.weight"),
        (plain | {"layer3.0.extra.weight": torch.zeros(1)}, "has unknown layer3.0.extra.weight"),
        (plain | {"layer1.0.conv1.weight": torch.zeros(3, 3, 3, 3)}, "has other shapes of layer1.0.conv1.weight"),
        ({n: v for n, v in plain.items() if not n.startswith("layer4.1.")}, r"ResNet of \[2, 2, 2, 1\] blocks; known are"),
    ]
    for content, says in cases:
        with pytest.raises(InputError, match=says):
            read_encoder(saved(tmp_path, content))
    assert not (tmp_path / "executed").exists()
    (tmp_path / "weights.pth").write_bytes(b"no zip")
    with pytest.raises(InputError, match="cannot be read"):
        read_encoder(tmp_path / "weights.pth")


def test_an_exported_encoder_is_worth_what_its_run_is(runs, tmp_path, capsys):
    """Same features to the bit, same accuracies; the stem of a 3x3 convolution has to be said."""
    run = Run(resolve("smoke", "sl_mlp"))
    train(run.config, say=str)
    mean, std = export_encoder(run.folder, tmp_path / "encoder.pth")
    plain = saved(tmp_path, dict(torch.load(tmp_path / "encoder.pth")))
    with pytest.raises(InputError, match="stem='': the first convolution is 3x3"):
        External(plain).network(None, torch.device("cpu"))
    other = External(tmp_path / "encoder.pth")  # carries side, constants and stem
    images = load("glyphs_georgian/few")
    told = External(plain, size=32, mean=tuple(mean), std=tuple(std), stem="conv3s2")
    ours = features.extract(run, images).layers
    for source in (other, told):
        found = features.extract(source, images).layers
        assert list(found) == [f"stage{number}" for number in range(1, 6)]
        assert all(torch.equal(ours[stage], values) for stage, values in found.items())
    assert External(tmp_path / "encoder.pth", size=16).network(None, torch.device("cpu"))[1] == 16  # what is given wins
    evaluation = Evaluation(dataset="glyphs_georgian/few", measures="none")
    ours, theirs = ([(row["measure"], row["value"]) for row in evaluate(source, evaluation)] for source in (run, other))
    assert dict(ours)["knn_top1"] == dict(theirs)["knn_top1"]
    assert len(ours) == len(theirs)
    measured = {row["measure"] for row in evaluate(other, Evaluation(dataset="glyphs_georgian/few", protocols=()))}
    assert {"phi", "redundancy"} <= measured
    assert "mixtureness" not in measured  # it needs the pre-training set


def test_evaluate_command(runs, tmp_path, capsys, monkeypatch):
    run = Run(resolve("smoke", "sl"))
    train(run.config, say=str)
    assert main(["evaluate", "--run", str(run.folder), "-d", "glyphs_georgian/few", "-d", "digits"]) == 0
    whole = said = capsys.readouterr().out
    assert "glyphs_georgian/few" in said
    assert [line.split()[:2] for line in said.splitlines()[-1:]] == [["mean", "log-odds"]]
    accuracies = [[float(part) for part in line.split()[1:]] for line in said.splitlines()[2:4]]
    expected = [sum(math.log(a / (100 - a)) for a in column) / 2 for column in zip(*accuracies, strict=True)]
    assert [float(part) for part in said.splitlines()[-1].split()[2:]] == pytest.approx(expected, abs=0.02)
    assert main(["evaluate", "--run", str(run.folder), "-d", "glyphs_georgian/few", "--protocol", "ridge", "--measures"]) == 0
    said = capsys.readouterr().out
    assert "effective_rank" in said and "frechet_distance" in said and "ridge" in said
    twice = ["-d", "glyphs_georgian/few", "-d", "digits", "-d", "digits"]
    assert main(["evaluate", "--run", str(run.folder), *twice]) == 0
    assert capsys.readouterr().out == whole
    with monkeypatch.context() as patch:
        patch.setattr(suites, "suite", lambda name: ["glyphs_georgian/few", "flowers102"])
        assert main(["evaluate", "--run", str(run.folder), "--suite", "two"]) == 0
    said = capsys.readouterr().out
    assert "missing: data='flowers102': is in none of" in said
    assert "mean log-odds" not in said
    for arguments, says in (
        (["--run", str(run.folder), "-d", "digits", "-d", "flowers102"], "data='flowers102': is in none of"),
        (["-d", "digits"], "name one of --run FOLDER and --encoder FILE"),
        (["--run", str(run.folder)], "name a suite"),
        (["--run", str(run.folder), "--suite", "quik"], "did you mean 'quick'"),
        (["--run", str(run.folder), "-d", "digits", "--protocol", "linaer"], "did you mean 'linear'"),
        (["--run", str(run.folder), "-d", "digits", "--protocol", "path"], "is now called linear"),
        (["--run", str(run.folder), "-d", "digits", "--layer", "stage6"], "did you mean 'stage"),
        (["--run", str(run.folder), "-d", "digits", "--epoch", "77"], "epoch=77"),
        (["--run", str(tmp_path), "-d", "digits"], "it has no config.json"),
        (["--encoder", str(tmp_path / "none.pth"), "-d", "digits"], "is not a file"),
    ):
        assert main(["evaluate", *arguments]) == 2
        assert says in capsys.readouterr().err


SMALL = {
    "knn_grid": {"k": (1, 3)},
    "trex_small8": {"trials": 3},
    "trex_large": {"trials": 2, "epochs": 3},
    "per_class": {"images": (1, 4), "draws": 2},
    "episodes": {"episodes": 20, "ways": 3},
    "broad12": {"search_epochs": 1, "epochs": 2},
}
FUNCTIONS = {
    "knn": transfer.knn_accuracy,
    "knn_grid": transfer.knn_grid_accuracy,
    "linear": transfer.linear_probe,
    "trex_small8": transfer.trex_small8_probe,
    "trex_large": transfer.trex_large_probe,
    "broad12": transfer.broad12_probe,
    "ridge": transfer.ridge_probe,
    "episodes": transfer.episode_accuracy,
    "per_class": transfer.per_class_accuracy,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_protocol_of_frozen_features_is_what_its_function_gives_and_kept(runs, monkeypatch, name):
    """On the pooled output of a small encoder; a second call reads the file."""
    run = Run(resolve("smoke", "sl", 0, {"optimisation.epochs": 0}))
    train(run.config, say=str)
    protocol = PROTOCOLS[name][0](**SMALL.get(name, {}))
    evaluation = Evaluation(dataset="glyphs_georgian/few", measures="none", protocols=(protocol,))
    rows = evaluate(run, evaluation)
    seen = features.extract(run, load("glyphs_georgian/few"))
    sets = (seen.layers["stage5"], seen.labels)
    sets = sets if name == "episodes" else (*seen.part("stage5", "train"), *seen.part("stage5", "test"))
    expected = FUNCTIONS[name](*sets, seen.num_classes, protocol)
    found = {row["measure"]: row["value"] for row in rows}
    prefix = name
    for result in expected if isinstance(expected, list) else [expected]:
        ending = f"_{result.images}" if isinstance(expected, list) else ""
        assert found[f"{prefix}_top1{ending}"] == pytest.approx(result.top1, abs=1e-9)
    assert {row["protocol"] for row in rows} == {protocol.describe()}
    assert {row["split"] for row in rows} == {"all" if name == "episodes" else "test"}
    assert found[f"{prefix}_seconds"] > 0
    monkeypatch.setitem(PROTOCOLS, name, PROTOCOLS[name]._replace(carry_out=None))
    assert evaluate(run, evaluation) == rows


def test_suites_are_lists_of_names():
    assert len(suites.suite("broad12")) == 12
    assert len(suites.suite("trex13")) == 13
    assert len(suites.suite("trex15")) == 15
    assert set(suites.suite("trex8")) < set(suites.suite("trex13")) < set(suites.suite("trex15"))
    assert suites.missing(suites.suite("quick")) == {}
    assert "studylib data fetch dtd" in suites.missing(["dtd", "digits"])["dtd"]


def test_sets_with_boxes_are_for_detection_only(runs):
    run = Run(resolve("smoke", "sl", 0, {"optimisation.epochs": 0}))
    train(run.config, say=str)
    for given, says in (
        ({"dataset": "scenes"}, "protocol='knn': is for image sets; scenes is not one"),
        ({"dataset": "digits", "protocols": (transfer.Detection(),)}, "'detection': is for sets with boxes; digits is not one"),
        ({"dataset": "scenes", "protocols": ()}, "measures='papers': must be none for scenes"),
    ):
        with pytest.raises(InputError, match=says):
            Evaluation(**given)
    assert "coco" in suites.missing(["scenes", "coco"])
    tiny = transfer.Detection(epochs=1, batch=100, proposals=4, channels=8, hidden=8)
    rows = evaluate(run, Evaluation(dataset="scenes", measures="none", protocols=(tiny,)))
    found = {row["measure"]: row["value"] for row in rows}
    assert {"detection_ap", "detection_ap50", "detection_ap75", "detection_seconds"} <= set(found)
    assert 0 <= found["detection_ap"] <= found["detection_ap50"] <= 100


def test_fine_tuning_starts_from_the_output_only(runs):
    run = Run(resolve("smoke", "sl", 0, {"optimisation.epochs": 0}))
    train(run.config, say=str)
    frozen = {"what": "linear", "learning_rates": (0.1,), "epochs": 1}
    protocols = (transfer.LinearFineTune(**frozen), transfer.MemoryFineTune(**frozen | {"what": "projection", "ks": (5,)}))
    rows = evaluate(run, Evaluation(dataset="glyphs_georgian/few", measures="none", protocols=protocols))
    assert {row["measure"] for row in rows} >= {"linear_fine_tune_frozen_top1", "memory_fine_tune_frozen_top1"}
    for dataset, given in (("glyphs_georgian/few", protocols), ("scenes", (transfer.Detection(),))):
        with pytest.raises(InputError, match="layer='stage3': fine-tuning and detection start from"):
            Evaluation(dataset=dataset, layers=("stage3",), measures="none", protocols=given)
