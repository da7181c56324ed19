"""simulation.setting: what does not go together is said before anybody is drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fldp
from fldp.mechanism.updates import flatten
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


RECORDS = fldp.calibrate_records(
    epsilon=8.0, delta=1e-2, rounds=1, local_epochs=1, batch_size=1, client_sizes=[2] * 10
)
NONSENSE: dict[str, list[Any]] = {
    "model": [None, 3, "mlp", nn.Linear, torch.zeros(3), [nn.Linear(2, 2)]],
    "population": [None, 3, (torch.zeros(20, 4), torch.zeros(20)), [PEOPLE], Population],
    "plan": [3, "plan", {}, RECORDS, fldp.calibrate],
    "local": [fldp.LocalSGD, "sgd", 3, lambda model, x, y: None, fldp.FedAvg()],
    "server": [fldp.FedAvg, "adam", 3, fldp.LocalSGD(), torch.optim.SGD],
    "sampler": [Poisson, "poisson", 0.5, 3, [1, 2]],
    "canaries": [3, "canaries", PEOPLE],
}


@pytest.mark.parametrize("name", NONSENSE)
def test_what_is_no_such_thing_is_refused_by_name(name: str) -> None:
    for value in NONSENSE[name]:
        with pytest.raises(ValueError, match=f"^{name} is .*: give "):
            setting(**{name: value})


@pytest.mark.parametrize("device", ["nope", "cuda:99", "meta", 99, object(), ""])
def test_a_device_that_is_not_there_is_refused(device: Any) -> None:
    with pytest.raises(ValueError, match=r"^device is .* does not offer .*: give 'cpu' or 'cuda'"):
        setting(device=device)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), None])
def test_a_device_that_is_there(device: Any) -> None:
    assert flatten(setting(device=device).placed()).device.type == "cpu"


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("model", "say"),
    [
        (nn.LazyLinear(3), "'weight' of the model has no shape yet: run the model on a record"),
        (nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3)), r"'1\.weight' of the model has no"),
        (nn.LazyBatchNorm1d(affine=False), "'running_mean' of the model has no shape yet"),
        (nn.Linear(4, 3, device="meta"), "'weight' of the model is on the meta device"),
        (nn.Linear(4, 3, dtype=torch.cfloat), "'weight' of the model is complex"),
    ],
)
def test_a_model_without_real_weights_is_refused(model: nn.Module, say: str) -> None:
    with pytest.raises(ValueError, match=say):
        setting(model=model)


def test_a_lazy_model_that_has_run_is_taken() -> None:
    model = nn.LazyLinear(3)
    model(torch.zeros(1, 4))
    setting(model=model)
