"""The discrete Gaussian: exact probabilities, on its grid, within the sensitivity."""

from __future__ import annotations

from decimal import Decimal

import pytest
import torch

from fldp.mechanism import discrete
from fldp.mechanism.discrete import DiscreteGaussian

# Draws of one test; its failures by chance are stated there.
N = 400_000
GRID = 2.0**34


def test_discrete_gaussian_probabilities_on_a_coarse_grid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discrete, "_GRID", 1)
    x = discrete.discrete_gaussian(N, torch.Generator().manual_seed(5))
    support = torch.arange(-9, 10)
    weights = torch.exp(-(support.double() ** 2) / 8)
    expected = weights / torch.exp(-(torch.arange(-60, 61).double() ** 2) / 8).sum() * N
    found = torch.stack([(x == k).sum() for k in support]).double()
    # Chi-square with 18 degrees of freedom: P[> 60] = 2e-6 for this one fixed seed.
    assert float(((found - expected) ** 2 / expected).sum()) < 60


@pytest.mark.parametrize("power", [1, 2])
def test_close_calls_are_settled_exactly(power: int) -> None:
    source = discrete._Integers(torch.Generator().manual_seed(6))
    for step in (0, 1, 2**20, 2**33, 2**34, 3 * 2**34, 2**39):
        ratio = Decimal(step) / 2**34
        chance = (-ratio if power == 1 else -ratio * ratio / 2).exp()
        edge = int(chance * 2**62)
        assert discrete._settle(step, power, max(edge - 3, 0), source) or edge < 3
        if step:
            assert not discrete._settle(step, power, edge + 3, source)


def test_the_settled_and_the_fast_comparison_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = torch.randint(2**36, (300,), generator=torch.Generator().manual_seed(7))
    for power in (1, 2):
        source = discrete._Integers(torch.Generator().manual_seed(8))
        fast = discrete._bernoulli_exp(steps, power, source)
        bits = discrete._Integers(torch.Generator().manual_seed(8)).integers(300)
        slow = [
            discrete._settle(int(s), power, int(b), source)
            for s, b in zip(steps, bits, strict=True)
        ]
        assert fast.tolist() == slow


def test_discrete_mechanism_stays_on_its_grid_and_within_the_sensitivity() -> None:
    mechanism, std = DiscreteGaussian(), 0.8
    total = mechanism.start(100, torch.zeros(0), std, clients=1)
    row = torch.randn(1, 100, generator=torch.Generator().manual_seed(9))
    mechanism.accumulate_(total, row, [(0, 100, torch.tensor([0.5], dtype=torch.float64))])
    assert float(total.read().norm()) <= float(row.double().norm()) * 0.5
    out = mechanism.finish(total, std, 1.0)
    steps = out * (GRID / std)
    assert torch.allclose(steps, steps.round(), rtol=0, atol=1e-3)
