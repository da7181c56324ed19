"""How a check reaches the student's functions: here, in the same process, as in the notebook.

The grader's own way, through the box, is `course.proxy`. Both send the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from course.values import Malformed, decode, encode

T = TypeVar("T")
# A function that a check hands out answers so often, if it does not say otherwise.
ORACLE_CALLS = 1_000
# The worker says the same.
NO_FUNCTION = "there is no function"
UNWRITTEN = "is still to be written"
UNREADABLE = "returned what cannot be read"


class Raised(AssertionError):
    """The student's function raised something, or there is none of this name.

    Parameters
    ----------
    what : str
        What happened, without anything that the function was given.
    message : str
        The text of the exception.
    """

    def __init__(self, what: str, message: str = "") -> None:
        super().__init__(f"{what}: {message}" if message else what)
        self.what = what

    @property
    def nothing_there(self) -> bool:
        """Whether there was no answer that a hint could help with."""
        return self.what.startswith(NO_FUNCTION) or self.what.endswith(UNWRITTEN)


class Oracle:
    """A function of the check that the student's function may call, so many times and no more.

    Parameters
    ----------
    function : callable
        Runs in the grader; its arguments are the student's and must be checked.
    calls : int
        How often, over all.
    """

    def __init__(self, function: Callable[..., Any], calls: int = ORACLE_CALLS) -> None:
        self.function = function
        self.left = calls

    def __call__(self, *args: Any) -> Any:
        assert self.left > 0, "there are no questions left: you may not ask so often"
        self.left -= 1
        return self.function(*args)


class Call(Protocol):
    """The student's functions, by name.

    `after` holds the arguments of the last call as they were when it returned.
    """

    after: list[Any]

    def __call__(self, name: str, *args: Any) -> Any:
        """What the student's function returns for these arguments."""

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gave the first time that it was asked for under this name."""


class Kept:
    """What several checks of one submission share."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._failed: dict[str, AssertionError] = {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gave the first time, or the `AssertionError` that it raised then."""
        if name in self._failed:
            raise self._failed[name]
        if name not in self._made:
            try:
                self._made[name] = make()
            except AssertionError as error:
                self._failed[name] = error
                raise
        made: T = self._made[name]
        return made


class Here(Kept):
    """Calls in this process.

    Parameters
    ----------
    space : mapping
        The names that the student's cells defined.
    """

    def __init__(self, space: Mapping[str, Any]) -> None:
        super().__init__()
        self.space = space
        self.after: list[Any] = []

    def __call__(self, name: str, *args: Any) -> Any:
        function = self.space.get(name)
        if not callable(function):
            raise Raised(f"{NO_FUNCTION} {name}")
        functions: list[Callable[..., Any]] = []
        sent = [encode(argument, functions) for argument in args]
        received = [decode(item, functions.__getitem__, seeds=True) for item in sent]
        try:
            answer = encode(function(*received))
        except Malformed as error:
            raise Raised(f"{name} {UNREADABLE}", str(error)) from None
        except NotImplementedError:
            raise Raised(f"{name} {UNWRITTEN}") from None
        except Exception as error:
            raise Raised(f"{name} raised {type(error).__name__}", str(error)) from error
        # An argument that was a function comes back as None: nobody looks at it.
        back: list[Callable[..., Any]] = []
        self.after = [decode(encode(item, back), lambda place: None) for item in received]
        return decode(answer)
