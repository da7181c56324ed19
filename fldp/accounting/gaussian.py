"""Closed forms: the Gaussian mechanism, mixtures of Gaussians whose mixing is known, and zCDP.

Where one of these applies no grid is needed. `mu` is sensitivity divided by noise; T rounds of
noise multiplier z have mu = sqrt(T) / z.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fldp._checks import MOST_RHO, between, real, whole
from fldp.accounting.binomial import binomial

Array = NDArray[np.float64]

# A smaller delta is reported as this: logarithms stay finite, and it is an upper bound.
LEAST_DELTA = 1e-300

# (1 + 2x) e^(x^2) erfc(x) as a polynomial in t = (x - k)/(x + k), for all x >= 0 at once (Shepherd
# & Laframboise 1981); coefficients computed with 40 digits; relative error below 7e-16.
_ERFCX_CENTRE = 3.75
_ERFCX = (
    1.2375126308378275, -0.14024059858554697, 0.003585415485464427, 0.0822767384901452,
    -0.10880393014174886, 0.09230432116037748, -0.05869339858963678, 0.0283622774189564,
    -0.009746579558029277, 0.0017556258528952959, 0.00029371366559134476, -0.00029015408054084183,
    5.164909889268241e-05, 2.2384239155082227e-05, -1.1444146237700522e-05, -9.73559896736775e-07,
    1.7516376488490619e-06, -5.72182306032241e-08, -2.586685071615588e-07, 2.3263508708859134e-08,
    3.8675334242222354e-08, -3.7442100809620216e-09, -5.173990214011311e-09,
    3.1114333809799254e-10, 4.2514714447963895e-10,
)  # fmt: skip
# e^(x^2) erfc(x) has an asymptotic series: from here on so many terms are exact to the last digit.
_SERIES_FROM = 8.0
_SERIES_TERMS = 16
_UNIT = float(np.finfo(np.float64).eps)
# What rounding may take off a difference of two scaled error functions, per unit of the larger:
# arguments and functions are each right to two or three last digits. Added to every delta.
_ROUND_OFF = 8 * _UNIT

# Share of delta that the cut tails of a binomial may have.
_CUT = 1e-9


def _exp_square(x: Array) -> Array:
    """exp(-x^2) to the last digits, for x >= 0: the square of a short number is exact."""
    x = np.minimum(x, 40.0)  # beyond, it is 0
    short = np.floor(16 * x) / 16
    return np.asarray(np.exp(-short * short) * np.exp(-(x - short) * (x + short)))


def erfcx(x: Array) -> Array:
    """exp(x^2) erfc(x) for x >= 0, relative error below 1e-15."""
    x = np.minimum(x, 1e300)
    t = (x - _ERFCX_CENTRE) / (x + _ERFCX_CENTRE)
    value = np.full_like(t, _ERFCX[-1])
    for coefficient in reversed(_ERFCX[:-1]):
        value *= t
        value += coefficient
    return np.asarray(value / (1 + 2 * x))


def erfc(x: Array) -> Array:
    """erfc(x) for x >= 0; the same digits whatever else is installed or loaded."""
    return erfcx(x) * _exp_square(x)


def erfcx_one(x: float) -> float:
    """exp(x^2) erfc(x) for one x >= 0."""
    if x < _SERIES_FROM:
        short = math.floor(16 * x) / 16
        return math.exp(short * short) * math.exp((x - short) * (x + short)) * math.erfc(x)
    y = 1 / (2 * x * x)
    series = 1.0
    for n in range(_SERIES_TERMS, 0, -1):
        series = 1 - (2 * n - 1) * y * series
    return series / (x * math.sqrt(math.pi))


def _log_delta(mu: float, epsilon: float) -> float:
    """log delta of a Gaussian (Balle & Wang 2018, Thm 8), its own rounding added."""
    near = (epsilon / mu - mu / 2) * math.sqrt(0.5)
    far = (epsilon / mu + mu / 2) * math.sqrt(0.5)
    if near < 0:
        inside, outside, scale = math.erfc(near), math.exp(-near * near) * erfcx_one(far), 0.0
    else:
        inside, outside, scale = erfcx_one(near), erfcx_one(far), near * near
    gap = 0.5 * (inside - outside + _ROUND_OFF * inside)
    return math.log(max(gap, LEAST_DELTA)) - scale


def _bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """The upper end of the narrowest bracket of the root of a decreasing `f`."""
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return high


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Exact delta of a Gaussian whose sensitivity/noise ratio is `mu` (Balle & Wang 2018, Thm 8).

    `epsilon` may be 0; a delta below 1e-300 is reported as 1e-300.

    >>> round(gaussian_delta(1.0, 1.0), 6)
    0.126937
    """
    mu, epsilon = real("mu", mu), between("epsilon", epsilon, math.inf)
    return max(LEAST_DELTA, math.exp(_log_delta(mu, epsilon)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of a Gaussian whose sensitivity/noise ratio is `mu` (Balle & Wang 2018).

    >>> round(gaussian_epsilon(1.0, 1e-5), 6)
    4.377178
    """
    mu, goal = real("mu", mu), math.log(real("delta", delta, 1))
    if _log_delta(mu, 0.0) <= goal:
        return 0.0
    high = mu * mu / 2 + mu * (1 + math.sqrt(-2 * goal))
    return _bisect(lambda e: _log_delta(mu, e) - goal, 0.0, high)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest sensitivity/noise ratio `mu` that is (epsilon, delta)-DP; z = sqrt(T) / mu.

    `epsilon` may be 0.

    >>> round(1 / gaussian_mu(1.0, 1e-5), 6)
    3.730632
    """
    epsilon = between("epsilon", epsilon, math.inf)
    goal = math.log(real("delta", delta, 1))
    # mu between e^-60 and e^30: beyond, no delta in double precision
    return math.exp(-_bisect(lambda x: _log_delta(math.exp(-x), epsilon) - goal, -30.0, 60.0))


def _deltas(mu: Array, epsilon: float) -> Array:
    """:func:`gaussian_delta` for many `mu` (0 allowed) at one epsilon."""
    safe = np.maximum(mu, 1e-150)
    near = (epsilon / safe - safe / 2) * math.sqrt(0.5)
    far = (epsilon / safe + safe / 2) * math.sqrt(0.5)
    tail = erfc(np.abs(near))
    inside = np.where(near < 0, 2 - tail, tail)
    outside = _exp_square(np.abs(near)) * erfcx(far)
    gap = 0.5 * (inside - outside + _ROUND_OFF * inside)
    return np.where(mu > 0, np.clip(gap, 0.0, 1.0), 0.0)


def known_delta(mu: float, rate: float, rounds: int, epsilon: float, base: float = 0.0) -> float:
    """Exact delta when the adversary knows which rounds a client took part in.

    Each of `rounds` rounds is a Gaussian of ratio `mu` with chance `rate` and nothing otherwise,
    and which of the two is public: delta is the mean of :func:`gaussian_delta` over K ~
    Bin(rounds, rate) at sqrt(K mu^2 + base^2), where `base` is the ratio of rounds in which the
    client takes part for certain.

    >>> round(known_delta(1.0, 0.25, 60, 20.0), 5)
    0.00217
    """
    mu, rate = real("mu", mu), between("rate", rate)
    rounds, epsilon = whole("rounds", rounds), between("epsilon", epsilon, math.inf)
    base = between("base", base, math.inf)
    return _known_delta(*_known_law(mu, rate, rounds, base, LEAST_DELTA), epsilon)


def known_epsilon(mu: float, rate: float, rounds: int, delta: float, base: float = 0.0) -> float:
    """Exact epsilon when the adversary knows which rounds a client took part in.

    Arguments as in :func:`known_delta`.

    >>> round(known_epsilon(1.0, 1.0, 1, 1e-5), 6)
    4.377178
    """
    mu, rate = real("mu", mu), between("rate", rate)
    rounds, delta = whole("rounds", rounds), real("delta", delta, 1)
    base = between("base", base, math.inf)
    law = _known_law(mu, rate, rounds, base, _CUT * delta)
    if _known_delta(*law, 0.0) <= delta:
        return 0.0
    largest = float(law[0][-1])
    high = largest**2 / 2 + largest * (1 + math.sqrt(-2 * math.log(delta * (1 - 4 * _CUT))))
    return falling_root(lambda e: _known_delta(*law, e) / delta, high)


def _known_law(
    mu: float, rate: float, rounds: int, base: float, failure: float
) -> tuple[Array, Array, float]:
    counts, weights = binomial(rounds, rate, failure)
    return np.sqrt(counts * mu * mu + base * base), weights, failure


def _known_delta(mus: Array, weights: Array, cut: float, epsilon: float) -> float:
    total = float(weights @ _deltas(mus, epsilon)) + cut
    return min(1.0, max(LEAST_DELTA, total))


def falling_root(f: Callable[[float], float], high: float) -> float:
    """The least x in [0, high] with f(x) <= 1, from above to 1e-12; `f` falls, log f is smooth.

    Regula falsi on log f, a step of bisection whenever an end stays twice (Illinois would do).
    """
    low = 0.0
    at_low, at_high = math.log(f(low)), math.log(f(high))
    stuck = 0
    while high - low > 1e-12 * high:
        share = at_low / (at_low - at_high)
        step = 0.5 if stuck >= 2 or not 0.0 < share < 1.0 else share
        # aim a little above the root, so that the upper end closes in on it
        x = low + (high - low) * min(step * (1 + 1e-6) + 1e-13, 1 - 1e-3)
        value = math.log(f(x))
        stuck = 0 if step == 0.5 else stuck + 1
        if value > 0:
            low, at_low = x, value
        else:
            high, at_high = x, value
        if value == 0:
            return x
    return high


# Orders less one to look at before the search narrows: what rho from 1e-9 to 1e9 can need.
_ORDERS_LESS_ONE = np.geomspace(1e-8, 1e12, 401)


def _converted(rho: float, log_delta: float, order_less_one: Array) -> Array:
    """Epsilon from each Rényi order (Canonne, Kamath & Steinke 2020, Prop. 12)."""
    order = 1 + order_less_one
    rest = (-log_delta - np.log(order)) / order_less_one - np.log1p(1 / order_less_one)
    return np.asarray(rho * order + rest)


def zcdp_log_deltas(rho: float, epsilons: Array) -> Array:
    """log of the least delta that follows from rho-zCDP at each epsilon >= 0 (same source)."""
    best = np.zeros(epsilons.size)
    # orders around the one that is best for a Gaussian's tail
    scale = (1 / math.sqrt(2 * rho) + epsilons / (2 * rho))[:, None]
    low, high = 1e-3 * scale, 10 * scale
    for size in (60, 20, 20):
        a = low * (high / low) ** np.linspace(0, 1, size)
        order = 1 + a
        log_delta = a * (rho * order - epsilons[:, None] - np.log1p(1 / a)) - np.log(order)
        i = log_delta.argmin(axis=1)[:, None]
        best = np.minimum(best, np.take_along_axis(log_delta, i, 1)[:, 0])
        low = np.take_along_axis(a, np.maximum(i - 1, 0), 1)
        high = np.take_along_axis(a, np.minimum(i + 1, size - 1), 1)
    return best


def zcdp_epsilon(rho: float, delta: float) -> float:
    """The least epsilon that follows from rho-zCDP alone, whatever the mechanism.

    zCDP says that the Rényi divergence of every order a is at most rho * a (Bun & Steinke 2016);
    the conversion is the optimal one of Canonne, Kamath & Steinke (2020), minimised over a. A
    single Gaussian has a smaller epsilon, but a rho does not say that it was one.

    Parameters
    ----------
    rho
        The parameter of zCDP, in (0, 1e9).
    delta
        In (0, 1).

    Raises
    ------
    ValueError
        For arguments out of range.

    Examples
    --------
    The 2020 US Census states rho = 2.56:

    >>> round(zcdp_epsilon(2.56, 1e-10), 2)
    17.16
    """
    rho, log_delta = real("rho", rho, MOST_RHO), math.log(real("delta", delta, 1))
    orders, best = _ORDERS_LESS_ONE, math.inf
    for _ in range(3):  # each time between the neighbours of the best order so far
        found = _converted(rho, log_delta, orders)
        i = int(np.argmin(found))
        best = min(best, float(found[i]))
        orders = np.geomspace(orders[max(0, i - 1)], orders[min(i + 1, orders.size - 1)], 101)
    return max(0.0, best)


def zcdp_rho(epsilon: float, delta: float) -> float:
    """The largest rho for which rho-zCDP alone proves (epsilon, delta): :func:`zcdp_epsilon` back.

    >>> round(zcdp_rho(17.16, 1e-10), 3)
    2.56
    """
    epsilon, delta = real("epsilon", epsilon, MOST_RHO), real("delta", delta, 1)
    # zcdp_epsilon(rho) >= rho, so the root lies below epsilon
    low, high = 0.0, epsilon
    while low < (middle := 0.5 * (low + high)) < high and high - low > 1e-12 * high:
        low, high = (middle, high) if zcdp_epsilon(middle, delta) <= epsilon else (low, middle)
    if low == 0:
        raise ValueError(
            f"epsilon is {epsilon:g}: no rho proves it at delta={delta:g}; ask for more"
        )
    return low
