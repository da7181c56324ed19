"""Curves of what ran: each point is one of epsilon_of and delta_of, or of another library."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from fldp.accounting import (
    Approximate,
    Concentrated,
    Event,
    Laplace,
    delta_of,
    privacy_curve,
    renyi,
    tradeoff,
)

RUN = [Event(1.0, 0.02, "poisson", 100), Event(8.0, rounds=2)]


def test_a08_the_privacy_curve_holds_the_deltas():
    epsilons = np.array([[0.0, 0.5], [1.0, 3.0]])
    curve = privacy_curve(RUN, epsilons)
    assert curve.shape == (2, 2)
    assert curve[1, 0] == delta_of(RUN, 1.0)
    assert (np.diff(curve.ravel()) < 0).all()
    assert privacy_curve(RUN, 1.0).shape == ()
    assert privacy_curve(RUN, []).shape == (0,)


@pytest.mark.parametrize(
    ("q", "z", "rounds"), [(0.01, 1.0, 100), (0.2, 0.5, 10), (1e-3, 3.0, 1000)]
)
def test_a08_renyi_divergences_are_those_of_opacus(q, z, rounds):
    from opacus.accountants.analysis.rdp import compute_rdp

    orders = [1.5, 2.0, 4.0, 16.0, 64.0, 200.0]
    theirs = compute_rdp(q=q, noise_multiplier=z, steps=rounds, orders=orders)
    assert renyi([Event(z, q, "poisson", rounds)], orders) == pytest.approx(theirs, rel=1e-6)


def test_a08_renyi_divergences_in_closed_form():
    assert renyi([Event(0.5, rounds=3)], [3.0])[0] == pytest.approx(18.0, rel=1e-9)
    assert renyi([Event(0.5)], [3.0], adjacency="replace-one")[0] == pytest.approx(24.0, rel=1e-9)
    assert renyi([Event(0.5)], [3.0], group=2)[0] == pytest.approx(24.0, rel=1e-9)
    assert renyi([Concentrated(0.1, 2)], [5.0])[0] == pytest.approx(1.0)
    assert renyi([Approximate(0.5, 1e-9)], [2.0])[0] == math.inf
    a, b = 4.0, 1.7
    moment = a / (2 * a - 1) * math.exp((a - 1) / b) + (a - 1) / (2 * a - 1) * math.exp(-a / b)
    assert renyi([Laplace(b, 2)], [a])[0] == pytest.approx(2 * math.log(moment) / (a - 1))
    known = Event(2.0, 0.3, "poisson", 7, known=True)
    one = math.log(0.7 + 0.3 * math.exp(a * (a - 1) / 8)) / (a - 1)
    assert renyi([known], [a], adjacency="zero-out")[0] == pytest.approx(7 * one, rel=1e-9)


def test_a08_the_tradeoff_of_a_gaussian_is_the_known_curve_from_below():
    law, alphas = NormalDist(), np.array([1e-4, 0.01, 0.05, 0.3, 0.5, 0.9, 0.999])
    for mu in (0.3, 1.0, 3.0):
        exact = np.array([law.cdf(law.inv_cdf(1 - a) - mu) for a in alphas])
        found = tradeoff([Event(1 / mu)], alphas)
        assert (found <= exact + 1e-9).all()
        assert found == pytest.approx(exact, abs=1e-3)


@pytest.mark.slow
def test_a08_the_tradeoff_of_sampled_rounds():
    alphas = np.linspace(0, 1, 11)
    found = tradeoff(RUN, alphas)
    assert found[0] == pytest.approx(1.0, abs=1e-6)
    assert found[-1] == 0.0
    assert (np.diff(found) <= 1e-12).all()
    # no test does better than epsilon and delta allow
    for epsilon in (0.5, 2.0):
        bound = 1 - delta_of(RUN, epsilon) - math.exp(epsilon) * alphas
        assert (found >= bound - 2e-3).all()
    assert (tradeoff([*RUN, Approximate(0.0, 0.01)], alphas) <= found + 1e-9).all()


def test_a_step_that_may_fail_for_certain_has_no_error_left():
    assert tradeoff([Approximate(1.0, 1.0)], [0.1])[0] == 0.0


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: privacy_curve(RUN, "x"), "epsilons is 'x'"),
        (lambda: privacy_curve(RUN, [-1.0]), "epsilons is -1.0"),
        (lambda: privacy_curve(RUN, [math.nan]), "no finite number"),
        (lambda: privacy_curve(RUN, ["a"]), "no finite number"),
        (lambda: renyi(RUN, [1.0]), "give orders > 1"),
        (lambda: renyi(RUN, None), "orders is None"),
        (lambda: tradeoff(RUN, [1.5]), "alphas is 1.5"),
        (lambda: tradeoff(RUN, [0.5], adjacency="x"), "adjacency is 'x'"),
        (lambda: tradeoff([Event(1.0, 0.1, "poisson", known=True)], [0.5]), "use adjacency"),
    ],
)
def test_what_makes_no_curve_is_refused_in_words(ask, words):
    with pytest.raises(ValueError, match=words):
        ask()
