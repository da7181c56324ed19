"""Checks: what is right passes through, what is wrong is named with its value and a way out."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fldp import _checks as checks

# Where floats stop to tell whole numbers apart, in the types that callers have.
EDGES = (2**24, 2**53, 2**63)
WHOLE_NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from(EDGES).flatmap(lambda edge: st.integers(edge - 3, edge + 3)),
    st.sampled_from(EDGES).map(float),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.integers(0, 2**64 - 1).map(np.uint64),
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.floats(width=32).map(np.float32),
)
ANYTHING = st.one_of(
    WHOLE_NUMBERS, st.floats(), st.fractions(), st.booleans(), st.text(max_size=3), st.none()
)


def asked(check: Callable[..., float], value: Any) -> float | None:
    """What a check lets through, or None if it refuses by name with a way out."""
    try:
        return check("rounds", value)
    except ValueError as error:
        refusal = str(error)
    assert refusal.startswith(f"rounds is {checks.shown(value)}: give a ")
    return None


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(ANYTHING)
@example(2**53 + 1)
@example(np.uint64(2**63 + 1))
@example(np.float32(2**24))
def test_w08_a_count_passes_exactly_or_is_refused(value: Any) -> None:
    found = asked(checks.whole, value)
    if found is not None:
        assert type(found) is int
        # Fractions compare exactly; a comparison of an int64 with a float does not.
        assert Fraction(found) == Fraction(value.item() if isinstance(value, np.generic) else value)
        assert found >= 1


@settings(deadline=None, max_examples=300)
@given(ANYTHING)
@example(2**53 + 1)
@example(10**400)
def test_w08_a_number_passes_as_the_nearest_float_or_is_refused(value: Any) -> None:
    found = asked(checks.real, value)
    if found is not None:
        assert type(found) is float
        assert found == float(value)
        assert 0 < found < math.inf


NO_NUMBERS = [True, np.True_, "60", b"6", None, [1], 6 + 0j, np.complex64(6), np.timedelta64(6)]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused(value: Any) -> None:
    for check in (checks.whole, checks.real, checks.between):
        with pytest.raises(ValueError, match=r": give a "):
            check("rounds", value)


@pytest.mark.parametrize("value", [1.5, 0, math.nan, math.inf, 10**400, *NO_NUMBERS])
def test_what_is_not_a_count_is_no_count(value: Any) -> None:
    with pytest.raises(ValueError, match=r"give a whole number >= 1"):
        checks.whole("rounds", value)


def test_a_choice_lists_what_there_is() -> None:
    assert checks.choice("trust", "local", ("central", "local")) == "local"
    with pytest.raises(ValueError, match=r"trust is 'none': choose one of 'central', 'local'"):
        checks.choice("trust", "none", ("central", "local"))


@pytest.mark.parametrize("function", [max, lambda a, b, c: None, lambda *a: None, print])
def test_a_function_that_takes_the_arguments(function: Any) -> None:
    checks.check_takes("fn", function, "(model, x, y)", 3)


@pytest.mark.parametrize("function", [3, None, "fn", lambda a: None, lambda a, b: None, dict])
def test_what_does_not_take_the_arguments_is_named(function: Any) -> None:
    with pytest.raises(ValueError, match=r"^fn is .*: give a function of \(model, x, y\)"):
        checks.check_takes("fn", function, "(model, x, y)", 3)


def test_what_is_shown_of_a_value_stays_on_one_line() -> None:
    assert "\n" not in checks.shown(np.zeros((3, 3)))
