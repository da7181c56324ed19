"""Two-sample bounds: known values, honest confidence, ties, and words that match the statistics."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from conftest import ground_truth
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from fldp.accounting import gaussian_mu
from fldp.audit import bounds
from fldp.audit.bounds import from_counts, from_scores, gaussian_doubt, runs_needed
from fldp.audit.scores import ranked

DELTA = 1e-5
TRUTH = {e["name"]: e["value"] for e in ground_truth("audit") if "onerun" not in e["name"]}
KNOWN: dict[str, tuple[int, int, int, int, str]] = {
    "audit_cp_perfect_n100": (0, 100, 0, 100, "clopper-pearson"),
    "audit_cp_perfect_n1000": (0, 1000, 0, 1000, "clopper-pearson"),
    "audit_cp_perfect_n10000": (0, 10**4, 0, 10**4, "clopper-pearson"),
    "audit_cp_tp900of1000_fp10of1000": (10, 1000, 100, 1000, "clopper-pearson"),
    "audit_gdp_tp900of1000_fp10of1000": (10, 1000, 100, 1000, "gdp"),
    "audit_gdp_tp400of500_fp100of500": (100, 500, 100, 500, "gdp"),
}


def test_every_known_value_has_its_test() -> None:
    assert set(TRUTH) == set(KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_values(name: str) -> None:
    *counts, method = KNOWN[name]
    assert from_counts(*counts, delta=DELTA, method=method) == pytest.approx(TRUTH[name], rel=1e-5)


@pytest.mark.slow
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
    # False alarm of this test: 0.1 % per case.
    rng, epsilon, repetitions = np.random.default_rng(1), 2.0, 200
    mu = gaussian_mu(epsilon, DELTA)
    violations = sum(
        from_scores(
            rng.normal(1, 1 / mu, 200), rng.normal(0, 1 / mu, 200), delta=DELTA, confidence=0.9,
            method=method, threshold=threshold, claimed=epsilon,
        ).violated
        for _ in range(repetitions)
    )  # fmt: skip
    assert violations <= binom.ppf(0.999, repetitions, 0.1)


@given(
    fp=st.integers(0, 50), fn=st.integers(0, 50), more=st.integers(0, 5),
    delta=st.floats(0, 0.9), method=st.sampled_from(["clopper-pearson"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_more_errors_never_raise_the_bound(
    fp: int, fn: int, more: int, delta: float, method: str
) -> None:
    def bound(false_positives: int, false_negatives: int) -> float:
        return from_counts(false_positives, 60, false_negatives, 60, delta=delta, method=method)

    assert 0 <= bound(fp + more, fn) <= bound(fp, fn)
    assert bound(fp, fn + more) <= bound(fp, fn)


def test_ranks_go_from_the_tail_to_the_middle() -> None:
    for runs in (1, 2, 20, 1000, 10**5):
        ranks = bounds._rank_numbers(runs)
        assert ranks[0] == 0
        assert runs // 4 <= ranks[-1] <= runs // 2 or runs < 2
        assert ranks == sorted(set(ranks))


def test_the_order_of_equal_scores_is_random_and_ours_alone() -> None:
    ties = np.zeros(1000)
    assert ranked(ties, 0).tolist() != ranked(ties, 1).tolist()
    assert ranked(ties, 0).tolist() == ranked(ties, 0).tolist()
    # A caller who made the scores with the same seed has not made our coins.
    theirs = np.random.default_rng(0).random(1000)
    assert abs(np.corrcoef(theirs, ranked(ties, 0))[0, 1]) < 0.15


def test_gaussian_scores_are_believed_and_others_are_not() -> None:
    # Believed: at most 1 % may fail, 99.9 % quantile. Not believed: half would be a broken check.
    rng = np.random.default_rng(0)
    failed = sum(
        gaussian_doubt(rng.normal(m, 1, 1000), rng.normal(0, 1, 1000)) != ""
        for m in (0.0, 0.5, 1.0, 2.0, 3.0)
        for _ in range(60)
    )
    assert failed <= binom.ppf(0.999, 300, 0.01)
    caught = sum(
        gaussian_doubt(1 + rng.laplace(size=1000), rng.laplace(size=1000)) != "" for _ in range(50)
    )
    assert caught >= 25


def test_runs_needed_is_the_first_number_whose_ceiling_is_enough() -> None:
    for epsilon in (0.5, 2.7, 5.0):
        runs = runs_needed(epsilon, delta=DELTA)

        def ceiling(n: int) -> float:
            found = from_scores(np.ones(n) + 1e-9 * np.arange(n), np.zeros(n), delta=DELTA)
            return float(found.lower_bound or 0.0)

        assert ceiling(runs) >= epsilon > ceiling(runs - 1)
    assert runs_needed(5.0, delta=DELTA, method="gdp") < runs_needed(5.0, delta=DELTA)
    with pytest.raises(ValueError, match="no number of runs"):
        runs_needed(50.0, delta=DELTA)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bounds", "coins", "trials", "cosines", "findings"])
def test_the_statistics_load_no_torch(name: str) -> None:
    check = f"import sys, fldp.audit.{name}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        from_scores([1.0, 2.0], [0.0, 0.0], delta=DELTA)
    with pytest.raises(ValueError, match="equal"):
        from_scores([1.0] * 99, [1.0] * 99, delta=DELTA)
    with pytest.raises(ValueError, match="method"):
        from_scores([1.0, 2.0] * 50, [0.0] * 99, delta=DELTA, method="magic")
    with pytest.raises(ValueError, match="threshold"):
        from_scores([1.0, 2.0] * 50, [0.0] * 99, delta=DELTA, threshold="best")
    with pytest.raises(ValueError, match="array"):
        from_scores("many", [0.0], delta=DELTA)
    with pytest.raises(ValueError, match="array"):
        from_scores(3.0, [0.0], delta=DELTA)
    with pytest.raises(ValueError, match="above negatives"):
        from_counts(5, 4, 0, 4, delta=DELTA)
    assert not math.isnan(from_counts(0, 1, 0, 1, delta=DELTA))


@pytest.mark.parametrize("threshold", [math.nan, None, True, [0.1], 1j, 10**400])
def test_u04_a_threshold_that_is_no_number_refutes_nothing(threshold: Any) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="threshold"):
        from_scores(rng.normal(size=300), rng.normal(size=300), delta=1e-5, threshold=threshold)


@pytest.mark.parametrize("delta", ["x", None, [1e-5], 1j, math.nan, 1.0])
def test_u13_a_delta_that_is_no_number_gets_a_sentence(delta: Any) -> None:
    with pytest.raises(ValueError, match="delta is"):
        from_counts(1, 100, 1, 100, delta=delta)
