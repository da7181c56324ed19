"""Bounds from scores: known values, honest confidence, and estimates that are not called bounds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from scipy.stats import binom

from fldp import audit, bounds
from fldp.accounting import gaussian_mu

matplotlib.use("Agg")
DELTA = 1e-5
TRUTH = {
    e["name"]: e["value"]
    for e in json.loads((Path(__file__).parent / "data" / "ground_truth.json").read_text())
    if e["group"] == "audit"
}
KNOWN: dict[str, Callable[[], float]] = {
    "audit_cp_perfect_n100": lambda: bounds.from_counts(0, 100, 0, 100, delta=DELTA),
    "audit_cp_perfect_n1000": lambda: bounds.from_counts(0, 1000, 0, 1000, delta=DELTA),
    "audit_cp_perfect_n10000": lambda: bounds.from_counts(0, 10**4, 0, 10**4, delta=DELTA),
    "audit_cp_tp900of1000_fp10of1000": lambda: bounds.from_counts(10, 1000, 100, 1000, delta=DELTA),
    "audit_onerun_m1000_r1000_v600_d0": lambda: audit.one_run_epsilon(1000, 1000, 600, delta=0.0),
    "audit_onerun_m5000_r500_v480_d1e-05": lambda: audit.one_run_epsilon(
        5000, 500, 480, delta=DELTA
    ),
    "audit_gdp_tp900of1000_fp10of1000": lambda: bounds.from_counts(
        10, 1000, 100, 1000, delta=DELTA, method="gdp"
    ),
    "audit_gdp_tp400of500_fp100of500": lambda: bounds.from_counts(
        100, 500, 100, 500, delta=DELTA, method="gdp"
    ),
}


def test_every_known_value_has_its_test() -> None:
    assert set(TRUTH) == set(KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_values(name: str) -> None:
    assert KNOWN[name]() == pytest.approx(TRUTH[name], rel=1e-5)


@pytest.mark.parametrize(
    ("method", "threshold"),
    [
        ("clopper-pearson", "simultaneous"),
        ("clopper-pearson", "hold-out"),
        ("gdp", "simultaneous"),
        ("gdp", "hold-out"),
        ("gdp", 0.5),
    ],
)
def test_bounds_exceed_the_truth_no_more_often_than_stated(method: str, threshold: Any) -> None:
    rng, epsilon, repetitions = np.random.default_rng(1), 2.0, 200
    mu = gaussian_mu(epsilon, DELTA)
    violations = sum(
        bounds.from_scores(
            rng.normal(1, 1 / mu, 200), rng.normal(0, 1 / mu, 200), delta=DELTA, confidence=0.9,
            method=method, threshold=threshold, claimed=epsilon,
        ).violated
        for _ in range(repetitions)
    )  # fmt: skip
    assert violations <= binom.ppf(0.999, repetitions, 0.1)


@pytest.mark.parametrize("method", ["clopper-pearson", "gdp"])
def test_many_canaries_with_shared_noise_keep_their_confidence(method: str) -> None:
    # The canaries of a run share half of their noise: the runs, not the canaries, are independent.
    rng, mu, violations = np.random.default_rng(2), gaussian_mu(1.0, DELTA), 0
    for _ in range(200):
        bits = rng.random((100, 8)) < 0.5
        shared = rng.normal(size=(100, 1)) + rng.normal(size=(100, 8))
        scores = bits + shared / (mu * math.sqrt(2))
        violations += bounds.from_trials(
            scores, bits, delta=DELTA, confidence=0.9, method=method, claimed=1.0
        ).violated
    assert violations <= binom.ppf(0.999, 200, 0.1)


def test_a_betting_bound_covers_and_is_tight() -> None:
    rng = np.random.default_rng(3)
    found = [bounds.mean_lower_bound(rng.beta(20, 20, 500), 0.9) for _ in range(300)]
    assert sum(b > 0.5 for b in found) <= binom.ppf(0.999, 300, 0.1)
    assert np.mean(found) > 0.49


def test_results_are_drawn_and_stored() -> None:
    rng = np.random.default_rng(6)
    found = bounds.from_scores(rng.normal(1, 1, 99), rng.normal(0, 1, 99), delta=0.01, claimed=3.0)
    assert json.loads(json.dumps(found.to_dict()))["violated"] is False
    assert "Not tested" in found.statement()
    assert found.curve[:, 0].tolist() == [0, 0]
    assert found.curve[:, -1].tolist() == [1, 1]
    assert len(found.plot().get_lines()) == 3
    gdp = bounds.from_scores([3.0] * 50 + [2.0], [0.0] * 50, delta=0.01, method="gdp")
    assert "presumes" in gdp.statement()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        bounds.from_scores([1.0, 2.0], [0.0, 0.0], delta=DELTA)
    with pytest.raises(ValueError, match="too few"):
        audit.one_run([1.0, 2.0, 3.0], [True, False, True], delta=DELTA)
    with pytest.raises(ValueError, match="too few"):
        bounds.from_trials(np.eye(2), np.eye(2) > 0, delta=DELTA)
    for call in (
        lambda: bounds.from_scores([1.0] * 99, [1.0] * 99, delta=DELTA),
        lambda: bounds.from_trials(np.ones((9, 9)), np.ones((9, 9)), delta=DELTA),
        lambda: audit.one_run(np.ones(99), np.ones(99), delta=DELTA),
        lambda: audit.one_shot([0.1] * 5, 100, delta=DELTA),
    ):
        with pytest.raises(ValueError, match="equal"):
            call()
    with pytest.raises(ValueError, match="method"):
        bounds.from_scores([1.0, 2.0] * 50, [0.0] * 99, delta=DELTA, method="magic")
    with pytest.raises(ValueError, match="threshold"):
        bounds.from_scores([1.0, 2.0] * 50, [0.0] * 99, delta=DELTA, threshold="best")
    with pytest.raises(ValueError, match="orthogonal"):
        audit.one_shot(np.linspace(0, 1, 20), 10, delta=DELTA)
    with pytest.raises(ValueError, match="between 0 and 1"):
        bounds.mean_lower_bound([2.0])
    with pytest.raises(ValueError, match="correct"):
        audit.one_run_epsilon(10, 5, 6, delta=0)
