"""Clipping: the bound holds in exact arithmetic, and nothing non-finite passes."""

from __future__ import annotations

import torch

from fldp.clipping import FlatClip, bounded_rows


def test_stored_scale_times_row_stays_within_the_norm_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20, 5000, generator=generator) * torch.logspace(-3, 30, 20)[:, None]
    bounded, norms, finite = bounded_rows(rows)
    factors = FlatClip(0.7).factors(norms).float().double()
    exact = (bounded.double() * factors[:, None]).norm(dim=1)
    assert bool(finite.all())
    assert float(exact.max()) <= 0.7
    assert float(exact[-1]) > 0.7 * (1 - 1e-4)
