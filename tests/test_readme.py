"""The pages that people read: the length of the front page, where their links lead, and that published facts have sources."""

import re
from pathlib import Path

import pytest

from studylib import paths

ROOT = paths.REPOSITORY
PAGES = [ROOT / "README.md", ROOT / "figures" / "RESULTS.md", *sorted((ROOT / "studylib").rglob("README.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    """Relative links and images of a Markdown page, those inside code left out."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """What a link to a place in the page can name, made of its headings as GitHub does."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_front_page_is_short_and_has_a_picture():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 170
    assert re.search(r"!\[[^\]]{40,}\]\(figures/.+\.png\)", text), "no picture with a text that describes it"


def test_every_page_is_known():
    assert {page.parent.name for page in PAGES} >= {"figures", "data", "papers", "training", "transfer"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    lost = []
    for link in links(page):
        name, _, place = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (place and target in PAGES and place not in anchors(target)):
            lost.append(link)
    assert not lost
    assert page.parent.name != "figures" or len(links(page)) > 5  # links are looked for at all


def test_no_recollection_is_among_the_facts_on_the_papers():
    text = (ROOT / "studylib" / "papers" / "README.md").read_text(encoding="utf-8")
    assert "MEM" not in text
    assert text.count("SRC") > 30 and text.count("DIG") > 2


def test_docstrings_name_sections_that_the_facts_on_the_papers_have():
    """References such as ``papers/README.md 3.1`` in the package lead to a section."""
    text = (ROOT / "studylib" / "papers" / "README.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^#+ (\d(?:\.\d)?)", text, flags=re.MULTILINE))
    sources = [file for kind in ("py", "yaml") for file in (ROOT / "studylib").rglob(f"*.{kind}")]
    named = re.compile(r"papers(?:/README)?\.md\s+(?:#\s*)?(\d(?:\.\d)?)(?:,\s*(\d\.\d))?")
    given = {part for file in sources for match in named.findall(file.read_text(encoding="utf-8")) for part in match if part}
    assert {"1.2", "2.6", "3.3"} <= given
    assert given <= sections
