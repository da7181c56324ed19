"""A server's half: what it takes from elsewhere is bounded again, paid for, and released once."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fldp
from fldp.mechanism.adaptive import AdaptiveClip
from fldp.mechanism.collection import Collection
from fldp.mechanism.contribution import Contribution, Message
from fldp.mechanism.noise import Gaussian

LIKE = {"a": torch.zeros(2), "b": torch.zeros(3)}


def plan_for(clients: int = 20, **changes: Any) -> fldp.PrivacyPlan:
    asked = {"epsilon": 8.0, "delta": 1e-3, "rounds": 3, "clients": clients} | changes
    return fldp.calibrate(**asked)


def rows(count: int = 20) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("clip", [0.7, fldp.PerLayerClip([0.3, 0.4]), AdaptiveClip(0.7)])
@pytest.mark.parametrize("cap", [None, 2.5])
def test_two_processes_release_what_a_simulation_releases(clip: Any, cap: float | None) -> None:
    """The halves apart, a pickle between them, against both in one object."""
    plan = plan_for()
    weights = [None] * 20 if cap is None else torch.linspace(0, 4, 20).tolist()
    noise = Gaussian(torch.Generator().manual_seed(3))
    server = Collection(plan, LIKE, copy.deepcopy(clip), weight_cap=cap, noise=noise)
    client = Contribution(LIKE, clip, weight_cap=cap, room=server.room)
    for number, row in enumerate(rows()):
        message = pickle.loads(pickle.dumps(client.encode(row, weights[number])))
        server.receive(message, client=number)
    apart = server.release()
    together = fldp.aggregate(
        rows(),
        plan,
        copy.deepcopy(clip),
        like=LIKE,
        weights=None if cap is None else weights,
        weight_cap=cap,
        generator=torch.Generator().manual_seed(3),
    )
    for name in LIKE:
        assert torch.allclose(apart.mean[name], together.mean[name], rtol=1e-4, atol=1e-6)
    assert apart.unclipped == together.unclipped
    assert apart.event == together.event
    assert apart.private.clipped_fraction == together.private.clipped_fraction


HOSTILE: list[Any] = [
    Message(torch.full((5,), 1e30), 1),
    Message(torch.full((5,), float("nan")), 1),
    Message(torch.full((5,), float("inf")), -1),
    Message(torch.ones(5), 10**9),
    Message(torch.zeros(10**6).to_sparse(), 1),
    Message(torch.zeros(4), 1),
    Message("a vector", 1),  # type: ignore[arg-type]
    Message(torch.ones(5), "x"),  # type: ignore[arg-type]
    torch.ones(5),
    None,
]


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("clip", [0.7, AdaptiveClip(0.7)])
def test_no_message_moves_the_sum_by_more_than_c(message: Any, clip: Any) -> None:
    sums = []
    for hostile in (False, True):
        server = Collection(plan_for(), LIKE, copy.deepcopy(clip))
        client = Contribution(LIKE, clip, room=server.room)
        for number, row in enumerate(rows(19)):
            server.receive(client.encode(row), client=number)
        if hostile:
            server.receive(message, client="late")
        bits = server._diagnostics()[1] / 2
        sums.append((server._sum.read().double(), bits))
        release = server.release()
        assert all(bool(torch.isfinite(part).all()) for part in release.mean.values())
        assert release.private.count == 19 + hostile
    (honest, honest_bits), (moved, moved_bits) = sums
    assert float((honest - moved).norm()) <= 0.7
    assert abs(honest_bits - moved_bits) <= 0.5


def test_a_sender_counts_once_and_no_more_come_than_the_plan_accounts() -> None:
    server = Collection(plan_for(2), LIKE)
    message = Contribution(LIKE).encode(torch.ones(5))
    server.receive(message, client="a")
    server.receive(message, client="a")
    server.receive(message, client="b")
    with pytest.raises(ValueError, match="at most 2 clients"):
        server.receive(message, client="c")
    release = server.release()
    assert release.private.count == 2
    assert release.private.malformed == 1
    with pytest.raises(ValueError, match="has released"):
        server.receive(message)
    with pytest.raises(ValueError, match="not copied or pickled"):
        copy.deepcopy(Collection(plan_for(2), LIKE))


def test_a_ledger_is_written_before_the_release_and_ends_the_budget(tmp_path: Path) -> None:
    plan = plan_for(rounds=2)
    path = tmp_path / "ledger.jsonl"
    with fldp.Ledger(path, plan) as ledger:
        for number in (1, 2):
            release = fldp.aggregate(rows(), plan, 1.0, ledger=ledger, round=number)
            assert ledger.entries[-1].round == number
            assert ledger.events[-1] == release.event
        with pytest.raises(ValueError, match="beyond ε = 8"):
            fldp.aggregate(rows(), plan, 1.0, ledger=ledger, round=3)
        assert len(ledger.events) == 2


def test_a_message_that_overrides_its_norm_is_clipped_all_the_same() -> None:
    class Liar(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            found = super().__torch_function__(func, types, args, kwargs or {})
            return found * 0 if "norm" in func.__name__ else found

    server = Collection(plan_for(), torch.zeros(4), clip=1.0)
    server.receive(Message(torch.full((4,), 1e6).as_subclass(Liar), 1))
    assert float(server._sum.read().norm()) <= 1


def test_a_message_may_be_written_to_while_it_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory that its sender shares, between the pass for its norm and the pass for its sum."""
    server = Collection(plan_for(), torch.zeros(4), clip=1.0)
    vector = torch.full((4,), 0.1)
    add = server.add

    def written_to(bounded: Any) -> None:
        vector.fill_(1e6)
        add(bounded)

    monkeypatch.setattr(server, "add", written_to)
    server.receive(Message(vector, 1))
    assert float(server._sum.read().norm()) <= 1


def test_an_honest_message_of_a_large_weight_arrives_whole() -> None:
    """C·cap of 1e14 lies beyond the size at which a stranger's update is scaled down first."""
    client = Contribution(torch.zeros(4), 1e7, weight_cap=1e7)
    server = Collection(plan_for(), torch.zeros(4), 1e7, weight_cap=1e7)
    message = client.encode(torch.full((4,), 1e9), 1e7)
    server.receive(message)
    assert float(server._sum.read().norm()) == pytest.approx(1e14, rel=1e-3)


def test_the_noise_of_a_half_precision_cap_is_that_of_its_value() -> None:
    """Products with numpy's float16 stay in float16: noise up to 0.05 % below the accounted."""
    plan = plan_for()
    cap = np.float16(10.3)
    for given in (cap, np.float32(cap)):
        server = Collection(plan, torch.zeros(4), weight_cap=given, weight_total=np.float16(99.0))
        assert type(server.std) is type(server.denominator) is float
        assert server.std == plan.noise_multiplier * float(cap)
    clip = fldp.FlatClip(1.0)
    clip.norm = np.float16(0.3)  # type: ignore[assignment]
    assert Collection(plan, torch.zeros(4), clip).std == plan.noise_multiplier * float(clip.norm)


def test_two_rounds_at_once_cannot_share_what_a_ledger_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both asked before either recorded, and both released: ε = 3.0 where 2 were left."""
    plan = plan_for(epsilon=2.0, rounds=1)
    asked = threading.Barrier(2)
    affords = fldp.PrivacyPlan.affords

    def slow(self: Any, events: Any) -> bool:
        answer = affords(self, events)
        with contextlib.suppress(threading.BrokenBarrierError):
            asked.wait(0.5)
        return answer

    monkeypatch.setattr(fldp.PrivacyPlan, "affords", slow)
    released: list[Any] = []

    def release(ledger: Any) -> None:
        server = Collection(plan, torch.zeros(4))
        with contextlib.suppress(ValueError):
            released.append(server.release(ledger, 1))

    with fldp.Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        both = [threading.Thread(target=release, args=(ledger,)) for _ in range(2)]
        for each in both:
            each.start()
        for each in both:
            each.join()
        assert len(released) == len(ledger.entries) == 1
        assert ledger.epsilon() <= 2.0 * (1 + 1e-6)


def test_a_ledger_is_a_ledger() -> None:
    for wrong in ("ledger.jsonl", 5):
        with pytest.raises(ValueError, match=r"give a fldp.Ledger\(path, plan\), or None"):
            fldp.aggregate(rows(), plan_for(), ledger=wrong)  # type: ignore[arg-type]
