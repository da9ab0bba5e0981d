"""The main job: every notebook at a scale, an index of what came out, and on request the figures for the repository.

Nothing is remembered here between two calls: a notebook finds the runs and features that exist, so that a second call
after a kill or a failure goes on where the first one stopped.
"""

import html
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from studylib import files, launch, paths
from studylib.errors import InputError, choose

STYLE = """<style>
:root { color-scheme: light dark; --line: #d0d7de; --faint: #59636e; --good: #1a7f37; --bad: #cf222e }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --faint: #9198a1; --good: #3fb950; --bad: #f85149 } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line) }
th, small, figcaption { color: var(--faint) }
.done { color: var(--good) } .failed { color: var(--bad) }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1rem }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .6rem }
img { width: 100%; background: white; border-radius: 3px }
</style>"""


def reproduce(scale: str = "quick", only: Iterable[str] = (), publish: bool = False) -> int:
    """Exit code of all notebooks that take a ``scale``, or of ``only`` some: 0, or that of the first which failed.

    A failed notebook does not keep the others from running; one that was stopped (75) does. Executed copies go to
    ``runs/notebooks/<scale>``, the overview to ``runs/index.html``.

    Args:
        only: names of notebooks, with or without ``.ipynb``.
        publish: copy the figures of the notebooks that succeeded into the repository's ``figures``.

    Raises:
        InputError: unknown scale or notebook, unwritable runs folder; before anything runs.
    """
    launch.check_scale(scale)
    files.usable(paths.runs(), "STUDYLIB_RUNS")
    chosen = select(only)
    folder = paths.runs() / "notebooks" / scale
    failed, succeeded = 0, []
    for number, notebook in enumerate(chosen, 1):
        head = f"[{number}/{len(chosen)}] {notebook.stem} at {scale} ..."
        print(head, flush=True)
        started = time.monotonic()
        code = launch.execute(notebook, {"scale": scale}, folder / notebook.name)
        seconds = time.monotonic() - started
        outcome = "done in" if code == 0 else f"{state(code)} (exit code {code}) after"
        print(f"{head} {outcome} {seconds:.0f} s", flush=True)
        report = {"code": code, "seconds": round(seconds, 1), "finished": time.strftime("%Y-%m-%d %H:%M")}
        files.write_json(folder / f"{notebook.stem}.json", report)
        export(folder / notebook.name)
        write_index()
        if code == launch.RESUME_EXIT:
            return code
        failed = failed or code
        succeeded += [notebook.stem] if code == 0 else []
    if publish:
        copied = publish_figures(scale, succeeded)
        print(f"published {len(copied)} new or changed files to {paths.PUBLISHED_FIGURES}")
    print(f"overview: {paths.runs() / 'index.html'}")
    return failed


def select(only: Iterable[str] = ()) -> list[Path]:
    """The notebooks that declare a ``scale``, sorted; those named by ``only`` if it names any.

    Raises:
        InputError: unknown name, or there is no such notebook at all.
    """
    known = {file.stem: file for file in sorted(paths.NOTEBOOKS.glob("*.ipynb")) if "scale" in launch.declared(file)}
    if not known:
        raise InputError("notebooks", str(paths.NOTEBOOKS), "holds no notebook with a parameter `scale`")
    named = {choose("notebook", Path(name).name.removesuffix(".ipynb"), known) for name in only}
    return [file for name, file in known.items() if name in named or not named]


def state(code: int) -> str:
    """One word for an exit code."""
    return {0: "done", launch.RESUME_EXIT: "stopped"}.get(code, "failed")


def export(executed: Path) -> None:
    """Write the executed notebook as HTML beside it."""
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(embed_images=True).from_filename(str(executed))
    files.write_text(executed.with_suffix(".html"), page)


def write_index() -> None:
    """Write ``runs/index.html``: the state of every notebook and every figure, by scale, from what is on the disk."""
    root = paths.runs()
    folders = {folder.name for parent in ("notebooks", "figures") for folder in (root / parent).glob("*") if folder.is_dir()}
    sections = "".join(_section(root, scale) for scale in sorted(folders))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>studylib</title>{STYLE}'
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><h1>studylib</h1>{sections}</body></html>\n'
    files.write_text(root / "index.html", page)


def _section(root: Path, scale: str) -> str:
    """The part of the index about one scale."""
    rows = [_row(root, scale, notebook.stem) for notebook in select()]
    header = "<tr><th>notebook</th><th>state</th><th>seconds</th><th>finished</th></tr>"
    figures = "".join(_figure(root, file) for file in sorted((root / "figures" / scale).rglob("*.png")))
    gallery = f'<div class="figures">{figures}</div>' if figures else "<p><small>no figures yet</small></p>"
    return f"\n<h2>{html.escape(scale)}</h2>\n<table>{header}{''.join(rows)}</table>\n<h3>Figures</h3>\n{gallery}"


def _row(root: Path, scale: str, name: str) -> str:
    """A notebook at a scale: its state, or the command that runs it."""
    file = root / "notebooks" / scale / f"{name}.json"
    if not file.exists():
        command = f"studylib reproduce --scale {scale} --only {name}"
        return f"\n<tr><td>{name}</td><td>not run</td><td>·</td><td><code>{html.escape(command)}</code></td></tr>"
    report = json.loads(file.read_text())
    word = state(report["code"])
    shown = f'<td><a href="{_link(root, file.with_suffix(".html"))}">{name}</a></td><td class="{word}">{word}</td>'
    return f"\n<tr>{shown}<td>{report['seconds']:.0f}</td><td>{report['finished']}</td></tr>"


def _figure(root: Path, picture: Path) -> str:
    """A thumbnail with links to the other forms of the same figure."""
    forms = [file for kind in ("pdf", "csv", "json") if (file := picture.with_suffix(f".{kind}")).exists()]
    links = " · ".join(f'<a href="{_link(root, file)}">{file.suffix[1:]}</a>' for file in forms)
    name = html.escape(f"{picture.parent.name} / {picture.stem}")
    image = f'<a href="{_link(root, picture)}"><img src="{_link(root, picture)}" alt="{name}" loading="lazy"></a>'
    return f"\n<figure>{image}<figcaption>{name} <small>{links}</small></figcaption></figure>"


def _link(root: Path, file: Path) -> str:
    return quote(file.relative_to(root).as_posix())


def publish_figures(scale: str, notebooks: Iterable[str]) -> list[Path]:
    """Files written to the repository's ``figures``: those new or different, of figures that ``notebooks`` made.

    Which notebook made a figure is what the ``notebook`` of its lineage, ``<name>.json``, says; a figure without one stays.
    """
    made, source = set(notebooks), paths.figures()
    copied = []
    for lineage in sorted((source / scale).rglob("*.json")):
        if _maker(lineage) not in made:
            continue
        for file in sorted(file for file in lineage.parent.iterdir() if file.stem == lineage.stem and file.is_file()):
            target, content = paths.PUBLISHED_FIGURES / file.relative_to(source), file.read_bytes()
            if not target.exists() or target.read_bytes() != content:
                _copy(target, content)
                copied.append(target)
    return copied


def _copy(target: Path, content: bytes) -> None:
    files.write(target, lambda out: out.write(content))


def _maker(lineage: Path) -> str | None:
    """Name of the notebook in a figure's lineage."""
    found: Any = json.loads(lineage.read_text())
    notebook = found.get("notebook") if isinstance(found, dict) else None
    return Path(notebook).name.removesuffix(".ipynb") if notebook else None
