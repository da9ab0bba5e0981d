"""Settings: what is refused and how it is said, run ids, scales."""

import dataclasses

import pytest

from studylib import config
from studylib.config import coerce, from_dict, resolve, to_dict
from studylib.errors import InputError


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
        ({"optimisation.batch": True}, "optimisation.batch=True: must be a whole number"),
        ({"projector.out": 8}, "use method=sl_mlp"),
        ({"encoder.arch": "resnet1"}, "valid: resnet10, resnet18, resnet50"),
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
    assert {"smoke", "quick", "small"} <= set(config.scales())
    for scale in config.scales():
        for method in config.METHODS:
            resolved = resolve(scale, method, 1)
            assert from_dict(to_dict(resolved)) == resolved
            assert resolved.name == f"{method}-{resolved.id}"


def test_id_depends_on_every_setting():
    base = resolve("quick", "sl_mlp")
    ids = {base.id, resolve("quick", "sl_mlp", 1).id, resolve("quick", "sl").id}
    changes = {
        name: {int: 7, float: 0.123, bool: None, str: None}.get(kind)
        for name, kind in config.field_names().items()
        if kind in (int, float)
    }
    changes |= {"encoder.arch": "resnet18", "encoder.stem": "conv3", "projector.activation": "gelu", "projector.bias": False}
    changes |= {"augmentation.crop_scale": [0.2, 0.9], "data": "digits", "monitor.snapshots": "final"}
    changes.pop("seed")
    for name, value in changes.items():
        ids.add(resolve("quick", "sl_mlp", 0, {name: value}).id)
    assert len(ids) == 3 + len(changes)


def test_a_setting_at_its_default_does_not_enter_the_id():
    base = resolve("quick", "sl")
    assert "cross_entropy" not in config.changed(base)
    assert dataclasses.replace(base, cross_entropy=config.CrossEntropy(label_smoothing=0.0)).id == base.id
    assert dataclasses.replace(base, cross_entropy=config.CrossEntropy(label_smoothing=0.1)).id != base.id
