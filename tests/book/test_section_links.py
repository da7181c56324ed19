"""Each section can be edited and asked about, at the addresses of `_config.yml`."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import section_links
import yaml
from docutils import nodes
from docutils.utils import new_document

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT / "_build" / "html" / "book"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
LINKS = re.compile(r'<p class="fldp-section">.*?</p>')
# Bytes of all the links of a page, before compression.
HEAVY = 5 * 1024


def page(path: Path) -> nodes.document:
    """A page with a section on line 7 and one below it."""
    made = new_document(str(path))
    inner = nodes.section("", nodes.title("", "Deeper"), ids=["deeper"])
    second = nodes.section("", nodes.title("", 'A & "B"'), inner, ids=["a-b"])
    second.source = str(path)
    second.line = 7
    made += nodes.section("", nodes.title("", "Page"), second, ids=["page"])
    return made


def test_sections_of_the_second_level_are_found_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "book" / "a page.md"
    path.parent.mkdir()
    path.touch()
    found = section_links.sections(page(path), tmp_path, path)
    assert found == {"a-b": section_links.Section('A & "B"', "book/a page.md", 7)}
    address = section_links.edit_address("https://x.example/o/r", "main", found["a-b"])
    assert address == "https://x.example/o/r/edit/main/book/a%20page.md#L7"


def test_a_notebook_has_no_lines_and_what_is_included_only_its_file(tmp_path: Path) -> None:
    notebook = tmp_path / "a.ipynb"
    notebook.touch()
    found = section_links.sections(page(notebook), tmp_path, notebook)["a-b"]
    assert (found.file, found.line) == ("a.ipynb", None)
    included = tmp_path / "CHANGES.md"
    included.touch()
    found = section_links.sections(page(included), tmp_path, notebook)["a-b"]
    assert (found.file, found.line) == ("CHANGES.md", None)


def test_a_question_fills_in_the_form() -> None:
    address = section_links.ask_address(
        "https://x.example/o/r", "Page", "A & B", "https://s.example/p.html#a-b"
    )
    asked = parse_qs(urlsplit(address).query)
    assert asked["title"] == ["Page: A & B"]
    assert asked[section_links.FIELD] == ["https://s.example/p.html#a-b"]
    form = ROOT / ".github" / "ISSUE_TEMPLATE" / asked["template"][0]
    fields = yaml.safe_load(form.read_text(encoding="utf-8"))["body"]
    assert section_links.FIELD in [field.get("id") for field in fields]


def test_links_are_text_that_cannot_break_out() -> None:
    made = section_links.links("https://x/e", "https://x/a?b=1&c=2", '<b> "x"')
    assert "&amp;c=2" in made
    assert 'aria-label="edit: &lt;b&gt; &quot;x&quot;"' in made


@pytest.mark.skipif(not SITE.exists(), reason="the book is not built: make book")
@pytest.mark.slow
def test_a_link_to_a_line_is_one_to_a_heading() -> None:
    link = re.compile(r'href="[^"]*/edit/main/([^"#]+\.md)#L(\d+)"')
    seen = 0
    for built in SITE.glob("*.html"):
        for file, number in link.findall(built.read_text(encoding="utf-8")):
            lines = (ROOT / unquote(file)).read_text(encoding="utf-8").splitlines()
            assert lines[int(number) - 1].startswith("## "), (built.name, file, number)
            seen += 1
    assert seen > 30


@pytest.mark.skipif(not SITE.exists(), reason="the book is not built: make book")
@pytest.mark.slow
def test_every_section_has_its_links_and_a_page_stays_light() -> None:
    repository, site = CONFIG["repository"]["url"], CONFIG["html"]["baseurl"]
    for path in SITE.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        article = text.partition("<article")[2].partition("</article>")[0]
        found = LINKS.findall(article)
        assert len(found) == len(re.findall(r"<h2>", article)), path.name
        assert sum(map(len, found)) < HEAVY, path.name
        for links in found:
            edit, ask = re.findall(r'href="([^"]+)"', links)
            assert edit.startswith(f"{repository}/edit/"), edit
            file = edit.partition(f"/edit/{CONFIG['repository']['branch']}/")[2]
            assert (ROOT / file.partition("#")[0]).is_file(), edit
            asked = parse_qs(urlsplit(ask.replace("&amp;", "&")).query)
            address, _, anchor = asked[section_links.FIELD][0].partition("#")
            assert address == f"{site}book/{path.name}"
            assert f'id="{anchor}"' in text
