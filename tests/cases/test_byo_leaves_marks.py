"""meta-pytorch/opacus#501, #436: what a client's own code leaves on the module meets the next."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fldp


def freeze_and_train(model: nn.Linear, x: torch.Tensor, y: torch.Tensor) -> None:
    model.bias.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


@pytest.mark.slow
def test_each_client_starts_with_a_clean_module() -> None:
    x, y = fldp.datasets.digits()
    population = fldp.clients.partition(x, y, clients=40, seed=0)
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=2, clients=40, cohort=20)
    local = fldp.LocalFunction(freeze_and_train)
    history = fldp.train(nn.Linear(64, 10), population, plan, local=local)
    assert len(history.epsilon) == 2
