"""simulation.algorithm: a cohort's updates, as one matrix and in chunks."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

import fldp
from fldp.mechanism.updates import flatten
from fldp.simulation.draws import Draws
from fldp.simulation.local import LocalSGD
from fldp.simulation.scaffold import Scaffold


@pytest.mark.parametrize("trainable", [None, ["2"]])
def test_updates_of_is_the_matrix_that_updates_makes_in_chunks(trainable: list[str] | None) -> None:
    people = fldp.clients.partition(*fldp.datasets.digits_split()[0], clients=480)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    before = deepcopy(model.state_dict())
    local = LocalSGD(lr=0.5, epochs=2, batch_size=2, trainable=trainable)
    ids = [7, 3, 99]
    rows = local.updates_of(model, people, ids, Draws(1), round=4)
    prepared = local.prepare(deepcopy(model))
    flat = flatten(prepared)
    chunks = local.updates(prepared, flat, people, ids, Draws(1), chunk=1, round=4)
    assert rows.shape == (3, len(flat))
    assert torch.allclose(rows, torch.cat(list(chunks)), atol=1e-6)
    # The caller's model is neither trained nor frozen.
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_updates_of_everybody_and_of_nobody() -> None:
    people = fldp.clients.partition(*fldp.datasets.digits_split()[0], clients=20)
    assert LocalSGD(lr=0.5).updates_of(nn.Linear(64, 10), people).shape == (20, 650)
    assert LocalSGD(lr=0.5).updates_of(nn.Linear(64, 10), people, []).shape == (0, 650)
    # Scaffold sends its update and the change of its control.
    assert Scaffold(lr=0.5).updates_of(nn.Linear(64, 10), people, [1]).shape == (1, 1300)


def test_updates_of_refuses_batch_statistics() -> None:
    people = fldp.clients.partition(*fldp.datasets.digits_split()[0], clients=20)
    model = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 10))
    with pytest.raises(ValueError, match="BatchNorm1d"):
        LocalSGD(lr=0.5).updates_of(model, people)
