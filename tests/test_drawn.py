"""Who takes part, in a statement's words: what hides it, who sees to it, and what it costs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import fldp
from fldp.plan import PrivacyPlan
from fldp.plan.drawn import amplified, mixed, sampling

BASE = {"epsilon": 8.0, "delta": 1e-3, "rounds": 60, "clients": 480}
SEEDED = 26  # a seed that gives some client 26 of the 60 rounds


def one_line(text: str) -> str:
    return " ".join(text.split())


def plan(**changes: Any) -> PrivacyPlan:
    return fldp.calibrate(**{**BASE, "cohort": 120, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (True, False)),
        ({"sampling": "none"}, (False, False)),
        ({"cohort": None}, (False, False)),
        ({"trust": "local"}, (False, False)),
        ({"trust": "distributed", "min_survivors": 60}, (False, True)),
        ({"trust": "distributed", "min_survivors": 60, "sampling": "none"}, (False, False)),
        ({"sampling": "none", "cohort": 60, "separation": 8}, (False, False)),
    ],
)
def test_secret_draws_and_coins_that_are_known_are_told_apart(
    changes: dict[str, Any], expected: tuple[bool, bool]
) -> None:
    made = plan(**changes)
    assert (amplified(made), mixed(made)) == expected


def test_limits_are_told_with_who_enforces_them() -> None:
    told = sampling(plan(sampling="none", cohort=60, separation=8), None)
    assert "a client takes part at most 8 times, at least 8 rounds apart" in told
    assert "a run of fldp.train enforces it; elsewhere whoever runs the rounds must" in told
    assert "pays for that, not for all 60 rounds" in told
    once = sampling(plan(sampling="none", cohort=8, participations=1), None)
    assert "at most once (" in once
    free = sampling(plan(sampling="none"), None)
    assert "a client pays for all 60 rounds" in free


def test_r05_a_statement_says_how_often_a_round_is_skipped_where_that_matters() -> None:
    made = plan(trust="distributed", min_survivors=96)
    said = one_line(made.statement())
    chance, some = fldp._text.up(made.skips()["round"]), fldp._text.up(made.skips()["any"])
    assert f"fewer than 96 clients come to a round with probability {chance}" in said
    assert f"at least one of the 60 rounds with probability {some}" in said
    # What a skip tells, that fewer came, is public there already.
    assert "that number is public, also where a round is skipped" in said
    rare = dataclasses.replace(made, min_survivors=60)
    assert 0 < rare.skips()["any"] < 1e-3
    for other in (rare, dataclasses.replace(made, sampling="fixed")):
        assert "Skipped rounds" not in other.statement()
    # A seed has drawn already.
    assert "Skipped rounds" not in made.statement(participations=SEEDED)


def test_whatever_the_draws_a_limited_client_pays_for_its_limit() -> None:
    limited = plan(sampling="none", cohort=8, participations=5)
    said = one_line(limited.statement(participations=3))
    assert (
        f"Whatever the draws: ε = {fldp._text.up(limited.epsilon())}, that of all 5 rounds" in said
    )


def test_turns_are_enforced_by_a_run_of_ours_alone() -> None:
    turns = plan(sampling="poisson", cohort=30, separation=8, correlation="banded")
    assert "(a run of fldp.train enforces the turns; elsewhere" in sampling(turns, None)
