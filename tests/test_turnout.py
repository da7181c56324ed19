"""How many clients a round may have, by its plan."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from conftest import plan_for

from fldp.mechanism.summation import MOST
from fldp.mechanism.turnout import fewest, likely, most, shares, told

SHARED: dict[str, Any] = {"trust": "distributed", "min_survivors": 5, "colluders": 2}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (1, 0, 20, 20)),
        ({"trust": "local"}, (1, 0, 20, 20)),
        (SHARED, (5, 7, 20, 20)),
        ({**SHARED, "colluders": 0}, (5, 5, 20, 20)),
        ({"sampling": "poisson", "cohort": 4, "clients": 100}, (1, 0, 100, 16)),
        ({"sampling": "poisson", "cohort": 4, "clients": 100, "cap": 9}, (1, 0, 9, 9)),
        (
            {"sampling": "fixed", "cohort": 4, "adjacency": "replace-one", "clients": 100},
            (1, 0, 4, 4),
        ),
    ],
)
def test_how_many_may_come(changes: dict[str, Any], expected: tuple[int, ...]) -> None:
    plan = plan_for(**{"clients": 20, **changes})
    assert (shares(plan), fewest(plan), most(plan), likely(plan)) == expected


def test_no_more_than_one_sum_holds() -> None:
    plan = plan_for(10**9, cohort=10, sampling="poisson")
    assert most(plan) == MOST


def test_the_fewest_in_words() -> None:
    plan = plan_for(20, **SHARED)
    assert told(plan) == "min_survivors = 5 and 2 colluders"
    assert told(dataclasses.replace(plan, colluders=0)) == "min_survivors = 5"
