"""What clients and server send each other, as frozen objects and as bytes.

Every message begins with its kind and the tag of its round, so that one of another round, or for
another step, is refused before anything is read from it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, TypeVar

from fldp._checks import shown
from fldp.mechanism.secagg_keys import PUBLIC_BYTES, sealed_bytes
from fldp.mechanism.secagg_rules import MOST_CLIENTS, TAG_BYTES, Rules
from fldp.mechanism.shamir import SHARE_BYTES

# Two shares of one client: of its seed, and of its key.
BOX_BYTES = sealed_bytes(2 * SHARE_BYTES)
_HEAD = struct.Struct(f">B{TAG_BYTES}s")
_ID = struct.Struct(">I")
_ENTRY = struct.Struct(f">I{SHARE_BYTES}s")
AnyMessage = TypeVar("AnyMessage", bound="RoundMessage")


@dataclass(frozen=True)
class RoundMessage:
    """What every message has.

    Parameters
    ----------
    tag : bytes
        `Rules.tag` of its round.
    """

    tag: bytes

    _kind: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check_bytes("tag", self.tag, TAG_BYTES)

    def check(self, rules: Rules) -> None:
        """ValueError unless this message belongs to a round."""
        if self.tag != rules.tag:
            raise ValueError(f"{_named(self)} is of another round, or of other rules")

    def _framed(self, *parts: bytes) -> bytes:
        return b"".join([_HEAD.pack(self._kind, self.tag), *parts])

    @classmethod
    def _body(cls, data: bytes, least: int, exactly: bool = True) -> tuple[bytes, bytes]:
        """Tag and rest of a message of this class; the rest has `least` bytes."""
        if not isinstance(data, bytes) or not data or data[0] != cls._kind:
            raise ValueError(f"{shown(data)} is no message of the kind {cls.__name__}")
        body = data[_HEAD.size :]
        if len(data) < _HEAD.size + least or (exactly and len(body) != least):
            raise ValueError(f"{len(data)} bytes are no message of the kind {cls.__name__}")
        return data[1 : _HEAD.size], body


@dataclass(frozen=True)
class PublicKeys(RoundMessage):
    """A client's two public keys, for its neighbours.

    Parameters
    ----------
    tag : bytes
        `Rules.tag` of its round.
    sender : int
        Whose they are: only the channel vouches for it.
    box : bytes
        For sealing shares, 32 bytes.
    mask : bytes
        For masks in common, 32 bytes.

    Examples
    --------
    >>> keys = PublicKeys(bytes(16), 3, bytes(32), bytes(32))
    >>> PublicKeys.from_bytes(keys.to_bytes()) == keys
    True
    """

    sender: int
    box: bytes
    mask: bytes

    _kind = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_id(self.sender)
        _check_bytes("box", self.box, PUBLIC_BYTES)
        _check_bytes("mask", self.mask, PUBLIC_BYTES)

    def to_bytes(self) -> bytes:
        """For the wire."""
        return self._framed(_ID.pack(self.sender), self.box, self.mask)

    @classmethod
    def from_bytes(cls, data: bytes) -> PublicKeys:
        """From the wire; ValueError for anything that is no such message."""
        tag, body = cls._body(data, _ID.size + 2 * PUBLIC_BYTES)
        keys = body[_ID.size :]
        return cls(tag, _number(body), keys[:PUBLIC_BYTES], keys[PUBLIC_BYTES:])


@dataclass(frozen=True)
class SealedShares(RoundMessage):
    """Shares of a client's two secrets for one neighbour, which alone can open them.

    Parameters
    ----------
    tag : bytes
        `Rules.tag` of its round.
    sender, receiver : int
        From whom and for whom; the seal is bound to both and to the round.
    box : bytes
        What is sealed.

    Examples
    --------
    >>> shares = SealedShares(bytes(16), 3, 4, bytes(94))
    >>> SealedShares.from_bytes(shares.to_bytes()) == shares
    True
    """

    sender: int
    receiver: int
    box: bytes

    _kind = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_id(self.sender)
        _check_id(self.receiver)
        _check_bytes("box", self.box, BOX_BYTES)

    @classmethod
    def context(cls, tag: bytes, sender: int, receiver: int) -> bytes:
        """What a seal is bound to: kind, round, sender and receiver."""
        return _HEAD.pack(cls._kind, tag) + _ID.pack(sender) + _ID.pack(receiver)

    def to_bytes(self) -> bytes:
        """For the wire."""
        return self.context(self.tag, self.sender, self.receiver) + self.box

    @classmethod
    def from_bytes(cls, data: bytes) -> SealedShares:
        """From the wire; ValueError for anything that is no such message."""
        tag, body = cls._body(data, 2 * _ID.size + BOX_BYTES)
        return cls(tag, _number(body), _number(body, 1), body[2 * _ID.size :])


@dataclass(frozen=True)
class Upload(RoundMessage):
    """A client's masked vector: to whoever lacks its secrets, uniformly random.

    Parameters
    ----------
    tag : bytes
        `Rules.tag` of its round.
    sender : int
        Whose it is.
    data : bytes
        The vector modulo 2^bits, without gaps (`secagg_masks.packed`).

    Examples
    --------
    >>> upload = Upload(bytes(16), 3, b"masked")
    >>> Upload.from_bytes(upload.to_bytes()) == upload
    True
    """

    sender: int
    data: bytes

    _kind = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_id(self.sender)
        if not isinstance(self.data, bytes):
            raise ValueError(f"data is {shown(self.data)}: give bytes")

    def to_bytes(self) -> bytes:
        """For the wire."""
        return self._framed(_ID.pack(self.sender), self.data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Upload:
        """From the wire; ValueError for anything that is no such message."""
        tag, body = cls._body(data, _ID.size, exactly=False)
        return cls(tag, _number(body), body[_ID.size :])


@dataclass(frozen=True)
class Request(RoundMessage):
    """The server's one question: these clients uploaded, give what unmasks their sum.

    Parameters
    ----------
    tag : bytes
        `Rules.tag` of its round.
    survivors : tuple of int
        Ascending, each once.

    Examples
    --------
    >>> request = Request(bytes(16), (0, 2, 9))
    >>> Request.from_bytes(request.to_bytes()) == request
    True
    """

    survivors: tuple[int, ...]

    _kind = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.survivors, Iterable):
            raise ValueError(f"survivors are {shown(self.survivors)}: give a tuple of numbers")
        given = tuple(self.survivors)
        for client in given:
            _check_id(client)
        if list(given) != sorted(set(given)):
            raise ValueError(f"survivors are {shown(given)}: give each once, in ascending order")
        object.__setattr__(self, "survivors", given)

    def to_bytes(self) -> bytes:
        """For the wire: a bit for each client, up to the last survivor."""
        bits = bytearray(1 + max(self.survivors, default=-8) // 8)
        for client in self.survivors:
            bits[client // 8] |= 1 << client % 8
        return self._framed(bytes(bits))

    @classmethod
    def from_bytes(cls, data: bytes) -> Request:
        """From the wire; ValueError for anything that is no such message."""
        tag, body = cls._body(data, 0, exactly=False)
        if len(body) > MOST_CLIENTS // 8 or body[-1:] == b"\0":
            raise ValueError(f"{len(data)} bytes are no message of the kind Request")
        found = []
        for place, byte in enumerate(body):
            found += [8 * place + bit for bit in range(8) if byte >> bit & 1]
        return cls(tag, tuple(found))


@dataclass(frozen=True)
class Answer(RoundMessage):
    """A client's one answer: of each neighbour one kind of share, never both.

    Parameters
    ----------
    tag : bytes
        `Rules.tag` of its round.
    sender : int
        Who answers.
    seeds : mapping
        Neighbour that uploaded, the sender among them -> its share of that one's own mask.
    keys : mapping
        Neighbour that dropped out -> its share of that one's mask key.

    Examples
    --------
    >>> answer = Answer(bytes(16), 3, {3: bytes(33)}, {5: bytes(33)})
    >>> Answer.from_bytes(answer.to_bytes()) == answer
    True
    >>> Answer(bytes(16), 3, {5: bytes(33)}, {5: bytes(33)})
    Traceback (most recent call last):
    ValueError: both kinds of share of client 5: together they would unmask its vector
    """

    sender: int
    seeds: Mapping[int, bytes]
    keys: Mapping[int, bytes]

    _kind = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_id(self.sender)
        for name in ("seeds", "keys"):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                raise ValueError(f"{name} are {shown(given)}: give a mapping, client -> share")
            shares = dict(given)
            for client, share in shares.items():
                _check_id(client)
                _check_bytes(f"the share of client {client}", share, SHARE_BYTES)
            object.__setattr__(self, name, MappingProxyType(dict(sorted(shares.items()))))
        both = self.seeds.keys() & self.keys.keys()
        if both:
            raise ValueError(
                f"both kinds of share of client {min(both)}: together they would unmask its vector"
            )

    def to_bytes(self) -> bytes:
        """For the wire."""
        head = _ID.pack(self.sender) + _ID.pack(len(self.seeds))
        entries = [_ENTRY.pack(*entry) for entry in (*self.seeds.items(), *self.keys.items())]
        return self._framed(head, *entries)

    @classmethod
    def from_bytes(cls, data: bytes) -> Answer:
        """From the wire; ValueError for anything that is no such message."""
        tag, body = cls._body(data, 2 * _ID.size, exactly=False)
        seeds = _number(body, 1)
        listed = body[2 * _ID.size :]
        if len(listed) % _ENTRY.size or seeds > len(listed) // _ENTRY.size:
            raise ValueError(f"{len(data)} bytes are no message of the kind Answer")
        entries = list(_ENTRY.iter_unpack(listed))
        return cls(tag, _number(body), _once(entries[:seeds]), _once(entries[seeds:]))


def _number(body: bytes, place: int = 0) -> int:
    """The first number of four bytes, or a later one."""
    (found,) = _ID.unpack_from(body, place * _ID.size)
    return int(found)


def _once(entries: list[tuple[int, bytes]]) -> dict[int, bytes]:
    clients = [client for client, _ in entries]
    if clients != sorted(set(clients)):
        raise ValueError(f"shares of {shown(clients)}: there is one of each, in ascending order")
    return dict(entries)


def _named(message: RoundMessage) -> str:
    """A message, in words."""
    sender = getattr(message, "sender", None)
    whose = "the server's" if sender is None else f"client {sender}'s"
    return f"{whose} {type(message).__name__}"


def _check_id(client: int) -> None:
    is_number = isinstance(client, int) and not isinstance(client, bool)
    if not is_number or not 0 <= client < MOST_CLIENTS:
        raise ValueError(f"a client's number is {shown(client)}: give a whole number from 0")


def _check_bytes(name: str, value: bytes, length: int) -> None:
    if not isinstance(value, bytes) or len(value) != length:
        raise ValueError(f"{name} is {shown(value)}: give {length} bytes")


def collected(
    messages: Iterable[AnyMessage], kind: type[AnyMessage], rules: Rules
) -> dict[int, AnyMessage]:
    """Messages of one kind by their senders.

    Parameters
    ----------
    messages : iterable
        From anyone.
    kind : type
        What each must be.
    rules : Rules
        Of the round.

    Returns
    -------
    dict
        Sender -> message.

    Raises
    ------
    ValueError
        For another kind, another round, a sender that is none of the round, or one twice.

    Examples
    --------
    >>> collected([], Upload, Rules(3, 1, 16, min_survivors=2, colluders=0))
    {}
    """
    found: dict[int, AnyMessage] = {}
    for sender, message in with_senders(messages, kind, rules):
        if sender in found:
            raise ValueError(f"two messages of client {sender}: there is one")
        found[sender] = message
    return found


def with_senders(
    messages: Iterable[AnyMessage], kind: type[AnyMessage], rules: Rules
) -> Iterator[tuple[int, AnyMessage]]:
    """As `collected`, each with its sender, which may have sent several."""
    if not isinstance(messages, Iterable):
        raise ValueError(f"{shown(messages)} are no messages: give those of kind {kind.__name__}")
    for message in messages:
        if not isinstance(message, kind):
            raise ValueError(f"{shown(message)} is no message of the kind {kind.__name__}")
        message.check(rules)
        yield rules.check_client(getattr(message, "sender", -1)), message
