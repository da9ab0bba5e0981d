"""Archives: what is carried elsewhere is what was trained, what is less says so, and nothing here is lost."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from studylib import files, method_table
from studylib.cli import main
from studylib.config import resolve
from studylib.data import load
from studylib.errors import InputError
from studylib.evaluation.evaluate import Evaluation, evaluate
from studylib.evaluation.features import extract
from studylib.methods import METHODS
from studylib.methods.bank import Bank
from studylib.training import Run, checkpoint, loop, train
from studylib.training.archive import archive, condense, fits_half, reduce, round_large
from studylib.training.parts import MIB, Writer
from studylib.training.restore import restore

pytestmark = pytest.mark.slow

TRAINED = ("sl", "trex", "look")


def smoke(method, **overrides):
    return resolve("smoke", method, 0, {name.replace("__", "."): value for name, value in overrides.items()})


def four_epochs(method="sl"):
    """Keeps weights after 0, 1, 2 and 4 epochs."""
    return smoke(method, optimisation__epochs=4, monitor__every=0)


class Killed(BaseException):
    """Stands for SIGKILL: not caught by anything."""


def train_until(config, epochs, steps):
    """Train and die after the checkpoint of ``steps`` steps after ``epochs`` epochs."""
    saved = loop.save

    def save_then_die(run, step, state):
        saved(run, step, state)
        if (state["epoch"], state["step"]) == (epochs, steps):
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save", save_then_die)
        with pytest.raises(Killed):
            train(config, save_every_s=0, say=str)


@pytest.fixture
def at(tmp_path, monkeypatch, glyph_cache):
    """Go to a runs folder by name; all share the rendered glyphs, but not the features."""

    def go(name):
        folder = tmp_path / name
        if not folder.exists():
            (folder / "cache").mkdir(parents=True)
            (glyph_cache / "data").mkdir(exist_ok=True)
            (folder / "cache" / "data").symlink_to(glyph_cache / "data")
        monkeypatch.setenv("STUDYLIB_RUNS", str(folder))
        return folder

    return go


@pytest.fixture(scope="module")
def originals(tmp_path_factory, glyph_cache):
    """A folder of runs: of ``TRAINED`` the finished ones, and of `four_epochs` a finished one."""
    folder = tmp_path_factory.mktemp("originals")
    (folder / "cache").symlink_to(glyph_cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYLIB_RUNS", str(folder))
        for config in [*map(smoke, TRAINED), four_epochs()]:
            train(config, say=str)
    (folder / "cache").unlink()
    return folder


@pytest.fixture
def node(at, originals):
    """Where runs were trained; the folder to go to first."""
    folder = at("node")
    shutil.copytree(originals, folder, dirs_exist_ok=True)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """All that is in runs, by name."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for run in folder.iterdir()
        if run.name != "cache"
        for file in run.rglob("*")
        if file.is_file() and file.name != ".lock"
    }


def evaluated(config, **settings):
    """All that is found by an evaluation, except how long it took."""
    return [row for row in evaluate(Run(config), Evaluation(**settings)) if not row["measure"].endswith("_seconds")]


def kept(config, epoch=None):
    return checkpoint.load(Run(config).snapshot(epoch))["weights"]


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def edit(file: Path, change) -> None:
    """Write an archive of one part again, with its files as ``change`` leaves them in a dictionary."""
    with zipfile.ZipFile(file) as opened:
        manifest = json.loads(opened.read("manifest.json"))
        held = {entry["path"]: opened.read(entry["path"]) for entry in manifest["files"]}
    schema = change(held) or manifest["schema"]
    file.unlink()
    with file.with_suffix(".spool").open("w+b") as spool:
        writer = Writer(spool)
        for path, value in held.items():
            writer.add(path, value)
        writer.write(file, 100, schema)


@pytest.mark.parametrize("method", TRAINED)
def test_evaluated_elsewhere_is_what_it_is_where_it_was_trained(node, at, tmp_path, method):
    config = smoke(method)
    own = {"dataset": config.data, "layers": ("projector",), "measures": "prototypes", "protocols": ()}
    asked = [{"dataset": "glyphs_georgian/few"}, {"dataset": "glyphs_georgian/few", "epoch": 1}, own]
    expected = [evaluated(config, **settings) for settings in asked]
    assert method != "trex" or expected[-1]
    archive(tmp_path / "out.zip", [Run(config).folder], say=str)
    before = content(Run(config).folder.parent)
    laptop = at("laptop")
    assert restore([tmp_path / "out.zip"], say=str) == {"restored": 1}
    assert [evaluated(config, **settings) for settings in asked] == expected
    assert train(config, say=str) == Run(config).folder
    for name, value in content(laptop).items():
        if "record.json" not in name and "results" not in name and (method == "sl" or "snapshots" not in name):
            assert value == before[name], name
    *sessions, entry = Run(config).sessions()
    assert sessions == json.loads(before[f"{config.name}/record.json"])
    memory = None if method == "sl" else "all but its class vectors"
    assert entry["left_out"] == {"snapshots": [], "memory": memory, "checkpoint": False}
    assert entry["rounded"] is None
    assert restore([tmp_path / "out.zip"], say=str) == {"already here": 1}
    assert Run(config).sessions() == [*sessions, entry]


@pytest.mark.parametrize("method", [name for name, row in method_table.METHODS.items() if "bank" in row.groups])
@pytest.mark.parametrize("tail", ["wrap", "drop"])
def test_condensed_memory_has_the_same_class_vectors(method, tail):
    config = smoke(method, bank__tail=tail)
    network = METHODS[method](config, 10, torch.zeros(3), torch.ones(3))
    for _ in range(3):
        network.bank.push(torch.randn(50, network.outputs), torch.randint(8, (50,)), torch.arange(50))
    weights = network.state_dict()
    condense(weights, config, 10)
    assert weights["bank.keys"].shape == (10, network.outputs)
    assert weights["bank.labels"].tolist() == list(range(10))
    assert weights["bank.ids"].tolist() == [-1] * 10
    assert (int(weights["bank.pointer"]), int(weights["bank._extra_state"])) == (0, 10)
    again = Bank(config.bank, network.outputs, 10)
    again.resize(10)
    again.load_state_dict({name[5:]: value for name, value in weights.items() if name.startswith("bank.")})
    assert torch.equal(again.prototypes(10), network.bank.prototypes(10))
    condensed = dict(weights)
    condense(weights, config, 10)
    assert_same(weights, condensed)


def test_class_vectors_of_a_restored_trex_are_the_same(node, at, tmp_path):
    config, cpu = smoke("trex"), torch.device("cpu")
    expected = [Run(config).network(epoch, cpu)[0].class_vectors() for epoch in (0, 1, None)]
    assert expected[-1].any()
    assert len(Run(config).network(None, cpu)[0].bank) == config.bank.length
    archive(tmp_path / "out.zip", [Run(config).folder], say=str)
    at("laptop")
    restore([tmp_path / "out.zip"], say=str)
    for epoch, vectors in zip((0, 1, None), expected, strict=True):
        assert torch.equal(Run(config).network(epoch, cpu)[0].class_vectors(), vectors)


def test_a_checkpoint_with_another_length_of_the_memory_is_refused(at):
    at("node")
    config = smoke("trex")
    train_until(config, 1, 3)
    state = checkpoint.load(Run(config).checkpoint)
    condense(state["method"], config, 8)
    checkpoint.save(Run(config).checkpoint, state)
    with pytest.raises(RuntimeError, match="size mismatch for bank.keys"):
        train(config, say=str)


def test_half_is_close_and_loads_as_float32(node, at, tmp_path):
    whole = {method: kept(smoke(method)) for method in TRAINED}
    sizes = [
        archive(tmp_path / name, half=half, say=str)[0].stat().st_size for name, half in (("w.zip", False), ("h.zip", True))
    ]
    assert sizes[1] < 0.75 * sizes[0]  # at this width much is small
    with zipfile.ZipFile(tmp_path / "h.zip") as opened, opened.open(f"{smoke('sl').name}/snapshots/epoch-0002.pt") as file:
        stored = torch.load(file, weights_only=True)
    large = {name for name, value in whole["sl"].items() if value.ndim > 1 and value.numel() >= 4096}
    assert {name for name, value in stored["weights"].items() if value.dtype == torch.float16} == large != set()
    at("laptop")
    restore([tmp_path / "h.zip"], say=str)
    for method in TRAINED:
        Run(smoke(method)).network(None, torch.device("cpu"))
        snapshot = checkpoint.load(Run(smoke(method)).snapshot())
        assert snapshot["rounded"] == "float16"
        for name, value in snapshot["weights"].items():
            if not name.startswith("bank."):
                assert value.dtype == whole[method][name].dtype
                torch.testing.assert_close(value, whole[method][name], rtol=2**-11, atol=1e-7)
            if name in large:
                assert not torch.equal(value, whole["sl"][name]) or method != "sl"
        assert Run(smoke(method)).sessions()[-1]["rounded"].endswith("4096 values or more to float16")


def test_what_float16_cannot_hold_stays_float32():
    values = torch.randn(64, 64)
    beyond, tiny, broken = values.clone(), values * 1e-7, values.clone()
    beyond[3, 4], broken[0, 0] = 70000.0, float("nan")
    weights = {"good": values, "zero": values * 0, "beyond": beyond, "infinite": values / 0, "tiny": tiny, "broken": broken}
    weights |= {"flat": torch.randn(5000), "small": torch.randn(63, 65), "whole": torch.ones(64, 64, dtype=torch.int64)}
    assert [name for name, value in weights.items() if value.dtype == torch.float32 and fits_half(value)] == [
        *("good", "zero", "flat", "small")
    ]
    assert round_large(weights)
    assert [name for name, value in weights.items() if value.dtype == torch.float16] == ["good", "zero"]
    assert not round_large({"flat": torch.randn(5000)})


def test_parts_are_no_larger_than_asked_and_together_give_what_one_gives(node, at, tmp_path):
    said = []
    (single,) = archive(tmp_path / "single.zip", say=said.append)
    parts = archive(tmp_path / "out.zip", max_mib=0.2, say=str)
    assert [line.split()[0] for line in said] == sorted(run.name for run in map(Run, [*map(smoke, TRAINED), four_epochs()]))
    assert [part.name for part in parts] == [f"out-{number:02d}.zip" for number in range(1, len(parts) + 1)]
    sizes = [part.stat().st_size for part in parts]
    assert 0.19 * MIB < min(sizes[:-1]) <= max(sizes) <= 0.2 * MIB
    with zipfile.ZipFile(parts[0]) as opened:
        assert opened.testzip() is None
        manifest = json.loads(opened.read("manifest.json"))
    assert max(len(entry["pieces"]) for entry in manifest["files"]) >= 3
    first = at("laptop")
    restore([single], say=str)
    second = at("another")
    restore([*reversed(parts), parts[0]], say=str)
    one, other = ({n: v for n, v in content(folder).items() if "record.json" not in n} for folder in (first, second))
    assert one == other


def test_a_missing_part_is_named(node, at, tmp_path, capsys):
    parts = archive(tmp_path / "out.zip", max_mib=0.5, say=str)
    laptop = at("laptop")
    with pytest.raises(InputError, match=r"FILE='out-02.zip, out-04.zip': missing: the archive has \d+ parts; name all"):
        restore([part for number, part in enumerate(parts, 1) if number not in (2, 4)], say=str)
    with pytest.raises(InputError, match="nowhere.zip': is not there"):
        restore([tmp_path / "nowhere.zip"], say=str)
    assert content(laptop) == {}


def test_parts_of_two_archives_do_not_mix(node, at, tmp_path):
    parts = archive(tmp_path / "out.zip", max_mib=0.5, say=str)
    older = shutil.copy(parts[1], tmp_path / "older.zip")
    again = archive(tmp_path / "out.zip", max_mib=0.6, say=str)
    assert sorted(tmp_path.glob("out-*.zip")) == again  # fewer: the others are gone
    at("laptop")
    with pytest.raises(InputError, match=r"older.zip': is of out.zip made .*; restore one archive at a time"):
        restore([again[0], older, *again[2:]], say=str)
    (single,) = archive(tmp_path / "out.zip", [node / smoke("sl").name], say=str)
    assert list(tmp_path.glob("out*.zip")) == [single]


def test_what_is_not_an_earlier_archive_is_not_overwritten(node, tmp_path):
    archive(tmp_path / "out-01.zip", [node / smoke("sl").name], last=True, say=str)  # another name: no part of out.zip
    others = {"out.zip": b"mine", "out-03.zip": b"PK\x03\x04", "out-x.zip": b""}
    for name, value in others.items():
        (tmp_path / name).write_bytes(value)
    with pytest.raises(InputError, match="out.zip': is something else than an earlier out.zip"):
        archive(tmp_path / "out.zip", say=str)
    with pytest.raises(InputError, match="out-01.zip': is something else"):
        archive(tmp_path / "out.zip", max_mib=0.5, say=str)
    (tmp_path / "out.zip").unlink()
    archive(tmp_path / "out.zip", say=str)
    assert (tmp_path / "out-01.zip").exists()
    assert all((tmp_path / name).read_bytes() == value for name, value in others.items() if name != "out.zip")


def test_a_flipped_byte_is_refused(node, at, tmp_path):
    """Anywhere but in what says nothing of the content, such as the dates of a zip."""
    (part,) = archive(tmp_path / "out.zip", [node / smoke("sl").name], last=True, say=str)
    whole = part.read_bytes()
    (laptop, harmless) = at("laptop"), 0
    places = [*range(0, 3000, 29), *range(3000, len(whole) - 1200, 9973), *range(len(whole) - 1200, len(whole), 17)]
    for place in places:
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            restore([part], say=str)
            harmless += 1
            found = content(laptop)
            assert found.pop(f"{smoke('sl').name}/snapshots/epoch-0002.pt") == Run(smoke("sl")).snapshot().read_bytes()
            shutil.rmtree(Run(smoke("sl")).folder)
        except InputError:
            assert content(laptop) == {}
    assert harmless < 0.3 * len(places)
    for place in range(5000, len(whole) - 5000, 20011):  # weights
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"out.zip': is damaged or no archive \(BadZipFile\); copy it again"):
            restore([part], say=str)
    part.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="is damaged or no archive"):
        restore([part], say=str)
    assert content(laptop) == {}


@pytest.mark.parametrize(
    "path",
    ["../evil/config.json", "/evil/config.json", "../config.json", "a/../../DONE", "{run}/evil.py", "{run}/results/x.json"],
)
def test_a_path_outside_of_the_files_of_a_run_is_refused(node, at, tmp_path, path):
    run = Run(smoke("sl"))
    archive(tmp_path / "out.zip", [run.folder], last=True, say=str)
    edit(tmp_path / "out.zip", lambda held: held.update({path.format(run=run.name): held[f"{run.name}/config.json"]}))
    before = content(tmp_path)
    laptop = at("laptop")
    with pytest.raises(InputError):
        restore([tmp_path / "out.zip"], say=str)
    assert content(tmp_path) == before
    assert content(laptop) == {}


def test_settings_of_another_version_are_refused_by_name(node, at, tmp_path):
    run = Run(smoke("sl"))
    name = f"{run.name}/config.json"

    def change(held, settings):
        held[name] = json.dumps(json.loads(held[name]) | settings).encode()

    def rename(held):
        for path in [*held]:
            held[path.replace(run.name, "sl-0123456789")] = held.pop(path)

    refused = {
        rf"run='{run.name}': its archive cannot be used here: setting of a run='colour': unknown": lambda h: change(
            h, {"colour": 1}
        ),
        rf"run='{run.name}': holds the settings of sl-": lambda held: change(held, {"seed": 9}),
        rf"run='sl-0123456789': holds the settings of {run.name}": rename,
        r"out.zip': is of a studylib with format and schema \(1, 99\), this has \(1, \d+\)": lambda held: 99,
        rf"run='{run.name}': is not whole": lambda held: held.pop(f"{run.name}/snapshots/epoch-0002.pt") and None,
    }
    laptop = at("laptop")
    for message, changed in refused.items():
        at("node")
        archive(tmp_path / "out.zip", [run.folder], last=True, say=str)
        edit(tmp_path / "out.zip", changed)
        at("laptop")
        with pytest.raises(InputError, match=message):
            restore([tmp_path / "out.zip"], say=str)
        assert content(laptop) == {}


@pytest.mark.parametrize("what", ["metrics", "data", "weights", "settings"])
def test_a_conflict_is_refused_by_name_and_nothing_is_written(node, at, tmp_path, what):
    archive(tmp_path / "out.zip", say=str)
    laptop, config = at("laptop"), smoke("trex")
    run = Run(config)
    shutil.copytree(node / config.name, run.folder)
    if what == "metrics":
        rows = run.metrics()
        run.write_rows([*rows[:1], rows[1] | {"loss": 1.0}], run.timing())
    elif what == "data":
        (run.folder / "record.json").write_text(json.dumps([run.sessions()[0] | {"data_sha256": "0"}]))
    elif what == "weights":
        snapshot = checkpoint.load(run.snapshot(1))
        snapshot["weights"]["normalise.mean"] += 1
        checkpoint.save(run.snapshot(1), snapshot)
    else:
        settings = json.loads((run.folder / "config.json").read_text())
        (run.folder / "config.json").write_text(json.dumps(settings | {"seed": 3}))
    before = content(laptop)
    messages = {"metrics": "other metrics", "data": "other images", "weights": "other weights after 1 epochs"}
    with pytest.raises(
        InputError, match=rf"run=.*{config.name}'.*{messages.get(what, 'other settings')}.*move that folder away"
    ):
        restore([tmp_path / "out.zip"], say=str)
    assert content(laptop) == before


def test_a_run_that_is_further_on_is_not_touched(at, tmp_path):
    at("node")
    config, said = four_epochs(), []
    train_until(config, 2, 3)
    archive(tmp_path / "early.zip", resume=True, say=str)
    train_until(config, 2, 5)
    before = content(Run(config).folder.parent)
    assert restore([tmp_path / "early.zip"], say=said.append) == {"left as it is": 1}
    assert said[0].endswith("left as it is: further on here, 2 epochs")
    assert content(Run(config).folder.parent) == before
    train(config, say=str)
    before = content(Run(config).folder.parent)
    assert restore([tmp_path / "early.zip"], say=said.append) == {"left as it is": 1}
    assert said[1].endswith("left as it is: further on here, finished")
    assert content(Run(config).folder.parent) == before


def test_a_run_that_is_behind_is_brought_forward(node, at, tmp_path):
    config = four_epochs()
    archive(tmp_path / "finished.zip", [Run(config).folder], half=True, say=str)
    expected = {epoch: kept(config, epoch) for epoch in (0, 1, 2, 4)}
    metrics, said = Run(config).metrics(), []
    at("laptop")
    train_until(config, 2, 3)
    own = Run(config).sessions()
    assert restore([tmp_path / "finished.zip"], say=said.append) == {"brought forward": 1}
    assert "brought forward from 2 epochs" in said[0]
    run = Run(config)
    assert run.done
    assert not run.checkpoint.exists()
    assert run.metrics() == metrics
    for epoch in (0, 1, 2):  # were here in full precision
        assert_same(kept(config, epoch), expected[epoch])
    assert "rounded" in checkpoint.load(run.snapshot())
    first, second, entry = run.sessions()
    assert [second] == own != [first]
    assert entry["fuller_here"] == [0, 1, 2]
    assert restore([tmp_path / "finished.zip"], say=str) == {"already here": 1}


@pytest.mark.parametrize("method", ["sl", "trex"])
def test_an_unfinished_run_goes_on_elsewhere_bit_for_bit(at, tmp_path, method):
    config = smoke(method)
    at("uninterrupted")
    train(config, say=str)
    expected, metrics = kept(config), (Run(config).folder / "metrics.jsonl").read_bytes()
    at("node")
    train_until(config, 1, 3)
    state = Run(config).checkpoint.read_bytes()
    archive(tmp_path / "out.zip", half=True, last=True, resume=True, max_mib=0.3, say=str)
    at("laptop")
    assert restore(sorted(tmp_path.glob("out-*.zip")), say=str) == {"restored": 1}
    assert Run(config).checkpoint.read_bytes() == state
    assert not Run(config).done
    train(config, say=str)
    assert_same(kept(config), expected)
    assert (Run(config).folder / "metrics.jsonl").read_bytes() == metrics
    assert ["archived" in session for session in Run(config).sessions()] == [False, True, False]


def test_an_unfinished_run_without_its_checkpoint_does_not_begin_anew(at, tmp_path):
    at("node")
    config = four_epochs()
    train_until(config, 3, 1)
    archive(tmp_path / "out.zip", say=str)
    archive(tmp_path / "resume.zip", resume=True, say=str)
    laptop = at("laptop")
    assert restore([tmp_path / "out.zip"], say=str) == {"restored": 1}
    assert {file.name for file in (Run(config).folder / "snapshots").iterdir()} == {f"epoch-000{n}.pt" for n in (0, 1, 2)}
    before = content(laptop)
    with pytest.raises(
        InputError, match=rf"run='{config.name}': was archived without its checkpoint; .* --resume .*move .* away"
    ):
        train(config, say=str)
    assert content(laptop) == before
    assert restore([tmp_path / "out.zip"], say=str) == {"already here": 1}
    with pytest.raises(InputError, match="has no checkpoint.pt to go on from; archive it without --resume"):
        archive(tmp_path / "again.zip", resume=True, say=str)
    assert restore([tmp_path / "resume.zip"], say=str) == {"brought forward": 1}
    train(config, say=str)
    assert Run(config).done


def test_an_epoch_that_last_left_out_is_refused_by_name(node, at, tmp_path):
    config = four_epochs()
    archive(tmp_path / "last.zip", [Run(config).folder], last=True, say=str)
    archive(tmp_path / "all.zip", [Run(config).folder], say=str)
    at("laptop")
    restore([tmp_path / "last.zip"], say=str)
    evaluation = Evaluation(dataset="glyphs_georgian/few", epoch=2)
    with pytest.raises(InputError, match=r"epoch=2: `studylib archive --last` left these weights of .* out; archive it again"):
        evaluate(Run(config), evaluation)
    with pytest.raises(InputError, match="epoch=3: .* kept no such weights"):
        Run(config).network(3, torch.device("cpu"))
    with pytest.raises(InputError, match="lacks epoch-0000.pt, epoch-0001.pt, epoch-0002.pt; .*--last"):
        archive(tmp_path / "again.zip", say=str)
    archive(tmp_path / "again.zip", last=True, say=str)
    assert restore([tmp_path / "again.zip"], say=str) == {"already here": 1}
    assert restore([tmp_path / "all.zip"], say=str) == {"completed": 1}
    evaluate(Run(config), evaluation)


def test_full_precision_is_kept_and_rounded_is_completed(node, at, tmp_path):
    config = smoke("sl")
    expected = kept(config)
    archive(tmp_path / "half.zip", [Run(config).folder], half=True, say=str)
    archive(tmp_path / "whole.zip", [Run(config).folder], say=str)
    before = content(node)
    assert restore([tmp_path / "half.zip"], say=str) == {"already here": 1}
    assert content(node) == before
    rows = evaluated(config, dataset="glyphs_georgian/few")
    at("laptop")
    restore([tmp_path / "half.zip"], say=str)
    evaluated(config, dataset="glyphs_georgian/few")
    results = list((Run(config).folder / "results").iterdir())
    assert results
    assert restore([tmp_path / "whole.zip"], say=str) == {"completed": 1}
    assert not any(file.exists() for file in results)  # they were of the rounded weights, and so were the features
    assert_same(kept(config), expected)
    assert evaluated(config, dataset="glyphs_georgian/few") == rows
    assert restore([tmp_path / "half.zip"], say=str) == {"already here": 1}
    assert_same(kept(config), expected)


def test_a_killed_restore_is_not_taken_for_a_finished_run(node, at, tmp_path, monkeypatch):
    config, real = smoke("trex"), files.write
    archive(tmp_path / "out.zip", [Run(config).folder], half=True, say=str)
    expected = content(node)
    at("laptop")
    names = ["record.json", "epoch-0000.pt", "epoch-0001.pt", "epoch-0002.pt", "timing.jsonl", "metrics.jsonl", "DONE"]
    for name in names:

        def write(path, value, name=name):
            if path.name == name:
                raise Killed
            real(path, value)

        monkeypatch.setattr(files, "write", write)
        with pytest.raises(Killed):
            restore([tmp_path / "out.zip"], say=str)
        monkeypatch.setattr(files, "write", real)
        assert not Run(config).done
        if name != "record.json":
            with pytest.raises(InputError, match="was not restored to its end; call `studylib restore` again, or move"):
                train(config, say=str)
    assert restore([tmp_path / "out.zip"], say=str) == {"brought forward": 1}
    assert Run(config).done
    assert (Run(config).folder / "metrics.jsonl").read_bytes() == expected[f"{config.name}/metrics.jsonl"]
    assert len(Run(config).sessions()) == 2


def test_features_of_other_weights_under_the_same_name_are_not_taken_for_those_restored(node, at, tmp_path):
    """Of a run that was evaluated here, and whose folder was moved away as the conflict asks."""
    config = smoke("sl")
    images = load("glyphs_georgian/few")
    archive(tmp_path / "runs.zip", [Run(config).folder], say=str)
    expected = extract(Run(config), images).layers["stage5"]
    at("here")
    train(config, say=str)
    state = checkpoint.load(Run(config).snapshot())
    state["weights"]["encoder.conv1.weight"] += 1
    checkpoint.save(Run(config).snapshot(), state)
    assert not torch.equal(extract(Run(config), images).layers["stage5"], expected)
    Run(config).folder.rename(tmp_path / "away")
    restore([tmp_path / "runs.zip"], say=str)
    assert torch.equal(extract(Run(config), images).layers["stage5"], expected)


def test_an_archive_that_fails_leaves_the_earlier_one_whole(node, tmp_path, monkeypatch):
    folder = [Run(smoke("trex")).folder]
    parts = archive(tmp_path / "runs.zip", folder, max_mib=0.2, say=str)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert len(parts) > 2
    real, count = files.write, iter(range(100))

    def full(path, write):
        if next(count) == 1:
            raise OSError(28, "No space left on device")
        real(path, write)

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(OSError, match="No space"):
        archive(tmp_path / "runs.zip", folder, max_mib=0.2, half=True, say=str)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_random_weights_are_archived_as_well(at, tmp_path):
    at("node")
    config = smoke("sl", optimisation__epochs=0)
    train(config, say=str)
    expected = kept(config)
    archive(tmp_path / "out.zip", say=str)
    at("laptop")
    assert restore([tmp_path / "out.zip"], say=str) == {"restored": 1}
    assert_same(kept(config), expected)
    assert Run(config).done


def test_what_cannot_be_archived_is_refused_before_anything_is_written(node, tmp_path):
    run = Run(smoke("sl"))
    Run(smoke("trex")).snapshot(1).unlink()
    with pytest.raises(InputError, match=rf"RUN='.*{smoke('trex').name}': lacks epoch-0001.pt; archive it where they are"):
        archive(tmp_path / "out" / "x.zip", say=str)
    with pytest.raises(InputError, match="OUT='runs.tar': must end in .zip"):
        archive(Path("runs.tar"), [run.folder], say=str)
    for size in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"--max-mib=.*must be at least 0.01"):
            archive(tmp_path / "out" / "x.zip", [run.folder], max_mib=size, say=str)
    with pytest.raises(InputError, match="RUN=.*nowhere': cannot be archived: run=.* is not the folder of a run"):
        archive(tmp_path / "out" / "x.zip", [tmp_path / "nowhere"], say=str)
    renamed = run.folder.rename(node / "old")
    with pytest.raises(InputError, match="RUN=.*old': is not called sl-.* as its settings say"):
        archive(tmp_path / "out" / "x.zip", [renamed], say=str)
    (node / "old").rename(run.folder)
    (run.folder / "record.json").unlink()
    with pytest.raises(InputError, match="was never begun"):
        archive(tmp_path / "out" / "x.zip", [run.folder], say=str)
    assert not (tmp_path / "out").exists()


def test_what_is_not_of_this_version_is_said_and_left_out(node, tmp_path):
    said = []
    Run(smoke("sl")).folder.rename(node / "sl-0123456789")
    config = node / smoke("look").name / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"colour": 1}))
    archive(tmp_path / "out.zip", say=said.append)
    assert sum(line.startswith("left out: RUN=") for line in said) == 2
    assert len(said) == 4
    shutil.copytree(Run(smoke("trex")).folder, tmp_path / smoke("trex").name)
    with pytest.raises(InputError, match="is the run in .* once more"):
        archive(tmp_path / "out.zip", [Run(smoke("trex")).folder, tmp_path / smoke("trex").name], say=str)


def test_an_empty_place_has_nothing_to_archive(at, tmp_path):
    at("node")
    with pytest.raises(InputError, match="holds no run"):
        archive(tmp_path / "x.zip", say=str)


def test_a_list_of_files_larger_than_a_part_is_refused(node, tmp_path):
    with pytest.raises(InputError, match="--max-mib=0.01: is too little: the list of the files alone takes 0.0"):
        archive(tmp_path / "x.zip", max_mib=0.01, say=str)
    assert not list(tmp_path.glob("*.zip"))


def test_reduce_says_whether_it_changed_anything(node):
    config = smoke("sl")
    snapshot = checkpoint.load(Run(config).snapshot())
    assert not reduce(snapshot, config, half=False)
    assert reduce(snapshot, config, half=True)
    assert snapshot["rounded"] == "float16"


def test_commands_need_only_what_a_training_machine_has(node, tmp_path):
    code = """
import os, sys
sys.modules |= dict.fromkeys(["papermill", "faiss", "optuna", "pycocotools", "pandas", "sklearn", "matplotlib", "seaborn"])
from studylib.cli import main
out, parts = sys.argv[1], [sys.argv[1].replace(".zip", f"-0{part}.zip") for part in (1, 2, 3)]
assert main(["archive", out, "--half", "--max-mib", "1.5"]) == 0
os.environ["STUDYLIB_RUNS"] = sys.argv[2]
assert main(["restore", *parts]) == 0
"""
    command = [sys.executable, "-c", code, tmp_path / "out.zip", tmp_path / "laptop"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * (4 + 1)
    assert any(line.startswith(f"{four_epochs().name}  4/4 epochs, snapshots 0 1 2 4  0.") for line in lines[:4])
    assert lines[4].endswith("MiB in 3 files: out-01.zip to out-03.zip")
    assert all(line.endswith("MiB  restored") for line in lines[5:9])
    assert lines[9] == f"{tmp_path / 'laptop'}: 4 restored"


def test_help_has_examples(capsys):
    for command in ("archive", "restore"):
        assert main([command, "--help"]) == 0
        assert f"studylib {command} " in capsys.readouterr().out.split("Examples:")[1]
    assert main(["restore"]) == 2
    assert main(["archive"]) == 2
