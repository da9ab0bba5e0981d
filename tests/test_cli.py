"""The command line: bad input is one line on stderr with exit code 2; help is there and loads nothing."""

import io
import subprocess
import sys

import pytest
import torchvision
from PIL import Image
from test_launch import PARAMETERS, write_notebook

from studylib import __version__, cli

COMMANDS = (
    "pretrain",
    "archive",
    "restore",
    "run",
    "reproduce",
    "plan",
    "grid",
    "evaluate",
    "export",
    "data",
    "data list",
    "data fetch",
    "data check",
    "bench",
)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("STUDYLIB_DATA", raising=False)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("pretrian", "No such command"),
        ("pretrain", "Missing option '--method'"),
        ("pretrain --method sll", "did you mean 'sl'"),
        ("pretrain --method sl --scale quik", "did you mean 'quick'"),
        ("pretrain --method sl --seed one", "not a valid integer"),
        ("pretrain --method sl --seed -1", "range"),
        ("pretrain --methd sl", "No such option"),
        ("pretrain --method sl -p optimisation.epoch=1", "did you mean 'optimisation.epochs'"),
        ("pretrain --method sl -p optimisation.epochs=1.5", "whole number"),
        ("pretrain --method sl -p optimisation.epochs=-1", "optimisation.epochs=-1"),
        ("pretrain --method sl -p optimisation.epochs", "write name=value"),
        ("pretrain --method sl -p encoder.width=1 -p encoder.width=2", "given twice"),
        ("pretrain --method sl -p projector.out=8", "sl has none"),
        ("pretrain --method sl -p data=glyfs", "glyphs"),
        ("run", "Missing argument"),
        ("run none.ipynb", "no such file"),
        ("run {notebook} -p sedes=3", "did you mean 'seeds'"),
        ("run {notebook} -p seeds=3.5", "whole number"),
        ("run {notebook} --scale quik", "did you mean 'quick'"),
        ("run {notebook} -p scale=quik", "did you mean 'quick'"),
        ("run {notebook} --scale quik -p scale=quick", "did you mean 'quick'"),
        ("run {notebook} --scale quick -p scale=smoke", "--scale='quick': -p scale=smoke says another"),
        ("run {notebook} -f none.yaml", "parameters file"),
        ("run {notebook} -f {file} -p scale=quick", "scale='quik': unknown; did you mean 'quick'"),
        ("run {notebook} -p seeds=-1", "seeds=-1: must be 0, which takes what the scale plans, or more"),
        ("run {notebook} -o {folder}", "is a folder; name a file in it"),
        ("run {notebook} -o {notebook}", "is the notebook itself"),
        ("reproduce --scale quik", "did you mean 'quick'"),
        ("reproduce 00_quickstart", "write --only 00_quickstart"),
        ("reproduce --published --seeds 2", "leave out --seeds"),
        ("plan --scale quik", "did you mean 'quick'"),
        ("plan look_start", "did you mean 'look_starts'"),
        ("grid look_start", "did you mean 'look_starts'"),
        ("grid look_starts --scale small_cpu", "run the grid alone: studylib grid look_starts --scale small_cpu --seeds 1"),
        ("grid modes --scale paper --seeds 1", "grid modes has no runs at scale paper"),
        ("grid comparison look_start", "did you mean 'look_starts'"),
        ("grid comparison --minutes 5", "--minutes=5.0: needs --train-only: how long evaluation takes is not bounded"),
        ("grid comparison --train-only --minutes 0", "--minutes=0.0: must be positive"),
        ("grid comparison --train-only --minutes nan", "--minutes=nan: must be positive"),
        ("grid comparison --train-only --workers 0", "Invalid value for '--workers': 0 is not in the range x>=1"),
        ("data fetch cifar10O", "cifar100"),
        ("bench --json {folder}", "is a folder; name a file in it"),
        ("bench loop_eficiency", "did you mean 'loop_efficiency'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, arguments, said):
    notebook = write_notebook(tmp_path / "n.ipynb", "raise SystemExit(9)", parameters=PARAMETERS)
    (tmp_path / "p.yaml").write_text("scale: quik\n")
    given = {"notebook": notebook, "file": tmp_path / "p.yaml", "folder": tmp_path}
    code = cli.main([part.format(**given) for part in arguments.split()])
    out, errors = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert said in errors
    assert not list((tmp_path / "runs").rglob("*.ipynb"))


@pytest.mark.parametrize(
    "arguments",
    [
        "pretrain --scale smoke --method sl",
        "run {notebook}",
        "reproduce --scale smoke",
        "data fetch cifar100",
        "plan --scale smoke",
        "publish-results --scale smoke",
    ],
)
def test_unwritable_runs_folder_is_refused_before_compute(tmp_path, monkeypatch, capsys, arguments):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "file" / "runs"))
    notebook = write_notebook(tmp_path / "n.ipynb", "raise SystemExit(9)")
    assert cli.main([part.format(notebook=notebook) for part in arguments.split()]) == 2
    assert capsys.readouterr().err.startswith("error: STUDYLIB_RUNS=")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(capsys, command):
    assert cli.main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: studylib {command}")
    assert command == "data list" or "Example" in shown


def test_help_and_version_of_the_whole(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command.split()[0] in shown for command in COMMANDS)
    assert cli.main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_disk_full_and_interrupt_are_one_line(monkeypatch, capsys):
    for error, code in ((OSError(28, "No space left on device", "x.pt"), 1), (KeyboardInterrupt(), 130)):

        def fail(*_args, error=error, **_options):
            raise error

        monkeypatch.setattr(cli.studylib, "main", fail)
        assert cli.main(["plan"]) == code
        assert capsys.readouterr().err.count("\n") == 1


def test_an_error_of_ours_is_not_hidden(monkeypatch):
    def fail(*_args, **_options):
        raise FileNotFoundError(2, "No such file", "x")

    monkeypatch.setattr(cli.studylib, "main", fail)
    with pytest.raises(FileNotFoundError):
        cli.main(["plan"])


@pytest.mark.slow
def test_commands_load_only_what_they_run(runs, glyph_cache):
    """Help loads no torch; a run loads no notebook machinery and no library of the measures."""
    code = """
import sys
from studylib import cli, scale
assert scale.scale("smoke").methods
assert cli.main(["--help"]) == 0
assert not {"torch", "numpy", "pandas", "papermill"} & set(sys.modules)
assert cli.main(["pretrain", "--scale", "smoke", "--method", "sl", "-p", "optimisation.epochs=0"]) == 0
assert not {"papermill", "nbclient", "faiss", "sklearn", "seaborn", "IPython"} & set(sys.modules)
"""
    runs.mkdir()
    (runs / "cache").symlink_to(glyph_cache)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(str(runs / "sl-"))


def test_data_list_is_a_table(capsys):
    assert cli.main(["data", "list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["name", "where"]
    assert any(row.startswith("glyphs ") for row in rows)


def test_names_that_the_terminal_cannot_show_end_nothing(tmp_path, monkeypatch):
    (tmp_path / "\u6f22.npz").write_bytes(b"no archive")
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="latin-1", write_through=True))
    assert cli.main(["data", "check", str(tmp_path)]) == 2
    assert b"\\u6f22  " in out.getvalue()


def test_a_cut_image_of_a_download_is_told_with_what_to_delete(runs, monkeypatch, capsys):
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(picture, "png")
    cut = Image.open(io.BytesIO(picture.getvalue()[:1000]))
    monkeypatch.setattr(torchvision.datasets, "Flowers102", lambda root, download, **options: [(cut, 0)])
    assert cli.main(["data", "fetch", "flowers102"]) == 1
    said = f"truncated); delete {runs / 'cache' / 'torchvision' / 'flowers102'} and call again\n"
    assert capsys.readouterr().err.endswith(said)


def test_data_check_tells_which_file_is_damaged(tmp_path, capsys):
    (tmp_path / "x.npz").write_bytes(b"no archive")
    (tmp_path / "x.json").write_text('{"classes": ["a", "b"], "sha256_npz": "0"}')
    assert cli.main(["data", "check", str(tmp_path)]) == 2
    out, errors = capsys.readouterr()
    assert "x.npz" in out
    assert "NO" in out
    assert errors == "error: data='x': 1 of 1 sets cannot be used; see the notes above\n"
    assert cli.main(["data", "check"]) == 0
    assert "no packed sets" in capsys.readouterr().out
    assert cli.main(["data", "check", str(tmp_path / "none")]) == 2
