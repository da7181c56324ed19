"""Masks of dropout: a client's own, wherever it is trained, and as random as they must be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fldp.simulation.keyed import Masks

CPU = torch.device("cpu")
SEEDS = [int(seed) for seed in np.random.default_rng(0).integers(0, 2**63 - 1, 200)]
SHAPE = (32, 64)
# A normal number is beyond this once in 16,000 times.
BEYOND = 4.0


def signs(masks: Masks) -> Tensor:
    """A mask at p = 1/2 as numbers of mean 0 and variance 1."""
    return 2 * masks.keep(len(SEEDS), SHAPE, 0.5).double() - 1


def deviation(a: Tensor, b: Tensor) -> float:
    return float((a * b).mean()) * math.sqrt(a.numel())


@pytest.mark.parametrize("p", [1e-3, 0.1, 0.5, 0.9])
def test_so_many_are_dropped(p: float) -> None:
    kept = Masks(SEEDS, CPU).keep(len(SEEDS), SHAPE, p).double()
    assert abs(float(kept.mean()) - 1 + p) < BEYOND * math.sqrt(p * (1 - p) / kept.numel())


def test_masks_are_independent_between_calls_batches_epochs_clients_and_entries() -> None:
    masks = Masks(SEEDS, CPU)
    drawn = []
    for epoch, batch in ((0, 0), (0, 1), (1, 0), (5, 7)):
        masks.turn(epoch, batch)
        drawn += [signs(masks), signs(masks)]
    pairs = [(a, b) for i, a in enumerate(drawn) for b in drawn[:i]]
    one = drawn[0]
    pairs += [(one[1:], one[:-1]), (one[:, 1:], one[:, :-1]), (one[..., 1:], one[..., :-1])]
    pairs += [(one[:, 1:, 1:], one[:, :-1, :-1]), (one[..., 8:], one[..., :-8])]
    assert max(abs(deviation(a, b)) for a, b in pairs) < BEYOND
    # Means of clients, and of entries, vary as those of independent coins.
    for mean in (one.mean((1, 2)) * math.sqrt(one[0].numel()), one.mean(0) * math.sqrt(len(one))):
        assert abs(float(mean.var()) - 1) < BEYOND * math.sqrt(2 / mean.numel())


@given(st.integers(0, 4), st.integers(0, 2**16), st.integers(0, 2**16), st.floats(0.01, 0.99))
def test_a_mask_is_a_clients_own(client: int, epoch: int, batch: int, p: float) -> None:
    seeds = SEEDS[:5]
    every, alone = Masks(seeds, CPU), Masks([seeds[client]], CPU)
    tail = Masks(seeds, CPU)
    every.turn(epoch, batch)
    alone.turn(epoch, batch)
    tail.turn(epoch, batch, client)
    for _ in range(2):
        full = every.keep(5, (3, 4, 5), p)[client]
        # More records, or longer ones, move nobody's draws.
        assert bool((alone.keep(1, (6, 4, 7), p)[0, :3, :, :5] == full).all())
        assert bool((tail.keep(5 - client, (3, 4, 5), p)[0] == full).all())


def test_known_masks_on_every_machine() -> None:
    kept = Masks([1, 2**63 - 1], CPU).keep(2, (2, 4), 0.5).int().tolist()
    assert kept == [[[0, 1, 1, 1], [0, 1, 1, 0]], [[0, 1, 0, 0], [1, 1, 1, 1]]]


def test_places_are_all_different() -> None:
    places = Masks([0], CPU)._place((10, 4, 64, 64))
    assert len(places.unique()) == places.numel()
