"""Many canaries in many runs: dependence within a run, betting, and few runs that are enough."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from fldp.accounting import gaussian_mu
from fldp.audit.trials import from_trials, mean_lower_bound

DELTA = 1e-5


def sums(
    epsilon: float, runs: int, canaries: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and coins of a Gaussian sum of canaries in random directions of `size` dimensions."""
    directions = rng.normal(size=(canaries, size))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    coins = rng.random((runs, canaries)) < 0.5
    noise = rng.normal(size=(runs, size)) / gaussian_mu(epsilon, DELTA)
    return (coins @ directions + noise) @ directions.T, coins


@pytest.mark.slow
@pytest.mark.parametrize("method", ["one-run", "gdp"])
@pytest.mark.parametrize(("runs", "canaries"), [(5, 40), (100, 8)])
def test_many_canaries_that_overlap_keep_their_confidence(
    method: str, runs: int, canaries: int
) -> None:
    # The canaries of a run are not independent. False alarm of this test: 0.1 % per case.
    rng, above = np.random.default_rng(2), 0
    for _ in range(100):
        scores, coins = sums(1.0, runs, canaries, 12, rng)
        found = from_trials(scores, coins, delta=DELTA, confidence=0.9, method=method, claimed=1.0)
        above += found.violated
    assert above <= binom.ppf(0.999, 100, 0.1)


def test_a_betting_bound_covers_and_is_tight() -> None:
    rng = np.random.default_rng(3)
    found = [mean_lower_bound(rng.beta(20, 20, 500), 0.9) for _ in range(300)]
    assert sum(b > 0.5 for b in found) <= binom.ppf(0.999, 300, 0.1)
    assert np.mean(found) > 0.49


def test_the_method_follows_from_the_number_of_runs() -> None:
    rng = np.random.default_rng(0)
    many = from_trials(*sums(4.0, 300, 8, 50, rng), delta=DELTA, method="gdp")
    few = from_trials(*sums(4.0, 10, 40, 50, rng), delta=DELTA, method="gdp")
    assert (many.method, few.method) == ("betting-gdp", "one-run-gdp")
    assert many.runs == 300
    plain = from_trials(*sums(4.0, 300, 8, 50, rng), delta=DELTA)
    assert plain.method == "one-run"


def test_scores_that_are_not_gaussian_fall_back_to_what_needs_no_gaussian() -> None:
    rng = np.random.default_rng(0)
    coins = rng.random((200, 20)) < 0.5
    found = from_trials(coins + rng.laplace(size=coins.shape), coins, delta=DELTA, method="gdp")
    assert found.method == "one-run"
    assert "do not look Gaussian" in found.statement()


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    coins = rng.random((9, 9)) < 0.5
    cases: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("too few", np.eye(2), np.eye(2) > 0, {}),
        ("equal", np.ones((9, 9)), coins, {}),
        ("runs, k", np.ones(9), np.ones(9), {}),
        ("shape", rng.random((9, 9)), coins[:8], {}),
        ("method", rng.random((9, 9)), coins, {"method": "magic"}),
    ]
    for match, scores, included, options in cases:
        with pytest.raises(ValueError, match=match):
            from_trials(scores, included, delta=DELTA, **options)
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_lower_bound([2.0])
    assert not math.isnan(mean_lower_bound([0.0]))
