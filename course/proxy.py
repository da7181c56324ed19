"""A submission behind a pipe: what the checks call, and nothing that the submission can reach."""

from __future__ import annotations

import builtins
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from course.box import Process
from course.calls import NO_FUNCTION, UNREADABLE, UNWRITTEN, Kept, Raised
from course.deadline import Deadline
from course.link import Ended, Gone, Late, Link
from course.values import Malformed, decode, encode

# Python, torch and fldp from a cold disk; the student's own time begins after it.
START_SECONDS = 120.0
# A process that ends before it has run anything of the submission was ended by the system: for want
# of memory or of processes, say, which there may be again in a while.
MOST_STARTS = 3
PAUSE_SECONDS = 2.0
CELL_SECONDS = 20.0
CALL_SECONDS = 20.0
# All waiting together, so that no submission holds the others up for long.
TOTAL_SECONDS = 300.0
# A cell that hangs or ends the process is left out, so many times.
MOST_SKIPPED = 3
# What ended the process is tried again, once each and so often in all: a start counts in no limit,
# and a submission may end itself at another place after each.
MOST_ENDED = 3
# torch and fldp take 0.4 GB.
MEMORY_BYTES = 3 << 30
LOOK_SECONDS = 0.25
# As `resource` names them. Address space: libraries reserve far more than they use. A submission
# needs one process; each of its threads counts.
LIMITS = {
    "RLIMIT_AS": 8 << 30,
    "RLIMIT_FSIZE": 50_000_000,
    "RLIMIT_NOFILE": 256,
    "RLIMIT_CORE": 0,
    "RLIMIT_CPU": 300,
}
# Counted for each user.
LIMITS_OF_ITS_USER = {**LIMITS, "RLIMIT_NPROC": 32}
SHOWN = 200


def family(pid: int) -> dict[int, int]:
    """A process and all that descend from it, with the bytes that each has in memory.

    Parameters
    ----------
    pid : int
        The first.

    Returns
    -------
    dict
        Bytes by process number; empty where there is no /proc.
    """
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name, in brackets, may hold anything; the parent is the second after it.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = {}
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        if (taken := _bytes_of(one)) is not None:
            found[one] = taken
        waiting += children.get(one, [])
    return found


def _bytes_of(pid: int) -> int | None:
    """Memory of a process, of what it shares its part; None where there is none to read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    share = re.search(r"^Pss: +(\d+) kB", text, re.M)
    return int(share[1]) * 1024 if share else None


class Student(Kept):
    """The functions of a submission, each call answered by the process in the box.

    Parameters
    ----------
    cells : list of str
        The code of the notebook.
    isolated : bool
        In a box, or in a plain process.

    Attributes
    ----------
    errors : list of str
        What went wrong while the cells ran.
    after : list
        The arguments of the last call, as they were when it returned.
    """

    def __init__(self, cells: list[str], isolated: bool) -> None:
        super().__init__()
        self.cells = cells
        self.isolated = isolated
        self.errors: list[str] = []
        self.after: list[Any] = []
        # Cells that are left out, and why.
        self._skipped: dict[int, str] = {}
        self._lost: dict[str, str] = {}
        self._dead = ""
        # Cells and functions that were tried again after the process had ended in them.
        self._ended: set[int | str] = set()
        self._starts = 0
        self._asked = False
        self._worker: int | None = None
        self._greedy = threading.Event()
        self._process: Process | None = None
        self._link: Link | None = None
        self._left = TOTAL_SECONDS

    def _limit(self, seconds: float) -> Deadline:
        """A limit for the process, which is that of the whole where less of it is left."""
        return Deadline(min(self._left, seconds), self._worker)

    def _watch(self, process: Process) -> None:
        """Kill the process when it takes too much memory; ends with it."""
        while process.popen.poll() is None:
            if sum(family(process.popen.pid).values()) > MEMORY_BYTES:
                self._greedy.set()
                process.kill()
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.end()
        self._process = None
        self._link = None

    def _why(self, gone: Gone, seconds: float) -> str:
        if self._greedy.is_set():
            return f"it used more than {MEMORY_BYTES >> 30} GB of memory"
        if self._left <= 0:
            return f"the {TOTAL_SECONDS:g} seconds of the whole submission were over"
        if isinstance(gone, Late):
            return f"{gone} ({seconds:g} seconds)"
        return str(gone)

    def start(self) -> None:
        """Start the process and run the cells, if it does not run.

        Raises
        ------
        Gone
            Where the cells cannot be run to their end.
        """
        if self._dead:
            raise Gone(self._dead)
        while self._link is None:
            at: int | None = None
            try:
                link = self._open()
                message = self._next(link)
                while "errors" not in message:
                    if "cell" in message:
                        at = self._place(message["cell"])
                    message = self._next(link)
                left_out = [
                    f"code cell {n + 1} was left out, and what it defines is missing: {why}"
                    for n, why in self._skipped.items()
                ]
                self.errors = left_out + self._texts(message["errors"])
                self._link = link
            except Gone as gone:
                why = self._why(gone, CELL_SECONDS)
                self.stop()
                if at is None and self._left > 0:
                    self._wait_to_start(why)
                elif at is None or at in self._skipped or len(self._skipped) >= MOST_SKIPPED:
                    self._dead = f"the cells could not be run: {why}"
                    raise Gone(self._dead) from None
                elif not self._once_more(gone, at):
                    self._skipped[at] = why

    def _wait_to_start(self, why: str) -> None:
        """After a start that failed: a pause, or the end."""
        self._starts += 1
        if self._starts >= MOST_STARTS:
            self._dead = (
                f"not graded, and nothing that the submission did: its process could not be "
                f"started ({why}); grade it again when the machine has room"
            )
            raise Gone(self._dead) from None
        time.sleep(PAUSE_SECONDS)

    def _once_more(self, gone: Gone, where: int | str) -> bool:
        """Whether to try again: a system that is short of memory ends a process, too."""
        if not isinstance(gone, Ended) or self._greedy.is_set():
            return False
        if where in self._ended or len(self._ended) >= MOST_ENDED:
            return False
        self._ended.add(where)
        return True

    def _open(self) -> Link:
        self._greedy.clear()
        self._worker = None
        self._process = Process(self.isolated)
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()
        link = Link(self._process)
        limits = LIMITS_OF_ITS_USER if self._process.has_own_user else LIMITS
        first = {"cells": self.cells, "skip": list(self._skipped), "limits": limits}
        start = Deadline(START_SECONDS)
        link.send(first, start)
        link.receive(start)
        # Nothing of the submission runs yet: whoever comes last here is the worker.
        self._worker = [self._process.popen.pid, *family(self._process.popen.pid)][-1]
        return link

    def _next(self, link: Link) -> dict[str, Any]:
        end = self._limit(CELL_SECONDS)
        try:
            return link.receive(end)
        finally:
            self._left -= end.used()

    def _place(self, cell: Any) -> int:
        if type(cell) is not int or not 0 <= cell < len(self.cells):
            raise Gone("the answer is none")
        return cell

    def _texts(self, errors: Any) -> list[str]:
        if not isinstance(errors, list) or len(errors) > len(self.cells):
            raise Gone("the answer is none")
        return [str(error)[:SHOWN] for error in errors]

    def __call__(self, name: str, *args: Any) -> Any:
        """What the student's function returns; a `Raised` where it raises, hangs or ends."""
        if name in self._lost:
            raise Raised(f"{name} was not called again: {self._lost[name]}")
        try:
            self.start()
            return self._exchange(name, args)
        except Gone as gone:
            why = self._why(gone, CALL_SECONDS)
            self.stop()
            # What the grader's functions were asked they would count twice.
            if not self._asked and self._once_more(gone, name):
                return self(name, *args)
            self._lost[name] = why
            raise Raised(f"{name}: {why}") from None

    def _exchange(self, name: str, args: tuple[Any, ...]) -> Any:
        functions: list[Callable[..., Any]] = []
        sent = [encode(argument, functions) for argument in args]
        end = self._limit(CALL_SECONDS)
        try:
            message = self._answer({"call": name, "args": sent}, functions, end)
        finally:
            self._left -= end.used()
        if "error" in message:
            raise _raised(name, str(message["error"])[:SHOWN], str(message.get("text", ""))[:SHOWN])
        try:
            after = message.get("after")
            if not isinstance(after, list) or len(after) != len(args):
                raise Malformed("no arguments came back")
            self.after = [decode(item, lambda place: None) for item in after]
            return decode(message.get("out"))
        except Malformed as error:
            # The worker sends nothing of the kind: something else wrote into the link.
            self._dead = f"what came back was no answer of the worker ({error})"
            raise Gone(self._dead) from None

    def _answer(
        self, message: dict[str, Any], functions: list[Callable[..., Any]], end: Deadline
    ) -> dict[str, Any]:
        """What the process makes of a call; on the way it may ask the grader's functions."""
        assert self._link is not None
        self._asked = False
        self._link.send(message, end)
        message = self._link.receive(end)
        while "ask" in message:
            self._asked = True
            self._link.send(_reply(functions, message, end), end)
            message = self._link.receive(end)
        return message


def _raised(name: str, said: str, text: str) -> Raised:
    """What happened, in the grader's words: those of the box are the submission's.

    What happened is told of hidden checks, too, and an exception whose name the student chose could
    tell what the check had sent. So such a name goes into the text, which is not told.
    """
    if said in (f"{NO_FUNCTION} {name}", f"{name} {UNWRITTEN}", f"{name} {UNREADABLE}"):
        return Raised(said, text)
    kind = said.removeprefix(f"{name} raised ")
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, BaseException):
        return Raised(f"{name} raised {kind}", text)
    return Raised(f"{name} raised an exception", f"{kind}: {text}"[:SHOWN])


def _reply(
    functions: list[Callable[..., Any]], message: dict[str, Any], end: Deadline
) -> dict[str, Any]:
    """What a function of the check says to arguments that are the student's."""
    place, args = message["ask"], message.get("args")
    if type(place) is not int or not 0 <= place < len(functions) or not isinstance(args, list):
        raise Gone("it asked for no function")
    try:
        # In the student's time: what is read may be long, and be sent without end.
        read = [decode(item) for item in args]
        with end.paused():
            answer = functions[place](*read)
        return {"out": encode(answer)}
    except Exception as error:
        # Its text is for the student where the check wrote it, and else says nothing.
        text = str(error) if isinstance(error, AssertionError | Malformed) else "not answered"
        return {"error": text[:SHOWN]}
