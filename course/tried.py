"""Answers that were tried: wrong ones, which must lose marks, and right ones, which must not.

They stand in an assignment's ``tried.py``, as functions with the name of the student's, ``__`` and
a word of their own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from course.checks import Assignment

F = TypeVar("F", bound=Callable[..., Any])


def wrong(question: str) -> Callable[[F], F]:
    """A plausible wrong answer to a question; its docstring says what is wrong."""
    return lambda function: function


def right(question: str) -> Callable[[F], F]:
    """A right answer in another style; its docstring says which."""
    return lambda function: function


@dataclass(frozen=True)
class Tried:
    """One answer.

    Parameters
    ----------
    question : str
        Which it answers.
    name : str
        The function's whole name, such as ``clip__per_tensor``.
    about : str
        The docstring.
    is_right : bool
        Whether it must get full marks.
    source : str
        The function under the student's name, as a cell.
    """

    question: str
    name: str
    about: str
    is_right: bool
    source: str


def _read(node: ast.FunctionDef, where: str) -> Tried:
    name, _, word = node.name.partition("__")
    marks = [d for d in node.decorator_list if isinstance(d, ast.Call)]
    about = ast.get_docstring(node)
    if not word or len(marks) != 1 or len(node.decorator_list) != 1 or not about:
        raise ValueError(
            f"{where}: {node.name} needs @wrong(question) or @right(question), a name of the form "
            "function__word and a docstring"
        )
    mark = marks[0]
    assert isinstance(mark.func, ast.Name)
    assert isinstance(mark.args[0], ast.Constant)
    whole = node.name
    node.name = name
    node.decorator_list = []
    is_right = mark.func.id == "right"
    return Tried(str(mark.args[0].value), whole, about, is_right, ast.unparse(node))


def load(assignment: Assignment) -> list[Tried]:
    """The answers tried for an assignment.

    Raises
    ------
    ValueError
        Where one is not declared as it must be, or answers no question of this assignment.
    """
    path = assignment.folder / "tried.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [_read(node, str(path)) for node in tree.body if isinstance(node, ast.FunctionDef)]
    unknown = {one.question for one in found} - set(assignment.questions)
    if unknown:
        raise ValueError(f"{path} answers a question that is not there: {', '.join(unknown)}")
    return found
