"""The main job: goes on after a failure, stops when stopped, does nothing twice, publishes only what succeeded."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from test_launch import write_notebook

from studylib import grids, paths, study
from studylib.config import resolve
from studylib.errors import InputError, RunError
from studylib.pool import Job
from studylib.publishing import gallery, launch, reproduce, up_to_date

pytestmark = pytest.mark.slow

SCALE = 'scale: str = "quick"  # size of the study'


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Folders of its own with three notebooks, one of them for single runs, and a package of one file."""
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STUDYLIB_DATA", str(tmp_path / "packed"))
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "PUBLISHED_FIGURES", tmp_path / "published")
    monkeypatch.setattr(up_to_date, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(grids, "GRIDS", {})  # the results of runs are published as test_published shows
    for folder in ("notebooks", "package", "packed", "published"):
        (tmp_path / folder).mkdir()
    (tmp_path / "package" / "model.py").write_text("width = 1")
    for name in ("00_one", "01_two"):
        write_notebook(paths.NOTEBOOKS / f"{name}.ipynb", "print(1)", parameters=SCALE)
    (paths.NOTEBOOKS / "._00_one.ipynb").write_bytes(b"\0\5\26\7")  # macOS leaves it beside a copy
    write_notebook(paths.NOTEBOOKS / "pretrain.ipynb", "print(1)", parameters=f"{SCALE}\nmethod: str = 'sl'  # which")
    return tmp_path


@pytest.fixture
def codes(monkeypatch):
    """Exit codes by notebook; the launcher is replaced by one that makes a figure from a run, copies and returns them."""
    given: dict[str, int] = {}
    called: list[str] = []

    def execute(notebook, parameters, output):
        called.append(notebook.stem)
        assert parameters == {"scale": "smoke"}
        run = paths.runs() / f"sl-{notebook.stem}"
        run.mkdir(parents=True, exist_ok=True)
        (run / "DONE").touch()
        figure("phi", notebook.stem, folder=notebook.stem, runs=[run.name, "file:resnet50.pth"])
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(notebook.read_bytes())
        return given.get(notebook.stem, 0)

    monkeypatch.setattr(launch, "execute", execute)
    given["called"] = called
    return given


def figure(name: str, notebook: str, folder: str, runs: list[str] = ()) -> None:
    """A figure with lineage among the runs."""
    place = paths.figures() / "smoke" / folder
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.png").write_bytes(b"png")
    (place / f"{name}.json").write_text(json.dumps({"notebook": notebook, "runs": list(runs)}))


def again(codes, **options) -> list[str]:
    """The notebooks that another call executes."""
    codes["called"].clear()
    assert reproduce.reproduce("smoke", **options) == 0
    return list(codes["called"])


def test_runs_those_with_a_scale_goes_on_after_a_failure_and_returns_the_first(house, codes, capsys):
    codes |= {"00_one": 3}
    assert reproduce.reproduce("smoke") == 3
    assert codes["called"] == ["00_one", "01_two"]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "smoke: 2 notebooks, 0 unchanged, 2 to execute, time left unknown"
    assert said[1] == "[1/2] 00_one at smoke ..."
    assert said[2] == "[1/2] 00_one at smoke ... failed (exit code 3) after 0 s; 50 % of all, time left unknown"
    assert said[4] == "[2/2] 01_two at smoke ... done in 0 s; 100 % of all"
    assert said[5] == f"report: {house / 'runs' / 'report' / 'index.html'}"
    assert len(said) == 6
    assert "<html" in (house / "runs" / "notebooks" / "smoke" / "01_two.html").read_text()


def test_stop_ends_it_at_once(house, codes):
    codes |= {"00_one": launch.RESUME_EXIT}
    assert reproduce.reproduce("smoke") == launch.RESUME_EXIT
    assert codes["called"] == ["00_one"]


def test_only_takes_names_with_or_without_suffix_and_refuses_others(house, codes):
    assert reproduce.reproduce("smoke", ["01_two.ipynb"]) == 0
    assert codes["called"] == ["01_two"]
    for name in ("01_to", "pretrain"):
        with pytest.raises(InputError, match="notebook="):
            reproduce.reproduce("smoke", [name])
    with pytest.raises(InputError, match="scale="):
        reproduce.reproduce("smok")
    for file in paths.NOTEBOOKS.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="holds no notebook"):
        reproduce.reproduce("smoke")


def test_a_second_call_executes_nothing_and_says_so(house, codes, capsys):
    assert again(codes) == ["00_one", "01_two"]
    reports = house / "runs" / "notebooks" / "smoke"
    before = (reports / "00_one.json").read_bytes()
    capsys.readouterr()
    assert again(codes) == []
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "smoke: 2 notebooks, 2 unchanged, 0 to execute",
        "[1/2] 00_one at smoke ... unchanged",
        "[2/2] 01_two at smoke ... unchanged",
    ]
    assert (reports / "00_one.json").read_bytes() == before
    assert again(codes, force=True) == ["00_one", "01_two"]


def test_more_seeds_are_for_notebooks_that_take_them(house, codes, monkeypatch):
    write_notebook(paths.NOTEBOOKS / "01_two.ipynb", "print(1)", parameters=f"{SCALE}\nseeds: int = 0  # of every run")
    assert again(codes) == ["00_one", "01_two"]
    given, execute = {}, launch.execute
    monkeypatch.setattr(
        launch, "execute", lambda *a: given.update({a[0].stem: a[1]}) or execute(a[0], {"scale": "smoke"}, a[2])
    )
    assert again(codes, seeds=3) == ["01_two"]
    assert given == {"01_two": {"scale": "smoke", "seeds": 3}}


def change_notebook(house):
    write_notebook(paths.NOTEBOOKS / "01_two.ipynb", "print(2)", parameters=SCALE)


def delete_run(house):
    shutil.rmtree(house / "runs" / "sl-01_two")


def cut_run(house):
    (house / "runs" / "sl-01_two" / "DONE").unlink()


def delete_figure(house):
    (paths.figures() / "smoke" / "01_two" / "phi.png").unlink()


def overwrite_figure(house):
    """As the notebook does when it is executed by itself with other parameters."""
    (paths.figures() / "smoke" / "01_two" / "phi.png").write_bytes(b"of other seeds")


def delete_figures(house):
    shutil.rmtree(paths.figures() / "smoke" / "01_two")


def delete_executed_copy(house):
    (house / "runs" / "notebooks" / "smoke" / "01_two.ipynb").unlink()


def delete_report(house):
    (house / "runs" / "notebooks" / "smoke" / "01_two.json").unlink()


def cut_report(house):
    (house / "runs" / "notebooks" / "smoke" / "01_two.json").write_text("{")


OF_THE_RUN = [change_notebook, delete_run, cut_run, delete_executed_copy, delete_report, cut_report]
OF_FIGURES = [delete_figure, delete_figures, overwrite_figure]


@pytest.mark.parametrize("change", [*OF_THE_RUN, *OF_FIGURES])
def test_what_changed_for_one_notebook_is_executed_again_once(house, codes, change):
    again(codes)
    change(house)
    assert again(codes) == ["01_two"]
    assert again(codes) == []


def change_source(house):
    (house / "package" / "model.py").write_text("width = 2")


def add_setting(house):
    (house / "package" / "scale.yaml").write_text("epochs: 3")


def add_data(house):
    (house / "packed" / "set.npz").write_bytes(b"images")


def add_image(house):
    (house / "packed" / "coco").mkdir()
    (house / "packed" / "coco" / "1.jpg").write_bytes(b"image")


def test_the_runs_of_all_grids_come_first_and_one_that_fails_keeps_no_notebook_from_running(house, codes, monkeypatch, capsys):
    job = Job(scale="smoke", variant="sl", config=resolve("smoke", "sl"), evaluations=())
    asked = []

    def carry_out(jobs):
        asked.append([one.config for one in jobs])
        assert codes["called"] == []
        raise RunError("1 of 1 runs failed")

    monkeypatch.setattr(grids, "GRIDS", {name: lambda scale, seeds: [job] * (scale == "smoke") for name in ("one", "two")})
    monkeypatch.setattr(study, "missing", study.merged)
    monkeypatch.setattr(study, "carry_out", carry_out)
    assert again(codes) == ["00_one", "01_two"]
    assert asked == [[job.config]]
    assert "error: 1 of 1 runs failed" in capsys.readouterr().err
    assert again(codes) == []
    assert again(codes, only=["01_two"], force=True) == ["01_two"]
    assert len(asked) == 1

    def unreadable(jobs):
        raise InputError("data", "x", "is nowhere")

    monkeypatch.setattr(study, "missing", unreadable)
    assert again(codes, force=True) == ["00_one", "01_two"]
    assert "error: data='x': is nowhere" in capsys.readouterr().err


def test_what_is_published_beyond_the_plan_is_computed_when_asked_for(house, codes, monkeypatch):
    asked = []
    monkeypatch.setattr(grids, "GRIDS", {"one": lambda scale, seeds: asked.append(seeds) or []})
    again(codes)
    again(codes, published=True, only=["01_two"])
    assert asked == [0, grids.PUBLISHED]
    with pytest.raises(InputError, match="--published"):
        again(codes, published=True, seeds=2)


@pytest.mark.parametrize("change", [change_source, add_setting, add_data, add_image])
def test_what_changed_for_all_is_executed_again_once(house, codes, change):
    again(codes)
    change(house)
    assert again(codes) == ["00_one", "01_two"]
    assert again(codes) == []


def test_data_that_is_replaced_or_touched_has_changed(house, codes):
    file = house / "packed" / "set.npz"
    file.write_bytes(b"images")
    again(codes)
    file.write_bytes(b"other images")
    assert again(codes) == ["00_one", "01_two"]
    os.utime(file, (1, 1))
    assert again(codes) == ["00_one", "01_two"]


def test_what_only_lies_beside_changes_nothing(house, codes):
    figure("old", "01_two", folder="01_two", runs=["sl-gone"])
    again(codes)
    (paths.figures() / "smoke" / "01_two" / "old.png").unlink()
    (house / "package" / "model.pyc").write_bytes(b"compiled")
    (house / "runs" / "sl-another").mkdir()
    assert again(codes) == []


def test_a_failed_or_stopped_notebook_is_executed_again(house, codes):
    for code in (1, launch.RESUME_EXIT):
        codes |= {"01_two": code}
        assert reproduce.reproduce("smoke", force=True) == code
        codes |= {"01_two": 0}
        assert again(codes) == ["01_two"]


def test_claims_come_last_and_follow_the_others_and_every_new_run(house, codes):
    for name in ("07_claims", "08_more"):
        write_notebook(paths.NOTEBOOKS / f"{name}.ipynb", "print(1)", parameters=SCALE)
    assert again(codes) == ["00_one", "01_two", "08_more", "07_claims"]
    again(codes, only=["07_claims"])  # now it has seen its own run, too
    assert again(codes) == []
    delete_figure(house)
    assert again(codes) == ["01_two", "07_claims"]
    assert again(codes) == []
    (house / "runs" / "look-new").mkdir()
    (house / "runs" / "look-new" / "DONE").touch()
    assert again(codes) == ["07_claims"]


def test_time_left_is_that_of_earlier_executions(house, codes, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(reproduce.time, "monotonic", lambda: clock.__setitem__(0, clock[0] + 150) or clock[0])
    again(codes, only=["01_two"])
    capsys.readouterr()
    again(codes, force=True)
    said = capsys.readouterr().out
    assert "2 to execute, at least 2 min left" in said
    assert "00_one at smoke ... done in 150 s; 50 % of all, about 2 min left" in said
    assert "01_two at smoke ... done in 150 s; 100 % of all\n" in said
    assert [reproduce.duration(seconds) for seconds in (89, 91, 5399, 5400, 7800)] == [
        "89 s",
        "2 min",
        "1 h 30 min",
        "1 h 30 min",
        "2 h 10 min",
    ]


def test_published_is_what_the_notebooks_that_succeeded_made_and_nothing_else(house, codes, capsys):
    codes |= {"01_two": 1}
    figure("from a test of mine", "00_one", folder="00_one")  # lies in the runs folder, and no execution makes it
    for notebook in ("00_one", "01_two"):
        older = paths.PUBLISHED_FIGURES / "smoke" / notebook / "older.png"
        older.parent.mkdir(parents=True)
        older.touch()
    assert reproduce.reproduce("smoke", publish=True) == 1
    published = up_to_date.listing(paths.PUBLISHED_FIGURES / "smoke")
    assert sorted(published) == ["00_one/phi.json", "00_one/phi.png", "01_two/older.png", "README.md"]
    assert "![phi, 00_one at smoke](00_one/phi.png)" in (paths.PUBLISHED_FIGURES / "smoke" / "README.md").read_text()
    assert "| [00_one](smoke/README.md#00_one) | 1 | 0 |" in (paths.PUBLISHED_FIGURES / "README.md").read_text()
    said = capsys.readouterr().out
    assert f"published to {paths.PUBLISHED_FIGURES}: 3 files differ from before" in said
    assert "published/smoke/results.csv.gz: 0 results of 0 runs" in said
    codes |= {"01_two": 0}
    assert again(codes, publish=True) == ["01_two"]
    differing = {"01_two/phi.json", "01_two/phi.png", "01_two/older.png", "README.md"}
    assert f": {len(differing) - 1} files differ from before" in capsys.readouterr().out
    now = up_to_date.listing(paths.PUBLISHED_FIGURES / "smoke")
    assert {name: now.get(name) for name in published if name not in differing} == {
        name: changed for name, changed in published.items() if name not in differing
    }
    assert sorted(now) == ["00_one/phi.json", "00_one/phi.png", "01_two/phi.json", "01_two/phi.png", "README.md"]


def test_a_notebook_that_makes_nothing_any_more_leaves_no_folder(house, codes, monkeypatch):
    older = paths.PUBLISHED_FIGURES / "smoke" / "00_one" / "older.png"
    older.parent.mkdir(parents=True)
    older.touch()

    def makes_nothing(notebook, parameters, output):
        output.parent.mkdir(parents=True)
        output.write_bytes(notebook.read_bytes())
        return 0

    monkeypatch.setattr(launch, "execute", makes_nothing)
    assert reproduce.reproduce("smoke", only=["00_one"], publish=True) == 0
    assert not older.parent.exists()
    assert "00_one" not in gallery.pages(paths.PUBLISHED_FIGURES)["README.md"]


def test_publish_takes_what_is_unchanged_as_well(house, codes):
    again(codes)
    assert again(codes, publish=True) == []
    assert (paths.PUBLISHED_FIGURES / "smoke" / "00_one" / "phi.png").exists()


def test_committed_gallery_is_that_of_the_committed_figures():
    """If it is not: ``python -c "from studylib.publishing import gallery; gallery.write()"``."""
    pages = gallery.pages(paths.PUBLISHED_FIGURES)
    assert {"README.md", "quick/README.md"} <= set(pages)
    for name, text in pages.items():
        assert (paths.PUBLISHED_FIGURES / name).read_text(encoding="utf-8") == text


def test_for_a_person_there_is_a_bar_and_in_batch_there_is_none(tmp_path):
    """The command line on a real notebook: on a terminal a bar of all notebooks, in a pipe lines; the second call is quick."""
    import pty
    import termios

    command = [sys.executable, "-c", PERSON, str(tmp_path / "notebooks")]
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks" / "00_one.ipynb", "print(41 + 1)", parameters=SCALE)
    environment = os.environ | {"STUDYLIB_RUNS": str(tmp_path / "runs")}
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=end, text=True)
    os.close(end)
    shown = b""
    while process.poll() is None or not shown.endswith(b"\n"):
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
    os.close(terminal)
    said = process.communicate()[0]
    assert process.returncode == 0, said + shown.decode()
    assert "[1/1] 00_one, time left unknown |" in shown.decode()
    assert "[1/1] 00_one at quick ... done in" in said
    piped = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert piped.stderr == ""
    assert "[1/1] 00_one at quick ... unchanged" in piped.stdout


PERSON = """
import sys
from pathlib import Path
from studylib import cli, grids, paths
grids.GRIDS = {}
paths.NOTEBOOKS = Path(sys.argv[1])
sys.exit(cli.main(["reproduce"]))
"""
