"""What a student's notebook has of the engine: ``check("question")``.

The builder writes this module, what it needs of the others and the public checks into one cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from course.calls import Here, Raised
from course.draws import PUBLIC, Draw

PublicCheck = tuple[str, Callable[..., Any]]


def _failure(error: Exception) -> str:
    if isinstance(error, AssertionError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _verdict(body: Callable[..., Any], call: Here, draw: Draw) -> str:
    """What a student reads about a check: "" where it passes."""
    hint = " ".join((body.__doc__ or "").split())
    try:
        part = body(call, draw)
    except Raised as error:
        return str(error) if error.nothing_there else f"{hint}\n    {error}"
    except Exception as error:
        return f"{hint}\n    {_failure(error)}"
    return str(getattr(part, "missing", ""))


def start(checks: Sequence[PublicCheck], space: Mapping[str, Any]) -> Callable[[str], None]:
    """The function `check` of a notebook.

    Parameters
    ----------
    checks : sequence of (question, function)
        The public ones.
    space : mapping
        The notebook's names.

    Returns
    -------
    callable
        ``check("question")`` prints, for each public check, whether it passes and a hint if not.
    """

    def check(question: str) -> None:
        chosen = [body for name, body in checks if name == question]
        if not chosen:
            known = ", ".join(dict.fromkeys(name for name, _ in checks))
            print(f"No public check of {question!r}; there are: {known}")
        call = Here(space)
        for body in chosen:
            title = body.__name__.replace("_", " ")
            wrong = _verdict(body, call, Draw(PUBLIC, [question, body.__name__]))
            print(f"✗ {title}: {wrong}" if wrong else f"✓ {title}")

    return check
