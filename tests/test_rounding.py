"""Rounding that keeps a stated norm in whole numbers, whatever is rounded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fldp.mechanism import rounding
from fldp.mechanism.lattice import Words
from fldp.mechanism.rounding import longest, round_within

KEY = bytes(range(32))


def squares(rows: Any) -> list[int]:
    """In Python's whole numbers, which do not overflow."""
    return [sum(int(value) ** 2 for value in row) for row in rows.tolist()]


def hostile(count: int, width: int, seed: int) -> np.ndarray:
    """Half-integers, NaN, infinities, values from 1e-40 to 1e300, and everything between."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, width))
    rows *= 10.0 ** random.uniform(-40, 300, (count, 1))
    rows[0::10] = random.integers(-40, 40, rows[0::10].shape) + 0.5
    rows[1::10] = 0.5
    rows[2::10] = np.round(rows[2::10])
    rows[3::10] = random.standard_normal(rows[3::10].shape) * 3
    rows[4::10, 0] = np.nan
    rows[5::10, -1] = np.inf
    rows[6::10] = 1e30
    rows[7::20] = -1e-300
    rows[17::20] = -np.finfo(float).max
    return rows


@pytest.mark.parametrize("width", [1, 2, 16, 1024])
@pytest.mark.parametrize("limit", [0, 1, 9, 1000, 2**54])
def test_ten_thousand_hostile_vectors_stay_within(width: int, limit: int) -> None:
    """500 vectors in each of 20 cases."""
    rows = hostile(500, width, seed=width)
    found = round_within(rows, limit, Words(KEY))
    assert found.dtype == np.int64
    assert max(squares(found)) <= limit
    assert not found[4::10].any()
    assert not found[5::10].any()


@pytest.mark.slow
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 9)),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    ),
    st.integers(0, 10**6),
)
def test_any_float32_stays_within(rows: np.ndarray, limit: int) -> None:
    assert max(squares(round_within(rows, limit, Words(KEY)))) <= limit


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rounding_is_right_on_average_and_moves_less_than_a_step(kind: type) -> None:
    value = np.array([0.3, -0.3, 7.5, -2.0, 1e-9, -1e-9, 0.0, 3.999], dtype=kind)
    found = round_within(np.tile(value, (40_000, 1)), 10**6, Words(KEY))
    assert np.abs(found - value).max() < 1
    # Five standard deviations of at most 1/2.
    assert np.abs(found.mean(0) - value).max() < 5 * 0.5 / math.sqrt(40_000)
    # Whole numbers stay what they are.
    assert (found[:, 3] == -2).all()
    assert (found[:, 6] == 0).all()


def test_what_cannot_be_kept_at_random_is_rounded_towards_zero() -> None:
    rows = np.array([[0.9, 0.9, 0.9, 0.9], [2.9, 0.0, 0.0, 0.0]])
    # A limit that no rounding up keeps.
    found = round_within(rows, 4, Words(KEY))
    assert max(squares(found)) <= 4
    assert round_within(rows[1:] * 0.9 / 2.9, 0, Words(KEY)).tolist() == [[0, 0, 0, 0]]


def test_a_row_that_rounding_towards_zero_does_not_save_is_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever floating point does before: the last look is in whole numbers."""
    monkeypatch.setattr(rounding, "_brought_within", lambda rows, limit: rows)
    found = round_within(np.array([[5.0, 5.0], [1.0, 0.0]]), 9, Words(KEY))
    assert found.tolist() == [[0, 0], [1, 0]]


@pytest.mark.slow
def test_the_bound_is_kept_by_most_roundings() -> None:
    random = np.random.default_rng(3)
    for fineness, width in ((2.0, 64), (40.0, 16), (1000.0, 4096), (0.5, 1024)):
        rows = random.standard_normal((1000, width))
        rows *= fineness / np.linalg.norm(rows, axis=1, keepdims=True)
        low = np.floor(rows)
        rounded = low + (random.random(rows.shape) < rows - low)
        kept = ((rounded**2).sum(1) <= longest(fineness, width)).mean()
        # At least 1 - e^-1/2 = .39 by the proposition.
        assert kept > 0.39


@given(st.floats(1.0, 1e6), st.integers(0, 20))
def test_the_bound_lies_between_the_norm_and_the_surest(fineness: float, power: int) -> None:
    size = 1 << power
    found = longest(fineness, size)
    assert fineness**2 - 1 <= found <= (fineness + math.sqrt(size)) ** 2
    assert found == longest(fineness, size)
    assert isinstance(found, int)


def test_a_row_does_not_depend_on_the_others() -> None:
    """Each row alone, from words of its own: the same law, whoever is beside it."""
    rows = np.full((2, 3), 0.5)
    both = np.stack([round_within(rows, 3, Words()) for _ in range(4000)])
    joint = np.corrcoef(both[:, 0].ravel(), both[:, 1].ravel())[0, 1]
    assert abs(joint) < 5 / math.sqrt(12_000)
