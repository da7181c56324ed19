"""Binomial laws from above: how often a client takes part, how many come, for any N and T."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Windows longer than this are summed in groups of neighbours.
_GROUPS = 1 << 17
# Beyond this multiple of the mean the plain formula for the deviance is as good.
_FAR = 1e6
_UNIT = float(np.finfo(np.float64).eps)
# Below this Stirling's error comes from the factorial itself, above from its series.
_SMALL = 16
_STIRLING = np.array(
    [0.0]
    + [
        math.lgamma(k + 1) - (k + 0.5) * math.log(k) + k - 0.5 * math.log(2 * math.pi)
        for k in range(1, _SMALL)
    ]
)


def _stirling_error(k: Array) -> Array:
    """log k! less Stirling's formula, for whole k >= 1."""
    y = 1 / np.square(np.maximum(k, _SMALL))
    series = (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y / 1680))) / np.maximum(k, _SMALL)
    exact = _STIRLING[np.minimum(k, _SMALL - 1).astype(np.int64)]
    return np.where(k < _SMALL, exact, series)


def _deviance(k: Array, mean: float) -> Array:
    """k log(k/mean) + mean - k, without the cancellation near the mean."""
    with np.errstate(over="ignore", invalid="ignore"):
        u = (k - mean) / mean
        near = mean * ((1 + u) * np.log1p(u) - u)
    # far above a tiny mean nothing cancels, and u may be infinite
    return np.asarray(np.where(u > _FAR, k * (np.log(k) - math.log(mean)) + mean - k, near))


def log_pmf(k: Array, trials: int, rate: float) -> Array:
    """log P[Bin(trials, rate) = k]; precise for many trials (Loader 2000).

    Parameters
    ----------
    k
        Whole numbers from 0 to `trials`, as floats, of shape (n,).
    trials, rate
        Of the law; 0 < `rate` < 1.

    Returns
    -------
    numpy.ndarray
        Logarithms, of shape (n,).

    Examples
    --------
    >>> np.exp(log_pmf(np.arange(3.0), 2, 0.5)).round(12).tolist()
    [0.25, 0.5, 0.25]
    """
    log = np.where(k == 0, trials * math.log1p(-rate), trials * math.log(rate))
    inside = (k > 0) & (k < trials)
    hits = k[inside]
    misses = trials - hits
    errors = _stirling_error(np.array([float(trials)])) - _stirling_error(hits)
    errors = errors - _stirling_error(misses)
    deviance = _deviance(hits, trials * rate) + _deviance(misses, trials * (1 - rate))
    log[inside] = errors - deviance - 0.5 * np.log(2 * math.pi * hits * (misses / trials))
    return log


def _grouped(low: int, high: int, trials: int, rate: float) -> tuple[Array, Array]:
    """The largest member of each group of [low, high], and at least the group's probability."""
    stride = -(-(high - low + 1) // _GROUPS)
    last = np.minimum(np.arange(low + stride - 1, high + stride, stride, dtype=np.float64), high)
    # rounding of the mean shows in the deviance, by up to this at 16 standard deviations
    rounding = _UNIT * (64 + 16 * math.sqrt(trials))
    if stride == 1:
        return last, np.exp(log_pmf(last, trials, rate) + rounding)
    # probabilities rise up to the mode and fall after it
    mode = math.floor((trials + 1) * rate)
    first = np.append(float(low), last[:-1] + 1)
    peak = np.clip(float(mode), first, last)
    return last, (last - first + 1) * np.exp(log_pmf(peak, trials, rate) + rounding)


def _reach(trials: int, rate: float, failure: float) -> float:
    """Distance from the mean that is exceeded with chance below `failure` (Bernstein)."""
    load = -math.log(failure)
    return load / 3 + math.sqrt(load * load / 9 + 2 * load * trials * rate * (1 - rate))


def binomial(trials: int, rate: float, failure: float) -> tuple[Array, Array]:
    """Values and probabilities of Bin(trials, rate), but for tails of weight below `failure` each.

    The tail below stands at the smallest value kept; long windows are summed in groups, at their
    largest members and with no smaller probability. Any increasing function has a mean that is at
    most the sum here plus `failure` times its supremum.

    Parameters
    ----------
    trials, rate
        Of the law; `rate` from 0 to 1.
    failure
        What may be cut at either end, in (0, 1).

    Returns
    -------
    values, weights : numpy.ndarray
        Of the same shape; rising values.

    Examples
    --------
    >>> values, weights = binomial(2, 0.5, 1e-9)
    >>> values.tolist(), weights.round(9).tolist()
    ([0.0, 1.0, 2.0], [0.25, 0.5, 0.25])
    """
    if rate <= 0 or rate >= 1:
        return np.array([trials * round(rate) + 0.0]), np.ones(1)
    reach = _reach(trials, rate, failure)
    low = max(0, math.floor(trials * rate - reach))
    high = min(trials, math.ceil(trials * rate + reach))
    values, weights = _grouped(low, high, trials, rate)
    weights[0] += failure if low else 0.0
    return values, weights


def tail_error(trials: int) -> float:
    """By what share :func:`binomial_tail` may be too large.

    Parameters
    ----------
    trials
        Of the law.

    Returns
    -------
    float
        1e-9 where a tail is summed one by one, and 2e-3 where it is in groups.

    Examples
    --------
    >>> tail_error(1000)
    1e-09
    """
    # up to here a tail is summed one by one
    return 1e-9 if trials <= 10**8 else 2e-3


def binomial_tail(k: int, trials: int, rate: float) -> float:
    """P[Bin(trials, rate) > k], or a little more: see :func:`tail_error`.

    Parameters
    ----------
    k, trials
        Whole numbers.
    rate
        From 0 to 1.

    Returns
    -------
    float
        At most 1; the neglected part of the tail is added.

    Examples
    --------
    >>> round(binomial_tail(1, 2, 0.5), 9)
    0.25
    """
    if k < 0:
        return 1.0
    if k >= trials or rate <= 0:
        return 0.0
    if rate >= 1:
        return 1.0
    # terms that are this much smaller than the first no longer count
    first = float(log_pmf(np.array([k + 1.0]), trials, rate)[0]) if k + 1 > trials * rate else 0.0
    least = max(1e-300, 1e-17 * math.exp(first))
    high = min(trials, math.ceil(max(trials * rate, k) + _reach(trials, rate, least)))
    above = float(_grouped(k + 1, high, trials, rate)[1].sum())
    return min(1.0, above + least)
