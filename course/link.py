"""Lines of JSON to and from a process that may not answer, may not read, or may answer anything."""

from __future__ import annotations

import json
import os
import select
from typing import Any

from course.box import Process
from course.deadline import Deadline

# Six megabytes of tensors; what JSON makes of it fits into memory several times.
LONGEST = 8_000_000
CHUNK = 1 << 16
# A deadline moves while others run: it is looked at again, and not more often than this.
LOOK_SECONDS = 0.05


class Gone(Exception):
    """The process hung, ended or wrote what is no answer; it is killed."""


class Late(Gone):
    """The process did not answer before the deadline."""

    def __init__(self) -> None:
        super().__init__("it did not answer in time")


class Ended(Gone):
    """The process ended, by itself or because the system ended it: nobody can tell which."""

    def __init__(self) -> None:
        super().__init__("the process ended")


class Link:
    """The pipes of a process, with deadlines.

    Parameters
    ----------
    process : Process
        The worker.
    """

    def __init__(self, process: Process) -> None:
        assert process.popen.stdin is not None
        assert process.popen.stdout is not None
        self._in = process.popen.stdin.fileno()
        self._out = process.popen.stdout.fileno()
        os.set_blocking(self._in, False)
        self._rest = bytearray()

    def _ready(self, end: Deadline, reading: bool) -> bool:
        """Wait for the process; whether it came before the deadline."""
        to_read, to_write = ([self._out], []) if reading else ([], [self._in])
        while True:
            wait = end.left()
            found = select.select(to_read, to_write, [], max(wait, LOOK_SECONDS) if wait else 0.0)
            if found[0] or found[1]:
                return True
            if not wait:
                return False

    def send(self, message: dict[str, Any], end: Deadline) -> None:
        """Write a line before the deadline."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            if not self._ready(end, reading=False):
                raise Gone("it took nothing in")
            try:
                data = data[os.write(self._in, data[:CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise Ended from None

    def receive(self, end: Deadline) -> dict[str, Any]:
        """The next line, before the deadline."""
        searched = 0
        while (place := self._rest.find(b"\n", searched)) < 0:
            searched = len(self._rest)
            if not self._ready(end, reading=True):
                raise Late
            part = os.read(self._out, CHUNK)
            if not part:
                raise Ended
            self._rest += part
            if len(self._rest) > LONGEST:
                raise Gone(f"the answer is longer than {LONGEST // 1_000_000} MB")
        line = bytes(self._rest[:place])
        del self._rest[: place + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise Gone("the answer is no JSON") from None
        if not isinstance(message, dict):
            raise Gone("the answer is no JSON object")
        return message
