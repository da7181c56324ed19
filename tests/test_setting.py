"""simulation.setting: what does not go together is said before anybody is drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fldp
from fldp.simulation.clients import Population
from fldp.simulation.sampling import Everyone, Poisson
from fldp.simulation.setting import Setting

PEOPLE = Population(torch.zeros(20, 4), torch.arange(20) % 3, torch.arange(20).view(10, 2))


def setting(**options: Any) -> Setting:
    fields = dict.fromkeys(Setting.__dataclass_fields__)
    return Setting(**(fields | {"model": nn.Linear(4, 3), "population": PEOPLE} | options))


def plan(**options: Any) -> fldp.PrivacyPlan:
    return fldp.calibrate(**({"epsilon": 8.0, "delta": 1e-2, "rounds": 3, "clients": 10} | options))


def test_with_a_plan_the_schedule_is_the_plans() -> None:
    stated = plan(cohort=5)
    given = setting(plan=stated, clip=0.5)
    assert given.schedule() == (3, 5.0)
    assert given.cohorts(fldp.LocalSGD()) == Poisson(0.5)
    assert given.clipping().norm == 0.5
    assert setting(plan=plan()).cohorts(fldp.LocalSGD()) == Everyone()


def test_without_a_plan_it_is_what_was_given() -> None:
    given = setting(rounds=4, cohort=2.5)
    assert given.schedule() == (4, 2.5)
    assert given.cohorts(fldp.LocalSGD()) == Poisson(0.25)
    assert setting(rounds=4).cohorts(fldp.LocalSGD()) == Everyone()
    assert setting(rounds=4).clipping() is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give rounds"),
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": 2, "generator": torch.Generator()}, "no noise"),
        ({"rounds": 2, "noise": fldp.mechanism.noise.Gaussian()}, "no noise"),
        ({"rounds": 2, "cohort": 11}, "cohort is 11"),
        ({"plan": plan(), "rounds": 3}, "rounds and cohort are the plan's"),
        ({"plan": plan(clients=11)}, "the plan is for 11 clients, the population has 10"),
        ({"plan": plan(), "clip": None}, "clip is None"),
        ({"plan": plan(cohort=5), "sampler": Poisson(0.4)}, "is not what the plan accounts for"),
        ({"rounds": 2, "validation": (torch.zeros(0, 4), torch.zeros(0))}, "0 inputs"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], words: str) -> None:
    def check(given: Setting) -> None:
        given.schedule()
        given.clipping()
        given.cohorts(fldp.LocalSGD())
        given.exam(given.objective())

    with pytest.raises(ValueError, match=words):
        check(setting(**({"clip": 1.0} | options)))


def test_a_sampler_that_cannot_be_told_the_round_is_refused_in_a_run() -> None:
    class Old(Poisson):
        def sample(self, clients: int, generator: Any = None) -> Tensor:  # type: ignore[override]
            return super().sample(clients)

    with pytest.raises(ValueError, match="write sample"):
        fldp.train(nn.Linear(4, 3), PEOPLE, plan(cohort=5), sampler=Old(0.5))
