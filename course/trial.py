"""An assignment tried: the solution, the untouched version and the answers in ``tried.py``.

In this process, without the box: for the author of an assignment, and for the tests.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import cache
from typing import Any

from course import builder, tried
from course.calls import Here
from course.checks import Assignment
from course.grading import Grade, mark
from course.tried import Tried
from course.worker import only_checks

# A course's key that everybody knows, and a student who does not exist.
KEY = "the key of a trial"
STUDENT = "Ada Trial"


@cache
def _cells(assignment: Assignment, solved: bool) -> tuple[str, ...]:
    return tuple(builder.code_of(builder.version(assignment, solved)))


def space_of(cells: tuple[str, ...]) -> dict[str, Any]:
    """The names that cells define, each run whatever the others did."""
    space: dict[str, Any] = {"__name__": "__main__", "check": lambda question: None}
    with contextlib.redirect_stdout(io.StringIO()):
        for source in cells:
            if not only_checks(source):
                with contextlib.suppress(Exception):
                    exec(compile(source, "cell", "exec"), space)
    return space


def graded(
    assignment: Assignment,
    name: str,
    cells: tuple[str, ...],
    key: str = KEY,
    question: str | None = None,
) -> Grade:
    """The grade of these cells, in all or for one question."""
    outcomes = mark(assignment, Here(space_of(cells)), key, STUDENT, question)
    return Grade(STUDENT, name, assignment, outcomes, isolated=False)


def solution(assignment: Assignment, key: str = KEY) -> Grade:
    """The grade of the solution."""
    return graded(assignment, "solution", _cells(assignment, True), key)


def untouched(assignment: Assignment, key: str = KEY) -> Grade:
    """The grade of what students get, as they get it."""
    return graded(assignment, "untouched", _cells(assignment, False), key)


def answer(assignment: Assignment, one: Tried, key: str = KEY) -> Grade:
    """The grade of the solution with one answer replaced, for the question that it answers."""
    cells = (*_cells(assignment, True), one.source)
    return graded(assignment, one.name, cells, key, one.question)


def lines(assignment: Assignment) -> Iterator[str]:
    """A table: what was tried, its points (of an answer, in its question), and why."""
    for grade in (solution(assignment), untouched(assignment)):
        yield f"{assignment.name:24} {grade.file:30} {'':5} {grade.mark():5.2f}  {grade.reason}"
    for one in tried.load(assignment):
        grade = answer(assignment, one)
        wanted = "right" if one.is_right else "wrong"
        yield (f"{assignment.name:24} {one.name:30} {wanted:5} {grade.mark():5.2f}  {grade.reason}")
