"""The main job: the runs of a scale, every notebook, a report of what came out, and on request the figures for the repository.

The runs of all grids are carried out first, in one go that keeps all cores busy; a notebook finds the runs and features that
exist, so that a second call after a kill or a failure goes on where the first one stopped; one that would only do the same
again is not executed.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from studylib import files, paths
from studylib.errors import InputError, RunError, choose
from studylib.publishing import gallery, launch, page
from studylib.publishing.up_to_date import digest, listing, made, unchanged


def reproduce(
    scale: str = "quick",
    only: Iterable[str] = (),
    publish: bool = False,
    force: bool = False,
    seeds: int = 0,
    published: bool = False,
) -> int:
    """Exit code of all notebooks that take a ``scale``, or of ``only`` some: 0, or that of the first which failed.

    The runs of all grids are carried out before, unless ``only`` some are asked for; where one cannot be, the notebooks that
    need it say so. What the scale plans is computed here, be it published or not, unless STUDYLIB_PUBLISHED says otherwise. A
    failed notebook does not keep the others from running; one that was stopped (75) does. One is not executed again if it
    succeeded, nothing it depends on changed and all it made is still there. Executed copies go to ``runs/notebooks/<scale>``,
    the overview to ``runs/report/index.html``.

    Args:
        only: names of notebooks, with or without ``.ipynb``.
        publish: make the repository's ``figures`` those of the notebooks that succeeded, and add the runs' results to them.
        force: execute what is unchanged as well.
        seeds: of every row of every grid, 0 for what the scale plans; for notebooks that have this parameter.
        published: carry out the runs that the scale publishes beyond its plan as well, of all grids, and execute what is
            unchanged as well; without it they are shown where done.

    Raises:
        InputError: unknown scale or notebook, both ``seeds`` and ``published``, unwritable runs folder; before anything runs.
        SystemExit: 75 after SIGTERM during the runs, when they have saved.
    """
    launch.check_scale(scale)
    if seeds and published:
        raise InputError("--published", seeds, "the scale's file says how many seeds that is: leave out --seeds")
    files.usable(paths.runs(), "STUDYLIB_RUNS")
    os.environ.setdefault("STUDYLIB_PUBLISHED", "on" if published else "beyond")  # for the notebooks' kernels, too
    known = {file.stem: title(file) for file in select()}
    chosen = [Execution(notebook, scale, seeds) for notebook in select(only)]
    due = {task.name: force or published or not task.unchanged() for task in chosen}
    if page.CLAIMS in due:
        due[page.CLAIMS] |= any(due.values())
    if published or (not only and any(due.values())):
        compute(scale, seeds, published)
    failed, succeeded = 0, []
    with Overall(scale, list(due), {task.name: task.seconds() for task in chosen if due[task.name]}) as overall:
        for task in chosen:
            if due[task.name]:
                overall.begin(task.name)
                code, seconds = task.execute()
                page.write(known)
                outcome = "done in" if code == 0 else f"{page.state(code)} (exit code {code}) after"
                overall.end(task.name, f"{outcome} {seconds:.0f} s")
            else:
                code = 0
                overall.end(task.name, "unchanged")
            if code == launch.RESUME_EXIT:
                return code
            failed = failed or code
            succeeded += [task] if code == 0 else []
    if publish:
        from studylib.publishing import claims_page

        differing = sum(task.publish() for task in succeeded)
        claims_page.publish(paths.PUBLISHED_FIGURES, paths.REPOSITORY / "README.md")
        print(publish_results(scale, seeds))
        print(f"published to {paths.PUBLISHED_FIGURES}: {differing} files differ from before; gallery: {gallery.write()}")
    print(f"report: {page.write(known)}")
    return failed


def compute(scale: str, seeds: int = 0, published: bool = False) -> None:
    """Carry out the runs that a scale plans, of all grids, and those that it publishes beyond; a notebook by itself would do
    the same with those it names."""
    from studylib import cost, grids, study

    try:
        count = grids.PUBLISHED if published else seeds
        if left := study.missing(job for plan in grids.GRIDS.values() for job in plan(scale, count)):
            print(f"{scale}: {cost.cost(left)}", flush=True)
            study.carry_out(left)
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)


def publish_results(scale: str, seeds: int = 0) -> str:
    """Merge the results of all runs of a scale's grids that are done here into ``figures/<scale>/results.csv.gz``.

    ``seeds`` as in `reproduce`; runs beyond the scale's plan are published as well. Returns a line that says what the file
    holds.

    Raises:
        InputError: unknown scale, or the file that is there cannot be read; it is left as it is.
    """
    launch.check_scale(scale)
    from studylib import grids
    from studylib.evaluation import published
    from studylib.training import Run

    jobs = [job for grid in grids.GRIDS for job in grids.trained(grid, scale, seeds)]
    return published.publish(scale, [(Run(job.config), job.evaluations) for job in jobs])


class Execution:
    """A notebook at a scale: what its last execution said, and the next."""

    def __init__(self, notebook: Path, scale: str, seeds: int = 0):
        self.notebook, self.name, self.given = notebook, notebook.stem, {"scale": scale}
        if seeds and "seeds" in launch.declared(notebook):
            self.given["seeds"] = seeds
        self.executed = paths.runs() / "notebooks" / scale / notebook.name
        self.file = self.executed.with_suffix(".json")
        self.figures = paths.figures() / scale / notebook.stem

    def report(self) -> dict[str, Any]:
        """What is known of the last execution; nothing if there was none."""
        return gallery.read_json(self.file) if self.file.exists() else {}

    def seconds(self) -> float | None:
        """What the last execution took, if it succeeded."""
        return self.report()["seconds"] if self.report().get("code") == 0 else None

    def digest(self) -> str:
        """Of what it depends on; the claims are judged from all runs that there are."""
        return digest(self.notebook, self.given, reads_runs=self.name == page.CLAIMS)

    def unchanged(self) -> bool:
        """Whether another execution would do the same again."""
        return unchanged(self.report(), self.digest(), self.executed, self.figures)

    def execute(self) -> tuple[int, float]:
        """(exit code, seconds); the executed copy also becomes HTML."""
        now, before, started = self.digest(), listing(self.figures), time.monotonic()
        code = launch.execute(self.notebook, self.given, self.executed)
        seconds = round(time.monotonic() - started, 1)
        report = {"code": code, "seconds": seconds, "finished": time.strftime("%Y-%m-%d %H:%M")}
        export(self.executed)
        files.write_json(self.file, report | {"digest": now} | made(self.figures, before))
        return code, seconds

    def publish(self) -> int:
        """Make the notebook's folder among the repository's ``figures`` what its last execution made, without what is older.

        Returns:
            The number of files that this adds, changes or removes.
        """
        made, target, differing = self.report()["figures"], paths.PUBLISHED_FIGURES / self.given["scale"] / self.name, 0
        for name in listing(target):
            if name not in made:
                (target / name).unlink()
                differing += 1
        for name in made:
            content = (self.figures / name).read_bytes()
            if not (target / name).exists() or (target / name).read_bytes() != content:
                files.write(target / name, lambda out, content=content: out.write(content))
                differing += 1
        if not made and target.exists():
            shutil.rmtree(target)  # it holds no file any more; a clone would not have it, and pages must not name it
        return differing


class Overall:
    """How far all notebooks are: a line after each, and for a person a bar on stderr.

    Args:
        names: of all notebooks, in their order.
        expected: seconds of each that is to be executed, None for unknown.
    """

    def __init__(self, scale: str, names: list[str], expected: Mapping[str, float | None]):
        self.scale, self.names, self.left = scale, names, dict(expected)
        timed = [seconds for seconds in expected.values() if seconds is not None]
        mean = sum(timed) / len(timed) if timed else 1.0
        self.weight = {name: max(mean if seconds is None else seconds, 0.1) for name, seconds in expected.items()}
        known = f"{len(names)} notebook{'s' * (len(names) != 1)}, {len(names) - len(expected)} unchanged"
        self.say(f"{scale}: {known}, {len(expected)} to execute{self.ahead()}")
        form = "{desc} |{bar}| {percentage:.0f} %"
        self.bar = tqdm(total=sum(self.weight.values()), disable=None if expected else True, bar_format=form, desc=scale)

    def __enter__(self) -> "Overall":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def head(self, name: str) -> str:
        return f"[{self.names.index(name) + 1}/{len(self.names)}] {name}"

    def begin(self, name: str) -> None:
        """Say that a notebook starts."""
        self.bar.set_description_str(f"{self.head(name)}{self.ahead()}")
        self.say(f"{self.head(name)} at {self.scale} ...")

    def end(self, name: str, outcome: str) -> None:
        """Say how a notebook ended and, if it was executed, what is left."""
        line = f"{self.head(name)} at {self.scale} ... {outcome}"
        if name in self.left:
            del self.left[name]
            self.bar.update(self.weight[name])
            share = 1 - sum(self.weight[name] for name in self.left) / sum(self.weight.values())
            line += f"; {100 * share:.0f} % of all{self.ahead()}"
            self.bar.set_description_str(f"{self.head(name)}{self.ahead()}")
        self.say(line)

    def ahead(self) -> str:
        """The time left, estimated from how long each notebook took when it was last executed."""
        timed = sum(seconds for seconds in self.left.values() if seconds)
        if None not in self.left.values():
            return f", about {duration(timed)} left" if self.left else ""
        return f", at least {duration(timed)} left" if timed else ", time left unknown"

    @staticmethod
    def say(line: str) -> None:
        """Print a line above the bar."""
        with tqdm.external_write_mode(file=sys.stdout):
            print(line, flush=True)


def duration(seconds: float) -> str:
    """``40 s``, ``5 min`` or ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def select(only: Iterable[str] = ()) -> list[Path]:
    """The notebooks that show the study at a ``scale``, sorted, the claims last; those named by ``only`` if it names any.

    One that takes a ``method`` trains a single run and is not among them.

    Raises:
        InputError: unknown name, or there is no such notebook at all.
    """
    known = {}
    for file in sorted(paths.NOTEBOOKS.glob("[!.]*.ipynb"), key=lambda file: (file.stem == page.CLAIMS, file.name)):
        parameters = launch.declared(file)
        if "scale" in parameters and "method" not in parameters:
            known[file.stem] = file
    if not known:
        raise InputError("notebooks", str(paths.NOTEBOOKS), "holds no notebook with a parameter `scale`")
    named = {choose("notebook", Path(name).name.removesuffix(".ipynb"), known) for name in only}
    return [file for name, file in known.items() if name in named or not named]


def title(notebook: Path) -> str:
    """The first heading of a notebook, empty if it has none."""
    text = ["".join(cell["source"]) for cell in launch.read(notebook)["cells"] if cell["cell_type"] == "markdown"]
    lines = "\n".join(text).splitlines()
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), "")


def export(executed: Path) -> None:
    """Write the executed notebook as HTML beside it."""
    from nbconvert import HTMLExporter

    content, _ = HTMLExporter(embed_images=True).from_filename(str(executed))
    files.write_text(executed.with_suffix(".html"), content)
