"""simulation.monitor: a copy of the model is evaluated, and clients' own figures stay private."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fldp.mechanism.updates import flatten
from fldp.simulation.clients import Population
from fldp.simulation.evaluation import Exam, evaluate
from fldp.simulation.history import History
from fldp.simulation.monitor import Monitor
from fldp.simulation.objective import Objective


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(20, 4, generator=g), torch.randint(3, (20,), generator=g)


class Counting(nn.Linear):
    """Counts in a buffer how often it has run."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return super().forward(x)


@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 3), Counting])
def test_weights_are_evaluated_and_the_model_is_never_run(
    make: type[nn.Module], data: tuple[Tensor, Tensor]
) -> None:
    model = make()
    monitor = Monitor.of(Exam(data, Objective()), model)
    assert monitor is not None
    history = History(None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merit = monitor.note(torch.zeros(15), history)
    assert merit == history.metric[0]
    assert history.loss[0] == pytest.approx(math.log(3))
    assert (
        monitor.note(flatten(model), history)
        == evaluate(nn.Module.eval(make_like(model)), *data)[0]
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def make_like(model: nn.Module) -> nn.Module:
    plain = nn.Linear(4, 3)
    plain.load_state_dict({n: v for n, v in model.state_dict().items() if n != "runs"})
    return plain


def test_clients_own_figures_stay_private_and_choose_nothing(data: tuple[Tensor, Tensor]) -> None:
    model = nn.Linear(4, 3)
    monitor = Monitor.of(Exam(Population(*data, [range(20)]), Objective()), model)
    assert monitor is not None
    history = History(None)
    history.private |= {"metric": [], "loss": []}
    assert monitor.note(flatten(model), history) == -math.inf
    assert history.metric == history.loss == []
    assert len(history.private["loss"]) == 1


def test_without_an_exam_there_is_no_monitor_and_what_does_not_fit_is_refused(
    data: tuple[Tensor, Tensor],
) -> None:
    assert Monitor.of(None, nn.Linear(4, 3)) is None
    with pytest.raises(ValueError, match="label 2 and the model has 2 outputs"):
        Monitor.of(Exam(data, Objective()), nn.Linear(4, 2))
