"""The mark of one submission, with a reason for every point that is missing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from course.calls import Call, Raised
from course.checks import Assignment, Check
from course.draws import Draw
from course.link import Gone
from course.parts import Part
from course.proxy import Student
from course.submissions import Submission, plain

# Marks are shown and added to a hundredth.
DIGITS = 2
NO_ANSWER = (
    "nothing could be computed with what came back: is it of the kind that is asked for, and of a "
    "size that can be?"
)


@dataclass(frozen=True)
class Outcome:
    """What one check found.

    Parameters
    ----------
    check : Check
        Which.
    earned : float
        Points.
    hint : str
        What the student reads; "" where nothing is missing.
    shown : str
        What happened, as far as the student may know: of a hidden check not the assertion's words.
    detail : str
        What happened, for the instructor.
    score : float or None
        For a leaderboard.
    """

    check: Check
    earned: float
    hint: str = ""
    shown: str = ""
    detail: str = ""
    score: float | None = None

    @property
    def told(self) -> str:
        """What the student is told."""
        return f"{self.hint} ({self.shown})" if self.shown else self.hint


@dataclass(frozen=True)
class Grade:
    """A submission's mark.

    Parameters
    ----------
    student : str
        Whose.
    file : str
        The file's name.
    assignment : Assignment or None
        Which; None where nobody knows.
    outcomes : list of Outcome
        In the order of the checks; empty for a submission that could not be graded.
    notes : list of str
        What else went wrong, such as a cell that raised.
    isolated : bool
        Whether the student's code ran in the box.
    seconds : float
        How long it took.
    written : dict
        Written answers by question, for a person to mark.
    """

    student: str
    file: str
    assignment: Assignment | None
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    isolated: bool = True
    seconds: float = 0.0
    written: dict[str, str] = field(default_factory=dict)

    def mark(self, question: str | None = None) -> float:
        """Points of a question, or of the whole without a name."""
        chosen = [o.earned for o in self.outcomes if question in (None, o.check.question)]
        return round(sum(chosen), DIGITS)

    @property
    def score(self) -> float | None:
        """The last score that a check gave, for a leaderboard."""
        scores = [o.score for o in self.outcomes if o.score is not None]
        return scores[-1] if scores else None

    @property
    def reason(self) -> str:
        """Why it is not the full mark, a hint for each question, on one line; else "full marks"."""
        lost: dict[str, list[str]] = {}
        for outcome in self.outcomes:
            if outcome.hint:
                lost.setdefault(outcome.check.question, []).append(outcome.told)
        said = list(self.notes)
        for question, hints in lost.items():
            more = f" (and {len(hints) - 1} more)" if len(hints) > 1 else ""
            said.append(f"{question}: {hints[0]}{more}")
        return plain(" ".join("; ".join(said).split())) or "full marks"


def run(check: Check, call: Call, draw: Draw) -> Outcome:
    """One check on one submission; whatever the student's answer does to it is a lost point."""
    try:
        part = check.body(call, draw)
    except Raised as error:
        if error.nothing_there:
            return Outcome(check, 0.0, error.what, detail=error.what)
        shown = str(error) if check.public else error.what
        return Outcome(check, 0.0, check.hint, shown, str(error))
    except AssertionError as error:
        shown = str(error) if check.public else ""
        return Outcome(check, 0.0, check.hint, shown, str(error))
    except Exception as error:
        detail = f"{NO_ANSWER}: {type(error).__name__}: {error}"
        return Outcome(check, 0.0, check.hint, NO_ANSWER, detail)
    if isinstance(part, Part):
        # NaN is at least nothing, too.
        fraction = min(1.0, part.fraction) if part.fraction >= 0 else 0.0
        earned = check.points * fraction
        hint = part.missing or ("" if fraction >= 1 else check.hint)
        return Outcome(check, earned, hint, score=part.score)
    return Outcome(check, check.points)


def draw_for(key: str, assignment: Assignment, student: str, check: Check) -> Draw:
    """The draws of one check for one student."""
    return Draw(key, [assignment.name, student, check.question, check.name])


def mark(
    assignment: Assignment, call: Call, key: str, student: str, question: str | None = None
) -> list[Outcome]:
    """All checks of an assignment, or of one question, on whatever `call` reaches."""
    chosen = [c for c in assignment.checks if question in (None, c.question)]
    return [run(c, call, draw_for(key, assignment, student, c)) for c in chosen]


def grade(submission: Submission, assignment: Assignment, key: str, isolated: bool) -> Grade:
    """Run a submission and mark it.

    Parameters
    ----------
    submission : Submission
        What was handed in.
    assignment : Assignment
        What it is graded as.
    key : str
        The course's key.
    isolated : bool
        In the box, or in a plain process.

    Returns
    -------
    Grade
        Whatever the submission does; nothing is raised.
    """
    began = time.monotonic()
    student = Student(submission.cells, isolated)
    outcomes = []
    notes = []
    try:
        student.start()
        outcomes = mark(assignment, student, key, submission.student)
    except Gone as gone:
        notes.append(str(gone))
    finally:
        student.stop()
    return Grade(
        submission.student,
        submission.file,
        assignment,
        outcomes,
        [*student.errors, *notes],
        isolated,
        time.monotonic() - began,
        submission.written,
    )
