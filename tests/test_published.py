"""Published results: exact, merged, used only where they are the results that would be computed, and ignored on request."""

import dataclasses
import gzip
import json
import math
import shutil
from dataclasses import replace

import pytest

from studylib import cli, cost, files, grids, paths, pool, report, study, train_only
from studylib.config import resolve
from studylib.errors import InputError
from studylib.evaluation import evaluate, measure, pretraining, probe, published
from studylib.evaluation.evaluate import Evaluation
from studylib.publishing import up_to_date
from studylib.study import Job
from studylib.training import Run, train
from studylib.transfer import Knn, LinearProbe

pytestmark = pytest.mark.slow

UNSEEN = "glyphs_georgian/few"
KNN = Evaluation(dataset=UNSEEN, layers=("stage3", "stage5", "projector9"), measures="papers", protocols=(Knn(),))
LINEAR = Evaluation(dataset=UNSEEN, measures="none", protocols=(LinearProbe(values=2),))
START = Evaluation(dataset=UNSEEN, epoch=0, measures="none", protocols=(Knn(k=3),))


def jobs_of(*methods, evaluations=(KNN, LINEAR, START)):
    return [Job(scale="smoke", variant=name, config=resolve("smoke", name), evaluations=evaluations) for name in methods]


@pytest.fixture(scope="module")
def machine(tmp_path_factory, glyph_cache):
    """A runs folder with two finished and evaluated runs."""
    folder = tmp_path_factory.mktemp("published") / "runs"
    folder.mkdir()
    (folder / "cache").mkdir()
    (glyph_cache / "data").mkdir(exist_ok=True)
    (folder / "cache" / "data").symlink_to(glyph_cache / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYLIB_RUNS", str(folder))
        for job in jobs_of("sl", "sl_mlp"):
            run = Run(job.config)
            train(run.config, say=str)
            for evaluation in job.evaluations:
                evaluate.evaluate(run, evaluation)
    return folder


@pytest.fixture
def here(machine, tmp_path, monkeypatch):
    """A copy of that folder, a repository without published results, and published results switched on."""
    folder = tmp_path / "here"
    shutil.copytree(machine, folder, symlinks=True)
    monkeypatch.setenv("STUDYLIB_RUNS", str(folder))
    monkeypatch.setenv("STUDYLIB_PUBLISHED", "on")
    monkeypatch.setattr(paths, "PUBLISHED_FIGURES", tmp_path / "figures")
    return folder


def publish(*jobs):
    return published.publish("smoke", [(Run(job.config), job.evaluations) for job in jobs])


def content():
    return paths.published_results("smoke").read_bytes()


def lines():
    return gzip.decompress(content()).decode().splitlines()


def go_elsewhere(here, monkeypatch):
    """A machine with the repository and no runs."""
    folder = here.parent / "elsewhere"
    folder.mkdir()
    (folder / "cache").symlink_to(here / "cache")
    monkeypatch.setenv("STUDYLIB_RUNS", str(folder))


def replaced(column, old, new):
    """Write the file anew with another value in a column of the rows that have the old one."""
    parts = published.read(paths.published_results("smoke"))
    rows = [[row._replace(**{column: new}) if getattr(row, column) == old else row for row in part] for part in parts.values()]
    published.write(paths.published_results("smoke"), {part[0].key: part for part in rows})


def test_a_table_is_the_same_without_the_folders_of_its_runs(here, monkeypatch, capsys):
    jobs = jobs_of("sl", "sl_mlp")
    expected = study.table(jobs)
    assert {"phi", "knn_top1", "linear_top1", "monitor_knn_top1", "seconds", "passes"} <= set(expected.measure)
    assert set(expected.layer) == {"stage3", "stage5", ""} and set(expected.epoch) == {0, 1, 2}
    said = publish(*jobs)
    assert said == f"figures/smoke/results.csv.gz: {len(expected)} results of 2 runs, 2 of them here"
    assert capsys.readouterr().err == ""
    go_elsewhere(here, monkeypatch)
    monkeypatch.setattr(pool, "start", None)  # nothing is computed
    assert study.missing(jobs) == []
    found = study.run(jobs)
    assert found.equals(expected) and list(found.dtypes) == list(expected.dtypes)
    place = f"without a folder under {paths.runs()}, of which it has 2\n"
    assert capsys.readouterr().err == f"figures/smoke/results.csv.gz: read for runs {place}"
    study.table(jobs)
    assert capsys.readouterr().err == ""  # said once
    drawn = [report.summary(report.select(table, measure="knn_top1", layer="stage5", epoch=2)) for table in (expected, found)]
    assert drawn[0].equals(drawn[1]) and {"SL", "SL-MLP"} <= set(drawn[0])
    for name, table in (("with", expected), ("without", found)):
        figure, shown = report.stagewise(report.select(report.at_end(table), measure="knn_top1", split="test"))
        report.save(figure, name, shown, folder=here.parent, lineage={})
    pictures = [(here.parent / f"{name}.png").read_bytes() for name in ("with", "without")]
    assert pictures[0] == pictures[1]


def test_cost_plan_and_claims_count_published_runs(here, monkeypatch):
    jobs = jobs_of("sl", "sl_mlp")
    publish(jobs[0])
    go_elsewhere(here, monkeypatch)
    assert cost.cost(jobs).startswith("2 runs, 1 to be computed, 1 read from figures/smoke/results.csv.gz, 1 of them to be")
    assert cost.cost(jobs[:1]) == "1 runs, 0 to be computed, 1 read from figures/smoke/results.csv.gz"
    monkeypatch.setitem(grids.GRIDS, "comparison", lambda scale, seeds=0: jobs if seeds else [])
    assert grids.trained("comparison", "smoke") == [dataclasses.replace(jobs[0], beyond=True)]
    monkeypatch.setitem(grids.GRIDS, "comparison", lambda scale, seeds, overrides: jobs[:1])
    plan = cost.plan(grids.planned("smoke", ["comparison"]))
    assert plan[["state", "images", "minutes"]].values.tolist() == [["published", 0, 0.0]]


def test_a_published_run_is_not_trained(here, monkeypatch, capsys):
    jobs = jobs_of("sl")
    publish(*jobs)
    go_elsewhere(here, monkeypatch)
    monkeypatch.setattr(pool, "start", None)
    assert train_only.train(jobs)
    assert capsys.readouterr().out == "all 0 runs are trained\n"


@pytest.mark.parametrize("value", [1 / 3, 5e-324, 0.1 + 0.2, 1e22, -0.0, math.nan, math.inf, 12])
def test_values_keep_all_their_digits(value, tmp_path):
    key = ("sl-0", "knn", "digits", 3, "stage5", "0")
    row = {"split": "test", "protocol": 'kNN, "k" = 20, T in 0.1…1', "measure": "knn_top1", "epoch": 3, "value": value}
    part = published.written(key, 4, {"data": "f", "method": "sl", "seed": 0}, [row])
    published.write(tmp_path / "results.csv.gz", {key: part})
    [[found]] = published.read(tmp_path / "results.csv.gz").values()
    assert found.key == key
    found = published.parsed(found)
    assert repr(found["value"]) == repr(value)
    assert found["protocol"] == row["protocol"] and found["epoch"] == 3


def test_the_same_results_make_the_same_bytes_in_whatever_order_they_come(here):
    one, two = jobs_of("sl", "sl_mlp")
    publish(one, two)
    both = content()
    assert both[4:8] == b"\0\0\0\0" and b"\r" not in gzip.decompress(both)  # no time, line ends of Unix
    paths.published_results("smoke").unlink()
    publish(two)
    alone = lines()
    publish(one)
    assert content() == both and set(alone) < set(lines())
    keys = [row.key for part in published.read(paths.published_results("smoke")).values() for row in part]
    assert keys == sorted(keys)
    before = files.stamp(paths.published_results("smoke"))
    publish(one, two)
    assert files.stamp(paths.published_results("smoke")) == before  # nothing changed, nothing written


def test_what_is_computed_again_replaces_what_was_published(here):
    """Parts of the same run that are not here stay, and so do other runs; parts of a run with other weights go."""
    one, two = jobs_of("sl", "sl_mlp")
    publish(one, two)
    whole = lines()
    run = Run(one.config)
    [file] = evaluate.cached(run, LINEAR)
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([row | {"value": 12.5} for row in rows]))
    for other in evaluate.cached(run, KNN):
        other.unlink()
    publish(one)
    changed = [line for line in lines() if line not in whole]
    assert len(changed) == len(rows) and all(line.startswith(f"{run.name},linear,") for line in changed)
    assert len(lines()) == len(whole)
    metrics = run.metrics()
    run.write_rows([row | {"knn_top1": row["knn_top1"] / 2} for row in metrics if "knn_top1" in row], run.timing())
    evaluate.evaluate(run, LINEAR)  # what was computed of the other weights is not found for these
    publish(one)
    assert not [line for line in lines() if line.startswith(f"{run.name},papers,")]
    assert [line for line in lines() if line.startswith(f"{run.name},linear,")]
    assert [line for line in lines() if not line.startswith(run.name)] == [
        line for line in whole if not line.startswith(run.name)
    ]


def test_of_a_run_and_a_kind_the_newest_version_is_kept_whichever_comes_last(here, monkeypatch):
    [job] = jobs_of("sl")
    publish(job)
    old, file = content(), paths.published_results("smoke")
    monkeypatch.setitem(probe.PROTOCOLS, "knn", probe.PROTOCOLS["knn"]._replace(version=5))
    evaluate.evaluate(Run(job.config), START)
    publish(job)
    parts = published.read(file)
    versions = {key[1:4]: part[0].version for key, part in parts.items() if key[1] in ("knn", "linear")}
    assert versions == {("knn", UNSEEN, 0): "5", ("linear", UNSEEN, 2): "4"}
    new = content()
    monkeypatch.undo()
    monkeypatch.setenv("STUDYLIB_RUNS", str(here))
    monkeypatch.setattr(paths, "PUBLISHED_FIGURES", file.parent.parent)
    publish(job)  # an older version of the package
    assert content() == new != old


def test_raising_one_version_recomputes_that_kind_alone(here, monkeypatch):
    [job] = jobs_of("sl")
    run, every = Run(job.config), [part for evaluation in job.evaluations for part in evaluate.parts(evaluation)]
    before = {part: part.file(run) for part in every}
    assert {part.kind for part in every} == {"papers", "knn", "linear"}
    times = {file: files.stamp(file) for file in before.values()}
    for table, kind in ((probe.PROTOCOLS, "linear"), (measure.MEASURES, "papers")):
        monkeypatch.setitem(table, kind, table[kind]._replace(version=table[kind].version + 1))
        assert not job.done
        for evaluation in job.evaluations:
            evaluate.evaluate(run, evaluation)
        moved = {part.kind for part in every if part.file(run) != before[part]}
        assert moved == {kind} and job.done
        assert {file: files.stamp(file) for file in times} == times
        monkeypatch.undo()
        monkeypatch.setenv("STUDYLIB_RUNS", str(here))


def test_every_kind_of_result_has_a_version():
    rows = {**probe.PROTOCOLS, **measure.MEASURES}
    assert len(rows) == len(probe.PROTOCOLS) + len(measure.MEASURES)
    assert all(isinstance(row.version, int) and row.version > 0 for row in rows.values())
    assert pretraining.KIND not in rows


def test_a_folder_wins_over_published_results(here, monkeypatch):
    jobs = jobs_of("sl")
    publish(*jobs)
    run = Run(jobs[0].config)
    replaced("measure", "knn_top1", "made_up")
    assert "made_up" not in set(study.table(jobs).measure)
    (run.folder / "DONE").unlink()
    assert study.table(jobs).empty and study.missing(jobs) == jobs
    shutil.rmtree(run.folder)
    assert "made_up" in set(study.table(jobs).measure) and study.missing(jobs) == []


def test_what_is_not_published_whole_is_computed(here, monkeypatch):
    [job] = jobs_of("sl", evaluations=(KNN,))
    publish(job)
    go_elsewhere(here, monkeypatch)
    assert job.done
    [more] = jobs_of("sl")
    [training] = jobs_of("sl", evaluations=())  # its weights are wanted
    for other in (more, training):
        assert not other.done and study.missing([other]) == [other]
        assert study.table([other]).empty
    other_k = Evaluation(dataset=UNSEEN, measures="none", protocols=(Knn(k=7),))
    assert not jobs_of("sl", evaluations=(other_k,))[0].done
    monkeypatch.setenv("STUDYLIB_PUBLISHED", "beyond")  # as `reproduce` does
    assert not job.done and study.missing([job]) == [job] and study.table([job]).empty
    assert replace(job, beyond=True).done and len(study.table([replace(job, beyond=True)]))
    monkeypatch.setenv("STUDYLIB_PUBLISHED", "off")
    assert not job.done and study.table([job]).empty
    monkeypatch.setenv("STUDYLIB_PUBLISHED", "of")
    with pytest.raises(InputError, match="STUDYLIB_PUBLISHED='of': unknown; did you mean 'off'"):
        job.published  # noqa: B018


@pytest.mark.parametrize("kind", ["knn", "papers", "pretraining"])
def test_an_outdated_version_is_not_used(here, monkeypatch, kind):
    [job] = jobs_of("sl")
    publish(job)
    go_elsewhere(here, monkeypatch)
    assert job.done
    if kind == "pretraining":
        monkeypatch.setattr(pretraining, "VERSION", pretraining.VERSION + 1)
    else:
        table = measure.MEASURES if kind == "papers" else probe.PROTOCOLS
        monkeypatch.setitem(table, kind, table[kind]._replace(version=9))
    assert not job.done and study.table([job]).empty


@pytest.mark.parametrize("dataset", [UNSEEN, "glyphs/few"])
def test_results_on_other_images_are_not_used_and_those_on_images_that_are_not_here_are(here, monkeypatch, dataset):
    [job] = jobs_of("sl")
    publish(job)
    go_elsewhere(here, monkeypatch)
    known = evaluate.checksum(dataset)[:10]
    replaced("data", known, "0123456789")
    assert not job.done and study.table([job]).empty
    present = published.present
    monkeypatch.setattr(published, "present", lambda name: "" if name == dataset else present(name))
    assert job.done and len(study.table([job]))


def truncated(whole):
    return whole[: len(whole) // 2]


def damaged(whole):
    return whole[:200] + bytes([whole[200] ^ 255]) + whole[201:]


def of_another_version(whole):
    return gzip.compress(gzip.decompress(whole).replace(b"settings", b"options", 1))


def with_a_short_row(whole):
    return gzip.compress(gzip.decompress(whole) + b"sl-0,knn,digits\n")


def without_a_value(whole):
    return gzip.compress(gzip.decompress(whole) + b"sl-0,knn,digits,1,stage5,0,4,0,sl,0,test,kNN,knn_top1,much\n")


def empty(whole):
    return b""


CUT = [truncated, damaged, of_another_version, with_a_short_row, without_a_value, empty]


@pytest.mark.parametrize("change", CUT)
def test_a_file_that_cannot_be_read_is_named_and_left_alone(here, monkeypatch, change):
    [job] = jobs_of("sl")
    publish(job)
    bad = change(content())
    paths.published_results("smoke").write_bytes(bad)
    said = rf"results='{paths.published_results('smoke')}': (is damaged|has other columns).*; restore it from git, or set"
    with pytest.raises(InputError, match=said):
        publish(job)
    assert content() == bad
    assert len(study.table([job]))  # its folder is here: the file is not needed
    go_elsewhere(here, monkeypatch)
    with pytest.raises(InputError, match=said):
        study.table([job])
    monkeypatch.setenv("STUDYLIB_PUBLISHED", "off")
    assert study.table([job]).empty


def test_what_needs_weights_says_which_runs_are_not_here(here, monkeypatch):
    jobs = jobs_of("sl", "sl_mlp")
    publish(*jobs)
    assert study.lacking(jobs) == "" and all(map(study.here, jobs))
    shutil.rmtree(Run(jobs[1].config).folder)
    assert [study.here(job) for job in jobs] == [True, False] and jobs[1].done
    said = study.lacking([*jobs, jobs[1]])
    assert said.startswith(f"left out: this needs the weights of {jobs[1].config.name}, not under {paths.runs()}; ")
    assert said.endswith("set STUDYLIB_PUBLISHED=off and call this again")


def test_the_command_publishes_the_runs_of_a_scale_that_are_done(here, monkeypatch, capsys):
    planned, other = jobs_of("sl"), jobs_of("sl_mlp")
    unfinished = [Job(scale="smoke", variant="look", config=resolve("smoke", "look"), evaluations=(KNN,))]
    monkeypatch.setattr(grids, "GRIDS", {"one": lambda scale, seeds: planned + unfinished + (other if seeds else [])})
    monkeypatch.setenv("STUDYLIB_PUBLISHED", "off")  # what is there is merged with nevertheless
    publish(*jobs_of("sl", evaluations=(LINEAR,)))
    assert cli.main(["publish-results", "--scale", "smoke"]) == 0
    assert capsys.readouterr().out.endswith("results of 2 runs, 2 of them here\n")
    names = {line.split(",")[0] for line in lines()[1:]}
    assert names == {planned[0].config.name, other[0].config.name}
    assert cli.main(["publish-results", "--scale", "smok"]) == 2
    assert "did you mean 'smoke'" in capsys.readouterr().err


def test_a_notebook_is_executed_again_when_results_of_runs_that_are_not_here_change(here, monkeypatch):
    one, two = jobs_of("sl", "sl_mlp")
    notebook = here.parent / "notebook.ipynb"
    notebook.write_text("{}")
    at_first = up_to_date.digest(notebook, {"scale": "smoke"})
    publish(two)
    publish(one)
    assert up_to_date.digest(notebook, {"scale": "smoke"}) == at_first  # its own runs, as published by itself
    shutil.rmtree(Run(one.config).folder)
    changed = up_to_date.digest(notebook, {"scale": "smoke"})
    assert changed != at_first
    replaced("measure", "knn_top1", "another")
    assert up_to_date.digest(notebook, {"scale": "smoke"}) != changed
