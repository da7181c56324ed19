"""examples/: what a user copies runs, and does what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fldp
from fldp.mechanism.updates import flatten, shapes
from fldp.simulation.draws import Draws

EXAMPLES = Path(__file__).parents[1] / "examples"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lora() -> ModuleType:
    return loaded("lora")


def adapters(lora: ModuleType) -> Any:
    torch.manual_seed(0)
    model = lora.adapted(lora.Transformer(), rank=2)
    for name, p in model.named_parameters():
        if name.endswith("up.weight"):  # from zero, half of the gradients are zero
            torch.nn.init.normal_(p, std=0.1)
    return model


@pytest.mark.slow
def test_lora_runs(lora: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    lora.main(rounds=2, steps=20)
    told = capsys.readouterr().out
    assert "trained and sent: 868 of 4346 parameters" in told
    assert "differential privacy at the client level" in told


def test_an_adapter_begins_as_the_layer_that_it_stands_beside(lora: ModuleType) -> None:
    torch.manual_seed(0)
    model = lora.Transformer()
    x = torch.rand(5, 64)
    before = model(x)
    assert torch.equal(lora.adapted(model, rank=2)(x), before)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "vmap", "loop"])
def test_lora_trains_adapters_alone_and_as_torch_does(
    lora: ModuleType, engine: str, data: tuple[Tensor, Tensor]
) -> None:
    people = fldp.clients.partition(data[0][:60], data[1][:60], clients=6, seed=0)
    model = adapters(lora).double()
    local = fldp.LocalSGD(lr=0.1, epochs=2, engine=engine)
    flat = flatten(local.prepare(model))
    names = [name for name, _, _ in shapes(model)]
    assert all(name.endswith(("up.weight", "down.weight")) for name in names)
    rows = torch.cat(list(local.updates(model, flat, people, range(6), Draws(0))))
    for client in range(6):
        own = adapters(lora).double()
        x, y = people.client(client)
        parameters = [p for p in own.parameters() if p.requires_grad]
        optimiser = torch.optim.SGD(parameters, lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            F.cross_entropy(own(x.double()), y).backward()
            optimiser.step()
        moved = flatten(own) - flat
        torch.testing.assert_close(rows[client], moved, rtol=1e-5, atol=1e-9)
        assert float(moved.abs().max()) > 1e-4


@pytest.mark.slow
def test_the_same_adapters_by_name_by_own_code_and_record_by_record(
    lora: ModuleType, data: tuple[Tensor, Tensor]
) -> None:
    people = fldp.clients.partition(data[0][:60], data[1][:60], clients=6, seed=0)
    model = adapters(lora)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    trained = [name for name, _, _ in shapes(model)]
    named = model.requires_grad_(True)
    local = fldp.LocalSGD(trainable=["*.up", "*.down"])
    assert [name for name, _, _ in shapes(local.prepare(named))] == trained

    def fn(net: Any, x: Tensor, y: Tensor) -> Any:
        net.requires_grad_(True)
        F.cross_entropy(net(x), y).backward()
        torch.optim.SGD(net.parameters(), lr=0.1).step()
        return net

    plan = fldp.calibrate_records(
        epsilon=8.0, delta=1e-4, rounds=1, local_epochs=1, batch_size=5, client_sizes=people.sizes
    )
    for algorithm in (fldp.LocalFunction(fn), fldp.DPSGD(plan)):
        history = fldp.train(adapters(lora), people, None, clip=None, rounds=1, local=algorithm)
        after = dict(history.model.named_parameters())
        assert all(torch.equal(after[name], part) for name, part in frozen.items())
        assert not torch.equal(flatten(history.model), flatten(adapters(lora)))
