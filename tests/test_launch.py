"""The launcher: what it refuses, and that nothing failed looks like success. Kernels take seconds to start, so few do."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studylib.errors import InputError
from studylib.publishing import launch

pytestmark = pytest.mark.slow

PARAMETERS = """scale: str = "quick"  # size of the study
seeds: int = 3  # how many seeds
lr: float = 1e-3  # learning rate
flip: bool = True  # mirror images
"""


def write_notebook(path: Path, *cells: str, parameters: str | None = None) -> Path:
    """A notebook of code cells, the first tagged ``parameters`` if there are any."""
    tagged = [({"tags": ["parameters"]}, parameters)] if parameters is not None else []
    code = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": metadata,
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for number, (metadata, source) in enumerate([*tagged, *(({}, cell) for cell in cells)])
    ]
    path.write_text(json.dumps({"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def studylib(*arguments: object, runs: Path) -> subprocess.Popen:
    """The command line as a user starts it, without an activated environment."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment |= {"STUDYLIB_RUNS": str(runs)}
    command = [sys.executable, "-m", "studylib", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def declared(tmp_path: Path) -> dict[str, launch.Parameter]:
    return launch.declared(write_notebook(tmp_path / "n.ipynb", parameters=PARAMETERS))


def test_declared_reads_name_type_default_and_help(declared):
    assert list(declared) == ["scale", "seeds", "lr", "flip"]
    assert declared["lr"] == launch.Parameter(name="lr", type=float, default=1e-3, help="learning rate")
    assert declared["seeds"].help == "how many seeds"


@pytest.mark.parametrize(
    "source",
    [
        "seeds = 3",
        "seeds: list = [1]",
        "seeds: int = 1 + n",
        "import os",
        "seeds: int = '3'",
        "flip: int = True",
        "seeds: int",
        "x =",
        "seeds: int = 1\nseeds: int = 2",
    ],
)
def test_declared_refuses_anything_but_typed_scalars_each_once(tmp_path, source):
    with pytest.raises(InputError, match="parameters cell must read|not of the declared type|parameters cell has seeds twice"):
        launch.declared(write_notebook(tmp_path / "n.ipynb", parameters=source))


def test_declared_refuses_two_tagged_cells_and_what_is_no_notebook(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", parameters="a: int = 1")
    content = json.loads(notebook.read_text())
    notebook.write_text(json.dumps(content | {"cells": content["cells"] * 2}))
    with pytest.raises(InputError, match="2 cells are tagged"):
        launch.declared(notebook)
    for text in ("not json", "[]", "{}", '{"nbformat": 3, "worksheets": []}', '{"nbformat": 4, "cells": [1]}'):
        notebook.write_text(text)
        with pytest.raises(InputError, match="notebook"):
            launch.declared(notebook)
    with pytest.raises(InputError, match=r"no such file; there are n\.ipynb"):
        launch.declared(tmp_path / "m.ipynb")


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("scale", "quick", "quick"), ("scale", "007", "007"), ("scale", "2024", "2024"), ("scale", "true", "true"),
        ("seeds", "007", 7), ("seeds", 3.0, 3), ("seeds", "3.0", 3), ("seeds", "1e3", 1000), ("seeds", -1, -1),
        ("seeds", str(2**62 + 1), 2**62 + 1),
        ("lr", "1e-3", 1e-3), ("lr", "5e-4", 5e-4), ("lr", "1", 1.0), ("lr", 2, 2.0), ("lr", ".5", 0.5),
        ("flip", "true", True), ("flip", "false", False), ("flip", "False", False), ("flip", True, True),
    ],
)  # fmt: skip
def test_coerce_reads_values_as_declared(declared, name, given, expected):
    found = launch.coerce(declared, {name: given})[name]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("scale", 7), ("scale", None), ("scale", True), ("seeds", 3.5), ("seeds", "3.5"), ("seeds", "three"), ("seeds", True),
        ("seeds", ""), ("seeds", "nan"), ("seeds", "1e400"), ("seeds", None), ("seeds", [3]), ("lr", "fast"), ("lr", "nan"),
        ("lr", "inf"), ("lr", "1e999"), ("lr", False), ("lr", float("nan")), ("flip", "yes"), ("flip", "1"), ("flip", 1),
        ("flip", "None"), ("flip", {}),
    ],
)  # fmt: skip
def test_coerce_refuses_other_types(declared, name, given):
    with pytest.raises(InputError, match=f"^{name}[=:]"):
        launch.coerce(declared, {name: given})


def test_unknown_name_is_refused_with_the_nearest(declared):
    with pytest.raises(InputError, match="did you mean 'seeds'"):
        launch.coerce(declared, {"seed": 1})
    with pytest.raises(InputError, match="has no parameters"):
        launch.coerce({}, {"seed": 1})


def test_parameters_file_keeps_what_was_written(tmp_path, declared):
    file = tmp_path / "p.yaml"
    file.write_text("scale: 007\nseeds: 3.0\nlr: 1e-3\nflip: false\n")
    assert launch.coerce(declared, launch.parameters_file(file)) == {"scale": "007", "seeds": 3, "lr": 1e-3, "flip": False}
    file.write_text("scale: on\n")
    assert launch.parameters_file(file) == {"scale": "on"}
    for text in ("- 1\n", "3", "", "a: [1", "scale: quick\nseeds: 2\nscale: smoke\n", "a: {b: 1, b: 2}"):
        file.write_text(text)
        with pytest.raises(InputError, match="parameters file"):
            launch.parameters_file(file)
    with pytest.raises(InputError, match="parameters file"):
        launch.parameters_file(tmp_path / "none.yaml")


def test_bad_input_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "runs"))
    notebook = write_notebook(tmp_path / "n.ipynb", "raise SystemExit(9)", parameters=PARAMETERS)
    for given in ({"seed": 1}, {"seeds": "x"}, {"seeds": -1}, {"scale": "quik"}):
        with pytest.raises(InputError):
            launch.execute(notebook, given)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(InputError, match="is the notebook itself"):
        launch.execute(notebook, output=notebook)
    with pytest.raises(InputError, match="output=.*: is a folder; name a file in it"):
        launch.execute(notebook, output=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="output="):
        launch.execute(notebook, output=tmp_path / "file" / "out.ipynb")


def test_run_uses_this_python_the_values_given_and_keeps_the_copy(tmp_path):
    cell = "import json, sys\nprint(json.dumps([sys.executable, scale, seeds, lr, flip]))"
    notebook = write_notebook(tmp_path / "n.ipynb", cell, parameters=PARAMETERS)
    before = notebook.read_bytes()
    (tmp_path / "p.yaml").write_text("lr: 1e-4\nflip: false\nseeds: 9\n")
    output = tmp_path / "new {folder}" / "out.ipynb"
    arguments = ("run", notebook, "--scale", "smoke", "-f", tmp_path / "p.yaml", "-p", "seeds=2", "-o", output)
    process = studylib(*arguments, runs=tmp_path / "runs")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(said.splitlines()[0]) == [sys.executable, "smoke", 2, 1e-4, False]
    assert said.splitlines()[-1] == f"executed copy: {output}"
    assert errors == ""
    assert "smoke" in output.read_text()
    assert sorted(file.name for file in output.parent.iterdir()) == [".out.ipynb.lock", "out.ipynb"]
    assert notebook.read_bytes() == before


@pytest.mark.parametrize(
    ("cell", "code", "message"),
    [
        ("from studylib.errors import InputError\nraise InputError('data', 'x', 'unknown')", 2, "error: data='x': unknown"),
        ("raise SystemExit(3)", 3, "error: In [1] ended the notebook with exit code 3"),
        ("1 / 0", 1, "error: In [1]: ZeroDivisionError: division by zero"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", 1, "the kernel died"),
    ],
)
def test_exit_code_is_that_of_the_notebook(tmp_path, cell, code, message):
    notebook = write_notebook(tmp_path / "n.ipynb", cell, "print('not reached')")
    process = studylib("run", notebook, runs=tmp_path / "runs")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert message in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert "not reached" not in said
    assert (tmp_path / "runs" / "notebooks" / "n.ipynb").exists()
    assert not list((tmp_path / "runs" / "notebooks").glob("*.partial.ipynb"))


def test_sigterm_reaches_the_kernel_and_waits_for_its_save(tmp_path):
    allowed, saved = tmp_path / "allowed", tmp_path / "saved"
    cell = (
        "import pathlib, signal, time\n"
        "def save(*_):\n"
        f"    while not pathlib.Path({str(allowed)!r}).exists():\n        time.sleep(0.05)\n"
        f"    pathlib.Path({str(saved)!r}).touch()\n    raise SystemExit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True)\ntime.sleep(100)"
    )
    notebook = write_notebook(tmp_path / "n.ipynb", cell, "print('not reached')")
    process = studylib("run", notebook, runs=tmp_path / "runs")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert studylib_refuses_a_second_writer(notebook, tmp_path / "runs")
    process.send_signal(signal.SIGTERM)  # a repeated signal must not cut the saving short
    time.sleep(0.5)
    allowed.touch()
    said, errors = process.communicate(timeout=60)
    assert process.returncode == launch.RESUME_EXIT
    assert saved.exists()
    assert "run it again" in errors
    assert "not reached" not in said
    assert "ready" in (tmp_path / "runs" / "notebooks" / "n.ipynb").read_text()


def studylib_refuses_a_second_writer(notebook: Path, runs: Path) -> bool:
    """Whether a second run to the same copy, while the first still writes, leaves with one line."""
    process = studylib("run", notebook, runs=runs)
    _, errors = process.communicate(timeout=60)
    return process.returncode == 2 and "another process" in errors and errors.count("\n") == 1


def test_sigterm_without_a_handler_is_a_stop_and_not_a_failure(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", "import time\nprint('ready', flush=True)\ntime.sleep(100)")
    process = studylib("run", notebook, runs=tmp_path / "runs")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == launch.RESUME_EXIT
