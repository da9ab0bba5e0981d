"""The notebooks: what they may hold, and that each runs through the launcher at scale ``smoke``."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from studylib import paths
from studylib.publishing import launch

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
NAMES = [file.stem for file in NOTEBOOKS]


def source(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.fixture(scope="session")
def shared_runs(tmp_path_factory, glyph_cache: Path) -> Path:
    """One runs folder for all notebooks and test processes, as a user has: what one has trained the next one finds."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "notebook-runs"
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    (glyph_cache / "data").mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (folder / "cache" / "data").symlink_to(glyph_cache / "data")
    return folder


def execute(notebook: Path, runs: Path, output: Path) -> dict:
    """The executed copy of a notebook at test size."""
    done = subprocess.run(
        [sys.executable, "-m", "studylib", "run", str(notebook), "--scale", "smoke", "-o", str(output)],
        env=os.environ | {"STUDYLIB_RUNS": str(runs)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(output.read_text())


def test_there_are_notebooks():
    numbered = ("quickstart", "look", "sl_mlp", "trex", "projector_ablation", "feature_analysis", "transfer_gap", "claims")
    expected = {f"{number:02d}_{name}" for number, name in enumerate(numbered)}
    assert set(NAMES) == expected | {"08_protocols", "pretrain"}


def test_figures_and_tables_have_the_same_bytes_when_nothing_changed(shared_runs: Path, tmp_path: Path):
    notebook = paths.NOTEBOOKS / "00_quickstart.ipynb"
    execute(notebook, shared_runs, tmp_path / "first.ipynb")
    folder = shared_runs / "figures" / "smoke" / "00_quickstart"
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {Path(name).suffix for name in first} == {".pdf", ".png", ".csv", ".json", ".md", ".tex"}
    execute(notebook, shared_runs, tmp_path / "again.ipynb")
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

    def test_runs_at_smoke(self, notebook: Path, shared_runs: Path, tmp_path: Path):
        executed = execute(notebook, shared_runs, tmp_path / notebook.name)
        code = [cell for cell in executed["cells"] if cell["cell_type"] == "code" and source(cell).strip()]
        assert all(cell["execution_count"] for cell in code)
        errors = [
            out for cell in code for out in cell["outputs"] if out.get("name") == "stderr" or out["output_type"] == "error"
        ]
        assert not errors, errors
