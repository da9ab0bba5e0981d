"""What every notebook does: plan grids of runs, carry them out, save and show figures and tables, judge claims.

A notebook names its grids once, and says of each figure and table which grid its rows come from::

    study = Notebook("03_trex", scale=scale, seeds=seeds, settings=settings)
    study.plan("methods", "trex_depth")
    results = study.run()
    both = report.both_sides(results.methods, study.upstream, study.transfer)
    study.figure("frontier", both, report.frontier, grid="methods", upstream="linear_top1", transfer="linear_top1_log_odds")

Where the scale plans no runs of that grid, one sentence with the command that runs it stands in place of the figure.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from studylib import config, cost, data, grids, papers, paths, report, study, values
from studylib.errors import choose
from studylib.evaluation import features
from studylib.external import External
from studylib.pool import Job, is_interactive
from studylib.report import claims
from studylib.scale import Regime, check_seeds
from studylib.training import Run

WHOLE = ("display.max_colwidth", None, "display.max_rows", None)  # tables are shown with all their rows and words


class Notebook:
    """The study as one notebook sees it, at one scale.

    Args:
        name: of the notebook, the folder of its figures.
        scale: name of the scale.
        seeds: of every row of every grid, from 0 up; 0 takes what the scale plans. None, as for ``settings``, for a notebook
            that has no such parameter.
        settings: more settings for every run, such as ``"optimisation.epochs=4 encoder.width=8"``.
        parameters: other parameters of the notebook, for the lineage of its figures.

    Raises:
        InputError: an unknown scale or setting, or a value out of range.
    """

    def __init__(self, name: str, *, scale: str, seeds: int | None = None, settings: str | None = None, **parameters: Any):
        self._content = config.scale(scale)  # the only place that reads what a scale holds
        if seeds is not None:
            check_seeds(values.read("seeds", seeds, int))
        self.overrides = values.assignments(values.words("settings", settings or ""), "settings")
        config.resolve(scale, parameters.get("method", "sl"), 0, self.overrides)  # refuses an unknown setting
        self.name, self.scale, self.seeds = name, scale, seeds or 0
        given = {"scale": scale, "seeds": seeds, "settings": settings}
        self.parameters = {key: value for key, value in given.items() if value is not None} | parameters
        self.about = f"{scale}: {self._content.about}"
        self.caption = f"{self.about}; {settings or 'no further settings'}"
        self.jobs: dict[str, list[Job]] = {}
        """grid -> its jobs, by `plan`"""
        self.tables: dict[str, pd.DataFrame] = {}
        """grid -> its results, by `run`"""
        self.encoders: list[External] = []
        """encoders in files that are evaluated beside the runs, by `add_encoders`"""
        self.lineage = report.lineage([], name, self.parameters)
        self._said: set[tuple[int, str]] = set()

    @property
    def upstream(self) -> str:
        """The data set of pre-training."""
        return self._content.upstream

    @property
    def unseen(self) -> list[str]:
        """Data sets of classes that pre-training does not have."""
        return list(self._content.unseen)

    @property
    def domains(self) -> list[str]:
        """Data sets of other domains, and of differences inside classes; there may be none."""
        return list(self._content.domains)

    @property
    def transfer(self) -> list[str]:
        """All transfer sets: ``unseen`` and ``domains``."""
        return list(self._content.transfer)

    @property
    def stagewise(self) -> list[str]:
        """Data sets that are probed after each stage of the encoder."""
        return list(self._content.stagewise)

    @property
    def hiding(self) -> str:
        """The data set whose classes hide other labels, for claim L1."""
        return self._content.modes.data

    @property
    def regime(self) -> Regime:
        """Data of the grid ``regime``: ``data``, the labels that are trained on, and ``transfer``."""
        return self._content.regime

    @property
    def gate(self) -> float:
        """What SL must reach for its networks to count as trained, in %."""
        return self._content.gate.least

    @property
    def fine_tune(self) -> list[str]:
        """Data sets that the whole network is fine-tuned on."""
        return list(self._content.fine_tune)

    @property
    def suite(self) -> str:
        """The suite of data sets that protocols are compared on."""
        return self._content.suite

    @property
    def here(self) -> dict[str, Any]:
        """Folder and lineage of what the notebook makes, as `report.save` and `report.write_table` take them."""
        return {"folder": paths.figures() / self.scale / self.name, "lineage": self.lineage}

    def plan(self, *names: str, **parts: Callable[..., list[Job]]) -> None:
        """Plan grids of runs; print what they cost and what the scale leaves out, show in what the runs' settings differ.

        Args:
            names: grids of `grids.GRIDS`.
            parts: grid -> function with the arguments of a grid that gives the jobs in its place, such as some of its rows.

        Raises:
            InputError: an unknown grid, or a setting that does not fit.
        """
        chosen = {choose("grid", name, grids.GRIDS): grids.GRIDS[name] for name in names} | parts
        self._plan({name: function(self.scale, self.seeds, self.overrides) for name, function in chosen.items()})

    def single(self, method: str, seed: int) -> Run:
        """Plan one run of ``method`` that is not evaluated, as the scale has it; shows what `plan` shows.

        Raises:
            InputError: an unknown method, or a setting that does not fit it.
        """
        chosen = config.resolve(self.scale, method, seed, self.overrides)
        self._plan({method: [Job(scale=self.scale, variant=method, config=chosen, evaluations=())]})
        return Run(chosen)

    def _plan(self, jobs: dict[str, list[Job]]) -> None:
        self.jobs = jobs
        every = self.every
        shared, differing = report.settings((job.variant, job.config) for job in every)
        settings = {"shared": shared, "variants": differing.to_dict("records")}
        self.lineage = report.lineage([job.config.name for job in every], self.name, self.parameters, settings=settings)
        print(self.caption)
        if every:
            print("; ".join(f"{name} {len({job.config for job in jobs})}" for name, jobs in self.jobs.items() if jobs))
        for name in [name for name, jobs in self.jobs.items() if not jobs]:
            print(grids.left_out(name, self.scale))
        print(cost.cost(every))
        if len(differing) > 1:
            show(differing)

    def add_encoders(self, files: str, size: int) -> None:
        """Evaluate ResNets that were trained elsewhere as the planned runs are at their end; their rows are in `all_results`.

        Args:
            files: their files, with blanks between them, one that has a blank itself in quotes; nothing for none. Of several
                networks in a file FILE:NETWORK names the one to read.
            size: side of the images that they get, in pixels; 0 for what the file carries, or 224.

        Raises:
            InputError: a file cannot be read, or holds no ResNet.
        """
        given = values.words("encoders", files)
        self.encoders = [External(file, size=size or None, which=network) for file, network in map(_encoder, given)]
        for source in self.encoders:
            if choice := source.choice:
                print(f"{choice}; name another as FILE:NETWORK")
        self.lineage["runs"] = sorted({*self.lineage["runs"], *(source.name for source in self.encoders)})

    @property
    def every(self) -> list[Job]:
        """One job for each planned run, with the evaluations of all grids that it is in."""
        return study.merged(job for jobs in self.jobs.values() for job in jobs)

    def variants(self, grid: str) -> list[str]:
        """The rows of a grid in their order, those that the scale leaves out as well."""
        return list(dict.fromkeys(job.variant for job in grids.GRIDS[grid](self.scale, 1, self.overrides)))

    def run(self) -> SimpleNamespace:
        """The results tables of the planned grids by name; what is missing is computed first.

        A person sees bars; a batch gets a line for each epoch, and at the end one for each run.
        """
        study.run(self.every)
        for job in [] if is_interactive() else self.every:
            clock = Run(job.config).timing()
            trained = f"{len(clock)} epochs in {sum(row['seconds'] for row in clock):.0f} s"
            what = trained if study.here(job) else "published results"
            print(f"{job.config.name:24} {job.variant}, seed {job.config.seed}: {what}")
        self.tables = {name: study.table(jobs) for name, jobs in self.jobs.items()}
        return SimpleNamespace(**self.tables)

    def all_results(self) -> pd.DataFrame:
        """One results table of all planned runs, each evaluation once, and of the encoders of `add_encoders`."""
        ours, every = study.table(self.every), self.every
        asked = dict.fromkeys(one for job in every for one in job.evaluations if one.epoch is None)
        return pd.concat([ours, study.external(self.encoders, asked)], ignore_index=True) if self.encoders else ours

    def computed(self, *names: str, compute: bool = False) -> dict[str, pd.DataFrame]:
        """The results of grids as far as they are computed, beyond the scale's plan as well; in place of `plan` and `run`.

        Args:
            names: grids of `grids.GRIDS`.
            compute: what is missing is computed first.
        """
        self.jobs = {choose("grid", name, grids.GRIDS): grids.trained(name, self.scale, self.seeds) for name in names}
        planned = [job for job in self.every if not job.beyond]
        if compute:
            study.run(planned)
        done = [job for job in self.every if job.done]
        self.lineage = report.lineage([job.config.name for job in done], self.name, self.parameters)
        left = sum(not job.done for job in planned)
        print(f"{self.about}; {len(done)} runs; {left} that are planned are not computed, or not to the end")
        self.tables = {name: study.table(jobs) for name, jobs in self.jobs.items()}
        return self.tables

    def left_out(self, grid: str | Sequence[str], variants: Sequence[str] = ()) -> bool:
        """Whether the scale plans no runs of ``grid``, or of all of several; if so, says it once in a cell.

        Args:
            variants: of the grid's rows those that are looked for; by default any.

        Raises:
            InputError: the notebook does not plan that grid.
        """
        names = [choose("grid", name, self.jobs) for name in ([grid] if isinstance(grid, str) else grid)]
        if not names or any(not variants or job.variant in variants for name in names for job in self.jobs[name]):
            return False
        if (said := (cell(), names[0])) not in self._said:
            print(grids.left_out(names[0], self.scale))
        self._said |= {said} if said[0] else set()
        return True

    def figure(
        self,
        name: str,
        rows: Any,
        draw: Callable[..., Any],
        *,
        grid: str | Sequence[str] = (),
        needs: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """Draw a figure, save it with its lineage and show it.

        Args:
            name: of the file.
            rows: what ``draw`` takes first, such as results; nothing is drawn of None, which stands for features that are not
                here (`features`).
            draw: gives (figure, plotted data), such as `report.transfer`; it gets ``options``.
            grid: where ``rows`` come from; where the scale leaves it out, that is said instead (`left_out`).
            needs: variants of the grid; where the scale leaves out all of them, that is said instead.
        """
        if not self.left_out(grid, needs) and rows is not None:
            figure, shown = draw(rows, **options)
            report.save(figure, name, shown, **self.here)

    def pictures(
        self, name: str, spec: str, draw: Callable[..., Any], *, grid: str | Sequence[str] = (), **options: Any
    ) -> None:
        """A figure that shows images of the data set ``spec``, by ``draw(images, **options)``.

        Images that others made are saved where they are not published. Without a ``grid`` the figure is of no run. Nothing is
        drawn where an option is None, which stands for features that are not here (`features`).
        """
        if self.left_out(grid) or any(value is None for value in options.values()):
            return
        images = data.load(spec)
        embedded = images.name.partition("/")[0].partition("@")[0] in data.EMBEDDED
        place = {} if embedded else {"folder": paths.runs() / "pictures" / self.scale}
        of_none = {"lineage": report.lineage([], self.name, {"scale": self.scale}, {images.name: images.checksum})}
        figure, shown = draw(images, **options)
        report.save(figure, name, shown, **self.here | place | ({} if grid else of_none))

    def features(self, grid: str, spec: str, methods: Iterable[str] = ()) -> dict[str, Any] | None:
        """Features (N, d) of the held-out images of the data set ``spec`` by method: the encoder's output, seed 0.

        Of the runs of ``grid``, by default of all methods; none where the scale leaves it out. Features are not published:
        where a run is not under ``runs/``, a sentence says which is needed, and None is returned.
        """
        jobs = [job for job in self.jobs[grid] if job.config.seed == 0 and job.config.method in (methods or config.METHODS)]
        if lacking := study.lacking(jobs):
            print(lacking)
            return None
        images = data.load(spec) if jobs else None
        extracted = {job.config.method: features.extract(Run(job.config), images, layers=["stage5"]) for job in jobs}
        return {method: of.part("stage5", "test")[0].cpu() for method, of in extracted.items()}

    def table(
        self, name: str, frame: pd.DataFrame, *, caption: str = "", grid: str | Sequence[str] = (), **summary: Any
    ) -> None:
        """Write a table as Markdown, CSV and LaTeX with its lineage, and show it.

        Args:
            frame: text as it is to be shown or, with options for `report.summary` (rows, columns, difference), results.
            caption: by default what the scale is.
            grid: as for `figure`.
        """
        if not self.left_out(grid):
            frame = report.summary(frame, **summary) if summary else frame
            report.write_table(frame, name, caption=caption or self.caption, **self.here)
            show(frame)

    def published(self, paper: str, table: str, heads: dict[str, str]) -> None:
        """Write and show values of a paper, with their source; ``heads``: columns of its table -> what stands above them."""
        entry = papers.load(paper)["tables"][table]
        said = f"Published, not ours: {entry['setting']}; {papers.TAGS[entry['tag']]}: {entry['source']}."
        frame = papers.published(paper, table)[list(heads)].rename(columns=heads)
        print(said)
        self.table("published", frame, caption=said)

    def claims(self, *of: str, where: str = "", caption: str = "", tables: dict[str, pd.DataFrame] | None = None) -> None:
        """Judge the claims of the papers ``of``, by default of all; print how each test is read, write and show the table.

        Args:
            where: a pandas query that picks rows of `claims.judge`'s table.
            caption: of the table, by default what the scale is.
            tables: grid -> results, by default those of `run`.
        """
        judged = claims.judge(self.tables if tables is None else tables, self.scale, of or claims.PAPERS)
        judged = judged.query(where) if where else judged
        print(claims.sentences(judged[judged["reading"] != "not run"]))
        if set(claims.grids_of(of or claims.PAPERS)) <= set(self.tables if tables is None else tables):
            show(markdown(claims.discussion(judged)))  # verdicts are corrected over all claims of a paper
        self.table("claims", claims.shown(judged), caption=caption)


def _encoder(word: str) -> tuple[Path, str]:
    """File and network of ``FILE`` or ``FILE:NETWORK``."""
    file, colon, network = word.rpartition(":")
    whole = Path(word).expanduser().absolute()
    return (whole, "") if whole.exists() or not colon else (Path(file).expanduser().absolute(), network)


def show(thing: Any) -> None:
    """Show a table or text in a notebook; elsewhere nothing is shown."""
    if "ipykernel" in sys.modules:
        from IPython.display import display

        with pd.option_context(*WHOLE):
            display(thing)


def markdown(text: str) -> Any:
    """``text`` as a notebook shows Markdown."""
    from IPython.display import Markdown

    return Markdown(text)


def cell() -> int:
    """The number of the cell that is executed; 0 outside of a notebook."""
    if "ipykernel" not in sys.modules:
        return 0
    from IPython import get_ipython

    return getattr(get_ipython(), "execution_count", 0)
