"""The figures that tell why a run does not learn, from histories made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import fldp
from fldp.simulation.symptoms import Symptoms

PLAN = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=12, clients=480, cohort=120)


def history(loss: list[float], clipped: list[float] | None = None) -> fldp.History:
    """As long as a loss, of a model of length 2 with d = 4."""
    found = fldp.History(PLAN, loss=list(loss), metric=[0.5] * len(loss))
    found.clip_norm = [0.5] * len(loss)
    found.model = nn.Linear(4, 1, bias=False)
    nn.init.ones_(found.model.weight)
    rounds = len(loss)
    found.private = {
        "cohort": [100.0] * rounds,
        "malformed": [3.0] * rounds,
        "zero": [1.0] * rounds,
        "clipped_fraction": [0.5] * rounds if clipped is None else clipped,
    }
    return found


def test_model_and_clip_norms() -> None:
    run = Symptoms(history([2.0] * 12), may_read=True)
    assert (run.d, run.length, run.reach) == (4, 2.0, 3.0)
    assert (run.came, run.malformed, run.zero) == (1200, 36, 12)


def test_a_frozen_part_of_the_model_is_no_dimension() -> None:
    given = history([2.0] * 12)
    given.model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    for weights in given.model[0].parameters():
        weights.requires_grad_(False)
    assert Symptoms(given, may_read=True).d == 12


def test_halving_counts_in_rounds_of_the_run() -> None:
    curve = [4.0, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2]
    assert Symptoms(history(curve), may_read=True).halving == pytest.approx(1.0)
    assert Symptoms(history(curve[::-1]), may_read=True).halving == math.inf


def test_straightness_is_net_fall_over_way() -> None:
    assert Symptoms(history([4.0, 3, 2, 1]), may_read=True).straightness == 1.0
    assert Symptoms(history([4.0, 1, 4, 3]), may_read=True).straightness == pytest.approx(1 / 7)
    assert Symptoms(history([1.0, 2, 3, 4]), may_read=True).straightness == -1.0
    assert Symptoms(history([2.0] * 4), may_read=True).straightness == 1.0


@pytest.mark.parametrize(("rounds", "third"), [(4, 2), (5, 2), (6, 2), (60, 20)])
def test_late_compares_the_last_third_with_the_one_before(rounds: int, third: int) -> None:
    curve = torch.arange(rounds, dtype=torch.float64).numpy()
    run = Symptoms(history([1.0] * rounds), may_read=True)
    assert run.third == third
    after, before = run.late(curve)
    assert after - before == pytest.approx(third)


def test_everybody_and_nobody() -> None:
    assert Symptoms(history([1.0] * 4, [0.0, 0.05, 0.0, 0.0]), may_read=True).nobody
    assert not Symptoms(history([1.0] * 4, [0.3, 0.0, 0.0, 0.0]), may_read=True).nobody
    assert Symptoms(history([1.0] * 4, [1.0, 1.0, 0.9, 0.95]), may_read=True).everybody
    unknown = Symptoms(history([1.0] * 4), may_read=False)
    assert not unknown.nobody
    assert not unknown.everybody


def test_without_leave_nothing_private_is_held() -> None:
    given = history([1.0] * 4)
    run = Symptoms(given, may_read=False)
    assert not run.reads_private
    assert (len(run.clipped), run.came, run.malformed, run.zero) == (0, 0, 0, 0)
    assert Symptoms(given, may_read=True).reads_private


def test_an_exam_of_clients_own_records_is_private() -> None:
    given = history([])
    given.private |= {"loss": [2.0, 1.0, 1.0, 1.0], "metric": [0.1, 0.2, 0.3, 0.4]}
    run = Symptoms(given, may_read=True)
    assert run.is_own_exam
    assert list(run.accuracy) == [0.1, 0.2, 0.3, 0.4]
    hidden = Symptoms(given, may_read=False)
    assert not hidden.is_own_exam
    assert len(hidden.loss) == len(hidden.accuracy) == 0


def test_a_loss_without_a_zero_has_no_curve() -> None:
    assert Symptoms(history([2.0, 1.5, 1.2, 1.0]), may_read=True).has_curve
    assert not Symptoms(history([2.0, 1.5, 1.2]), may_read=True).has_curve
    assert not Symptoms(history([2.0, 1.0, 0.0, -1.0]), may_read=True).has_curve
    broken = Symptoms(history([2.0, math.nan, math.nan, math.nan]), may_read=True)
    assert not broken.has_curve
    assert not broken.is_finite


def test_skipped_rounds_are_public_where_who_came_is() -> None:
    given = history([1.0] * 4)
    given.private["skipped"] = [0, 1, 1, 0]
    assert Symptoms(given, may_read=False).skipped == 0
    given.plan = fldp.calibrate(
        epsilon=8.0, delta=1e-3, rounds=12, clients=50, trust="distributed", min_survivors=40
    )
    assert Symptoms(given, may_read=False).skipped == 2


@pytest.mark.parametrize("weight", [0.0, math.inf, math.nan])
def test_a_model_of_no_length_or_of_none_that_is_a_number(weight: float) -> None:
    given = history([2.0, 2.5] * 6)
    nn.init.constant_(given.model.weight, weight)
    run = Symptoms(given, may_read=True)
    assert run.is_finite == (weight == 0)
    assert weight != 0 or run.reach == math.inf


@pytest.mark.parametrize(
    ("curve", "is_settled"),
    [
        ([1.0, 0.96, 0.95, 0.95, 0.951, 0.95, 0.951, 0.95, 0.951], True),
        # Steadily down, up and down, and up.
        ([1.0 - 0.01 * t for t in range(9)], False),
        ([1.0, 1.02, 0.99, 1.01, 1.0, 0.98, 1.02, 0.99, 1.01], False),
        ([1.0 + 0.01 * t for t in range(9)], False),
        # Down at first, and up again later.
        ([1.0, 0.95, 0.95, 0.95, 0.95, 0.95, 0.98, 0.98, 0.98], False),
    ],
)
def test_a_loss_settles_that_fell_first(curve: list[float], is_settled: bool) -> None:
    assert Symptoms(history(curve), may_read=True).is_settled == is_settled
