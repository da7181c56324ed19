"""What was spent: an append-only file in which every event is on disk before its release.

One JSON object a line. The first names the format and the plan; each following one is an event,
written and fsynced before the release that it pays for. A crash between the two costs one event
that bought nothing: the account is never lower than the truth and at most one round higher.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from fldp import accounting
from fldp.accounting import Event
from fldp.plan import PrivacyPlan

VERSION = 1


class Ledger:
    """An open ledger file; one writer at a time, readable by anybody.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "ledger.jsonl"
    >>> with Ledger(path) as ledger:
    ...     ledger.record(Event(noise_multiplier=4.0), round=1)
    >>> len(Ledger.read(path)), round(accounting.epsilon_of(Ledger.read(path), 1e-5), 2)
    (1, 0.93)
    """

    def __init__(self, path: str | os.PathLike[str], plan: PrivacyPlan | None = None) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b")  # noqa: SIM115 (open for the ledger's lifetime)
        try:
            _lock(self._file, self.path)
            self._recover()
            self._open(plan)
        except BaseException:
            self._file.close()
            raise

    def _recover(self) -> None:
        """Cut a torn last line off: its event was never followed by a release."""
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
            self._sync()

    def _open(self, plan: PrivacyPlan | None) -> None:
        lines = _lines(self.path)
        wanted = None if plan is None else plan.to_dict()
        if not lines:
            self._write({"ledger": VERSION, "plan": wanted})
            _sync_folder(self.path.parent)
        elif wanted is not None and lines[0].get("plan") not in (None, wanted):
            raise ValueError(
                f"{self.path} is the ledger of another plan: continue with that plan "
                "(PrivacyPlan.from_dict of its first line), or give a new path"
            )
        self._rounds = [(line["round"], Event.from_dict(line["event"])) for line in lines[1:]]

    def record(self, event: Event, round: int) -> None:
        """Put one round's event on disk; only after this may the release leave."""
        self._write({"round": round, "event": replace(event, rounds=1).to_dict()})
        self._rounds.append((round, replace(event, rounds=1)))

    @property
    def events(self) -> list[Event]:
        """Every event recorded, one a round, in order."""
        return [event for _, event in self._rounds]

    @property
    def last_round(self) -> int:
        """The highest round recorded; 0 when there is none."""
        return max((number for number, _ in self._rounds), default=0)

    def epsilon(self, delta: float, adjacency: str = "add-or-remove") -> float:
        """ε spent so far at this δ."""
        return accounting.epsilon_of(grouped(self.events), delta, adjacency) if self.events else 0.0

    def would_exceed(
        self, event: Event, epsilon: float, delta: float, adjacency: str = "add-or-remove"
    ) -> bool:
        """Whether one more such event would take the account beyond (ε, δ)."""
        with_it = grouped([*self.events, replace(event, rounds=1)])
        # A plan's own z is calibrated to the target, within the accountant's tolerance.
        return accounting.epsilon_of(with_it, delta, adjacency) > epsilon * (1 + 1e-6)

    @staticmethod
    def read(path: str | os.PathLike[str]) -> list[Event]:
        """The events in a ledger file, without opening it for writing."""
        return [Event.from_dict(line["event"]) for line in _lines(Path(path))[1:]]

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def grouped(events: Sequence[Event]) -> list[Event]:
    """Equal events counted together: the composition does not depend on their order.

    >>> [event.rounds for event in grouped([Event(1.0), Event(2.0), Event(1.0)])]
    [2, 1]
    """
    counts: dict[Event, int] = {}
    for event in events:
        key = replace(event, rounds=1)
        counts[key] = counts.get(key, 0) + event.rounds
    return [replace(event, rounds=count) for event, count in counts.items()]


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    whole = path.read_bytes()
    for number, text in enumerate(whole[: whole.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = None
        if not isinstance(line, dict):
            raise ValueError(f"{path} line {number} is damaged: a ledger is never edited by hand")
        lines.append(line)
    if lines and lines[0].get("ledger") != VERSION:
        raise ValueError(f"{path} is not a ledger of version {VERSION}: give another path")
    return lines


def _lock(file: Any, path: Path) -> None:
    """One writer: the system's own lock, which a crashed process cannot leave behind."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            raise ValueError(f"{path} has a writer already: one run, one ledger") from None
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(f"{path} has a writer already: one run, one ledger") from None


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it, on disk, when the block has succeeded."""
    temporary = path.with_name(path.name + ".new")
    yield temporary
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)
