"""fldp.profile: the curves of a plan against closed forms, and its export."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

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
    assert plan.curve(1.0)[0] == pytest.approx(1e-5, rel=1e-6)


@pytest.mark.parametrize(
    "change", [{}, {"trust": "distributed", "survivors": 40}, {"adjacency": "replace-one"}]
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
    plan = fldp.calibrate(**SETTINGS, trust="distributed", survivors=40)
    alphas = np.linspace(0, 1, 101)
    found = plan.tradeoff(alphas)
    assert (found <= 1 - alphas + 1e-12).all()
    assert (np.diff(found, 2) >= -1e-9).all()
    assert found[0] > 0.999


@pytest.mark.parametrize("bad", [[-1.0], ["much"], [math.nan], [None]])
def test_what_is_no_epsilon_or_alpha_is_refused(bad: list) -> None:
    plan = fldp.calibrate(**SETTINGS)
    with pytest.raises(ValueError, match="one of epsilons is"):
        plan.curve(bad)
    with pytest.raises(ValueError, match="one of alphas is"):
        plan.tradeoff(bad)


def test_dp_accounting_takes_the_events_that_it_knows() -> None:
    pytest.importorskip("dp_accounting")
    from dp_accounting import pld

    plan = fldp.calibrate(epsilon=2.0, delta=1e-5, rounds=20, clients=1000)
    accountant = pld.PLDAccountant().compose(plan.to_dp_accounting())
    assert accountant.get_epsilon(1e-5) == pytest.approx(2.0, rel=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": "fixed", "adjacency": "replace-one"},
        {"trust": "distributed", "survivors": 40},
    ],
)
def test_events_that_dp_accounting_has_not_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="dp-accounting's PLD"):
        fldp.calibrate(**SETTINGS | change).to_dp_accounting()
