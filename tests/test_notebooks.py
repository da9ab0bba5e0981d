"""The notebooks: what they may hold, and that each runs through the launcher at scale ``smoke``."""

import json
import re
from pathlib import Path

import pytest

from studylib import cli, paths
from studylib.publishing import launch, reproduce

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
NAMES = [file.stem for file in NOTEBOOKS]


def source(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, glyph_cache: Path) -> Path:
    """One runs folder for all notebooks, with all runs of scale ``smoke``, as `reproduce` carries them out."""
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "cache").mkdir()
    (folder / "cache" / "data").symlink_to(glyph_cache / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYLIB_RUNS", str(folder))
        reproduce.compute("smoke")
    return folder


def test_there_are_notebooks():
    numbered = ("quickstart", "look", "sl_mlp", "trex", "projector_ablation", "feature_analysis", "transfer_gap", "claims")
    expected = {f"{number:02d}_{name}" for number, name in enumerate(numbered)}
    assert set(NAMES) == expected | {"08_protocols", "09_regime", "pretrain"}


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=NAMES)
def test_runs_at_smoke(notebook: Path, runs: Path, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(runs))
    assert launch.execute(notebook, {"scale": "smoke"}) == 0
    executed = json.loads((runs / "notebooks" / notebook.name).read_text())
    code = [cell for cell in executed["cells"] if cell["cell_type"] == "code" and source(cell).strip()]
    assert all(cell["execution_count"] for cell in code)
    errors = [out for cell in code for out in cell["outputs"] if out.get("name") == "stderr" or out["output_type"] == "error"]
    assert not errors, errors
    said = "".join("".join(out.get("text", "")) for cell in code for out in cell["outputs"])
    left = re.findall(r", (\d+) to be computed", said)
    assert notebook.stem == "pretrain" or set(left) <= {"0"}  # the grids hold all runs of the notebooks


@pytest.mark.slow
def test_figures_and_tables_have_the_same_bytes_when_nothing_changed(runs: Path, monkeypatch):
    """By the command line, after `test_runs_at_smoke`."""
    monkeypatch.setenv("STUDYLIB_RUNS", str(runs))
    if not (runs / "figures" / "smoke" / "00_quickstart").exists():  # this test alone
        launch.execute(paths.NOTEBOOKS / "00_quickstart.ipynb", {"scale": "smoke"})
    folder = runs / "figures" / "smoke" / "00_quickstart"
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {Path(name).suffix for name in first} == {".pdf", ".png", ".csv", ".json", ".md", ".tex"}
    assert cli.main(["run", str(paths.NOTEBOOKS / "00_quickstart.ipynb"), "--scale", "smoke"]) == 0
    again = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert [name for name in first if again[name] != first[name]] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=NAMES)
class TestWhatTheyHold:
    def test_parameters_are_typed_scalars_with_a_help_text(self, notebook: Path):
        cells = launch.read(notebook)["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        assert len(tagged) == 1
        parameters = launch.declared(notebook)
        assert parameters
        assert all(parameter.help for parameter in parameters.values())

    def test_outputs_and_churn_are_stripped(self, notebook: Path):
        content = launch.read(notebook)
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == []
                assert cell["execution_count"] is None
            assert set(cell["metadata"]) <= {"tags"}
        # Without these two, papermill's own command line asks for a kernel; with more, every save makes a difference.
        kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        assert content["metadata"] == {"kernelspec": kernel, "language_info": {"name": "python"}}

    def test_no_absolute_paths(self, notebook: Path):
        text = "\n".join(source(cell) for cell in launch.read(notebook)["cells"])
        assert not [
            start for start in ("/home/", "/work/", "/root/", "/Users/", "/tmp/", "/mnt/", "~/", "C:\\") if start in text
        ]
