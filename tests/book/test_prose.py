"""What is counted in a chapter's text: sentences, questions, figures that somebody typed."""

from __future__ import annotations

import json
from pathlib import Path

import myst
import prose
import pytest

BOOK = Path(__file__).resolve().parent.parent.parent / "book"
PAGES = sorted([*BOOK.glob("*.ipynb"), *BOOK.glob("*.md")])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is one. Is it two? It is!", ["It is one.", "Is it two?", "It is!"]),
        ("See Li et al. (2020). $x$ is next.", ["See Li et al. (2020).", "x is next."]),
        ("Some, i.e. Ann, came.", ["Some, i.e. Ann, came."]),
        ("At 0.93 it ends. `code` follows:", ["At 0.93 it ends.", "code follows:"]),
        ("He said \"no.\" Then he left.", ['He said "no."', "Then he left."]),
        ("# A title.\n\n| a. | b. |\n|---|---|\n| c. | d. |", []),
        ("- no sentence\n- A sentence.", ["A sentence."]),
        ("```{note}\nInside.\n```\n```python\nNo. No.\n```", ["Inside."]),
        ("$$\na. B.\n$$\nA line\nthat goes on.", ["A line that goes on."]),
        ("(i) First. (ii) Second.", ["(i) First.", "(ii) Second."]),
    ],
)  # fmt: skip
def test_sentences(text: str, found: list[str]) -> None:
    assert list(prose.sentences(text)) == found


def test_the_share_of_short_sentences() -> None:
    assert (
        prose.short_share(["One two three four five six.", "One two three four five six seven."])
        == 50
    )
    assert prose.short_share(["no sentence"]) == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Write down a number.", 1),
        ("Before you run the next cells, write down three numbers.", 1),
        ("It ends. Guess how many remain.", 1),
        ("Before the cell: what does their average reach?", 1),
        ("What do you expect of it?", 1),
        ("They write every update down to the disk.", 1),
        ("The proposition predicts that the accountant guessed.", 0),
        ("Write down one.\n\nText.\n\n- Predict two.", 2),
    ],
)
def test_questions(text: str, count: int) -> None:
    assert prose.questions([text]) == count


@pytest.mark.parametrize(
    ("said", "known", "found"),
    [
        ("It wins 73 percent of them", "0.7311", []),
        ("It wins 73 percent of them", "73.11%", []),
        ("It wins 74 percent of them", "0.7311 73.11%", ["74"]),
        ("73 bets in a hundred, 85 % and 97 in a hundred", "85%", ["97"]),
        ("It is 12 times as fast, in 3 rounds", "1,200", ["12"]),
        ("with 95 percent confidence", "confidence=0.95", []),
    ],
)
def test_typed_integers_that_claim_a_measurement(said: str, known: str, found: list[str]) -> None:
    assert list(prose.unbound(said, known)) == found


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("A vector of length at most\n1. You publish the sum.", 1),
        ("A share $p + (1\n- s)$ says yes.", 1),
        ("```{prf:proof}\nUse $(1 - q\n+ q)$.\n```", 1),
        ("Three things:\n- one\n  - a part\n- two\n\n1. First\n2. Second", 0),
        ("# A title\n\n- one\ntwo\n- three", 0),
        ("$$\na\n- b\n$$\n```{math}\na\n+ b\n```\n```\nx\n- y\n```", 0),
    ],
)
def test_a_sentence_that_becomes_a_list_is_found(text: str, count: int) -> None:
    assert len(prose.torn(text)) == count


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_no_sentence_of_the_book_becomes_a_list(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    cells = myst.markdown(json.loads(text)["cells"]) if path.suffix == ".ipynb" else [text]
    assert [line for cell in cells for line in prose.torn(cell)] == []
