"""The theorems on many rounds, by the functions of the chapter's cells."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, norm

import fldp
from fldp.accounting import Approximate, Event, epsilon_of, gaussian_delta, renyi

HERE = Path(__file__).resolve().parent.parent.parent
BOOK = HERE / "book" / "what-a-hundred-rounds-cost.ipynb"
TINY = 1e-10  # of a probability: rounding


def taught(*names: str) -> SimpleNamespace:
    """What the chapter's cells define."""
    cells = json.loads(BOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    scope: dict[str, Any] = {
        "np": np, "math": math, "norm": norm, "brentq": brentq, "DELTA": 1e-5,
        "fldp": fldp, "Event": Event, "renyi": renyi,
    }  # fmt: skip
    for name in names:
        exec(next(text for text in sources if f"def {name}(" in text), scope)
    return SimpleNamespace(**scope)


chapter = taught("advanced", "from_renyi", "excess", "grid", "convolved")


def delta_of_answers(each: float, T: int, epsilon: float) -> float:
    """δ of T randomised responses of `each`, by the binomial formula."""
    truth = 1 / (1 + math.exp(-each))
    yeses = np.arange(T + 1)
    P, log_Q = binom.pmf(yeses, T, truth), binom.logpmf(yeses, T, 1 - truth)
    # where e^ε Q is above 1 nothing sticks out
    return float(np.maximum(0, P - np.exp(np.minimum(1, epsilon + log_Q))).sum())


@pytest.mark.parametrize("each", [0.05, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("share", [1e-3, 1e-5, 1e-8])
def test_advanced_composition_holds_and_its_drift_is_needed(each: float, share: float) -> None:
    for T in (1, 2, 10, 100, 365):
        epsilon = chapter.advanced(each, T, share)
        assert delta_of_answers(each, T, epsilon) <= share
        with_deltas = [Approximate(each, 1e-7, T)]
        assert epsilon_of(with_deltas, T * 1e-7 + share) <= epsilon * (1 + 1e-3)
    many = 4000
    assert delta_of_answers(each, many, chapter.advanced(each, many, share)) <= share
    drift = many * each * math.tanh(each / 2)
    assert delta_of_answers(each, many, chapter.advanced(each, many, share) - drift) > share


def pairs(seed: int, T: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Distributions of three to six outcomes, a pair a round."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 7, size=T)
    return [tuple(rng.dirichlet(np.ones(n), size=2)) for n in sizes]


@pytest.mark.parametrize("seed", range(20))
def test_losses_are_convolved(seed: int) -> None:
    rounds = pairs(seed, T=3)
    P, Q, losses, masses = np.ones(1), np.ones(1), np.zeros(1), np.ones(1)
    for p, q in rounds:
        P, Q = np.multiply.outer(P, p).ravel(), np.multiply.outer(Q, q).ravel()
        losses = np.add.outer(losses, np.log(p / q)).ravel()
        masses = np.multiply.outer(masses, p).ravel()
    for epsilon in (0.0, 0.3, 1.0, 3.0):
        by_sets = np.maximum(0, P - math.exp(epsilon) * Q).sum()
        by_losses = chapter.excess(epsilon, losses, masses)
        assert by_losses == pytest.approx(by_sets, abs=TINY)
        # a grid that moves masses up only adds; one that moves them down takes off
        step = 0.2
        up, down = (step * turn(losses / step) for turn in (np.ceil, np.floor))
        assert chapter.excess(epsilon, up, masses) >= by_sets - TINY
        assert chapter.excess(epsilon, down, masses) <= by_sets + TINY


@pytest.mark.parametrize(("z", "q", "T"), [(0.6, 0.01, 100), (1.0, 0.01, 300), (1.0, 0.2, 10)])
def test_the_small_accountant_is_above_the_truth_and_near(z: float, q: float, T: int) -> None:
    """Its δ at the package's ε, in both directions; rounding down would make it too small."""
    epsilon = fldp.epsilon(noise_multiplier=z, sampling_rate=q, rounds=T, delta=1e-5)
    below = fldp.delta(noise_multiplier=z, sampling_rate=q, rounds=T, epsilon=epsilon)
    slack = T * 40 / 2**16  # each round moves up by a cell at most
    found, near = [], []
    for direction in ("remove", "add"):
        ends, total, extra = chapter.convolved(direction, z, q, T, 2**16)
        found.append(chapter.excess(epsilon, ends, total) + extra)
        near.append(chapter.excess(epsilon + slack, ends, total) + extra)
        assert total.sum() == pytest.approx(1, abs=1e-9)
        assert extra < 1e-9
    assert max(near) <= below <= max(found) * (1 + 5e-3)
    ends, total, _ = chapter.convolved("remove", z, q, T, 2**16)
    assert chapter.excess(epsilon, ends - slack, total) < below


def test_what_leaves_a_short_grid_is_counted() -> None:
    """A grid that ends just above the answer: without what left it the account is too cheap."""
    z, q, T = 0.6, 0.01, 100
    epsilon = fldp.epsilon(noise_multiplier=z, sampling_rate=q, rounds=T, delta=1e-5)
    truth = fldp.delta(noise_multiplier=z, sampling_rate=q, rounds=T, epsilon=epsilon)
    ends, total, extra = chapter.convolved("remove", z, q, T, 2**16, top=4.0)
    kept = chapter.excess(epsilon, ends, total)
    assert kept < 0.5 * truth
    assert kept + extra >= truth


def test_the_masses_are_those_of_the_gaussian_where_everyone_takes_part() -> None:
    for direction in ("remove", "add"):
        ends, masses, above = chapter.grid(direction, 1.0, 1.0, 2**16)
        for epsilon in (0.0, 1.0, 3.0):
            exact = gaussian_delta(1.0, epsilon)
            assert exact <= chapter.excess(epsilon, ends, masses) + above <= exact + 1e-3


@pytest.mark.parametrize("z", [1.0, 2.0, 5.0])
def test_renyi_bounds_the_exact_price(z: float) -> None:
    divergences = chapter.ORDERS / (2 * z * z)
    for delta in (1e-3, 1e-5, 1e-8):
        assert gaussian_delta(1 / z, chapter.from_renyi(divergences, delta)) <= delta
    # with ln α taken off twice it would be too little
    twice = divergences - np.log(chapter.ORDERS) / (chapter.ORDERS - 1)
    assert gaussian_delta(1 / z, max(0.0, chapter.from_renyi(twice, 1e-5))) > 1e-5


@pytest.mark.parametrize("seed", range(20))
def test_renyi_bounds_the_exact_price_of_small_mechanisms(seed: int) -> None:
    for p, q in pairs(seed, T=4):
        one = np.log([(q * (p / q) ** a).sum() for a in chapter.ORDERS]) / (chapter.ORDERS - 1)
        for rounds, delta in ((1, 1e-2), (1, 1e-5)):
            epsilon = chapter.from_renyi(rounds * one, delta)
            assert np.maximum(0, p - math.exp(epsilon) * q).sum() <= delta + TINY
