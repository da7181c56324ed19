"""Messages cross the wire whole, and hostile bytes are refused with one sentence."""

from __future__ import annotations

import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from fldp.mechanism.secagg_messages import (
    BOX_BYTES,
    Answer,
    PublicKeys,
    Request,
    RoundMessage,
    SealedShares,
    Upload,
    collected,
)
from fldp.mechanism.secagg_rules import MOST_CLIENTS, Rules

KINDS = (PublicKeys, SealedShares, Upload, Request, Answer)
TAG = bytes(range(16))
SHARE = bytes(range(33))


def is_read_or_refused(kind: type, data: bytes) -> bool:
    """Whether bytes are read to the last one, or refused with a sentence; another error is one."""
    try:
        read = kind.from_bytes(data)  # type: ignore[attr-defined]
    except ValueError as error:
        return bool(str(error)) and "\n" not in str(error)
    return bool(read.to_bytes() == data)


def sent() -> list[RoundMessage]:
    """One of each kind."""
    return [
        PublicKeys(TAG, 3, bytes(32), b"\xff" * 32),
        SealedShares(TAG, 3, 4, bytes(BOX_BYTES)),
        Upload(TAG, 3, b"anything"),
        Request(TAG, (0, 7, 8, 300)),
        Answer(TAG, 3, {3: SHARE, 1: SHARE}, {2: SHARE}),
    ]


@pytest.mark.parametrize("message", sent(), ids=lambda message: type(message).__name__)
def test_a_message_crosses_whole(message: RoundMessage) -> None:
    data = message.to_bytes()  # type: ignore[attr-defined]
    assert type(message).from_bytes(data) == message  # type: ignore[attr-defined]
    assert data[1:17] == TAG


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_another_kind_is_refused(kind: type) -> None:
    for message in sent():
        if type(message) is not kind:
            with pytest.raises(ValueError, match=f"no message of the kind {kind.__name__}"):
                kind.from_bytes(message.to_bytes())  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [None, "text", b"", bytes(200), 7, bytearray(50), [1]])
def test_what_is_no_message_is_refused(kind: type, data: object) -> None:
    with pytest.raises(ValueError, match=f"no message of the kind {kind.__name__}"):
        kind.from_bytes(data)  # type: ignore[attr-defined]


@pytest.mark.parametrize("message", sent(), ids=lambda message: type(message).__name__)
@settings(max_examples=examples(40))
@given(st.data())
def test_changed_bytes_are_a_message_or_a_sentence(
    message: RoundMessage, data: st.DataObject
) -> None:
    """What is read is exactly what was written: no bytes are overlooked."""
    changed = bytearray(message.to_bytes())  # type: ignore[attr-defined]
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(changed) + 2))
    hostile = bytes(changed[:length]).ljust(length, b"\0")
    assert is_read_or_refused(type(message), hostile)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(30))
@given(st.binary(max_size=300))
def test_hostile_bytes_are_a_message_or_a_sentence(kind: type, body: bytes) -> None:
    hostile = bytes([kind._kind]) + body  # type: ignore[attr-defined]
    assert is_read_or_refused(kind, hostile)


def test_a_request_that_names_more_clients_than_there_can_be_is_refused() -> None:
    last = Request(TAG, (MOST_CLIENTS - 1,)).to_bytes()
    assert Request.from_bytes(last).survivors == (MOST_CLIENTS - 1,)
    with pytest.raises(ValueError, match="no message of the kind Request"):
        Request.from_bytes(last + b"\1")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PublicKeys(bytes(15), 3, bytes(32), bytes(32)), "tag is .*: give 16 bytes"),
        (lambda: PublicKeys(TAG, 3, bytes(31), bytes(32)), "box is .*: give 32 bytes"),
        (lambda: PublicKeys(TAG, 3, bytes(32), "m" * 32), "mask is .*: give 32 bytes"),
        (lambda: PublicKeys(TAG, -1, bytes(32), bytes(32)), "number is -1"),
        (lambda: PublicKeys(TAG, True, bytes(32), bytes(32)), "number is True"),
        (lambda: SealedShares(TAG, 1, 2, bytes(10)), f"box is .*: give {BOX_BYTES} bytes"),
        (lambda: SealedShares(TAG, 1, None, bytes(BOX_BYTES)), "number is None"),
        (lambda: Upload(TAG, 1, [1, 2]), "data is .*: give bytes"),
        (lambda: Request(TAG, (1, 1)), "each once, in ascending order"),
        (lambda: Request(TAG, (2, 1)), "each once, in ascending order"),
        (lambda: Request(TAG, ("1",)), "number is '1'"),
        (lambda: Request(TAG, None), "survivors are None"),
        (lambda: Answer(TAG, 1, {2: SHARE}, {2: SHARE}), "both kinds of share of client 2"),
        (lambda: Answer(TAG, 1, {2: b""}, {}), "the share of client 2 is b''"),
        (lambda: Answer(TAG, 1, {2: SHARE, "3": SHARE}, {}), "number is '3'"),
        (lambda: Answer(TAG, 1, {}, [2]), r"keys are \[2\]: give a mapping"),
    ],
)
def test_a_message_that_cannot_be_is_refused(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=says):
        make()


def test_an_answer_with_both_kinds_of_share_is_refused_on_arrival() -> None:
    entry = (2).to_bytes(4, "big") + SHARE
    head = Answer(TAG, 1, {}, {}).to_bytes()[:-4]
    with pytest.raises(ValueError, match="both kinds of share of client 2"):
        Answer.from_bytes(head + (1).to_bytes(4, "big") + entry + entry)
    with pytest.raises(ValueError, match="one of each, in ascending order"):
        Answer.from_bytes(head + (2).to_bytes(4, "big") + entry + entry)


def test_an_answer_cannot_be_changed() -> None:
    shares = {3: SHARE}
    answer = Answer(TAG, 3, shares, {})
    shares[4] = SHARE
    assert dict(answer.seeds) == {3: SHARE}
    with pytest.raises(TypeError):
        answer.seeds[5] = SHARE  # type: ignore[index]


def test_messages_are_collected_by_sender_or_refused() -> None:
    rules = Rules(3, 1, 16, min_survivors=2, colluders=0)
    first = Upload(rules.tag, 0, b"a")
    assert collected([first], Upload, rules) == {0: first}
    wrong = {
        "two messages of client 0": [first, Upload(rules.tag, 0, b"b")],
        "client 0's Upload is of another round": [Upload(TAG, 0, b"a")],
        "the server's Request is of another round": [Request(TAG, ())],
        "client 3 is none of the 3": [Upload(rules.tag, 3, b"a")],
        "no message of the kind": [b"a"],
    }
    for says, messages in wrong.items():
        kind = Request if "Request" in says else Upload
        with pytest.raises(ValueError, match=says):
            collected(messages, kind, rules)  # type: ignore[type-var]
