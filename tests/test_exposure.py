"""plan.exposure: bets and odds against the exact laws of losses, and never better than true."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

import fldp
from fldp.accounting import Event, Laplace
from fldp.plan.exposure import Exposure, exposures


def plan_of(**settings: object) -> fldp.PrivacyPlan:
    given = {"epsilon": 4.0, "delta": 1e-5, "rounds": 20, "clients": 100}
    return fldp.calibrate(**(given | settings))


def named(found: list[Exposure], name: str) -> Exposure:
    return next(each for each in found if each.name == name)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_a_bet_on_one_gaussian_is_won_as_often_as_the_best_test_wins(epsilon: float) -> None:
    plan = plan_of(epsilon=epsilon)
    found = exposures(plan)
    # Two Gaussians μ apart: the best test says which side of the middle, and is right Φ(μ/2).
    assert named(found, "observer").bet == pytest.approx(norm.cdf(plan.gdp_mu / 2), abs=1e-9)
    assert named(found, "record").bet == pytest.approx(norm.cdf(plan.gdp_mu), abs=1e-9)


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 8.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_the_exceptional_runs_are_no_more_than_said(epsilon: float, delta: float) -> None:
    plan = plan_of(epsilon=epsilon, delta=delta)
    said = exposures(plan)[0]
    mu, most = plan.gdp_mu, math.log(said.factor)
    # The loss of a run is normal with mean μ²/2 and standard deviation μ, in either world.
    beyond = norm.sf((most - mu**2 / 2) / mu) + norm.cdf((-most - mu**2 / 2) / mu)
    assert beyond <= said.exceptions
    assert said.exceptions <= 0.1
    # One that said so of δ would be wrong: the bound is not that the loss exceeds ε at most by δ.
    assert norm.sf((plan.epsilon() - mu**2 / 2) / mu) > delta


def test_who_knows_more_or_has_more_finds_out_more() -> None:
    plan = plan_of(cohort=20)
    found = exposures(plan, group=2)
    assert [each.name for each in found] == ["observer", "record", "cohort known", "group"]
    first = found[0]
    for each in found[1:]:
        assert each.epsilon > first.epsilon
        assert each.bet > first.bet
    known = plan.cohort_known()["epsilon"]
    assert named(found, "cohort known").epsilon == pytest.approx(known)
    assert named(found, "group").epsilon == pytest.approx(plan.group(2))


@pytest.mark.parametrize("cap", [None, 50])
def test_a_seed_is_accounted_as_the_plan_accounts_it(cap: int | None) -> None:
    plan = plan_of(cohort=20, cap=cap)
    found = exposures(plan, participations=8)
    assert found[0].epsilon == pytest.approx(plan.seeded_epsilon(8))
    assert [each.name for each in found] == ["observer", "record"]
    assert exposures(plan, participations=0)[0].epsilon == 0


def test_what_nobody_can_account_has_no_bound() -> None:
    plan = plan_of()
    found = exposures(plan, [*plan.events(), Laplace(10.0)], group=3)
    assert found[0].epsilon > plan.epsilon()
    for each in found[1:]:
        assert math.isinf(each.epsilon)
        assert each.bet == 1


def test_odds_beyond_every_number_have_no_bound() -> None:
    loud = fldp.plan.PrivacyPlan(
        0.05, 1e-5, 20, 100, 20.0, "poisson", "central", "add-or-remove", "pld", 8.0
    )
    first = exposures(loud)[0]
    assert first.epsilon > 700
    assert first.factor == math.inf


def test_a_bet_on_one_sampled_round_is_the_exact_one() -> None:
    for adjacency, moved in (("add-or-remove", 1), ("zero-out", 1), ("replace-one", 2)):
        plan = plan_of(rounds=1, cohort=20, adjacency=adjacency)
        apart = 0.2 * (2 * norm.cdf(moved / 2 / plan.noise_multiplier) - 1)
        assert exposures(plan)[0].bet == pytest.approx((1 + apart) / 2, abs=1e-6)


def test_nothing_is_found_out_of_nothing() -> None:
    first = exposures(plan_of(), [])[0]
    assert (first.epsilon, first.bet) == (0.0, 0.5)


def test_a_bet_simulated_is_won_no_more_often() -> None:
    plan = plan_of(epsilon=2.0, rounds=5)
    said = exposures(plan)[0]
    draw = np.random.default_rng(0)
    there = draw.integers(0, 2, 20_000)
    noise = plan.noise_multiplier * draw.standard_normal((20_000, 5))
    seen = (there[:, None] + noise).sum(axis=1)
    won = np.mean((seen > 5 / 2) == there)
    # A share of 20,000 coins is off by .011 in less than one run of 500.
    assert abs(won - said.bet) < 0.011
    wrong = exposures(plan, [Event(2 * plan.noise_multiplier, rounds=5)])[0]
    assert won > wrong.bet + 0.011
