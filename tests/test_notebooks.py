"""The notebooks: what they may hold, and that each runs through the launcher at scale ``smoke``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from studylib import launch, paths

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
NAMES = [file.stem for file in NOTEBOOKS]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_there_are_notebooks():
    assert {"00_quickstart", "01_look", "02_sl_mlp", "06_transfer_gap", "08_protocols"} <= set(NAMES)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=NAMES)
class TestWhatTheyHold:
    def test_parameters_are_typed_scalars_with_a_help_text(self, notebook: Path):
        cells = launch.read(notebook)["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        assert len(tagged) == 1
        parameters = launch.declared(notebook)
        assert parameters
        assert all(parameter.help for parameter in parameters.values())

    def test_code_is_short_and_defines_nothing(self, notebook: Path):
        code = [source(cell) for cell in launch.read(notebook)["cells"] if cell["cell_type"] == "code"]
        assert 1 <= len(code) <= 15
        lines = [line.strip() for cell in code for line in cell.splitlines()]
        assert not [line for line in lines if line.startswith(("def ", "async def ", "class "))]

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

    def test_runs_at_smoke(self, notebook: Path, tmp_path: Path, glyph_cache: Path):
        runs = tmp_path / "runs"
        (glyph_cache / "data").mkdir(exist_ok=True)
        (runs / "cache").mkdir(parents=True)
        (runs / "cache" / "data").symlink_to(glyph_cache / "data")
        declared = launch.declared(notebook)
        given = ["--scale", "smoke"] if "scale" in declared else []
        if notebook.stem in ("06_transfer_gap", "08_protocols"):
            given += ["-p", "seeds=1"]  # one run of every method; two add nothing but time
        done = subprocess.run(
            [sys.executable, "-m", "studylib", "run", str(notebook), *given],
            env=os.environ | {"STUDYLIB_RUNS": str(runs)},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        executed = json.loads((runs / "notebooks" / notebook.name).read_text())
        code = [cell for cell in executed["cells"] if cell["cell_type"] == "code" and source(cell).strip()]
        assert all(cell["execution_count"] for cell in code)
        errors = [
            out for cell in code for out in cell["outputs"] if out.get("name") == "stderr" or out["output_type"] == "error"
        ]
        assert not errors, errors
