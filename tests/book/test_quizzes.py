"""The quizzes: whole, one right answer each, every number computed here or printed by a chapter."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import chapters
import check_book
import myst
import numbering
import pytest
import questions
import twins
import yaml
from scipy.stats import norm

import fldp
from fldp.accounting import gaussian_delta, gaussian_epsilon, gaussian_mu

HERE = Path(__file__).resolve().parent.parent.parent
QUIZZES = questions.questions(HERE)
EVERY = [(slug, question) for slug, some in QUIZZES.items() for question in some]
NAMES = [question.id for _, question in EVERY]
# Pages that are no chapters and have questions all the same.
OTHERS = ("quickstart", "what-public-examples-give")
# A power of ten as one, a fraction as one, or digits that are no part of a name or of an index.
NUMBER = re.compile(r"10\^\{-?\d+\}|(?<![\w.])\d+/\d+(?!\w)|(?<![\w.])\d[\d,]*(?:\.\d+)?")
CODE = re.compile(r"\{\w+\}`[^`]*`|`[^`]*`")
# Expressions of the file ask for these by name.
CLASSROOM = {"delta": 1e-3, "rounds": 60, "clients": 480, "cohort": 120}


def texts(question: questions.Question) -> Iterator[str]:
    yield question.asks
    for answer in question.answers:
        yield answer.says
        yield answer.because


def numbers(question: questions.Question) -> set[str]:
    """Every number that the question's texts hold, as it is written."""
    said = " ".join(CODE.sub(" ", text) for text in texts(question))
    return {number.rstrip(",") for number in NUMBER.findall(said)}


@cache
def names() -> dict[str, Any]:
    """What the expressions of the file may use."""
    quickstart = fldp.calibrate(epsilon=8.0, **CLASSROOM)
    nine = fldp.explain_recipe(
        epsilon=1.0, delta=1e-5, rounds=15, local_epochs=2, batch_size=16, client_sizes=[5000] * 10
    )
    return {
        "fldp": fldp,
        "math": math,
        "norm": norm,
        "replace": replace,
        "gaussian_delta": gaussian_delta,
        "gaussian_epsilon": gaussian_epsilon,
        "gaussian_mu": gaussian_mu,
        "quickstart": quickstart,
        "z_quickstart": quickstart.noise_multiplier,
        "nine": nine,
    }


def value(written: str) -> float:
    return float(written.replace(",", ""))


def decimals(written: str) -> int:
    return len(written.partition(".")[2])


def rounds_to(found: float, written: str) -> bool:
    return round(found, decimals(written)) == value(written)


@cache
def outputs(slug: str) -> str:
    """What a chapter's stored outputs print."""
    cells = numbering.cells_of(HERE / "book" / f"{slug}.ipynb")
    return "\n".join(
        check_book.text_of(output) for cell in cells for output in cell.get("outputs", [])
    )


# The questions.


@pytest.mark.slow
def test_every_chapter_has_its_questions_where_its_exercises_begin() -> None:
    written = [chapter.slug for chapter in chapters.chapters(HERE)]
    assert set(QUIZZES) == {*written, *OTHERS}
    assert [slug for slug in QUIZZES if slug in written] == written, "not in the order of the book"
    for slug in QUIZZES:
        cells = numbering.cells_of(HERE / "book" / f"{slug}.ipynb")
        text = "\n".join(myst.markdown(cells))
        assert sum(found.name == "quiz" for found in myst.directives(text)) == 1, slug
        if slug in written:
            before, _, after = text.partition("```{quiz}\n```\n")
            assert "## Summary" in before, slug
            assert after.lstrip().startswith("## Exercises"), slug


@pytest.mark.parametrize(("slug", "question"), EVERY, ids=NAMES)
def test_every_number_is_given_computed_or_printed(slug: str, question: questions.Question) -> None:
    told = {*question.given, *question.computed, *question.printed}
    assert numbers(question) <= told, "without a source"
    assert told <= numbers(question), "a source for a number that no text holds"


COMPUTED = [
    pytest.param(question.computed, id=question.id) for _, question in EVERY if question.computed
]


@pytest.mark.slow
@pytest.mark.parametrize("computed", COMPUTED)
def test_computed_numbers_are_what_the_package_says(computed: dict[str, str]) -> None:
    for written, rule in computed.items():
        found = eval(rule, names())
        assert rounds_to(found, written), f"{written} is written, {rule} gives {found}"


@pytest.mark.parametrize(("slug", "question"), EVERY, ids=NAMES)
def test_printed_numbers_stand_in_the_chapters_outputs(
    slug: str, question: questions.Question
) -> None:
    for written, line in question.printed.items():
        assert line in outputs(slug), f"{slug} prints no line {line!r}"
        shown = [
            float(n) for n in re.findall(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", line.replace(",", ""))
        ]
        # A share may be written in percent.
        assert any(rounds_to(n, written) or rounds_to(100 * n, written) for n in shown), line


@pytest.mark.slow
def test_texts_keep_to_the_voice_and_to_labels_that_exist() -> None:
    places, titles = numbering.places(HERE), twins.the_book().titles
    for _, question in EVERY:
        for text in texts(question):
            assert not check_book.BANNED.search(text), text
            assert text.count("$") % 2 == 0, text
            for role in myst.roles(text):
                known = titles if role.name == "doc" else places
                assert role.target in known, f"{question.id}: {role}"


def test_the_right_answer_has_no_place_and_no_length_of_its_own() -> None:
    where = Counter(question.right for _, question in EVERY)
    assert max(where.values()) <= len(EVERY) / 2, where
    longest = [
        max(question.answers, key=lambda answer: len(answer.says)).is_right for _, question in EVERY
    ]
    assert sum(longest) <= 0.6 * len(EVERY), f"the longest answer is right in {sum(longest)}"


# What the file may not be.

WHOLE = {
    "id": "one",
    "asks": "Which?",
    "answers": [
        {"right": "This.", "because": "So."},
        {"wrong": "That.", "because": "No."},
        {"wrong": "None.", "because": "No."},
    ],
}


def changed(**fields: Any) -> str:
    return yaml.safe_dump({"a": [{**WHOLE, **fields}, {**WHOLE, "id": "two"}]})


def test_a_whole_file_is_read() -> None:
    (one, two) = questions.parsed(changed())["a"]
    assert (one.id, one.right, two.id) == ("one", 0, "two")


FIRST, SECOND, THIRD = WHOLE["answers"]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"answers": [FIRST, SECOND]}, "has 2 answers"),
        ({"answers": [FIRST, FIRST, SECOND]}, "2 right answers"),
        ({"answers": [SECOND, SECOND, THIRD]}, "0 right answers"),
        ({"answers": [FIRST, SECOND, {"wrong": "x"}]}, "must have 'because'"),
        ({"answers": [FIRST, SECOND, {"wrong": "x", "because": ""}]}, "must be a text"),
        ({"answers": [FIRST, SECOND, {"wrong": 8, "because": "x"}]}, "in quotation marks"),
        ({"id": "two"}, "stands twice"),
        ({"id": "Not A Name"}, "small letters"),
        ({"hint": "x"}, "else only"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        questions.parsed(changed(**fields))


def test_a_chapter_with_one_question_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 questions"):
        questions.parsed(yaml.safe_dump({"a": [WHOLE]}))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"$\delta = 10^{-3}$ and 1,440 of 3.", {"10^{-3}", "1,440", "3"}),
        (r"$L_2$, `z = 4`, {doc}`a <chapter-7>`, 0.032, 1/480", {"0.032", "1/480"}),
        ("24, by 3.8.", {"24", "3.8"}),
    ],
)
def test_numbers_are_found(text: str, found: set[str]) -> None:
    (one, _) = questions.parsed(changed(asks=text))["a"]
    assert numbers(one) == found
