"""A client's half: bounded whatever is sent, alone, and the same as in a simulation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fldp.mechanism.adaptive import AdaptiveClip
from fldp.mechanism.clipping import PerLayerClip
from fldp.mechanism.contribution import Contribution, joined

CLIPS = (0.7, PerLayerClip([0.3, 0.4]), AdaptiveClip(0.7))
LIKE = {"a": torch.zeros(2), "b": torch.zeros(3)}


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(
    values=hnp.arrays("float32", 5),
    which=st.integers(0, 2),
    cap=st.sampled_from([None, 3.0]),
    weight=st.one_of(st.none(), st.floats()),
)
def test_a_message_is_within_c_whatever_was_sent(
    values: Any, which: int, cap: float | None, weight: float | None
) -> None:
    clip = CLIPS[which]
    half = Contribution(LIKE, clip, weight_cap=cap)
    row = torch.from_numpy(values)
    message = half.encode({"a": row[:2], "b": row[2:]}, None if cap is None else weight)
    bound = half.clip.norm * (cap or 1.0)
    assert float(message.vector.double().norm()) <= bound
    assert message.half_bits in (-1, 0, 1)
    if message.half_bits == 0:
        # Malformed, or zero as far as a norm in float32 can tell.
        assert float(message.vector.double().norm()) < 1e-18


def test_a_message_depends_on_nobody_else_to_the_last_bit() -> None:
    rows = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) * 3
    half = Contribution(LIKE, 0.7)
    together = half.bound(rows, half.weights(None, 50))
    for number, row in enumerate(rows):
        alone = half.encode(row)
        factor = together.columns[0][2][number].to(row.dtype)
        assert torch.equal(alone.vector, row * factor)


def test_room_is_left_for_the_sum() -> None:
    half = Contribution(torch.zeros(4), 1.0, room=2.0**-10)
    norm = half.encode(torch.ones(4) * 9).vector.double().norm()
    assert float(norm) <= 1 - 2.0**-10


def test_a_clip_that_moves_later_does_not_move_this_round() -> None:
    clip = AdaptiveClip(1.0)
    half = Contribution(torch.zeros(2), clip)
    clip.observe(50.0, 100.0)
    assert clip.norm != 1.0
    assert half.clip.norm == 1.0


def test_misuse_is_refused_in_the_clients_own_process() -> None:
    half = Contribution(LIKE, 1.0)
    with pytest.raises(ValueError, match="tensor 'b'"):
        half.encode({"a": torch.zeros(2), "b": torch.zeros(4)})
    with pytest.raises(ValueError, match="one client sent 2"):
        half.encode(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="weight_cap"):
        half.encode(torch.zeros(5), weight=2.0)
    with pytest.raises(ValueError, match="per-layer budgets"):
        Contribution(LIKE, PerLayerClip([1.0]))
    with pytest.raises(ValueError, match="weight_cap is"):
        Contribution(LIKE, 1.0, weight_cap=1e12)


@settings(max_examples=150)
@given(
    values=hnp.arrays("float32", 5),
    cap=st.sampled_from([None, 3.0]),
    weight=st.floats(),
    adaptive=st.booleans(),
)
def test_parts_are_bounded_as_rows_are(
    values: Any, cap: float | None, weight: float, adaptive: bool
) -> None:
    half = Contribution(LIKE, AdaptiveClip(0.7) if adaptive else 0.7, weight_cap=cap, room=1e-7)
    row = torch.from_numpy(values)
    weights = half.weights(None if cap is None else weight, 1)
    one = half.bound_parts(list(row.split([2, 3])), weights)
    usual = half.bound(row[None], weights)
    if one is None:
        assert not float(row.double().norm()) <= 2.0**39
        return
    factor = float(usual.columns[0][2].float())
    assert one.factor == pytest.approx(factor, rel=1e-6)
    assert one.factor == float(torch.tensor(one.factor, dtype=torch.float32))
    assert one.factor * float(row.double().norm()) <= 0.7 * (cap or 1.0)
    seen = joined([one.seen])
    assert torch.equal(seen.finite, usual.seen.finite)
    assert torch.equal(seen.half_bits(), usual.seen.half_bits())


def test_a_clip_by_layers_bounds_no_parts() -> None:
    half = Contribution(LIKE, PerLayerClip([0.3, 0.4]))
    assert half.bound_parts([torch.ones(2), torch.ones(3)], half.weights(None, 1)) is None


def test_what_was_seen_keeps_its_order() -> None:
    half = Contribution(LIKE, 1.0)
    rows = torch.arange(35.0).view(7, 5)
    seen: list[Any] = []
    for number, row in enumerate(rows):
        if number in (0, 3, 4):
            seen.append(half.bound(row[None], half.weights(None, 1)).seen)
        else:
            one = half.bound_parts(list(row.split([2, 3])), half.weights(None, 1))
            assert one is not None
            seen.append(one.seen)
    assert torch.allclose(joined(seen).norms, rows.double().norm(dim=1))
    assert joined([]).norms.shape == (0,)


@pytest.mark.parametrize("room", [-1.0, 2.0, "x", None, math.nan])
def test_a_room_is_a_share(room: Any) -> None:
    """A negative one would let a client exceed C."""
    with pytest.raises(ValueError, match="room is"):
        Contribution(LIKE, 1.0, room=room)
