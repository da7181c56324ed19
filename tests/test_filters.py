"""Rational filters: their series, their sensitivity against brute force, what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fldp.accounting import filters
from fldp.accounting.filters import Filter, fractional, independent, momentum_workload
from fldp.accounting.fitting import banded, blt

RISING = Filter((1.0,), (1.0, 0.1, 1.0))  # C's coefficients: 1, .1, 1


def matrix(column: np.ndarray) -> np.ndarray:
    """The lower triangular Toeplitz matrix with this first column."""
    size = len(column)
    found = np.zeros((size, size))
    for start in range(size):
        found[start:, start] = column[: size - start]
    return found


def patterns(rounds: int, participations: int, separation: int) -> list[tuple[int, ...]]:
    """Every set of rounds in which one client may take part."""
    found = []
    for count in range(1, participations + 1):
        for some in itertools.combinations(range(rounds), count):
            if all(b - a >= separation for a, b in itertools.pairwise(some)):
                found.append(some)
    return found


def brute_force(column: np.ndarray, participations: int, separation: int) -> float:
    """The worst norm over all patterns, and over signs: each participation moves a sum by ±1."""
    every = matrix(column)
    worst = 0.0
    for some in patterns(len(column), participations, separation):
        for signs in itertools.product((1.0, -1.0), repeat=len(some) - 1):
            moved = every[:, list(some)] @ np.array([1.0, *signs])
            worst = max(worst, float(np.linalg.norm(moved)))
    return worst


FILTERS = {
    "independent": independent(),
    "half": fractional(2, 0.5),
    "fractional": fractional(6, 0.4),
    "fractional, all": fractional(11),
    "blt 1": blt(11, 3, 3, 1),
    "blt 2": blt(11, 3, 3, 2),
    "banded": banded(11, 3, 3),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(
    ("rounds", "k", "b"), [(11, 3, 3), (11, 2, 4), (10, 4, 1), (7, 9, 2), (5, 1, 5)]
)
def test_the_sensitivity_is_that_of_the_worst_of_all_patterns(
    name: str, rounds: int, k: int, b: int
) -> None:
    found = FILTERS[name].sensitivity(rounds, k, b)
    column = FILTERS[name].coefficients(rounds)
    assert found == pytest.approx(brute_force(column, k, b), rel=1e-12)


@pytest.mark.parametrize("times", [1, 2, 3, 50])
@pytest.mark.parametrize("separation", [1, 3, 7, 20, 10**12])
def test_copies_are_added_where_they_begin(times: int, separation: int) -> None:
    column = fractional(20).coefficients(20)
    expected = np.zeros(20)
    for copy in range(min(times, 20)):
        start = copy * separation
        if start < 20:
            expected[start:] += column[: 20 - start]
    assert np.allclose(filters.stacked(column, times, separation), expected, atol=1e-13)


def test_a_million_rounds_of_everybody_are_no_wait() -> None:
    assert independent().sensitivity(10**6, 10**6, 1) == pytest.approx(1e3, rel=1e-12)


@pytest.mark.slow
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=7),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_coefficients_that_fall_have_the_formula(
    drops: list[float], participations: int, separation: int
) -> None:
    column = np.concatenate([[1.0], np.cumprod(drops)])
    found = Filter((1.0,), column.tolist()).sensitivity(len(column), participations, separation)
    assert found == pytest.approx(brute_force(column, participations, separation), rel=1e-9)


def test_the_formula_does_not_hold_where_coefficients_rise() -> None:
    column = RISING.coefficients(3)
    formula = float(np.linalg.norm(filters.stacked(column, 2, 1)))
    # Rounds 1 and 3 meet in the third, rounds 1 and 2 do not.
    assert formula < brute_force(column, 2, 1) - 0.1
    with pytest.raises(ValueError, match="rise or are negative"):
        RISING.sensitivity(3, 2, 1)
    # Further apart, participations do not overlap, and any coefficients are exact.
    long = RISING.coefficients(9)
    assert RISING.sensitivity(9, 3, 3) == pytest.approx(brute_force(long, 3, 3))
    assert RISING.sensitivity(9, 3, 3) == pytest.approx(math.sqrt(3 * 2.01))


def test_negative_coefficients_are_refused() -> None:
    with pytest.raises(ValueError, match="rise or are negative"):
        Filter((1.0,), (1.0, -0.5)).sensitivity(5, 2, 1)


def test_a_planted_formula_without_the_check_is_caught() -> None:
    """What a copy that forgot the condition would claim lies below the truth."""
    rng = np.random.default_rng(0)
    too_small = 0
    for _ in range(200):
        column = np.concatenate([[1.0], rng.uniform(-1, 1, 5)])
        formula = float(np.linalg.norm(filters.stacked(column, 2, 2)))
        truth = brute_force(column, 2, 2)
        assert formula <= truth * (1 + 1e-12)
        too_small += formula < 0.99 * truth
        if np.any(np.diff(column) > 0) or np.any(column < 0):
            with pytest.raises(ValueError, match="rise"):
                Filter((1.0,), column.tolist()).sensitivity(6, 2, 2)
    assert too_small > 20


def test_what_rounding_hides_is_added() -> None:
    # A coefficient that rises by less than rounding could: the answer is no smaller than the truth.
    filter = Filter((1.0,), (1.0, 0.5, 0.5 + 1e-12, -1e-13))
    column = filter.coefficients(4)
    assert filter.sensitivity(4, 3, 1) >= brute_force(column, 3, 1)


@pytest.mark.parametrize("name", FILTERS)
def test_the_two_series_are_inverse_to_each_other(name: str) -> None:
    product = matrix(FILTERS[name].coefficients(40)) @ matrix(FILTERS[name].inverse(40))
    assert np.allclose(product, np.eye(40), atol=1e-12)


@given(
    st.lists(st.floats(-0.4, 0.4), max_size=4),
    st.lists(st.floats(-0.2, 0.2), max_size=4),
    st.integers(1, 70),
)
def test_the_series_is_that_of_the_library(
    above: list[float], below: list[float], count: int
) -> None:
    from scipy.signal import lfilter

    impulse = np.zeros(count)
    impulse[0] = 1.0
    expected = lfilter([1.0, *above], [1.0, *below], impulse)
    found = Filter((1.0, *above), (1.0, *below)).inverse(count)
    assert np.allclose(found, expected, atol=1e-10)


def test_a_series_of_high_order_is_that_of_a_low_one() -> None:
    short = fractional(2, 0.5)
    padded = Filter((*short.num, *np.zeros(80)))  # the same filter, by the library
    assert np.allclose(padded.coefficients(50), short.coefficients(50), atol=1e-15)


def test_fractional_powers_are_the_binomial_series() -> None:
    # (1-x)^(1/2) · (1-x)^(1/2) = 1 - x
    half = matrix(fractional(30).inverse(30))
    assert np.allclose((half @ half)[:, 0], [1.0, -1.0, *np.zeros(28)], atol=1e-12)
    assert fractional(5, 0.0) == Filter((1.0, -0.0, -0.0, -0.0, -0.0))
    assert fractional(3, 1.0).inverse(3).tolist() == [1.0, -1.0, 0.0]


def test_the_optimum_without_limits_is_known() -> None:
    # C of the square root: c_k = C(2k, k)/4^k; n = 1000: sens² 3.26500, rms error 3.10224.
    root = fractional(1000)
    assert root.sensitivity(1000, 1, 1000) ** 2 == pytest.approx(3.26500, abs=1e-5)
    assert root.error(1000) * root.sensitivity(1000, 1, 1000) == pytest.approx(3.10224, abs=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_error_is_that_of_the_matrix(momentum: float) -> None:
    noise = blt(12, 2, 5, 2)
    workload = momentum_workload(12, momentum)
    dense = matrix(workload) @ matrix(noise.inverse(12))
    expected = math.sqrt(float((dense**2).sum()) / 12)
    assert noise.error(12, workload) == pytest.approx(expected, rel=1e-12)
    if momentum == 0:
        assert noise.error(12) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("num", "den", "told"),
    [
        ((), (1.0,), "0 coefficients"),
        ((0.5,), (1.0,), "begins with 0.5"),
        ((1.0, math.nan), (1.0,), "holds nan"),
        ((1.0,), (1.0, math.inf), "holds inf"),
        ((1.0, "x"), (1.0,), "holds 'x'"),
        ((1.0, True), (1.0,), "holds True"),
        (7, (1.0,), "num is 7"),
        ("1", (1.0,), "num"),
        ([1.0] * 5000, (1.0,), "5000 coefficients"),
        ((1.0, 10**400), (1.0,), "holds"),
    ],
)
def test_a_filter_that_is_none_is_refused(num: object, den: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Filter(num, den)  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [None, [], {"num": [1.0]}, {"num": [1.0], "den": [1], "z": 1}])
def test_a_dict_that_is_no_filter_is_refused(fields: object) -> None:
    with pytest.raises(ValueError, match="a filter is"):
        Filter.from_dict(fields)


def test_a_filter_comes_back_from_its_dict() -> None:
    filter = blt(11, 3, 3, 2)
    assert Filter.from_dict(filter.to_dict()) == filter
    assert hash(Filter.from_dict(filter.to_dict())) == hash(filter)


def test_coefficients_that_explode_are_refused() -> None:
    with pytest.raises(ValueError, match="outgrow"):
        Filter((1.0, -4.0)).sensitivity(1000, 1, 1)
    with pytest.raises(ValueError, match="rise"):
        Filter((1.0, -1.5)).sensitivity(10, 1, 1)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: independent().sensitivity(0, 1, 1),
        lambda: independent().sensitivity(5, 0, 1),
        lambda: independent().sensitivity(5, 1, 0),
        lambda: independent().sensitivity(10**9, 1, 1),
        lambda: independent().error(5, [1.0, 2.0]),
        lambda: fractional(0),
        lambda: fractional(3, 1.5),
        lambda: momentum_workload(5, 1.0),
    ],
)
def test_numbers_out_of_range_are_refused(ask: object) -> None:
    with pytest.raises(ValueError, match=r"give|takes at most"):
        ask()  # type: ignore[operator]


@pytest.mark.parametrize("filter", [
    Filter((1.0,), (1.0, -2.0)), Filter((1.0,), (1.0, 0.0, 1.5)),
    Filter((1.0, -2.0), (1.0, -2.0)),  # cancels on paper, and not in what a run keeps
])  # fmt: skip
def test_noise_that_outgrows_its_fresh_part_is_refused(filter: Filter) -> None:
    assert filter.sensitivity(8, participations=1, separation=8) >= 1
    with pytest.raises(ValueError, match="lost in rounding"):
        filter.sensitivity(60, participations=12, separation=5)


def test_what_is_fitted_stays_quiet() -> None:
    blt(10_000, 1, 10_000, buffers=3).sensitivity(10_000, 1, 10_000)
    banded(64, 8, 8).sensitivity(64, 8, 8)
    Filter((1.0,), (1.0, -1.0)).sensitivity(1000, 10, 100)
