"""The object that every notebook works with, and the limits that keep notebooks short."""

import ast
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from studylib import data, grids, notebook, paths, report
from studylib.config import scale
from studylib.errors import InputError
from studylib.notebook import Notebook
from studylib.publishing import launch
from studylib.report import style

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
LINES_OF_A_CELL, LINES_OF_ALL = 8, 600


def code(file: Path) -> list[str]:
    """The code cells of a notebook."""
    return ["".join(cell["source"]) for cell in launch.read(file)["cells"] if cell["cell_type"] == "code"]


def lines(cell: str) -> int:
    return sum(bool(line.strip()) for line in cell.splitlines())


@pytest.fixture
def nothing_runs(monkeypatch) -> None:
    """A call that would compute something fails."""

    def refuse(*_args, **_options):
        raise AssertionError("something was run")

    monkeypatch.setattr(notebook.study, "run", refuse)


def dots(frame: pd.DataFrame, *, colour: str = "black"):
    """A figure of the shape that `report`'s have."""
    figure = style.canvas(1, 1.0)
    figure.subplots().plot(frame["value"], color=colour)
    return figure, frame


FRAME = pd.DataFrame({"value": [1.0, 2.0]})


class TestNotebooksAreShort:
    def test_a_cell_has_at_most_eight_lines_of_code(self):
        longest = {file.stem: max(map(lines, code(file))) for file in NOTEBOOKS}
        assert longest and {name: most for name, most in longest.items() if most > LINES_OF_A_CELL} == {}

    def test_all_have_at_most_six_hundred_lines_of_code(self):
        assert 0 < sum(lines(cell) for file in NOTEBOOKS for cell in code(file)) <= LINES_OF_ALL

    @pytest.mark.parametrize("file", NOTEBOOKS, ids=[file.stem for file in NOTEBOOKS])
    def test_nothing_is_defined_and_nothing_guarded(self, file: Path):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.For, ast.While, ast.Try)
        found = [type(node).__name__ for cell in code(file) for node in ast.walk(ast.parse(cell)) if isinstance(node, kinds)]
        assert found == []

    @pytest.mark.parametrize("file", NOTEBOOKS, ids=[file.stem for file in NOTEBOOKS])
    def test_the_cell_of_a_figure_says_what_is_drawn(self, file: Path):
        silent = [cell for cell in code(file) if re.search(r"study\.(figure|pictures)\(", cell) and not cell.startswith("# ")]
        assert silent == []


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"scale": "quik"}, ["scale", "quik", "quick"]),
            ({"scale": "smoke", "seeds": -1}, ["seeds", "-1", "0"]),
            ({"scale": "smoke", "seeds": 1.5}, ["seeds", "1.5", "whole number"]),
            ({"scale": "smoke", "settings": "optimisation.epoch=1"}, ["optimisation.epoch", "optimisation.epochs"]),
            ({"scale": "smoke", "settings": "optimisation.epochs"}, ["settings", "name=value"]),
            ({"scale": "smoke", "settings": "'encoder.width=8"}, ["settings", "No closing quotation"]),
            ({"scale": "smoke", "settings": "optimisation.epochs=-1"}, ["optimisation.epochs", "-1", "0"]),
        ],
    )
    def test_before_anything_runs(self, nothing_runs, given: dict, said: list[str]):
        with pytest.raises(InputError) as refused:
            Notebook("test", **given)
        assert [word for word in said if word not in str(refused.value)] == []

    def test_an_unknown_grid_when_it_is_planned(self, nothing_runs):
        with pytest.raises(InputError, match="trex_depth"):
            Notebook("test", scale="smoke").plan("trex_deep")

    def test_a_figure_of_a_grid_that_is_not_planned(self, runs: Path):
        study = Notebook("test", scale="smoke")
        study.plan("trex_depth")
        with pytest.raises(InputError, match="trex_depth"):
            study.figure("x", FRAME, dots, grid="trex_dept")


class TestWhatTheScaleLeavesOut:
    @pytest.fixture
    def study(self, runs: Path) -> Notebook:
        """Of its two grids `quick` plans ``comparison`` alone."""
        study = Notebook("test", scale="quick")
        study.plan("comparison", "trex_memory")
        assert study.jobs["comparison"] and not study.jobs["trex_memory"]
        return study

    def test_one_sentence_with_the_command_stands_for_figures_tables_and_pictures(self, study: Notebook, runs: Path, capsys):
        capsys.readouterr()
        study.figure("x", FRAME, dots, grid="trex_memory")
        assert capsys.readouterr().out == grids.left_out("trex_memory", "quick") + "\n"
        study.table("y", FRAME, grid="trex_memory", rows=("no such column",))
        assert "studylib grid trex_memory --scale quick" in capsys.readouterr().out
        study.pictures("z", "no such set", dots, grid="trex_memory")
        assert "studylib grid trex_memory --scale quick" in capsys.readouterr().out
        assert study.features("trex_memory", "no such set") == {}
        assert not (runs / "figures").exists()

    def test_a_cell_says_it_once(self, study: Notebook, capsys, monkeypatch):
        capsys.readouterr()
        monkeypatch.setattr(notebook, "cell", lambda: 7)
        study.figure("x", FRAME, dots, grid="trex_memory")
        study.table("y", FRAME, grid="trex_memory")
        assert capsys.readouterr().out.count("left out") == 1
        monkeypatch.setattr(notebook, "cell", lambda: 8)
        study.table("y", FRAME, grid="trex_memory")
        assert capsys.readouterr().out.count("left out") == 1

    def test_of_several_grids_one_is_enough(self, study: Notebook, runs: Path):
        study.figure("x", FRAME, dots, grid=("trex_memory", "comparison"))
        assert (runs / "figures" / "quick" / "test" / "x.png").exists()

    def test_the_plan_says_it_as_well(self, runs: Path, capsys):
        Notebook("test", scale="quick").plan("comparison", "trex_memory")
        said = capsys.readouterr().out
        assert grids.left_out("trex_memory", "quick") in said and "left out: studylib/scales/quick.yaml" in said
        assert "comparison 2" in said and "2 runs, 2 to be computed" in said


class TestLineage:
    def test_names_runs_parameters_and_all_settings(self, runs: Path):
        study = Notebook("test", scale="quick", seeds=1, settings="optimisation.epochs=3", other=5)
        study.plan("trex_depth")
        study.figure("x", FRAME, dots, grid="trex_depth", colour="red")
        made = json.loads((runs / "figures" / "quick" / "test" / "x.json").read_text())
        assert made["runs"] == sorted(job.config.name for job in study.jobs["trex_depth"])
        assert made["parameters"] == {"other": 5, "scale": "quick", "seeds": 1, "settings": "optimisation.epochs=3"}
        shared, differing = report.settings((job.variant, job.config) for job in study.every)
        assert made["settings"] == {"shared": shared, "variants": differing.to_dict("records")}
        assert shared["optimisation.epochs"] == "3"
        assert "projector.hidden_layers=3" in [row["Differs in"] for row in made["settings"]["variants"]]

    def test_settings_are_not_printed(self, runs: Path, capsys):
        Notebook("test", scale="quick").plan("trex_depth")
        said = capsys.readouterr().out
        assert "encoder.width" not in said and len(said.splitlines()) == 3

    def test_others_images_are_not_published(self, runs: Path, monkeypatch):
        study = Notebook("test", scale="smoke")
        study.plan("comparison")
        study.pictures("samples", study.upstream, report.training_samples, per_class=2)
        made = runs / "figures" / "smoke" / "test" / "samples.json"
        assert json.loads(made.read_text())["runs"] == []
        assert json.loads(made.read_text())["data"] == {study.upstream: data.load(study.upstream).checksum}
        monkeypatch.setattr(data, "EMBEDDED", ())
        study.pictures("others", study.upstream, report.training_samples, per_class=2)
        assert (runs / "pictures" / "smoke" / "others.png").exists()
        assert not (runs / "figures" / "smoke" / "test" / "others.png").exists()


def test_settings_in_quotes_may_hold_blanks():
    given = "'augmentation.crop_scale=[0.3, 1.0]' encoder.width=4"
    assert Notebook("test", scale="smoke", settings=given).overrides == {
        "augmentation.crop_scale": "[0.3, 1.0]",
        "encoder.width": "4",
    }


def test_settings_of_a_method_alone_are_those_of_the_notebook_that_takes_it():
    assert Notebook("pretrain", scale="smoke", settings="look.k=8", method="look").overrides == {"look.k": "8"}
    with pytest.raises(InputError, match="look={'k': 8}: sl does not use it"):
        Notebook("03_trex", scale="smoke", settings="look.k=8")


def test_data_sets_are_those_of_the_scale():
    study, content = Notebook("test", scale="quick"), scale("quick")
    assert study.upstream == content.upstream
    assert (study.unseen, study.domains) == (list(content.unseen), list(content.domains))
    assert study.transfer == list(content.transfer)
    assert study.caption == f"quick: {content.about}; no further settings"


def test_a_part_of_a_grid_takes_its_place(runs: Path):
    study = Notebook("test", scale="quick", seeds=1)
    study.plan("components", fine_tuning=grids.sl_mlp_fine_tuning)
    assert list(study.jobs) == ["components", "fine_tuning"]
    assert {job.variant for job in study.jobs["fine_tuning"]} == {"sl", "sl_mlp"}
    assert len({job.config for job in study.every}) == len(study.every)  # a run of two grids is there once


def test_where_a_run_is_not_here_a_sentence_stands_for_what_needs_its_weights(runs: Path, capsys):
    study = Notebook("test", scale="quick", seeds=1)
    study.plan("comparison")
    capsys.readouterr()
    features = study.features("comparison", study.upstream)
    said = capsys.readouterr().out
    assert features is None
    assert all(job.config.name in said for job in study.jobs["comparison"]) and "studylib restore" in said
    study.figure("x", features, dots, grid="comparison")
    study.pictures("y", study.upstream, report.class_modes, grid="comparison", features=features)
    assert list(runs.rglob("*.png")) == []


def test_rows_that_the_scale_leaves_out_are_named(runs: Path):
    study = Notebook("test", scale="quick")
    assert study.variants("trex_depth") == ["depth 0", "depth 1", "depth 2", "depth 3"]


def test_run_prints_a_line_for_each_run_and_gives_tables(runs: Path, capsys, monkeypatch):
    study = Notebook("test", scale="quick")
    study.plan("trex_depth", "trex_memory")
    monkeypatch.setattr(notebook.study, "run", lambda jobs: None)
    capsys.readouterr()
    results = study.run()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [job.config.name for job in study.every]
    assert results.trex_depth.empty and results.trex_memory.empty and set(study.tables) == {"trex_depth", "trex_memory"}
