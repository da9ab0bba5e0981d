"""The report, ``runs/report/index.html``: verdicts on the claims, then figures and tables by scale, then the notebooks.

One file with its style in it, without scripts; figures and executed notebooks are linked by relative paths.
"""

import csv
import html
import re
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from studylib import files, paths
from studylib.errors import RESUME_EXIT
from studylib.publishing import gallery
from studylib.report.tables import NUMBER

CLAIMS = "07_claims"  # the notebook that judges; it reads what the others made
VERDICTS = ("supported", "contradicted", "inconclusive", "not run")
STATES = ("done", "stopped", "failed")
VERDICT = re.compile(rf"(?:^|\*\*)({'|'.join(VERDICTS + STATES)})(?:\*\*|\b)")
OPEN = 15  # rows of the longest table that is shown unfolded
LONG = 240  # a caption with more letters is cut after its first sentence, and the rest can be unfolded

STYLE = """<style>
:root { color-scheme: light dark; --page: #fff; --card: #f6f8fa; --text: #1f2328; --faint: #59636e; --line: #d0d7de;
  --link: #0550ae; --good: #116329; --good-back: #dafbe1; --bad: #a40e26; --bad-back: #ffebe9; --open: #6a4c00;
  --open-back: #fff8c5; --none: #424a53; --none-back: #eaeef2 }
@media screen and (prefers-color-scheme: dark) { :root { --page: #0d1117; --card: #151b23; --text: #e6edf3; --faint: #9198a1;
  --line: #3d444d; --link: #79b8ff; --good: #7ee787; --good-back: #12361f; --bad: #ffb3ad; --bad-back: #4a1618;
  --open: #f2cc60; --open-back: #3a2d06; --none: #c4ccd4; --none-back: #2a313c } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, "Liberation Sans", sans-serif }
main, header { max-width: 84rem; margin: 0 auto; padding: 0 1.25rem }
header { padding-top: 1.5rem } main { padding-bottom: 4rem }
h1 { font-size: 1.75rem; margin: 0 } h2 { font-size: 1.4rem; margin: 3rem 0 .4rem; border-bottom: 1px solid var(--line) }
h3 { font-size: 1.1rem; margin: 2rem 0 .6rem } h2, h3, p, figcaption { overflow-wrap: anywhere }
h3 small, header p, .faint { color: var(--faint); font-weight: normal } p { margin: .4rem 0 }
a { color: var(--link) } code { font-size: .875em }
nav ul, .counts { display: flex; flex-wrap: wrap; gap: .5rem 1.1rem; list-style: none; padding: 0; margin: .8rem 0 }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0 }
.scroll:focus-visible, a:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
table { border-collapse: collapse; width: 100%; font-size: .875rem; line-height: 1.4 }
th, td { text-align: left; vertical-align: top; padding: .45rem .75rem; border-top: 1px solid var(--line) }
tbody tr:nth-child(even) { background: var(--card) }
thead th { border-top: 0; border-bottom: 2px solid var(--line); color: var(--faint); font-weight: 600; white-space: nowrap }
caption { text-align: left; padding: .6rem .75rem; color: var(--faint); border-bottom: 1px solid var(--line) }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.long { min-width: 13rem } .short { white-space: nowrap }
.verdict { display: inline-block; padding: 0 .55em; border-radius: 1em; font-weight: 600; white-space: nowrap }
.supported, .done { color: var(--good) } .contradicted, .failed { color: var(--bad) }
.inconclusive, .stopped { color: var(--open) } .not-run { color: var(--none) }
.verdict.supported, .verdict.done { background: var(--good-back) }
.verdict.contradicted, .verdict.failed { background: var(--bad-back) }
.verdict.inconclusive, .verdict.stopped { background: var(--open-back) } .verdict.not-run { background: var(--none-back) }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(23rem, 100%), 1fr)); gap: 1rem;
  align-items: start }
figure { margin: 0; padding: .6rem; border: 1px solid var(--line); border-radius: 6px; background: var(--card) }
figure img { display: block; width: 100%; height: auto; background: #fff; border-radius: 3px }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; margin-top: .5rem;
  font-size: .875rem }
details { margin: .6rem 0 } summary { cursor: pointer } caption details { margin: 0 }
caption div { position: sticky; left: .75rem; max-width: min(70rem, calc(100vw - 4.2rem)) }
@media (max-width: 40rem) { th, td { padding: .4rem .5rem } }
@media print {
  @page { margin: 14mm }
  body { font-size: 10pt } main, header { max-width: none; padding: 0 } nav, .links { display: none }
  a { color: inherit; text-decoration: none } h2, h3, h2 + p, summary, caption { break-after: avoid }
  figure, tr, caption, details table { break-inside: avoid } thead { display: table-header-group } figure { background: none }
  .figures { grid-template-columns: 1fr 1fr }
  .scroll { overflow: visible; border: 0 } .long { min-width: 0 } .number, .short, thead th { white-space: normal }
  table { font-size: 7.5pt } th, td { padding: .25rem .4rem; overflow-wrap: normal }
  caption div { max-width: none } /* tables that are folded stay so: what is open is printed */
  .verdict { border: 1px solid; print-color-adjust: exact }
}
</style>"""


def state(code: int) -> str:
    """One word for an exit code."""
    return {0: "done", RESUME_EXIT: "stopped"}.get(code, "failed")


def write(notebooks: Mapping[str, str]) -> Path:
    """Path of the report, written from what is under the runs folder.

    Args:
        notebooks: names -> titles of those that can be run; one without a report gets the command that runs it.
    """
    target = paths.runs() / "report" / "index.html"
    found = [*gallery.folders(paths.figures()), *gallery.folders(paths.runs() / "notebooks")]
    scales = sorted({folder.name for folder in found})
    links = [("claims", "Claims"), *((f"scale-{scale}", scale) for scale in scales), ("notebooks", "Notebooks")]
    contents = "".join(f'<li><a href="#{quote(anchor)}">{html.escape(name)}</a></li>' for anchor, name in links)
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>studylib: report</title>',
        f"{STYLE}\n</head>\n<body>\n<header>\n<h1>Supervised pre-training that transfers</h1>",
        "<p>A reproducibility study of LOOK, SL-MLP and t-ReX: what came out on this machine.</p>",
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n</header>\n<main>',
        _claims(scales, notebooks),
        *(_scale(scale, notebooks) for scale in scales),
        _notebooks(scales, notebooks),
        "</main>\n</body>\n</html>\n",
    ]
    files.write_text(target, "\n".join(parts))
    return target


def _claims(scales: list[str], notebooks: Mapping[str, str]) -> str:
    """The verdicts by scale, counted and in full."""
    parts = ['<section id="claims">\n<h2>Claims</h2>']
    judged = [scale for scale in scales if (paths.figures() / scale / CLAIMS / "decisive.csv").exists()]
    if not judged:
        how = f" yet: <code>studylib reproduce --only {CLAIMS}</code> writes them" if CLAIMS in notebooks else ""
        parts.append(f"<p>No verdicts{how}.</p>")
    for scale in judged:
        with (paths.figures() / scale / CLAIMS / "decisive.csv").open(encoding="utf-8", newline="") as file:
            heads, *rows = list(csv.reader(file)) or [[]]
        about = f" <small>{html.escape(gallery.about(scale))}</small>"
        parts += [f"<h3>{html.escape(scale)}{about}</h3>", _counts(heads, rows)]
        parts.append(_table(f"The papers' claims at scale {scale}", heads, rows))
    return "\n".join([*parts, "</section>"])


def _counts(heads: list[str], rows: list[list[str]]) -> str:
    """How often each verdict was given, for each column that holds verdicts."""
    columns = [(head, [word[1] for cell in cells if (word := VERDICT.search(cell))]) for head, cells in _columns(heads, rows)]
    columns = [(head, found) for head, found in columns if found]
    lines = []
    for head, found in columns:
        number = Counter(found)
        items = "".join(f"<li><strong>{number[word]}</strong> {_verdict(word)}</li>" for word in VERDICTS)
        lines.append(f'<ul class="counts">{f"<li>{html.escape(head)}:</li>" if len(columns) > 1 else ""}{items}</ul>')
    return "".join(lines)


def _scale(scale: str, notebooks: Mapping[str, str]) -> str:
    """Figures and tables of a scale by notebook."""
    parts = [f'<section id="scale-{html.escape(scale)}">\n<h2>{html.escape(scale)}</h2>']
    parts.append(f'<p class="faint">{html.escape(gallery.about(scale))}</p>')
    shown = [folder for folder in gallery.folders(paths.figures() / scale) if gallery.pictures(folder) + gallery.tables(folder)]
    if not shown:
        parts.append("<p>No figures yet.</p>")
    for folder in shown:
        small = f"<small>{html.escape(notebooks.get(folder.name, ''))} ({gallery.made_of(folder)})</small>"
        parts.append(f"<h3>{html.escape(folder.name)} {small}</h3>")
        if pictures := gallery.pictures(folder):
            parts.append(f'<div class="figures">{"".join(map(_figure, pictures))}\n</div>')
        parts += map(_folded, gallery.tables(folder))
    return "\n".join([*parts, "</section>"])


def _figure(picture: Path) -> str:
    """A thumbnail with links to the other forms of the figure."""
    name = html.escape(gallery.title(picture))
    alt = html.escape(f"Figure {gallery.title(picture)} of {picture.parent.name} at scale {picture.parent.parent.name}")
    image = f'<img src="{_link(picture)}" alt="{alt}" loading="lazy"{_size(picture)}>'
    forms = _forms(picture, "pdf", "csv", "json")
    return f'\n<figure><a href="{_link(picture)}">{image}</a><figcaption><span>{name}</span>{forms}</figcaption></figure>'


def _size(picture: Path) -> str:
    """Width and height of a PNG as attributes, so that the page does not jump when it arrives."""
    with picture.open("rb") as file:
        head = file.read(24)
    return ' width="{}" height="{}"'.format(*struct.unpack(">II", head[16:])) if len(head) == 24 else ""


def _forms(file: Path, *kinds: str) -> str:
    links = [f'<a href="{_link(form)}">{form.suffix[1:]}</a>' for form in gallery.forms(file, *kinds)]
    return f"<span>{' · '.join(links)}</span>"


def _folded(file: Path) -> str:
    """A table that can be folded; a long one is."""
    caption, heads, rows = gallery.read_table(file)
    links = f'<p class="links">{_forms(file, "md", "csv", "tex", "json")}</p>'
    size = f" <small>({len(rows)} rows)</small>" if len(rows) > OPEN else ""
    summary = f"<summary>Table {html.escape(gallery.title(file))}{size}</summary>"
    return f"<details{'' if size else ' open'}>{summary}{links}{_table(caption or gallery.title(file), heads, rows)}</details>"


def _table(caption: str, heads: list[str], rows: list[list[str]], links: Mapping[str, str] | None = None) -> str:
    """A table; columns without any entry are left out, numbers stand to the right, verdicts are coloured.

    ``links``: entries that are links.
    """
    columns = [(name, cells, _kind(cells)) for name, cells in _columns(*_verdicts_first(heads, rows)) if any(cells) or not rows]
    head = "".join(f'<th scope="col"{kind}>{html.escape(name.replace("_", " "))}</th>' for name, _, kind in columns)
    lines = zip(*([f"<td{kind}>{_cell(cell, links or {})}</td>" for cell in cells] for _, cells, kind in columns), strict=True)
    body = "\n".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    label = html.escape(caption[:80])
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>\n'
        f"<caption><div>{_caption(caption)}</div></caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _verdicts_first(heads: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The table with its verdicts, if it has any, behind the claim: where a narrow screen shows them."""
    verdicts = [i for i, (_, cells) in enumerate(_columns(heads, rows)) if any(map(VERDICT.search, cells))]
    first = [head.lower() for head in heads].index("claim") + 1 if "claim" in map(str.lower, heads) else 1
    others = [i for i in range(len(heads)) if i not in verdicts]
    order = [*others[:first], *verdicts, *others[first:]]
    return [heads[i] for i in order], [[row[i] for i in order] for row in rows]


def _columns(heads: list[str], rows: list[list[str]]) -> list[tuple[str, list[str]]]:
    return [(head, list(cells)) for head, *cells in zip(heads, *rows, strict=True)]


def _caption(text: str) -> str:
    first, stop, rest = text.partition(". ")
    if len(text) <= LONG or not rest:
        return html.escape(text)
    return f"{html.escape(first + stop)}<details><summary>Protocols</summary>{html.escape(rest)}</details>"


def _kind(cells: list[str]) -> str:
    """The class of a column, as an attribute."""
    if all(map(NUMBER.fullmatch, cells)):
        return ' class="number"'
    longest = max(map(len, cells), default=0)
    return ' class="short"' if longest <= 20 else ' class="long"' if longest > 40 else ""


def _cell(text: str, links: Mapping[str, str]) -> str:
    """Text of a cell with its verdict as a badge."""
    if text in links:
        return f'<a href="{links[text]}">{html.escape(text)}</a>'
    if found := VERDICT.search(text):
        rest = text[found.end() :]
        command = f"<br><code>{html.escape(rest[2:])}</code>" if rest.startswith(": ") else html.escape(rest)
        return html.escape(text[: found.start()]) + _verdict(found[1]) + command
    return re.sub(r" (?=±)|(?<=±) |(?<=n) (?==)|(?<==) (?=\d)", "\u00a0", html.escape(text))


def _verdict(word: str) -> str:
    return f'<span class="verdict {word.replace(" ", "-")}">{word}</span>'


def _notebooks(scales: list[str], notebooks: Mapping[str, str]) -> str:
    """Which notebooks were executed at each scale, and how they ended."""
    parts = ['<section id="notebooks">\n<h2>Notebooks</h2>']
    for scale in scales:
        reports = {name: gallery.read_json(file) for name in notebooks if (file := _executed(scale, name, "json")).exists()}
        rows = [[name, *_report(reports.get(name, {}))] for name in notebooks]
        links = {name: _link(file) for name in notebooks if (file := _executed(scale, name, "html")).exists()}
        parts.append(_table(f"Executed at scale {scale}", ["Notebook", "State", "Seconds", "Finished"], rows, links))
        if len(reports) < len(notebooks):
            parts.append(f"<p>What is missing: <code>studylib reproduce --scale {html.escape(scale)}</code></p>")
    return "\n".join([*parts, "</section>"])


def _executed(scale: str, name: str, kind: str) -> Path:
    return paths.runs() / "notebooks" / scale / f"{name}.{kind}"


def _report(report: Mapping[str, Any]) -> list[str]:
    """State, seconds and end of an execution."""
    return [state(report["code"]), f"{report['seconds']:.0f}", report["finished"]] if report else ["not run", "", ""]


def _link(file: Path) -> str:
    """The way from the report to a file under the runs folder."""
    return "../" + quote(file.relative_to(paths.runs()).as_posix())
