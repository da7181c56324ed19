"""What a student's notebook has of the engine: ``check("question")``.

The builder writes this module, what it needs of the others and the public checks into one cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from course.calls import Here
from course.draws import PUBLIC, Draw

PublicCheck = tuple[str, Callable[..., Any]]


def _failure(error: Exception) -> str:
    if isinstance(error, AssertionError):
        return str(error)
    return f"{type(error).__name__}: {error}"


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
            try:
                part = body(call, Draw(PUBLIC, [question, body.__name__]))
            except Exception as error:
                hint = " ".join((body.__doc__ or "").split())
                print(f"✗ {title}: {hint}\n    {_failure(error)}")
                continue
            missing = getattr(part, "missing", "")
            print(f"✗ {title}: {missing}" if missing else f"✓ {title}")

    return check
