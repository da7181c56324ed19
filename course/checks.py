"""What a check is, and the checks of an assignment."""

from __future__ import annotations

import importlib.util
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from course.calls import Call
from course.draws import Draw
from course.parts import Part

ASSIGNMENTS = Path(__file__).resolve().parent.parent / "assignments"


Body = Callable[[Call, Draw], Part | None]


@dataclass(frozen=True)
class Check:
    """One check of one question.

    Parameters
    ----------
    question : str
        An identifier; questions come in the order of their first check.
    name : str
        The function's name.
    points : float
        What it is worth.
    hint : str
        Its docstring: what a student reads when it fails.
    public : bool
        Whether it stands in the student's notebook.
    body : callable
        ``body(call, draw)``: passes by returning None, fails by an exception.
    """

    question: str
    name: str
    points: float
    hint: str
    public: bool
    body: Body


# Filled by the decorators while a module of checks is loaded, by one thread at a time.
_collected: list[Check] = []
_loading = threading.Lock()


def _collect(question: str, points: float, public: bool) -> Callable[[Body], Body]:
    if not question.isidentifier():
        raise ValueError(f"a question's name is an identifier, not {question!r}")
    if not points > 0:
        raise ValueError(f"a check of {question} is worth {points} points: give it some")

    def keep(body: Body) -> Body:
        hint = inspect.getdoc(body)
        name = getattr(body, "__name__", "check")
        if not hint:
            raise ValueError(f"the check {name} has no docstring: the student needs a hint")
        _collected.append(Check(question, name, points, " ".join(hint.split()), public, body))
        return body

    return keep


def check(question: str, points: float) -> Callable[[Body], Body]:
    """A check that students have in their notebook. Its docstring is the hint."""
    return _collect(question, points, public=True)


def hidden(question: str, points: float) -> Callable[[Body], Body]:
    """A check that only the grader runs. Its docstring is the hint."""
    return _collect(question, points, public=False)


@dataclass(frozen=True)
class Assignment:
    """An assignment's name, folder and checks.

    Parameters
    ----------
    name : str
        That of its folder.
    folder : Path
        Where ``master.ipynb`` and ``checks.py`` are.
    checks : tuple of Check
        In the order of ``checks.py``.
    """

    name: str
    folder: Path
    checks: tuple[Check, ...]

    @property
    def questions(self) -> list[str]:
        """The names of the questions, in order."""
        return list(dict.fromkeys(check.question for check in self.checks))

    def points(self, question: str | None = None) -> float:
        """What a question is worth, or the whole without a name."""
        chosen = [c for c in self.checks if question in (None, c.question)]
        return sum(check.points for check in chosen)


def names() -> list[str]:
    """The assignments that there are."""
    return sorted(path.parent.name for path in ASSIGNMENTS.glob("*/checks.py"))


@cache
def load(name: str, folder: Path = ASSIGNMENTS) -> Assignment:
    """An assignment by its name.

    Parameters
    ----------
    name : str
        That of its folder.
    folder : Path
        Where the assignments are; default: the book's.

    Raises
    ------
    ValueError
        Where there is none of this name, or it has no checks or two of one name.
    """
    path = folder / name / "checks.py"
    if not path.is_file():
        there = ", ".join(sorted(p.parent.name for p in folder.glob("*/checks.py")))
        raise ValueError(f"there is no assignment {name!r}; there are: {there}")
    module = f"checks_of_{name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    with _loading:
        _collected.clear()
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        found = tuple(_collected)
    if not found:
        raise ValueError(f"{path} has no checks")
    if len({check.name for check in found}) < len(found):
        raise ValueError(f"{path} has two checks of one name")
    return Assignment(name, path.parent, found)
