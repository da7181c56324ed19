"""accounting.divergences: the curves of a plan against closed forms, and its export."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import special, stats

import fldp
from fldp import accounting

ALPHAS = [0.0, 1e-6, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0]
SETTINGS = {"epsilon": 2.0, "delta": 1e-5, "rounds": 20, "clients": 1000, "cohort": 50}


def test_the_curve_of_a_plain_gaussian_is_exact() -> None:
    plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=100)
    mu = math.sqrt(15) / plan.noise_multiplier
    epsilons = [0.0, 0.1, 1.0, 3.0]
    exact = [accounting.gaussian_delta(mu, e) for e in epsilons]
    assert plan.curve(epsilons) == pytest.approx(exact, rel=1e-9)
    assert float(plan.curve(1.0)) == pytest.approx(1e-5, rel=1e-6)


@pytest.mark.parametrize(
    "change", [{}, {"trust": "distributed", "min_survivors": 40}, {"adjacency": "replace-one"}]
)
def test_the_curve_falls_and_passes_through_the_plan(change: dict) -> None:
    plan = fldp.calibrate(**SETTINGS | change)
    found = plan.curve([0.0, 0.5, 1.0, 2.0, 3.0])
    assert (np.diff(found) < 0).all()
    assert 0.99 * 1e-5 < plan.curve([plan.epsilon()])[0] <= 1e-5 * (1 + 1e-3)


def test_the_tradeoff_of_a_plain_gaussian_lies_below_the_exact_one_and_near() -> None:
    plan = fldp.calibrate(epsilon=2.0, delta=1e-5, rounds=15, clients=100)
    mu = math.sqrt(15) / plan.noise_multiplier
    exact = stats.norm.cdf(stats.norm.ppf(1 - np.array(ALPHAS)) - mu)
    found = plan.tradeoff(ALPHAS)
    assert (found <= exact + 1e-9).all()
    assert found == pytest.approx(exact, abs=1e-3)


def test_the_tradeoff_of_sums_is_a_convex_curve_below_guessing() -> None:
    plan = fldp.calibrate(**SETTINGS, trust="distributed", min_survivors=40)
    alphas = np.linspace(0, 1, 101)
    found = plan.tradeoff(alphas)
    assert (found <= 1 - alphas + 1e-12).all()
    assert (np.diff(found, 2) >= -1e-9).all()
    assert found[0] > 0.999


ORDERS = [1.25, 2.0, 4.5, 16.0, 64.0]


@pytest.mark.parametrize(("z", "q"), [(1.0, 0.05), (0.5, 0.3), (5.0, 0.01), (30.0, 0.5)])
def test_renyi_divergences_are_those_of_opacus(z: float, q: float) -> None:
    from opacus.accountants.analysis import rdp

    plan = dataclasses.replace(
        fldp.calibrate(**SETTINGS | {"cohort": 1000 * q}), noise_multiplier=z
    )
    theirs = rdp.compute_rdp(q=q, noise_multiplier=z, steps=20, orders=ORDERS)
    assert plan.renyi(ORDERS) == pytest.approx(theirs, rel=1e-6)


def test_renyi_divergences_of_known_cohorts_are_those_of_the_mixture() -> None:
    plan = fldp.calibrate(**SETTINGS, trust="distributed", min_survivors=40)
    k = np.arange(21)
    law = stats.binom.logpmf(k, 20, 0.05)
    for order in ORDERS:
        moment = special.logsumexp(law + order * (order - 1) * k / plan.noise_multiplier**2 / 2)
        assert float(plan.renyi(order)) == pytest.approx(moment / (order - 1), rel=1e-9)


@pytest.mark.parametrize("change", [{"cap": 90}, {"sampling": "fixed", "adjacency": "replace-one"}])
def test_renyi_divergences_imply_no_less_than_the_account(change: dict) -> None:
    plan = fldp.calibrate(**SETTINGS | change)
    order = np.geomspace(1.1, 60, 60)
    rest = (math.log(1e5) - np.log(order)) / (order - 1) + np.log1p(-1 / order)
    epsilon = float((plan.renyi(order) + rest).min())
    # a cap binds seldom, but then with 2C, which large orders feel
    assert plan.epsilon() <= epsilon <= 2 * plan.epsilon()


@pytest.mark.parametrize("orders", [[1.0], [0.5, 2.0], [-1.0], ["two"]])
def test_orders_that_have_no_divergence_are_refused(orders: list) -> None:
    with pytest.raises(ValueError, match="orders"):
        fldp.calibrate(**SETTINGS).renyi(orders)


@pytest.mark.parametrize("bad", [[-1.0], ["much"], [math.nan], [None]])
def test_what_is_no_epsilon_or_alpha_is_refused(bad: list) -> None:
    plan = fldp.calibrate(**SETTINGS)
    with pytest.raises(ValueError, match="epsilons"):
        plan.curve(bad)
    with pytest.raises(ValueError, match="alphas"):
        plan.tradeoff(bad)


def test_dp_accounting_takes_the_events_that_it_knows() -> None:
    pytest.importorskip("dp_accounting")
    from dp_accounting import pld

    plan = fldp.calibrate(epsilon=2.0, delta=1e-5, rounds=20, clients=1000)
    accountant = pld.PLDAccountant().compose(plan.to_dp_accounting())
    assert accountant.get_epsilon(1e-5) == pytest.approx(2.0, rel=2e-3)


def test_known_participation_is_no_event_of_dp_accounting() -> None:
    plan = fldp.calibrate(**SETTINGS, trust="distributed", min_survivors=40)
    with pytest.raises(ValueError, match="known participation"):
        plan.to_dp_accounting()


def test_a06_a_trade_off_at_a_huge_epsilon_promises_no_error_that_is_not_there() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-5, rounds=5, clients=10)
    plan = dataclasses.replace(plan, noise_multiplier=0.02)
    alphas = [0.0, 1e-306, 1e-300, 0.5, 1.0]
    missed = plan.tradeoff(alphas)
    mu = math.sqrt(5) / 0.02
    exact = stats.norm.cdf(stats.norm.isf(alphas) - mu)
    assert np.isfinite(missed).all()
    assert (missed <= exact + 1e-12).all()
