"""The main job: goes on after a failure, stops when stopped, lists what is there, publishes only what succeeded."""

import json

import pytest
from test_launch import write_notebook

from studylib import launch, paths, reproduce
from studylib.errors import InputError

SCALE = 'scale: str = "quick"  # size of the study'


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Folders of its own with three notebooks, one of them without a scale, executed by copying."""
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "PUBLISHED_FIGURES", tmp_path / "published")
    paths.NOTEBOOKS.mkdir()
    for name in ("00_one", "01_two"):
        write_notebook(paths.NOTEBOOKS / f"{name}.ipynb", "print(1)", parameters=SCALE)
    write_notebook(paths.NOTEBOOKS / "pretrain.ipynb", "print(1)", parameters="method: str = 'sl'  # which")
    return tmp_path


@pytest.fixture
def codes(monkeypatch):
    """Exit codes by notebook; the launcher is replaced by one that copies and returns them."""
    given: dict[str, int] = {}
    called: list[str] = []

    def execute(notebook, parameters, output):
        called.append(notebook.stem)
        assert parameters == {"scale": "smoke"}
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(notebook.read_bytes())
        return given.get(notebook.stem, 0)

    monkeypatch.setattr(launch, "execute", execute)
    given["called"] = called
    return given


def figure(name: str, notebook: str | None, pixels: bytes = b"png") -> None:
    """A figure with lineage among the runs."""
    folder = paths.figures() / "smoke" / "sl_mlp"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(pixels)
    (folder / f"{name}.json").write_text(json.dumps({"notebook": notebook} if notebook else {}))


def test_runs_those_with_a_scale_goes_on_after_a_failure_and_returns_the_first(house, codes, capsys):
    codes |= {"00_one": 3}
    assert reproduce.reproduce("smoke") == 3
    assert codes["called"] == ["00_one", "01_two"]
    said = capsys.readouterr().out
    assert "[1/2] 00_one at smoke ... failed (exit code 3) after 0 s" in said
    assert "[2/2] 01_two at smoke ... done in 0 s" in said
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


def test_index_shows_state_figures_and_the_command_for_what_is_missing(house, codes):
    figure("phi <&>", "00_one")
    codes |= {"01_two": 1}
    assert reproduce.reproduce("smoke", ["01_two"]) == 1
    page = (house / "runs" / "index.html").read_text()
    assert 'href="notebooks/smoke/01_two.html"' in page
    assert 'class="failed"' in page
    assert "studylib reproduce --scale smoke --only 00_one" in page
    assert 'src="figures/smoke/sl_mlp/phi%20%3C%26%3E.png"' in page
    assert "phi &lt;&amp;&gt;" in page
    assert "prefers-color-scheme" in page


def test_publish_copies_what_differs_of_notebooks_that_succeeded(house, codes):
    codes |= {"01_two": 1}
    figure("good", "00_one")
    figure("failed", "notebooks/01_two.ipynb")
    figure("unknown", None)
    assert reproduce.reproduce("smoke", publish=True) == 1
    published = paths.PUBLISHED_FIGURES / "smoke" / "sl_mlp"
    assert sorted(file.name for file in published.iterdir()) == ["good.json", "good.png"]
    assert reproduce.publish_figures("smoke", ["00_one"]) == []
    figure("good", "00_one", pixels=b"other")
    assert reproduce.publish_figures("smoke", ["00_one", "01_two"]) == [
        published / "failed.json",
        published / "failed.png",
        published / "good.png",
    ]
