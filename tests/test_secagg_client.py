"""A client of a round: it masks once, answers once, and refuses whatever would unmask anyone."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from fldp.mechanism import secagg_client, secagg_masks
from fldp.mechanism.secagg_client import Client
from fldp.mechanism.secagg_keys import PAIR, Pairing, self_key
from fldp.mechanism.secagg_masks import mask_, reduced, unpacked
from fldp.mechanism.secagg_messages import Answer, PublicKeys, Request, SealedShares, Upload
from fldp.mechanism.secagg_rules import Rules
from fldp.mechanism.shamir import combine

FALSE_ALARM = 1e-6
Vectors = NDArray[np.int64]


def rules_of(clients: int = 4, **changes: Any) -> Rules:
    settings = {"clients": clients, "size": 3, "bits": 16, "min_survivors": 2, "colluders": 1}
    return Rules(**{**settings, **changes})


class Circle:
    """Clients in the complete graph, as far as a test wants them to go."""

    def __init__(self, rules: Rules, kind: type[Client] = Client) -> None:
        self.rules = rules
        self.clients = [kind(rules, number) for number in range(rules.clients)]
        self.keys = [client.advertise() for client in self.clients]
        self.boxes: list[SealedShares] = []
        self.uploads: list[Upload] = []

    def keys_for(self, client: int) -> list[PublicKeys]:
        return [key for key in self.keys if key.sender != client]

    def boxes_for(self, client: int) -> list[SealedShares]:
        return [box for box in self.boxes if box.receiver == client]

    def shared(self) -> Circle:
        for client in self.clients:
            self.boxes += client.share(self.keys_for(client.me))
        return self

    def uploaded(self, vectors: Vectors | None = None) -> Circle:
        self.shared()
        if vectors is None:
            vectors = np.zeros((self.rules.clients, self.rules.size), np.int64)
        for client in self.clients:
            upload = client.upload(self.boxes_for(client.me), vectors[client.me])
            self.uploads.append(upload)
        return self

    def request(self, *survivors: int) -> Request:
        return Request(self.rules.tag, survivors or tuple(range(self.rules.clients)))

    def words(self, client: int) -> NDArray[Any]:
        return unpacked(self.uploads[client].data, self.rules.size, self.rules.bits)


# Steps.


def test_steps_come_in_order_and_once() -> None:
    circle = Circle(rules_of())
    client = circle.clients[0]
    zeros = np.zeros(3, np.int64)
    with pytest.raises(ValueError, match="'upload' is not next for client 0: 'share' is"):
        client.upload([], zeros)
    circle.shared()
    with pytest.raises(ValueError, match="did 'share' in this round: its secrets are in shares"):
        client.share(circle.keys_for(0))
    with pytest.raises(ValueError, match="'unmask' is not next"):
        client.unmask(circle.request())
    client.upload(circle.boxes_for(0), zeros)
    with pytest.raises(ValueError, match="a second vector under the same masks would show"):
        client.upload(circle.boxes_for(0), zeros + 1)
    client.unmask(circle.request(0, 1, 2))
    with pytest.raises(ValueError, match="two answers could hold both kinds of share"):
        client.unmask(circle.request())


def test_what_is_refused_was_not_done() -> None:
    circle = Circle(rules_of()).shared()
    client = circle.clients[0]
    with pytest.raises(ValueError, match="goes from 70000 to 70000"):
        client.upload(circle.boxes_for(0), np.full(3, 70_000))
    client.upload(circle.boxes_for(0), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="2 uploads: below 3"):
        client.unmask(circle.request(0, 1))
    assert set(client.unmask(circle.request(0, 1, 2)).keys) == {3}


def test_a_client_is_not_copied() -> None:
    client = Client(rules_of(), 0)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(ValueError, match="a copy could answer a second time"):
            attempt(client)  # type: ignore[operator]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_client_does_nothing() -> None:
    client = Client(rules_of(), 0)
    child = os.fork()
    if not child:
        try:
            client.share([])
        except ValueError as error:
            os._exit(0 if "began in another process" in str(error) else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_rules_and_number_are_checked() -> None:
    with pytest.raises(ValueError, match=r"give secagg\.Rules"):
        Client({"clients": 3}, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="client 4 is none of the 4"):
        Client(rules_of(), 4)


# Keys of neighbours.


def low_order(key: PublicKeys) -> PublicKeys:
    return replace(key, mask=bytes(32))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda keys, own: [*keys, own], "client 0 is no neighbour of its own"),
        (lambda keys, own: [*keys, keys[0]], "two messages of client 1"),
        (lambda keys, own: keys[:1], "1 neighbours: client 0 needs 2 at least"),
        (lambda keys, own: [replace(keys[0], tag=bytes(16)), *keys[1:]], "is of another round"),
        (lambda keys, own: [replace(keys[0], sender=9), *keys[1:]], "client 9 is none of the 4"),
        (lambda keys, own: [low_order(keys[0]), *keys[1:]], "no point of large order"),
        (lambda keys, own: [replace(keys[0], box=bytes(32)), *keys[1:]], "no point of large order"),
        (lambda keys, own: [replace(keys[0], box=keys[1].box), *keys[1:]], "one of them is a copy"),
        (lambda keys, own: [replace(keys[0], mask=own.mask), *keys[1:]], "one of them is a copy"),
        (lambda keys, own: [b"keys"], "no message of the kind PublicKeys"),
        (lambda keys, own: None, "None are no messages: give those of kind PublicKeys"),
    ],
)
def test_other_keys_are_refused(
    change: Callable[[list[PublicKeys], PublicKeys], list[PublicKeys]], says: str
) -> None:
    circle = Circle(rules_of(threshold=3))
    with pytest.raises(ValueError, match=says):
        circle.clients[0].share(change(circle.keys_for(0), circle.keys[0]))
    assert len(circle.clients[0].share(circle.keys_for(0))) == 3


def test_more_neighbours_than_the_degree_are_refused() -> None:
    rules = Rules(16, 1, 16, min_survivors=14, colluders=0, degree=6, security=2)
    circle = Circle(rules)
    with pytest.raises(ValueError, match=r"15 neighbours: client 0 .* has 6 at most"):
        circle.clients[0].share(circle.keys_for(0))


# Boxes.


def tampered(box: SealedShares) -> SealedShares:
    return replace(box, box=box.box[:-1] + bytes([box.box[-1] ^ 1]))


def test_other_boxes_are_refused() -> None:
    circle = Circle(rules_of(threshold=3)).shared()
    other = Circle(rules_of(threshold=3)).shared()
    first, *rest = circle.boxes_for(0)
    astray = circle.boxes_for(1)[1]
    wrong = {
        "do not open: they were changed": [tampered(first), *rest],
        # Client 2's box for client 1, to client 0, as it is and with another address.
        "the shares for client 1 came to client 0": [astray, first],
        "shares of client 2 do not open": [replace(astray, receiver=0), first],
        # Another sender's name on it.
        "shares of client 3 do not open": [replace(first, sender=3), rest[0]],
        "two messages of client 1": [first, first, *rest],
        "client 0 is no neighbour of client 0": [replace(first, sender=0), *rest],
        "is of another round": [other.boxes_for(0)[0], *rest],
        "shares of client 1 do not open": [
            replace(other.boxes_for(0)[0], tag=circle.rules.tag),
            *rest,
        ],
        "1 neighbours shared their secrets: client 0 needs 2 at least": [first],
        "no message of the kind SealedShares": [first.to_bytes()],
    }
    for says, boxes in wrong.items():
        with pytest.raises(ValueError, match=says):
            circle.clients[0].upload(boxes, np.zeros(3, np.int64))  # type: ignore[arg-type]
    circle.clients[0].upload([first, *rest], np.zeros(3, np.int64))


# Vectors.


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        (np.zeros(4, np.int64), r"shape \(4,\): this round sums \(3,\)"),
        (np.zeros((3, 1), np.int64), "shape"),
        (np.zeros(3), "give a numpy array of integers"),
        ([0, 0, 0], "give a numpy array of integers"),
        (np.zeros(3, bool), "give a numpy array of integers"),
        (np.array([0, -1, 2]), r"goes from -1 to 2: give values in \[0, 2\^16\)"),
        (np.array([0, 1, 1 << 16]), "goes from 0 to 65536"),
        (np.array([0, 1, 1 << 63], np.uint64), "goes from 0 to 9223372036854775808"),
    ],
)
def test_other_vectors_are_refused(vector: Any, says: str) -> None:
    circle = Circle(rules_of()).shared()
    with pytest.raises(ValueError, match=says):
        circle.clients[0].upload(circle.boxes_for(0), vector)


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.uint16, np.int32])
def test_integers_of_any_type_are_taken_and_kept(kind: type) -> None:
    circle = Circle(rules_of()).shared()
    vector = np.array([0, 5, 300], kind)
    upload = circle.clients[0].upload(circle.boxes_for(0), vector)
    assert vector.tolist() == [0, 5, 300]
    assert len(upload.data) == 6


@pytest.mark.parametrize(
    "vector",
    [
        np.arange(6)[::-2],
        np.broadcast_to(np.int64(7), 3),
        # In place, an array of this kind adds nothing to what it hides.
        np.ma.array([1, 2, 3], mask=[1, 1, 1]),
    ],
)
def test_however_a_vector_lies_what_is_masked_is_a_plain_copy(vector: Any) -> None:
    words = secagg_client._as_words(vector, rules_of())
    assert type(words) is np.ndarray
    assert words.flags.c_contiguous
    assert words.flags.writeable
    assert not np.shares_memory(words, np.asarray(vector))
    assert np.array_equal(words, np.asarray(vector))


# What an upload shows.


def statistic(data: bytes) -> float:
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    return float(((counts - len(data) / 256) ** 2).sum() / (len(data) / 256))


def looks_uniform(bits: int) -> bool:
    """Whether an upload of zeros looks random, in its bytes; a false alarm once in 10^6."""
    circle = Circle(rules_of(size=1 << 16, bits=bits)).uploaded()
    return all(statistic(one.data) < chi2.isf(FALSE_ALARM / 4, 255) for one in circle.uploads)


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 32])
def test_an_upload_looks_uniform(bits: int) -> None:
    assert looks_uniform(bits)


def test_masks_of_fewer_bits_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(words: NDArray[Any], added: list[bytes], taken: list[bytes]) -> None:
        mask_(words, added, taken)
        words &= words.dtype.type(0x7FFF)

    monkeypatch.setattr("fldp.mechanism.secagg_client.mask_", short)
    assert not looks_uniform(16)


def masks_in_common(one: Circle, two: Circle) -> int:
    """How many coordinates of uploads of zeros are the same in two rounds, of all clients."""
    return sum(int((one.words(u) == two.words(u)).sum()) for u in range(one.rules.clients))


def test_two_rounds_share_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    # 4·100 words of 32 bits: one of them agrees by chance once in 10^7.
    rules = rules_of(size=100, bits=32)
    assert masks_in_common(Circle(rules).uploaded(), Circle(rules).uploaded()) == 0
    again = rules_of(size=100, bits=32)
    assert masks_in_common(Circle(rules).uploaded(), Circle(again).uploaded()) == 0
    # The planted fault: keys that do not depend on the round.
    constant = b"\x07" * 32
    monkeypatch.setattr(
        "fldp.mechanism.secagg_client.mask_",
        lambda words, added, taken: mask_(words, [constant]),
    )
    assert masks_in_common(Circle(rules).uploaded(), Circle(again).uploaded()) == 400


def same_under_another_seed(circle: Circle) -> bool:
    """Whether the mask of client 0 follows from 32 bits: the attack on a folded seed."""
    key = self_key(b"\x01" * 32, circle.rules.tag, 0)
    other = bytearray(key)
    # One bit of two words: their exclusive or stays as it is.
    other[0] ^= 1
    other[4] ^= 1
    found = []
    for one in (key, bytes(other)):
        words = np.zeros(8, np.dtype("<u2"))
        secagg_masks.mask_(words, [one])
        found.append(words.tobytes())
    return found[0] == found[1]


def test_a_seed_of_32_bits_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    circle = Circle(rules_of())
    assert not same_under_another_seed(circle)

    class Folded:
        """Keystream of a generator with 32 bits of seed."""

        def __init__(self, key: bytes) -> None:
            seed = int(np.bitwise_xor.reduce(np.frombuffer(key, "<u4")))
            self.source = np.random.RandomState(seed)

        def update_into(self, zeros: memoryview, buffer: bytearray) -> None:
            buffer[: len(zeros)] = self.source.bytes(len(zeros))

    monkeypatch.setattr(secagg_masks, "_stream", Folded)
    assert same_under_another_seed(circle)


# Unmasking.


@pytest.mark.parametrize(
    ("survivors", "says"),
    [
        ((0, 1), "2 uploads: below 3, 2 honest ones and 1 colluders, nothing is unmasked"),
        ((), "0 uploads: below 3"),
        ((1, 2, 3), "client 0 did upload, and the request says it did not"),
        ((0, 1, 2, 4), "client 4 is none of the 4"),
    ],
)
def test_other_requests_are_refused(survivors: tuple[int, ...], says: str) -> None:
    circle = Circle(rules_of()).uploaded()
    with pytest.raises(ValueError, match=says):
        circle.clients[0].unmask(Request(circle.rules.tag, survivors))


def test_a_request_of_another_round_is_refused() -> None:
    circle = Circle(rules_of()).uploaded()
    with pytest.raises(ValueError, match="the server's Request is of another round"):
        circle.clients[0].unmask(Request(rules_of().tag, (0, 1, 2)))
    with pytest.raises(ValueError, match="no message of the kind Request"):
        circle.clients[0].unmask((0, 1, 2))  # type: ignore[arg-type]


def test_who_shared_nothing_cannot_have_uploaded() -> None:
    circle = Circle(rules_of()).shared()
    boxes = [box for box in circle.boxes_for(0) if box.sender != 3]
    circle.clients[0].upload(boxes, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="client 3 is said to have uploaded, and sent no shares"):
        circle.clients[0].unmask(circle.request())
    assert set(circle.clients[0].unmask(circle.request(0, 1, 2)).keys) == set()


@pytest.mark.parametrize("gone", [(), (3,), (2,), (1,)])
def test_of_each_neighbour_one_kind_of_share(gone: tuple[int, ...]) -> None:
    circle = Circle(rules_of()).uploaded()
    alive = tuple(u for u in range(4) if u not in gone)
    answer = circle.clients[0].unmask(circle.request(*alive))
    assert tuple(answer.seeds) == alive
    assert tuple(answer.keys) == gone


def test_what_server_and_colluders_hold_is_below_the_threshold() -> None:
    """Of each honest client the server and γ colluders have γ shares of the kind nobody gave."""
    rules = rules_of(7, min_survivors=4, colluders=2)
    circle = Circle(rules).uploaded()
    bad = (5, 6)
    alive = (0, 1, 2, 3, 5, 6)
    held = [dict(circle.clients[u]._held) for u in bad]
    answers = [circle.clients[u].unmask(circle.request(*alive)) for u in (0, 1, 2, 3)]
    for honest in range(5):
        seeds = sum(honest in answer.seeds for answer in answers)
        keys = sum(honest in answer.keys for answer in answers)
        assert min(seeds, keys) == 0
        assert sum(honest in shares for shares in held) == rules.colluders < rules.shares


def answers_below(kind: type[Client]) -> bool:
    """Whether clients unmask a sum over fewer than they were promised."""
    circle = Circle(rules_of(5, min_survivors=4, colluders=1, threshold=3), kind).uploaded()
    try:
        circle.clients[0].unmask(circle.request(0, 1))
    except ValueError:
        return False
    return True


class Careless(Client):
    """A planted fault: the floor is ignored."""

    def unmask(self, request: Request) -> Answer:
        seeds = {u: seed for u, (seed, _) in self._held.items() if u in request.survivors}
        keys = {u: key for u, (_, key) in self._held.items() if u not in request.survivors}
        return Answer(self.rules.tag, self.me, seeds, keys)


def unmasked_alone(kind: type[Client]) -> Vectors | None:
    """A server that asks twice: client 0's vector, or None if that fails.

    First client 0 counts as a survivor, so that its seed comes out; then as one that dropped out,
    and its key does.
    """
    vectors = np.array([[11, 22, 33], [1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]])
    circle = Circle(rules_of(5, min_survivors=3, colluders=1, threshold=3), kind).uploaded(vectors)
    first = [circle.clients[u].unmask(circle.request()) for u in range(1, 5)]
    try:
        second = [circle.clients[u].unmask(circle.request(1, 2, 3, 4)) for u in range(1, 5)]
    except ValueError:
        return None
    tag = circle.rules.tag
    seed = combine({a.sender + 1: a.seeds[0] for a in first}, 3)
    secret = combine({a.sender + 1: a.keys[0] for a in second}, 3)
    masking = Pairing(PAIR, tag, 0, secret)
    keys = [masking.key(v, circle.keys[v].mask) for v in range(1, 5)]
    words = circle.words(0)
    # Client 0 added the masks in common with those above it, and its own.
    mask_(words, [], [self_key(seed, tag, 0), *keys])
    return reduced(words, 16).astype(np.int64)


def test_too_few_uploads_are_refused_and_a_careless_client_is_seen() -> None:
    assert not answers_below(Client)
    assert answers_below(Careless)


def test_a_second_answer_would_unmask_one_client() -> None:
    assert unmasked_alone(Client) is None
    assert unmasked_alone(Careless).tolist() == [11, 22, 33]  # type: ignore[union-attr]


def test_of_many_threads_one_gets_an_answer() -> None:
    circle = Circle(rules_of()).uploaded()
    requests = [circle.request(), circle.request(0, 1, 2)] * 8
    answers = []

    def ask(request: Request) -> None:
        with contextlib.suppress(ValueError):
            answers.append(circle.clients[0].unmask(request))

    threads = [threading.Thread(target=ask, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 1


def test_one_thread_at_a_time_takes_a_step() -> None:
    circle = Circle(rules_of())
    client = circle.clients[0]
    steps: list[str] = []

    class Noted:
        def __enter__(self) -> None:
            steps.append("in")

        def __exit__(self, *error: object) -> None:
            steps.append("out")

    client._lock = Noted()  # type: ignore[assignment]
    circle.uploaded()
    client.unmask(circle.request())
    assert steps == ["in", "out"] * 3


def test_after_its_answer_a_client_has_no_secrets() -> None:
    circle = Circle(rules_of()).uploaded()
    client = circle.clients[0]
    client.unmask(circle.request())
    kept = (client._own, client._seed, client._held, client._mask_keys, client._box_keys)
    assert not any(kept)
