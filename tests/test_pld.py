"""The privacy-loss kernel against direct integrals, brute force and dp-accounting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fldp import accounting, pld
from fldp.pairs import Fixed, Subsampled


def sf(x):
    return 0.5 * math.erfc(x * math.sqrt(0.5))


def pair(kind, q, z):
    return Fixed(q, z) if kind == "fixed" else Subsampled(kind, q, z)


def one_round(kind, q, z, delta=None, epsilon=None, rounds=1):
    return pld.solve([([(1.0, pair(kind, q, z))], rounds)], delta=delta, epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [1e-3, 0.3, 2.0])
@pytest.mark.parametrize(("q", "z"), [(1e-3, 0.5), (0.2, 1.0), (0.9, 3.0)])
def test_one_remove_round_matches_its_integral(q, z, epsilon):
    x = z * z * math.log((math.expm1(epsilon) + q) / q) + 0.5
    truth = q * sf((x - 1) / z) - (math.expm1(epsilon) + q) * sf(x / z)
    found = one_round("remove", q, z, epsilon=epsilon)
    assert truth * (1 - 1e-9) <= found <= truth * 1.01


@pytest.mark.parametrize("delta", [1e-100, 1e-60, 1e-30, 1e-12, 1e-3, 0.2])
@pytest.mark.parametrize(("z", "rounds"), [(1.0, 1), (5.0, 50), (0.5, 100)])
def test_full_participation_matches_the_closed_form_down_to_tiny_delta(z, rounds, delta):
    truth = accounting.gaussian_epsilon(math.sqrt(rounds) / z, delta)
    found = one_round("remove", 1.0, z, delta=delta, rounds=rounds)
    assert truth <= found <= truth * (1 + 1e-3)
    doubled = one_round("replace", 1.0, 2 * z, delta=delta, rounds=rounds)
    assert truth <= doubled <= truth * (1 + 1e-3)


def hockey_stick(u, v, q, z, epsilon):
    """E_Q[(P/Q - e^epsilon)_+] of (1-q)N(0)+qN(u) against (1-q)N(0)+qN(v) in the plane."""
    axis = np.linspace(-8 * z - 2, 8 * z + 2, 801)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    density = lambda c: np.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2) / (2 * z * z))  # noqa: E731
    rest = (1 - q) * density((0, 0))
    gap = rest + q * density(u) - math.exp(epsilon) * (rest + q * density(v))
    cell = (axis[1] - axis[0]) ** 2 / (2 * math.pi * z * z)
    return float(np.maximum(gap, 0).sum() * cell)


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 2.0])
def test_no_configuration_of_a_fixed_cohort_beats_the_worst_one(epsilon):
    q, z = 0.2, 1.0
    bound = one_round("fixed", q, z, epsilon=epsilon)
    worst = hockey_stick((2, 0), (0, 0), q, z, epsilon)
    assert worst * (1 - 1e-3) <= bound <= worst * 1.01
    rng = np.random.default_rng(0)
    for _ in range(8):
        ball = rng.normal(size=(3, 2))
        ball /= np.maximum(1, np.linalg.norm(ball, axis=1, keepdims=True))
        u, v = ball[0] - ball[2], ball[1] - ball[2]
        assert hockey_stick(u, v, q, z, epsilon) <= bound * (1 + 1e-3)


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 2.0])
def test_opposite_updates_are_the_worst_replacement_under_poisson(epsilon):
    q, z = 0.3, 0.9
    bound = one_round("replace", q, z, epsilon=epsilon)
    worst = hockey_stick((1, 0), (-1, 0), q, z, epsilon)
    assert worst * (1 - 1e-3) <= bound <= worst * 1.01
    for angle in np.linspace(0, math.pi, 9):
        for size in (0.4, 1.0):
            v = (size * math.cos(angle), size * math.sin(angle))
            assert hockey_stick((1, 0), v, q, z, epsilon) <= bound * (1 + 1e-3)


def test_a_composed_fixed_cohort_lies_between_known_bounds():
    """Lower: the worst data set known (Poisson at z/2). Upper: Wang et al. 2019, 83.9 and 143."""
    for q, z, rounds, delta, low, high in [
        (0.1, 1.0, 100, 1e-5, 31.370995, 83.9),
        (100 / 3400, 1.0, 1500, 3400**-1.1, 38.549087, 143.0),
    ]:
        found = one_round("fixed", q, z, delta=delta, rounds=rounds)
        assert low < found < 0.5 * high


def test_a_mixture_lies_between_its_parts():
    parts = [(1.0, pair("remove", 0.05, 1.0))], [(1.0, pair("replace", 0.2, 0.8))]
    low, high = (pld.solve([(p, 50)], delta=1e-5) for p in parts)
    both = [(0.7, parts[0][0][1]), (0.3, parts[1][0][1])]
    assert low < pld.solve([(both, 50)], delta=1e-5) < high


def test_both_directions_are_needed_and_never_exceed_the_moment_bound():
    for q, z, rounds in [(0.01, 1.0, 1000), (0.3, 2.0, 20), (0.9, 5.0, 100)]:
        for kind in ("remove", "add", "replace", "fixed"):
            run = [([(1.0, pair(kind, q, z))], rounds)]
            found = pld.solve(run, delta=1e-6)
            assert 0 < found <= pld.ceiling(run, 1e-6) * (1 + 1e-3)


def test_the_grid_is_a_dial_and_every_setting_is_an_upper_bound():
    run = [([(1.0, pair("remove", 0.01, 0.7))], 500)]
    fine = pld.solve(run, delta=1e-6, accuracy=1e-6)
    for accuracy in (1e-2, 1e-3, 1e-4):
        found = pld.solve(run, delta=1e-6, accuracy=accuracy)
        assert fine <= found * (1 + 1e-6) <= fine * (1 + 3 * accuracy)


@pytest.mark.parametrize(
    ("kind", "q", "z", "rounds", "delta"),
    [
        ("remove", 2.9e-5, 0.386, 8, 3e-6),  # the grid itself moves mass below the true support
        ("remove", 1.5e-4, 0.626, 3, 9e-9),
        ("remove", 2.7e-4, 0.691, 13, 4.5e-9),
        ("remove", 1.2e-4, 0.958, 9910, 4e-10),  # round-off of the transform is near delta
        ("fixed", 1.8e-5, 1.95, 16346, 1.4e-12),
        ("remove", 0.0042, 0.309, 2, 8e-5),
    ],
)
def test_rare_large_losses_are_as_tight(kind, q, z, rounds, delta):
    run = [([(1.0, pair(kind, q, z))], rounds)]
    fine = pld.solve(run, delta=delta, accuracy=4e-5)
    assert fine * (1 - 1e-4) <= pld.solve(run, delta=delta) <= fine * (1 + 1e-3)


def test_random_settings_against_dp_accounting():
    distributions = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")
    rng = np.random.default_rng(7)
    seen = 0
    while seen < 4:
        q, z = 10 ** rng.uniform(-3, -0.1), 10 ** rng.uniform(-0.3, 0.7)
        rounds, delta = int(10 ** rng.uniform(0, 3)), 10 ** rng.uniform(-10, -3)
        found = accounting.epsilon(noise_multiplier=z, delta=delta, rounds=rounds, sampling_rate=q)
        if not 0.2 <= found <= 20:
            continue
        truth = distributions.from_gaussian_mechanism(
            z, sampling_prob=q, value_discretization_interval=1e-4
        ).self_compose(rounds)
        assert found == pytest.approx(truth.get_epsilon_for_delta(delta), rel=2e-3)
        seen += 1


def test_too_much_is_refused_in_plain_words():
    with pytest.raises(ValueError, match="use more noise"):
        one_round("remove", 0.5, 1e-3, delta=1e-5, rounds=10**9)
