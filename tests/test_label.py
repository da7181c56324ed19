"""plan.label: true for the plan's unit, adjacency and observer, and rounded against the promise."""

from __future__ import annotations

import math
import re

import pytest
from test_statement import plans

import fldp
from fldp.plan.drawn import amplified
from fldp.plan.exposure import exposures
from fldp.plan.label import Label


def text(plan: fldp.PrivacyPlan, **given: object) -> str:
    return " ".join(str(Label(plan, exposures(plan), **given)).split())


@pytest.mark.slow
def test_every_kind_of_plan_has_a_label_that_is_true_of_it() -> None:
    for name, plan in plans():
        said = text(plan, client="phone")
        assert not re.search("[εδσ²=]|e\\^|phone phone|None", said), name
        who = said.split("Who is looking:")[1].split("As a bet")[0]
        hidden = amplified(plan) or plan.adjacency == "add-or-remove"
        assert ("not who took part" in who) == (plan.trust == "central" and hidden), name
        assert ("took part at all" in who) == (plan.adjacency == "add-or-remove"), name
        assert ("The promise is not against them" in said) == (plan.trust == "central"), name
        assert ("honest" in said) == (plan.trust == "distributed"), name
        for each, wins in zip(
            exposures(plan), re.findall(r"win at most (\d+)", said), strict=False
        ):
            assert int(wins) >= 100 * each.bet, name


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 8.0])
def test_no_figure_is_better_than_true(epsilon: float) -> None:
    plan = fldp.calibrate(epsilon=epsilon, delta=1e-6, rounds=10, clients=1000, cohort=50)
    said = text(plan)
    found = exposures(plan)
    wins = [int(figure) for figure in re.findall(r"win at most (\d+) in 100", said)]
    assert len(wins) == len(found)
    for each, figure in zip(found, wins, strict=True):
        assert 100 * each.bet <= figure < 100 * each.bet + 1
    after = int(re.search(r"think it at most (\d+) in 100", said)[1])
    odds = found[0].factor / 99
    assert after >= 100 * odds / (1 + odds)
    runs = int(re.search(r"one training in ([\d,]+) at most", said)[1].replace(",", ""))
    assert 1 / runs >= found[0].exceptions


def test_a_weak_promise_and_seeds_are_called_so() -> None:
    plan = fldp.calibrate(epsilon=30.0, delta=1e-5, rounds=10, clients=1000)
    assert "weak" in text(plan)
    assert "nothing useful is promised" in text(plan)
    strong = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=10, clients=1000, cohort=50)
    assert "weak" not in text(strong)
    seeded = text(strong, seeds=(True, True))
    assert "knows by which seed clients were drawn" in seeded
    assert "Against them nothing on this page holds" in seeded


def test_a_bound_of_100_in_100_is_called_none() -> None:
    plan = fldp.plan.PrivacyPlan(
        0.05, 1e-5, 20, 100, 20.0, "poisson", "central", "add-or-remove", "pld", 8.0
    )
    said = text(plan)
    assert "100 in 100" not in said.replace("50 in 100", "")
    assert "nothing useful is promised" in said


def test_a_tiny_share_of_runs_is_a_number_that_can_be_read() -> None:
    plan = fldp.plan.PrivacyPlan(
        20.0, 1e-300, 20, 100, 20.0, "poisson", "central", "add-or-remove", "pld", 8.0
    )
    assert "one training in 1,000,000,000 at most" in text(plan)


def test_a_person_with_several_clients_is_told() -> None:
    plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=10, clients=1000)
    found = exposures(plan, group=3)
    said = " ".join(str(Label(plan, found, client="phone", group=3)).split())
    assert f"If 3 of them are yours, all together: they win at most {bet(found[-1].bet)}" in said


def bet(chance: float) -> int:
    return math.ceil(100 * chance)
