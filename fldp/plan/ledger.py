"""What was spent: an append-only file in which every event is on disk before its release.

A line is written and fsynced before the release that it pays for. A crash between the two costs one
event that bought nothing: the account is never lower than the truth and at most one round higher.
Lines are chained by hashes (see `chain`), so that accidents and edits show.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import threading
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from fldp import accounting
from fldp._checks import between, shown, whole
from fldp._text import Rows
from fldp.accounting.events import AnyEvent, Filtered, RoundEvent, by_run, checked
from fldp.plan import chain
from fldp.plan.attendance import grouped
from fldp.plan.chain import Entry
from fldp.plan.client import PrivacyPlan
from fldp.plan.files import atomic, lock, sync_folder
from fldp.plan.statement import TOLERANCE

__all__ = ["Entry", "Ledger", "atomic", "grouped"]


class Ledger:
    """The privacy account of one population, in a file; one writer at a time, readable by anybody.

    Guarantee: what `record` returned from is on disk, and `epsilon` composes all of it. A file that
    was cut inside, edited, reordered, replaced or deleted while open, or that is no ledger, is
    refused with a sentence and left as it is. A last line that a crash cut off is moved to
    `<path>.torn` and named in a warning: its release never left.

    Whole lines cut off the end, or a last line and its hash made anew, leave a chain that is
    intact: they show where the `head` was kept elsewhere, as a checkpoint does, and `check(head)`
    is asked. A ledger shows accidents and edits. It is no proof against an owner who rewrites both
    the ledger and the place where its head is kept.

    Releases of different kinds go into one ledger (training, the histogram of a column, a figure
    of a validation) under labels, and compose to one (ε, δ) for the population.

    Parameters
    ----------
    path
        The file; it and its folder are made where they do not exist.
    plan
        The plan whose rounds are recorded. A new ledger keeps it in line 1, and an old one must
        have the same there or none. Its δ and adjacency are the defaults of `epsilon`.
    lock
        False for a file system without file locks, where you make sure yourself that one process
        writes at a time.

    Raises
    ------
    ValueError
        The file is somebody else's, damaged, of another version or plan, or has a writer already;
        or the file system has no locks.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "ledger.jsonl"
    >>> with Ledger(path) as ledger:
    ...     ledger.record(accounting.Event(noise_multiplier=4.0), round=1)
    ...     ledger.record(accounting.Event(noise_multiplier=10.0), label="mean age")
    ...     round(ledger.epsilon(delta=1e-5, adjacency="add-or-remove"), 2)
    1.0
    >>> len(Ledger.read(path))
    2
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        plan: PrivacyPlan | None = None,
        *,
        lock: bool = True,
    ) -> None:
        self.path = chain.path_of(path)
        if plan is not None and not isinstance(plan, PrivacyPlan):
            raise ValueError(f"plan is {shown(plan)}: give a PrivacyPlan, or None")
        self.plan = plan
        self._entries: list[Entry] = []
        # The first event of each run of correlated noise: others of its name are as it is.
        self._runs: dict[str | Filtered, Filtered] = {}
        self._hashes: list[str] = []
        self._size = 0
        # Why nothing can be written any more; empty while all is well.
        self._broken = ""
        # A fork has the same open file and the same lock, and would write to it unseen.
        self._process = os.getpid()
        # Who asks what is left, and then records, holds it all the while.
        self.one_at_a_time = threading.RLock()
        self._file = _opened(self.path)
        try:
            self._claim(lock)
            self._load(plan)
        except BaseException:
            self.close()
            raise

    def _claim(self, locked: bool) -> None:
        if locked:
            lock(self._file, self.path)
        else:
            warnings.warn(
                f"{self.path} is not locked: nothing but you keeps a second process from writing",
                UserWarning,
                stacklevel=4,
            )

    def _load(self, plan: PrivacyPlan | None) -> None:
        self._file.seek(0)
        found = chain.parse(self._file.read(), self.path)
        if plan is not None and found.plan not in (None, plan):
            raise ValueError(
                f"{self.path} is the ledger of another plan: continue with that plan (Ledger(path)"
                ".plan), or give a new path"
            )
        # Only from here on is the file known to be ours.
        if found.torn:
            self._set_aside(found)
        self._entries = found.entries
        self._hashes = found.hashes
        self._size = found.size
        if found.unfinished:
            self._append(b"\n")
        if found.plan is not None:
            self.plan = found.plan
        for event in self.events:
            no_amplification(event, self.plan)
            if isinstance(event, Filtered):
                self._runs.setdefault(_name(event), event)
        if not self._hashes:
            self._write(chain.header(plan))
            sync_folder(self.path.parent)

    def _set_aside(self, found: chain.Content) -> None:
        """Move a torn last line to `<path>.torn`: on disk there before it is cut off here."""
        beside = self.path.with_name(self.path.name + ".torn")
        try:
            with open(beside, "ab") as file:
                file.write(found.torn + b"\n")
                file.flush()
                os.fsync(file.fileno())
            self._file.truncate(found.size)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ValueError(
                f"{self.path} has a last line that a crash cut off, which cannot be moved to "
                f"{beside} ({error.strerror or error}): make room for it there"
            ) from None
        warnings.warn(
            f"the last line of {self.path} was cut off by a crash, before its release could leave; "
            f"it is kept in {beside}",
            UserWarning,
            stacklevel=4,
        )

    def record(self, event: AnyEvent, round: int | None = None, label: str = "training") -> None:
        """Put an event on disk; only after this may the release that it pays for leave.

        Parameters
        ----------
        event
            An `Event`, `Laplace`, `Approximate` or `Concentrated` of `fldp.accounting`; it counts
            as many rounds as it says. All but an `Event` hold in one adjacency: that of the plan,
            or, in a ledger without one, that in which `epsilon` is asked.
        round
            The number of the round that it pays for; None for a release that is not a round.
        label
            What was released, in words: `summary` groups by it.

        Raises
        ------
        ValueError
            The event could not be put on disk, or has no account beside the others: nothing may be
            released.

        Examples
        --------
        >>> import tempfile
        >>> with Ledger(Path(tempfile.mkdtemp()) / "ledger.jsonl") as ledger:
        ...     ledger.record(accounting.Event(noise_multiplier=4.0), round=1)
        ...     ledger.head["count"]
        1
        """
        checked([event])
        no_amplification(event, self.plan)
        if round is not None:
            round = whole("round", round, 0)
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label is {label!r}: say in words what is released")
        entry = Entry(event, label, round)
        # Two threads must not chain their lines to the same one.
        with self.one_at_a_time:
            self._check_run(event)
            self._write(chain.line(entry, self._hashes[-1]))
            self._entries.append(entry)

    def _check_run(self, event: AnyEvent) -> None:
        """Refuse what would leave the ledger without an account, which nobody could take back."""
        if isinstance(event, Filtered):
            first = self._runs.setdefault(_name(event), event)
            if first is not event:
                by_run([first, event])

    @property
    def entries(self) -> list[Entry]:
        """Everything recorded, in order: `event`, `label` and `round` of each."""
        return list(self._entries)

    @property
    def events(self) -> list[AnyEvent]:
        """The events of `entries`."""
        return [entry.event for entry in self._entries]

    @property
    def head(self) -> dict[str, int | str]:
        """How many entries there are (`count`) and the `hash` of the last line; for `check`."""
        return {"count": len(self._entries), "hash": self._hashes[-1]}

    def check(self, head: Mapping[str, object]) -> None:
        """That this ledger still begins with exactly the lines it had when `head` was taken.

        Parameters
        ----------
        head
            What `ledger.head` was, kept elsewhere.

        Raises
        ------
        ValueError
            It is shorter, or another line stands in the place of one of them.

        Examples
        --------
        >>> import tempfile
        >>> with Ledger(Path(tempfile.mkdtemp()) / "ledger.jsonl") as ledger:
        ...     head = ledger.head
        ...     ledger.record(accounting.Event(noise_multiplier=4.0))
        ...     ledger.check(head)
        """
        if not isinstance(head, dict) or set(head) != {"count", "hash"}:
            raise ValueError(f"head is {head!r}: give what ledger.head was")
        count = whole("the head's count", head["count"], 0)
        # Each hash seals all lines before it: one comparison covers them.
        if count > len(self._entries):
            raise ValueError(
                f"{self.path} has {len(self._entries)} entries where it had {count}: lines were "
                "cut off its end, and what was spent is not known from it; restore a copy of it"
            )
        if self._hashes[count] != head["hash"]:
            raise ValueError(
                f"{self.path} is not the ledger that was left behind: its first {count} entries "
                "are others; restore that file, or give another path for another run"
            )

    def epsilon(self, delta: float | None = None, adjacency: str | None = None) -> float:
        """ε of everything recorded, an upper bound; by default at the plan's δ and adjacency.

        Parameters
        ----------
        delta, adjacency
            None: the plan's; needed where the ledger has no plan. Under distributed and local trust
            "add-or-remove" is refused: who took part is known there.

        Returns
        -------
        float
            By our own accountant, whatever the plan's; 0 of nothing.

        Raises
        ------
        ValueError
            Where delta or adjacency is wanted, and for one in which what was recorded has no
            account.

        Examples
        --------
        >>> import tempfile
        >>> with Ledger(Path(tempfile.mkdtemp()) / "ledger.jsonl") as ledger:
        ...     ledger.record(accounting.Event(noise_multiplier=4.0))
        ...     round(ledger.epsilon(delta=1e-5, adjacency="zero-out"), 2)
        0.93
        """
        return self._epsilon(self.events, *self._question(delta, adjacency))

    def would_exceed(
        self,
        event: AnyEvent,
        epsilon: float | None = None,
        delta: float | None = None,
        adjacency: str | None = None,
    ) -> bool:
        """Whether `event` on top would take the account beyond (ε, δ); by default the plan's.

        The account is that of a list of events fixed beforehand, and perhaps cut short. It is not
        proved for events whose noise or sampling is chosen by looking at earlier releases.

        Parameters
        ----------
        event
            What is about to be released.
        epsilon, delta, adjacency
            None: the plan's; needed where the ledger has no plan.

        Returns
        -------
        bool
            True: it must not be released.

        Raises
        ------
        ValueError
            As `record` for the event, and as `epsilon`.

        Examples
        --------
        >>> import tempfile
        >>> with Ledger(Path(tempfile.mkdtemp()) / "ledger.jsonl") as ledger:
        ...     ledger.would_exceed(accounting.Event(0.1), epsilon=1.0, delta=1e-5,
        ...                         adjacency="zero-out")
        True
        """
        if epsilon is None:
            if self.plan is None:
                raise ValueError("this ledger has no plan: give epsilon")
            epsilon = self.plan.target_epsilon
        epsilon = between("epsilon", epsilon, math.inf)
        no_amplification(event, self.plan)
        with_it = [*self.events, *checked([event])]
        return self._epsilon(with_it, *self._question(delta, adjacency)) > epsilon * (1 + TOLERANCE)

    def summary(self, delta: float | None = None, adjacency: str | None = None) -> Rows:
        """A table: for each label the entries, their rounds and ε alone, then all of them together.

        The last line's ε is less than the sum of the others: composition is not addition.

        Parameters
        ----------
        delta, adjacency
            As in `epsilon`.

        Returns
        -------
        Rows
            Of label, entries, rounds, epsilon and delta; it prints as a table, ε and δ rounded up.

        Raises
        ------
        ValueError
            As `epsilon`.

        Examples
        --------
        >>> import tempfile
        >>> with Ledger(Path(tempfile.mkdtemp()) / "ledger.jsonl") as ledger:
        ...     ledger.record(accounting.Event(noise_multiplier=4.0))
        ...     rows = ledger.summary(delta=1e-5, adjacency="zero-out")
        >>> [(row["label"], row["rounds"]) for row in rows]
        [('training', 1), ('all together', 1)]
        """
        delta, adjacency = self._question(delta, adjacency)
        labelled: dict[str, list[AnyEvent]] = {}
        for entry in self._entries:
            labelled.setdefault(entry.label, []).append(entry.event)
        return Rows(
            {
                "label": label,
                "entries": len(events),
                "rounds": sum(event.rounds for event in events),
                "epsilon": self._epsilon(events, delta, adjacency),
                "delta": delta,
            }
            # A label of the user's own may read the same, and is another line.
            for label, events in [*labelled.items(), ("all together", self.events)]
        )

    def _question(self, delta: float | None, adjacency: str | None) -> tuple[float, str]:
        if self.plan is None:
            if delta is None or adjacency is None:
                raise ValueError(
                    "this ledger has no plan: give delta and adjacency ('add-or-remove', "
                    "'zero-out' or 'replace-one')"
                )
            return delta, adjacency
        if delta is None:
            delta = self.plan.delta
        if adjacency is None:
            adjacency = self.plan.adjacency
        if adjacency != self.plan.adjacency:
            self._other_adjacency(adjacency, self.plan)
        return delta, adjacency

    def _other_adjacency(self, adjacency: str, plan: PrivacyPlan) -> None:
        """ValueError unless what was recorded under `plan` has an account in another adjacency."""
        if adjacency == "add-or-remove" and plan.trust != "central":
            raise ValueError(
                f"adjacency is 'add-or-remove' and the plan's trust {plan.trust!r}: who took part "
                "is known there; ask for 'zero-out' or 'replace-one'"
            )
        # Only Gaussian noise knows its sensitivity in every adjacency.
        for event in self.events:
            if not isinstance(event, RoundEvent):
                raise ValueError(
                    f"adjacency is {adjacency!r}: {event!r} was recorded as it holds under the "
                    f"plan's {plan.adjacency!r}, and its account in another is not known"
                )

    def _epsilon(self, events: list[AnyEvent], delta: float, adjacency: str) -> float:
        """By our own accountant, whatever the plan's: its answer is a bound for every event."""
        if self.plan is None:
            return accounting.epsilon_of(grouped(events), delta, adjacency)
        return self.plan.spent(events, delta, adjacency, accountant="pld")

    @staticmethod
    def read(path: str | os.PathLike[str]) -> list[AnyEvent]:
        """The events in a ledger file, without opening it for writing; also those of version 1.

        Parameters
        ----------
        path
            The file; another process may be writing it.

        Returns
        -------
        list of events
            In the order in which they were recorded.

        Raises
        ------
        ValueError
            For a file that is no ledger, or whose chain is broken.

        Examples
        --------
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "ledger.jsonl"
        >>> with Ledger(path) as ledger:
        ...     ledger.record(accounting.Event(noise_multiplier=4.0))
        >>> [event.noise_multiplier for event in Ledger.read(path)]
        [4.0]
        """
        path = chain.path_of(path)
        content = chain.raw(path)
        old = chain.old_events(content, path)
        if old is not None:
            return old
        return [entry.event for entry in chain.parse(content, path).entries]

    def _write(self, fields: dict[str, Any]) -> None:
        line, digest = chain.seal(fields)
        self._append(line + b"\n")
        self._hashes.append(digest)

    def _append(self, content: bytes) -> None:
        """Bytes at the end of the file and on disk; else a ValueError, now and ever after."""
        self._still_ours()
        # Until it is on disk nobody knows what is there: a failure is for good.
        self._broken = "an earlier write failed"
        try:
            self._file.write(content)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ValueError(
                f"{self.path} cannot be written ({error.strerror or error}): nothing may be "
                "released; make room or mend the disk, and open the ledger again"
            ) from None
        self._size += len(content)
        self._broken = ""

    def _still_ours(self) -> None:
        """ValueError unless this process still writes the file that stands at the path."""
        problem = self._broken
        if self._file.closed:
            problem = "it is closed"
        elif os.getpid() != self._process:
            problem = "another process opened it, and this one is a copy (a fork) of that"
        elif not problem:
            problem = self._moved()
        if problem:
            raise ValueError(
                f"{self.path} takes no more entries: {problem}; nothing may be released. Open the "
                "ledger again"
            )

    def _moved(self) -> str:
        # A lock is one on the file, not on its name, which may have come to stand for another.
        here = os.fstat(self._file.fileno())
        try:
            there = os.stat(self.path)
        except OSError:
            return "the file was deleted or moved while it was open"
        if not os.path.samestat(here, there):
            return "another file was put in its place while it was open"
        if here.st_size != self._size:
            return "somebody else changed it while it was open"
        return ""

    def close(self) -> None:
        """Close the file and let the next writer in."""
        # Closing writes once more what an earlier write could not: that failure was told then.
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def no_amplification(event: AnyEvent, plan: PrivacyPlan | None) -> None:
    """Refuse an event that counts on secret draws under a plan that has none.

    Parameters
    ----------
    event
        What is to be recorded, or was.
    plan
        Under which it ran; None: nobody knows, and nothing is refused.

    Raises
    ------
    ValueError
        For amplification by draws that are seen.
    """
    secret = isinstance(event, RoundEvent) and event.sampling != "none" and not event.known
    if secret and plan is not None and plan.trust != "central":
        raise ValueError(
            f"{event!r} is amplified by draws that nobody sees, and the plan's trust is "
            f"{plan.trust!r}, where they are seen: record plan.event, or another with known=True"
        )


def _name(event: Filtered) -> str | Filtered:
    """By what rounds of one run are known: its name, or, without one, all that they share."""
    return event.run or replace(event, rounds=1)


def _opened(path: Path) -> BinaryIO:
    """The file at `path`, made if need be, for reading and appending."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(f"{path} is not a regular file: give the path of a ledger")
        # Appending: whatever else goes wrong, no byte that is there is written over.
        return open(path, "a+b")
    except OSError as error:
        raise ValueError(
            f"{path} cannot be opened for writing ({error.strerror or error}): give another path"
        ) from None
