"""The command line. A command loads only what it runs; what a user can mend is told in one line.

Exit codes: 0 done · 1 failed · 2 bad input · 75 stopped by SIGTERM with everything saved, call again · 130 Ctrl-C.
"""

import io
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from studylib import __version__, files, paths, values
from studylib.errors import RESUME_EXIT, InputError, RunError, require


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command line ``arguments`` (by default the process's own)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks ends nothing
    try:
        return studylib.main(args=arguments, prog_name="studylib", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 2
    except click.UsageError as error:
        where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return refuse(error.format_message() + where, error.exit_code)
    except (InputError, RunError) as error:
        return refuse(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return refuse("interrupted; call again to go on", 130)
    except OSError as error:
        if error.errno not in files.ON_DISK:
            raise
        return refuse(f"{error.filename or paths.runs()}: {error.strerror}; free or name another place (STUDYLIB_RUNS)", 1)


def refuse(message: str, code: int) -> int:
    """Print ``message`` as one line on stderr; returns ``code``."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def table(rows: Sequence[dict[str, Any]]) -> str:
    """``rows`` as aligned columns under the names that any has; what is missing is a dot, a list its entries."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = [names] + [[cell(row.get(name)) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in shown)


def cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "·"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return "·" if value in (None, "") else str(value)


def scale_option(**more: Any) -> Any:
    return click.option("--scale", metavar="NAME", help="Size of the study: smoke, quick, small, ...", **more)


@click.group(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="studylib")
def studylib() -> None:
    """A reproducibility study of supervised pre-training that transfers: LOOK, SL-MLP and t-ReX.

    Everything computed lies under runs/ (STUDYLIB_RUNS names another place) and is never computed twice: call a command
    again after a kill, and it goes on. Results of runs that are not there are read from figures/SCALE/results.csv.gz, if
    they are in it; STUDYLIB_PUBLISHED=off ignores that file. `reproduce` computes what a scale plans nevertheless, unless
    STUDYLIB_PUBLISHED=on.

    \b
    Examples:
      studylib reproduce                      every notebook at scale quick, then runs/report/index.html
      studylib plan --scale small             what is missing and what it costs
      studylib pretrain --method sl --seed 1  one run
    """


@studylib.command()
@scale_option(default="quick", show_default=True)
@click.option("--method", metavar="NAME", required=True, help="sl, sl_mlp, ...")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", default=0, show_default=True)
@click.option("-p", "parameters", metavar="FIELD=VALUE", multiple=True, help="Change a setting; repeatable.")
@click.option("--device", metavar="NAME", help="cpu, cuda or cuda:1 [a GPU if there is one]")
def pretrain(scale: str, method: str, seed: int, parameters: tuple[str, ...], device: str | None) -> None:
    """Train one run; its folder is the last line printed.

    Called again it does nothing; after a kill it goes on from its last checkpoint. SIGTERM saves and exits with 75.

    \b
    Examples:
      studylib pretrain --scale quick --method sl_mlp --seed 2
      studylib pretrain --method sl_mlp -p projector.width=256 -p optimisation.epochs=5
    """
    overrides = values.assignments(parameters)
    from studylib.config import resolve

    config = resolve(scale, method, seed, overrides)
    files.usable(paths.runs(), "STUDYLIB_RUNS")
    from studylib.training import train

    print(train(config, device=device))


@studylib.command()
@click.option("--run", "folder", metavar="FOLDER", type=click.Path(path_type=Path), help="Folder of one of our runs.")
@click.option("--encoder", metavar="FILE", type=click.Path(path_type=Path), help="A ResNet trained elsewhere.")
@click.option(
    "--suite", "suite_name", metavar="NAME", help="quick, small, small_cpu, broad12, trex8, trex13, ...: suites.yaml."
)
@click.option("-d", "names", metavar="DATASET", multiple=True, help="A data set; repeatable.")
@click.option("--protocol", "protocols", metavar="NAME", multiple=True, help="Repeatable. [knn and linear]")
@click.option("--measures", is_flag=True, help="Print the measures of the features as well (held-out images).")
@click.option(
    "--layer", metavar="NAME", default="stage5", show_default=True, help="stage1 to stage5, projector1, ..., projector"
)
@click.option("--epoch", type=click.IntRange(0), metavar="N", help="Weights of the run after N epochs [the last]")
@click.option("--size", type=click.IntRange(8), metavar="PX", help="Image side for --encoder [what the file carries, or 224]")
@click.option("--stem", metavar="NAME", default="", help="conv3 or conv3s2, for --encoder with a 3x3 first convolution.")
@click.option("--network", metavar="NAME", default="", help="The one to read of several in FILE, which are printed.")
def evaluate(
    folder: Path | None,
    encoder: Path | None,
    suite_name: str | None,
    names: tuple[str, ...],
    protocols: tuple[str, ...],
    measures: bool,
    layer: str,
    epoch: int | None,
    size: int,
    stem: str,
    network: str,
) -> None:
    """Evaluate frozen features of a run, or of any ResNet under torchvision's names, on transfer sets.

    FILE may be torchvision's weights, a released checkpoint or what `studylib export` wrote; code in it is never run.

    \b
    Protocols (top-1 in %, and the mean log-odds where no set is missing):
      knn          20 weighted neighbours by cosine
      knn_grid     the same, k and temperature chosen on held-out training images
      linear       logistic regression, 20 C, chosen on held-out training images
      train_linear the same, scored on the training images it was fitted on
      trex_small8  t-ReX's for small sets: L-BFGS, 30 trials of C
      trex_large   t-ReX's for large sets: SGD on normalised features, 30 trials
      broad12      broad12's (a benchmark of twelve domains): batch norm and a linear layer, its grid
      ridge        one eigendecomposition for all penalties
      episodes     5-way 5-shot, 600 episodes
      per_class    1, 2, 4, ..., 128 images of each class
      fine_tune    the whole network, broad12's grid (slow)
      memory_fine_tune, linear_fine_tune
                   LOOK's, with a memory instead of a classifier, and its rival
      detection    Faster R-CNN, for the sets scenes (embedded) and coco; AP in %

    \b
    Examples:
      studylib evaluate --run runs/sl-c82061fad9 --suite quick
      studylib evaluate --encoder resnet50.pth --suite small --size 64 --protocol trex_small8
    """
    if (folder is None) == (encoder is None):
        raise InputError("evaluate", None, "name one of --run FOLDER and --encoder FILE")
    for option, given in (("--size", size), ("--stem", stem), ("--network", network)):
        require(option, given, encoder or not given, "is of an --encoder; a run has its own")
    if not (suite_name or names):
        raise InputError("evaluate", None, "name a suite (--suite quick) or data sets (-d digits)")
    files.usable(paths.runs(), "STUDYLIB_RUNS")
    from studylib import suites
    from studylib.data import find
    from studylib.evaluation.table import accuracy_rows, evaluate_sets
    from studylib.external import External
    from studylib.training.record import find_run

    every = list(dict.fromkeys((*(suites.suite(suite_name) if suite_name else ()), *names)))
    source = find_run(folder) if folder else External(encoder.absolute(), size=size, stem=stem, which=network)
    missing = suites.missing(every)
    for name in missing:
        if name in names:
            find(name)  # refuses what is asked for by name; what is missing of a suite is left out
    print(source.name, flush=True)
    if encoder and (choice := source.choice):
        print(f"{choice}; name another with --network")
    present = [name for name in every if name not in missing]
    require("suite", suite_name, present, f"none of its sets is here: {next(iter(missing.values()), '')}")
    results = []
    options = {"layer": layer, "epoch": epoch, "measures": measures}
    for result in evaluate_sets(source, present, protocols or ("knn", "linear"), **options):
        for fit in result.not_converged:
            print(f"{result.dataset}: {fit} did not converge everywhere", file=sys.stderr)
        if measures:
            print(table(result.measures) + "\n")
        print(f"{result.dataset} done", file=sys.stderr)
        results.append(result)
    unfit = [(result.dataset, name, why) for result in results for name, why in result.unfit.items()]
    if unfit and not any(result.accuracies for result in results):
        raise unfit[0][2]
    print(table(accuracy_rows(results, mean=not missing)))
    for dataset, name, why in unfit:
        print(f"left out: {name} on {dataset}: {why}")
    for why in missing.values():
        print(f"missing: {why}")


@studylib.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--epoch", type=int, metavar="N", help="Weights after N epochs [the last]")
def export(folder: Path, file: Path, epoch: int | None) -> None:
    """Write the encoder of RUN (a run's folder) to FILE as a state dict with torchvision's names.

    It loads into torchvision's ResNet of the same width and stem with load_state_dict(..., strict=False): only fc is
    missing. Mean and deviation for normalising images are printed, and carried in the file for `studylib evaluate --encoder`.

    \b
    Example:
      studylib export runs/sl_mlp-67ca854ad7 encoder.pth
    """
    from studylib.training.export import export_encoder

    mean, std = export_encoder(folder, file, epoch)
    shown = [" ".join(f"{value:.4f}" for value in values) for values in (mean, std)]
    print(f"{file}  normalise images in [0, 1] by mean {shown[0]}  std {shown[1]}")


@studylib.command()
@click.argument("out", metavar="OUT.zip", type=click.Path(path_type=Path))
@click.argument("folders", metavar="[RUN]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--half", is_flag=True, help="Round the weights to float16: half the size.")
@click.option("--max-mib", type=float, metavar="MIB", default=15.0, show_default=True, help="Size of a part at most.")
@click.option("--last", is_flag=True, help="Of each run only the last snapshot.")
@click.option("--resume", is_flag=True, help="With the checkpoints of unfinished runs, so that they can go on elsewhere.")
def archive(out: Path, folders: tuple[Path, ...], half: bool, max_mib: float, last: bool, resume: bool) -> None:
    """Write runs (folders, by default all under runs/) to OUT.zip, to be restored on another machine.

    Settings, metrics, timing, records and snapshots; results of evaluations are left out. Of a memory only the class vectors
    are kept. What does not fit into one part goes to OUT-01.zip, OUT-02.zip, ...; an earlier OUT is replaced.

    \b
    Examples:
      studylib archive runs.zip
      studylib archive trex.zip runs/trex-* --half --last
      studylib archive unfinished.zip runs/look-6f1c1b1a3d --resume --max-mib 100
    """
    from studylib.training.archive import archive as write_archive

    parts = write_archive(out, folders, half=half, max_mib=max_mib, last=last, resume=resume)
    names = " to ".join(dict.fromkeys((parts[0].name, parts[-1].name)))
    print(f"{sum(part.stat().st_size for part in parts) / 2**20:.2f} MiB in {len(parts)} files: {names}")


@studylib.command()
@click.argument("parts", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
def restore(parts: tuple[Path, ...]) -> None:
    """Put the runs of an archive into runs/; FILE... are all of its parts.

    Everything is checked before anything is written. A run that is as far or further on here is left as it is; one that is
    behind is brought forward. Restoring again does nothing.

    \b
    Examples:
      studylib restore runs.zip
      studylib restore trex-*.zip
    """
    from studylib.training.restore import restore as restore_runs

    counts = restore_runs(parts)
    print(f"{paths.runs()}: {', '.join(f'{count} {what}' for what, count in counts.items())}")


@studylib.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@scale_option()
@click.option("-p", "parameters", metavar="NAME=VALUE", multiple=True, help="Set a parameter of the notebook; repeatable.")
@click.option("-f", "file", metavar="YAML", type=click.Path(path_type=Path), help="Set parameters from a file; -p wins.")
@click.option("-o", "output", metavar="OUT", type=click.Path(path_type=Path), help="Executed copy [runs/notebooks/NOTEBOOK]")
def run(notebook: Path, scale: str | None, parameters: tuple[str, ...], file: Path | None, output: Path | None) -> int:
    """Execute NOTEBOOK strictly, keeping the executed copy.

    A parameter that the notebook does not declare, or that is not of its declared type, is refused before anything runs.
    The exit code is that of the notebook; SIGTERM reaches its kernel, which saves, and then it is 75.

    \b
    Examples:
      studylib run notebooks/02_sl_mlp.ipynb --scale quick
      studylib run notebooks/02_sl_mlp.ipynb -f params.yaml -p seeds=5 -o out/sl_mlp.ipynb
    """
    from studylib.publishing import launch

    given = launch.checked(notebook, launch.parameters_file(file)) if file else {}
    assigned = values.assignments(parameters)
    if scale is not None:
        other = assigned.setdefault("scale", launch.check_scale(scale))
        require("--scale", scale, other == scale, f"-p scale={other} says another; give one of them")
    given |= assigned
    return launch.execute(notebook, given, output)


@studylib.command()
@scale_option(default="quick", show_default=True)
@click.option("--only", metavar="NAME", multiple=True, help="Only this notebook; repeatable.")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Seeds of every row of every grid [what the scale plans]")
@click.option("--publish", is_flag=True, help="Replace figures/ of the notebooks that succeeded; add results.")
@click.option("--force", is_flag=True, help="Execute notebooks that are unchanged as well.")
@click.option("--published", is_flag=True, help="Also carry out what the scale publishes beyond its plan.")
@click.argument("more", metavar="[NAME]...", nargs=-1)
def reproduce(
    scale: str, only: tuple[str, ...], seeds: int | None, publish: bool, force: bool, published: bool, more: tuple[str, ...]
) -> int:
    """Run every notebook, or those named, and write runs/report/index.html.

    A notebook that succeeded is not executed again until it, the package, its data or what it made changes. Published results
    of runs beyond the plan are shown beside the others; --published computes them here.

    \b
    Examples:
      studylib reproduce
      studylib reproduce --published
      studylib reproduce --scale small --only 02_sl_mlp --publish
    """
    if more and not only:
        raise InputError("notebook", more[0], f"write --only {more[0]}")
    from studylib.publishing.reproduce import reproduce as reproduce_all

    return reproduce_all(scale, [*only, *more], publish, force, seeds or 0, published)


@studylib.command("publish-results")
@scale_option(default="quick", show_default=True)
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Seeds of every row of every grid [what the scale plans]")
def publish_results(scale: str, seeds: int | None) -> None:
    """Add the results of this machine's finished runs to figures/SCALE/results.csv.gz, executing no notebook.

    What is in the file of other runs stays: a study can be computed in parts on several machines. Elsewhere, figures and
    tables are made from the file without training.

    \b
    Example:
      studylib publish-results --scale small
    """
    from studylib.publishing.reproduce import publish_results as publish

    print(publish(scale, seeds or 0))


@studylib.command()
@scale_option(default="quick", show_default=True)
@click.option("--published", is_flag=True, help="With what the scale publishes beyond its plan.")
@click.argument("names", metavar="[GRID]...", nargs=-1)
def plan(scale: str, published: bool, names: tuple[str, ...]) -> None:
    """Show what a scale's grids of runs still cost; with names of grids, each of their runs.

    Minutes are those of one worker; a study runs one per GPU or core.

    \b
    Examples:
      studylib plan --scale small --published
      studylib plan look_starts trex_buildup
    """
    from studylib import cost, grids

    runs = cost.plan(grids.planned(scale, names, grids.PUBLISHED if published else 0))
    if names:
        print(runs.to_string(index=False) if len(runs) else f"no runs at scale {scale}")
    else:
        print(table(cost.totals(runs, list(grids.GRIDS))))


@studylib.command()
@click.argument("names", metavar="GRID...", nargs=-1, required=True)
@scale_option(default="quick", show_default=True)
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Seeds of each variant [the scale's number]")
@click.option("-p", "parameters", metavar="FIELD=VALUE", multiple=True, help="Change a setting of every run; repeatable.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Runs at a time, spread over the GPUs [see below]")
@click.option("--train-only", is_flag=True, help="Train, and evaluate nothing.")
@click.option("--minutes", type=float, metavar="M", help="With --train-only: save and end within M minutes.")
def grid(
    names: tuple[str, ...],
    scale: str,
    seeds: int | None,
    parameters: tuple[str, ...],
    workers: int | None,
    train_only: bool,
    minutes: float | None,
) -> int:
    """Run what is missing of the named GRIDs; print the means of each and what they say of the papers' claims.

    `studylib plan` lists the grids and what they cost. The whole results table of each is written to
    runs/grids/SCALE/GRID.csv. There is a worker for each GPU or, without one, for each core.

    With --train-only the runs are trained, those of one seed before the next, and none is evaluated: for a machine that is
    yours for minutes. On a GPU it measures how many runs at a time train the most together. What is
    left is told at the end, and the exit code is 75 until nothing is; the same command goes on.

    \b
    Examples:
      studylib grid components
      studylib grid look_starts --seeds 3 -p optimisation.epochs=6
      studylib grid comparison methods --scale small --train-only --minutes 14
    """
    began = time.monotonic()
    overrides = values.assignments(parameters)
    if minutes is not None and not train_only:
        raise InputError("--minutes", minutes, "needs --train-only: how long evaluation takes is not bounded")
    if minutes is not None and not minutes > 0:
        raise InputError("--minutes", minutes, "must be positive")
    files.usable(paths.runs(), "STUDYLIB_RUNS")
    from studylib import grids

    jobs = grids.planned(scale, names, seeds or 0, overrides)
    for name, of_grid in jobs.items():
        if not of_grid:
            raise InputError("grid", name, grids.left_out(name, scale))
    every = [job for of_grid in jobs.values() for job in of_grid]
    if train_only:
        from studylib.train_only import train

        given = {"--scale": scale, "--seeds": seeds, "--workers": workers, "--minutes": minutes}
        options = [text for option, value in given.items() if value is not None for text in (option, f"{value}")]
        options += [text for parameter in parameters for text in ("-p", parameter)]
        again = shlex.join(["studylib", "grid", *jobs, *options, "--train-only"])
        deadline = None if minutes is None else began + 60 * minutes
        return 0 if train(every, workers=workers, deadline=deadline, again=again) else RESUME_EXIT
    from studylib import study
    from studylib.report.grid import grid_summary

    study.run(every, workers)
    for name, of_grid in jobs.items():
        results = study.table(of_grid)
        file = paths.runs() / "grids" / scale / f"{name}.csv"
        files.write_text(file, results.to_csv(index=False))
        print(grid_summary(results, name, scale))
        print(file)
    return 0


@studylib.group(no_args_is_help=True)
def data() -> None:
    """List, fetch and check image sets.

    \b
    Examples:
      studylib data list
      studylib data fetch cifar100
      studylib data check ~/packed
    """


@data.command("list")
def data_list() -> None:
    """List the image sets that can be loaded, and those that can be fetched."""
    from studylib import data as sets

    print(table(sets.available()))


@data.command("fetch")
@click.argument("name")
@click.option(
    "--size", type=int, metavar="PX", default=64, show_default=True, help="Side of the packed images, if they are larger."
)
def data_fetch(name: str, size: int) -> None:
    """Download the image set NAME with torchvision and pack it under runs/data.

    \b
    Examples:
      studylib data fetch cifar100
      studylib data fetch flowers102 --size 96
    """
    files.usable(paths.runs(), "STUDYLIB_RUNS")
    from studylib import data as sets

    print(sets.fetch(name, size))


@data.command("check")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
def data_check(folder: Path | None) -> None:
    """Verify the packed sets in DIR, by default all that are known (STUDYLIB_DATA and fetched ones).

    Exit code 2 if one of them cannot be used.

    \b
    Example:
      studylib data check ~/packed
    """
    from studylib import data as sets

    rows = sets.check(folder)
    print(table(rows) if rows else "no packed sets; fetch one, or name a folder of them in STUDYLIB_DATA")
    if bad := [row["name"] for row in rows if not row["ok"]]:
        raise InputError("data", ", ".join(bad), f"{len(bad)} of {len(rows)} sets cannot be used; see the notes above")


@studylib.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--device", metavar="NAME", default="cpu", show_default=True, help="cpu, cuda or cuda:1")
@click.option("--json", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write the results as JSON as well.")
def bench(names: tuple[str, ...], device: str, file: Path | None) -> None:
    """Measure speed and memory of the training loop, the probe and the measures on this machine.

    \b
    Examples:
      studylib bench
      studylib bench loop_efficiency --json bench.json
      studylib bench --device cuda              the loop, what one process uses of a GPU, others' pipelines
    """
    if file:
        files.writable(file, "--json")
    from studylib import bench as benchmarks
    from studylib import device as devices

    where = devices.find(device)
    results = benchmarks.run(names, where)
    for row in results:
        print(
            "  ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
        )
    if file:
        files.write_json(file.absolute(), {"machine": benchmarks.machine(where), "results": results})
