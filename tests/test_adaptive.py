"""The adaptive clip: what it pays for its question, and where its norm goes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fldp.mechanism.adaptive import AdaptiveClip
from fldp.mechanism.clipping import FlatClip, PerLayerClip


def test_the_noise_split_of_andrew_et_al() -> None:
    z_delta, count_noise = AdaptiveClip().noise_split(1.0, cohort=100)
    assert count_noise == 5.0
    assert z_delta == pytest.approx((1 - 0.01) ** -0.5)
    assert (z_delta**-2 + (2 * count_noise) ** -2) ** -0.5 == pytest.approx(1.0)
    for z in (10.0, 11.0):
        with pytest.raises(ValueError, match="count_noise above"):
            AdaptiveClip().noise_split(z, cohort=100)
    with pytest.raises(ValueError, match="give the cohort"):
        AdaptiveClip().noise_split(1.0)


def test_p04_the_bits_are_paid_for_under_each_adjacency() -> None:
    """A zeroed client answers 0, as one that is not there: the bits move by 1/2 everywhere."""
    z, sigma = 1.9, 4.0
    expected = {"add-or-remove": 0.5, "zero-out": 0.5, "replace-one": 0.5}
    for adjacency, moved in expected.items():
        each = AdaptiveClip(count_noise=sigma)
        z_delta, _ = each.noise_split(z, adjacency=adjacency)
        assert z_delta == pytest.approx((z**-2 - (moved / sigma) ** 2) ** -0.5, rel=1e-12)
        assert each.bit_sensitivity(adjacency) == moved
        assert each.joint(z_delta, sigma, adjacency) == pytest.approx(z, rel=1e-12)
    # With the default count noise nothing is left at z = m / 10.
    for z, cohort in ((2.0, 20), (10.0, 100)):
        AdaptiveClip(count_noise=z).noise_split(z, cohort)
        with pytest.raises(ValueError, match=r"zero-out.*count_noise above"):
            AdaptiveClip().noise_split(z, cohort, "zero-out")
    with pytest.raises(ValueError, match="adjacency is 'none'"):
        AdaptiveClip().noise_split(1.0, 100, "none")


@settings(deadline=None, max_examples=200)
@given(
    st.floats(1e-6, 1e6),
    st.floats(1e-6, 1e9),
    st.sampled_from(["add-or-remove", "zero-out", "replace-one"]),
)
def test_p04_a_split_is_refused_or_adds_up_to_the_plan(
    z: float, sigma: float, adjacency: str
) -> None:
    each = AdaptiveClip(count_noise=sigma)
    if z * each.bit_sensitivity(adjacency) >= sigma:
        with pytest.raises(ValueError, match="count_noise above"):
            each.noise_split(z, adjacency=adjacency)
        return
    z_delta, _ = each.noise_split(z, adjacency=adjacency)
    assert z <= z_delta < math.inf
    assert each.joint(z_delta, sigma, adjacency) == pytest.approx(z, rel=1e-9)


def test_a_clip_without_a_query_asks_for_no_split() -> None:
    for each in (FlatClip(0.5), PerLayerClip([0.3, 0.4])):
        assert each.noise_split(1.3, 10, "zero-out") == (1.3, 0.0)
        assert each.joint(1.3, 0.0, "zero-out") == 1.3
        assert each.bit_sensitivity("zero-out") == 0
        assert each.observe(3.0, 10) is None


@pytest.mark.parametrize("start", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
def test_adaptive_clipping_converges_within_60_rounds(
    start: float, noisy: bool, quantile: float
) -> None:
    cohort, rng = 200, np.random.default_rng(7)
    target = math.exp(0.25 * {0.2: -0.8416, 0.5: 0.0, 0.8: 0.8416}[quantile])
    each = AdaptiveClip(initial=start * target, quantile=quantile)
    _, sigma = each.noise_split(1.0, cohort)
    for _ in range(60):
        norms = np.exp(0.25 * rng.standard_normal(cohort))
        bits = float(((norms <= each.norm) - 0.5).sum())
        each.observe(bits + (sigma * rng.standard_normal() if noisy else 0.0), cohort)
    assert each.norm == pytest.approx(target, rel=0.25 if noisy else 0.1)


def test_with_acceleration_1_the_step_is_the_published_one() -> None:
    each = AdaptiveClip(initial=1.0, acceleration=1.0)
    for _ in range(5):
        assert each.observe(-50.0, 100) == 0.0
    assert each.norm == pytest.approx(math.exp(0.2 * 0.5 * 5))


def test_adaptive_norm_stays_usable_on_hopeless_input() -> None:
    each = AdaptiveClip(initial=1.0)
    for _ in range(500):
        each.observe(1e9, 10)
    assert each.norm == 1e-9


@pytest.mark.parametrize(
    "kwargs", [{"quantile": 0}, {"quantile": 1}, {"learning_rate": 0}, {"count_noise": 0},
               {"count_noise": math.inf}, {"acceleration": 0.5}],
)  # fmt: skip
def test_impossible_adaptive_settings_are_refused(kwargs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"give a number|must be in"):
        AdaptiveClip(**kwargs)


def test_state_round_trip() -> None:
    one, two = AdaptiveClip(0.3), AdaptiveClip(9.0)
    one.observe(-5.0, 10)
    two.load_state_dict(one.state_dict())
    assert two.state_dict() == one.state_dict()
    with pytest.raises(ValueError, match="this state has"):
        FlatClip(1.0).load_state_dict(one.state_dict())
