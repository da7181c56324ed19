"""Clipping: the bound holds in exact arithmetic, and nothing non-finite passes."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from conftest import seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fldp.mechanism.adaptive import AdaptiveClip
from fldp.mechanism.clipping import (
    HUGE,
    FlatClip,
    PerLayerClip,
    bounded_rows,
    clip,
    norm_of_parts,
    row_norms,
)
from fldp.mechanism.summation import ROUNDING
from fldp.mechanism.updates import Layout


def exact_square(values: Any) -> Fraction:
    return sum((Fraction(float(v)) ** 2 for v in values), Fraction(0))


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
bounds = st.floats(1e-6, 1e6)


doubles = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(hnp.arrays(np.float64, st.integers(1, 40), elements=doubles), bounds)
def test_a_factor_keeps_every_float64_row_within_c_in_rationals(row: Any, bound: float) -> None:
    rows, norms, _ = bounded_rows(torch.from_numpy(row)[None])
    factor = FlatClip(bound).factors(rows, norms)
    assert Fraction(float(factor)) ** 2 * exact_square(rows[0]) <= Fraction(bound) ** 2


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(hnp.arrays(np.float32, st.integers(1, 40), elements=floats), bounds)
def test_a_stored_factor_keeps_every_row_within_c_in_rationals(row: Any, bound: float) -> None:
    rows, norms, _ = bounded_rows(torch.from_numpy(row)[None])
    factor = FlatClip(bound).factors(rows, norms).float()
    assert Fraction(float(factor)) ** 2 * exact_square(rows[0]) <= Fraction(bound) ** 2


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(hnp.arrays(np.float32, st.integers(0, 40), elements=floats), bounds)
def test_clip_returns_stored_values_within_c_in_rationals(row: Any, bound: float) -> None:
    clipped, _ = clip(torch.from_numpy(row), bound)
    assert exact_square(clipped) <= Fraction(bound) ** 2


@pytest.mark.parametrize("size", [1, 511, 512, 513, 100_001])
def test_long_rows_stay_within_c_in_float64(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    rows = torch.randn(6, size, generator=generator) * torch.logspace(-3, 35, 6)[:, None]
    rows[1] = 3.0
    bounded, norms, finite = bounded_rows(rows)
    factors = FlatClip(0.7).factors(bounded, norms).float().double()
    exact = (bounded.double() * factors).norm(dim=1)
    assert bool(finite.all())
    assert float(exact.max()) <= 0.7
    assert float(exact[-1]) > 0.7 * (1 - 1e-4)
    # A sum may need room, at most a thousandth.
    factors = FlatClip(0.7).factors(bounded, norms, room=ROUNDING).float().double()
    assert float((bounded.double() * factors).norm(dim=1).max()) <= 0.7 * (1 - ROUNDING)


def test_norms_meet_the_error_that_the_margin_assumes() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.rand(4, 300_000, generator=generator)
    truth = rows.double().norm(dim=1)
    assert float(((row_norms(rows) - truth) / truth).abs().max()) < 2.0**-15.9


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 17, 512, 650, 1040, 9610, 40_000])
def test_p05_a_rows_norm_is_the_same_whoever_stands_beside_it(size: int) -> None:
    """Bit for bit: else one client more would change the clip factors of all that follow."""
    generator = torch.Generator().manual_seed(size)
    total = 600 if size < 1000 else 60
    matrix = torch.randn(total, size, generator=generator) * 3
    wide = torch.zeros(total, size + 7)
    wide[:, 3 : size + 3] = matrix
    alone = torch.cat([row_norms(row[None]) for row in matrix])
    for count in (2, 3, 7, 8, 9, 15, 16, 17, 24, total):
        for first in range(0, total - count + 1, max(1, count // 5)):
            part = slice(first, first + count)
            assert torch.equal(row_norms(matrix[part]), alone[part])
            assert torch.equal(row_norms(wide[part, 3 : size + 3]), alone[part])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("top", [2e12, 1e30, 3e38, 1e154, 1e300, 1.7e308])
def test_huge_rows_of_every_dtype_are_clipped(dtype: torch.dtype, top: float) -> None:
    """A float64 row of 1e300 used to move the sum by 10^12 C: it was overwritten, then measured."""
    if top > torch.finfo(dtype).max:
        pytest.skip("infinite in this dtype")
    matrix = torch.tensor([[top, -top, top / 2], [0.1, 0.0, 0.0], [top, 0.0, 1.0]], dtype=dtype)
    kept = matrix.clone()
    rows, norms, finite = bounded_rows(matrix)
    exact = (rows.double() * FlatClip(0.7).factors(rows, norms).double()).norm(dim=1)
    assert bool(finite.all())
    assert torch.equal(matrix, kept)
    assert exact.tolist() == pytest.approx([0.7, 0.1, 0.7], rel=2e-3)
    assert float(exact.max()) <= 0.7


@pytest.mark.parametrize("size", [1, 511, 512, 1024, 6000, 9610])
def test_nobody_has_no_norms(size: int) -> None:
    """An empty Poisson cohort comes as a matrix without rows."""
    assert row_norms(torch.zeros(0, size)).shape == (0,)
    assert FlatClip(1.0).scales(torch.zeros(0, size)).shape == (0,)


def test_direction_is_kept_to_float_precision() -> None:
    generator = torch.Generator().manual_seed(2)
    update = torch.randn(1000, generator=generator) * 50
    clipped, norm = clip(update, 1.0)
    assert norm == pytest.approx(float(update.double().norm()), rel=1e-12)
    cosine = float((clipped.double() @ update.double()) / clipped.double().norm() / norm)
    assert cosine == pytest.approx(1.0, abs=1e-12)
    assert float(clipped.double().norm()) == pytest.approx(1.0, rel=1e-5)


def test_small_updates_pass_untouched_and_inputs_are_never_written() -> None:
    update = {"a": torch.tensor([0.1, 0.2]), "b": torch.tensor(0.3)}
    kept = {k: v.clone() for k, v in update.items()}
    clipped, _ = clip(update, 1.0)
    clip(update, 0.01)
    assert all(torch.equal(update[k], kept[k]) and torch.equal(clipped[k], kept[k]) for k in kept)
    clipped["a"].zero_()
    assert torch.equal(update["a"], kept["a"])


def test_the_norm_is_joint_over_tensors_of_any_kind() -> None:
    update = [torch.full((2, 2), 2.0), torch.tensor(3), torch.tensor([True]), np.float16(1.0)]
    clipped, norm = clip(update, 1.0)
    assert norm == pytest.approx(math.sqrt(16 + 9 + 1 + 1))
    assert sum(float((t.double() ** 2).sum()) for t in clipped) <= 1.0
    assert all(t.dtype == torch.float32 for t in clipped)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_updates_become_exact_zeros(bad: float) -> None:
    clipped, norm = clip([torch.tensor([1e6, bad]), torch.tensor([5.0])], 1.0)
    assert math.isnan(norm)
    assert all(torch.equal(t, torch.zeros_like(t)) for t in clipped)
    rows, norms, finite = bounded_rows(torch.tensor([[1e6, bad], [1.0, 0.0]]))
    assert rows[0].tolist() == [0.0, 0.0]
    assert norms[0] == 0
    assert finite.tolist() == [False, True]
    assert FlatClip(1.0).scales(torch.tensor([[1e6, bad]])).tolist() == [0.0]


def test_huge_and_tiny_values_neither_overflow_nor_vanish() -> None:
    huge, norm = clip(torch.full((4,), 3e38), 1.0)
    assert norm == pytest.approx(6e38)
    assert float(huge.norm()) == pytest.approx(1.0, rel=1e-5)
    tiny, norm = clip(torch.full((4,), 1e-30), 1.0)
    assert norm == pytest.approx(2e-30)
    assert torch.equal(tiny, torch.full((4,), 1e-30))
    wide, norm = clip(torch.full((4,), 1e300, dtype=torch.float64), 1.0)
    assert norm == pytest.approx(2e300)
    assert float(wide.norm()) == pytest.approx(1.0, rel=1e-5)
    assert clip(torch.zeros(3), 1.0)[1] == 0.0
    assert clip(torch.zeros(0), 1.0)[1] == 0.0


@pytest.mark.parametrize("norm", [0, -1, math.nan, math.inf, 1e-12, 1e12, None, "one", 10**400])
def test_impossible_clip_norms_are_refused(norm: Any) -> None:
    for make in (FlatClip, PerLayerClip, AdaptiveClip, lambda c: clip(torch.ones(1), c)):
        with pytest.raises(ValueError, match="clip norm must lie"):
            make(norm)


def test_sensitivity_travels_with_the_clip() -> None:
    for each in (FlatClip(0.5), PerLayerClip([0.3, 0.4]), AdaptiveClip(0.5)):
        assert each.sensitivity("add-or-remove") == pytest.approx(0.5)
        assert each.sensitivity("zero-out") == pytest.approx(0.5)
        assert each.sensitivity("replace-one") == pytest.approx(1.0)
        with pytest.raises(ValueError, match="adjacency"):
            each.sensitivity("replace")


SLICES = [("a", 0, 3), ("b", 3, 3), ("c", 3, 10)]


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.float32, (3, 10), elements=floats))
def test_per_layer_budgets_bound_each_layer_and_the_joint_norm(values: Any) -> None:
    each = PerLayerClip({"a": 0.3, "b": 1.2, "c": 0.4})
    rows, norms, _ = bounded_rows(torch.from_numpy(values))
    factors = each.factors(rows, norms, SLICES).float()
    for row, factor in zip(rows, factors, strict=True):
        parts = [
            Fraction(float(f)) ** 2 * exact_square(row[a:b])
            for (_, a, b), f in zip(SLICES, factor, strict=True)
        ]
        assert all(p <= Fraction(c) ** 2 for p, c in zip(parts, (0.3, 1.2, 0.4), strict=True))
        assert sum(parts) <= Fraction(each.norm) ** 2


def test_per_layer_budgets_must_match_the_tensors() -> None:
    assert PerLayerClip(1.0).split(["a", "b", "c", "d"]) == [0.5] * 4
    assert PerLayerClip(2.0).norm == 2.0
    with pytest.raises(ValueError, match="2 per-layer budgets for 3"):
        PerLayerClip([1.0, 1.0]).split(["a", "b", "c"])
    with pytest.raises(ValueError, match="first at 'x'"):
        PerLayerClip({"a": 1.0, "x": 1.0}).split(["a"])


def test_budgets_that_were_set_later_are_refused() -> None:
    """They clipped at 100 while the noise was that of 5."""
    layout = Layout([torch.zeros(2), torch.zeros(2)])
    by_budget = PerLayerClip([3.0, 4.0])
    by_budget.budgets[0] = 100.0  # type: ignore[index]
    by_norm = PerLayerClip([3.0, 4.0])
    by_norm.norm = 1.0
    for each in (by_budget, by_norm):
        with pytest.raises(ValueError, match=r"joint norm .* make a new PerLayerClip"):
            each.prepare(layout)
    for each in (PerLayerClip(0.7), PerLayerClip([0.1, 0.7]), PerLayerClip({"[0]": 1, "[1]": 2})):
        each.prepare(layout)
    negative = FlatClip(1.0)
    negative.norm = -1.0
    with pytest.raises(ValueError, match="a clip norm must lie"):
        negative.prepare(layout)


@settings(max_examples=100)
@given(
    norm=st.floats(0, 2.0**40),
    bound=st.sampled_from([1e-9, 0.3, 1.0, 1e9]),
    room=st.sampled_from([0.0, 1e-7, 2.0**-10]),
)
def test_the_factor_of_one_row_is_that_of_rows_bit_for_bit(
    norm: float, bound: float, room: float
) -> None:
    clip = FlatClip(bound)
    rows = clip.factors(torch.empty(0), torch.tensor([norm], dtype=torch.float64), (), room)
    assert clip.factor(norm, room) == float(rows)


def test_a_clip_that_writes_its_own_factors_has_no_factor_by_an_older_rule() -> None:
    """Else updates that are added where they lie would be clipped by another rule than all else."""

    class Half(FlatClip):
        def factors(self, rows: Any, norms: Any, slices: Any = (), room: float = 0.0) -> Any:
            return super().factors(rows, norms, slices, room) / 2

    class Both(Half):
        def factor(self, norm: float, room: float = 0.0) -> float | None:
            return 0.25

    assert Half(1.0).factor(0.5) is None
    assert Both(1.0).factor(0.5) == 0.25
    assert PerLayerClip(1.0).factor(0.5) is None
    assert AdaptiveClip(1.0).factor(0.5) == 1.0


@settings(max_examples=60)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 15, 511, 512, 513, 600, 4096, 5000]), min_size=1),
    scale=st.sampled_from([1e-15, 1.0, 1e9]),
)
def test_the_joint_norm_of_parts_has_the_bound_of_the_module(
    sizes: list[int], scale: float
) -> None:
    sizes = [*sizes, 1]  # an update has an entry
    flat = torch.randn(sum(sizes), generator=seeded()) * scale
    exact = float(flat.double().norm())
    assert norm_of_parts(flat.split(sizes)) == pytest.approx(exact, rel=2.0**-16)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_joint_norm_of_parts_shows_what_is_not_finite(bad: float) -> None:
    parts = [torch.ones(600), torch.tensor([1.0, bad])]
    assert not norm_of_parts(parts) <= HUGE


def test_scales_are_those_of_a_matrix_of_numbers() -> None:
    for odd in ("x", None, torch.zeros(3), torch.zeros(2, 2, dtype=torch.complex64)):
        with pytest.raises(ValueError, match=r"give a matrix|not a numeric tensor"):
            FlatClip(1.0).scales(odd)  # type: ignore[arg-type]
