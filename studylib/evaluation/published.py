"""The results of a scale's runs in one file of the repository, which stands in for the folders of runs that are not here.

``figures/<scale>/results.csv.gz`` has a row for each run, epoch, data set, layer, split, protocol and measure (`Row`). Rows
that were computed together are a part: the measures, or one protocol, of one data set at one layer and epoch; all that
pre-training says of itself; a part without rows has one row without a measure. The order of parts is that of their names, in a
part it is that of the results table, and a value is written with all its digits: a table that is read from the file equals the
one that it was written from, and the same results make the same bytes.

A run that has a folder under ``runs/`` is not read from the file, but for one beyond a scale's plan that is not complete there
(`studylib.pool.Job`). ``STUDYLIB_PUBLISHED=off`` ignores it altogether, ``beyond`` for the runs that a scale plans, which
`studylib reproduce` computes here.
"""

import csv
import gzip
import hashlib
import io
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from studylib import files, paths
from studylib.data import checksum, is_here
from studylib.errors import InputError, choose
from studylib.evaluation import pretraining
from studylib.evaluation.evaluate import Evaluation, Part, parts
from studylib.training import Run

SWITCH = "STUDYLIB_PUBLISHED"


class Row(NamedTuple):
    """A row of the file, as text; the first six columns name its part and are what the file is sorted by."""

    run: str
    kind: str
    """``pretraining``, or a name in `studylib.evaluation.measure.MEASURES` or `studylib.evaluation.probe.PROTOCOLS`"""
    dataset: str
    epoch: str
    layer: str
    settings: str
    """hash of all settings of the protocol and of how features are extracted; empty for ``pretraining``"""
    version: str
    """of this kind of result when it was computed"""
    data: str
    """first ten digits of the data set's checksum"""
    method: str
    seed: str
    split: str
    protocol: str
    """the protocol in words"""
    measure: str
    value: str
    """JSON"""

    @property
    def key(self) -> "Key":
        """Name of its part."""
        if self.kind == pretraining.KIND:  # all epochs and layers together
            return self.run, self.kind, self.dataset, -1, "", ""
        return self.run, self.kind, self.dataset, int(self.epoch), self.layer, self.settings


Key = tuple[str, str, str, int, str, str]
Parts = dict[Key, list[Row]]


def rows(scale: str, run: Run, evaluations: Iterable[Evaluation]) -> list[dict[str, Any]] | None:
    """Rows (dataset, epoch, layer, split, protocol, measure, value) of ``run`` from the published results of ``scale``.

    None if nothing is asked of it but its weights, or if a part of ``evaluations`` is missing, of
    another version, or of other images than those of that name here.

    Raises:
        InputError: the file cannot be read.
    """
    asked = [part for evaluation in evaluations for part in parts(evaluation)]
    if not asked or not is_on():
        return None
    known = read(paths.published_results(scale))
    wanted = [(key_of(run, None), pretraining.VERSION), *((key_of(run, part), part.version) for part in asked)]
    if not all(key in known and valid(known[key][0], version) for key, version in wanted):
        return None
    return [parsed(row) for key, _ in [*wanted[1:], wanted[0]] for row in known[key] if row.measure]


def publish(scale: str, jobs: Iterable[tuple[Run, Iterable[Evaluation]]]) -> str:
    """Merge what is computed of ``jobs`` under ``runs/`` into the published results of ``scale``; says what they are then.

    Published parts that were computed again are replaced; so is all of a run that was trained to other weights, as far as its
    monitored accuracy tells. Of a run and a kind only the newest version is kept. All else stays.

    Raises:
        InputError: the published file cannot be read; it is left as it is.
    """
    file = paths.published_results(scale)
    published = read(file)
    computed = {key: part for run, evaluations in jobs if run.done for key, part in collect(run, evaluations)}
    together = merge(published, computed)
    if together:
        write(file, together)
    count = sum(bool(row.measure) for part in together.values() for row in part)
    runs, local = (len({key[0] for key in these}) for these in (together, computed))
    return f"{name(scale)}: {count} results of {runs} runs, {local} of them here"


def collect(run: Run, evaluations: Iterable[Evaluation]) -> Iterator[tuple[Key, list[Row]]]:
    """Each part of a finished run that is computed, as (name, rows); of data sets that are not here there are none."""
    about = {"method": run.config.method, "seed": run.config.seed, "data": (run.data_sha256 or "")[:10]}
    key = key_of(run, None)
    yield key, written(key, pretraining.VERSION, about, pretraining.rows(run))
    for part in [part for evaluation in evaluations for part in parts(evaluation)]:
        data = present(part.dataset)
        if data and (file := part.file(run)).exists():
            key = key_of(run, part)
            yield key, written(key, part.version, about | {"data": data}, files.read_json(file, list))


def merge(published: Parts, computed: Parts) -> Parts:
    """Both together, sorted; see `publish`."""
    trained = {key: part for key, part in computed.items() if key[1] == pretraining.KIND and key in published}
    again = {key[0] for key, part in trained.items() if monitored(published[key]) != monitored(part)}
    both = [*((key, part) for key, part in published.items() if key[0] not in again), *computed.items()]
    newest: dict[tuple[str, str], int] = {}
    for key, part in both:
        newest[key[:2]] = max(newest.get(key[:2], 0), int(part[0].version))
    kept = {key: part for key, part in both if int(part[0].version) == newest[key[:2]]}
    return dict(sorted(kept.items()))


def monitored(part: list[Row]) -> list[tuple[str, ...]]:
    """What tells, of the rows of their pre-training, whether two runs of the same settings have the same weights."""
    return [(row.data, row.epoch, row.value) for row in part if row.measure == pretraining.MONITORED] or [(part[0].data,)]


def digest(scale: str) -> str:
    """Hash of the published results that stand in for runs without a folder here; empty where none do."""
    away = without_folder(scale) if is_on() else []
    return hashlib.sha256(repr(away).encode()).hexdigest() if away else ""


def without_folder(scale: str) -> list[list[Row]]:
    """The published parts of runs without a folder here."""
    known = read(paths.published_results(scale))
    away = {run for run in {key[0] for key in known} if not (paths.runs() / run).exists()}
    return [part for key, part in known.items() if key[0] in away]


def announce(scale: str) -> None:
    """Say on stderr, once in a process, that published results of ``scale`` are used, and of how many runs there are some."""
    count = len({part[0].run for part in without_folder(scale)})
    _say(f"{name(scale)}: read for runs without a folder under {paths.runs()}, of which it has {count}")


@cache
def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def name(scale: str) -> str:
    """What the file of a scale is called in the repository."""
    file = paths.published_results(scale)
    return "/".join(file.parts[-3:])


def is_on(beyond: bool = True) -> bool:
    """Whether published results are used at all or, if not ``beyond``, for the runs that a scale plans."""
    mode = choose(SWITCH, os.environ.get(SWITCH) or "on", ("on", "beyond", "off"))
    return mode == "on" or (beyond and mode == "beyond")


def read(file: Path) -> Parts:
    """The parts in ``file``; none if there is no such file.

    Raises:
        InputError: it cannot be read.
    """
    return _read(file, files.stamp(file)) if file.exists() else {}


@lru_cache(maxsize=4)
def _read(file: Path, _stamp: tuple[int, int]) -> Parts:
    fix = f"restore it from git, or set {SWITCH}=off to do without"
    try:
        head, *lines = csv.reader(io.StringIO(gzip.decompress(file.read_bytes()).decode(), newline=""))
        if tuple(head) != Row._fields:
            raise InputError("results", str(file), f"has other columns than this version writes; {fix}")
        known: Parts = {}
        for line in lines:
            row = Row(*map(sys.intern, line))
            int(row.version), json.loads(row.value or "null")
            known.setdefault(row.key, []).append(row)
        return known
    except (OSError, EOFError, zlib.error, csv.Error, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("results", str(file), f"is damaged ({error}); {fix}") from error


def write(file: Path, published: Parts) -> None:
    """Write ``published`` to ``file``, unless that is what it holds."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(row for part in published.values() for row in part)
    content = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=content, mtime=0) as out:
        out.write(text.getvalue().encode())
    if not file.exists() or file.read_bytes() != content.getvalue():
        files.write(file, lambda out: out.write(content.getvalue()))


def key_of(run: Run, part: Part | None) -> Key:
    """Name of a part of a run; without ``part`` of what its pre-training says of itself."""
    name = run.folder.name  # to hash the settings anew for each part takes seconds
    if part is None:
        return name, pretraining.KIND, run.config.data, -1, "", ""
    return name, part.kind, part.dataset, run.epochs if part.epoch is None else part.epoch, part.layer, part.settings


def valid(row: Row, version: int) -> bool:
    """Whether a part is of this ``version`` and of the images here; those of a set that is not here are not in question."""
    return int(row.version) == version and present(row.dataset) in ("", row.data)


def present(dataset: str) -> str:
    """Short checksum of the data set ``dataset``; empty if it is not here."""
    return checksum(dataset)[:10] if is_here(dataset) else ""


def written(key: Key, version: int, about: dict[str, Any], found: list[dict[str, Any]]) -> list[Row]:
    """The rows of a part as they stand in the file."""
    run, kind, dataset, epoch, layer, settings = key
    part = {"run": run, "kind": kind, "dataset": dataset, "epoch": epoch, "layer": layer, "settings": settings}
    part |= {"version": version} | about
    empty = [{"split": "", "protocol": "", "measure": "", "value": ""}]
    found = [row | {"value": json.dumps(row["value"])} for row in found]
    return [Row(**{column: str(value) for column, value in (part | row).items()}) for row in found or empty]


def parsed(row: Row) -> dict[str, Any]:
    """A row as it stands in the results table."""
    about = {column: getattr(row, column) for column in ("dataset", "layer", "split", "protocol", "measure")}
    return about | {"epoch": int(row.epoch), "value": json.loads(row.value)}
