"""A page for each student: what was earned, and a hint for what was not. Everything is escaped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from html import escape

from course.grading import Grade, Outcome
from course.headings import headings
from course.headings import title as title_of
from course.rubric import Criterion

# A file's name has at most 255 bytes, and a letter at most 4.
LONGEST_NAME = 50
DIGEST = 8
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
td:first-child, th:first-child { width: 11rem }
td:nth-child(2), th:nth-child(2) { width: 6rem; white-space: nowrap }
th, td { border-bottom: 1px solid #bbb; padding: .4rem .6rem }
th, td { text-align: left; vertical-align: top }
pre { white-space: pre-wrap; background: #f4f4f4; padding: .8rem }
.warning { border-left: 4px solid #b00; padding-left: .8rem }
"""
NOT_FOUND = (
    "(Nothing was found in the cell for this answer. If you wrote it elsewhere in the notebook, "
    "say where.)"
)
NOT_ISOLATED = (
    "This was graded in a plain process, not isolated from the grader: the marks are to be "
    "confirmed by a person."
)


def page_name(student: str) -> str:
    """A file's name for a student: readable, safe, and nobody else's."""
    plain = re.sub(r"[^\w-]+", "-", student)[:LONGEST_NAME].strip("-")
    if plain == student:
        return f"{plain}.html"
    digest = hashlib.sha256(student.encode("utf-8", "replace")).hexdigest()[:DIGEST]
    return f"{plain or 'student'}-{digest}.html"


def _row(outcome: Outcome) -> str:
    check = outcome.check
    title = check.name.replace("_", " ") if check.public else "hidden check"
    told = outcome.told or "passed"
    points = f"{outcome.earned:g} of {check.points:g}"
    if outcome.score is not None:
        told = f"{told}; your score on the list: {outcome.score:.4g}"
    return f"<tr><td>{escape(title)}<td>{points}<td>{escape(told)}</tr>"


def _rubric(criteria: Sequence[Criterion]) -> str:
    rows = "".join(
        f"<tr><td>{escape(c.name)}<td>… of {c.points:g}"
        f"<td>{escape(c.full)}<td>{escape(c.part)}</tr>"
        for c in criteria
    )
    head = "<tr><th>looked for<th>points<th>all of them<th>half</tr>"
    return f"<table>{head}{rows}</table>"


def page(grade: Grade, criteria: Sequence[Criterion]) -> str:
    """The page, as HTML.

    Parameters
    ----------
    grade : Grade
        What was found.
    criteria : sequence of Criterion
        What a person is still to mark.
    """
    title = title_of(grade.assignment) if grade.assignment else "submission"
    called = headings(grade.assignment) if grade.assignment else {}
    of = grade.assignment.points() if grade.assignment else 0.0
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        f"<title>{escape(title)}: {escape(grade.student)}</title><style>{STYLE}</style>",
        f"<h1>{escape(title)}</h1><p>{escape(grade.student)}, {escape(grade.file)}: ",
        f"<strong>{grade.mark():g} of {of:g}</strong>",
    ]
    if not grade.isolated:
        parts.append(f'<p class="warning">{escape(NOT_ISOLATED)}')
    if grade.notes:
        notes = "".join(f"<li>{escape(note)}" for note in grade.notes)
        parts.append(f"<h2>While it was loaded</h2><ul>{notes}</ul>")
    for question in grade.assignment.questions if grade.assignment else []:
        outcomes = [o for o in grade.outcomes if o.check.question == question]
        if outcomes:
            rows = "".join(_row(outcome) for outcome in outcomes)
            of_question = grade.assignment.points(question) if grade.assignment else 0.0
            earned = f"{grade.mark(question):g} of {of_question:g}"
            heading = escape(called.get(question, question))
            parts.append(
                f"<h2>{heading}</h2><p><code>{escape(question)}</code>: {earned}"
                f"<table>{rows}</table>"
            )
    for question in dict.fromkeys(c.question for c in criteria):
        text = grade.written.get(question, NOT_FOUND)
        own = [c for c in criteria if c.question == question]
        heading = escape(called.get(question, question))
        parts.append(f"<h2>{heading}</h2><pre>{escape(text)}</pre>{_rubric(own)}")
    return "\n".join(parts) + "\n</html>\n"
