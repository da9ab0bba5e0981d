"""The report and the gallery: what they show of constructed figures, tables, verdicts and notebooks."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest

from studylib import paths
from studylib.publishing import gallery, page

PIXEL = bytes.fromhex(  # a PNG of 2 x 1 pixels
    "89504e470d0a1a0a0000000d4948445200000002000000010802000000"
    "7b40e8dd0000000d49444154789c63f8cfc000440003fe01ff8a24daa80000000049454e44ae426082"
)
CLAIMS = """Claim,Statement,Ours,Verdict
S1,a <b> & more,+1.2 ± 3.3 (n = 3),supported
S2,another,·,not run: studylib grid projector --scale quick
S3,a third,−1.0 ± 0.1 (n = 3),contradicted
S4,a fourth,−1.0 ± 0.1 (n = 3),contradicted
"""
NOTEBOOKS = {"01_look": "LOOK: a title", "02_sl_mlp": "", "07_claims": ""}


class Page(HTMLParser):
    """Which tags there are with their attributes, which ids, links and images; that every tag is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A runs folder with something of everything."""
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "runs"))
    return write_runs()


def write_runs() -> Path:
    """Figures of two scales, the study's picture, a table, verdicts and the report of a notebook."""
    folder = paths.figures() / "quick" / "01_look"
    folder.mkdir(parents=True)
    lineage = {"runs": ["look-1", "sl-1"], "commit": "0123456789abcdef", "notebook": "01_look"}
    for name in ("phi <&>", "starts_table"):
        (folder / f"{name}.json").write_text(json.dumps(lineage))
    (folder / "phi <&>.png").write_bytes(PIXEL)
    (folder / "phi <&>.pdf").write_bytes(b"%PDF")
    long = "Accuracy in %. " + "kNN: k = 20, τ = 0.07. " * 20
    (folder / "starts_table.md").write_text(f"{long}\n\n| Start | A \\| B |\n| --- | --: |\n| fixed | 3.5 ± 1.0 (n = 3) |\n")
    (paths.figures() / "small_cpu" / "02_sl_mlp").mkdir(parents=True)
    write_lead("quick", 2)
    (paths.figures() / "quick" / "07_claims").mkdir()
    (paths.figures() / "quick" / "07_claims" / "decisive.csv").write_text(CLAIMS)
    executed = paths.runs() / "notebooks" / "quick"
    executed.mkdir(parents=True)
    (executed / "01_look.json").write_text(json.dumps({"code": 1, "seconds": 12.3, "finished": "2026-01-02 03:04"}))
    (executed / "01_look.html").write_text("<html></html>")
    return paths.runs()


def write_lead(scale: str, runs: int) -> Path:
    """The study's picture at a scale, made of so many runs."""
    picture = paths.figures() / scale / page.LEAD
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(PIXEL)
    picture.with_suffix(".json").write_text(json.dumps({"runs": [f"sl-{i}" for i in range(runs)]}))
    return picture


def linked(folder: Path) -> set[str]:
    """What a report's images and links lead to, relative to its folder; each must be there."""
    shown = Page((folder / "index.html").read_text())
    addresses = [attributes["href"] for attributes in shown.all("a")] + [image["src"] for image in shown.all("img")]
    places = {unquote(address) for address in addresses if not address.startswith("#")}
    for place in places:
        assert (folder / place).resolve().is_relative_to(folder.resolve()) and (folder / place).is_file(), place
    return places


def inside(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_report_is_whole_and_its_links_lead_somewhere(runs):
    target = page.write(NOTEBOOKS)
    assert target == runs / "report" / "index.html"
    text = target.read_text()
    shown = Page(text)
    assert shown.all("html") == [{"lang": "en"}]
    assert not shown.all("script") + shown.all("link")
    assert "http" not in text
    ids = {attributes["id"] for _, attributes in shown.found if "id" in attributes}
    anchors = [attributes["href"][1:] for attributes in shown.all("a") if attributes["href"].startswith("#")]
    assert anchors == ["claims", "scale-quick", "scale-small_cpu", "notebooks"] and set(anchors) == ids
    frontier = "Figure frontier of 03_trex at scale quick"
    assert [image["alt"] for image in shown.all("img")] == [frontier, "Figure phi <&> of 01_look at scale quick", frontier]
    for image in shown.all("img"):
        assert (target.parent / unquote(image["src"])).read_bytes() == PIXEL
        assert (image["width"], image["height"]) == ("2", "1")
    assert len(shown.all("caption")) == len(shown.all("table")) == 5
    assert all(head["scope"] == "col" for head in shown.all("th"))
    levels = [int(tag[1]) for tag, _ in shown.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    for said in ("prefers-color-scheme: dark", "@media print", "LOOK: a title (2 runs, commit 0123456)", "phi &lt;&amp;&gt;"):
        assert said in text


def test_report_is_one_folder_that_can_be_moved_and_served_on_its_own(runs, tmp_path):
    page.write(NOTEBOOKS)
    shutil.copytree(runs / "report", tmp_path / "elsewhere")
    shutil.rmtree(runs)
    places = linked(tmp_path / "elsewhere")
    assert {"figures/quick/01_look/phi <&>.pdf", "figures/quick/01_look/starts_table.md"} <= places
    assert {"figures/quick/03_trex/frontier.png", "notebooks/quick/01_look.html"} <= places
    assert inside(tmp_path / "elsewhere") == places | {"index.html"}  # and nothing that is not shown


@pytest.mark.parametrize("links", [True, False])
def test_a_report_written_again_takes_what_changed_and_drops_what_is_no_longer_shown(runs, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links here")))
    page.write(NOTEBOOKS)
    report, figures = runs / "report", paths.figures() / "quick" / "01_look"
    assert (os.stat(report / "figures/quick/01_look/phi <&>.png").st_nlink == 2) == links
    before = {place: (report / place).stat().st_ino for place in linked(report)}
    (figures / "new.pdf").write_bytes(b"%PDF, another")
    os.replace(figures / "new.pdf", figures / "phi <&>.pdf")  # as figures are written
    for file in figures.glob("starts_table.*"):
        file.unlink()
    shutil.rmtree(runs / "notebooks")
    page.write(NOTEBOOKS)
    assert (report / "figures/quick/01_look/phi <&>.pdf").read_bytes() == b"%PDF, another"
    after = {place: (report / place).stat().st_ino for place in linked(report)}
    dropped = {
        "figures/quick/01_look/starts_table.md",
        "figures/quick/01_look/starts_table.json",
        "notebooks/quick/01_look.html",
    }
    assert set(before) - set(after) == dropped
    same = set(after) - {"figures/quick/01_look/phi <&>.pdf"}
    assert {place: before[place] for place in same} == {place: after[place] for place in same}
    assert inside(report) == set(after) | {"index.html"} and not (report / "notebooks").exists()
    assert (figures / "phi <&>.png").exists()  # the originals stay


def test_report_opens_with_the_picture_of_the_most_runs_and_of_several_with_the_largest_scale(runs):
    def first() -> str:
        text = page.write(NOTEBOOKS).read_text()
        assert text.index('<figure class="lead">') < text.index('id="claims"')
        return Page(text).all("img")[0]["alt"]

    assert first() == "Figure frontier of 03_trex at scale quick"
    write_lead("small_cpu", 1)
    assert first() == "Figure frontier of 03_trex at scale quick"
    write_lead("small_cpu", 2)
    assert first() == "Figure frontier of 03_trex at scale small_cpu"
    write_lead("smoke", 2)
    assert first() == "Figure frontier of 03_trex at scale small_cpu"
    for picture in paths.figures().glob(f"*/{page.LEAD}"):
        picture.unlink()
    assert '<figure class="lead">' not in page.write(NOTEBOOKS).read_text()


def test_verdicts_come_first_are_counted_and_stand_beside_the_claim(runs):
    text = page.write(NOTEBOOKS).read_text()
    assert text.index('id="claims"') < text.index('id="scale-quick"') < text.index('id="notebooks"')
    counts = re.findall(r"<li><strong>(\d)</strong> <span class=\"verdict ([a-z-]+)\">", text)
    assert counts == [
        ("1", "supported"),
        ("2", "contradicted"),
        ("0", "undecided"),
        ("0", "not-trained-enough"),
        ("1", "not-run"),
    ]
    cell = '<td class="short">S1</td><td class="{}"><span class="verdict supported">supported</span></td>'
    assert text.index(cell.format("short")) < text.index(cell.format("long")) < text.index('id="scale-quick"')
    assert '<span class="verdict not-run">not run</span><br><code>studylib grid projector --scale quick</code>' in text
    assert "a &lt;b&gt; &amp; more" in text


def test_verdicts_of_several_scales_stand_side_by_side(runs):
    other = paths.figures() / "small_cpu" / "07_claims" / "decisive.csv"
    other.parent.mkdir()
    other.write_text("Claim,Statement,Ours,Verdict\nS1,a <b> & more,+1.0,undecided\nS5,a fifth,·,not run\n")
    text = page.write(NOTEBOOKS).read_text()
    assert "<li>quick:</li>" in text and "<li>small_cpu:</li>" in text
    heads = '<th scope="col" class="short">quick</th><th scope="col" class="short">small_cpu</th><th scope="col" class="short">'
    assert f'<th scope="col" class="short">Claim</th>{heads}Statement</th>' in text
    badges = [f'<td class="short"><span class="verdict {word}">{word}</span></td>' for word in ("supported", "undecided")]
    assert f'<td class="short">S1</td>{"".join(badges)}<td class="short">a &lt;b&gt; &amp; more</td>' in text
    assert (
        '<td class="short">S5</td><td class="short"></td><td class="short"><span class="verdict not-run">not run</span>' in text
    )


def test_verdicts_that_cannot_be_read_are_none(runs):
    file = paths.figures() / "quick" / "07_claims" / "decisive.csv"
    for text in ("", "Claim,Verdict\n", "claim,source\nS1,\n"):
        file.write_text(text)
        report = page.write(NOTEBOOKS).read_text()
        Page(report)
        assert "No verdicts yet" in report and 'class="counts"' not in report
    file.write_text("Claim,Source,Verdict\nS1,,supported\n")
    assert ">Source</th>" not in page.write(NOTEBOOKS).read_text()  # a column without entries


def test_tables_fold_and_long_captions_are_cut(runs):
    text = page.write(NOTEBOOKS).read_text()
    assert "<details open><summary>Table starts table</summary>" in text
    assert "<div>Accuracy in %. <details><summary>Protocols</summary>kNN" in text
    assert '<th scope="col" class="number">A | B</th>' in text
    assert "3.5\u00a0±\u00a01.0 (n\u00a0=\u00a03)" in text
    rows = "| a | 1 |\n" * (page.OPEN + 1)
    (paths.figures() / "quick" / "01_look" / "starts_table.md").write_text(f"Short.\n\n| A | B |\n| --- | --: |\n{rows}")
    assert "<details><summary>Table starts table <small>(16 rows)</small>" in page.write(NOTEBOOKS).read_text()


def test_notebooks_have_a_state_or_a_command(runs):
    text = page.write(NOTEBOOKS).read_text()
    assert '<a href="notebooks/quick/01_look.html">01_look</a>' in text
    assert '<span class="verdict failed">failed</span></td><td class="number">12</td><td class="short">2026-01-02 03:04' in text
    assert "What is missing: <code>studylib reproduce --scale quick</code>" in text


def test_an_empty_runs_folder_has_a_report(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path / "none"))
    text = page.write(NOTEBOOKS).read_text()
    assert "studylib reproduce --only 07_claims" in text
    assert "No verdicts." in page.write({}).read_text()


def contrast(a: str, b: str) -> float:
    """WCAG's contrast of two colours such as #fff or #0d1117."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_enough_contrast():
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", part))
        for part in re.findall(r":root {([^}]+)}", page.TEMPLATE.read_text())
    )
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        for back in ("page", "card"):
            assert all(contrast(colours[name], colours[back]) >= 4.5 for name in ("text", "faint", "link"))
        assert all(contrast(colours[name], colours[f"{name}-back"]) >= 4.5 for name in ("good", "bad", "open", "none"))


def test_gallery_names_every_figure_and_table_with_its_origin(runs):
    (paths.figures() / "RESULTS.md").write_text("# What came out\n\nMuch.\n")
    pages = gallery.pages(paths.figures())
    assert list(pages) == ["README.md", "quick/README.md", "small_cpu/README.md"]
    index, text = pages["README.md"], pages["quick/README.md"]
    assert "- [What came out](RESULTS.md)\n" in index
    assert "## [quick](quick/README.md)\n\nglyphs, 32 px" in index
    assert "| [01_look](quick/README.md#01_look) | 1 | 1 | 2 runs, commit 0123456 |\n" in index and "![" not in index
    assert text.startswith("# Figures and tables at scale quick\n\nglyphs, 32 px")
    assert "## 01_look\n\n2 runs, commit 0123456.\n" in text
    assert "![phi <&>, 01_look at quick](01_look/phi%20%3C%26%3E.png)" in text
    assert "phi <&> at quick: [pdf](01_look/phi%20%3C%26%3E.pdf) · [json](" in text
    assert "- starts table: [md](01_look/starts_table.md) · [json](01_look/starts_table.json)" in text
    assert "results.csv.gz" not in text
    for name, page_text in pages.items():
        for address in re.findall(r"\]\(([^#)]+)\)", page_text):
            target = (paths.figures() / name).parent / unquote(address)
            assert target.exists() or target.resolve() in {(paths.figures() / other).resolve() for other in pages}, address
    assert gallery.pages(paths.figures()) == pages
    (paths.figures() / "quick" / "results.csv.gz").touch()
    assert "[Every value](results.csv.gz)" in gallery.pages(paths.figures())["quick/README.md"]
    assert gallery.about("a scale that is no more") == ""
    assert gallery.by_size(["paper", "mine", "quick", "smoke"]) == ["smoke", "quick", "paper", "mine"]


def test_gallery_reads_what_report_writes(tmp_path):
    import pandas as pd

    from studylib.report import write_table

    frame = pd.DataFrame({"Data set": ["a|b", "c"], "Top-1": ["1.0 ± 0.1 (n = 3)", "·"]})
    file = write_table(frame, "t", folder=tmp_path, caption="What it is.", lineage={})
    assert gallery.read_table(file) == ("What it is.", list(frame.columns), frame.to_numpy().tolist())
