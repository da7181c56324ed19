"""Messages out and replies in: one at a time, whatever they hold, and no longer than allowed."""

from __future__ import annotations

import logging
import tracemalloc
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr.serverapp.exception", reason="Flower is not here: make flower")

from flwr.app import Message, MetricRecord, RecordDict
from stand_in import Nodes, ones, private, quiet, record, start

from fldp.flower import replies
from fldp.flower.replies import AT_ONCE, exchange, silence
from fldp.mechanism.release import RoundWarning


def to(count: int) -> list[Message]:
    content = RecordDict({"arrays": start()})
    return [Message(content, dst_node_id=node, message_type="train") for node in range(count)]


def test_replies_come_one_at_a_time_and_once() -> None:
    nodes = Nodes(range(100), ones)
    found = [reply.metadata.src_node_id for reply in exchange(nodes, to(100), timeout=1)]
    assert sorted(found) == [*range(100)]
    assert nodes.held == 1


def test_who_answers_later_is_waited_for(monkeypatch) -> None:
    looks = [0]
    pauses: list[float] = []

    def slow(node: int, message: Message) -> RecordDict | None:
        return ones(node, message) if looks[0] >= node else None

    def sleep(seconds: float) -> None:
        looks[0] += 1
        pauses.append(seconds)

    monkeypatch.setattr(replies.time, "sleep", sleep)
    found = [r.metadata.src_node_id for r in exchange(Nodes(range(9), slow), to(9), timeout=600)]
    assert found == [*range(9)]
    assert max(pauses) <= 3


def test_time_is_up_for_those_who_do_not_answer() -> None:
    def some(node: int, message: Message) -> RecordDict | None:
        return ones(node, message) if node < 3 else None

    found = [*exchange(Nodes(range(9), some), to(9), timeout=0.01)]
    assert len(found) == 3


def test_nobody_is_asked_and_nobody_answers() -> None:
    nodes = Nodes(range(9), ones)
    assert [*exchange(nodes, [], timeout=1)] == []
    assert nodes.asked == []


def test_a_superlink_that_takes_nothing_ends_the_run_and_spends_nothing(tmp_path) -> None:
    nodes = Nodes(range(9), ones)
    nodes.push_messages = lambda messages: []  # type: ignore[method-assign]
    strategy = private(tmp_path, quiet(9))
    with pytest.raises(ValueError, match="took no message"):
        strategy.start(nodes, start())
    assert strategy.ledger.events == []


class Gone(Nodes):
    """Some nodes are gone when the messages are sent, which the SuperLink logs."""

    gone: frozenset[int] = frozenset()

    def push_messages(self, messages: Iterable[Message]) -> list[Any]:
        sent = list(messages)
        names: list[Any] = super().push_messages(sent)
        for number, message in enumerate(sent):
            if message.metadata.dst_node_id in self.gone:
                del self.box[names[number]]
                names[number] = None
        if None in names:
            logging.getLogger("flwr").warning("Not all messages could be pushed")
        return names


@pytest.mark.parametrize("gone", [range(1), range(40)], ids=["one", "all"])
def test_nodes_that_are_gone_before_they_are_asked_are_silent(tmp_path, caplog, gone) -> None:
    # An end of the run would tell that they were drawn.
    nodes = Gone(range(40), ones)
    nodes.gone = frozenset(gone)
    strategy = private(tmp_path, quiet(40))
    with caplog.at_level(logging.INFO, "flwr"):
        strategy.start(nodes, start(), timeout=60)
    assert strategy.private["silent"] == len(gone)
    assert len(strategy.ledger.events) == 1
    assert "pushed" not in caplog.text


class Hostile(Nodes):
    """Node 7 uploads bytes that Flower cannot unpack, after it has told the SuperLink of them."""

    def pull_messages(self, names: Iterable[str]) -> list[Message]:
        found = super().pull_messages(names)
        if any(reply.metadata.src_node_id == 7 for reply in found):
            raise KeyError("arraychunk_ids")
        return found


def test_a_reply_that_cannot_be_unpacked_takes_no_other_with_it(tmp_path) -> None:
    strategy = private(tmp_path, quiet(40))
    result = strategy.start(Hostile(range(40), ones), start())
    assert strategy.private["silent"] == 1
    assert strategy.private["diagnostics"].count == 39
    wanted = 39 / 40 / np.sqrt(50)
    assert np.allclose(result.arrays["w"].numpy(), wanted, atol=1e-3)


class Lost(Nodes):
    """The SuperLink is gone once it has taken the messages."""

    def get_node_ids(self) -> list[int]:
        if self.sent:
            raise ConnectionResetError("gone")
        return super().get_node_ids()

    def pull_messages(self, names: Iterable[str]) -> list[Message]:
        raise ConnectionResetError("gone")


def test_a_connection_that_is_lost_ends_the_run_and_spends_nothing(tmp_path) -> None:
    strategy = private(tmp_path, quiet(9))
    with pytest.raises(ConnectionResetError):
        strategy.start(Lost(range(9), ones), start())
    assert strategy.ledger.events == []


class Forging(Nodes):
    """Node 7 writes another's number, and the message that this one was asked by, on its reply."""

    def pull_messages(self, names: Iterable[str]) -> list[Message]:
        found = super().pull_messages(names)
        for reply in found:
            if reply.metadata.src_node_id == 7:
                reply.metadata.__dict__["_src_node_id"] = 30
                reply.metadata.__dict__["_reply_to_message_id"] = "message 30"
        return found


def test_a_reply_in_the_name_of_another_counts_zero_and_displaces_nobody() -> None:
    nodes = Forging(range(40), ones)
    found = [reply.metadata.src_node_id for reply in exchange(nodes, to(40), timeout=1)]
    assert sorted(found) == [node for node in range(40) if node != 7]


def test_a_long_look_at_a_large_cohort_is_followed_by_a_long_pause(monkeypatch) -> None:
    clock = [0.0]
    pauses = []

    def silent(node: int, message: Message) -> None:
        # Each question takes a tenth of a second.
        clock[0] += 0.1

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(replies.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(replies.time, "sleep", sleep)
    assert [*exchange(Nodes(range(100), silent), to(100), timeout=35)] == []
    assert pauses == pytest.approx([10, 5])


@pytest.mark.parametrize("timeout", [float("nan"), -1.0, None, "1"], ids=repr)
def test_a_time_that_is_none_is_refused_before_the_coins(tmp_path, timeout) -> None:
    nodes = Nodes(range(9), ones)
    with pytest.raises(ValueError, match="timeout"):
        private(tmp_path, quiet(9)).start(nodes, start(), timeout=timeout)
    assert nodes.asked == []


def test_memory_is_that_of_a_few_replies(tmp_path) -> None:
    """Of 100 replies of 2 MB, in model sizes: those at once, and the tile of the sum."""
    size = 500_000

    def large(node: int, message: Message) -> RecordDict:
        metrics = MetricRecord({"num-examples": 1})
        return RecordDict({"arrays": record(np.ones(size, np.float32)), "metrics": metrics})

    strategy = private(tmp_path, quiet(100))
    begin = record(np.zeros(size, np.float32))
    tracemalloc.start()
    strategy.start(Nodes(range(100), large), begin)
    peak = tracemalloc.get_traced_memory()[1] / (4 * size)
    tracemalloc.stop()
    assert peak < 3 * AT_ONCE + 16, peak


def test_nothing_is_logged_or_warned_of_in_silence(caplog) -> None:
    logger = logging.getLogger("flwr")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with silence():
            logger.warning("37 results")
            warnings.warn("37 malformed", RoundWarning, stacklevel=1)
            warnings.warn("something else", UserWarning, stacklevel=1)
        logger.warning("round 1")
    assert [str(one.message) for one in warned] == ["something else"]
    assert [one.message for one in caplog.records] == ["round 1"]
