"""A strategy under a plan: what counts, what leaves, what is written down first."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import pickle
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("flwr.serverapp.exception", reason="Flower is not here: make flower")

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.exception import PrivacyBudgetExhausted
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedYogi,
)
from stand_in import (
    SIZE,
    Nodes,
    content,
    ones,
    plan,
    plan_of,
    private,
    quiet,
    record,
    seeded,
    sent_by,
    spent,
    start,
    weights,
    zeros,
)

import fldp
import fldp.flower.strategy
from fldp.flower import Private
from fldp.mechanism.aggregation import PrivateAggregator
from fldp.mechanism.correlation import Correlated
from fldp.simulation.draws import Draws

INNER = {
    "FedAvg": lambda: FedAvg(fraction_evaluate=0.0),
    "FedAvgM": lambda: FedAvgM(fraction_evaluate=0.0, server_momentum=0.5),
    "FedAdam": lambda: FedAdam(fraction_evaluate=0.0),
    "FedYogi": lambda: FedYogi(fraction_evaluate=0.0),
    "FedAdagrad": lambda: FedAdagrad(fraction_evaluate=0.0),
    "FedProx": lambda: FedProx(fraction_evaluate=0.0, proximal_mu=0.1),
}


def random_updates(count: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(count, SIZE, generator=torch.Generator().manual_seed(7))


def sends(updates: torch.Tensor) -> Any:
    """Node i sends row i."""
    return lambda node, message: content(updates[node].numpy(), message)


# What leaves.


@pytest.mark.parametrize(
    "clip", [1.0, fldp.FlatClip(0.3), fldp.PerLayerClip(0.5), fldp.AdaptiveClip(0.5)], ids=repr
)
def test_a_round_is_fldp_aggregate_on_the_same_updates(tmp_path, clip) -> None:
    updates = random_updates(40)
    of = plan(cohort=None)
    strategy = private(tmp_path, of, clip=clip, noise=seeded(3))
    result = strategy.start(Nodes(range(40), sends(updates)), start(), num_rounds=1)
    wanted = fldp.aggregate([{"w": row} for row in updates], of, clip, noise=seeded(3))
    assert np.allclose(weights(result.arrays), wanted.mean["w"].numpy(), atol=1e-6)
    assert strategy.ledger.events == [wanted.event]


def test_an_adaptive_clip_moves_with_the_rounds_and_not_the_callers(tmp_path) -> None:
    clip = fldp.AdaptiveClip(0.01)
    strategy = private(tmp_path, plan(cohort=None), clip=clip)
    strategy.start(Nodes(range(40), ones), start())
    assert strategy.clip.norm > 2 * clip.norm == 0.02


def test_the_whole_run_stays_within_the_plan(tmp_path) -> None:
    of = plan()
    strategy = private(tmp_path, of)
    nodes = Nodes(range(100, 140), ones)
    result = strategy.start(nodes, start())
    assert spent(tmp_path) == len(nodes.asked) == 5
    assert strategy.epsilon == of.epsilon() <= 4.0
    total = sum(map(len, nodes.asked))
    wanted = total / math.sqrt(SIZE) / of.denominator
    # Five noises of std z/m on the mean of all coordinates: six standard deviations.
    slack = 6 * of.noise_multiplier / of.denominator * math.sqrt(5 / SIZE)
    assert abs(weights(result.arrays).mean() - wanted) < slack


def seen_by(strategy: FedAvg) -> list[np.ndarray]:
    """What the inner strategy will be shown, collected."""
    seen: list[np.ndarray] = []
    old = strategy.aggregate_train

    def spy(server_round: int, replies: Any) -> Any:
        (only,) = replies
        seen.append(only.content["arrays"]["w"].numpy())
        return old(server_round, [only])

    strategy.aggregate_train = spy  # type: ignore[method-assign]
    return seen


def one_more_client_moves(folder: Any, make: Any, kind: type[Private] = Private) -> float:
    """How far one client more moves what the inner strategy sees, at the same noise."""
    of = plan(sampling="none")
    found = []
    for count in (39, 40):
        inner = make()
        seen = seen_by(inner)
        path = folder / str(count) / "ledger.jsonl"
        strategy = kind(inner, of, 1.0, ledger=path, noise=seeded(4))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fldp.flower.strategy, "Draws", lambda: Draws(0))
            strategy.start(Nodes(range(count), ones), start(), num_rounds=1)
        found += seen
    return float(np.linalg.norm(found[1] - found[0])) * of.denominator


@pytest.mark.parametrize("name", INNER)
def test_what_the_optimiser_sees_is_private_already(tmp_path, name) -> None:
    assert one_more_client_moves(tmp_path, INNER[name]) <= 1 + 1e-5


@pytest.mark.parametrize("name", INNER)
def test_an_optimiser_steps_as_it_does_without_us(tmp_path, name) -> None:
    """On the noisy mean as its one reply, round after round."""
    inner = INNER[name]()
    seen = seen_by(inner)
    result = private(tmp_path, plan(cohort=None), inner).start(Nodes(range(40), ones), start())
    alone = INNER[name]()
    arrays = start()
    for number, mean in enumerate(seen, start=1):
        grid = Nodes(range(2), ones)
        (first, *_) = alone.configure_train(number, arrays, ConfigRecord(), grid)
        metrics = MetricRecord({"num-examples": 1})
        reply = sent_by(1, RecordDict({"arrays": record(mean), "metrics": metrics}), first)
        arrays, _ = alone.aggregate_train(number, [reply])
        arrays = record(weights(arrays).astype(np.float32))
    assert np.allclose(weights(result.arrays), weights(arrays), atol=1e-5)
    assert weights(result.arrays).dtype == np.float32


def test_a_config_of_the_inner_strategy_reaches_the_nodes(tmp_path) -> None:
    told = []

    def answer(node: int, message: Message) -> RecordDict:
        told.append(dict(message.content["config"]))
        return ones(node, message)

    strategy = private(tmp_path, plan(cohort=None), INNER["FedProx"]())
    config = ConfigRecord({"lr": 0.5})
    strategy.start(Nodes(range(3), answer), start(), num_rounds=1, train_config=config)
    assert told == [{"lr": 0.5, "proximal-mu": 0.1, "server-round": 1}] * 3


def test_an_empty_round_releases_noise_and_is_accounted(tmp_path) -> None:
    nodes = Nodes([], ones)
    strategy = private(tmp_path, plan(rounds=2))
    strategy._wait = lambda grid: None
    result = strategy.start(nodes, start())
    assert nodes.asked == []
    assert spent(tmp_path) == 2
    assert np.abs(weights(result.arrays)).min() > 0


# What counts.

BAD = {
    "nan": np.full(SIZE, np.nan),
    "inf": np.full(SIZE, np.inf),
    "zero": np.zeros(SIZE),
    "shape": np.ones(SIZE + 1),
    "scalar": np.ones(()),
    "names": np.ones(SIZE),
    "integers": np.zeros(SIZE, np.int64),
    "text": np.full(SIZE, "a"),
}


def bad_reply(kind: str, message: Message) -> RecordDict | Error | None:
    if kind == "silence":
        return None
    if kind == "error":
        return Error(code=0, reason="x")
    if kind == "empty":
        return RecordDict({})
    if kind == "two":
        found = ones(0, message)
        found["more"] = record(np.ones(SIZE, np.float32))
        return found
    name = "v" if kind == "names" else "w"
    return RecordDict({"arrays": record(BAD[kind], name)})


@pytest.mark.parametrize("kind", [*BAD, "silence", "error", "empty", "two"])
def test_a_bad_reply_counts_as_an_absent_node_and_ends_nothing(tmp_path, kind) -> None:
    def answer(node: int, message: Message) -> Any:
        return bad_reply(kind, message) if node == 7 else ones(node, message)

    of = plan(cohort=None, rounds=1)
    without = [node for node in range(40) if node != 7]
    found = []
    for number, nodes in enumerate((Nodes(range(40), answer), Nodes(without, ones))):
        folder = tmp_path / str(number)
        strategy = private(folder, of, noise=seeded(5))
        found.append(weights(strategy.start(nodes, start(), timeout=0.01).arrays))
        assert spent(folder) == 1
    assert np.allclose(found[0], found[1], atol=1e-6)


def one_round(tmp_path: Any, of: Any, **more: Any) -> tuple[Private, Nodes, list[Message]]:
    strategy = private(tmp_path, of, **more)
    nodes = Nodes(range(of.clients), ones)
    messages = strategy.configure_train(1, start(), ConfigRecord(), nodes)
    nodes.push_messages(messages)
    return strategy, nodes, messages


def test_strangers_and_second_replies_count_zero(tmp_path) -> None:
    strategy, nodes, messages = one_round(tmp_path, quiet(), noise=seeded(0))
    replies = nodes.pull_messages([m.metadata.message_id for m in messages])
    stranger = sent_by(999, ones(0, messages[0]), messages[0])
    arrays, metrics = strategy.aggregate_train(1, [stranger, *replies, *replies, stranger])
    assert metrics is None
    assert strategy.private["diagnostics"].count == 40
    assert strategy.private["strangers"] == 42
    assert np.allclose(weights(arrays), 1 / math.sqrt(SIZE), atol=1e-3)


def test_a_reply_to_an_earlier_round_counts_zero(tmp_path) -> None:
    strategy, nodes, messages = one_round(tmp_path, quiet(rounds=2))
    late = [sent_by(m.metadata.dst_node_id, ones(0, m), m) for m in messages]
    arrays, _ = strategy.aggregate_train(1, [])
    nodes.push_messages(strategy.configure_train(2, arrays, ConfigRecord(), nodes))
    strategy.aggregate_train(2, late)
    assert strategy.private["strangers"] == 40
    assert strategy.private["diagnostics"].count == 0


@pytest.mark.parametrize("present", [0, 4, 20, 40])
def test_absent_nodes_weaken_no_noise_and_move_no_denominator(tmp_path, present) -> None:
    """The noise alone, under every number of replies, is that of the plan: std z·C/m."""
    of = plan(cohort=None, rounds=1)

    def answer(node: int, message: Message) -> Any:
        wide = record(np.zeros(20_000, np.float32))
        return RecordDict({"arrays": wide}) if node < present else None

    strategy = private(tmp_path, of, clip=2.0)
    begin = record(np.zeros(20_000, np.float32))
    result = strategy.start(Nodes(range(40), answer), begin, timeout=0.01)
    assert weights(result.arrays).std() == pytest.approx(of.noise_multiplier * 2 / 40, rel=0.03)
    assert strategy.private["silent"] == 40 - present


def test_half_of_the_cohort_moves_the_mean_half_as_far(tmp_path) -> None:
    strategy = private(tmp_path, quiet())
    result = strategy.start(Nodes(range(20), ones), start())
    assert np.allclose(weights(result.arrays), 0.5 / math.sqrt(SIZE), atol=1e-3)


def test_weights_count_up_to_their_cap(tmp_path) -> None:
    """A weight of a million counts five times, and the noise is five times as large."""
    first = np.eye(SIZE)[0] * 9

    def heavy(node: int, message: Message) -> RecordDict:
        examples = {3: 10**6, 4: float("nan"), 5: -1.0}.get(node, 2)
        return content(first if node in (3, 4, 5) else 0 * first, message, examples)

    strategy = private(tmp_path, quiet(), weight_cap=5.0, weight_total=100.0)
    result = strategy.start(Nodes(range(40), heavy), start())
    assert weights(result.arrays)[0] == pytest.approx(5 / 100, rel=1e-3)
    assert strategy.private["diagnostics"].malformed == 2
    assert "counts up to 5 times" in strategy.statement


def test_without_a_cap_a_weight_counts_once(tmp_path) -> None:
    def heavy(node: int, message: Message) -> RecordDict:
        return content(np.eye(SIZE)[0] * 9, message, 10**6 if node == 3 else 1)

    result = private(tmp_path, quiet()).start(Nodes([3], heavy), start())
    assert weights(result.arrays)[0] == pytest.approx(1 / 40, rel=1e-3)


def test_a_weight_that_is_missing_makes_a_reply_malformed(tmp_path) -> None:
    def bare(node: int, message: Message) -> RecordDict:
        return RecordDict({"arrays": record(np.ones(SIZE, np.float32))})

    strategy = private(tmp_path, quiet(), weight_cap=5.0)
    strategy.start(Nodes(range(4), bare), start())
    assert strategy.private["diagnostics"].malformed == 4


def test_metrics_of_clients_stay(tmp_path) -> None:
    strategy = private(tmp_path, plan(), FedAvg(fraction_evaluate=1.0))
    nodes = Nodes(range(40), ones)
    result = strategy.start(nodes, start())
    assert len(nodes.asked) == 5, "nobody was asked to evaluate"
    assert result.train_metrics_clientapp == result.evaluate_metrics_clientapp == {}
    assert strategy.configure_evaluate(1, start(), ConfigRecord(), nodes) == []
    assert strategy.aggregate_evaluate(1, []) is None


# Who is drawn.


def test_each_connected_node_joins_at_the_plans_rate(tmp_path) -> None:
    of = plan(cohort=10, rounds=150)
    strategy = private(tmp_path, of)
    dice = np.random.default_rng(0)
    connected = 0
    drawn = 0
    for number in range(150):
        ids = dice.choice(1000, dice.integers(0, 41), replace=False).tolist()
        nodes = Nodes(ids, ones)
        messages = strategy.configure_train(number + 1, start(), ConfigRecord(), nodes)
        connected += len(ids)
        drawn += len(messages)
        assert {m.metadata.dst_node_id for m in messages} <= {*ids}
        strategy.aggregate_train(number + 1, [])
    # Five standard deviations: a false alarm in two million.
    assert abs(drawn / connected - 0.25) < 5 * math.sqrt(0.25 * 0.75 / connected)


@pytest.mark.parametrize("connected", [40, 20])
def test_a_fixed_cohort_is_drawn_of_all_slots(tmp_path, connected) -> None:
    of = plan(sampling="fixed", adjacency="replace-one", rounds=30)
    nodes = Nodes(range(connected), ones)
    private(tmp_path, of).start(nodes, start())
    sizes = [len(asked) for asked in nodes.asked]
    if connected == 40:
        assert sizes == [10] * 30
    else:
        assert max(sizes) <= 10
        # Hypergeometric, of mean 5 and variance 1.92: five standard deviations.
        assert abs(np.mean(sizes) - 5) < 5 * math.sqrt(1.92 / 30)
    assert spent(tmp_path) == 30


def test_a_round_that_is_begun_again_tosses_other_coins(tmp_path) -> None:
    strategy = private(tmp_path, plan(clients=200, cohort=100))
    nodes = Nodes(range(200), ones)
    cohorts = [
        frozenset(
            message.metadata.dst_node_id
            for message in strategy.configure_train(1, start(), ConfigRecord(), nodes)
        )
        for _ in range(4)
    ]
    assert len({*cohorts}) == 4
    assert spent(tmp_path) == 0, "nothing was released"


def test_no_round_begins_before_enough_nodes_are_there(tmp_path, monkeypatch) -> None:
    nodes = Nodes(range(3), ones)
    held = []

    def arrive(seconds: float) -> None:
        held.append(spent(tmp_path))
        nodes.ids.append(100 + len(held))

    monkeypatch.setattr(fldp.flower.strategy.time, "sleep", arrive)
    private(tmp_path, plan(cohort=None), min_nodes=5).start(nodes, start(), num_rounds=1)
    assert held == [0, 0]
    assert len(nodes.asked[0]) == 5


# What is spent.


def test_the_event_is_on_disk_before_the_release(tmp_path, monkeypatch) -> None:
    order: list[str] = []
    finish = fldp.Gaussian.finish
    write = fldp.Ledger.record

    def finishing(self: Any, *given: Any) -> Any:
        order.append("noise")
        return finish(self, *given)

    def recording(self: Any, *given: Any, **named: Any) -> None:
        write(self, *given, **named)
        order.append("event")

    monkeypatch.setattr(fldp.Gaussian, "finish", finishing)
    monkeypatch.setattr(fldp.Ledger, "record", recording)
    private(tmp_path, plan()).start(Nodes(range(40), ones), start())
    assert order == ["event", "noise"] * 5


def test_the_budget_ends_a_run_before_anybody_is_drawn(tmp_path) -> None:
    strategy = private(tmp_path, plan())
    nodes = Nodes(range(40), ones)
    strategy.start(nodes, start(), num_rounds=50)
    assert len(nodes.asked) == 5
    with pytest.raises(PrivacyBudgetExhausted, match="before anybody was drawn"):
        strategy.configure_train(6, start(), ConfigRecord(), nodes)


def test_a_second_run_gets_what_the_first_left(tmp_path) -> None:
    of = plan()
    for rounds, wanted in ((3, 3), (None, 2), (None, 0)):
        strategy = private(tmp_path, of)
        nodes = Nodes(range(40), ones)
        strategy.start(nodes, start(), num_rounds=rounds)
        assert len(nodes.asked) == wanted
        strategy.close()
    assert spent(tmp_path) == 5


def test_other_releases_of_the_population_are_counted(tmp_path) -> None:
    of = plan()
    with fldp.Ledger(tmp_path / "ledger.jsonl", of) as book:
        book.record(fldp.Event(noise_multiplier=3.0), label="mean age")
    strategy = private(tmp_path, of)
    nodes = Nodes(range(40), ones)
    strategy.start(nodes, start())
    assert 0 < len(nodes.asked) < 5
    assert strategy.epsilon <= 4.0 * (1 + 1e-6)


def test_the_ledgers_guard_stops_a_release_that_it_does_not_afford(tmp_path) -> None:
    strategy, _, _ = one_round(tmp_path, plan(rounds=1))
    strategy.ledger.record(fldp.Event(noise_multiplier=1.0), label="meanwhile")
    with pytest.raises(ValueError, match="refused"):
        strategy.aggregate_train(1, [])


def test_a_round_is_released_once(tmp_path) -> None:
    strategy, _, _ = one_round(tmp_path, plan())
    with pytest.raises(ValueError, match="round 2 is not open"):
        strategy.aggregate_train(2, [])
    strategy.aggregate_train(1, [])
    with pytest.raises(ValueError, match="round 1 is not open"):
        strategy.aggregate_train(1, [])
    assert spent(tmp_path) == 1


# What is told.


def test_the_statement_says_who_and_how_much(tmp_path) -> None:
    strategy = private(tmp_path, plan())
    strategy.start(Nodes(range(40), ones), start(), num_rounds=2)
    told = " ".join(strategy.statement.split())
    assert told.startswith(" ".join(plan().statement().split()))
    assert "A client is a connected node" in told
    assert "The ledger holds 2 rounds and other releases" in told
    assert "SuperLink, its database and logs" in told
    assert max(map(len, strategy.statement.splitlines())) <= 76


def test_noise_of_a_generator_is_told(tmp_path) -> None:
    assert "seed" in private(tmp_path, plan(), noise=seeded()).statement


def test_logs_and_warnings_are_the_same_whoever_came(tmp_path, caplog, capsys) -> None:
    def partly(node: int, message: Message) -> Any:
        if node < 3:
            return Error(code=0, reason="secret of 3")
        return zeros(node, message) if node < 34 else None

    told = []
    for number, nodes in enumerate((Nodes(range(37), partly), Nodes(range(500), ones))):
        caplog.clear()
        with caplog.at_level(logging.INFO, "flwr"), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            strategy = private(tmp_path / str(number), plan(clients=500, cohort=None, rounds=2))
            strategy.start(nodes, start(), timeout=0.01)
        messages = [str(one.message) for one in warned if one.category is not ResourceWarning]
        told.append([caplog.text, messages, *capsys.readouterr()])
    assert told[0] == told[1]
    assert "round 2 of 2" in told[0][0]


def test_the_server_may_look_at_the_model_with_its_own_records(tmp_path) -> None:
    looked = []

    def look(number: int, arrays: ArrayRecord) -> MetricRecord:
        looked.append(number)
        return MetricRecord({"norm": float(np.linalg.norm(weights(arrays)))})

    result = private(tmp_path, plan()).start(Nodes(range(9), ones), start(), evaluate_fn=look)
    assert looked == [0, 1, 2, 3, 4, 5]
    assert result.evaluate_metrics_serverapp[0]["norm"] == 0


# Refusals.


def refused(match: str | None, *given: Any, **named: Any) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        Private(*given, **named)
    assert str(caught.value).count(". ") == 0, "one sentence"


def test_a_relative_path_is_refused(tmp_path) -> None:
    refused("ledger is 'ledger.jsonl': give an absolute", FedAvg(), plan(), ledger="ledger.jsonl")
    path = tmp_path / "ledger.jsonl"
    refused("checkpoint is 'c'", FedAvg(), plan(), ledger=path, checkpoint="c")
    assert not path.exists(), "refused before anything was made"


@pytest.mark.parametrize("trust", ["distributed", "local"])
def test_other_trust_is_refused(tmp_path, trust) -> None:
    more = {"min_survivors": 30} if trust == "distributed" else {}
    of = plan_of(1.0, 40, 5, trust=trust, adjacency="zero-out", **more)
    refused(f"trust is '{trust}'", FedAvg(), of, ledger=tmp_path / "ledger.jsonl")


@pytest.mark.parametrize("limit", [{"separation": 5}, {"participations": 1}])
@pytest.mark.parametrize("correlation", [None, "blt"])
def test_limits_on_participations_are_refused_before_anything_is_spent(
    tmp_path, limit, correlation
) -> None:
    """Nobody counts a node's rounds here: a plan that pays for few would be wrong."""
    path = tmp_path / "ledger.jsonl"
    of = plan(cohort=None, sampling="none", correlation=correlation, **limit)
    refused("separation is .* does not hold clients to limits", FedAvg(), of, ledger=path)
    # Nor is the noise of such a plan taken under another.
    noise = Correlated(of.correlation)
    refused("fresh noise in every round", FedAvg(), plan(), ledger=path, noise=noise)
    assert not path.exists(), "refused before anything was made"


def test_another_wrapper_for_privacy_is_refused(tmp_path) -> None:
    path = tmp_path / "ledger.jsonl"
    wrapped = DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 10)
    refused("no other wrapper", wrapped, plan(), ledger=path)
    refused("no other wrapper", private(tmp_path / "other", plan()), plan(), ledger=path)


@pytest.mark.parametrize(
    "named",
    [
        {"weight_total": 10.0},
        {"weight_cap": -1.0},
        {"min_nodes": 0},
        {"min_nodes": 41},
        {"clip": -1.0},
        {"noise": 1.0},
        {"roster": "key"},
        {"roster": ["key"]},
        {"roster": []},
    ],
    ids=repr,
)
def test_settings_that_go_together_with_nothing_are_refused(tmp_path, named) -> None:
    path = tmp_path / "ledger.jsonl"
    refused(None, FedAvg(), plan(), ledger=path, **named)
    assert not path.exists()
    refused("give a PrivacyPlan", FedAvg(), 4.0, ledger=path)


def test_more_nodes_than_clients_are_refused_before_the_coins(tmp_path) -> None:
    strategy = private(tmp_path, plan())
    with pytest.raises(ValueError, match="41 nodes are connected and the plan is for 40"):
        strategy.start(Nodes(range(41), ones), start())
    assert spent(tmp_path) == 0


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bn.running_mean", np.zeros(3, np.float32)),
        ("bn.num_batches_tracked", np.zeros((), np.int64)),
        ("half", np.zeros(3, np.float16)),
    ],
)
def test_buffers_are_refused(tmp_path, name, values) -> None:
    strategy = private(tmp_path, plan())
    with pytest.raises(ValueError, match="buffer"):
        strategy.start(Nodes(range(4), ones), record(values, name))
    assert spent(tmp_path) == 0


def test_a_second_writer_is_refused(tmp_path) -> None:
    strategy = private(tmp_path, plan())
    refused("writer already", FedAvg(), plan(), ledger=tmp_path / "ledger.jsonl")
    strategy.close()
    private(tmp_path, plan()).close()


def test_the_ledger_of_another_plan_is_refused(tmp_path) -> None:
    private(tmp_path, plan()).close()
    refused("another plan", FedAvg(), plan(rounds=6), ledger=tmp_path / "ledger.jsonl")


@pytest.mark.parametrize(
    "config",
    [
        {"ledger": "/x"},
        {"fldp-plan": "/x"},
        {"epsilon": 1000.0},
        {"dp.FLDP_PLAN": "/x"},
        {"place": None},
    ],
)
def test_a_run_whose_config_sets_the_operators_things_is_refused(tmp_path, config) -> None:
    strategy = private(tmp_path, plan())
    nodes = Nodes(range(40), ones)
    config = {k: v or str(tmp_path / "ledger.jsonl") for k, v in config.items()}
    nodes.run = SimpleNamespace(override_config=config)
    with pytest.raises(ValueError, match="the operator sets plan and ledger"):
        strategy.start(nodes, start())
    assert nodes.asked == []
    nodes.run = SimpleNamespace(override_config={"lr": 0.1})
    strategy.start(nodes, start(), num_rounds=1)


def test_a_ledger_that_is_the_checkpoint_is_refused(tmp_path) -> None:
    path = tmp_path / "ledger.jsonl"
    (tmp_path / "again").symlink_to(path)
    refused("two paths", FedAvg(), plan(), ledger=path, checkpoint=tmp_path / "again")


@pytest.mark.parametrize("how", [copy.deepcopy, copy.copy, pickle.dumps], ids=lambda f: f.__name__)
def test_a_copy_is_refused(tmp_path, how) -> None:
    with pytest.raises(ValueError, match="not copied or pickled"):
        how(private(tmp_path, plan()))


def test_an_inner_strategy_that_trains_nobody_is_refused(tmp_path) -> None:
    strategy = private(tmp_path, plan(), FedAvg(fraction_train=0.0, fraction_evaluate=0.0))
    with pytest.raises(ValueError, match="fraction_train above 0"):
        strategy.start(Nodes(range(4), ones), start())


def test_what_the_plan_does_not_account_for_is_refused_before_the_coins(tmp_path) -> None:
    class Wrong(fldp.FlatClip):
        def joint(self, z: float, count_noise: float, adjacency: str) -> float:
            return 2 * z

    strategy = private(tmp_path, plan(), clip=Wrong(1.0))
    with pytest.raises(ValueError, match="the plan accounts for"):
        strategy.start(Nodes(range(4), ones), start())
    assert spent(tmp_path) == 0


# Planted faults: the tests above see them.


class AfterTheOptimiser(Private):
    """The inner strategy steps on the plain mean; the noise comes afterwards."""

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        std = self.plan.noise_multiplier
        silent = PrivateAggregator.release

        def release(aggregator: Any, *given: Any) -> Any:
            aggregator._server.std = 0.0
            return silent(aggregator, *given)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PrivateAggregator, "release", release)
            stepped, _ = super().aggregate_train(server_round, replies)
        noisy = weights(stepped) + std / self.plan.denominator * np.random.randn(SIZE)  # noqa: NPY002
        return record(noisy.astype(np.float32)), None


def test_noise_after_the_optimiser_is_seen(tmp_path) -> None:
    of = plan(cohort=None, rounds=1)
    inner = INNER["FedAdam"]()
    seen = seen_by(inner)
    faulty = AfterTheOptimiser(inner, of, 1.0, ledger=tmp_path / "ledger.jsonl")
    faulty.start(Nodes(range(40), zeros), start())
    assert np.ptp(seen[0]) == 0, "the optimiser saw the mean without noise"
    sound = INNER["FedAdam"]()
    seen = seen_by(sound)
    private(tmp_path / "sound", of, sound).start(Nodes(range(40), zeros), start())
    assert np.ptp(seen[0]) > 0


def test_a_denominator_by_replies_is_seen(tmp_path, monkeypatch) -> None:
    release = PrivateAggregator.release

    def by_replies(self: Any, *given: Any) -> Any:
        self._server.denominator = float(max(1, self._server._count))
        return release(self, *given)

    monkeypatch.setattr(PrivateAggregator, "release", by_replies)
    with pytest.raises(AssertionError):
        test_half_of_the_cohort_moves_the_mean_half_as_far(tmp_path)
    with pytest.raises(AssertionError):
        test_absent_nodes_weaken_no_noise_and_move_no_denominator(tmp_path / "2", 4)


def test_a_second_event_and_none_are_seen(tmp_path, monkeypatch) -> None:
    write = fldp.Ledger.record
    for number, times in enumerate((2, 0)):

        def repeated(self: Any, *given: Any, times: int = times) -> None:
            for _ in itertools.repeat(None, times):
                write(self, *given)

        monkeypatch.setattr(fldp.Ledger, "record", repeated)
        with pytest.raises(AssertionError):
            test_the_whole_run_stays_within_the_plan(tmp_path / str(number))


def test_a_late_reply_that_counts_is_seen(tmp_path, monkeypatch) -> None:
    add = Private._add

    def lenient(self: Any, reply: Message, aggregator: Any) -> None:
        message = self._waiting.get(reply.metadata.src_node_id)
        if message is not None:
            name = message.metadata.message_id
            reply.metadata.__dict__["_reply_to_message_id"] = name
        add(self, reply, aggregator)

    monkeypatch.setattr(Private, "_add", lenient)
    with pytest.raises(AssertionError):
        test_a_reply_to_an_earlier_round_counts_zero(tmp_path)
