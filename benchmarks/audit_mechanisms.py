"""Mechanisms whose ε is known exactly, and how often each audit's bound exceeds it.

Every mechanism is a pair of score distributions: with the canary and without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import brentq

import fldp
from fldp import audit
from fldp.accounting import gaussian_epsilon, gaussian_mu
from fldp.audit.coins import guessed_right, refutes
from fldp.audit.limits import plan_curve

Sampler = Callable[[np.random.Generator, np.ndarray], np.ndarray]
# Densities are compared on a grid so wide and so fine that ε is right to four digits.
GRID = np.linspace(-200.0, 200.0, 400_001)


@dataclass(frozen=True)
class Mechanism:
    """`draw(rng, present)` gives one score for each entry of `present`; ε is exact at `delta`."""

    name: str
    draw: Sampler
    delta: float
    epsilon: float
    gaussian: bool = False


def _shift(draw: Callable[[np.random.Generator, int], np.ndarray], by: float = 1.0) -> Sampler:
    return lambda rng, present: by * present + draw(rng, present.size)


def _solve(excess: Callable[[float], float]) -> float:
    """The ε at which `excess`, decreasing, is zero; 0 where it is not positive at 0."""
    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, 60.0, xtol=1e-9))


def _epsilon(p: np.ndarray, q: np.ndarray, weight: float, delta: float) -> float:
    """ε at `delta` between densities (or probabilities) p and q, each entry weighing `weight`."""

    def excess(e: float) -> float:
        ways = (np.maximum(a - math.exp(e) * b, 0.0).sum() * weight for a, b in ((p, q), (q, p)))
        return max(ways) - delta

    return _solve(excess)


def _of_densities(name: str, draw: Sampler, p: Any, q: Any, delta: float) -> Mechanism:
    step = float(GRID[1] - GRID[0])
    return Mechanism(name, draw, delta, _epsilon(p(GRID), q(GRID), step, delta))


def _randomised_response(chance: float) -> Sampler:
    def draw(rng: np.random.Generator, present: np.ndarray) -> np.ndarray:
        return np.where(rng.random(present.size) < chance, present, ~present).astype(float)

    return draw


def _leak(chance: float, honest: Sampler) -> Sampler:
    """With `chance` the world itself is published, else what the honest mechanism says."""

    def draw(rng: np.random.Generator, present: np.ndarray) -> np.ndarray:
        told = np.where(present, 9.0, -9.0)
        return np.where(rng.random(present.size) < chance, told, honest(rng, present))

    return draw


def _mixture(chances: np.ndarray, step: float) -> Sampler:
    """N(step·K, 1) with K drawn from `chances` when present, N(0, 1) when not."""

    def draw(rng: np.random.Generator, present: np.ndarray) -> np.ndarray:
        drawn = rng.choice(len(chances), present.size, p=chances)
        return step * drawn * present + rng.normal(size=present.size)

    return draw


def _mixture_density(chances: np.ndarray, step: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: sum(c * stats.norm.pdf(x, step * k) for k, c in enumerate(chances))  # type: ignore[return-value]


def _geometric(rng: np.random.Generator, count: int) -> np.ndarray:
    """Two-sided geometric noise with ratio e^-1: integers, so that scores are tied."""
    p = 1 - math.exp(-1)
    return (rng.geometric(p, count) - rng.geometric(p, count)).astype(float)


def mechanisms() -> list[Mechanism]:
    """Ten of them: light and heavy tails, mixtures, discrete, one-sided."""
    one = math.e / (1 + math.e)
    half = np.array([0.7, 0.3])
    rounds = stats.binom.pmf(np.arange(5), 4, 0.4)
    integers = np.arange(-60, 62)
    ratio = math.exp(-1)
    pmf = (1 - ratio) / (1 + ratio) * ratio ** np.abs(integers)
    moved = (1 - ratio) / (1 + ratio) * ratio ** np.abs(integers - 1)
    student = stats.t(3)
    return [
        Mechanism(
            "gaussian",
            _shift(lambda rng, n: rng.normal(size=n)),
            1e-3,
            gaussian_epsilon(1.0, 1e-3),
            gaussian=True,
        ),
        _of_densities(
            "subsampled gaussian", _mixture(half, 2.0), _mixture_density(half, 2.0),
            stats.norm.pdf, 1e-3,
        ),
        _of_densities(
            "binomial mixture", _mixture(rounds, 1.0), _mixture_density(rounds, 1.0),
            stats.norm.pdf, 1e-3,
        ),
        _of_densities(
            "laplace", _shift(lambda rng, n: rng.laplace(size=n)),
            lambda x: stats.laplace.pdf(x, 1), stats.laplace.pdf, 1e-5,
        ),
        _of_densities(
            "cauchy", _shift(lambda rng, n: rng.standard_cauchy(n)),
            lambda x: stats.cauchy.pdf(x, 1), stats.cauchy.pdf, 1e-5,
        ),
        _of_densities(
            "student, 3 degrees", _shift(lambda rng, n: rng.standard_t(3, n)),
            lambda x: student.pdf(x - 1), student.pdf, 1e-5,
        ),
        Mechanism(
            "randomised response", _randomised_response(one), 1e-5,
            _solve(lambda e: one - math.exp(e) * (1 - one) - 1e-5),
        ),
        Mechanism(
            "geometric, tied", _shift(_geometric), 1e-5, _epsilon(moved, pmf, 1.0, 1e-5)
        ),
        # At δ = .2 an exponential shifted by .2 is private with ε = 0: e^-0.2 > .8.
        Mechanism(
            "one-sided exponential", _shift(lambda rng, n: rng.exponential(size=n), 0.2), 0.2, 0.0
        ),
        Mechanism(
            "leak, else randomised response", _leak(0.05, _randomised_response(one)), 0.05, 1.0
        ),
    ]  # fmt: skip


Bound = Callable[[Mechanism, np.random.Generator, int, float], audit.AuditResult]


def _two_samples(mechanism: Mechanism, rng: np.random.Generator, runs: int) -> list[np.ndarray]:
    worlds = (np.ones(runs, dtype=bool), np.zeros(runs, dtype=bool))
    return [mechanism.draw(rng, world) for world in worlds]


def from_scores(method: str, threshold: Any) -> Bound:
    def bound(
        mechanism: Mechanism, rng: np.random.Generator, runs: int, confidence: float
    ) -> audit.AuditResult:
        return audit.from_scores(
            *_two_samples(mechanism, rng, runs), delta=mechanism.delta, confidence=confidence,
            method=method, threshold=threshold, claimed=mechanism.epsilon,
        )  # fmt: skip

    return bound


def from_trials(method: str, canaries: int) -> Bound:
    def bound(
        mechanism: Mechanism, rng: np.random.Generator, runs: int, confidence: float
    ) -> audit.AuditResult:
        coins = rng.random((2 * runs // canaries, canaries)) < 0.5
        scores = mechanism.draw(rng, coins.ravel()).reshape(coins.shape)
        return audit.from_trials(
            scores, coins, delta=mechanism.delta, confidence=confidence, method=method,
            claimed=mechanism.epsilon,
        )  # fmt: skip

    return bound


# What `AuditResult.method` will say -> how it is asked, with 2·runs releases in all.
BOUNDS: dict[str, Bound] = {
    "clopper-pearson": from_scores("clopper-pearson", "simultaneous"),
    "clopper-pearson, hold-out": from_scores("clopper-pearson", "hold-out"),
    "clopper-pearson, threshold 1/2": from_scores("clopper-pearson", 0.5),
    "one-run": from_trials("one-run", 50),
    "gdp": from_scores("gdp", "simultaneous"),
    "one-run-gdp": from_trials("gdp", 50),
    "betting-gdp": from_trials("gdp", 1),
}


def coverage(
    name: str, mechanism: Mechanism, repetitions: int, runs: int = 200, confidence: float = 0.9
) -> float:
    """Share of bounds that exceed the true ε; at most 1 - confidence where presumptions hold."""
    rng = np.random.default_rng([repetitions, runs, len(name), len(mechanism.name)])
    above = 0
    for _ in range(repetitions):
        try:
            above += BOUNDS[name](mechanism, rng, runs, confidence).violated
        except ValueError as error:  # at so large a δ these runs can show nothing, and say so
            if "too few" not in str(error):
                raise
    return above / repetitions


def power(name: str, epsilon: float, runs: int = 1000, repetitions: int = 5) -> float:
    """Mean lower bound from 2·runs scores of a Gaussian sum, the same for every method."""
    mu, delta = gaussian_mu(epsilon, 1e-5), 1e-5
    # Present at 1, absent at 0, whatever the noise: the threshold 1/2 is in the middle.
    sums = Mechanism(
        "sum", lambda rng, there: there + rng.normal(0, 1 / mu, there.size), delta, epsilon, True
    )
    rng = np.random.default_rng(int(epsilon))
    found = [BOUNDS[name](sums, rng, runs, 0.95).lower_bound for _ in range(repetitions)]
    return float(np.mean([bound or 0.0 for bound in found]))


def _canary_scores(plan: fldp.PrivacyPlan, coins: np.ndarray, rng: np.random.Generator) -> Any:
    """Log-likelihood ratios of canaries over the rounds of `plan`, as `audit.Canaries` has them."""
    z, q = plan.noise_multiplier, plan.sampling_rate
    taken = coins & (rng.random((plan.rounds, coins.size)) < q)
    x = taken / z + rng.normal(size=taken.shape)
    return np.log1p(q * np.expm1(x / z - 0.5 / z**2)).sum(axis=0)


def plan_coverage(repetitions: int, canaries: int = 400, confidence: float = 0.9) -> float:
    """Share of runs that refute a plan's own curve although it holds: 10 rounds, a tenth each."""
    plan = fldp.calibrate(epsilon=4.0, delta=1e-5, rounds=10, clients=1000, cohort=100)
    curve, guesses = plan_curve(plan), canaries // 4
    rng, refuted = np.random.default_rng(repetitions), 0
    for _ in range(repetitions):
        coins = rng.random(canaries) < 0.5
        right = guessed_right(_canary_scores(plan, coins, rng), coins, guesses)
        refuted += refutes(curve, canaries, guesses, right, 1 - confidence)
    return refuted / repetitions


def plan_power(epsilon: float, runs: int = 1000, repetitions: int = 5) -> float:
    """As `power`, of the method that is given the plan: one round, everyone."""
    plan = fldp.calibrate(epsilon=epsilon, delta=1e-5, rounds=1, clients=1000)
    rng, found = np.random.default_rng(int(epsilon)), []
    for _ in range(repetitions):
        coins = rng.random(2 * runs) < 0.5
        scores = _canary_scores(plan, coins, rng)
        result = audit.one_run(scores, coins, delta=1e-5, method="plan", plan=plan)
        found.append(result.lower_bound or 0.0)
    return float(np.mean(found))
