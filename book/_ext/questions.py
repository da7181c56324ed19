"""The questions of the quizzes, from `book/quizzes.yml`: read, and refused where one is not whole.

The page (`quiz.py`), the notebooks that are read alone (`tools/plain.py`), the slides and the
export for learning platforms ask here, so that all show the same questions in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FILE = Path("book") / "quizzes.yml"
# What a page says above its questions, and above the reasons.
TITLE, ANSWERS = "Check yourself", "Answers"
HOW = "Choose an answer, then open it: it says why it is right or not."
RIGHT, WRONG = "Right.", "Not so."
# A chapter has so many questions, and a question so many answers.
QUESTIONS, CHOICES = (2, 3), (3, 4)
LETTERS = "ABCD"
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
FIELDS = {"id", "asks", "answers", "given", "computed", "printed"}


@dataclass(frozen=True)
class Answer:
    """One of the choices: what it says, whether it is right, and why."""

    says: str
    is_right: bool
    because: str

    @property
    def verdict(self) -> str:
        """The word that stands before the reason."""
        return RIGHT if self.is_right else WRONG


@dataclass(frozen=True)
class Question:
    """A question with one right answer.

    `given`, `computed` and `printed` say where each number of its texts comes from; see the file.
    """

    id: str
    asks: str
    answers: tuple[Answer, ...]
    given: tuple[str, ...] = ()
    computed: Mapping[str, str] = field(default_factory=dict)
    printed: Mapping[str, str] = field(default_factory=dict)

    @property
    def right(self) -> int:
        """The place of the right answer."""
        return next(place for place, answer in enumerate(self.answers) if answer.is_right)

    def choices(self) -> Iterator[tuple[str, Answer]]:
        """Each answer under its letter."""
        yield from zip(LETTERS, self.answers, strict=False)


def _words(value: Any, where: str) -> str:
    """A text that is there, on one line."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{where} is {value!r}; it must be a text (in quotation marks, if it is a number)"
        )
    return " ".join(value.split())


def _answer(entry: Any, where: str) -> Answer:
    keys = set(entry) if isinstance(entry, dict) else set()
    if keys not in ({"right", "because"}, {"wrong", "because"}):
        raise ValueError(
            f"{where} has {sorted(keys)}; it must have 'because' and one of 'right' and 'wrong'"
        )
    is_right = "right" in keys
    says = _words(entry["right" if is_right else "wrong"], where)
    return Answer(says, is_right, _words(entry["because"], f"{where}, because"))


def _question(entry: Any, where: str) -> Question:
    if not isinstance(entry, dict) or not {"id", "asks", "answers"} <= set(entry) <= FIELDS:
        raise ValueError(
            f"{where} must have id, asks and answers, and else only given, computed, printed"
        )
    name = entry["id"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"{where}: the id is {name!r}; it must be words in small letters with hyphens"
        )
    where = f"{where} ({name})"
    answers = tuple(
        _answer(one, f"{where}, answer {place}") for place, one in enumerate(entry["answers"], 1)
    )
    low, high = CHOICES
    if not low <= len(answers) <= high:
        raise ValueError(f"{where} has {len(answers)} answers; {low} to {high} are asked")
    right = sum(answer.is_right for answer in answers)
    if right != 1:
        raise ValueError(f"{where} has {right} right answers; exactly one is asked")
    return Question(
        name,
        _words(entry["asks"], f"{where}, asks"),
        answers,
        tuple(str(number) for number in entry.get("given", ())),
        {str(number): " ".join(rule.split()) for number, rule in entry.get("computed", {}).items()},
        {str(number): line for number, line in entry.get("printed", {}).items()},
    )


def parsed(text: str) -> dict[str, tuple[Question, ...]]:
    """The questions of each chapter, by its slug, in the order of the file.

    Raises
    ------
    ValueError
        Where the file is not what its first lines say: the message names the question.
    """
    found: dict[str, tuple[Question, ...]] = {}
    seen: set[str] = set()
    for slug, entries in (yaml.safe_load(text) or {}).items():
        some = tuple(
            _question(entry, f"{slug}, question {place}") for place, entry in enumerate(entries, 1)
        )
        low, high = QUESTIONS
        if not low <= len(some) <= high:
            raise ValueError(f"{slug} has {len(some)} questions; {low} to {high} are asked")
        for question in some:
            if question.id in seen:
                raise ValueError(f"{slug}: the id {question.id!r} stands twice")
            seen.add(question.id)
        found[str(slug)] = some
    return found


def questions(root: Path) -> dict[str, tuple[Question, ...]]:
    """The quizzes of the book in the folder `root`."""
    return parsed((root / FILE).read_text(encoding="utf-8"))


def markdown(some: tuple[Question, ...]) -> str:
    """A chapter's questions in Markdown, with the reasons folded away below them."""
    lines = [f"**{TITLE}**", ""]
    reasons: list[str] = []
    for number, question in enumerate(some, 1):
        lines += [f"**Question {number}.** {question.asks}", ""]
        reasons += [f"**Question {number}**", ""]
        for letter, answer in question.choices():
            lines.append(f"- **{letter}.** {answer.says}")
            reasons.append(f"- **{letter}.** {answer.verdict} {answer.because}")
        lines.append("")
        reasons.append("")
    fold = ["<details>", f"<summary>{ANSWERS}</summary>", "", *reasons, "</details>"]
    return "\n".join([*lines, *fold])
