"""What a notebook asks of `Notebook` beside planned grids: parts of a grid, computed results, encoders in files, one run."""

from pathlib import Path

import pytest
import torch

from studylib import config, grids, study
from studylib.config import resolve
from studylib.errors import InputError
from studylib.models.encoder import Encoder
from studylib.notebook import Notebook
from studylib.report import claims


def test_a_figure_can_need_some_rows_of_a_grid(capsys):
    book = Notebook("some", scale="smoke", seeds=0, settings="")
    book.jobs = {"projector": grids.projector("smoke"), "strong_recipe": []}
    assert {job.variant for job in book.jobs["projector"]} == {"depth 0", "depth 1", "quarter width"}
    assert not book.left_out("projector")
    assert not book.left_out("projector", ["no batch norm", "quarter width"])
    assert capsys.readouterr().out == ""
    book.figure("none", None, pytest.fail, grid="projector", needs=["no batch norm"])  # is not drawn
    assert "studylib grid projector --scale smoke" in capsys.readouterr().out
    assert book.left_out("strong_recipe", ["strong"])


def test_one_run_alone(runs, capsys):
    book = Notebook("pretrain", scale="smoke", settings="optimisation.epochs=3", method="look", seed=1)
    run = book.single("look", 1)
    assert run.config == resolve("smoke", "look", 1, {"optimisation.epochs": 3})
    assert book.lineage["runs"] == [run.name]
    given = {"scale": "smoke", "settings": "optimisation.epochs=3", "method": "look", "seed": 1}
    assert book.lineage["parameters"] == given
    assert [(job.config, job.evaluations) for job in book.every] == [(run.config, ())]
    assert "1 of them to be trained" in capsys.readouterr().out


def test_what_is_not_computed_has_no_rows_and_is_counted(runs, capsys):
    book = Notebook("07_claims", scale="smoke", seeds=0, compute=False)
    tables = book.computed(*claims.grids_of())
    assert set(tables) == set(claims.grids_of()) <= set(grids.GRIDS)
    assert all(table.empty and list(table) == study.COLUMNS for table in tables.values())
    assert book.lineage["runs"] == []
    assert f"0 runs; {len(book.every)} that are planned are not computed" in capsys.readouterr().out
    with pytest.raises(InputError, match="did you mean 'methods'"):
        book.computed("method")


def test_encoders_in_files_are_named_in_the_lineage(runs, tmp_path: Path):
    book = Notebook("08_protocols", scale="smoke", seeds=0, settings="")
    with pytest.raises(InputError, match="is not a file"):
        book.add_encoders(str(tmp_path / "nothing.pth"), 64)
    files = [tmp_path / "one.pth", tmp_path / "two.pth"]
    for number, file in enumerate(files):
        weights = Encoder(config.Encoder(width=1)).state_dict()
        torch.save({"weights": weights | {"bn1.bias": torch.full((1,), float(number))}}, file)
    book.lineage["runs"] = ["sl-1"]
    book.add_encoders(" ".join(map(str, files)), 64)
    assert [name.partition("-")[0] for name in book.lineage["runs"]] == ["one", "sl", "two"]
    assert list(book.all_results()) == study.COLUMNS


def test_moments_of_sl_and_sl_mlp_are_those_before_the_end():
    jobs = grids.sl_mlp_moments("smoke")
    assert {job.variant for job in jobs} == {"sl", "sl_mlp"}
    assert {job.config for job in jobs} <= {job.config for job in grids.features("smoke")}
    epochs = {one.epoch for job in jobs for one in job.evaluations}
    assert epochs == {0, 1, None}  # of two; at the end only how far they have learned their own classes
    assert all(grids.learns(one) for job in jobs for one in job.evaluations if one.epoch is None)
    assert {one.dataset for job in jobs for one in job.evaluations} == {"glyphs/few", "glyphs_georgian/few"}
