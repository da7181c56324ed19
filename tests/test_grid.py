"""Grid, modulus and noise of a plan: enough for z, and hardly more than a Gaussian's."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from conftest import plan_for
from hypothesis import assume, given
from hypothesis import strategies as st

from fldp.accounting import gaussian_mu, skellam_gdp
from fldp.mechanism.grid import Terms, finest, grid_for
from fldp.mechanism.rotation import padded
from fldp.mechanism.rounding import longest

KNOWN = json.loads((Path(__file__).parent / "data" / "lattice.json").read_text(encoding="utf-8"))


def terms(z: float, d: int, m: int, survivors: int | None = None) -> Terms:
    return Terms(z, d, uploads=m, shares=survivors or m, arriving=m)


@pytest.mark.slow
def test_the_fewest_bits_of_a_hundredth_and_their_noise() -> None:
    for known in KNOWN["bits"]:
        asked = terms(known["z"], known["d"], known["m"], known["survivors"])
        growth = math.sqrt(known["m"] / known["survivors"])
        grid = finest(asked, known["bits_for_1pct"])
        assert grid is not None
        assert grid.overhead <= 1.01
        assert grid.overhead * growth == pytest.approx(known["total"], rel=1e-4)
        less = finest(asked, known["bits_for_1pct"] - 1)
        assert less is None or less.overhead > 1.01 * (1 - 1e-4)


@pytest.mark.parametrize("known", KNOWN["published_noise"])
def test_noise_is_a_twentieth_below_the_published_choice(known: dict[str, Any]) -> None:
    """With half of the modulus four standard deviations, as there; q = 1, T = 1."""
    z = 1 / gaussian_mu(known["eps"], known["delta"])
    grid = finest(terms(z, known["d"], known["m"]), known["bits"], deviations=4.0)
    assert grid is not None
    assert grid.overhead <= known["google_skellam"] / 1.05
    # No finer than a thousandth pays.
    assert grid.overhead <= max(1.001, known["ours"]) * (1 + 1e-4)


@pytest.mark.parametrize(
    ("asked", "bits"),
    [
        (terms(1.0, 650, 10), 16),
        (terms(1.0, 650, 1000), 16),
        (terms(1.0, 10**6, 1000), 16),
        (terms(1.0, 650, 10_000), 24),
        (terms(1.0, 10**4, 10_000), 20),
        (terms(1.0, 10**6, 10_000, 8000), 20),
    ],
)
def test_the_default_is_the_first_modulus_that_is_good_enough(asked: Terms, bits: int) -> None:
    grid = grid_for(asked)
    assert grid.bits == bits
    assert grid.overhead <= 1.01


@pytest.mark.slow
@given(
    st.floats(0.05, 30.0), st.integers(1, 10**6), st.integers(1, 3000), st.floats(0.1, 1.0),
    st.sampled_from([8, 12, 16, 24, 32]),
)  # fmt: skip
def test_the_noise_is_enough_by_the_account(
    z: float, d: int, m: int, share: float, bits: int
) -> None:
    grid = finest(terms(z, d, m, max(1, int(share * m))), bits)
    assume(grid is not None)
    assert grid.norm == math.sqrt(grid.limit)
    sensitivity = grid.norm
    assert 1 / (sensitivity * skellam_gdp(float(grid.share * grid.shares))) >= z
    # A contribution of Δ steps is rounded within the limit at random.
    assert grid.limit == longest(grid.fineness, padded(d)) >= grid.fineness**2 - 1
    # Whole squares, and sums of all clients, stay in 64 bits.
    assert grid.limit < 2**56
    assert isinstance(grid.share, Fraction)


def test_a_central_server_adds_all_of_the_noise_whoever_comes() -> None:
    central = Terms.of(plan_for(100), 10)
    assert (central.uploads, central.shares, central.arriving) == (100, 1, 1)
    shared = Terms.of(plan_for(100, trust="distributed", min_survivors=80, colluders=9), 10)
    assert (shared.uploads, shared.shares, shared.arriving) == (100, 80, 100)


@pytest.mark.parametrize(
    ("asked", "bits", "words"),
    [
        (terms(1.0, 650, 100), 8, "bits is 8: too few .*the noise would be 3.02 times.*give 16"),
        (terms(1.0, 1, 10_000), 8, "no grid fits.*give 32"),
        (terms(1.0, 650, 100), 7, "bits is 7: give 8 to 32"),
        (terms(1.0, 650, 100), 33, "bits is 33: give 8 to 32"),
        (terms(1.0, 650, 100), 16.5, "bits is 16.5"),
        (terms(1e6, 10**6, 100), None, "no grid of 32 bits"),
    ],
)
def test_too_few_bits_are_refused_with_what_is_enough(asked: Terms, bits: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        grid_for(asked, bits)
