"""What every committed notebook must be: executed in order, clean, small, and readable alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import myst
import numbering
import plain
import pytest
import twin_buttons
import twins
from cell_names import Flow
from pybtex.database import parse_string

HERE = Path(__file__).resolve().parent.parent.parent
CHAPTERS = sorted((HERE / "book").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the version of every notebook that is read alone."""
    folder = tmp_path_factory.mktemp("twins")
    assert twins.main([str(folder)]) == 0
    return folder


def code_of(found: Iterable[Any]) -> list[str]:
    return [myst.source_of(cell) for cell in found if cell["cell_type"] == "code"]


def test_there_are_notebooks() -> None:
    assert CHAPTERS


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_outputs_are_stored_in_order_and_clean(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        expected = "raises-exception" in cell["metadata"].get("tags", [])
        for output in cell["outputs"]:
            assert output["output_type"] != "error" or expected, cell["source"]
            assert output.get("name") != "stderr", cell["source"]
    assert path.stat().st_size < 300 * 1024
    assert not re.search(
        r'"[^"]*/(?:home|root|tmp|Users)/[\w.-]', json.dumps([c["outputs"] for c in code])
    )


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_the_first_code_cell_installs_fldp_where_it_is_missing(path: Path) -> None:
    first = next("".join(c["source"]) for c in cells(path) if c["cell_type"] == "code")
    assert "import fldp" in first
    assert "%pip install" in first
    assert "==" not in first


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_notebook_opened_alone_shows_no_raw_directive(path: Path, alone: Path) -> None:
    raw = re.compile(r"^[`:]{3,}\s*\{|\{[\w:+-]+\}`|^\([\w:.-]+\)=$|^:label:", re.M)
    for text in myst.markdown(cells(alone / path.name)):
        assert not raw.search(text), text


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_twin_is_a_notebook_with_the_code_that_a_reader_sees(path: Path, alone: Path) -> None:
    import nbformat  # takes seconds to load

    written = nbformat.read(alone / path.name, as_version=4)
    nbformat.validate(written)
    code = "\n".join(code_of(written.cells))
    run = [cell.execution_count for cell in written.cells if cell.cell_type == "code"]
    assert run == list(range(1, len(run) + 1))
    assert "NBVAL" not in code
    assert "glue(" not in code
    assert "fmt:" not in code
    assert f'fldp/fldp@v{twins.version()}"' in code
    for cell in cells(path):
        if cell["cell_type"] != "code" or "remove-cell" in cell["metadata"].get("tags", []):
            continue
        for line in myst.source_of(cell).splitlines():
            plumbing = "NBVAL" in line or line.startswith("glue(")
            assert plumbing or line.partition("  # fmt")[0].strip() in code


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_twin_folds_every_solution_and_what_is_drawn(path: Path, alone: Path) -> None:
    twin = json.loads((alone / path.name).read_text(encoding="utf-8"))
    folded = [c for c in twin["cells"] if c["metadata"].get("jp-MarkdownHeadingCollapsed")]
    headings = [myst.source_of(cell) for cell in folded]
    assert all(re.fullmatch(r"##### Solution to Exercise [\d.]+", text) for text in headings)
    source = "\n".join(myst.markdown(cells(path)))
    assert len(folded) == len(re.findall(r"\{solution(?:-start)?\}", source))
    assert twin["metadata"]["colab"]["collapsed_sections"] == [c["id"] for c in folded]
    drawn = [c for c in cells(path) if "hide-input" in c["metadata"].get("tags", [])]
    hidden = [c for c in twin["cells"] if c["metadata"].get("jupyter", {}).get("source_hidden")]
    assert len(hidden) > len(drawn)  # and what installs fldp


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_twin_reads_nothing_of_the_repository(path: Path, alone: Path) -> None:
    for code in code_of(cells(alone / path.name)):
        assert "../" not in code, code


HTML = HERE / "_build/html/book"
NUMBER = re.compile(r'id="([\w.-]+)"[^>]*>(?:(?!id=").)*?caption-number">([^<]+)<', re.S)


@pytest.mark.skipif(not HTML.exists(), reason="the book was not built here")
def test_the_numbers_are_those_of_the_built_book() -> None:
    wrong = []
    for label, place in numbering.places(HERE).items():
        page = HTML / f"{place.page}.html"
        if place.kind and page.exists():
            text = page.read_text(encoding="utf-8")
            if place.kind == numbering.EQUATION:
                found = re.search(rf'class="eqno">\(({place.number})\)', text)
            else:
                found = re.search(rf">{place.kind} {place.number} <", text)
            if not found:
                wrong.append((label, place.named))
    assert not wrong


@pytest.mark.slow
@pytest.mark.skipif(not HTML.exists(), reason="the book was not built here")
def test_what_the_twins_show_and_link_is_in_the_built_book(alone: Path) -> None:
    site = twins.the_book().site
    pages = {path.name: path.read_text(encoding="utf-8") for path in HTML.glob("*.html")}
    wrong = []
    for path in alone.glob("*.ipynb"):
        text = "\n".join(myst.markdown(cells(path)))
        for found in re.findall(rf"\]\({re.escape(site)}/([^)\s]+)\)", text):
            address, _, anchor = found.partition("#")
            there = (HTML.parent / address).exists()
            place = f'id="{anchor}"' in pages.get(Path(address).name, "") or not anchor
            if not (there and place):
                wrong.append(f"{path.name}: {found}")
    assert wrong == []


def test_what_hidden_cells_compute_stays_where_a_visible_one_reads_it() -> None:
    def code(source: str, *tags: str) -> dict[str, Any]:
        return {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}}

    glued = code("a = 1\nglue('a', a)\nb = 2", "remove-cell")
    kept = list(twins.needed([glued, code("glue('c', 3)", "remove-cell"), code("print(b)")]))
    assert [myst.source_of(cell) for cell in kept] == ["a = 1\nb = 2", "print(b)"]
    assert twins.unbound("a = 1\n\n# why\nglue(\n  'a', a\n)") == "a = 1\n\n# why"


@pytest.mark.parametrize(
    ("source", "reads", "gives"),
    [
        ("a = a + 1", {"a"}, {"a"}),
        ("a += 1", {"a"}, {"a"}),
        ("a = 1\nb = a", set(), {"a", "b"}),
        ("for row in rows:\n    seen = row", {"rows"}, {"row", "seen"}),
        ("a = [x * y for x in xs]", {"xs", "y"}, {"a"}),
        ("def f(a, b=c):\n    return a + d + f(b)", {"c", "d"}, {"f"}),
        ("f = lambda a: a + b", {"b"}, {"f"}),
        ("if a:\n    b = 1\nc = b", {"a", "b"}, {"b", "c"}),
        ("if a:\n    b = 1\nelse:\n    b = 2\nc = b", {"a"}, {"b", "c"}),
        ("try:\n    import a.b\nexcept E:\n    %pip x\na", {"E", "a"}, {"a"}),
        ("with a as b:\n    b", {"a"}, {"b"}),
        ("class A(B):\n    c = 1", {"B"}, {"A"}),
        ("print(n := m)", {"print", "m"}, {"n"}),
    ],
)
def test_what_a_cell_reads_and_gives(source: str, reads: set[str], gives: set[str]) -> None:
    found = Flow(source)
    assert (found.reads, found.gives) == (reads, gives)


def test_a_hidden_cell_goes_where_a_later_one_gives_its_names_anew() -> None:
    hidden = {"cell_type": "code", "source": "row = read()", "metadata": {"tags": ["remove-cell"]}}
    shown = {"cell_type": "code", "source": "for row in rows:\n    row", "metadata": {}}
    assert list(twins.needed([hidden, shown])) == [shown]


def test_text_after_a_solution_is_not_folded_with_it(tmp_path: Path) -> None:
    text = "# T\n\n```{exercise-start} ★ E\n:label: e\n```\nDo.\n```{exercise-end}\n```\n"
    text += "```{solution-start} e\n```\nDone.\n```{solution-end}\n```\n"
    place = numbering.Place("t", "Exercise", "1", "★ E")
    book = plain.Book("SITE", {}, {"e": place})

    def of(more: str) -> list[str]:
        cell = {"cell_type": "markdown", "source": text + more, "metadata": {}}
        path = tmp_path / "t.ipynb"
        path.write_text(json.dumps({"cells": [cell]}))
        return myst.markdown(twins.Twin(path, book, "1").written()["cells"])

    found = of("\n## Further reading\nMore.")
    assert found[1:] == ["##### Solution to Exercise 1", "Done.", "## Further reading\nMore."]
    with pytest.raises(ValueError, match="would be folded"):
        of("\nAnd so on.")


def test_what_a_reader_changed_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twins.write({"a": "1", "b": "1"}, tmp_path, keep=True)
    (tmp_path / "a").write_text("mine")
    assert twins.write({"a": "2", "b": "2"}, tmp_path, keep=True) == ["a"]
    assert (tmp_path / "a").read_text() == "mine"
    assert (tmp_path / "b").read_text() == "2"
    assert twins.write({"a": "3"}, tmp_path, keep=False) == []


def test_other_notebooks_than_the_books_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("1")
    assert twins.compare({"a.ipynb": "1"}, tmp_path) == 0
    assert twins.compare({"a.ipynb": "2"}, tmp_path) == 1
    assert twins.compare({"a.ipynb": "1", "b.ipynb": "1"}, tmp_path) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "{term}`noise <noise multiplier>` and {term}`delta`",
            "[noise](SITE/book/glossary.html#term-noise-multiplier) and [delta](",
        ),
        (
            "{cite}`a` {cite:t}`b`",
            "([Tramèr 2020](https://doi.org/10/x)) van der Berg et al. (2021)",
        ),
        ("{prf:ref}`thm` in\n{prf:ref}`one\nhere <thm>`", "Theorem 1.2 in\none here"),
        ("{prf:ref}`far`", "[Lemma 3.1](SITE/book/b.html#far)"),
        ("{eq}`off`", "[(2)](SITE/book/b.html#equation-off)"),
        ("`{term}` and `{cite}`", "`{term}` and `{cite}`"),
        ("```\n{cite}`a`\n```", "```\n{cite}`a`\n```"),
        ("(x)=\n## H\n$$\na\n$$ (eq)", "## H\n$$\na\n \\tag{7}$$"),
        ("[next](b.ipynb#c), [out](https://a.b/c.md)", "[next](SITE/book/b.html#c), [out]"),
        (
            "{doc}`b` and\n{doc}`this\none <b>`",
            "[B](SITE/book/b.html) and\n[this one](SITE/book/b.html)",
        ),
        ("- item\n\n  ```{math}\n  x\n  ```", "- item\n\n  $$\n  x\n  $$"),
        (
            "::::{note} Or\nSo:\n:::{tip}\nhi\n:::\n::::",
            "> **Note (Or)**\n>\n> So:\n> > **Tip**\n> >\n> > hi",
        ),
        ("```{image} a/b.png\n:alt: It rises.\n```", "![It rises.](SITE/_images/b.png)"),
    ],
)
def test_what_myst_becomes(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = """
        @book{a, author = {Tram{\\`e}r, Florian}, year = 2020, doi = {10/x}}
        @book{b, author = "Ann van der Berg and B. Bo and Cy Co", year = {2021}}
    """
    works = parse_string(entries, bib_format="bibtex").entries
    cited = {
        key: (*plain.short(key, entry), plain.address_of(entry)) for key, entry in works.items()
    }
    monkeypatch.setattr(plain, "bibliography", lambda: cited)
    places = {
        "thm": numbering.Place("a", "Theorem", "1.2"),
        "far": numbering.Place("b", "Lemma", "3.1"),
        "eq": numbering.Place("a", numbering.EQUATION, "7"),
        "off": numbering.Place("b", numbering.EQUATION, "2"),
    }
    found = plain.Converter("a", [], plain.Book("SITE", {"b": "B"}, places)).text(text)
    assert shown in found


def test_every_work_that_is_cited_can_be_opened() -> None:
    closed = [key for key, (_, _, address) in plain.bibliography().items() if not address]
    assert closed == []


def test_a_file_that_a_page_shows_is_written_out() -> None:
    text = "```{literalinclude} ../tools/plain.py\n:language: python\n:start-at: def linked\n"
    text += ":end-at: return\n```"
    found = plain.Converter("a", [], plain.Book("", {}, {})).text(text)
    assert found.splitlines() == [
        "```python",
        "def linked(words: str, address: str) -> str:",
        '    return f"[{words}]({address})" if address else words',
        "```",
    ]


def test_an_unknown_directive_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="does not know the directive 'mystery'"):
        plain.Converter("a", [], plain.Book("", {}, {})).text("```{mystery}\n```")


def test_the_buttons_name_what_is_published() -> None:
    address = twin_buttons.address_of("fldp/fldp", "book/quickstart")
    assert address.endswith("/github/fldp/fldp/blob/gh-pages/notebooks/quickstart.ipynb")
    buttons = [{"buttons": [{"url": "../_sources/book/a.ipynb"}, {"url": "x"}]}]
    twin_buttons.offer_twin(buttons, "_sources/book/a.ipynb", "../notebooks/a.ipynb")
    assert buttons == [{"buttons": [{"url": "../notebooks/a.ipynb"}, {"url": "x"}]}]
