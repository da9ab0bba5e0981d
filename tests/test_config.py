"""Settings: what is refused and how it is said, run ids, scales."""

import dataclasses
import functools

import pytest
import torch
import yaml

from studylib import config
from studylib import scale as scale_module
from studylib.config import from_dict, resolve, to_dict
from studylib.errors import InputError
from studylib.method_table import METHODS, OF_THE_PAPERS, USING_LABELS
from studylib.models.projector import Projector
from studylib.scale import FOLDER, read, scale, scales
from studylib.values import coerce


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"optimisation.epoch": 3}, "parameter='optimisation.epoch': unknown; did you mean 'optimisation.epochs'?"),
        ({"epochs": 3}, "write optimisation.epochs"),
        ({"optimisation.epochs": "many"}, "optimisation.epochs='many': must be a whole number"),
        ({"optimisation.epochs": 2.5}, "optimisation.epochs=2.5: must be a whole number"),
        ({"optimisation.epochs": -1}, "optimisation.epochs=-1"),
        ({"optimisation.lr": "nan"}, "optimisation.lr='nan': must be a number"),
        ({"optimisation.lr": 0}, "optimisation.lr=0.0: must be positive"),
        (
            {"optimisation.epochs": 1},
            "optimisation.warmup_epochs=1.0: must be less than optimisation.epochs=1, or the rate never",
        ),
        ({"optimisation.warmup_epochs": 30}, "optimisation.warmup_epochs=30.0: must be less than optimisation.epochs=20"),
        (
            {"optimisation.final_lr": 0.1},
            "optimisation.final_lr=0.1: must be at most the peak, optimisation.lr · batch / 256 = 0.05",
        ),
        ({"optimisation.batch": True}, "optimisation.batch=True: must be a whole number"),
        ({"projector.out": 8}, "use method=sl_mlp"),
        ({"encoder.arch": "resnet1"}, "valid: resnet10, resnet18, resnet34, resnet50, resnet101"),
        ({"encoder.stem": 3}, "encoder.stem=3: must be text"),
        ({"augmentation.crop_scale": "0.5"}, "must be a list of 2"),
        ({"augmentation.crop_scale": [0.1, 0.2, 0.3]}, "must be a list of 2"),
        ({"seed": 3}, "use --seed"),
    ],
)
def test_wrong_settings_are_refused_by_name_value_and_fix(overrides, says):
    with pytest.raises(InputError) as caught:
        resolve("quick", "sl", 0, overrides)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "overrides", "says"),
    [
        ("look", {"look.k": 5000}, "look.k=5000: is more than bank.length="),
        ("look", {"look.k": 0}, "look.k=0: must be at least 1"),
        ("look", {"look.k": 1}, "look.k=1: one neighbour has the class or not: nothing to learn"),
        ("look", {"look.start": "cold"}, "look.start='cold': unknown; valid: falling"),
        (
            "look",
            {"look.start": "warmup", "look.start_share": 1},
            "look.start_share=1.0: must be below 1 with look.start=warmup",
        ),
        ("look", {"bank.length": 50}, "bank.length=50: must hold at least one batch of"),
        ("trex", {"bank.length": 3}, "bank.length=3: must hold at least one batch of"),
        ("moco_v2", {"bank.length": 3}, "bank.length=3: must hold at least one batch of"),
        ("look", {"look.start": "filled", "bank.start": "random"}, "waits for nothing with bank.start=random"),
        (
            "sl_mlp",
            {"projector.linear": False, "projector.batch_norm": False, "projector.activation": "none", "projector.out": 0},
            "projector.hidden_layers=1: the blocks would be empty",
        ),
        ("trex", {"optimisation.batch": 1}, "optimisation.batch=1: must be at least 2"),
        ("trex", {"multi_crop.local_size": 0}, "multi_crop.local_size=0: must be positive with local crops"),
        ("sl", {"multi_crop.local_size": 16}, "multi_crop.local_size=16: must be positive with local crops, and 0 without"),
        ("trex", {"multi_crop.local_scale": [0.5, 1.5]}, "must be two shares in (0, 1]"),
        ("trex", {"ema.momentum": 1}, "ema.momentum=1.0: must be in [0, 1)"),
        ("trex", {"ema.buffers": "none"}, "ema.buffers='none': unknown; did you mean 'own'?"),
        ("trex", {"temperature": 0}, "temperature=0.0: must be positive"),
        ("trex", {"look.k": 7}, "trex does not use it; its own settings are bank, ema, temperature, multi_crop"),
        ("sl", {"temperature": 0.2}, "sl does not use it; its own settings are cross_entropy, multi_crop"),
        ("trex_plain", {"bank.length": 4096}, "trex_plain does not use it"),
        ("supcon", {"multi_crop.global_crops": 1}, "supcon compares views: at least 2"),
        ("simclr", {"multi_crop.global_crops": 1}, "simclr compares views: at least 2"),
        ("byol", {"multi_crop.global_crops": 3}, "byol compares two views: must be 2"),
        ("moco_v1", {"multi_crop.local_crops": 2, "multi_crop.local_size": 16}, "moco_v1 uses none: must be 0"),
    ],
)
def test_settings_that_do_not_fit_the_method_are_refused(method, overrides, says):
    with pytest.raises(InputError) as caught:
        resolve("quick", method, 0, overrides)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_schedules_at_the_edge_of_what_falls():
    """No epochs are the random start; a rate may stay at its peak."""
    assert resolve("quick", "sl", 0, {"optimisation.epochs": 0}).optimisation.warmup_epochs == 1
    flat = {"optimisation.epochs": 1, "optimisation.warmup_epochs": 0.5, "optimisation.final_lr": 0.05}
    assert resolve("quick", "sl", 0, flat).optimisation.peak == 0.05


def test_a_projector_of_depth_0_has_no_batch_norm_to_have():
    """``projector.batch_norm`` belongs to hidden blocks: a linear bottleneck alone has none, whatever it says."""
    for batch_norm in (True, False):
        resolved = resolve("quick", "trex", 0, {"projector.hidden_layers": 0, "projector.batch_norm": batch_norm})
        layers = list(Projector(resolved.projector, 128).modules())
        assert not [layer for layer in layers if isinstance(layer, torch.nn.BatchNorm1d)]
        assert sum(isinstance(layer, torch.nn.Linear) for layer in layers) == 1


def test_unknown_scale_and_method_name_the_nearest():
    with pytest.raises(InputError, match="did you mean 'quick'"):
        resolve("quik", "sl")
    with pytest.raises(InputError, match="did you mean 'sl_mlp'"):
        resolve("quick", "slmlp")
    with pytest.raises(InputError, match="seed=-1"):
        resolve("quick", "sl", -1)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("1e-3", float, 0.001),
        ("3", int, 3),
        (3.0, int, 3),
        ("007", str, "007"),
        ("false", bool, False),
        ("True", bool, True),
        ("[0.25, 1]", tuple[float, float], (0.25, 1.0)),
        ("(0.25, 1)", tuple[float, float], (0.25, 1.0)),
        (2**60 + 1, int, 2**60 + 1),
    ],
)
def test_text_is_read_as_its_declared_type(value, kind, expected):
    assert coerce("field", value, kind) == expected
    assert type(coerce("field", value, kind)) is type(expected)


@pytest.mark.parametrize(("value", "kind"), [(1, bool), ("yes", bool), (7, str), ("inf", float), (True, int), ([1], float)])
def test_values_of_another_type_are_refused(value, kind):
    with pytest.raises(InputError, match="field="):
        coerce("field", value, kind)


def test_every_scale_resolves_for_every_method_and_survives_json():
    assert {"smoke", "quick", "small"} <= set(scales())
    for name in scales():
        for method in METHODS:
            resolved = resolve(name, method, 1)
            assert from_dict(to_dict(resolved)) == resolved
            assert resolved.name == f"{method}-{resolved.id}"


@pytest.mark.parametrize(
    ("scale_name", "name"),
    [
        ("smoke", "look-d0069fcdc2"),
        ("smoke", "moco_v1-c8b7778baa"),
        ("quick", "trex-6d6e994436"),
        ("quick", "byol-5045bf6a36"),
        ("quick", "supcon-35f51550ef"),
        ("small_cpu", "trex_star-a4bb0cb9c6"),
        ("small", "sl-bec1d309d6"),
        ("small", "simclr-ec6f98fe94"),
        ("paper", "trex_plain-36d0190b94"),
        ("paper", "moco_v2-5005826bf3"),
        ("paper", "dino-020a61f002"),
    ],
)
def test_run_ids_stay_as_they_were(scale_name, name):
    """An id that changes without `SCHEMA` makes stored runs and published results those of no configuration."""
    assert resolve(scale_name, name.rpartition("-")[0]).name == name


def content(name="smoke"):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"unsen": []}, "setting of scales/smoke.yaml='unsen': unknown; did you mean 'unseen'?"),
        ({"unseen": "digits, pets"}, "scales/smoke.yaml: unseen='digits, pets': must be a list, such as [a, b]"),
        ({"unseen": [3]}, "scales/smoke.yaml: unseen=3: must be text"),
        ({"trials": "perhaps"}, "scales/smoke.yaml: trials='perhaps': must be true or false"),
        ({"common": None}, "scales/smoke.yaml: common: must be names with values"),
        ({"modes": {"data": "glyphs"}}, "scales/smoke.yaml: modes.hidden: is missing"),
        (
            {"modes": {"data": "glyphs", "hiden": []}},
            "setting of scales/smoke.yaml: modes='hiden': unknown; did you mean 'hidden'?",
        ),
        ({"methods": {"slmlp": {}}}, "scales/smoke.yaml: method='slmlp': unknown; did you mean 'sl_mlp'?"),
        ({"methods": {"sl_mlp": 3}}, "scales/smoke.yaml: methods.sl_mlp=3: must be settings with values"),
        ({"seeds": {"methods": -1}}, "scales/smoke.yaml: seeds.methods=-1: must be a number of seeds from 0 up"),
        ({"seeds": {"methods": {"sl": 1.5}}}, "scales/smoke.yaml: seeds.methods={'sl': 1.5}: must be a number of seeds"),
    ],
)
def test_a_scale_refuses_wrong_fields_by_file_field_and_fix(change, says):
    with pytest.raises(InputError) as caught:
        read("smoke", content() | change)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("field", sorted(content()))
def test_a_scale_refuses_a_missing_field(field):
    settings = content()
    del settings[field]
    with pytest.raises(InputError, match=f"scales/smoke.yaml: {field}: is missing"):
        read("smoke", settings)


@pytest.mark.parametrize("name", scales())
def test_a_scale_is_its_file(name):
    found, settings = scale(name), content(name)
    assert found == read(name, settings)
    assert found.modes.data == settings["modes"]["data"]
    assert list(found.transfer) == [*settings["unseen"], *settings["domains"]]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.trials = True


def test_a_scale_refuses_a_field_twice(monkeypatch, tmp_path):
    monkeypatch.setattr(scale_module, "FOLDER", tmp_path)
    text = (FOLDER / "smoke.yaml").read_text(encoding="utf-8")
    (tmp_path / "twice.yaml").write_text(text.replace("  optimisation.lr:", "  optimisation.lr: 0.3\n  optimisation.lr:"))
    (tmp_path / "._twice.yaml").write_bytes(b"\0")
    assert scales() == ["twice"]
    with pytest.raises(InputError, match="scale='twice': has optimisation.lr twice"):
        scale("twice")


def test_settings_of_a_scale_are_refused_by_file(monkeypatch):
    for change, says in (
        ({"common": {"optimisation.epoch": 3}}, "scales/quick.yaml: common='optimisation.epoch': unknown; did you mean"),
        ({"methods": {"sl": {"epochs": 3}}}, "scales/quick.yaml: sl='epochs': write optimisation.epochs"),
    ):
        monkeypatch.setattr(config, "scale", lambda name, change=change: dataclasses.replace(scale(name), **change))
        with pytest.raises(InputError) as caught:
            resolve("quick", "sl")
        assert says in str(caught.value)


def test_settings_win_in_order(monkeypatch):
    """Of all runs < the method's own < the scale's of the method < given."""
    small = dataclasses.replace(scale("small"), common={"data": "digits", "temperature": 0.3}, methods={})
    monkeypatch.setattr(config, "scale", lambda name: small)
    assert resolve("small", "supcon").temperature == 0.3
    assert resolve("small", "moco_v1").temperature == METHODS["moco_v1"].settings["temperature"] == 0.07
    small = dataclasses.replace(small, methods={"moco_v1": {"temperature": 0.5}})
    assert resolve("small", "moco_v1").temperature == 0.5
    assert resolve("small", "moco_v1", 0, {"temperature": 0.7}).temperature == 0.7


def test_methods_by_what_they_learn_from():
    assert OF_THE_PAPERS == ("sl", "sl_mlp", "look", "trex", "trex_star")
    assert set(USING_LABELS) == {*OF_THE_PAPERS, "trex_plain", "supcon"}


def test_id_depends_on_every_setting():
    """Each setting of some method that uses it."""
    texts = {"encoder.arch": "resnet18", "encoder.stem": "conv3", "projector.activation": "none", "data": "digits"}
    texts |= {"monitor.snapshots": "final", "optimisation.precision": "auto", "ema.buffers": "average"}
    texts |= {"optimisation.capture": "off"}
    texts |= {"bank.start": "random", "bank.tail": "drop", "look.no_positive": "nearest", "look.start": "fixed"}
    special = {"augmentation": 0.123, "ema.momentum": 0.5, "ema.ramp": None, "multi_crop.global_crops": 3, "look.k": 7}
    special |= {"optimisation.batch": 77, "optimisation.final_lr": 0.0123, "bank.length": 700, "augmentation.size": 16}
    special |= {"multi_crop.local_crops": 3, "multi_crop.local_size": 12}
    seen = 0
    for name, kind in config.field_names().items():
        if name in ("method", "seed"):
            continue
        group = name.split(".")[0]
        methods = [method for method, row in METHODS.items() if group in row.groups] or ["trex"]
        method = "trex" if "trex" in methods else methods[0]
        base = resolve("quick", method)
        present = functools.reduce(getattr, name.split("."), base)
        new = special.get(name) or texts.get(name)
        if new is None:
            new = {int: 7, float: 0.123, bool: not present}.get(kind, [0.2, 0.9])
        given = {name: new}
        changed = resolve("quick", method, 0, given)
        assert functools.reduce(getattr, name.split("."), changed) != present, name
        assert changed.id != base.id, name
        assert changed.id != resolve("quick", method, 1, given).id
        seen += 1
    assert seen > 40


def test_a_setting_at_its_default_does_not_enter_the_id():
    base = resolve("quick", "sl")
    assert "cross_entropy" not in config.changed(base)
    assert dataclasses.replace(base, cross_entropy=config.CrossEntropy(label_smoothing=0.0)).id == base.id
    assert dataclasses.replace(base, cross_entropy=config.CrossEntropy(label_smoothing=0.1)).id != base.id
