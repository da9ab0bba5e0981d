"""Parameters files of published table rows: the launcher and the configuration take them, and no row was forgotten."""

import re
from importlib import resources
from pathlib import Path

import pytest

from studylib import grids, papers, paths, values
from studylib.config import RunConfig, resolve
from studylib.publishing import launch

NOTEBOOK = paths.NOTEBOOKS / "pretrain.ipynb"
FOLDER = paths.NOTEBOOKS / "parameters"
FILES = sorted(FOLDER.rglob("*.yaml"))
PAPERS = sorted(
    file.name.removesuffix(".yaml")
    for file in (resources.files("studylib") / "papers").iterdir()
    if file.name.endswith(".yaml")
)

CANNOT = {
    ("trex", "paws"): "semi-supervised: its loss on a labelled support set is not here",
    ("trex", "rsb_a1"): "needs mixup, CutMix, binary cross entropy and LAMB; the grid strong_recipe stands in for it",
    ("trex", "unnamed_on_the_envelope"): "the figure does not say what they are",
}
SAME = {("look", "look_multi_crop"): "trex/look_multi_crop"}  # the same point of the same figure


def row_of(table: str, row: dict) -> str | None:
    """The file's name that belongs to a row of a published table; None for rows that are no trained model."""
    name = row.get("model") or row.get("variant")
    if name is None:
        return None
    name = re.sub(r" \(.*\)", "", name).lower().replace("t-rex", "trex").replace("*", " star")
    name = re.sub(r"[^a-z0-9]+", "_", name).strip("_")
    return f"{table}_{name}" if "variant" in row else name


ROWS = sorted(
    {
        (paper, name, row.get("method", ""))
        for paper in PAPERS
        for table, content in papers.load(paper)["tables"].items()
        for row in content["rows"]
        if (name := row_of(table, row))
    }
)


def config_of(file: Path) -> RunConfig:
    given = launch.coerce(launch.declared(NOTEBOOK), launch.parameters_file(file))
    return resolve(given["scale"], given["method"], given.get("seed", 0), values.assignments(given.get("settings", "").split()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_notebook_and_the_configuration_take_every_file(file):
    config = config_of(file)
    given = launch.parameters_file(file)
    assert config.method == given["method"] and given["scale"] in ("paper", "small")
    command = f"# studylib run notebooks/pretrain.ipynb -f notebooks/parameters/{file.relative_to(FOLDER).as_posix()}"
    assert command in file.read_text().splitlines()  # it says how it is used


@pytest.mark.parametrize(("paper", "name", "method"), ROWS)
def test_every_published_row_has_a_file_or_a_reason(paper, name, method):
    if (paper, name) in CANNOT:
        assert not method and CANNOT[paper, name]
        return
    file = FOLDER / f"{SAME.get((paper, name), f'{paper}/{name}')}.yaml"
    assert file in FILES
    assert method in ("", config_of(file).method)


def test_the_list_of_what_cannot_be_trained_is_not_stale():
    assert set(CANNOT) <= {(paper, name) for paper, name, _ in ROWS}


def test_every_file_belongs_to_a_row():
    known = {SAME.get((paper, name), f"{paper}/{name}") for paper, name, _ in ROWS} | {
        "sl_mlp/sl_mlp"
    }  # its gains have no rows
    assert {file.relative_to(FOLDER).with_suffix("").as_posix() for file in FILES} <= known


def test_rows_that_a_grid_has_are_the_same_runs():
    def of(name):
        return config_of(FOLDER / f"{name}.yaml")

    for job in grids.components("small", 1, {"data": "cifar100"}):
        assert of(f"sl_mlp/components_{job.variant.replace('+', '_')}") == job.config
    pairs = {job.variant: job.config for job in grids.with_and_without("paper", 1)}
    assert of("sl_mlp/byol") == pairs["byol on"] and of("sl_mlp/byol_without_mlp") == pairs["byol off"]
    assert of("sl_mlp/moco_v2") == pairs["moco_v2 on"]
    buildup = {job.variant: job.config for job in grids.trex_buildup("paper", 1)}
    assert of("trex/look_multi_crop") == buildup["LOOK + multi-crop"] and of("trex/trex") == buildup["+ OCM"]
