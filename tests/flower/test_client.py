"""A device under local trust: clipped, noised and accounted before anything leaves it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr.serverapp.exception", reason="Flower is not here: make flower")

from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from stand_in import Nodes, plan, plan_of, record, seeded, spent

import fldp
from fldp.flower import local_dp

WIDE = 20_000
HERE: Any = SimpleNamespace(node_id=7)


def local(rounds: int = 2) -> fldp.PrivacyPlan:
    return plan(1000, None, rounds, trust="local", epsilon=8.0, delta=1e-6)


def asked(kind: str = "train", before: float = 0.0) -> Message:
    values = np.full(WIDE, before, np.float32)
    content = RecordDict({"arrays": record(values), "config": ConfigRecord({})})
    return Message(content, dst_node_id=7, message_type=kind)


def trained(update: Any) -> Any:
    """A client app that moves the model by `update`, and tells its loss."""

    def app(message: Message, context: Any) -> Message:
        before = message.content["arrays"]["w"].numpy()
        metrics = MetricRecord({"num-examples": 991, "loss": 5.0})
        arrays = record((before + update).astype(np.float32))
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


def fails(message: Message, context: Any) -> Message:
    raise RuntimeError("record 17 is broken")


def says_error(message: Message, context: Any) -> Message:
    return Message(Error(0, "record 17 is broken"), reply_to=message)


def ends(message: Message, context: Any) -> Message:
    raise SystemExit("record 17 is broken")


def says_nothing(message: Message, context: Any) -> Any:
    return None


APPS = {
    "far": trained(3.0),
    "nothing": trained(0.0),
    "nan": trained(np.nan),
    "another shape": trained(np.ones((2, 1))),
    "fails": fails,
    "error": says_error,
    "ends": ends,
    "says nothing": says_nothing,
}


@pytest.mark.parametrize("name", APPS)
def test_what_leaves_is_noised_whatever_the_training_did(tmp_path, name) -> None:
    of = local()
    mod = local_dp(of, 2.0, ledger=tmp_path / "ledger.jsonl")
    reply = mod(asked(before=0.5), HERE, APPS[name])
    values = reply.content["arrays"]["w"].numpy() - 0.5
    assert values.std() == pytest.approx(of.noise_multiplier * 2.0, rel=0.03)
    assert dict(reply.content["metrics"]) == {"num-examples": 1}
    assert set(reply.content) == {"arrays", "metrics"}
    assert spent(tmp_path) == 1


def test_the_update_is_clipped_to_c(tmp_path) -> None:
    """With hardly any noise the update itself shows: it has norm C."""
    of = plan_of(1e-6, 1000, 2, trust="local", adjacency="zero-out")
    mod = local_dp(of, 2.0, ledger=tmp_path / "ledger.jsonl")
    update = mod(asked(), HERE, trained(3.0)).content["arrays"]["w"].numpy()
    assert np.linalg.norm(update) == pytest.approx(2.0, rel=1e-2)


def test_noise_that_would_come_again_is_refused(tmp_path) -> None:
    # Each message has a process of its own: two replies would have the same noise.
    with pytest.raises(ValueError, match="leave the generator out"):
        local_dp(local(), ledger=tmp_path / "l", noise=seeded())


def test_a_message_of_two_models_is_refused(tmp_path) -> None:
    message = asked()
    message.content["more"] = record(np.ones(3, np.float32))
    reply = local_dp(local(), ledger=tmp_path / "ledger.jsonl")(message, HERE, fails)
    assert "one record of arrays" in reply.error.reason


def test_what_an_app_writes_on_the_message_does_not_leave(tmp_path) -> None:
    def writes(message: Message, context: Any) -> Message:
        reply = trained(1.0)(message, context)
        message.metadata.__dict__["_group_id"] = "17 records"
        message.metadata.__dict__["_message_id"] = "17 records"
        return reply

    message = asked()
    reply = local_dp(local(), ledger=tmp_path / "ledger.jsonl")(message, HERE, writes)
    assert reply.metadata.group_id == reply.metadata.reply_to_message_id == ""


def test_a_server_that_asks_for_more_gets_nothing_and_nothing_is_trained(tmp_path) -> None:
    trainings = []

    def counted(message: Message, context: Any) -> Message:
        trainings.append(1)
        return trained(1.0)(message, context)

    # A new process for each message: the account is in the file.
    replies = [
        local_dp(local(), ledger=tmp_path / "ledger.jsonl")(asked(), HERE, counted)
        for _ in range(4)
    ]
    assert [reply.has_error() for reply in replies] == [False, False, True, True]
    assert "has spent" in replies[2].error.reason
    assert len(trainings) == spent(tmp_path) == 2


@pytest.mark.parametrize("kind", ["evaluate", "query"])
def test_only_training_is_answered(tmp_path, kind) -> None:
    mod = local_dp(local(), ledger=tmp_path / "ledger.jsonl")
    assert mod(asked(kind), HERE, fails).has_error()
    assert not mod(asked("train.first"), HERE, trained(1.0)).has_error()


def test_the_event_is_on_disk_before_the_reply(tmp_path, monkeypatch) -> None:
    def full(self: Any, *given: Any, **named: Any) -> None:
        raise ValueError("no room")

    monkeypatch.setattr(fldp.Ledger, "record", full)
    with pytest.raises(ValueError, match="no room"):
        local_dp(local(), ledger=tmp_path / "l")(asked(), HERE, trained(1.0))


def test_devices_on_one_machine_have_ledgers_of_their_own(tmp_path) -> None:
    mod = local_dp(local(), ledger=tmp_path / "{node}.jsonl")
    for node in (3, 4):
        mod(asked(), SimpleNamespace(node_id=node), trained(1.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.jsonl", "4.jsonl"]


def test_the_server_averages_with_a_strategy_of_flower(tmp_path) -> None:
    of = local(rounds=2)
    mod = local_dp(of, 1.0, ledger=tmp_path / "{node}.jsonl")

    def answer(node: int, message: Message) -> RecordDict:
        return mod(message, SimpleNamespace(node_id=node), trained(1.0)).content

    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=8)
    nodes = Nodes(range(8), answer)
    result = strategy.start(nodes, record(np.zeros(WIDE, np.float32)), num_rounds=1)
    std = result.arrays["w"].numpy().std()
    assert std == pytest.approx(of.noise_multiplier / np.sqrt(8), rel=0.03)


def test_other_plans_and_relative_paths_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="trust is 'central'"):
        local_dp(plan(), ledger=tmp_path / "l")
    with pytest.raises(ValueError, match="absolute"):
        local_dp(local(), ledger="l")
    with pytest.raises(ValueError, match="give a PrivacyPlan"):
        local_dp(8.0, ledger=tmp_path / "l")  # type: ignore[arg-type]


def test_a_clip_that_asks_is_refused(tmp_path) -> None:
    mod = local_dp(local(), fldp.AdaptiveClip(), ledger=tmp_path / "l")
    with pytest.raises(ValueError, match="not local trust"):
        mod(asked(), HERE, fails)
