"""Lines of JSON to and from a process that may not answer, may not read, or may answer anything."""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

from course.box import Process

# Six megabytes of tensors; what JSON makes of it fits into memory several times.
LONGEST = 8_000_000
CHUNK = 1 << 16


class Gone(Exception):
    """The process hung, ended or wrote what is no answer; it is killed."""


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

    def send(self, message: dict[str, Any], end: float) -> None:
        """Write a line before `end`, a time of `time.monotonic`."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            _, ready, _ = select.select([], [self._in], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise Gone("it took nothing in")
            try:
                data = data[os.write(self._in, data[:CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise Gone("the process ended") from None

    def receive(self, end: float) -> dict[str, Any]:
        """The next line, before `end`."""
        searched = 0
        while (place := self._rest.find(b"\n", searched)) < 0:
            searched = len(self._rest)
            ready, _, _ = select.select([self._out], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise Gone("it did not answer in time")
            part = os.read(self._out, CHUNK)
            if not part:
                raise Gone("the process ended")
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
