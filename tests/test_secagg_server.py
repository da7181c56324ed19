"""The server of a round: what it refuses changes nothing, what it releases is the sum or none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fldp.mechanism.release import SkippedRound
from fldp.mechanism.secagg_client import Client
from fldp.mechanism.secagg_graph import ring
from fldp.mechanism.secagg_messages import Answer, Upload
from fldp.mechanism.secagg_rules import Rules
from fldp.mechanism.secagg_server import Server

VECTORS = np.array([[1, 2], [10, 20], [100, 200], [1000, 2000], [10_000, 20_000]])


def rules_of(**changes: Any) -> Rules:
    settings = {"clients": 5, "size": 2, "bits": 16, "min_survivors": 3, "colluders": 0}
    return Rules(**{**settings, **changes})


class Rehearsal:
    """A server and its clients, as far as a test wants them to go; client 4 never uploads."""

    def __init__(self, until: str = "keys", **changes: Any) -> None:
        self.rules = rules_of(**changes)
        self.server = Server(self.rules)
        self.clients = [Client(self.rules, number) for number in range(5)]
        for step in ("keys", "shares", "uploads", "answers"):
            if step == until:
                break
            getattr(self, step)()

    def keys(self) -> None:
        for client in self.clients:
            self.server.add_keys(client.advertise())

    def shares(self) -> None:
        for client in self.clients:
            self.server.add_shares(client.share(self.server.keys_for(client.me)))

    def uploads(self) -> None:
        for client in self.clients[:4]:
            self.server.add_upload(self.upload(client.me))

    def upload(self, client: int) -> Upload:
        boxes = self.server.shares_for(client)
        return self.clients[client].upload(boxes, VECTORS[client])

    def answers(self) -> None:
        for number in range(4):
            self.server.add_answer(self.answer(number))

    def answer(self, client: int) -> Answer:
        return self.clients[client].unmask(self.server.request())


def test_a_round_gives_the_sum_once() -> None:
    run = Rehearsal("nothing")
    assert run.server.survivors == (0, 1, 2, 3)
    total = run.server.total()
    assert total.tolist() == [1111, 2222]
    assert total.dtype == np.int64
    with pytest.raises(ValueError, match="takes nothing at this step, and no answers"):
        run.server.total()


def test_keys_are_taken_once_and_in_time() -> None:
    run = Rehearsal("keys")
    keys = [client.advertise() for client in run.clients]
    run.server.add_keys(keys[0])
    with pytest.raises(ValueError, match="client 0 has sent its keys"):
        run.server.add_keys(keys[0])
    with pytest.raises(ValueError, match="client 5 is none of the 5"):
        run.server.add_keys(replace(keys[1], sender=5))
    with pytest.raises(ValueError, match="is of another round"):
        run.server.add_keys(replace(keys[1], tag=bytes(16)))
    for broken in (replace(keys[1], box=bytes(32)), replace(keys[1], mask=bytes(32))):
        with pytest.raises(ValueError, match="the public key of client 1 is no point of large"):
            run.server.add_keys(broken)
    for copied in (replace(keys[1], box=keys[0].mask), replace(keys[1], mask=keys[1].box)):
        with pytest.raises(ValueError, match="client 1 sends a key that was sent before"):
            run.server.add_keys(copied)
    with pytest.raises(ValueError, match="no message of the kind PublicKeys"):
        run.server.add_keys(b"keys")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"client is \[1\]"):
        run.server.keys_for([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="client 1 has sent no keys"):
        run.server.keys_for(1)
    with pytest.raises(ValueError, match="takes shares at this step, and no keys"):
        run.server.add_keys(keys[1])


def test_who_never_sent_keys_is_nobodys_neighbour() -> None:
    run = Rehearsal("keys")
    for client in run.clients[:4]:
        run.server.add_keys(client.advertise())
    assert [key.sender for key in run.server.keys_for(0)] == [1, 2, 3]


def test_shares_are_those_of_one_client_for_all_its_neighbours() -> None:
    run = Rehearsal("shares")
    first = run.clients[0].share(run.server.keys_for(0))
    second = run.clients[1].share(run.server.keys_for(1))
    wrong = {
        "shares of 0 clients": [],
        "shares of 2 clients": [first[1], second[0]],
        "must seal shares for each of its neighbours": first[1:],
        "two boxes for client 1": [*first, first[0]],
        "is of another round": [replace(first[0], tag=bytes(16)), *first[1:]],
        "client 1 must seal shares for each": [replace(box, sender=1) for box in first],
        "client 0 must seal shares for each": [replace(first[0], receiver=9), *first[1:]],
        "no message of the kind SealedShares": [first[0].to_bytes()],
        "None are no messages: give those of kind SealedShares": None,
    }
    for says, boxes in wrong.items():
        with pytest.raises(ValueError, match=says):
            run.server.add_shares(boxes)  # type: ignore[arg-type]
    run.server.add_shares(first)
    with pytest.raises(ValueError, match="client 0 has sent its shares"):
        run.server.add_shares(first)
    with pytest.raises(ValueError, match="client 1 has sent no shares"):
        run.server.shares_for(1)
    with pytest.raises(ValueError, match="takes uploads at this step, and no shares"):
        run.server.add_shares(second)


def test_steps_are_not_skipped() -> None:
    run = Rehearsal("keys")
    for early in (run.server.request, run.server.total, lambda: run.server.shares_for(0)):
        with pytest.raises(ValueError, match="takes keys at this step"):
            early()


def test_uploads_are_taken_once_whole_and_in_time() -> None:
    run = Rehearsal("uploads")
    uploads = [run.upload(number) for number in range(5)]
    run.server.add_upload(uploads[0])
    wrong = {
        "client 0 has uploaded": uploads[0],
        "3 bytes are no vector of 2 values of 16 bits": replace(uploads[1], data=b"abc"),
        "is of another round": replace(uploads[1], tag=bytes(16)),
        "client 7 is none": replace(uploads[1], sender=7),
    }
    for says, upload in wrong.items():
        with pytest.raises(ValueError, match=says):
            run.server.add_upload(upload)
    for upload in uploads[1:4]:
        run.server.add_upload(upload)
    assert run.server.request().survivors == (0, 1, 2, 3)
    # Who comes after the request has dropped out: its key is about to be known.
    with pytest.raises(ValueError, match="takes answers at this step, and no uploads"):
        run.server.add_upload(uploads[4])
    assert run.server.request().survivors == (0, 1, 2, 3)


def test_who_shared_nothing_uploads_nothing() -> None:
    run = Rehearsal("shares")
    for client in run.clients[:4]:
        run.server.add_shares(client.share(run.server.keys_for(client.me)))
    assert {box.sender for box in run.server.shares_for(0)} == {1, 2, 3}
    with pytest.raises(ValueError, match="client 4 has uploaded, or shared no secrets before"):
        run.server.add_upload(Upload(run.rules.tag, 4, bytes(4)))


def test_too_few_uploads_skip_the_round() -> None:
    run = Rehearsal("uploads", colluders=1)
    for number in range(3):
        run.server.add_upload(run.upload(number))
    with pytest.raises(SkippedRound, match="3 uploads, 4 are needed: 3 honest ones and 1 colluder"):
        run.server.request()
    # It is not too late for one more.
    run.server.add_upload(run.upload(3))
    assert len(run.server.request().survivors) == 4


def test_answers_are_what_was_asked_for_once() -> None:
    run = Rehearsal("answers")
    answers = [run.answer(number) for number in range(4)]
    share = bytes(33)
    run.server.add_answer(answers[0])
    other = "answers with other shares than it was asked for"
    wrong = {
        "client 0 has answered": [answers[0]],
        "client 4 has answered, or not uploaded": [replace(answers[1], sender=4)],
        "is of another round": [replace(answers[1], tag=bytes(16))],
        other: [
            replace(answers[1], seeds={}),
            replace(answers[1], keys={}),
            replace(answers[1], keys={4: share, 9: share}),
            replace(answers[1], seeds={**answers[1].seeds, 4: share}, keys={}),
        ],
    }
    for says, messages in wrong.items():
        for message in messages:
            with pytest.raises(ValueError, match=says):
                run.server.add_answer(message)
    for answer in answers[1:]:
        run.server.add_answer(answer)
    assert run.server.total().tolist() == [1111, 2222]


def test_too_few_answers_skip_the_round_until_there_are_more() -> None:
    run = Rehearsal("answers", threshold=3)
    for number in range(2):
        run.server.add_answer(run.answer(number))
    with pytest.raises(SkippedRound, match="2 answers hold a share of client 0's secret, 3 are"):
        run.server.total()
    run.server.add_answer(run.answer(2))
    assert run.server.total().tolist() == [1111, 2222]


def test_a_false_share_of_a_key_is_seen() -> None:
    run = Rehearsal("answers")
    for number in range(4):
        answer = run.answer(number)
        if number == 0:
            answer = replace(answer, keys={4: bytes(33)})
        run.server.add_answer(answer)
    with pytest.raises(ValueError, match=r"one of them is false|shares of client 4's key give"):
        run.server.total()


def test_the_order_of_the_ring_is_drawn_anew() -> None:
    rules = Rules(100, 1, 16, min_survivors=75, colluders=5)
    graphs = [Server(rules).graph for _ in range(3)]
    in_order = ring(range(100), rules.neighbours)
    assert all(graph != in_order for graph in graphs)
    assert graphs[0] != graphs[1] != graphs[2]


def test_rules_are_checked() -> None:
    with pytest.raises(ValueError, match=r"give secagg\.Rules"):
        Server(None)  # type: ignore[arg-type]


def test_a_sum_that_fits_no_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(size: int, dtype: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "zeros", full)
    with pytest.raises(ValueError, match="size is 1099511627776: this machine has no room"):
        Server(Rules(3, 2**40, 32, min_survivors=2, colluders=0))
