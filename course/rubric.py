"""What a person marks: the criteria of an assignment's written answers."""

from __future__ import annotations

from dataclasses import dataclass

from course.checks import Assignment


@dataclass(frozen=True)
class Criterion:
    """One line of a rubric.

    Parameters
    ----------
    question : str
        The written answer that it is about.
    name : str
        What is looked for.
    points : float
        At most.
    full, part : str
        What an answer has that gets all or half of them.
    """

    question: str
    name: str
    points: float
    full: str
    part: str


def load(assignment: Assignment) -> list[Criterion]:
    """The rubric of an assignment; empty where it has none."""
    path = assignment.folder / "rubric.toml"
    if not path.exists():
        return []
    # Python has it from 3.11 on; what runs at a learning platform marks nothing by hand.
    import tomllib

    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return [Criterion(**one) for one in content["criterion"]]
