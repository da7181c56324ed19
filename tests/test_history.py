"""The history of a run: its account, and what of it may be published."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle

import pytest

import fldp
from fldp.simulation.history import History


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
    assert history.now == history.epsilon[-1]
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
    mixed = plan.spent([plan.event] * 10 + [louder.event] * 10)
    assert plan.epsilon(10) < mixed < plan.epsilon(20)
    assert plan.spent([]) == 0.0


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


def test_p13_the_private_part_is_an_attribute_and_nothing_else(plan: fldp.PrivacyPlan) -> None:
    """A pickle, a copy, asdict, repr, JSON and a table of it hold no cohort size."""
    history = run(plan, 3)
    history.private["cohort"] = ["424242"]  # type: ignore[list-item]
    assert history.private["cohort"]
    told = [
        pickle.dumps(history), repr(history), json.dumps(dataclasses.asdict(history), default=str),
        str(copy.deepcopy(history).private), history.to_json(), str(history.to_dict()),
        history.to_pandas().to_string(), str(dataclasses.astuple(history)),
        str([field.name for field in dataclasses.fields(history)]),
    ]  # fmt: skip
    for text in told:
        assert b"424242" not in (text if isinstance(text, bytes) else text.encode())
        assert "private" not in str(text)
    again = pickle.loads(pickle.dumps(history))
    assert again.private == {}
    assert again.epsilon == history.epsilon


def test_p13_json_has_no_infinity_and_no_nan() -> None:
    history = run(None, 2)
    history.metric, history.loss = [math.nan, 0.5], [math.inf, -math.inf]
    told = json.loads(history.to_json(), parse_constant=lambda word: pytest.fail(word))
    assert told["accuracy"] == [None, 0.5]
    assert told["loss"] == [None, None]


def test_p03_the_headline_of_a_seed_is_that_of_its_participations(plan: fldp.PrivacyPlan) -> None:
    history = run(plan, 3)
    assert history.epsilon == history.accounted
    history.participations = [0, 1, 1]
    one = plan.seeded_epsilon(1)
    assert history.epsilon == [0.0, one, one]
    assert history.accounted == [plan.epsilon(k) for k in (1, 2, 3)]
    assert history.to_dict()["epsilon"] == [0.0, one, one]


def test_p03_with_a_seed_what_else_was_released_composes(plan: fldp.PrivacyPlan) -> None:
    history = run(plan, 3)
    history.participations = [0, 1, 2]
    histogram = fldp.Event(3.0)
    history.before = [histogram]
    z = plan.noise_multiplier
    for k, value in zip((0, 1, 2), history.epsilon, strict=True):
        events = [histogram] + [fldp.Event(z)] * k
        assert value == pytest.approx(fldp.accounting.epsilon_of(events, plan.delta), rel=1e-9)


def test_p03_under_a_cap_a_known_draw_moves_the_sum_twice_as_far() -> None:
    capped = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=5, clients=480, cohort=120, cap=150)
    history = run(capped, 1)
    history.participations = [1]
    history.before = [fldp.Event(1e6)]
    assert history.epsilon[0] == pytest.approx(capped.seeded_epsilon(1), rel=1e-4)


def test_p13_times_leave_with_no_copy_of_a_history(plan: fldp.PrivacyPlan) -> None:
    """How long a round took tells who came."""
    history = run(plan, 2)
    history.seconds = 123.5
    for copied in (pickle.loads(pickle.dumps(history)), copy.deepcopy(history)):
        assert copied.seconds == 0
    assert "123.5" not in repr(history) + str(dataclasses.asdict(history)) + history.to_json()
