"""The history of a run: its account, and what of it may be published."""

from __future__ import annotations

import json
import math

import pytest

import fldp
from fldp.history import History, spent


@pytest.fixture
def plan() -> fldp.PrivacyPlan:
    return fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=150, clients=480, cohort=120)


def run(plan: fldp.PrivacyPlan | None, rounds: int) -> History:
    events = [] if plan is None else [plan.event] * rounds
    history = History(plan, clip_norm=[1.0] * rounds, events=events)
    history.private["cohort"] = [3] * rounds
    return history


def test_the_account_of_a_long_run_is_carried_upward_never_down(plan: fldp.PrivacyPlan) -> None:
    history = run(plan, 150)
    assert len(history.epsilon) == history.rounds == 150
    assert history.epsilon == sorted(history.epsilon)
    for k in (1, 2, 73, 74, 149, 150):
        exact = plan.epsilon(k)
        assert exact * (1 - 1e-9) <= history.epsilon[k - 1] <= max(plan.epsilon(min(k + 1, 150)), 0)
    assert history.epsilon[-1] == pytest.approx(plan.epsilon(150))


def test_what_an_earlier_run_spent_counts(plan: fldp.PrivacyPlan) -> None:
    history = run(plan, 10)
    history.before = [plan.event] * 20
    assert history.epsilon[-1] == pytest.approx(plan.epsilon(30))


def test_rounds_of_different_noise_are_composed(plan: fldp.PrivacyPlan) -> None:
    louder = fldp.calibrate(epsilon=2.0, delta=1e-3, rounds=150, clients=480, cohort=120)
    mixed = spent(plan, [plan.event] * 10 + [louder.event] * 10)
    assert plan.epsilon(10) < mixed < plan.epsilon(20)
    assert spent(plan, []) == 0.0


def test_nothing_private_is_published(plan: fldp.PrivacyPlan) -> None:
    history = run(plan, 3)
    published = json.loads(history.to_json())
    assert set(published) & {"private", "events", "model"} == set()
    assert [3, 3, 3] not in published.values()
    assert list(history.to_pandas().columns) == ["epsilon", "clip_norm"]
    assert fldp.PrivacyPlan.from_dict(published["plan"]) == plan


def test_without_a_plan_nothing_is_promised() -> None:
    history = run(None, 2)
    assert history.epsilon == [math.inf, math.inf]
    assert json.loads(history.to_json())["epsilon"] == [None, None]
