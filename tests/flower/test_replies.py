"""Messages out and replies in: a few at a time, and no longer than allowed."""

from __future__ import annotations

import logging
import tracemalloc
import warnings

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


def test_replies_come_a_few_at_a_time_and_once() -> None:
    nodes = Nodes(range(100), ones)
    found = [reply.metadata.src_node_id for reply in exchange(nodes, to(100), timeout=1)]
    assert sorted(found) == [*range(100)]
    assert nodes.held == AT_ONCE


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


@pytest.mark.parametrize("taken", [[], [None]], ids=["none", "refused"])
def test_a_superlink_that_takes_nothing_ends_the_run_and_spends_nothing(tmp_path, taken) -> None:
    nodes = Nodes(range(9), ones)
    nodes.push_messages = lambda messages: taken  # type: ignore[method-assign]
    strategy = private(tmp_path, quiet(9))
    with pytest.raises(ValueError, match="took no message"):
        strategy.start(nodes, start())
    assert strategy.ledger.events == []


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
