"""Samplers: the rates they promise, and a plan accepts only what it accounted for."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fldp.accounting import Event
from fldp.sampling import (
    CappedPoisson,
    Everyone,
    FixedSize,
    MinSeparation,
    Poisson,
    Sampler,
    for_plan,
)


def plan(**changes: Any) -> Any:
    facts = {
        "sampling": "poisson", "clients": 480, "cohort": 120.0, "cap": None,
        "adjacency": "add-or-remove",
    }  # fmt: skip
    facts.update(changes)
    return SimpleNamespace(**facts, sampling_rate=facts["cohort"] / facts["clients"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_poisson_is_independent_and_may_be_empty() -> None:
    g, rounds = generator(), 4000
    draws = torch.zeros(rounds, 20)
    for row in draws:
        row[Poisson(0.1).sample(20, g)] = 1
    assert abs(float(draws.mean()) - 0.1) < 5 * (0.09 / draws.numel()) ** 0.5
    assert abs(float(draws.sum(1).var()) - 20 * 0.09) < 0.3
    empty = float((draws.sum(1) == 0).double().mean())
    assert abs(empty - 0.9**20) < 0.03
    assert Poisson(1.0).sample(7, g).tolist() == list(range(7))


def test_the_cap_holds_and_keeps_a_uniform_subset() -> None:
    g, seen = generator(), torch.zeros(30)
    for _ in range(2000):
        ids = CappedPoisson(0.5, 5).sample(30, g)
        assert len(ids) <= 5
        assert ids.tolist() == sorted(set(ids.tolist()))
        seen[ids] += 1
    assert float(seen.std() / seen.mean()) < 0.12


def test_fixed_size_everyone_and_separation() -> None:
    g = generator()
    ids = FixedSize(7).sample(20, g)
    assert len(set(ids.tolist())) == 7
    assert Everyone().sample(4, g).tolist() == [0, 1, 2, 3]
    sampler = MinSeparation(4)
    rounds = [set(sampler.sample(50, g).tolist()) for _ in range(10)]
    assert set.union(*rounds[:4]) == set(range(50))
    assert sum(len(r) for r in rounds[:4]) == 50
    assert rounds[4:8] == rounds[:4]
    assert sampler.participations(10) == 3
    again = MinSeparation(4)
    again.load_state_dict({"round": 8})
    assert set(again.sample(50, g).tolist()) == rounds[0]
    assert set(MinSeparation(4).sample(30).tolist()) == {i for i in rounds[0] if i < 30}


@pytest.mark.parametrize(("facts", "sampler"), [
    ({}, Poisson(0.25)),
    ({"cap": 150}, CappedPoisson(0.25, 150)),
    ({"sampling": "fixed", "adjacency": "replace-one"}, FixedSize(120)),
    ({"sampling": "none", "cohort": 480}, Everyone()),
    ({"sampling": "none"}, Poisson(0.25)),
])  # fmt: skip
def test_a_plan_names_its_sampler(facts: dict[str, Any], sampler: Sampler) -> None:
    assert for_plan(plan(**facts)) == sampler
    assert sampler.matches(plan(**facts))


@pytest.mark.parametrize(("facts", "sampler"), [
    ({}, Poisson(0.26)),
    ({}, CappedPoisson(0.25, 150)),
    ({"cap": 150}, Poisson(0.25)),
    ({}, FixedSize(120)),
    ({}, Everyone()),
    ({}, MinSeparation(4)),
    ({"sampling": "fixed", "adjacency": "replace-one"}, Poisson(0.25)),
    ({"sampling": "none"}, FixedSize(120)),
    ({"sampling": "none"}, Everyone()),
])  # fmt: skip
def test_a_plan_refuses_other_samplers(facts: dict[str, Any], sampler: Sampler) -> None:
    assert not sampler.matches(plan(**facts))


def test_separation_fits_a_plan_without_amplification() -> None:
    assert MinSeparation(4).matches(plan(sampling="none"))
    assert FixedSize(120).matches(plan(sampling="none", adjacency="zero-out"))


def test_events() -> None:
    assert Poisson(0.25).event(1.5, 480) == Event(1.5, 0.25, "poisson", 1, 480)
    assert CappedPoisson(0.25, 150).event(1.5, 480) == Event(1.5, 0.25, "poisson", 1, 480, 150)
    assert FixedSize(120).event(1.5, 480) == Event(1.5, 0.25, "fixed", 1, 480)
    for sampler in (Everyone(), MinSeparation(3)):
        assert sampler.event(1.5, 480) == Event(1.5)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Poisson(0.0), "rate"), (lambda: Poisson(1.2), "rate"),
    (lambda: Poisson(float("nan")), "rate"), (lambda: CappedPoisson(0.1, 0), "cap"),
    (lambda: FixedSize(0), "cohort"), (lambda: FixedSize(2.5), "cohort"),
    (lambda: MinSeparation(0), "separation"), (lambda: FixedSize(9).sample(8), "only 8 clients"),
])  # fmt: skip
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_samplers_compare_by_value() -> None:
    assert dataclasses.replace(Poisson(0.1), rate=0.2) == Poisson(0.2)
