"""fldp.extrapolation: both ε, and which of them is a guarantee."""

from __future__ import annotations

import pytest

import fldp


def test_the_noise_on_the_mean_and_the_rate_stay() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=20, clients=480, cohort=120)
    both = fldp.extrapolate(plan, clients=4800)
    small, large = both.simulated, both.federation
    assert small == plan
    assert large.sampling_rate == small.sampling_rate
    ratio = large.noise_multiplier / large.denominator
    assert ratio == pytest.approx(small.noise_multiplier / small.denominator)
    assert large.epsilon() < small.epsilon()
    assert "SIMULATION" in both.statement()
    assert f"ε = {small.epsilon():.3g}" in str(both)
    assert f"ε = {large.epsilon():.3g}" in str(both)


def test_a_smaller_population_is_refused() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=20, clients=480, cohort=120)
    with pytest.raises(ValueError, match="clients is 100"):
        fldp.extrapolate(plan, clients=100)
