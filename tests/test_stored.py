"""What is stored belongs to the weights, images and settings it was computed from; what cannot be right is not stored."""

import errno
import json
import os
import re
import shutil

import numpy
import pytest
import torch

from studylib import data, files, study, suites
from studylib.cli import main
from studylib.config import resolve
from studylib.data import packed
from studylib.errors import InputError, RunError
from studylib.evaluation import features, table
from studylib.evaluation.evaluate import Evaluation, evaluate
from studylib.evaluation.probe import PROTOCOLS as PROTOCOLS_BY_NAME
from studylib.methods import METHODS
from studylib.models.encoder import Encoder
from studylib.pool import Job
from studylib.training import Run, checkpoint, train
from studylib.training.record import find_run
from studylib.transfer import Episodes, Knn, RidgeProbe

PROTOCOLS = (Knn(), RidgeProbe())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of packed sets."""
    (tmp_path / "packed").mkdir()
    monkeypatch.setenv("STUDYLIB_DATA", str(tmp_path / "packed"))
    return tmp_path / "packed"


def pack(folder, name="toy", *, height=16, width=16, seed=0) -> None:
    """A set of two classes, 96 training and 40 test images, whose means differ a little."""
    random = numpy.random.default_rng(seed)
    labels = numpy.arange(136) % 2
    images = random.normal(110 + 25 * labels[:, None, None, None], 60, (136, height, width, 3)).clip(0, 255).astype(numpy.uint8)
    numpy.savez(folder / f"{name}.npz", images=images, labels=labels, split=(numpy.arange(136) >= 96).astype(int))
    about = {"classes": ["dark", "light"], "sha256_npz": packed.sha256(folder / f"{name}.npz")}
    (folder / f"{name}.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, glyph_cache):
    """The folder of a run without epochs that was evaluated on one set."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "cache").mkdir()
    (folder / "cache" / "data").symlink_to(glyph_cache / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYLIB_RUNS", str(folder))
        run = Run(resolve("smoke", "sl", 0, {"optimisation.epochs": 0}))
        train(run.config, say=str)
        evaluate(run, Evaluation(dataset="digits", measures="none", protocols=(Knn(),)))
    return run.folder


def config(spec="toy", **more):
    settings = {"data": spec, "optimisation.batch": 32, "optimisation.epochs": 1, "optimisation.warmup_epochs": 0}
    return resolve("smoke", "sl", 0, settings | {"monitor.every": 0} | more)


def scores(run: Run, spec="toy") -> list[float]:
    rows = evaluate(run, Evaluation(dataset=spec, measures="none", protocols=PROTOCOLS))
    return [row["value"] for row in rows if "seconds" not in row["measure"]]


def test_results_of_a_run_that_was_trained_anew_on_other_images_are_its_own(runs, folder, monkeypatch, tmp_path):
    """The set in its place, the run moved away as the message says: nothing of the old weights is found for the new ones."""
    pack(folder)
    pack(folder, "other", seed=7)
    train(config(), say=str)
    first = scores(Run(config()), "other")
    pack(folder, seed=1)
    Run(config()).folder.rename(tmp_path / "away")
    train(config(), say=str)
    again = scores(Run(config()), "other")
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "fresh"))
    train(config(), say=str)
    assert again == scores(Run(config()), "other") != first


def test_runs_of_other_images_are_named_before_anything_is_computed(runs, folder, capsys):
    pack(folder)
    jobs = [Job(scale="smoke", variant="sl", config=config(), evaluations=())]
    train(config(), say=str)
    assert study.missing(jobs) == []
    pack(folder, seed=1)
    with pytest.raises(InputError, match=f"data='toy': is not what {config().name} was begun on; put the images back, or move"):
        study.missing(jobs)
    with pytest.raises(InputError, match="begun on"):
        train(config(), say=str)
    given = [f"{name}={value}" for name, value in (("data", "toy"), ("optimisation.batch", 32), ("optimisation.epochs", 1))]
    given += ["optimisation.warmup_epochs=0", "monitor.every=0"]
    command = ["pretrain", "--scale", "smoke", "--method", "sl", *(part for one in given for part in ("-p", one))]
    assert main(command) == 2
    assert f"error: data='toy': is not what {config().name} was begun on" in capsys.readouterr().err
    for file in folder.iterdir():
        file.unlink()
    assert study.missing(jobs) == []  # of a set that is not here nothing can be said


def test_files_of_the_system_beside_packed_sets_and_arrays_that_nobody_needs_are_left_alone(folder, capsys):
    """``._toy.npz`` is what macOS leaves beside a copy; a pickled array is never read."""
    pack(folder)
    before = data.load("toy")
    with numpy.load(folder / "toy.npz") as archive:
        numpy.savez(folder / "toy.npz", **archive, filenames=numpy.array(["a", None], dtype=object))
    about = json.loads((folder / "toy.json").read_text()) | {"sha256_npz": packed.sha256(folder / "toy.npz")}
    (folder / "toy.json").write_text(json.dumps(about))
    for name in ("toy.npz", "toy.json"):
        (folder / f"._{name}").write_bytes(b"\0\5\26\7")
    assert torch.equal(data.load("toy").images, before.images)
    assert packed.names() == ["toy"]
    assert main(["data", "check"]) == main(["data", "check", str(folder)]) == 0
    assert "._" not in capsys.readouterr().out


def test_a_checksum_is_that_of_the_images_that_are_there_now(folder, empty_cache):
    pack(folder)
    before = data.checksum("toy")
    pack(folder, seed=1)
    assert data.checksum("toy") == data.load("toy").checksum != before
    assert data.is_here("toy") and not data.is_here("toys")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused_before_any_protocol_and_not_kept(runs, value):
    run = Run(resolve("smoke", "sl", 0, {"optimisation.epochs": 0}))
    train(run.config, say=str)
    content = checkpoint.load(run.snapshot())
    content["weights"]["encoder.layer4.0.bn2.bias"][3] = value
    checkpoint.save(run.snapshot(), content)
    said = rf"{run.name}: features of \d+ of 288 images of glyphs_georgian/few at stage5 are not finite"
    with pytest.raises(RunError, match=said):
        evaluate(run, Evaluation(dataset="glyphs_georgian/few", measures="none", protocols=PROTOCOLS))
    assert not list((runs / "cache").glob(f"features/{run.name}*")) and not list(run.folder.glob("results/*"))
    evaluate(run, Evaluation(dataset="glyphs_georgian/few", measures="none", layers=("stage1",), protocols=PROTOCOLS))


def test_a_run_whose_weights_are_not_finite_after_its_last_step_is_not_done(runs, monkeypatch):
    """The loss of that step was finite: it is of the weights before."""
    after = METHODS["sl"].after_step

    def broken(self, batch):
        after(self, batch)
        if batch.progress > 0.9:
            with torch.no_grad():
                self.encoder.conv1.weight[0] = float("inf")

    settings = resolve("smoke", "sl")
    monkeypatch.setattr(METHODS["sl"], "after_step", broken)
    with pytest.raises(RunError, match=r"diverged: encoder.conv1.weight is not finite in epoch 2; .*lower optimisation.lr"):
        train(settings, say=str)
    assert not Run(settings).done and not Run(settings).snapshot().exists()
    monkeypatch.undo()


@pytest.mark.parametrize(("height", "width", "size"), [(48, 16, 0), (16, 48, 0), (32, 32, 16)])
def test_features_are_taken_at_the_side_that_was_trained_at(runs, folder, height, width, size):
    pack(folder, height=height, width=width)
    run = Run(config(**{"augmentation.size": size, "monitor.every": 1}))
    seen: list[tuple[int, ...]] = []
    stages = Encoder.stages
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "stages", lambda self, images: seen.append((*images.shape[-2:],)) or stages(self, images))
        train(run.config, say=str)
    assert set(seen) == {(16, 16)}  # by the steps and by the monitor
    seen.clear()
    _, side = run.network(None, torch.device("cpu"))
    assert side == 16
    hook = METHODS["sl"].layers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(METHODS["sl"], "layers", lambda self, images: seen.append((*images.shape[-2:],)) or hook(self, images))
        features.extract(run, data.load("toy"))
    assert set(seen) == {(16, 16)}


def test_a_run_without_its_last_weights_is_not_done(runs):
    run = Run(resolve("smoke", "sl", 0, {"optimisation.epochs": 1, "optimisation.warmup_epochs": 0}))
    job = Job(scale="smoke", variant="sl", config=run.config, evaluations=())
    train(run.config, say=str)
    weights = checkpoint.load(run.snapshot())["weights"]
    assert run.done and study.missing([job]) == []
    shutil.rmtree(run.folder / "snapshots")
    assert not run.done and study.missing([job]) == [job]
    train(run.config, say=str)
    again = checkpoint.load(run.snapshot())["weights"]
    assert all(torch.equal(again[name], value) for name, value in weights.items())


CONTENTS = {
    "a checkpoint": lambda file: torch.save({"weights": torch.zeros(1000, 1000)}, file),
    "a packed set": lambda file: numpy.savez_compressed(file, images=numpy.random.default_rng(0).bytes(2**20)),
    "a table": lambda file: file.write(b"one line\n" * 1000),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("room", [0, 100, 5000])
def test_a_full_disk_is_told_with_file_and_bytes_and_the_old_file_stays(tmp_path, monkeypatch, content, room):
    """Whatever the writer makes of the error."""

    class Disk(files._Length):
        def write(self, part):
            if super().write(part) and self.bytes > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return memoryview(part).nbytes

        def fileno(self):
            return 0

    file = tmp_path / "kept.pt"
    file.write_bytes(b"before")
    with monkeypatch.context() as patch, pytest.raises(RunError) as caught:
        patch.setattr(os, "fdopen", lambda handle, mode: os.close(handle) or Disk())
        files.write(file, content)
    with (tmp_path / "whole").open("wb") as whole:
        content(whole)
    size = (tmp_path / "whole").stat().st_size
    (tmp_path / "whole").unlink()
    said = rf"{file} cannot be written \(No space left on device\): it needs ([\d,]+) bytes, "
    needed = re.match(said, str(caught.value))[1].replace(",", "")
    assert int(needed) == pytest.approx(size, abs=100) and "\n" not in str(caught.value)  # a zip on a pipe is a little longer
    assert [kept.name for kept in tmp_path.iterdir()] == ["kept.pt"] and file.read_bytes() == b"before"


def test_errors_that_are_not_the_disks_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError):
        files.write(tmp_path / "x", lambda file: 1 / 0)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    """A full disk has room for names, and none for what is in the files."""

    class Full:
        __init__ = __exit__ = lambda *_, **options: None

        def __enter__(self):
            return self

        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", Full)
    assert main(["pretrain", "--scale", "smoke", "--method", "sl"]) == 2
    assert "error: STUDYLIB_RUNS=" in (said := capsys.readouterr().err) and "(No space left on device)" in said


@pytest.mark.parametrize("damage", ["", "cut", "\0\0\0", "3", "null"])
@pytest.mark.parametrize("name", ["config.json", "record.json", "results"])
def test_damaged_json_is_named_with_what_to_delete(runs, trained, name, damage):
    run = find_run(trained)
    file = next((trained / name).glob("*.json")) if name == "results" else trained / name
    before = file.read_bytes()
    file.write_bytes(before[:-5] if damage == "cut" else damage.encode())
    try:
        with pytest.raises(InputError) as caught:
            find_run(trained)
            run.sessions(), evaluate(run, Evaluation(dataset="digits", measures="none", protocols=(Knn(),)))
        assert str(caught.value).startswith(f"file='{file}': {'holds no' if damage in ('3', 'null') else 'is no whole JSON ('}")
        fixes = {"config.json": "; delete it, and the command", "record.json": f"move {trained} away to train anew"}
        assert fixes.get(name, "; delete it, and it is made again") in str(caught.value)
    finally:
        file.write_bytes(before)


def test_a_cut_table_of_epochs_is_named(runs):
    run = Run(config())
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(InputError, match=f"metrics.jsonl': is no whole JSON .* delete it .*, {run.folder} to train anew"):
        run.metrics()
    (run.folder / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    assert run.metrics() == [{"epoch": 1}, {"epoch": 2}]


def test_a_set_that_a_protocol_cannot_use_gets_its_reason_and_the_others_their_numbers(trained, folder, capsys, monkeypatch):
    pack(folder)
    asked = ["evaluate", "--run", str(trained), "-d", "toy", "--protocol", "episodes"]
    reason = "episodes.ways=5: only 2 classes have 20 images; ask for fewer classes or queries"
    assert main(asked) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {reason}"
    assert main([*asked, "--protocol", "knn", "-d", "digits"]) == 0
    _, head, toy, digits, mean, left_out = capsys.readouterr().out.splitlines()
    assert head.split() == ["data", "set", "knn", "episodes"]
    assert toy.split()[0] == "toy" and toy.split()[2] == "·" != digits.split()[2]
    assert mean.split()[3] == "·"  # no mean over a part of the sets
    assert left_out == f"left out: episodes on toy: {reason}"
    run = find_run(trained)
    both = Evaluation(dataset="toy", measures="none", protocols=(Episodes(), RidgeProbe()))
    with pytest.raises(InputError, match="episodes.ways=5"):
        evaluate(run, both)
    monkeypatch.setitem(PROTOCOLS_BY_NAME, "ridge", PROTOCOLS_BY_NAME["ridge"]._replace(carry_out=None))
    assert {row["measure"] for row in evaluate(run, both, {})} >= {"ridge_top1"}  # computed, and kept


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["-d", "digits", "-d", "scenes"], "protocol='knn': is for image sets; scenes is not one"),
        (["-d", "digits", "--layer", "stage3", "--protocol", "knn", "--protocol", "fine_tune"], "layer='stage3': fine-tuning"),
        (["-d", "digits", "-d", "didgits"], "data='didgits': unknown"),
        (["-d", "digits", "-d", "digits@fase"], "data='digits@fase'"),
        (["-d", "digits", "-d", "broken"], "data='broken.npz': cannot be unpacked"),
        (["--suite", "of_none"], "suite='of_none': none of its sets is here: data='flowers102': is in none of"),
        (["--suite", "damaged"], "data='broken.npz': cannot be unpacked"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_computed(trained, folder, capsys, monkeypatch, given, said):
    (folder / "broken.npz").write_bytes(b"no archive")
    about = {"classes": ["a", "b"], "sha256_npz": packed.sha256(folder / "broken.npz")}
    (folder / "broken.json").write_text(json.dumps(about))
    monkeypatch.setattr(suites, "suites", lambda: {"of_none": ["flowers102"], "damaged": ["digits", "broken"]})
    monkeypatch.setattr(table, "evaluate", None)
    assert main(["evaluate", "--run", str(trained), *given]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_an_output_that_is_a_folder_is_refused(trained, tmp_path, capsys):
    assert main(["export", str(trained), str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: FILE='{tmp_path}': is a folder; name a file in it\n"
