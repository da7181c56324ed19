"""One-run bounds: known values, the recursion against its definition, the worst case."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import ground_truth
from scipy.optimize import linprog
from scipy.stats import binom

import fldp
from fldp.accounting import gaussian_epsilon, gaussian_mu
from fldp.audit.coins import guess_counts, guessed_right, one_run, one_run_epsilon, refutes
from fldp.audit.limits import ApproximateCurve, GaussianCurve, plan_curve

DELTA = 1e-5
TRUTH = {e["name"]: e["value"] for e in ground_truth("audit") if "onerun" in e["name"]}
KNOWN: dict[str, tuple[int, int, int, float]] = {
    "audit_onerun_m1000_r1000_v600_d0": (1000, 1000, 600, 0.0),
    "audit_onerun_m5000_r500_v480_d1e-05": (5000, 500, 480, DELTA),
}


def test_every_known_value_has_its_test() -> None:
    assert set(TRUTH) == set(KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_values(name: str) -> None:
    *counts, delta = KNOWN[name]
    assert one_run_epsilon(*counts, delta=delta) == pytest.approx(TRUTH[name], rel=1e-5)


@pytest.mark.parametrize("correct", [7, 8, 9, 10])
@pytest.mark.parametrize(("epsilon", "delta", "canaries"), [(0.5, 0.0, 10), (1.0, 0.02, 14)])
def test_the_recursion_is_the_largest_probability_that_its_inequalities_allow(
    correct: int, epsilon: float, delta: float, canaries: int
) -> None:
    # E[T 1{T >= t}]/m <= e^ε E[(r - T) 1{T >= t - 1}]/m + δ for all t, as a linear programme.
    guesses = 10
    counts = np.arange(guesses + 1)
    rows, limits = [], []
    for t in range(1, guesses + 1):
        right = counts * (counts >= t) / canaries
        wrong = (guesses - counts) * (counts >= t - 1) / canaries
        rows.append(right - math.exp(epsilon) * wrong)
        limits.append(delta)
        # The other branch of the curve: right <= 1 - e^-ε (1 - δ - wrong).
        rows.append(right - math.exp(-epsilon) * wrong)
        limits.append(1 - math.exp(-epsilon) * (1 - delta))
    found = linprog(
        -(counts >= correct).astype(float), A_ub=np.array(rows), b_ub=np.array(limits),
        A_eq=np.ones((1, guesses + 1)), b_eq=[1.0], bounds=(0, 1),
    )  # fmt: skip
    largest = -found.fun
    curve = ApproximateCurve(epsilon, delta)
    assert not refutes(curve, canaries, guesses, correct, largest * 0.999)
    if largest < 0.99:
        assert refutes(curve, canaries, guesses, correct, largest * 1.001)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_the_worst_mechanism_is_refuted_no_more_often_than_stated(epsilon: float) -> None:
    # Randomised response of each coin is the worst there is at δ = 0: exact, no simulation.
    canaries, alpha = 200, 0.1
    q = 1 / (1 + math.exp(-epsilon))
    smallest = next(
        c for c in range(canaries + 1)
        if one_run_epsilon(canaries, canaries, c, delta=0.0, confidence=1 - alpha) > epsilon
    )  # fmt: skip
    rate = float(binom.sf(smallest - 1, canaries, q))
    assert alpha / 3 < rate <= alpha


@pytest.mark.slow
@pytest.mark.parametrize("method", ["one-run", "gdp"])
@pytest.mark.parametrize("size", [10, 100, 1000])
def test_a_sum_keeps_its_confidence_however_its_canaries_overlap(method: str, size: int) -> None:
    # 200 random unit directions in `size` dimensions hide one another, or nearly not at all. False
    # alarm of this test: 0.1 % per case.
    rng, epsilon, above = np.random.default_rng(3), 2.0, 0
    mu = gaussian_mu(epsilon, DELTA)
    for _ in range(100):
        directions = rng.normal(size=(200, size))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        coins = rng.random(200) < 0.5
        release = coins @ directions + rng.normal(size=size) / mu
        found = one_run(
            directions @ release, coins, delta=DELTA, confidence=0.9, method=method,
            claimed=epsilon,
        )  # fmt: skip
        above += found.violated
    assert above <= binom.ppf(0.999, 100, 0.1)


def test_the_gaussian_curve_finds_more_and_knows_its_limit() -> None:
    plain = one_run_epsilon(1000, 250, 240, delta=DELTA)
    gaussian = one_run_epsilon(1000, 250, 240, delta=DELTA, method="gdp")
    assert gaussian > 1.4 * plain
    mu = gaussian_mu(gaussian, DELTA)
    assert refutes(GaussianCurve(mu * 0.999), 1000, 250, 240, 0.05)
    assert not refutes(GaussianCurve(mu * 1.001), 1000, 250, 240, 0.05)


@pytest.mark.slow
def test_a_plan_is_refuted_by_its_own_curve_alone_where_its_claim_is_false() -> None:
    # A quarter of the clients a round: the curve is no Gaussian's.
    plan = fldp.calibrate(epsilon=2.0, delta=DELTA, rounds=1, clients=1000, cohort=250)
    rng, q, z = np.random.default_rng(0), 0.25, plan.noise_multiplier

    def audited(drawn: float) -> Any:
        coins = rng.random(4000) < 0.5
        x = (coins & (rng.random(4000) < drawn)) / z + rng.normal(size=4000)
        ratio = np.log1p(q * np.expm1(x / z - 0.5 / z**2))
        return one_run(ratio, coins, delta=DELTA, method="plan", plan=plan)

    sound, broken = audited(q), audited(1.0)
    assert sound.claimed == plan.epsilon()
    assert not sound.violated
    assert sound.lower_bound > 0.1
    assert broken.violated
    assert broken.verdict == "REFUTED as this plan's claim"


@pytest.mark.parametrize(("rounds", "rate"), [(1, 0.25), (10, 0.1)])
def test_a_subsampled_plan_is_spared_by_its_own_curve(rounds: int, rate: float) -> None:
    # Nominal 10 %, 300 runs. False alarm of this test: 0.1 %.
    plan = fldp.calibrate(epsilon=3.0, delta=DELTA, rounds=rounds, clients=100, cohort=100 * rate)
    curve, z = plan_curve(plan), plan.noise_multiplier
    least = next(c for c in range(101) if refutes(curve, 400, 100, c, 0.1))
    rng, above = np.random.default_rng(0), 0
    for _ in range(300):
        coins = rng.random(400) < 0.5
        x = (coins & (rng.random((rounds, 400)) < rate)) / z + rng.normal(size=(rounds, 400))
        scores = np.log1p(rate * np.expm1(x / z - 0.5 / z**2)).sum(axis=0)
        above += guessed_right(scores, coins, 100) >= least
    assert above <= binom.ppf(0.999, 300, 0.1)


def test_guesses_are_the_ends_of_the_ranking() -> None:
    ranks = np.array([5.0, 0.0, 3.0, 1.0, 4.0, 2.0])
    coins = np.array([True, False, True, True, False, True])
    assert guessed_right(ranks, coins, 6) == 3
    assert guessed_right(ranks, coins, 3) == 2
    assert guessed_right(ranks, coins, 1) == 1
    assert guess_counts(10) == [10]
    assert guess_counts(1600) == [400, 100]


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    coins = rng.random(99) < 0.5
    with pytest.raises(ValueError, match="too few"):
        one_run([1.0, 2.0, 3.0], [True, False, True], delta=DELTA)
    with pytest.raises(ValueError, match="equal"):
        one_run(np.ones(99), coins, delta=DELTA)
    with pytest.raises(ValueError, match="shape"):
        one_run(np.ones(98), coins, delta=DELTA)
    with pytest.raises(ValueError, match="99 canaries"):
        one_run(rng.random(99), coins, guesses=100, delta=DELTA)
    with pytest.raises(ValueError, match="correct"):
        one_run_epsilon(10, 5, 6, delta=0)
    with pytest.raises(ValueError, match="guesses is 0"):
        one_run_epsilon(10, 0, 0, delta=0)
    with pytest.raises(ValueError, match="give plan="):
        one_run_epsilon(10, 5, 5, delta=DELTA, method="plan")
    plan = fldp.calibrate(epsilon=2.0, delta=1e-6, rounds=1, clients=10)
    with pytest.raises(ValueError, match="the plan's is"):
        one_run_epsilon(10, 5, 5, delta=DELTA, method="plan", plan=plan)
    assert gaussian_epsilon(1.0, DELTA) > 0
