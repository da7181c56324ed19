"""A folder of submissions: a mark and a reason for each, whatever the others do."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from course import checks, feedback, rubric
from course.checks import Assignment
from course.grading import Grade, grade
from course.rubric import Criterion
from course.submissions import Submission, find, read

KEY = "FLDP_COURSE_KEY"
# Sixteen letters of a key made as we say hold 64 bits.
SHORTEST_KEY = 16
HOW_TO_MAKE = "python3 -c 'import secrets; print(secrets.token_hex(16))'"
# A spreadsheet takes text that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
HEAD = [
    *("student", "file", "assignment", "mark", "points"),
    *("by hand", "isolated", "score", "seconds"),
]


def course_key() -> str:
    """The instructor's key.

    Raises
    ------
    ValueError
        Where it is not set or too short, with how to make one.
    """
    key = os.environ.get(KEY, "").strip()
    if len(key) < SHORTEST_KEY:
        state = "not set" if not key else f"shorter than {SHORTEST_KEY} characters"
        raise ValueError(
            f"{KEY} is {state}. Hidden checks draw their numbers from it: make one with "
            f"{HOW_TO_MAKE}, keep it for the whole course, and tell no student."
        )
    return key


@dataclass(frozen=True)
class Batch:
    """How a folder is graded.

    Parameters
    ----------
    key : str
        The course's key.
    isolated : bool
        In boxes, or in plain processes.
    assignment : str
        What is graded: a notebook that says another is not, one that says nothing is. "" grades
        each as what it says.
    jobs : int
        How many submissions at a time.
    """

    key: str
    isolated: bool
    assignment: str = ""
    jobs: int = 2

    def one(self, submission: Submission) -> Grade:
        """Grade one; never raises."""
        name = submission.assignment or self.assignment
        known = checks.load(name) if name else None
        if submission.refused:
            return self._none(submission, known, submission.refused)
        if known is None:
            why = "which assignment it is, its notebook does not say: give ASSIGNMENT=name"
            return self._none(submission, known, why)
        if self.assignment not in ("", name):
            return self._none(submission, known, f"it is {name}, and not {self.assignment}")
        try:
            return grade(submission, known, self.key, self.isolated)
        except Exception as error:
            note = f"the grader failed: {type(error).__name__}: {error}"
            return self._none(submission, known, note)

    def _none(self, submission: Submission, known: Assignment | None, why: str) -> Grade:
        """A grade without marks."""
        return Grade(
            submission.student, submission.file, known, notes=[why], isolated=self.isolated
        )

    def grade(self, folder: Path, show: Callable[[Grade], None]) -> list[Grade]:
        """Grade a folder.

        Parameters
        ----------
        folder : Path
            The submissions.
        show : callable
            Is given each grade, in the order of the files, as soon as it is there.
        """
        found = [read(student, path) for student, path in find(folder)]
        submissions = latest(found, self.assignment)
        grades = []
        with ThreadPoolExecutor(self.jobs) as pool:
            for one in pool.map(self.one, submissions):
                show(one)
                grades.append(one)
        return grades


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def latest(submissions: Sequence[Submission], assignment: str = "") -> list[Submission]:
    """Of several by one student for one assignment only the file changed last is graded.

    The others say which. What cannot be read takes no place, so that a file which a system left
    beside a notebook does not stand for it.

    Parameters
    ----------
    submissions : sequence of Submission
        What was handed in.
    assignment : str
        What a notebook that says nothing is graded as; "" where that is refused.
    """

    def whose(submission: Submission) -> tuple[str, str]:
        return submission.student.casefold(), submission.assignment or assignment

    last: dict[tuple[str, str], Submission] = {}
    for submission in submissions:
        before = last.get(whose(submission))
        if submission.refused:
            continue
        if before is None or _changed(submission.path) >= _changed(before.path):
            last[whose(submission)] = submission
    counted = []
    for submission in submissions:
        newest = last.get(whose(submission), submission)
        if newest is not submission and not submission.refused:
            why = f"not graded: {newest.file} of the same student was changed later"
            submission = replace(submission, refused=why)
        counted.append(submission)
    return counted


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def _criteria(one: Grade) -> list[Criterion]:
    return rubric.load(one.assignment) if one.assignment else []


def _points(one: Grade, question: str) -> str:
    asked = one.assignment is not None and question in one.assignment.questions
    return f"{one.mark(question):g}" if asked else ""


def _row(one: Grade) -> list[str]:
    """A grade in the columns of HEAD."""
    known = one.assignment
    return [
        one.student,
        one.file,
        known.name if known else "",
        f"{one.mark():g}",
        f"{known.points():g}" if known else "",
        f"{sum(c.points for c in _criteria(one)):g}",
        "yes" if one.isolated else "not isolated",
        "" if one.score is None else f"{one.score:.4g}",
        f"{one.seconds:.1f}",
    ]


def write(grades: Sequence[Grade], folder: Path) -> None:
    """``marks.csv`` and a page for each student in ``feedback/<assignment>/``.

    Parameters
    ----------
    grades : sequence of Grade
        What was found.
    folder : Path
        Where it goes; made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    questions = list(
        dict.fromkeys(q for g in grades if g.assignment for q in g.assignment.questions)
    )
    with (folder / "marks.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*HEAD, *questions, "reason"])
        for one in grades:
            marks = [_points(one, question) for question in questions]
            table.writerow([_cell(text) for text in (*_row(one), *marks, one.reason)])
    # A student's page is that of the submission that counts.
    for one in sorted(grades, key=lambda grade: bool(grade.outcomes)):
        pages = folder / "feedback" / (one.assignment.name if one.assignment else "unknown")
        pages.mkdir(parents=True, exist_ok=True)
        name = feedback.page_name(one.student)
        (pages / name).write_text(feedback.page(one, _criteria(one)), encoding="utf-8")
