"""simulation.batching: every record of a client once an epoch, in batches of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fldp.mechanism.updates import flatten, shapes
from fldp.simulation.algorithm import Task
from fldp.simulation.batching import Batch, batches, lengths, shuffled, usual
from fldp.simulation.clients import Population
from fldp.simulation.draws import Draws
from fldp.simulation.objective import Objective


def task_of(sizes: list[int], objective: Objective) -> Task:
    """Clients whose records are their own numbers."""
    x = torch.arange(float(sum(sizes))).view(-1, 1)
    index = [part.tolist() for part in torch.arange(sum(sizes)).split(sizes)]
    people = Population(x, torch.zeros(len(x), dtype=torch.long), index)
    model = nn.Linear(1, 2)
    like = torch.zeros(0, 1)
    return Task(model, shapes(model), flatten(model), people, Draws(0), 0, objective, like)


def dealt(sizes: list[int], most: int, objective: Objective, epoch: int = 0) -> list[Batch]:
    task = task_of(sizes, objective)
    told = torch.tensor(sizes)
    order = shuffled(task, torch.arange(len(sizes)), torch.arange(sum(sizes)), told, most, epoch)
    return [*batches(task, order, told.cumsum(0) - told, sizes, most)]


def records(found: list[Batch], client: int) -> Tensor:
    """What one client trains on, in order, padding left out."""
    seen = []
    for batch in found:
        row = client - batch.first
        if 0 <= row < len(batch.y):
            assert isinstance(batch.x, Tensor)
            seen.append(batch.x[row][batch.share[row] > 0].flatten())
    return torch.cat(seen)


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(lambda s: sorted(s, reverse=True))


@settings(deadline=None)
@given(SIZES, st.integers(1, 10), st.booleans())
def test_every_record_comes_once_an_epoch(sizes: list[int], most: int, pads: bool) -> None:
    objective = Objective() if pads else Objective(lambda out, y: F.cross_entropy(out, y))
    found = dealt(sizes, most, objective)
    begin = 0
    for client, size in enumerate(sizes):
        own = records(found, client)
        assert own.sort().values.tolist() == [*range(begin, begin + size)]
        begin += size
    for batch in found:
        assert torch.allclose(batch.share.sum(1), torch.ones(len(batch.y)))
        assert pads or bool((batch.share > 0).all())


def test_a_shuffle_is_a_clients_own_and_another_in_every_epoch() -> None:
    both = dealt([8, 7], 2, Objective())
    alone = dealt([8], 2, Objective())
    assert torch.equal(records(both, 0), records(alone, 0))
    assert not torch.equal(records(alone, 0), records(dealt([8], 2, Objective(), 1), 0))


@settings(deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(1, 20))
def test_neighbours_are_put_together_as_far_as_memory_reaches(sizes: list[int], most: int) -> None:
    wide = usual(torch.tensor(sizes))
    found = lengths(sizes, most, most * wide)
    assert sum(found) == len(sizes)
    for part in torch.tensor(sizes).split(found):
        assert 1 <= len(part) <= most
        # Only who is far too large for it goes beyond, and goes alone.
        assert len(part) == 1 or len(part) * int(part.max()) <= most * wide
