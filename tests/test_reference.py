"""The slow reference: right by inspection of small cases, and equal to the fast path."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fldp
from fldp.mechanism import reference

PLAN = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=1, clients=50)


def updates(seed: int, count: int = 5) -> list[dict[str, torch.Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    return [
        {"w": torch.randn(3, 4, generator=rng), "b": torch.randn(3, generator=rng)}
        for _ in range(count)
    ]


def test_one_factor_for_all_parameters_of_a_client() -> None:
    given_ = updates(0)[0]
    (clipped,) = reference.clip_each([given_], 0.5)
    ratios = torch.cat([(clipped[k] / given_[k]).flatten() for k in given_])
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))
    norm = sum(float((t**2).sum()) for t in clipped.values()) ** 0.5
    assert norm == pytest.approx(0.5, rel=1e-5)


def test_an_update_within_the_norm_and_a_zero_one_are_left_alone() -> None:
    small = {"w": torch.tensor([0.3, 0.4])}
    assert torch.equal(reference.clip_each([small], 1.0)[0]["w"], small["w"])
    assert not reference.clip_each([{"w": torch.zeros(2)}], 1.0)[0]["w"].any()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_three_slow_steps_are_the_fast_path(seed: int, norm: float) -> None:
    quiet = dataclasses.replace(PLAN, noise_multiplier=1e-9)
    given_ = updates(seed)
    fast = fldp.aggregate(given_, quiet, clip_norm=norm).mean
    slow = reference.private_mean(
        given_, clip_norm=norm, noise_multiplier=1e-9, denominator=quiet.denominator
    )
    for name in slow:
        torch.testing.assert_close(fast[name], slow[name], rtol=1e-3, atol=1e-4 * norm)


def test_the_same_generator_gives_the_same_noise_as_the_fast_path() -> None:
    flat = [{"w": u["w"].flatten()} for u in updates(1)]
    fast = fldp.aggregate(flat, PLAN, 1.0, generator=torch.Generator().manual_seed(7)).mean
    slow = reference.private_mean(
        flat, clip_norm=1.0, noise_multiplier=PLAN.noise_multiplier, denominator=PLAN.denominator,
        generator=torch.Generator().manual_seed(7),
    )  # fmt: skip
    torch.testing.assert_close(fast["w"], slow["w"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-40, 1e37])
def test_p11_laplace_noise_that_would_vanish_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="cannot be added in"):
        reference.laplace_(torch.zeros(3), scale)


def test_laplace_noise_has_its_scale() -> None:
    draws = reference.laplace_(
        torch.zeros(40_000), 2.0, torch.Generator().manual_seed(0)
    )  # |x| has mean b and standard deviation b: five of them off happens once in 10^6 runs
    assert float(draws.abs().mean()) == pytest.approx(2.0, abs=5 * 2.0 / 200)
