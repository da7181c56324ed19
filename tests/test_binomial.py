"""Binomial laws: exact where they are summed one by one, and never too small."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fldp.accounting.binomial import binomial, binomial_tail, log_pmf, tail_error

LAWS = [(1, 0.3), (2, 0.5), (10, 0.01), (60, 0.25), (1000, 0.999), (10**6, 1e-5)]


@pytest.mark.parametrize(("trials", "rate"), LAWS)
def test_probabilities_are_those_of_scipy(trials, rate):
    stats = pytest.importorskip("scipy.stats")
    sd = math.sqrt(trials * rate * (1 - rate))
    k = np.unique(np.clip(np.round(trials * rate + sd * np.arange(-4.0, 9.0)), 0, trials))
    assert log_pmf(k, trials, rate) == pytest.approx(stats.binom.logpmf(k, trials, rate), abs=2e-9)


@pytest.mark.parametrize(("trials", "rate"), LAWS)
@pytest.mark.parametrize("sds", [-1, 0, 3, 12])
def test_tails_are_exact_and_not_too_small(trials, rate, sds):
    stats = pytest.importorskip("scipy.stats")
    k = int(trials * rate + sds * math.sqrt(trials * rate * (1 - rate)))
    truth = float(stats.binom.sf(k, trials, rate)) if k >= 0 else 1.0
    found = binomial_tail(k, trials, rate)
    assert truth * (1 - 1e-9) <= found <= truth * (1 + 1e-6) + 1e-290


def test_a_law_of_huge_counts_is_summed_in_groups_from_above():
    values, weights = binomial(10**12, 0.3, 1e-12)
    assert len(values) < 1 << 18
    assert 1 <= weights.sum() <= 1.01
    mean = float((values * weights).sum()) / 0.3e12
    assert 1 <= mean <= 1.01
    assert binomial_tail(3 * 10**11, 10**12, 0.3) == pytest.approx(0.5, rel=tail_error(10**12))


def test_the_ends_of_the_rate():
    assert [v.tolist() for v in binomial(7, 1.0, 1e-9)] == [[7.0], [1.0]]
    assert [v.tolist() for v in binomial(7, 0.0, 1e-9)] == [[0.0], [1.0]]
    assert binomial_tail(3, 7, 1.0) == 1.0
    assert binomial_tail(7, 7, 0.5) == 0.0
    assert binomial_tail(-1, 7, 0.5) == 1.0
