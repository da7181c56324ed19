"""Dominating pairs: exact profiles, grids never below them, and nothing that beats them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fldp.accounting import pairs
from fldp.accounting.gaussian import zcdp_log_deltas
from fldp.accounting.gaussian_pairs import Fixed, Group, Subsampled

PAIRS = [
    Subsampled("remove", 0.2, 1.0),
    Subsampled("remove", 1.0, 2.0),
    Subsampled("add", 0.2, 1.0),
    Subsampled("replace", 0.2, 1.0),
    Subsampled("replace", 1.0, 3.0),
    Subsampled("remove", 1e-3, 0.4),
    Subsampled("add", 0.9, 30.0),
    Fixed(0.2, 1.5),
    Group("remove", 0.1, 1.0, 4),
    Group("add", 0.1, 1.0, 4),
    Group("remove", 0.9, 5.0, 2),
    pairs.Shifted(0.7),
    pairs.silent(),
    pairs.approximate(0.5, 1e-3),
    pairs.concentrated(0.3),
]
NAMES = [f"{type(p).__name__}-{i}" for i, p in enumerate(PAIRS)]
WIDE = (-60.0, 60.0)


def integral(p, q, low, high, epsilon):
    """The integral of (p - e^epsilon q)+ by a sum so fine that its error does not matter."""
    x = np.linspace(low, high, 2_000_001)
    return float(np.maximum(p(x) - math.exp(epsilon) * q(x), 0).sum() * (x[1] - x[0]))


def normal(z, *centres_and_weights):
    def density(x):
        total = 0.0
        for centre, weight in centres_and_weights:
            total = total + weight * np.exp(-((x - centre) ** 2) / (2 * z * z))
        return total / (z * math.sqrt(2 * math.pi))

    return density


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 2.0])
def test_profiles_are_the_integrals_of_their_definitions(epsilon):
    sampled, still = normal(1.0, (0, 0.8), (1, 0.2)), normal(1.0, (0, 1.0))
    opposite = normal(1.0, (0, 0.8), (-1, 0.2))
    weights = [math.comb(4, j) * 0.1**j * 0.9 ** (4 - j) for j in range(5)]
    group = normal(1.0, *enumerate(weights))
    laplace = [lambda x, c=c: np.exp(-np.abs(x - c) / 0.7) / 1.4 for c in (0, 1)]
    for pair, p, q in (
        (Subsampled("remove", 0.2, 1.0), sampled, still),
        (Subsampled("add", 0.2, 1.0), still, sampled),
        (Subsampled("replace", 0.2, 1.0), sampled, opposite),
        (Fixed(0.2, 2.0), sampled, still),
        (Group("remove", 0.1, 1.0, 4), group, still),
        (Group("add", 0.1, 1.0, 4), still, group),
        (pairs.Shifted(0.7), *laplace),
    ):
        truth = integral(p, q, -25, 25, epsilon)
        assert pair.profile(epsilon) == pytest.approx(truth, rel=1e-5, abs=1e-9), pair


@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
@pytest.mark.parametrize("h", [1e-3, 0.037, 0.5])
def test_a_grid_holds_all_mass_and_no_smaller_delta(pair, h):
    cells = pair.cells(h, *WIDE)
    assert float(cells.mass.sum()) + cells.infinite == pytest.approx(1.0, abs=1e-9)
    assert (cells.mass >= 0).all()
    loss = h * (cells.first + np.arange(cells.mass.size))
    for epsilon in (0.0, 0.01, 0.2, 0.77, 3.0):
        gain = cells.mass * -np.expm1(-np.maximum(loss - epsilon, 0))
        delta = float(gain.sum()) + cells.infinite
        assert delta >= pair.profile(epsilon) * (1 - 1e-9)
        at = h * math.ceil(epsilon / h)  # on the grid itself it is exact
        gain = cells.mass * -np.expm1(-np.maximum(loss - at, 0))
        exact = pair.profile(at)
        assert float(gain.sum()) + cells.infinite == pytest.approx(exact, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
def test_what_is_cut_off_a_grid_goes_upwards(pair):
    whole = pair.cells(0.01, *WIDE)
    cut = pair.cells(0.01, -0.1, 0.2)
    for epsilon in (0.0, 0.1):
        deltas = []
        for cells in (whole, cut):
            loss = 0.01 * (cells.first + np.arange(cells.mass.size))
            gain = cells.mass * -np.expm1(-np.maximum(loss - epsilon, 0))
            deltas.append(float(gain.sum()) + cells.infinite)
        assert deltas[1] >= deltas[0] * (1 - 1e-12)
    assert float(cut.mass.sum()) + cut.infinite == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
def test_the_quadrature_knows_mass_and_tilted_mass(pair):
    loss, log_mass = pair.nodes(9.0)
    assert float(np.exp(log_mass).sum()) + pair.infinite == pytest.approx(1.0, abs=1e-6)
    # E[e^-L] is at most 1, and 1 where Q has no mass that P lacks
    assert float(np.exp(log_mass - loss).sum()) <= 1 + 1e-6


@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
def test_the_variation_is_no_smaller_than_delta_at_zero(pair):
    assert pair.variation >= pair.profile(0.0) * (1 - 1e-9)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.floats(0, 3), st.integers(0, 10**6))
def test_a01_no_contributions_of_a_group_beat_equal_ones(epsilon, seed):
    """Three clients with any contributions in the plane against three that all send 1."""
    rng = np.random.default_rng(seed)
    q, z = 0.3, 1.0
    each = rng.normal(size=(3, 2))
    each /= np.maximum(1, np.linalg.norm(each, axis=1, keepdims=True))
    axis = np.linspace(-9, 9, 241)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    cell = (axis[1] - axis[0]) ** 2 / (2 * math.pi * z * z)
    moved = np.zeros(grid.shape[:2])
    for members in range(8):
        present = [i for i in range(3) if members >> i & 1]
        weight = q ** len(present) * (1 - q) ** (3 - len(present))
        centre = each[present].sum(axis=0)
        moved += weight * np.exp(-((grid - centre) ** 2).sum(axis=-1) / (2 * z * z))
    still = np.exp(-(grid**2).sum(axis=-1) / (2 * z * z))
    for kind, p, other in (("remove", moved, still), ("add", still, moved)):
        found = float(np.maximum(p - math.exp(epsilon) * other, 0).sum() * cell)
        assert found <= Group(kind, q, z, 3).profile(epsilon) * (1 + 2e-3) + 1e-9


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.floats(0.02, 0.98), st.floats(-2, 2), st.floats(0.2, 3))
def test_no_split_of_a_laplace_shift_beats_one_coordinate(share, epsilon, b):
    """Two coordinates that move by s and 1 - s; the law of their loss by a fine sum."""

    def law(shift):
        x = (np.arange(1500) + 0.5) / 1500 * shift
        loss = np.concatenate([[shift / b], (shift - 2 * x) / b, [-shift / b]])
        mass = np.concatenate(
            [[0.5], np.exp(-x / b) * shift / 3000 / b, [0.5 * math.exp(-shift / b)]]
        )
        return loss, mass / mass.sum()

    (one, p), (two, q) = law(share), law(1 - share)
    total = one[:, None] + two
    gain = -np.expm1(-np.maximum(total - epsilon, 0.0))
    split = float((p[:, None] * q * gain).sum())
    full = pairs.Shifted(b).profile(epsilon) if epsilon >= 0 else None
    if full is None:
        full = -math.expm1(epsilon) + math.exp(epsilon) * pairs.Shifted(b).profile(-epsilon)
    assert split <= full + 1e-5


@pytest.mark.parametrize("rho", [1e-9, 1e-3, 0.3, 20.0, 1e5])
def test_the_zcdp_pair_is_the_conversion_made_convex(rho):
    pair = pairs.concentrated(rho)
    top = rho + 6 * math.sqrt(2 * rho)
    for epsilon in np.linspace(0, top, 13).tolist():
        converted = math.exp(float(zcdp_log_deltas(rho, np.array([epsilon]))[0]))
        assert pair.profile(epsilon) <= converted * (1 + 3e-3)
        # one Gaussian with this rho is such a step, and so is its every delta
        gaussian = Subsampled("remove", 1.0, 1 / math.sqrt(2 * rho))
        assert pair.profile(epsilon) >= gaussian.profile(epsilon) * (1 - 1e-9)
    assert float(pair.masses.sum()) + pair.infinite == pytest.approx(1.0, abs=1e-9)


def test_an_epsilon_delta_step_is_dominated_exactly():
    pair = pairs.approximate(0.5, 1e-3)
    assert pair.profile(0.5) == pytest.approx(1e-3, rel=1e-12)
    assert pair.profile(7.0) == pytest.approx(1e-3, rel=1e-12)
    assert pair.variation == pytest.approx(1e-3 + 0.999 * math.tanh(0.25), rel=1e-12)
