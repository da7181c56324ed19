"""Closed forms against arithmetic with fifty digits."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fldp.accounting import gaussian

mpmath = pytest.importorskip("mpmath")
mpmath.mp.dps = 50
few = settings(deadline=None, max_examples=40)


def exact_delta(mu, epsilon):
    mu, epsilon = mpmath.mpf(mu), mpmath.mpf(epsilon)
    phi = lambda x: mpmath.erfc(-x / mpmath.sqrt(2)) / 2  # noqa: E731
    near, far = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return phi(near) - mpmath.exp(epsilon) * phi(far)


def test_the_error_function_has_all_its_digits():
    x = np.concatenate([np.linspace(0, 26, 521), np.geomspace(1e-12, 1, 60)])
    truth = np.array([float(mpmath.erfc(mpmath.mpf(v))) for v in x])
    assert np.abs(gaussian.erfc(x) / truth - 1).max() < 1e-15
    assert gaussian.erfc(np.array([100.0, np.inf])).tolist() == [0.0, 0.0]
    for y in (0.0, 0.1, 7.99, 8.0, 8.01, 20.0, 300.0):
        scaled = mpmath.exp(mpmath.mpf(y) ** 2) * mpmath.erfc(mpmath.mpf(y))
        assert gaussian.erfcx_one(y) == pytest.approx(float(scaled), rel=2e-15)


@pytest.mark.slow
def test_r17_epsilon_is_the_same_number_whatever_is_loaded():
    ask = (
        "from fldp import accounting; print(repr(accounting.epsilon(noise_multiplier=0.8, "
        "delta=1e-6, rounds=300, sampling_rate=0.02)))"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", before + ask], capture_output=True, text=True, check=True
        ).stdout
        for before in ("", "import torch; ", "import scipy.special; ")
    ]
    assert len(set(answers)) == 1


@few
@given(
    st.floats(-8, 2).map(lambda x: 10**x),
    st.floats(-2, 8),
)
def test_a_gaussian_delta_is_exact_and_never_too_small(mu, tails):
    epsilon = max(0.0, mu * tails + mu * mu / 2)
    truth = exact_delta(mu, epsilon)
    found = gaussian.gaussian_delta(mu, epsilon)
    assert found >= truth * (1 - mpmath.mpf("1e-13"))
    assert found <= truth * (1 + mpmath.mpf("1e-12") + mpmath.mpf("3e-14") / mu)


@few
@given(st.floats(-6, 3).map(lambda x: 10**x), st.floats(-250, -0.1))
def test_a_gaussian_epsilon_holds_and_hardly_more(mu, log10_delta):
    delta = 10.0**log10_delta
    epsilon = gaussian.gaussian_epsilon(mu, delta)
    assert exact_delta(mu, epsilon) <= delta * (1 + mpmath.mpf("1e-9"))
    if epsilon > 1e-6 * mu:
        assert exact_delta(mu, epsilon * (1 - 1e-6)) >= delta * (1 - mpmath.mpf("1e-9"))


def test_the_inverse_answers_at_epsilon_zero():
    mu = gaussian.gaussian_mu(0.0, 1e-3)
    assert math.erf(mu / math.sqrt(8)) == pytest.approx(1e-3, rel=1e-12)
    assert gaussian.gaussian_epsilon(mu * (1 - 1e-9), 1e-3) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rounds", "rate", "mu"), [(60, 0.25, 1.0), (7, 0.6, 0.3), (400, 0.01, 2.0)]
)
@pytest.mark.parametrize("epsilon", [0.0, 1.0, 12.0])
@pytest.mark.parametrize("base", [0.0, 0.7])
def test_known_participation_is_the_mean_over_participations(rounds, rate, mu, epsilon, base):
    total = mpmath.mpf(0)
    for k in range(rounds + 1):
        weight = mpmath.binomial(rounds, k) * mpmath.mpf(rate) ** k
        weight *= (1 - mpmath.mpf(rate)) ** (rounds - k)
        joint = mpmath.sqrt(k * mpmath.mpf(mu) ** 2 + mpmath.mpf(base) ** 2)
        total += weight * exact_delta(joint, epsilon) if joint else 0
    found = gaussian.known_delta(mu, rate, rounds, epsilon, base)
    assert total * (1 - mpmath.mpf("1e-12")) <= found <= total * (1 + mpmath.mpf("1e-9")) + 1e-299
    if found < 0.5:
        back = gaussian.known_epsilon(mu, rate, rounds, found, base)
        assert back == pytest.approx(epsilon, rel=1e-6, abs=1e-8)


def test_known_participation_at_its_ends():
    assert gaussian.known_epsilon(0.5, 1.0, 16, 1e-5) == pytest.approx(
        gaussian.gaussian_epsilon(2.0, 1e-5), rel=1e-8
    )
    many = gaussian.known_epsilon(1e-5, 0.3, 10**10, 1e-6)
    mean = gaussian.gaussian_epsilon(1e-5 * math.sqrt(0.3e10), 1e-6)
    assert mean < many < mean * (1 + 1e-4)


@pytest.mark.parametrize("rho", [1e-6, 0.01, 2.56, 50.0, 1e5])
@pytest.mark.parametrize("delta", [1e-10, 1e-3, 0.3])
def test_a08_zcdp_is_converted_by_the_best_order(rho, delta):
    """Canonne, Kamath & Steinke 2020, minimised anew, with other means and more digits."""
    rho_, log_delta = mpmath.mpf(rho), mpmath.log(mpmath.mpf(delta))

    def at(log_order_less_one):
        a = mpmath.exp(log_order_less_one)
        return rho_ * (1 + a) - (log_delta + mpmath.log(1 + a)) / a + mpmath.log(a / (1 + a))

    middle = mpmath.log(mpmath.sqrt(-log_delta / rho_))
    places = [middle + mpmath.mpf(i) / 20 for i in range(-200, 201)]
    i = min(range(401), key=lambda j: at(places[j]))
    low, high = places[max(0, i - 1)], places[min(400, i + 1)]
    for _ in range(120):  # a convex function: golden section
        left, right = low + 0.382 * (high - low), low + 0.618 * (high - low)
        low, high = (low, right) if at(left) < at(right) else (left, high)
    truth = max(mpmath.mpf(0), at((low + high) / 2))
    found = gaussian.zcdp_epsilon(rho, delta)
    assert truth * (1 - mpmath.mpf("1e-12")) <= found <= truth * (1 + mpmath.mpf("1e-6")) + 1e-15
    if found > 0:
        assert gaussian.zcdp_rho(found, delta) == pytest.approx(rho, rel=1e-6)


def test_a08_the_census_is_17_16_and_never_the_16_48_of_one_gaussian():
    found = gaussian.zcdp_epsilon(2.56, 1e-10)
    assert 17.15 < found < 17.17
    assert gaussian.gaussian_epsilon(math.sqrt(2 * 2.56), 1e-10) == pytest.approx(16.48, abs=0.01)
    assert gaussian.zcdp_rho(17.16, 1e-10) <= 2.5605
    loose = 2.56 + 2 * math.sqrt(2.56 * math.log(1e10))
    assert loose == pytest.approx(17.92, abs=0.01)  # what the Census prints


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0, 17.0])
def test_the_zcdp_profile_inverts_the_conversion(epsilon):
    delta = math.exp(float(gaussian.zcdp_log_deltas(0.7, np.array([epsilon]))[0]))
    if delta < 0.9:
        assert gaussian.zcdp_epsilon(0.7, delta) == pytest.approx(epsilon, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("delta", [1e-100, 1e-16, 1e-3])
def test_the_inverse_at_epsilon_zero_keeps_a_tiny_delta(delta):
    mu = gaussian.gaussian_mu(0.0, delta)
    assert mu == pytest.approx(delta * math.sqrt(2 * math.pi), rel=1e-6)
    assert math.erf(mu / math.sqrt(8)) <= delta
    with pytest.raises(ValueError, match="no Gaussian meets it"):
        gaussian.gaussian_mu(0.0, 1e-310)
