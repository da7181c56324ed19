"""Samplers: the rates they promise, and a plan accepts only what it accounted for."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fldp
from fldp.simulation.draws import Draws
from fldp.simulation.sampling import (
    Everyone,
    FixedSize,
    MinSeparation,
    Poisson,
    Sampler,
    _smallest,
    check_sampler,
    drawn,
    for_plan,
)


def plan(**changes: Any) -> Any:
    facts = {
        "sampling": "poisson", "clients": 480, "cohort": 120.0, "cap": None,
        "adjacency": "add-or-remove", "separation": None,
    }  # fmt: skip
    facts.update(changes)
    return SimpleNamespace(**facts, sampling_rate=facts["cohort"] / facts["clients"])


def test_poisson_is_independent_and_may_be_empty() -> None:
    rounds, drawn_rows = 4000, Draws(0)
    rows = torch.zeros(rounds, 20)
    for t, row in enumerate(rows):
        row[Poisson(0.1).sample(20, drawn_rows, t)] = 1
    assert abs(float(rows.mean()) - 0.1) < 5 * (0.09 / rows.numel()) ** 0.5
    assert abs(float(rows.sum(1).var()) - 20 * 0.09) < 0.3
    empty = float((rows.sum(1) == 0).double().mean())
    assert abs(empty - 0.9**20) < 0.03
    assert Poisson(1.0).sample(7, drawn_rows).tolist() == list(range(7))


def test_the_cap_holds_and_keeps_a_uniform_subset() -> None:
    draws, seen = Draws(0), torch.zeros(30)
    for t in range(2000):
        ids = Poisson(0.5, 5).sample(30, draws, t)
        assert len(ids) <= 5
        assert ids.tolist() == sorted(set(ids.tolist()))
        seen[ids] += 1
    assert float(seen.std() / seen.mean()) < 0.12


def test_fixed_size_is_a_uniform_subset() -> None:
    draws, seen = Draws(1), torch.zeros(20)
    for t in range(2000):
        ids = FixedSize(7).sample(20, draws, t)
        assert len(set(ids.tolist())) == 7
        assert ids.tolist() == sorted(ids.tolist())
        seen[ids] += 1
    # 700 rounds a client expected, standard deviation 21: a false alarm in 10,000 runs at 4.5.
    assert float((seen - 700).abs().max()) < 4.5 * 21.3
    assert FixedSize(20).sample(20, draws).tolist() == list(range(20))


def test_equal_words_are_settled_by_the_second() -> None:
    first = np.array([3, 1, 1, 1, 0], np.uint64)
    second = np.array([0, 9, 2, 5, 7], np.uint64)
    assert set(_smallest(first, second, 3).tolist()) == {4, 2, 3}
    assert set(_smallest(first, second, 1).tolist()) == {4}


def test_everyone_and_separation() -> None:
    draws = Draws(0)
    assert Everyone().sample(4, draws).tolist() == [0, 1, 2, 3]
    sampler = MinSeparation(4)
    rounds = [set(sampler.sample(50, draws, t).tolist()) for t in range(10)]
    assert set.union(*rounds[:4]) == set(range(50))
    assert sum(len(r) for r in rounds[:4]) == 50
    assert rounds[4:8] == rounds[:4]
    assert sampler.participations(10) == 3
    assert set(MinSeparation(4).sample(30, draws).tolist()) == {i for i in rounds[0] if i < 30}


def test_separation_alone_keeps_slots_of_its_own() -> None:
    sampler = MinSeparation(4)
    rounds = [set(sampler.sample(50, None, t).tolist()) for t in range(8)]
    assert rounds[4:] == rounds[:4]
    assert set.union(*rounds[:4]) == set(range(50))
    again = MinSeparation(4)
    assert set(again.sample(50).tolist()) != rounds[0]
    again.load_state_dict(sampler.state_dict())
    assert set(again.sample(50).tolist()) == rounds[0]
    fixed = [set(MinSeparation(4, seed=3).sample(50, Draws(k), 1).tolist()) for k in range(2)]
    assert fixed[0] == fixed[1]


@pytest.mark.parametrize(("facts", "sampler"), [
    ({}, Poisson(0.25)),
    ({"cap": 150}, Poisson(0.25, 150)),
    ({"sampling": "fixed", "adjacency": "replace-one"}, FixedSize(120)),
    ({"sampling": "none", "cohort": 480}, Everyone()),
    ({"sampling": "none"}, Poisson(0.25)),
])  # fmt: skip
def test_a_plan_names_its_sampler(facts: dict[str, Any], sampler: Sampler) -> None:
    assert for_plan(plan(**facts)) == sampler
    assert sampler.matches(plan(**facts))


@pytest.mark.parametrize(("facts", "sampler"), [
    ({}, Poisson(0.26)),
    ({}, Poisson(0.25, 150)),
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


def limited(**changes: Any) -> Any:
    facts: dict[str, Any] = {
        "epsilon": 8.0, "delta": 1e-3, "rounds": 64, "clients": 480, "sampling": "none",
        "separation": 8,
    }  # fmt: skip
    return fldp.calibrate(**facts | changes)


def test_a_plan_that_limits_participations_names_its_sampler() -> None:
    assert for_plan(limited()) == MinSeparation(8)
    assert for_plan(limited(cohort=30)) == MinSeparation(8, rate=0.5)
    # At most four times in 64 rounds: every sixteenth round.
    assert for_plan(limited(participations=4)) == MinSeparation(16)
    coins = limited(sampling="poisson", cohort=30, correlation="banded")
    assert for_plan(coins) == MinSeparation(8, rate=0.5)
    for plan in (limited(), limited(cohort=30), limited(participations=4), coins):
        assert for_plan(plan).matches(plan)


@pytest.mark.parametrize(
    "sampler",
    [
        MinSeparation(7),
        MinSeparation(8, rate=0.5),
        MinSeparation(16),
        Poisson(0.125),
        Everyone(),
        FixedSize(60),
    ],
    ids=repr,
)
def test_a_plan_that_limits_participations_refuses_other_samplers(sampler: Sampler) -> None:
    assert not sampler.matches(limited())


def test_the_seed_of_slots_tosses_no_coins() -> None:
    sampler, whole = MinSeparation(4, seed=3, rate=0.5), MinSeparation(4, seed=3)
    come = [set(sampler.sample(200, Draws(key), 1).tolist()) for key in range(2)]
    alone = [set(sampler.sample(200, None, 1).tolist()) for _ in range(2)]
    turn = set(whole.sample(200, Draws(9), 1).tolist())
    # About 50 coins each: two rounds agree on all with a chance of 2^-50.
    assert come[0] != come[1]
    assert alone[0] != alone[1]
    assert set.union(*come, *alone) <= turn


def test_turns_that_are_too_many_are_refused_and_fewer_are_not() -> None:
    assert not MinSeparation(8).matches(limited(participations=4, cohort=30))
    assert MinSeparation(16).matches(limited(participations=4, cohort=30))
    # Without limits in the plan coins in a slot bring fewer than N/b.
    assert not MinSeparation(4, rate=0.5).matches(plan(sampling="none"))


def test_coins_in_a_slot_are_a_clients_own() -> None:
    sampler, draws = MinSeparation(4, rate=0.5), Draws(3)
    every = MinSeparation(4)
    taken, turns = 0, 0
    for t in range(400):
        come = set(sampler.sample(40, draws, t).tolist())
        assert come <= set(every.sample(40, draws, t).tolist())
        assert come & set(range(10)) == set(sampler.sample(10, draws, t).tolist())
        taken += len(come)
        turns += len(every.sample(40, draws, t))
    # False alarm below 1e-6: five standard deviations.
    assert abs(taken - turns / 2) < 5 * (turns / 4) ** 0.5


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Poisson(0.0), "rate"), (lambda: Poisson(1.2), "rate"),
    (lambda: Poisson(float("nan")), "rate"), (lambda: Poisson(0.1, 0), "cap"),
    (lambda: FixedSize(0), "cohort"), (lambda: FixedSize(2.5), "cohort"),
    (lambda: MinSeparation(4, rate=0.0), "rate is 0.0"),
    (lambda: MinSeparation(0), "separation"), (lambda: FixedSize(9).sample(8), "only 8 clients"),
])  # fmt: skip
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_samplers_compare_by_value() -> None:
    assert dataclasses.replace(Poisson(0.1), rate=0.2) == Poisson(0.2)


def test_p03_a_clients_coin_does_not_depend_on_who_else_is_there() -> None:
    draws = Draws(5)
    for t in range(20):
        many, few = (set(Poisson(0.3).sample(n, draws, t).tolist()) for n in (1000, 37))
        assert few == {i for i in many if i < 37}


def test_p03_a_coin_compares_whole_numbers_and_is_never_too_likely() -> None:
    class Fixed(Draws):
        def words(self, *question: Any, **more: Any) -> np.ndarray:
            return np.array([[0, 0], [2**62 - 1, 0], [2**62, 0], [2**64 - 1, 0]], np.uint64)

    assert Poisson(0.25).sample(4, Fixed()).tolist() == [0, 1]
    assert Poisson(1.0).sample(4, Fixed()).tolist() == [0, 1, 2, 3]
    assert Poisson(1e-300).sample(4, Fixed()).tolist() == []
    assert Poisson(1 - 2**-53).sample(4, Fixed()).tolist() == [0, 1, 2]


class Twice(Sampler):
    def sample(self, clients: int, draws: Any = None, round: int = 0) -> Tensor:
        return torch.tensor(self.found)

    def __init__(self, found: Any) -> None:
        self.found = found


@pytest.mark.parametrize("found", [
    [1, 1, 2], [2, 1], [-1, 0], [0, 5], [0.0, 1.0], [[0, 1]], [True, False],
])  # fmt: skip
def test_p13_a_cohort_that_is_none_is_refused(found: Any) -> None:
    with pytest.raises(ValueError, match="a client counts once"):
        drawn(Twice(found), 5, Draws(), 0)
    for good in ([], [0], [0, 4], list(range(5))):
        assert drawn(Twice(good), 5, Draws(), 0).tolist() == good


def test_p03_a_sampler_that_cannot_be_told_the_round_is_refused() -> None:
    class Old(Poisson):
        def sample(self, clients: int, generator: Any = None) -> Tensor:  # type: ignore[override]
            return super().sample(clients, generator)

    with pytest.raises(ValueError, match="write sample"):
        check_sampler(Old(0.5))
    check_sampler(Poisson(0.5))


def test_p03_a_sampler_that_forgets_the_round_is_refused() -> None:
    """It would draw the first cohort again and again, accounted as if they were independent."""

    class Forgetful(Poisson):
        def sample(self, clients: int, draws: Any = None, round: int = 0) -> Tensor:
            return super().sample(clients, draws)

    draws = Draws(0)
    drawn(Forgetful(0.5), 20, draws, 0)
    with pytest.raises(ValueError, match="drew the cohort of round 0 in round 1"):
        drawn(Forgetful(0.5), 20, draws, 1)
    drawn(Poisson(0.5), 20, draws, 1)


def test_p03_draws_are_secret_unless_they_are_given() -> None:
    for sampler in (Poisson(0.5), FixedSize(20), Poisson(0.9, 10)):
        torch.manual_seed(0)
        one = sampler.sample(60)
        torch.manual_seed(0)
        assert not torch.equal(one, sampler.sample(60))


def test_a_torch_generator_gives_a_key_and_moves_on() -> None:
    g = [torch.Generator().manual_seed(3) for _ in range(2)]
    first, again = (Poisson(0.5).sample(60, each) for each in g)
    assert torch.equal(first, again)
    assert not torch.equal(first, Poisson(0.5).sample(60, g[0]))
