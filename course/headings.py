"""What an assignment and its questions are called: the headings of its notebook."""

from __future__ import annotations

import re

from course import builder
from course.checks import Assignment
from course.submissions import written_question

CHECKED = re.compile(r'check\("(\w+)"\)')


def title(assignment: Assignment) -> str:
    """The first line of the notebook; where there is none, the name."""
    for line in _lines(assignment):
        if line.startswith("# "):
            return line.removeprefix("# ").strip()
    return assignment.name


def headings(assignment: Assignment) -> dict[str, str]:
    """The heading that each question stands under, by the question's name.

    Parameters
    ----------
    assignment : Assignment
        Whose; a question under no heading is left out.
    """
    found: dict[str, str] = {}
    heading = ""
    for line in _lines(assignment):
        asked = CHECKED.fullmatch(line.strip())
        question = asked[1] if asked else written_question(line)
        if line.startswith("## "):
            heading = line.removeprefix("## ").strip()
        elif question and heading:
            found.setdefault(question, heading)
    return found


def _lines(assignment: Assignment) -> list[str]:
    if not (assignment.folder / "master.ipynb").is_file():
        return []
    cells = builder.master(assignment)
    return [line for cell in cells for line in builder.source_of(cell).split("\n")]
