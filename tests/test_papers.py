"""Published values: each has a public source, none is from memory, and they say what the sources say."""

import math
from importlib import resources

import pytest
import yaml

from studylib import papers
from studylib.errors import InputError

NAMES = sorted(
    file.name.removesuffix(".yaml")
    for file in (resources.files("studylib") / "papers").iterdir()
    if file.name.endswith(".yaml")
)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_a_source(name):
    text = (resources.files("studylib") / "papers" / f"{name}.yaml").read_text()
    assert "MEM" not in text and "UNKNOWN" not in text
    content = papers.load(name)
    for table in content["tables"]:
        frame = papers.published(name, table)
        assert len(frame) and frame["source"].str.len().min() > 10, table
        assert set(frame["tag"]) <= {"SRC", "DIG", "CALC"}, table
        if "DIG" in set(frame["tag"]):
            assert (frame["error"] > 0).all(), table
    for claim, entry in content["claims"].items():
        assert entry["statement"] and entry["published"], claim
        quoted = any(mark.isdigit() for mark in entry["published"])
        assert not quoted or len(entry["source"]) > 10, claim  # a number has a source
        assert entry["tests"] or entry["command"], claim


def test_stagewise_values_of_sl_mlp():
    frame = papers.published("sl_mlp", "stagewise")
    assert len(frame) == 35 and not frame["value"].isna().any()
    wide = frame.pivot(index="model", columns="stage", values="value")
    gains = (wide[5] - wide[4]).round(1).to_dict()
    assert gains["SL"] == -11.1 and gains["BYOL"] == 9.9 and gains["BYOL without MLP"] == -9.0
    assert gains["MoCo v1 with MLP"] == 2.3 and gains["MoCo v2"] == 2.6
    assert (wide.loc["SL", [1, 2, 3, 4]] == wide[[1, 2, 3, 4]].max()).all()  # SL is the best up to stage 4
    assert wide.loc["SL", 5] < wide.loc[["BYOL", "MoCo v1 with MLP", "MoCo v2"], 5].min()


def test_components_of_the_independent_study():
    values = papers.published("sl_mlp", "components").set_index("variant")["value"].to_dict()
    assert len(values) == 8 and max(values, key=values.get) == "linear+bn+relu" and values["none"] == 46.74
    assert math.isclose(values["bn"] - values["linear"], 9.74, abs_tol=1e-9)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="did you mean 'sl_mlp'"):
        papers.load("sl_mpl")
    with pytest.raises(InputError, match="did you mean 'stagewise'"):
        papers.published("sl_mlp", "stagewize")


@pytest.mark.parametrize(("field", "value"), [("tag", "MEM"), ("tag", None), ("source", ""), ("source", None)])
def test_a_table_without_source_or_with_a_memory_is_refused(monkeypatch, field, value):
    content = yaml.safe_load((resources.files("studylib") / "papers" / "sl_mlp.yaml").read_text())
    content["tables"]["stagewise"][field] = value
    monkeypatch.setattr(papers.yaml, "safe_load", lambda text: content)
    papers.load.cache_clear()
    try:
        with pytest.raises(InputError, match="stagewise"):
            papers.load("sl_mlp")
    finally:
        papers.load.cache_clear()
