"""The published claims: a section for each, counts and one word for each scale in the README, and what is left alone."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from studylib import paths
from studylib.publishing import claims_page
from studylib.report import claims


def judged(claim, scale="quick", number=1, reading="supported", *, role="primary", gate="", **others) -> dict:
    """A row of `claims.judge`'s table."""
    entry = claims.entries()[claim]
    paper = {"L": "LOOK", "S": "SL-MLP", "T": "t-ReX"}[claim[0]]
    row = {"paper": paper, "claim": claim, "statement": entry["statement"], "published": entry["published"]}
    row |= {"source": entry.get("source", ""), "test": number, "role": role, "tested_by": f"{claim}, test {number}"}
    row |= {"grid": "comparison", "claimed": "> 0", "estimate": 1.25, "low": 0.25, "high": 2.25, "n": 3, "over": "seeds"}
    row |= {"scale": scale, "about": f"about {scale}", "reading": reading, "note": "", "gate": gate, "command": ""}
    row |= {"verdict": reading, "p": 0.01, "p_claim": 0.04}
    if reading == "not run":
        row |= {"estimate": None, "low": None, "high": None, "n": 0, "command": f"studylib grid comparison --scale {scale}"}
    return row | others


ROWS = [
    judged("S1"),
    judged("S1", number=2, reading="contradicted", role="secondary", verdict="supported"),
    judged("T1", number=1, verdict="not trained enough"),
    judged("T1", number=2, reading="not trained enough", gate="DINO: 0.12 of SL's 80.0 % upstream"),
    judged("L4", reading="contradicted"),
    judged("S1", "small", reading="undecided"),
    judged("L4", "small", reading="not run"),
]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Published verdicts of two scales, and the README before."""
    tests = pd.DataFrame(ROWS, columns=claims.COLUMNS)
    for scale, rows in tests.groupby("scale"):
        claims.write(rows, tmp_path / "figures" / scale / "07_claims", {"runs": []})
    (tmp_path / "README.md").write_text(f"# before\n{claims_page.BEGIN}old\n{claims_page.END}after\n")
    return tmp_path / "figures"


def publish(folder: Path) -> tuple[str, str]:
    """(claims.md, README.md)"""
    claims_page.publish(folder, folder.parent / "README.md")
    return (folder / "claims.md").read_text(), (folder.parent / "README.md").read_text()


def cells(text: str, first: str) -> list[str]:
    """The cells of the one row of a Markdown table whose first cell is ``first``."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    (found,) = [row for row in rows if row[0] == first]
    return found


def section(text: str, claim: str) -> str:
    """The section of a claim; its heading has the id by which it is linked."""
    (found,) = re.findall(rf'<a id="{claim.lower()}"></a>\n\n(## {claim}: .*?)(?=\n<a id=|\Z)', text, flags=re.DOTALL)
    return found


def test_the_readme_counts_verdicts_by_paper_and_has_a_word_for_each_claim_and_scale(folder):
    _, text = publish(folder)
    assert text.startswith("# before\n") and text.endswith("after\n") and "old\n" not in text
    assert cells(text, "Paper") == ["Paper", "quick", "small"]  # the smaller study first
    none, one = (f"0 supported, {n} contradicted, 0 undecided, 0 not trained enough, {1 - n} not run" for n in (0, 1))
    assert cells(text, "LOOK")[1:] == [one, none]
    assert cells(text, "t-ReX")[1] == "0 supported, 0 contradicted, 0 undecided, 1 not trained enough, 0 not run"
    assert cells(text, "[S1](figures/claims.md#s1)")[1:] == [
        "an MLP projector raises supervised transfer to unseen concepts",
        "+7.2 % top-1, ImageNet",
        "supported",
        "undecided",
    ]
    assert cells(text, "[T1](figures/claims.md#t1)")[3:] == ["not trained enough", "·"]
    assert text.index("[L4]") < text.index("[S1]") < text.index("[T1]")


def test_a_section_has_what_is_published_every_test_and_what_would_tell(folder):
    text, _ = publish(folder)
    first = section(text, "S1")
    assert "SL-MLP. Published: +7.2 % top-1, ImageNet. Source: abstract of arXiv 2112.00496." in first
    assert cells(first, "**S1, test 1**")[1:] == ["> 0", "+1.25 ± 1.00 (n = 3) supported", "+1.25 ± 1.00 (n = 3) undecided"]
    assert cells(first, "S1, test 2")[2:] == ["+1.25 ± 1.00 (n = 3) contradicted", "·"]
    assert cells(first, "Verdict")[2:] == ["**supported**", "**undecided**"]
    assert "Contradicted at" not in first
    assert "Contradicted at `quick`. *Why that may be:* a loss over" in section(text, "L4")
    told = f"*What would tell:* `{claims.telling_command('L4', 'quick')}`."
    assert told in section(text, "L4")
    assert cells(section(text, "L4"), "**L4, test 1**")[3] == "not run: `studylib grid comparison --scale small`"
    assert "not trained enough (DINO: 0.12 of SL's 80.0 % upstream)" in section(text, "T1")
    assert "What would tell" not in section(text, "T1")
    assert "`quick`: about quick; `small`: about small." in text
    assert cells(text, "[S1](#s1)")[3:] == ["supported", "undecided"]


def test_a_section_shows_its_figure_at_each_scale_that_has_it(folder):
    assert "![" not in publish(folder)[0]
    picture = folder / "small" / "03_trex" / "depth.png"
    picture.parent.mkdir()
    picture.touch()
    picture.with_suffix(".csv").touch()
    text, _ = publish(folder)
    assert text.count("![") == 1
    assert "![depth, 03_trex at small](small/03_trex/depth.png)" in section(text, "T1")
    assert "depth at small: [csv](small/03_trex/depth.csv)\n" in section(text, "T1")


def test_the_same_verdicts_give_the_same_bytes_and_none_change_nothing(folder):
    first = publish(folder)
    assert publish(folder) == first
    both = pd.read_csv(folder / "claims.csv")
    assert list(dict.fromkeys(both.scale)) == ["quick", "small"] and list(both.columns) == claims.COLUMNS
    other = folder.parent / "OTHER.md"
    other.write_text("no markers\n")
    claims_page.publish(folder, other)
    assert other.read_text() == "no markers\n"
    for scale in ("quick", "small"):
        shutil.rmtree(folder / scale)
    assert publish(folder) == first


def test_claims_of_another_version_are_left_out_and_named(folder, capsys):
    file = folder / "small" / "07_claims" / "claims.csv"
    pd.read_csv(file).drop(columns=["role"]).to_csv(file, index=False)
    assert set(claims_page.read(folder).scale) == {"quick"}
    said = capsys.readouterr().out
    assert said.startswith("left out: claims at small, ") and "studylib reproduce --scale small --only 07_claims" in said


def test_every_figure_of_a_claim_is_one_that_its_notebook_draws():
    named = {claim: entry["figure"] for claim, entry in claims.entries().items() if "figure" in entry}
    assert len(named) > 20
    for claim, figure in named.items():
        notebook, _, name = figure.partition("/")
        cells = json.loads((paths.NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]
        drawn = "".join(line for cell in cells for line in cell["source"])
        assert f'study.figure("{name}"' in drawn, f"{claim}: {notebook} draws no figure {name}"


def test_committed_claims_are_those_of_the_committed_verdicts(tmp_path):
    """If they are not: ``python -c "from studylib import paths as p; from studylib.publishing import claims_page as c;
    c.publish(p.PUBLISHED_FIGURES, p.REPOSITORY / 'README.md')"``."""
    tests = claims_page.read(paths.PUBLISHED_FIGURES)
    text = (paths.PUBLISHED_FIGURES / "claims.md").read_text(encoding="utf-8")
    assert text == claims_page.page(tests, paths.PUBLISHED_FIGURES)
    for address in re.findall(r"\]\(([^#)]+)\)", text):
        assert (paths.PUBLISHED_FIGURES / address).exists(), address
    readme = (paths.REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert claims_page.BEGIN in readme and claims_page.END in readme
    block = readme.partition(claims_page.BEGIN)[2].partition(claims_page.END)[0]
    assert block == f"\n{claims_page.summary(tests, 'figures/claims.md')}\n" and len(block.splitlines()) <= 43
    assert set(re.findall(r"claims\.md#(\w+)", block)) == set(re.findall(r'<a id="(\w+)"', text))
    for scale, words in claims_page.verdicts(tests).items():  # the verdicts that the notebook wrote
        table = pd.read_csv(paths.PUBLISHED_FIGURES / scale / "07_claims" / "decisive.csv", index_col="Claim")
        assert dict(words) == dict(table["Verdict"]) and len(words) == 28
