"""What a privacy statement allows a test: curves and their inverses, on the safe side."""

from __future__ import annotations

import numpy as np
import pytest

import fldp
from fldp.accounting import gaussian_epsilon
from fldp.audit.limits import ApproximateCurve, GaussianCurve, TradeOff, plan_curve

CURVES: list[TradeOff] = [
    ApproximateCurve(1.0, 1e-3),
    GaussianCurve(1.5),
    plan_curve(fldp.calibrate(epsilon=2.0, delta=1e-5, rounds=5, clients=100, cohort=20)),
]


@pytest.mark.parametrize("curve", CURVES, ids=lambda c: type(c).__name__)
def test_a_curve_and_its_inverse_agree_and_allow_at_least_a_coin(curve: TradeOff) -> None:
    for x in np.linspace(0.001, 0.999, 25).tolist():
        assert x - 1e-9 <= curve.forward(x) <= 1
        assert curve.inverse(curve.forward(x)) == pytest.approx(x, abs=1e-6)


def test_a_gaussian_plan_has_the_gaussian_curve_up_to_its_lines() -> None:
    plan = fldp.calibrate(epsilon=4.0, delta=1e-5, rounds=4, clients=10)
    exact = GaussianCurve(2 / plan.noise_multiplier)
    assert gaussian_epsilon(exact.mu, 1e-5) == pytest.approx(4.0, rel=1e-3)
    for x in (1e-4, 0.01, 0.1, 0.5):
        # Never below what is promised: a claim is tested in the form that is hardest to refute.
        assert exact.forward(x) - 1e-9 <= plan_curve(plan).forward(x) <= 1.03 * exact.forward(x)


@pytest.mark.slow
def test_every_kind_of_plan_has_a_curve() -> None:
    for changes in (
        {"trust": "distributed", "min_survivors": 10, "cohort": 20},
        {"trust": "local", "cohort": 20},
        {"sampling": "fixed", "adjacency": "replace-one", "cohort": 20},
        {"cap": 40, "cohort": 20},
    ):
        plan = fldp.calibrate(epsilon=2.0, delta=1e-5, rounds=3, clients=100, **changes)
        curve = plan_curve(plan)
        # It passes through what the plan promises: at most e^2 x + δ.
        assert 0.01 < curve.forward(0.01) <= np.exp(2.0) * 0.01 + 2e-5


def test_replace_one_allows_more_than_zero_out() -> None:
    plans = [
        fldp.PrivacyPlan(2.0, 1e-5, 1, 10, 10.0, "none", "central", adjacency, "pld", 8.0)
        for adjacency in ("zero-out", "replace-one")
    ]
    low, high = (plan_curve(plan).forward(0.01) for plan in plans)
    assert high > 1.5 * low
