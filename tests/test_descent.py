"""simulation.descent: many clients go down as torch.optim.SGD takes each alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from fldp.mechanism.updates import flatten
from fldp.simulation.clients import Population
from fldp.simulation.local import LocalSGD
from fldp.simulation.objective import Objective


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"momentum": 0.5, "weight_decay": 0.01}],
)
def test_steps_are_those_of_torch(options: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(9, 4, generator=g), torch.randint(3, (9,), generator=g)
    people = Population(x, y, [[0, 1, 2, 3], [4, 5], [6, 7, 8]])
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    local = LocalSGD(lr=0.1, epochs=3, **options)
    flat = flatten(local.prepare(copy.deepcopy(model)))
    rows = torch.cat([*local.updates(model, flat, people, range(3))])
    for client, row in enumerate(rows):
        own = copy.deepcopy(model)
        optimiser = torch.optim.SGD(own.parameters(), lr=0.1, **options)
        mine, labels = people.client(client)
        for _ in range(3):
            optimiser.zero_grad()
            Objective().mean(own(torch.as_tensor(mine).double()), labels).backward()
            optimiser.step()
        torch.testing.assert_close(row, flatten(own) - flat, rtol=1e-9, atol=1e-12)


def test_a_pull_holds_clients_near_the_global_model() -> None:
    x, y = torch.randn(8, 4), torch.arange(8) % 2
    people = Population(x, y, [[*range(8)]])
    model = nn.Linear(4, 2)
    far, near = (
        next(LocalSGD(lr=0.1, epochs=9, proximal=mu).updates(model, flatten(model), people, [0]))
        for mu in (0.0, 1.0)
    )
    assert near.norm() < far.norm()
