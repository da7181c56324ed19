"""The exact account of integer noise, for tests: privacy losses on a fine grid, both roundings.

For the pair (X + s, X) on each of n coordinates and T rounds the losses log P[X = k - s] / P[X = k]
are rounded up for an upper bound on ε, and down for a lower one, and composed by an FFT.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIZE = 1 << 20
# Of a grid, how much of the losses' range it holds, and its finest step.
ROOM, FINEST = 2.2, 4e-6


def discrete_gaussian(parameter: float, reach: int) -> Array:
    """Log probabilities of -reach to 0."""
    logs = -(np.arange(-reach, 1.0) ** 2) / (2 * parameter)
    return logs - math.log(2 * np.exp(logs).sum() - 1)


def summed(logpmf: Array, shares: int, reach: int) -> Array:
    """The sum of independent copies, by convolution: all terms are positive, so exact."""
    base = mirrored(np.exp(logpmf))
    total = np.ones(1)
    while shares:
        if shares % 2:
            total = within(np.convolve(total, base), reach)
        base = within(np.convolve(base, base), reach)
        shares //= 2
    with np.errstate(divide="ignore"):
        return np.log(total[: len(total) // 2 + 1])


def mirrored(half: Array) -> Array:
    return np.concatenate([half, half[-2::-1]])


def within(values: Array, reach: int) -> Array:
    centre = len(values) // 2
    return values[max(0, centre - reach) : centre + reach + 1]


def step_for(mu: float, shift: int, std: float) -> float:
    """A grid's step that holds all losses which matter at δ = 1e-5."""
    return max(ROOM * (mu * mu / 2 + 9 * mu + 14 * shift / std) / SIZE, FINEST)


def exact_epsilon(
    logpmf: Array, shift: int, times: int, delta: float, step: float, *, upper: bool
) -> float:
    """A bound on ε of moving `times` coordinates (over all rounds) by `shift` each."""
    full = mirrored(logpmf)
    losses = full[:-shift] - full[shift:]
    weights = np.exp(full[:-shift])
    rounded = (np.ceil if upper else np.floor)(losses / step).astype(int)
    kept = np.abs(rounded) < SIZE // 2
    law = np.bincount(rounded[kept] % SIZE, weights[kept], SIZE)
    composed = np.maximum(np.fft.irfft(np.fft.rfft(law) ** times, SIZE), 0.0)
    lost = times * max(0.0, 1 - weights[kept].sum()) if upper else 0.0
    axis = np.fft.fftfreq(SIZE, 1 / SIZE) * step
    order = np.argsort(axis)
    axis, composed = axis[order], composed[order]

    def delta_at(epsilon: float) -> float:
        above = axis > epsilon
        return lost - float((composed[above] * np.expm1(epsilon - axis[above])).sum())

    low, high = 0.0, 200.0
    for _ in range(60):
        middle = (low + high) / 2
        if delta_at(middle) > delta:
            low = middle
        else:
            high = middle
    return high
