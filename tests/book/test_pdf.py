"""The book on paper: what is refused, what one page becomes, and the PDF where it has been made.

A PDF takes LaTeX and a minute: `make pdf` makes it, `make release-check` runs that, and the tests
of the finished book are skipped where it is not there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pdf
import pytest
import yaml
from chapter_map import tikz
from chapters import chapters
from docutils import nodes
from docutils.utils import new_document
from paper_boxes import Moved, box, page_of, titled
from paper_drawings import CONVERTER, Drawings
from paper_tables import LINE, widths
from sphinx import addnodes

ROOT = Path(__file__).resolve().parent.parent.parent
MADE = ROOT / "_build" / "fldp.pdf"
LOG = ROOT / "_build" / "pdf" / "_build" / "latex" / "fldp.log"
NOTEBOOK = [
    "# A chapter\n\nAs (ref)[x] says.",
    "```{exercise-start} ★ Count\n:label: ex-count\n```\nHow many?\n```{exercise-end}\n```",
    "```{solution-start} ex-count\n:class: dropdown\n```\nAs many as print:",
    "```{solution-end}\n```\n\n```{prf:theorem} Named\n:label: thm-one\nTrue.\n```",
    "## After\n\nThe last words, after {prf:ref}`thm-one`.",
]

CALCULATOR = """# A calculator

First words.

```python
import fldp
```

## How to read the answer

Not here.
"""

made = pytest.mark.skipif(
    not (MADE.exists() and shutil.which("pdftotext")),
    reason="needs the PDF (make pdf) and pdftotext (apt install poppler-utils)",
)


# What is missing, and what is wrong, is said.


def test_without_latex_the_debian_packages_are_named_and_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sys.argv", ["pdf.py"])
    assert pdf.main() == 1
    told = capsys.readouterr().err
    assert "apt install --no-install-recommends" in told
    for package in {*pdf.PROGRAMS.values(), *pdf.FILES.values(), *pdf.FONTS.values()}:
        assert package in told


PACKAGES = {*pdf.PROGRAMS.values(), *pdf.FILES.values(), *pdf.FONTS.values()}


def workflow(name: str) -> dict[str, Any]:
    """The only job of a workflow."""
    text = (ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(text)["jobs"].values()
    return dict(job)


def test_the_workflow_that_publishes_installs_every_package() -> None:
    steps = workflow("publish")["steps"]
    installed = next(step["run"] for step in steps if "apt-get install" in step.get("run", ""))
    assert set(installed.split()) >= PACKAGES


def test_one_image_of_the_release_check_has_what_the_pdf_and_the_browser_need() -> None:
    """Else their rows are skipped every week, and nobody hears of a book that cannot be printed."""
    job = workflow("release-check")
    images = [set(one["more"].split()) for one in job["strategy"]["matrix"]["include"]]
    assert any(more >= {*PACKAGES, "chromium", "nodejs", "npm"} for more in images)
    # what README promises is tried as well
    assert set() in images


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Overfull \\hbox (20.5pt too wide) in paragraph at lines 5--9", 1),
        ("Overfull \\hbox (19.5pt too wide) in paragraph at lines 5--9", 0),
        ("Underfull \\hbox (badness 10000) in paragraph at lines 5--9", 0),
        ("Missing character: There is no ★ (U+2605) in font TeXGyrePagella!", 1),
        ("LaTeX Warning: Reference `a' on page 5 undefined on input line 7.", 1),
        ("LaTeX Warning: Hyper reference `a' on page 5 undefined on input line 7.", 1),
        ("LaTeX Warning: There were multiply-defined labels.", 1),
        ("! Undefined control sequence.", 1),
        ("LaTeX Font Warning: Some font shapes were not available.", 0),
    ],
)
def test_a_fault_of_the_page_is_read_from_the_log(line: str, found: int) -> None:
    assert len(pdf.faults(f"(./fldp.tex\n{line}\n)\n")) == found


def test_a_fault_is_found_where_the_log_breaks_its_line() -> None:
    start = "LaTeX Warning: Hyper refere"
    line = ("x" * (pdf.LOG_WIDTH - len(start))) + start
    assert pdf.faults(f"{line}\nnce `a' on page 5 undefined.\n")


# One page.


def test_a_title_in_brackets_is_not_put_in_brackets_again() -> None:
    for own in ("Named", "(Named)", " (Named)"):
        node = nodes.admonition("", nodes.title("", own))
        assert titled(node, "Theorem 2.1").astext() == "Theorem 2.1 (Named)"
    assert titled(nodes.admonition("", nodes.title("", "")), "Proof").astext() == "Proof"


def test_a_box_holds_what_its_section_held_under_the_same_label() -> None:
    node = nodes.admonition("", nodes.section("", nodes.paragraph("", "True.")), ids=["thm-one"])
    made = box(node, "theorem", nodes.title("", "Theorem"))
    assert [type(child) for child in made.children] == [nodes.title, nodes.paragraph]
    assert made["ids"] == ["thm-one"]


def test_a_node_that_moved_knows_its_page() -> None:
    book = new_document("book")
    file = addnodes.start_of_file(docname="book/one")
    moved, stayed = Moved("", docname="book/two"), nodes.paragraph("", "words")
    file += [moved, stayed]
    moved += nodes.paragraph("", "words")
    book += file
    assert (page_of(moved[0]), page_of(stayed), page_of(book)) == ("book/two", "book/one", "")


def test_the_map_has_a_box_with_a_link_for_every_chapter() -> None:
    drawn = tikz(chapters(ROOT), "book")
    for chapter in chapters(ROOT):
        assert f"\\detokenize{{book/{chapter.slug}::doc}}" in drawn
    assert drawn.count("\\node") == len(chapters(ROOT))


def table(*rows: tuple[str, ...]) -> list[nodes.row]:
    """Rows of cells with these words."""
    return [
        nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in row)) for row in rows
    ]


def test_a_table_that_fits_keeps_its_columns_and_a_wide_one_shares_the_line() -> None:
    assert widths(table(("a", "few words"), ("b", "more words"))) == []
    shares = widths(table(("a_name", "word " * 40), ("b", "word " * 30)))
    assert shares[0] < shares[1]
    assert sum(shares) <= LINE + 1


@pytest.mark.skipif(not shutil.which(CONVERTER), reason="needs rsvg-convert (librsvg2-bin)")
def test_a_drawing_keeps_its_letters(tmp_path: Path) -> None:
    drawing = ROOT / "book" / "_static" / "round.svg"
    assert Drawings.convert(None, drawing, tmp_path / "round.pdf")  # type: ignore[arg-type]
    made = (tmp_path / "round.pdf").read_bytes()
    assert made.startswith(b"%PDF")
    assert b"/Subtype /Image" not in made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The LaTeX of a small book: a preface, a numbered chapter with a solution, a last page."""
    root = tmp_path_factory.mktemp("paper")
    for name in ("_static", "_templates", "_ext", "_latex"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name)
    for name in ("_config.yml", "CITATION.cff", "book/references.bib"):
        shutil.copy(ROOT / name, root / name)
    toc = {
        "format": "jb-book",
        "root": "book/index",
        "parts": [
            {"caption": "Start", "chapters": [{"file": "book/calculator"}]},
            {"caption": "Part I — Why", "numbered": 1, "chapters": [{"file": "book/one"}]},
            {"caption": "Reference", "chapters": [{"file": "book/notation"}]},
        ],
    }
    (root / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    (root / "book/index.md").write_text("# The book\n\nWords of the front page.\n")
    (root / "book/calculator.md").write_text(CALCULATOR)
    (root / "book/notation.md").write_text("# Notation\n\nThe line under a title leads here.\n")
    import nbformat  # takes seconds to load

    cells = [nbformat.v4.new_markdown_cell(text) for text in NOTEBOOK]
    cells.insert(3, nbformat.v4.new_code_cell("print(6 * 7)"))
    folded = nbformat.v4.new_code_cell("drawing = 1\nprint('drawn')")
    folded.metadata["tags"] = ["hide-input"]
    cells.append(folded)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, root / "book/one.ipynb")
    assert pdf.write(root, root / "_build/pdf") == 0
    path = root / "_build/pdf/_build/latex" / "fldp.tex"
    return path.read_text(encoding="utf-8").partition("\\begin{document}")[2]


@pytest.mark.slow
def test_parts_and_chapters_stand_in_the_order_of_the_contents(source: str) -> None:
    places = [
        source.index(words)
        for words in (
            "\\chapter{About this book}",
            "\\fldppages{Start}",
            "\\chapter{A calculator}",
            "\\fldppart{Why}",
            "\\chapter{A chapter}",
            "\\fldppages{Reference}",
            "\\fldpappendix",
            "\\chapter{Solutions}",
        )
    ]
    assert places == sorted(places)
    assert "Part I" not in source


@pytest.mark.slow
def test_a_solution_stands_at_the_end_under_the_number_of_its_exercise(source: str) -> None:
    chapter, _, appendix = source.partition("\\fldpappendix")
    assert "As many as print" not in chapter
    assert "\\fldpsolutionat" in chapter
    assert "As many as print" in appendix
    assert "42" in appendix
    assert "Exercise 1.1" in chapter.partition("\\begin{fldpexercise}")[2][:200]
    assert "Exercise 1.1" in appendix.partition("\\begin{fldpsolution}")[2][:300]


@pytest.mark.slow
def test_what_a_screen_folds_or_runs_is_not_on_paper(source: str) -> None:
    assert "drawn" in source
    assert "drawing" not in source
    assert "First words" in source
    assert "calculator.html" in source
    assert "Not here" not in source


@pytest.mark.slow
def test_a_theorem_has_the_number_that_the_text_names(source: str) -> None:
    assert "Theorem 1.1 (Named)" in source
    assert re.search(r"sphinxcrossref\{Theorem 1\.1\}", source)


# The finished book.


@pytest.fixture(scope="module")
def text() -> list[str]:
    """Its pages, as text."""
    command = ["pdftotext", "-layout", str(MADE), "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split("\f")


@made
def test_the_log_of_the_finished_book_names_no_fault() -> None:
    assert pdf.faults(LOG.read_text(encoding="utf-8", errors="replace")) == []


@made
def test_every_chapter_opens_a_page_under_its_number(text: list[str]) -> None:
    opened = {}
    for page in text:
        found = re.match(r"\s*Chapter (\d+)\s*\n", page)
        if found:
            opened[int(found[1])] = " ".join(page.split())
    for chapter in chapters(ROOT):
        assert f"Chapter {chapter.number} {chapter.title()}".split("$")[0] in opened[chapter.number]
    assert len(opened) == len(chapters(ROOT))


@made
def test_no_reference_of_the_finished_book_is_a_question_mark(text: list[str]) -> None:
    assert not [page[:80] for page in text if "??" in page]


@made
def test_solutions_stand_after_the_last_page_of_the_contents(text: list[str]) -> None:
    pages = [" ".join(page.split()) for page in text]
    start = next(k for k, page in enumerate(pages) if page.startswith("Appendix A Solutions"))
    last = max(k for k, page in enumerate(pages) if re.match(r"(Chapter \d+|References) ", page))
    exercises = [k for k, page in enumerate(pages) if re.search(r"Solution: page \d+", page)]
    assert start > last
    assert max(exercises) < start


@made
def test_the_map_is_drawn_with_every_chapter(text: list[str]) -> None:
    page = next(one for one in text if one.lstrip().startswith("A map of the chapters"))
    words = " ".join(page.split())
    for chapter in chapters(ROOT):
        assert f"{chapter.number} · {chapter.title().split()[0]}" in words
