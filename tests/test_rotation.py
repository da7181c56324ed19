"""The public rotation: orthonormal, its own inverse, and equal on every machine."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fldp.mechanism.rotation import Rotation, hadamard_, padded, signs


@pytest.mark.parametrize(("size", "wanted"), [(1, 1), (2, 2), (3, 4), (650, 1024), (1024, 1024)])
def test_padding_is_to_the_next_power_of_two(size: int, wanted: int) -> None:
    assert padded(size) == wanted


@pytest.mark.parametrize("power", [0, 1, 5, 9])
def test_the_transform_is_the_matrix_of_signs(power: int) -> None:
    width = 1 << power
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(power):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    found = hadamard_(torch.eye(width, dtype=torch.float64))
    assert torch.allclose(found, matrix / math.sqrt(width), atol=1e-14)


@pytest.mark.slow
@given(st.integers(1, 300), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_there_and_back_and_the_norm_stays(size: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, size, generator=generator, dtype=torch.float64)
    turn = Rotation(seed.to_bytes(4, "big"), size)
    turned = turn.forth(rows)
    assert torch.allclose(turned.norm(dim=1), rows.norm(dim=1), rtol=1e-12)
    assert torch.allclose(turn.back(turned.clone()), rows, atol=1e-12)


def test_what_becomes_of_a_row_is_its_own_to_the_last_bit() -> None:
    rows = torch.randn(7, 100, generator=torch.Generator().manual_seed(1))
    turn = Rotation(b"seed", 100)
    together = turn.forth(rows)
    alone = torch.cat([turn.forth(row[None]) for row in rows])
    assert torch.equal(together, alone)


def test_signs_follow_from_the_seed_alone() -> None:
    known = [1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0]
    assert signs(b"round 1", 9).tolist() == known
    assert signs(b"round 1", 3).tolist() == known[:3]
    many = signs(b"round 2", 100_000)
    assert set(many.tolist()) == {-1.0, 1.0}
    # Five standard deviations.
    assert abs(float(many.mean())) < 5 / math.sqrt(100_000)
    assert Rotation(b"a", 5).forth(torch.ones(1, 5)).tolist() != (
        Rotation(b"b", 5).forth(torch.ones(1, 5)).tolist()
    )


def test_one_large_entry_is_spread_over_all() -> None:
    rows = torch.zeros(1, 1000)
    rows[0, 17] = 1.0
    turned = Rotation(b"seed", 1000).forth(rows)
    assert torch.allclose(turned.abs(), torch.full((1, 1024), 1 / 32))
