"""Every model and task of the zoo: as torch trains it at each client alone, or refused in words."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.models import ON_GPU, PAGE, page, prepared, row
from benchmarks.zoo import SPECIMENS, Specimen
from fldp.mechanism.updates import flatten
from fldp.simulation.clients import Population
from fldp.simulation.draws import Draws
from fldp.simulation.engines import ENGINES
from fldp.simulation.inputs import Records, call, cast
from fldp.simulation.interception import Interception
from fldp.simulation.keyed import Masks
from fldp.simulation.local import LocalSGD
from fldp.simulation.objective import Objective

SIZES = (5, 3, 3, 1, 4)
EPOCHS, RATE = 2, 0.1
TRAINED = [s for s in SPECIMENS if not s.refused]
# Of a network of eleven million weights one engine is enough.
HEAVY = "ResNet-18, group norm"


def double(specimen: Specimen) -> tuple[nn.Module, Objective, Population]:
    """A specimen in double precision (but for one that is not in single), and clients for it."""
    torch.manual_seed(0)
    model = specimen.make()
    loss = specimen.loss
    if next(model.parameters()).dtype == torch.float32:
        model = model.double()
        loss = copy.deepcopy(loss).double() if isinstance(loss, nn.Module) else loss
    x, y = specimen.data(sum(SIZES), torch.Generator().manual_seed(0))
    index = [part.tolist() for part in torch.arange(sum(SIZES)).split(list(SIZES))]
    return model, Objective(loss), Population(x, y, index)


def rows_of(
    model: nn.Module, objective: Objective, people: Population, engine: str, ids: Any
) -> tuple[Tensor, Records, nn.Module, Tensor]:
    local = LocalSGD(lr=RATE, epochs=EPOCHS, engine=engine)
    local.learn(objective)
    prepared_model = local.prepare(copy.deepcopy(model))
    flat = flatten(prepared_model)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    local.rehearse(prepared_model, flat, people)
    found = local.updates(prepared_model, flat, people, ids, Draws(0))
    like = local.form(prepared_model, flat, people)
    return torch.cat(list(found)), like, prepared_model, flat


def alone(
    model: nn.Module, objective: Objective, people: Population, like: Records, client: int
) -> nn.Module:
    """What torch.optim.SGD makes of the model at one client, with that client's own masks."""
    own = copy.deepcopy(model).train()
    optimiser = torch.optim.SGD([p for p in own.parameters() if p.requires_grad], lr=RATE)
    x, y = people.client(client)
    masks = Masks(Draws(0).seeds(0, [client]), torch.device("cpu"))
    for step in range(EPOCHS):
        optimiser.zero_grad()
        masks.turn(step, 0)
        with Interception(masks):
            found = call(own, cast(x, like))
        objective.mean(found, y).backward()
        optimiser.step()
    return own


@contextmanager
def refusals(engine: str) -> Iterator[None]:
    """An engine that is asked for by name may say that it cannot: the test is then skipped."""
    try:
        yield
    except ValueError as error:
        if engine in ("stacked", "vmap") and str(error).startswith(f"engine is '{engine}', but "):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("specimen", TRAINED, ids=lambda s: s.name)
def test_a_client_trains_as_torch_trains_it_alone(specimen: Specimen, engine: str) -> None:
    if specimen.family == HEAVY and engine != "auto":
        pytest.skip("large: with one engine it takes a second")
    model, objective, people = double(specimen)
    clients = range(len(SIZES))
    with refusals(engine):
        rows, like, start, flat = rows_of(model, objective, people, engine, clients)
    assert torch.isfinite(rows).all()
    if specimen.family == "Noise of its own":
        return  # its draws are torch's own: `test_isolation` holds them fixed for each client
    # Between two steps weights are in single precision here, and in half at torch's.
    slack = 0.1 if flat.dtype == torch.float32 else 1e-5
    for client, update in enumerate(rows):
        expected = flatten(alone(start, objective, people, like, client)).to(flat) - flat
        assert float((update - expected).norm()) <= slack * float(expected.norm()), client


@pytest.mark.parametrize("specimen", TRAINED, ids=lambda s: s.name)
def test_a_clients_update_does_not_depend_on_who_else_is_there(specimen: Specimen) -> None:
    if specimen.family == HEAVY:
        pytest.skip("large: clients are trained one by one")
    model, objective, people = double(specimen)
    together = rows_of(model, objective, people, "auto", range(len(SIZES)))[0]
    for client in (1, 3):
        by_itself = rows_of(model, objective, people, "auto", [client])[0][0]
        assert torch.allclose(by_itself, together[client], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("specimen", [s for s in SPECIMENS if s.refused], ids=lambda s: s.name)
def test_what_cannot_be_trained_is_refused_in_words(specimen: Specimen) -> None:
    x, y = specimen.data(20, torch.Generator().manual_seed(0))
    people = Population(x, y, torch.arange(20).view(4, 5))
    with pytest.raises(ValueError, match=specimen.refused):
        prepared(specimen, "auto", people)


@pytest.mark.slow
def test_the_table_of_the_book_says_what_happens() -> None:
    path = PAGE.parent.parent / "benchmarks" / "results" / "models.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    on_gpu = json.loads(ON_GPU.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(document, on_gpu)
    told = [{k: v for k, v in found.items() if k != "seconds"} for found in document["rows"]]
    assert told == [row(specimen) for specimen in SPECIMENS]
