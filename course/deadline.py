"""Time that a process may take. On a busy machine it gets as much of it as on an idle one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

# However long others run, a limit ends after so many times its seconds. A submission that starts
# processes of its own to wait for gains no more than that.
PATIENCE = 10.0
NANOSECONDS = 1e-9


def queued(pid: int | None) -> float:
    """For how many seconds a process was ready to run while others ran; 0 where nobody tells.

    Parameters
    ----------
    pid : int or None
        The process; None for one that is not known.
    """
    if pid is None:
        return 0.0
    try:
        # Time on a processor, time in the queue for one, and turns.
        fields = Path(f"/proc/{pid}/schedstat").read_text().split()
        return int(fields[1]) * NANOSECONDS
    except (OSError, ValueError, IndexError):
        return 0.0


class Deadline:
    """So many seconds for a process, those excepted in which others kept it from running.

    Parameters
    ----------
    seconds : float
        The limit; 0 or less is over at once.
    pid : int, optional
        The process; default: every second counts.
    """

    def __init__(self, seconds: float, pid: int | None = None) -> None:
        self._seconds = seconds
        self._pid = pid
        self._queued = queued(pid)
        self._began = time.monotonic()

    def used(self) -> float:
        """The seconds that count."""
        gone = time.monotonic() - self._began
        excused = max(0.0, queued(self._pid) - self._queued)
        return max(gone / PATIENCE, gone - excused)

    def left(self) -> float:
        """What is left of the limit, not below 0."""
        return max(0.0, self._seconds - self.used())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time in which somebody else is at work does not count."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._began += time.monotonic() - began
