"""The statements on lotteries among clients, by the functions of the chapter's cells."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

import fldp
from fldp.accounting import gaussian_delta, gaussian_epsilon
from fldp.simulation.draws import Draws
from fldp.simulation.sampling import FixedSize, MinSeparation, Poisson

HERE = Path(__file__).resolve().parent.parent.parent
BOOK = HERE / "book" / "sampling-clients-and-who-knows.ipynb"
TRUTH = HERE / "tests" / "data" / "ground_truth.json"
TINY = 1e-10  # of a probability: rounding


def taught(*names: str) -> SimpleNamespace:
    """What the chapter's cells define."""
    cells = json.loads(BOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    scope: dict[str, Any] = {"np": np, "math": math, "norm": norm, "brentq": brentq, "fldp": fldp}
    for name in names:
        exec(next(text for text in sources if f"def {name}(" in text), scope)
    return SimpleNamespace(**scope)


chapter = taught("lift", "at_least", "play")


def delta_of(P: np.ndarray, Q: np.ndarray, epsilon: float) -> float:
    """The least δ of a pair of finite distributions, in both directions."""
    e = math.exp(epsilon)
    return float(max(np.maximum(0, P - e * Q).sum(), np.maximum(0, Q - e * P).sum()))


@pytest.mark.parametrize("seed", range(50))
def test_coins_amplify_every_release(seed: int) -> None:
    rng = np.random.default_rng(seed)
    came, stayed = rng.dirichlet(np.full(5, 0.7), size=2)
    q = rng.uniform(0.001, 0.9)
    for epsilon in (0.1, 0.5, 1.0, 3.0):
        delta = delta_of(came, stayed, epsilon)
        amplified = math.log1p(q * math.expm1(epsilon))
        drawn = (1 - q) * stayed + q * came
        assert delta_of(drawn, stayed, amplified) <= q * delta + TINY


@pytest.mark.parametrize("q", [0.01, 0.1, 0.5])
def test_the_rate_times_epsilon_would_be_too_little(q: float) -> None:
    truth = 1 / (1 + math.exp(-1.0))
    came, stayed = np.array([truth, 1 - truth]), np.array([1 - truth, truth])
    drawn = (1 - q) * stayed + q * came
    assert delta_of(drawn, stayed, math.log1p(q * math.expm1(1.0))) <= TINY
    assert delta_of(drawn, stayed, q * 1.0) > 1e-4


@pytest.mark.parametrize(("sends", "shift"), [(1.0, 2.0), (0.0, 1.0), (-1.0, 0.0)])
def test_a_full_cohort_moves_the_sum_as_stated(sends: float, shift: float) -> None:
    """Everybody sends -v but the client, and the package's sampler draws four of twenty."""
    draws, sampler, sent = Draws(seed=1), FixedSize(4), np.full(20, -1.0)
    sent[7] = sends
    found = {False: set(), True: set()}
    drawn = 0
    for number in range(400):
        cohort = sampler.sample(20, draws, number).numpy()
        drawn += 7 in cohort
        found[7 in cohort].add(sent[cohort].sum() + 4)
    assert found == {False: {0.0}, True: {shift}}
    # 400 coins of 1/5: a false alarm once in 10^7
    assert abs(drawn - 80) < 43
    # by coins nobody stands in its place: its absence takes away what it sends
    coins = Poisson(0.2)
    for number in range(50):
        cohort = coins.sample(20, draws, number).numpy()
        others = cohort[cohort != 7]
        assert sent[cohort].sum() - sent[others].sum() == (7 in cohort) * sends


@pytest.mark.slow
@pytest.mark.parametrize(
    ("N", "m", "z", "T", "delta", "zeroed", "replaced"),
    [
        (100, 10, 1.0, 100, 1e-5, 17.43, 31.37),
        (3400, 100, 1.0, 1500, 3400**-1.1, 24.88, 38.55),
        (1000, 10, 0.8, 1000, 1e-5, 20.12, 27.72),
    ],
)
def test_a_lower_bound_is_that_of_an_independent_computation(
    N: int, m: int, z: float, T: int, delta: float, zeroed: float, replaced: float
) -> None:
    """Reference values were computed with another grid, to two digits."""
    q = m / N
    run = {"noise_multiplier": z, "rounds": T, "sampling_rate": q, "delta": delta}
    low = [chapter.at_least(q, z, T, delta, s=s, points=2**20) for s in (1.0, 0.0)]
    slack = T * 128 / 2**20  # each round moves down by a cell at most
    assert zeroed - slack < low[0] < zeroed + 0.1
    assert replaced - slack < low[1] < replaced + 0.1
    upper = fldp.epsilon(**run, sampling="fixed", adjacency="replace-one", clients=N)
    by_coins = fldp.epsilon(**run)
    assert by_coins < low[0] < low[1] < upper


@pytest.mark.slow
def test_a_lower_bound_of_one_round_is_below_its_integral() -> None:
    q, z, delta = 0.1, 1.0, 1e-3
    x = np.arange(-12, 14, 1e-4)
    for s in (0.0, 1.0):
        bound = chapter.at_least(q, z, 1, delta, s=s, points=2**18)
        P = (1 - q) * norm.pdf(x, 0, z) + q * norm.pdf(x, 2, z)
        Q = (1 - q) * norm.pdf(x, 0, z) + q * norm.pdf(x, s, z)
        for epsilon, is_more in ((bound - 1e-3, True), (bound + 1e-3, False)):
            excess = np.maximum(0, P - math.exp(epsilon) * Q).sum() * 1e-4
            assert (excess > delta) == is_more


@pytest.mark.slow
def test_the_audit_is_below_the_truth_and_above_the_claim() -> None:
    claim = fldp.epsilon(noise_multiplier=1.0, rounds=500, sampling_rate=0.01, delta=1e-3)
    truth = chapter.at_least(0.01, 1.0, 500, 1e-3, points=2**18)
    bounds = []
    for exactly in (0, 1):
        scores = [chapter.play(exactly, sent, runs=10_000) for sent in (1, 0)]
        bounds.append(fldp.audit.from_scores(*scores, delta=1e-3, claimed=claim))
    assert not bounds[0].violated
    assert bounds[1].violated
    assert claim < bounds[1].lower_bound < truth


@pytest.mark.parametrize("b", [1, 3, 7, 60])
def test_a_participation_limit_is_one_gaussian(b: int) -> None:
    T, N, z, delta = 60, 50, 2.0, 1e-5
    sampler, draws, counts = MinSeparation(b), Draws(seed=2), np.zeros(N, dtype=int)
    for number in range(T):
        counts[sampler.sample(N, draws, number).numpy()] += 1
    k = sampler.participations(T)
    assert counts.max() <= k == -(-T // b)
    one = gaussian_epsilon(math.sqrt(k) / z, delta)
    everyone = {"noise_multiplier": z, "delta": delta, "sampling": "none"}
    assert fldp.epsilon(**everyone, rounds=k) == pytest.approx(one, rel=1e-9)
    assert fldp.epsilon(**everyone, rounds=k + 1) > one
    replaced = fldp.epsilon(**everyone, rounds=k, adjacency="replace-one")
    assert replaced == pytest.approx(gaussian_epsilon(2 * math.sqrt(k) / z, delta), rel=1e-9)
    # k losses by convolution, on a grid that rounds down: no more than the closed form says
    low = chapter.at_least(1.0, z, k, delta, s=1.0, points=2**18)
    assert gaussian_delta(math.sqrt(k) / z, low) >= delta
    assert low == pytest.approx(one, abs=k * 128 / 2**18 + 1e-6)
