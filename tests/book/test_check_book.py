"""The measures of the house style hold for the book, and each planted breach is caught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import check_book
import pytest

CARD = "# A chapter\n\n**You will be able to** read.\n**You need** eyes.\n**It runs** at once.\n"
THEOREM = """The claim is {prf:ref}`thm-a`.

```{prf:theorem} A theorem
:label: thm-a
It holds {cite}`somebody2000`.
```

The test is `tests/test_a.py::test_it_holds`.

**In plain words.** It holds for everybody whom the claim is about, and for nobody else at all.
"""
EXERCISE = """```{exercise} ★STARS Count
:label: ex-NUMBER
Do it.
```

```{solution} ex-NUMBER
:class: dropdown
Done.
```
"""
FIGURE = {
    "mystnb": {
        "image": {"alt": "A line that rises."},
        "figure": {"caption": "A line.", "name": "fig-line"},
    }
}


GLOSSARY = ":::{glossary}\nadjacency\n  Who is a neighbour.\n\nAUC\n  An area.\n:::\n"
ASKED = "Write down how many of the clients are told apart by an observer like this one.\n\n"
PLAIN = "Most sentences of a chapter say more than six words. " * 70 + "\n\n"


def exercise(number: int) -> str:
    return EXERCISE.replace("NUMBER", str(number)).replace("STARS", "★" * number)


def chapter() -> dict[str, Any]:
    """The parts of a chapter that breaches nothing."""
    return {
        "opening": CARD,
        "body": "word " * 1600 + "and 0.93 of it.\n\n" + ASKED * 2 + PLAIN + THEOREM,
        "code": "# NBVAL_CHECK_OUTPUT\nprint(0.93)",
        "figure": FIGURE,
        "end": "## Summary\n\n## Exercises\n\n"
        + "".join(exercise(n) for n in range(3))
        + "\n## Further reading\n",
    }


def markdown_cell(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code_cell(source: str, said: str = "") -> dict[str, Any]:
    outputs = [{"output_type": "stream", "name": "stdout", "text": said}] if said else []
    return {"cell_type": "code", "metadata": {}, "outputs": outputs, "source": source}


def run(root: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> tuple[int, str]:
    parts = chapter() | changes
    (root / "book").mkdir()
    (root / "tests").mkdir()
    (root / "tests" / "test_a.py").write_text("def test_it_holds():\n    assert True\n")
    image = {"output_type": "display_data", "data": {"image/png": "aGk="}, "metadata": {}}
    drawn = {"metadata": parts["figure"], "outputs": [image]}
    cells = [
        markdown_cell(parts["opening"]),
        markdown_cell(parts["body"]),
        code_cell(parts["code"], said="0.93\n"),
        code_cell("plot()") | drawn,
        markdown_cell(parts["end"]),
    ]
    (root / "book" / "a-chapter.ipynb").write_text(json.dumps({"cells": cells}))
    (root / "book" / "glossary.md").write_text(GLOSSARY)
    (root / "_toc.yml").write_text(
        "parts:\n- caption: Part I\n  chapters:\n  - file: book/a-chapter\n"
    )
    status = check_book.main(["--root", str(root)])
    return status, capsys.readouterr().out


def test_a_chapter_in_style_passes_and_its_pair_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = run(tmp_path, capsys)
    assert status == 0, text
    assert "a-chapter: theorem thm-a: tests/test_a.py::test_it_holds" in text


@pytest.mark.parametrize(
    ("part", "old", "new", "words"),
    [
        ("opening", "**You need** eyes.", "", "the opening does not say"),
        ("body", "word " * 1600, "word " * 500, "1500 to 2500 are asked"),
        ("body", "0.93", "0.94", "0.94"),
        ("body", "and 0.93", "and {glue:text}`accuracy:.2f`", "glue 'accuracy'"),
        ("body", "and 0.93", "and crucial", "'crucial'"),
        ("body", ":label: thm-a\n", "", "has no :label:"),
        ("body", "{prf:ref}`thm-a`", "true", "no text refers to it"),
        ("body", "{cite}`somebody2000`", "always", "neither a citation nor a proof"),
        ("body", "The test is `tests/test_a.py::test_it_holds`", "", "names no test"),
        ("body", "::test_it_holds", "::test_it_does_not", "does not exist"),
        ("code", "print(0.93)", "0.93\n" * 41, "at most 40"),
        ("code", "print(0.93)", "0.93\n" * 141, "142 lines of code, at most 140"),
        ("code", "print(0.93)", "0.93\n" * 180, "words for a line of code; 15 are asked"),
        ("code", "print(0.93)", "# 0.93 " + "x" * 80, "columns"),
        ("code", "# NBVAL_CHECK_OUTPUT\n", "", "prints a figure that nothing compares"),
        ("body", ASKED, "", "0 times; 2 to 3 are asked"),
        ("body", ASKED, ASKED * 2, "4 times; 2 to 3 are asked"),
        (
            "body",
            "of it.",
            "of it. " + "No it is not. " * 60,
            "% of the sentences have 6 words or fewer",
        ),
        ("body", "of it.", "of it." + "\n\n## More\n\nMore." * 9, "11 sections, at most 10"),
        ("body", "**In plain words.**", "So.", "thm-a: no **In plain words** ... after it"),
        ("body", "of it.", "of it by adjacency.", "uses 'adjacency' and never links it"),
        ("body", "of it.", "of 94 percent of it.", "the prose says 94"),
        ("end", "## Summary", "## The end", "no section '## Summary'"),
        ("end", ":label: ex-1", ":label: ex-9", "without solution"),
        ("end", exercise(2), "", "3 to 5 are asked"),
        ("end", "★★★ Count", "★★ Count", "no exercise is marked ★★★ (project)"),
        ("end", "★★★ Count", "Count", "ex-2: its title does not begin with ★"),
        ("end", "## Summary", "![](a.png)\n\n## Summary", "without alt text"),
    ],
)
def test_a_planted_breach_is_caught(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    part: str,
    old: str,
    new: str,
    words: str,
) -> None:
    before = chapter()[part]
    assert old in before
    status, text = run(tmp_path, capsys, **{part: before.replace(old, new)})
    assert status == 1
    assert words in text


@pytest.mark.parametrize("missing", ["image", "figure"])
def test_a_figure_needs_an_alt_text_and_a_caption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    kept = {key: value for key, value in FIGURE["mystnb"].items() if key != missing}
    status, text = run(tmp_path, capsys, figure={"mystnb": kept})
    assert status == 1
    assert ("alt text" if missing == "image" else "caption") in text


def test_only_what_is_read_counts_as_words() -> None:
    text = (
        "Two words {term}`here <client>`\n"
        "```{math}\n:label: x\na = b\n```\n```python\ncode\n```\n"
        "$x + y$ `code` <!-- a remark --> [link](https://example.org/a-b)"
    )
    assert check_book.count(text) == 6


def test_drawing_is_folded_away_and_then_counts_no_lines() -> None:
    image = {"output_type": "display_data", "data": {"image/png": "aGk="}, "metadata": {}}
    drawn = code_cell("plot()\n" * 20) | {"outputs": [image], "metadata": dict(FIGURE)}
    measured = check_book.Measures(Path("a.ipynb"), "chapter")
    check_book.check_cells(measured, [drawn])
    assert "20 lines of drawing that are not folded: tag hide-input" in measured.breaches
    folded = drawn | {"metadata": FIGURE | {"tags": ["hide-input"]}}
    measured = check_book.Measures(Path("a.ipynb"), "chapter")
    check_book.check_cells(measured, [folded])
    check_book.check_style(measured, [folded, code_cell("a = 1\nb = 2\n# a remark\n")], [])
    assert not any("folded" in breach for breach in measured.breaches)
    assert measured.code_lines == 2


def test_exercises_and_their_solutions_are_no_part_of_the_main_line() -> None:
    texts = (
        "Before.\n\n```{exercise-start}\n:label: ex-a\n```\nDo it.\n```{exercise-end}\n```\n"
        "```{solution-start} ex-a\n```\nSo:",
        "```{solution-end}\n```\n\n```{exercise-start}\n:label: ex-b\n```",
        "Do more.\n```{exercise-end}\n```\n\n```{solution-start} ex-b\n```\n",
        "```{solution-end}\n```",
        "## Further reading",
    )
    cells = [markdown_cell("The main line."), code_cell("main = 1")]
    for text in texts:
        cells += [markdown_cell(text), code_cell("inside = 1")]
    kept = [cell["source"] for cell in check_book.main_line(cells)]
    assert kept == ["The main line.", "main = 1", "inside = 1", "## Further reading", "inside = 1"]


def glued(value: str, tags: list[str]) -> dict[str, Any]:
    output = {
        "output_type": "display_data",
        "data": {check_book.RECORD: value},
        "metadata": {"scrapbook": {"name": "a"}},
    }
    return code_cell("glue") | {"outputs": [output], "metadata": {"tags": tags}}


@pytest.mark.parametrize(
    ("fresh", "tags", "stale"),
    [("0.926", [], []), ("0.94", [], ["stale: a:.2f"]), ("0.94", ["varies"], [])],
    ids=["the same as it is read", "another", "said to vary"],
)
def test_a_stored_figure_that_comes_out_differently_is_stale(
    fresh: str, tags: list[str], stale: list[str]
) -> None:
    measured = check_book.Measures(Path("a.ipynb"), "chapter")
    text = "It is {glue:text}`a:.2f`."
    check_book.check_stale(measured, text, [glued("0.9251", tags)], [glued(fresh, tags)])
    assert [breach.partition(" is stored")[0] for breach in measured.breaches] == stale


def test_a_stored_print_that_comes_out_differently_is_stale() -> None:
    measured = check_book.Measures(Path("a.ipynb"), "chapter")
    source = f"{check_book.CHECKED}\nprint(a)"
    check_book.check_stale(measured, "", [code_cell(source, "0.93")], [code_cell(source, "0.94")])
    assert measured.breaches == ["stale: stored '0.93', comes out '0.94'"]


@pytest.mark.slow
def test_the_book_meets_its_measures(capsys: pytest.CaptureFixture[str]) -> None:
    status = check_book.main([])
    assert status == 0, capsys.readouterr().out
