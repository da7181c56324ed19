"""simulation.outcome: a run's statement says what its plan alone does not."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import fldp
from fldp.simulation.history import History
from fldp.simulation.outcome import summary


def trained(plan: fldp.PrivacyPlan | None, **options: Any) -> fldp.History:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    people = fldp.clients.partition(x, torch.arange(60) % 3, clients=20, seed=0)
    return fldp.train(nn.Linear(4, 3), people, plan, **options)


def plan_for(**options: Any) -> fldp.PrivacyPlan:
    given = {"epsilon": 8.0, "delta": 1e-2, "rounds": 4, "clients": 20, "cohort": 10}
    return fldp.calibrate(**(given | options))


def test_without_a_plan_nothing_is_guaranteed() -> None:
    found = trained(None, rounds=1, cohort=20, clip=None).statement
    assert found == "No noise was added: this run guarantees nothing to anybody."


def test_a_choice_by_validation_data_is_said() -> None:
    x, y = torch.randn(9, 4), torch.arange(9) % 3
    told = "chosen by its validation accuracy"
    assert told in trained(plan_for(), validation=(x, y), patience=4).statement
    assert told not in trained(plan_for(), validation=(x, y)).statement


def test_a_skipped_round_is_said() -> None:
    plan = plan_for(trust="distributed", min_survivors=10, rounds=6)
    found = trained(plan, seed=1)
    skipped = sum(found.private["skipped"])
    assert 0 < skipped < 6
    assert f"In {skipped} rounds too few clients came" in found.statement.replace("\n", " ")


def test_a_line_for_a_progress_bar_marks_what_is_private() -> None:
    history = History(None, metric=[0.5], loss=[0.7])
    history.private |= {"clipped_fraction": [0.25], "malformed": [1], "zero": [2]}
    assert summary(history) == "accuracy=0.500 clipped=25% (private) malformed or zero=3 (private)"
    history.private["skipped"] = [1]
    assert summary(history).endswith("skipped")
