"""Checks: what is right passes through, what is wrong is named with its value and a way out."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fldp import checks


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=3), st.none()))
def test_a_number_passes_unchanged_or_is_refused_by_name(value: Any) -> None:
    for check in (checks.whole, checks.real):
        refusal, found = "", 1.0
        try:
            found = check("rounds", value)
        except ValueError as error:
            refusal = str(error)
        if refusal:
            assert refusal.startswith(f"rounds is {checks.shown(value)}: give a ")
            continue
        assert found == float(value)
        assert 0 < found < math.inf


@pytest.mark.parametrize("value", [True, "60", 1.5, 0, math.nan, math.inf, 10**400, None, [1]])
def test_what_is_not_a_count_is_no_count(value: Any) -> None:
    with pytest.raises(ValueError, match=r"give a whole number >= 1"):
        checks.whole("rounds", value)


def test_a_choice_lists_what_there_is() -> None:
    assert checks.choice("trust", "local", ("central", "local")) == "local"
    with pytest.raises(ValueError, match=r"trust is 'none': choose one of 'central', 'local'"):
        checks.choice("trust", "none", ("central", "local"))


GOOD: dict[str, Any] = {
    "clients": 100, "cohort": 20.0, "sampling": "poisson", "trust": "central",
    "adjacency": "add-or-remove", "accountant": "pld", "cap": None, "survivors": None,
}  # fmt: skip
SHARED = {"trust": "distributed", "adjacency": "zero-out", "survivors": 9}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cohort": 101.0}, "cohort is 101 but there are 100"),
        ({"sampling": "fixed", "cohort": 2.5}, "whole number"),
        ({"sampling": "fixed"}, "adjacency is 'add-or-remove'"),
        ({"sampling": "none", "cap": 30}, "a cap belongs to"),
        ({"cap": 19}, "below the cohort"),
        ({"trust": "distributed"}, "adjacency is 'add-or-remove' with trust='distributed'"),
        ({"trust": "local"}, "adjacency is 'add-or-remove' with trust='local'"),
        ({**SHARED, "accountant": "rdp"}, "accountant is 'rdp' with trust='distributed'"),
        ({**SHARED, "survivors": None}, "survivors is None"),
        ({"survivors": 3}, "belongs to 'distributed'"),
        ({**SHARED, "survivors": 21}, "above the cohort"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(change: dict[str, Any], words: str) -> None:
    checks.consistent(**GOOD)
    checks.consistent(**GOOD | SHARED)
    with pytest.raises(ValueError, match=words):
        checks.consistent(**GOOD | change)
