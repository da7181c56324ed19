"""google/dpsynth#71: calibrating towards a small ε fails where computing it does not."""

from __future__ import annotations

import time

import pytest

from fldp import accounting

SECONDS = 10


@pytest.mark.parametrize(
    ("rounds", "sampling_rate", "delta", "target"),
    [
        (30, 0.1, 1e-5, 1e-3),
        (1, 0.01, 1e-5, 2e-3),
        (100, 0.5, 1e-6, 3e-4),
        (1000, 1e-3, 1e-6, 1e-3),
    ],
)
def test_a_small_epsilon_is_reached(
    rounds: int, sampling_rate: float, delta: float, target: float
) -> None:
    run = {"rounds": rounds, "sampling_rate": sampling_rate, "delta": delta}
    started = time.perf_counter()
    z = accounting.noise_multiplier(epsilon=target, **run)
    assert accounting.epsilon(noise_multiplier=z, **run) <= target
    assert time.perf_counter() - started < SECONDS
