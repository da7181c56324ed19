"""In the box: run a submission's cells, then answer calls. Nothing here decides about a mark.

The grader sends lines of JSON, and gets lines of JSON:

    {"cells": [...], "skip": [...], "limits": {...}}
        {"ready": true}, {"cell": n} for each that is run, {"errors": [...]}
    {"call": name, "args": [...]}
        {"out": value, "after": [...]} or {"error": what, "text": message}
    {"out": value} or {"error": text}
        {"ask": place, "args": [...]}

The last line is the way back: the student's function calls one of the grader's.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any

# A message is cut here.
SHOWN = 200
# The first line of the cell that holds the public checks; `course.builder` writes it.
CHECKS_CELL = "# @title Public checks"


def limit(limits: dict[str, int]) -> None:
    """Set the limits for good, by the names of the module `resource`."""
    for name, most in limits.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (most, most))


def _shown(error: BaseException) -> str:
    try:
        message = str(error)
    except BaseException:
        message = "(its text cannot be shown)"
    return message[:SHOWN]


# What only IPython knows: commands, whose output may be given a name, and questions.
IPYTHONS = re.compile(r"\s*(?:[%!?]|[\w\s,]+=\s*[%!]|\S+\?{1,2}\s*$)")


def python_of(source: str) -> tuple[str, list[int]]:
    """A cell in which IPython's lines do nothing, and which lines those are, from 1."""
    try:
        ast.parse(source)
    except SyntaxError:
        lines = source.split("\n")
        theirs = [place for place, line in enumerate(lines) if IPYTHONS.match(line)]
        for place in theirs:
            # The other lines keep their numbers, and a block does not become empty.
            indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
            lines[place] = f"{indent}pass"
        return "\n".join(lines), [place + 1 for place in theirs]
    return source, []


def _went_wrong(place: int, error: BaseException, theirs: list[int]) -> str:
    text = f"code cell {place + 1}: {type(error).__name__}: {_shown(error)}"
    if not theirs:
        return text
    lines = ", ".join(map(str, theirs))
    return f"{text} (line {lines}: not Python but IPython's, and left out)"


def only_checks(source: str) -> bool:
    """Whether a cell is the one with the checks, or does nothing but call `check`."""
    if source.lstrip().startswith(CHECKS_CELL):
        return True
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    calls = [s.value for s in body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return bool(body) and names == ["check"] * len(body)


class Worker:
    """One submission, loaded.

    Parameters
    ----------
    link_in, link_out : file objects
        The grader's ends.
    """

    def __init__(self, link_in: IO[bytes], link_out: IO[bytes]) -> None:
        self.link_in = link_in
        self.link_out = link_out
        self.space: dict[str, Any] = {"__name__": "__main__", "check": lambda *names: None}

    def send(self, message: dict[str, Any]) -> None:
        self.link_out.write(json.dumps(message).encode() + b"\n")
        self.link_out.flush()

    def received(self) -> Iterator[dict[str, Any]]:
        for line in self.link_in:
            yield json.loads(line)

    def load(self, cells: list[str], skip: list[int]) -> list[str]:
        """Run the cells, each whatever the others did; what went wrong is returned."""
        errors = []
        for place, source in enumerate(cells):
            if place in skip:
                continue
            # First of all: even to read a cell may end the process.
            self.send({"cell": place})
            if only_checks(source):
                continue
            theirs: list[int] = []
            try:
                source, theirs = python_of(source)
                exec(compile(source, f"code cell {place + 1}", "exec"), self.space)
            except BaseException as error:
                errors.append(_went_wrong(place, error, theirs))
        return errors

    def proxy(self, place: int) -> Callable[..., Any]:
        """A function of the grader, as the student's function sees it."""
        from course.values import decode, encode

        def ask(*args: Any) -> Any:
            self.send({"ask": place, "args": [encode(argument) for argument in args]})
            reply = json.loads(self.link_in.readline())
            if "error" in reply:
                raise RuntimeError(reply["error"])
            return decode(reply["out"])

        return ask

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """What the student's function makes of a call."""
        from course.values import Malformed, decode, encode

        name = message["call"]
        function = self.space.get(name)
        if not callable(function):
            return {"error": f"there is no function {name}", "text": ""}
        try:
            args = [decode(item, self.proxy, seeds=True) for item in message["args"]]
            out = encode(function(*args))
            back: list[Callable[..., Any]] = []
            return {"out": out, "after": [encode(argument, back) for argument in args]}
        except Malformed as error:
            return {"error": f"{name} returned what cannot be read", "text": _shown(error)}
        except NotImplementedError:
            return {"error": f"{name} is still to be written", "text": ""}
        except BaseException as error:
            return {"error": f"{name} raised {type(error).__name__}", "text": _shown(error)}


def main() -> None:
    # The student's prints go nowhere, and nothing of theirs can read the link by chance.
    link_in = os.fdopen(os.dup(0), "rb")
    link_out = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    worker = Worker(link_in, link_out)
    first = json.loads(link_in.readline())
    limit(first["limits"])
    # What takes a second or two counts in nobody's time.
    for module in ("course.values", "fldp.mechanism"):
        importlib.import_module(module)

    worker.send({"ready": True})
    errors = worker.load(first["cells"], first["skip"])
    worker.send({"errors": errors})
    for message in worker.received():
        try:
            worker.send(worker.answer(message))
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
