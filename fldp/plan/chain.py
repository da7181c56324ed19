"""The lines of a ledger file: what they say, and how an edit shows.

Every line is one JSON object that ends in its own SHA-256 and, from the second on, carries that
of the line before as `previous`. Line 1 names the format, the version of the library and the plan.
An edited, inserted, removed or reordered line breaks the chain. Lines cut off the end do not: who
wants to notice that keeps the head (`Ledger.head`), the count and hash of the last line, somewhere
else.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fldp import __version__
from fldp._checks import shown
from fldp.accounting.events import AnyEvent, event_from_dict
from fldp.plan.client import PrivacyPlan

# Version 1 had no hashes.
VERSION = 2
# Line 1 of every version begins so: by this a torn first line is known to be ours.
MAGIC = b'{"ledger":'
_BEGINNING = b'{"round":'
# The fields of a line in their order, which is part of what is hashed.
_ENTRY = ("round", "label", "event", "previous")
_HEADER = ("ledger", "fldp", "plan")


@dataclass(frozen=True)
class Entry:
    """One recorded event.

    Parameters
    ----------
    event
        What the accountant composes.
    label
        What was released, in words: a summary groups by it.
    round
        The number of the round that it paid for; None: it was no round.

    Examples
    --------
    >>> from fldp.accounting import Event
    >>> Entry(Event(4.0), "mean age").round is None
    True
    """

    event: AnyEvent
    label: str = "training"
    round: int | None = None


@dataclass
class Content:
    """A ledger file as read.

    Parameters
    ----------
    plan
        That of line 1; None: it names none.
    entries
        In the order of their lines.
    hashes
        That of line 1, then one of each entry; empty: there is no line yet.
    size
        The length in bytes of the lines that count.
    torn
        What follows them, cut off by a crash.
    unfinished
        Whether the last of the lines that count lacks its newline.
    """

    plan: PrivacyPlan | None = None
    entries: list[Entry] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    size: int = 0
    torn: bytes = b""
    unfinished: bool = False


def seal(fields: dict[str, Any]) -> tuple[bytes, str]:
    """A line, and the hash in it: SHA-256 of the JSON text of `fields`.

    Parameters
    ----------
    fields
        What the line says, ready for JSON, in the order in which it is written.

    Returns
    -------
    tuple
        The bytes without a newline, and the hash as 64 hexadecimal digits.

    Examples
    --------
    >>> line, digest = seal({"a": 1})
    >>> json.loads(line)["hash"] == digest == hashlib.sha256(b'{"a": 1}').hexdigest()
    True
    """
    digest = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
    return json.dumps(fields | {"hash": digest}).encode(), digest


def header(plan: PrivacyPlan | None) -> dict[str, Any]:
    """The fields of line 1.

    Parameters
    ----------
    plan
        Whose rounds follow; None: a ledger without a plan.

    Returns
    -------
    dict
        For `seal`.
    """
    return {
        "ledger": VERSION,
        "fldp": __version__,
        "plan": None if plan is None else plan.to_dict(),
    }


def line(entry: Entry, previous: str) -> dict[str, Any]:
    """The fields of an entry's line.

    Parameters
    ----------
    entry
        What the line says.
    previous
        The hash of the line before it.

    Returns
    -------
    dict
        For `seal`.
    """
    return {
        "round": entry.round,
        "label": entry.label,
        "event": entry.event.to_dict(),
        "previous": previous,
    }


def path_of(path: str | os.PathLike[str], kind: str = "ledger") -> Path:
    """`path` as a Path.

    Parameters
    ----------
    path
        What a caller gave.
    kind
        Of what file, for the message.

    Returns
    -------
    Path
        It need not exist.

    Raises
    ------
    ValueError
        For what can name no file.
    """
    try:
        found = Path(path)
        os.fsencode(found)  # a name that the file system cannot spell raises here
        usable = "\0" not in str(found)
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise ValueError(f"path is {shown(path)}: give the path of a {kind} file")
    return found


def raw(path: Path) -> bytes:
    """A file's bytes.

    Parameters
    ----------
    path
        Of a ledger file.

    Returns
    -------
    bytes
        All of them.

    Raises
    ------
    ValueError
        In words, when there are none to read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror or error}): give the path of a ledger file"
        ) from None


def parse(content: bytes, path: Path) -> Content:
    """The entries of a ledger file's bytes, every hash checked; nothing at all is an empty ledger.

    A last line without a newline was cut by a crash before `record` returned: complete, it counts;
    incomplete, it is `torn`.

    Parameters
    ----------
    content
        All bytes of the file.
    path
        Its name, for messages.

    Returns
    -------
    Content
        Only what the chain proves.

    Raises
    ------
    ValueError
        The file is not a ledger, or one of another version, or one that somebody changed.

    Examples
    --------
    >>> first, digest = seal(header(None))
    >>> parse(first + b"\\n", Path("ledger.jsonl")).hashes == [digest]
    True
    """
    found = Content()
    *raws, rest = content.split(b"\n")
    if not content:
        return found
    if not raws and not rest.startswith(MAGIC):
        raise _foreign(path)
    if _object(rest):
        # Complete JSON was not cut off: it is checked like any other line.
        raws.append(rest)
        rest = b""
        found.unfinished = True
    for number, raw in enumerate(raws, start=1):
        fields, digest = _checked(raw, number, path)
        if number == 1:
            found.plan = _plan(fields, path)
        else:
            found.entries.append(_entry(fields, found.hashes[-1], number, path))
        found.hashes.append(digest)
        found.size += len(raw) + 1
    if found.unfinished:
        found.size -= 1  # of the newline that is not there
    # A crash leaves the beginning of a line; anything else behind the last newline was put there.
    if raws and not _is_torn(rest):
        raise _damaged(path, len(raws) + 1)
    found.torn = rest
    return found


def old_events(content: bytes, path: Path) -> list[AnyEvent] | None:
    """The events of a ledger of version 1, which had no chain.

    Parameters
    ----------
    content
        All bytes of the file.
    path
        Its name, for messages.

    Returns
    -------
    list of events, or None
        None: it is another file.

    Raises
    ------
    ValueError
        A line of it is damaged.
    """
    raws = content.split(b"\n")[:-1]
    if not raws or _object(raws[0]).get("ledger") != 1:
        return None
    events: list[AnyEvent] = []
    for number, raw in enumerate(raws[1:], start=2):
        fields = _object(raw)
        try:
            events.append(event_from_dict(fields["event"]))
        except (KeyError, TypeError, ValueError):
            raise _damaged(path, number) from None
    return events


def _object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`; empty when there is none."""
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):  # ValueError: not JSON, or not UTF-8
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_torn(rest: bytes) -> bool:
    """Whether `rest` can be the beginning of an entry's line; a power cut may leave NULs in it."""
    begun = rest.rstrip(b"\0")
    return begun.startswith(_BEGINNING) or _BEGINNING.startswith(begun)


def _checked(raw: bytes, number: int, path: Path) -> tuple[dict[str, Any], str]:
    """The fields of a line, which is byte for byte as `seal` makes it, and its hash."""
    fields = _object(raw)
    if number == 1 and "ledger" not in fields:
        raise _foreign(path)
    if number == 1 and fields["ledger"] != VERSION:
        raise _other_version(path, fields["ledger"])
    # Made anew from what it says, the line must be what it is, its hash and every space included.
    fields.pop("hash", None)
    sealed, digest = seal(fields)
    if sealed != raw or tuple(fields) != (_HEADER if number == 1 else _ENTRY):
        raise _damaged(path, number)
    return fields, digest


def _plan(fields: dict[str, Any], path: Path) -> PrivacyPlan | None:
    if fields["plan"] is None:
        return None
    try:
        return PrivacyPlan.from_dict(fields["plan"])
    except ValueError as error:
        raise ValueError(
            f"{path} was written by fldp {fields['fldp']}, whose plan this version ({__version__}) "
            f"does not accept: {error}"
        ) from None


def _entry(fields: dict[str, Any], previous: str, number: int, path: Path) -> Entry:
    if fields["previous"] != previous:
        raise ValueError(
            f"{path} line {number} does not follow the line before it: lines were removed, "
            "inserted or moved; what was spent is not known from this file"
        )
    # The hash is right, so this is no accident: another program wrote the line.
    known = isinstance(fields["round"], int | None)
    if not (known and isinstance(fields["label"], str) and isinstance(fields["event"], dict)):
        raise _damaged(path, number)
    try:
        event = event_from_dict(fields["event"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} line {number} holds an event that fldp {__version__} does not know "
            f"({error}): open it with the version named in line 1"
        ) from None
    return Entry(event, fields["label"], fields["round"])


def _foreign(path: Path) -> ValueError:
    return ValueError(
        f"{path} is not a ledger (no complete first line of one): it was left as it is; give "
        "another path"
    )


def _other_version(path: Path, version: object) -> ValueError:
    if version == 1:
        return ValueError(
            f"{path} is a ledger of version 1, whose lines are not chained: start a new one at "
            "another path and carry over what was spent, for event in Ledger.read(old): "
            "new.record(event, label='version 1')"
        )
    return ValueError(
        f"{path} is a ledger of version {version!r}, this is version {VERSION}: use the fldp that "
        "wrote it, or give another path"
    )


def _damaged(path: Path, number: int) -> ValueError:
    return ValueError(
        f"{path} line {number} is damaged: it is not as fldp wrote it (a ledger is never edited by "
        "hand); restore a copy of the file, or take its budget as spent"
    )
