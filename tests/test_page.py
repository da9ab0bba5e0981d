"""The report and the gallery: what they show of constructed figures, tables, verdicts and notebooks."""

import json
import re
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
    """Figures of two scales, a table, verdicts and the report of a notebook."""
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
    (paths.figures() / "quick" / "07_claims").mkdir()
    (paths.figures() / "quick" / "07_claims" / "decisive.csv").write_text(CLAIMS)
    executed = paths.runs() / "notebooks" / "quick"
    executed.mkdir(parents=True)
    (executed / "01_look.json").write_text(json.dumps({"code": 1, "seconds": 12.3, "finished": "2026-01-02 03:04"}))
    (executed / "01_look.html").write_text("<html></html>")
    return paths.runs()


def test_report_is_whole_and_its_links_lead_somewhere(runs):
    target = page.write(NOTEBOOKS)
    assert target == runs / "report" / "index.html"
    text = target.read_text()
    shown = Page(text)
    assert shown.all("html") == [{"lang": "en"}]
    assert not shown.all("script") + shown.all("link")
    assert "http" not in text
    ids = {attributes["id"] for _, attributes in shown.found if "id" in attributes}
    for link in [attributes["href"] for attributes in shown.all("a")]:
        assert link[1:] in ids if link.startswith("#") else (target.parent / unquote(link)).exists()
    assert [image["alt"] for image in shown.all("img")] == ["Figure phi <&> of 01_look at scale quick"]
    assert (target.parent / unquote(shown.all("img")[0]["src"])).read_bytes() == PIXEL
    assert (shown.all("img")[0]["width"], shown.all("img")[0]["height"]) == ("2", "1")
    assert len(shown.all("caption")) == len(shown.all("table")) == 4
    assert all(head["scope"] == "col" for head in shown.all("th"))
    levels = [int(tag[1]) for tag, _ in shown.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    for said in ("prefers-color-scheme: dark", "@media print", "LOOK: a title (2 runs, commit 0123456)", "phi &lt;&amp;&gt;"):
        assert said in text


def test_verdicts_come_first_are_counted_and_stand_beside_the_claim(runs):
    text = page.write(NOTEBOOKS).read_text()
    assert text.index('id="claims"') < text.index('id="scale-quick"') < text.index('id="notebooks"')
    counts = re.findall(r"<li><strong>(\d)</strong> <span class=\"verdict ([a-z-]+)\">", text)
    assert counts == [("1", "supported"), ("2", "contradicted"), ("0", "inconclusive"), ("1", "not-run")]
    assert '<td class="short">S1</td><td class="long"><span class="verdict supported">supported</span></td>' in text
    assert '<span class="verdict not-run">not run</span><br><code>studylib grid projector --scale quick</code>' in text
    assert "a &lt;b&gt; &amp; more" in text


def test_claims_may_have_any_columns(runs):
    file = paths.figures() / "quick" / "07_claims" / "decisive.csv"
    file.write_text("claim,source,verdict\nS1,,supported\n")
    assert ">source</th>" not in page.write(NOTEBOOKS).read_text()
    file.write_text("Claim,quick,small_cpu\nS1,+1.0 **supported**,not run\n")
    text = page.write(NOTEBOOKS).read_text()
    assert "<li>quick:</li>" in text and "<li>small_cpu:</li>" in text
    assert '+1.0 <span class="verdict supported">supported</span></td>' in text
    for empty in ("", "claim,verdict\n"):
        file.write_text(empty)
        Page(page.write(NOTEBOOKS).read_text())


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
    assert '<a href="../notebooks/quick/01_look.html">01_look</a>' in text
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
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", part)) for part in re.findall(r":root {([^}]+)}", page.STYLE))
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        for back in ("page", "card"):
            assert all(contrast(colours[name], colours[back]) >= 4.5 for name in ("text", "faint", "link"))
        assert all(contrast(colours[name], colours[f"{name}-back"]) >= 4.5 for name in ("good", "bad", "open", "none"))


def test_gallery_names_every_figure_and_table_with_its_origin(runs):
    text = gallery.page(paths.figures())
    assert "## quick\n\nglyphs, 32 px" in text
    assert "### 01_look\n\n2 runs, commit 0123456.\n" in text
    assert "![phi <&>, 01_look at quick](quick/01_look/phi%20%3C%26%3E.png)" in text
    assert "phi <&>: [pdf](quick/01_look/phi%20%3C%26%3E.pdf) · [json](" in text
    assert "- starts table: [md](quick/01_look/starts_table.md) · [json](quick/01_look/starts_table.json)" in text
    assert gallery.page(paths.figures()) == text
    assert gallery.about("a scale that is no more") == ""


def test_gallery_reads_what_report_writes(tmp_path):
    import pandas as pd

    from studylib.report import write_table

    frame = pd.DataFrame({"Data set": ["a|b", "c"], "Top-1": ["1.0 ± 0.1 (n = 3)", "·"]})
    file = write_table(frame, "t", folder=tmp_path, caption="What it is.", lineage={})
    assert gallery.read_table(file) == ("What it is.", list(frame.columns), frame.to_numpy().tolist())
