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
"""
EXERCISE = """```{exercise}
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


def chapter() -> dict[str, Any]:
    """The parts of a chapter that breaches nothing."""
    return {
        "opening": CARD,
        "body": "word " * 1600 + "and 0.93 of it\n\n" + THEOREM,
        "code": "print(0.93)",
        "figure": FIGURE,
        "end": "## Summary\n\n## Exercises\n\n"
        + "".join(EXERCISE.replace("NUMBER", str(n)) for n in range(3))
        + "\n## Further reading\n",
    }


def markdown_cell(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code_cell(source: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "outputs": [], "source": source}


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
        code_cell(parts["code"]),
        code_cell("plot()") | drawn,
        markdown_cell(parts["end"]),
    ]
    (root / "book" / "01-a-chapter.ipynb").write_text(json.dumps({"cells": cells}))
    status = check_book.main(["--root", str(root)])
    return status, capsys.readouterr().out


def test_a_chapter_in_style_passes_and_its_pair_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = run(tmp_path, capsys)
    assert status == 0, text
    assert "01-a-chapter: theorem thm-a: tests/test_a.py::test_it_holds" in text


@pytest.mark.parametrize(
    ("part", "old", "new", "words"),
    [
        ("opening", "**You need** eyes.", "", "the opening does not say"),
        ("body", "word " * 1600, "word " * 900, "1500 to 2500 are asked"),
        ("body", "0.93", "0.94", "0.94"),
        ("body", "and 0.93", "and {glue:text}`accuracy:.2f`", "glue 'accuracy'"),
        ("body", "and 0.93", "and crucial", "'crucial'"),
        ("body", ":label: thm-a\n", "", "has no :label:"),
        ("body", "{prf:ref}`thm-a`", "true", "no text refers to it"),
        ("body", "{cite}`somebody2000`", "always", "neither a citation nor a proof"),
        ("body", "The test is `tests/test_a.py::test_it_holds`", "", "names no test"),
        ("body", "::test_it_holds", "::test_it_does_not", "does not exist"),
        ("code", "print(0.93)", "0.93\n" * 41, "at most 40"),
        ("code", "print(0.93)", "# 0.93 " + "x" * 80, "columns"),
        ("end", "## Summary", "## The end", "no section '## Summary'"),
        ("end", ":label: ex-1", ":label: ex-9", "without solution"),
        ("end", EXERCISE.replace("NUMBER", "2"), "", "3 to 5 are asked"),
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


@pytest.mark.slow
def test_the_book_meets_its_measures(capsys: pytest.CaptureFixture[str]) -> None:
    status = check_book.main([])
    assert status == 0, capsys.readouterr().out
