"""Filters fitted to a run: the least error at the sensitivity of T rounds, k times, b apart.

What counts is error times sensitivity, since noise is scaled to the sensitivity. Its logarithm is
smooth in the coefficients of num and den, has a gradient in closed form, and is minimised by
L-BFGS from a few starts. The answer is floating-point numbers like any other: the sensitivity that
a plan accounts for is computed from them, never taken from the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fldp._checks import whole
from fldp.accounting.filters import (
    MOST_COEFFICIENTS,
    Array,
    Filter,
    below_one,
    fractional,
    stacked,
)

# Poles and zeros are 1 - e^-s with s the sum of e^v over the parameters v so far: v at -12 sets two
# next to each other, so that they cancel; at 4 one is 1 up to rounding.
_LEAST, _MOST = -12.0, 4.0
# Where fits begin: the slowest memory reaches over the run, a fifth of it, or five runs.
_REACHES = (1.0, 0.2, 5.0)
# Where L-BFGS stops: what is left to gain is far below what anybody could see of noise.
_GAIN, _SLOPE, _STEPS = 1e-12, 1e-9, 300
# γ of a fractional power, and how well it is found.
_LEAST_POWER, _MOST_POWER, _POWER_ERROR = 0.01, 0.999, 1e-6
# Coefficients of a fractional power: three rounds of fresh noise are kept.
_COEFFICIENTS = 4
# More buffers gain nothing at any length that is run.
MOST_BUFFERS = 4


def blt(
    rounds: int, participations: int, separation: int, buffers: int = 2, momentum: float = 0.0
) -> Filter:
    """Buffered linear Toeplitz noise, fitted: the default; 1 to 6 % above the best with b buffers.

    Poles and zeros of C⁻¹ alternate in (0, 1), so that the coefficients of C are positive and fall
    whatever the fit finds (Dvijotham et al. 2024; McMahan et al. 2024).

    Parameters
    ----------
    rounds, participations, separation
        T, k and b, as in :meth:`~fldp.accounting.filters.Filter.sensitivity`.
    buffers
        q, copies of the model that the noise keeps: 1 to 4. One is enough for a hundred rounds.
    momentum
        β of the server, 0 to below 1. A fit for the wrong one loses a tenth.

    Returns
    -------
    Filter
        Of order q, or less where the last buffers gain so little that rounding hides their poles.

    Raises
    ------
    ValueError
        For numbers out of range.

    Examples
    --------
    >>> noise = blt(rounds=100, participations=3, separation=31, buffers=1)
    >>> sensitivity = noise.sensitivity(100, participations=3, separation=31)
    >>> round(noise.error(100) * sensitivity, 3)
    4.379
    """
    count = whole("buffers", buffers)
    if count > MOST_BUFFERS:
        raise ValueError(f"buffers is {count}: more than {MOST_BUFFERS} gain nothing")
    run = _Run.of(rounds, participations, separation, momentum)
    found = _buffered(run, count)
    while not run.accounts_for(found):
        count -= 1
        found = _buffered(run, count)
    return found


def _buffered(run: _Run, count: int) -> Filter:
    """The fit with exactly `count` buffers."""

    def objective(values: Array) -> tuple[float, Array]:
        num, den, slopes = _interlaced(values)
        value, by_num, by_den = run.cost(num, den)
        return value, slopes[0] @ by_num + slopes[1] @ by_den

    size = 2 * count
    starts = [
        np.full(size, math.log(math.log(reach * run.rounds + 2) / size)) for reach in _REACHES
    ]
    best = _least(objective, starts, [(_LEAST, _MOST)] * size)
    num, den, _ = _interlaced(best)
    return Filter(tuple(num.tolist()), tuple(den.tolist()))


def banded(
    rounds: int,
    participations: int,
    separation: int,
    bands: int | None = None,
    momentum: float = 0.0,
) -> Filter:
    """The best C with so many bands, fitted: a participation is over before the next begins.

    Parameters
    ----------
    rounds, participations, separation
        T, k and b.
    bands
        Coefficients of C, 1 to b; None: b, at most T and 4,096.
    momentum
        β of the server, 0 to below 1.

    Returns
    -------
    Filter
        With `num` of 1, and the bands as `den`; of order `bands` - 1.

    Raises
    ------
    ValueError
        For more bands than the separation, which would overlap.

    Examples
    --------
    >>> noise = banded(rounds=64, participations=8, separation=8)
    >>> noise.order, round(noise.error(64) * noise.sensitivity(64, 8, 8), 3)
    (7, 7.535)
    """
    run = _Run.of(rounds, participations, separation, momentum)
    most = min(run.separation, run.rounds)
    count = min(most, MOST_COEFFICIENTS) if bands is None else whole("bands", bands)
    if count > most:
        raise ValueError(f"bands is {count}: give at most {most}, the separation and the rounds")
    if count == 1:
        return Filter((1.0,))

    def objective(values: Array) -> tuple[float, Array]:
        value, _, by_den = run.cost(np.ones(1), np.concatenate([[1.0], values]))
        return value, by_den[1:]

    # (1-x)^(-1/2): the best without any limit on the bands, a participation a client.
    start = fractional(count, 0.5).coefficients(count)[1:]
    # A band that falls below 0 takes from the sum what it should add.
    best = _least(objective, [start], [(0.0, None)] * (count - 1))
    return Filter((1.0,), (1.0, *best.tolist()))


def fitted_fractional(
    rounds: int,
    participations: int,
    separation: int,
    count: int = _COEFFICIENTS,
    momentum: float = 0.0,
) -> Filter:
    """The fractional power of `count` coefficients whose γ fits the run best.

    Parameters
    ----------
    rounds, participations, separation
        T, k and b.
    count
        p, as in :func:`~fldp.accounting.filters.fractional`.
    momentum
        β of the server, 0 to below 1.

    Returns
    -------
    Filter
        Of order p - 1.

    Raises
    ------
    ValueError
        For numbers out of range.

    Examples
    --------
    >>> noise = fitted_fractional(rounds=64, participations=8, separation=8)
    >>> round(noise.error(64) * noise.sensitivity(64, 8, 8), 3)
    8.002
    """
    from scipy.optimize import minimize_scalar

    run = _Run.of(rounds, participations, separation, momentum)
    most = min(whole("count", count), run.rounds)

    def objective(gamma: float) -> float:
        return run.value(fractional(most, gamma))

    limits = (_LEAST_POWER, _MOST_POWER)
    options = {"xatol": _POWER_ERROR}
    found = minimize_scalar(objective, bounds=limits, method="bounded", options=options)
    return fractional(most, float(found.x))


@dataclass(frozen=True)
class _Run:
    """What a filter is fitted to, and what it costs there."""

    rounds: int
    participations: int
    separation: int
    # The workload is 1 over this polynomial: 1 - x for sums, times 1 - βx with momentum.
    sums: tuple[float, ...]

    @classmethod
    def of(cls, rounds: int, participations: int, separation: int, momentum: float) -> _Run:
        beta = below_one("momentum", momentum)
        return cls(
            whole("rounds", rounds),
            whole("participations", participations),
            whole("separation", separation),
            (1.0, -1.0 - beta, beta),
        )

    def accounts_for(self, filter: Filter) -> bool:
        """Whether the sensitivity is known. Poles that all but cancel lose it to rounding."""
        if filter.order == 1:
            return True
        try:
            filter.sensitivity(self.rounds, self.participations, self.separation)
        except ValueError:
            return False
        return True

    def value(self, filter: Filter) -> float:
        """The cost of a filter, without a gradient."""
        return self.cost(np.array(filter.num), np.array(filter.den))[0]

    def cost(self, num: Array, den: Array) -> tuple[float, Array, Array]:
        """log(sensitivity² · error²), and its gradients in the coefficients of num and den.

        With a = 1/num and d = 1/den as series, C is den·a and C⁻¹ is num·d. A small change of num_j
        moves C by -(C·a) and C⁻¹ by d, both j rounds later; of den_j, C by a and C⁻¹ by -(C⁻¹·d).
        """
        from scipy.signal import lfilter

        one = np.zeros(self.rounds)
        one[0] = 1.0
        over_num = lfilter([1.0], num, one)
        over_den = lfilter([1.0], den, one)
        moved = lfilter(den, [1.0], over_num)
        noise = lfilter(num, [1.0], over_den)
        total = stacked(moved, self.participations, self.separation)
        square = float(total @ total)
        # The transposed map, of lags from the last round back, spreads a gradient over C.
        later = stacked(total[::-1], self.participations, self.separation)[::-1]
        by_moved = 2 * later / square
        weights = np.arange(self.rounds, 0, -1) / self.rounds
        sums = lfilter([1.0], self.sums, noise)
        wrong = float(sums**2 @ weights)
        by_noise = lfilter([1.0], self.sums, (2 * weights * sums)[::-1])[::-1] / wrong
        by_num = _lagged(by_noise, over_den, len(num))
        by_num -= _lagged(by_moved, lfilter([1.0], num, moved), len(num))
        by_den = _lagged(by_moved, over_num, len(den))
        by_den -= _lagged(by_noise, lfilter([1.0], den, noise), len(den))
        return math.log(square) + math.log(wrong), by_num, by_den


def _lagged(slope: Array, change: Array, count: int) -> Array:
    """For each lag below `count`, a gradient times a change that comes so much later."""
    size = len(slope)
    return np.array([slope[lag:] @ change[: max(0, size - lag)] for lag in range(count)])


def _interlaced(values: Array) -> tuple[Array, Array, tuple[Array, Array]]:
    """num and den with zeros and poles in turn, and the slopes of their coefficients in `values`.

    The slopes are matrices (2q, q + 1), a row for each value.
    """
    steps = np.exp(values)
    # Falling: the first root is the nearest to 1.
    sums = np.cumsum(steps[::-1])[::-1]
    roots = -np.expm1(-sums)
    # A root rises with its own step and all later ones.
    rises = np.tril(np.outer(steps, np.exp(-sums)))
    num, by_zeros = _from_roots(roots[0::2])
    den, by_poles = _from_roots(roots[1::2])
    return num, den, (rises[:, 0::2] @ by_zeros, rises[:, 1::2] @ by_poles)


def _from_roots(roots: Array) -> tuple[Array, Array]:
    """The coefficients of the product of 1 - root·x, and their slopes (q, q + 1) in each root."""
    slopes = np.zeros((len(roots), len(roots) + 1))
    for place in range(len(roots)):
        slopes[place, 1:] = -np.poly(np.delete(roots, place))
    return np.asarray(np.poly(roots), dtype=float), slopes


def _least(
    objective: Callable[[Array], tuple[float, Array]], starts: list[Array], bounds: list[Any]
) -> Array:
    """Where the objective is least, of what L-BFGS finds from each start."""
    from scipy.optimize import minimize

    options = {"maxiter": _STEPS, "ftol": _GAIN, "gtol": _SLOPE}
    found = [
        minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for start in starts
    ]
    return np.asarray(min(found, key=lambda one: one.fun).x, dtype=float)
