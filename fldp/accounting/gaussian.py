"""Closed forms: the Gaussian mechanism, mixtures of Gaussians whose mixing is known, and zCDP.

Where one of these applies no grid is needed. `mu` is sensitivity divided by noise; T rounds of
noise multiplier z have mu = sqrt(T) / z.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fldp._checks import MOST_RHO, between, real, whole
from fldp.accounting.binomial import binomial
from fldp.accounting.search import falling_root, least

Array = NDArray[np.float64]

# A smaller delta is reported as this: logarithms stay finite, and it is an upper bound.
LEAST_DELTA = 1e-300
# exp beyond this is infinite in double precision.
LARGEST_EXP = 700.0

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
# Where mu is looked for: from e^30 down, by e^-40 at first, and never below the least.
_LARGEST_MU = math.exp(30)
_MU_RANGE = 40.0
_LEAST_MU = 1e-300
# Rényi orders less one to look at first: what rho from 1e-9 to 1e9 can need; and how many then,
# twice, between the neighbours of the best. Epsilon is then right to ten digits.
_ORDERS_LESS_ONE = np.geomspace(1e-8, 1e12, 401)
_ORDERS_CLOSER = (101, 101)
# The same for many epsilons at once, as multiples of the order that is best for a Gaussian's tail.
_ZCDP_ORDERS = (1e-3, 10)
_ZCDP_SIZES = (60, 20, 20)


def _exp_square(x: Array) -> Array:
    """exp(-x^2) to the last digits, for x >= 0: the square of a short number is exact."""
    x = np.minimum(x, 40.0)  # beyond, it is 0
    short = np.floor(16 * x) / 16
    return np.asarray(np.exp(-short * short) * np.exp(-(x - short) * (x + short)))


def erfcx(x: Array) -> Array:
    """exp(x^2) erfc(x), with a relative error below 1e-15.

    Parameters
    ----------
    x
        Values >= 0.

    Returns
    -------
    numpy.ndarray
        Of the shape of `x`.

    Examples
    --------
    >>> erfcx(np.array([0.0, 1.0])).round(9).tolist()
    [1.0, 0.427583576]
    """
    x = np.minimum(x, 1e300)
    t = (x - _ERFCX_CENTRE) / (x + _ERFCX_CENTRE)
    value = np.full_like(t, _ERFCX[-1])
    for coefficient in reversed(_ERFCX[:-1]):
        value *= t
        value += coefficient
    return np.asarray(value / (1 + 2 * x))


def erfc(x: Array) -> Array:
    """erfc(x); the same digits whatever else is installed or loaded.

    Parameters
    ----------
    x
        Values >= 0, infinity included.

    Returns
    -------
    numpy.ndarray
        Of the shape of `x`.

    Examples
    --------
    >>> erfc(np.array([0.0, 1.0, np.inf])).round(9).tolist()
    [1.0, 0.157299207, 0.0]
    """
    return erfcx(x) * _exp_square(x)


def erfcx_one(x: float) -> float:
    """exp(x^2) erfc(x) for one number.

    Parameters
    ----------
    x
        At least 0.

    Returns
    -------
    float
        Right to the last digits.

    Examples
    --------
    >>> round(erfcx_one(1.0), 9)
    0.427583576
    """
    if x < _SERIES_FROM:
        short = math.floor(16 * x) / 16
        return math.exp(short * short) * math.exp((x - short) * (x + short)) * math.erfc(x)
    y = 1 / (2 * x * x)
    series = 1.0
    for n in range(_SERIES_TERMS, 0, -1):
        series = 1 - (2 * n - 1) * y * series
    return series / (x * math.sqrt(math.pi))


def _log_delta(mu: float, epsilon: float) -> float:
    """log delta of a Gaussian (Balle & Wang 2018, Thm 8), its own rounding added.

    It is (erfc(near) - e^epsilon erfc(far)) / 2. Both terms have the factor e^(-near^2), since
    far^2 = near^2 + epsilon: taken out, nothing underflows. At epsilon = 0 it is the total
    variation, of which no digits are lost.
    """
    if epsilon == 0:
        return math.log(max(math.erf(mu / math.sqrt(8)) * (1 + _ROUND_OFF), LEAST_DELTA))
    near = (epsilon / mu - mu / 2) * math.sqrt(0.5)
    far = (epsilon / mu + mu / 2) * math.sqrt(0.5)
    inside, outside, scale = erfcx_one(max(near, 0.0)), erfcx_one(far), near * near
    if near < 0:
        # the factor is left in: without it erfc(near), which is near to 2, is not in range
        inside, outside, scale = math.erfc(near), math.exp(-scale) * outside, 0.0
    gap = 0.5 * (inside - outside + _ROUND_OFF * inside)
    return math.log(max(gap, LEAST_DELTA)) - scale


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Exact delta of a Gaussian (Balle & Wang 2018, Thm 8).

    Parameters
    ----------
    mu
        Sensitivity divided by noise, > 0; sqrt(T)/z for T rounds.
    epsilon
        At least 0.

    Returns
    -------
    float
        Delta; below 1e-300 it is reported as 1e-300.

    Raises
    ------
    ValueError
        For arguments out of range.

    Examples
    --------
    >>> round(gaussian_delta(1.0, 1.0), 6)
    0.126937
    """
    log_delta = _log_delta(real("mu", mu), between("epsilon", epsilon, math.inf))
    return max(LEAST_DELTA, math.exp(log_delta))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of a Gaussian (Balle & Wang 2018), from above.

    Parameters
    ----------
    mu
        As in :func:`gaussian_delta`.
    delta
        In (0, 1).

    Returns
    -------
    float
        Epsilon, 0 where the total variation is at most delta.

    Raises
    ------
    ValueError
        For arguments out of range.

    Examples
    --------
    >>> round(gaussian_epsilon(1.0, 1e-5), 6)
    4.377178
    """
    mu = real("mu", mu)
    goal = math.log(real("delta", delta, 1))
    # above the loss's mean mu^2/2 by so many of its standard deviations mu that less is left
    high = mu * mu / 2 + mu * (1 + math.sqrt(-2 * goal))
    return falling_root(lambda e: _log_delta(mu, e) - goal, 0.0, high, digits=0.0)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest sensitivity/noise ratio `mu` that is (epsilon, delta)-DP; z = sqrt(T) / mu.

    Parameters
    ----------
    epsilon
        At least 0.
    delta
        In (0, 1).

    Returns
    -------
    float
        mu, from below to 1e-13.

    Raises
    ------
    ValueError
        For arguments out of range, or out of reach of double precision.

    Examples
    --------
    >>> round(1 / gaussian_mu(1.0, 1e-5), 6)
    3.730632
    """
    epsilon = between("epsilon", epsilon, math.inf)
    goal = math.log(real("delta", delta, 1))

    def mu_at(x: float) -> float:
        return max(_LEAST_MU, _LARGEST_MU * math.exp(-x))

    def too_much(x: float) -> float:
        # log delta is near to a power of mu, so that its logarithm is near to a line
        return -math.log(max(_log_delta(mu_at(x), epsilon) / goal, LEAST_DELTA))

    found = falling_root(too_much, 0.0, _MU_RANGE, digits=1e-15)
    if math.isinf(found):
        raise ValueError(
            f"delta is {delta:g}: no Gaussian meets it at epsilon={epsilon:g}; ask for more"
        )
    return mu_at(found)


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
    Bin(rounds, rate) at sqrt(K mu^2 + base^2).

    Parameters
    ----------
    mu
        Sensitivity divided by noise, of one round in which the client takes part.
    rate
        The chance to take part in a round, 0 to 1.
    rounds
        How many there are.
    epsilon
        At least 0.
    base
        The ratio of all rounds together in which the client takes part for certain.

    Returns
    -------
    float
        Delta, 1e-300 to 1; above the truth by the cut tails of K, at most 1e-300.

    Raises
    ------
    ValueError
        For arguments out of range.

    Examples
    --------
    >>> round(known_delta(1.0, 0.25, 60, 20.0), 5)
    0.00217
    """
    epsilon = between("epsilon", epsilon, math.inf)
    return _known_law(mu, rate, rounds, base, LEAST_DELTA).delta(epsilon)


def known_epsilon(mu: float, rate: float, rounds: int, delta: float, base: float = 0.0) -> float:
    """Exact epsilon when the adversary knows which rounds a client took part in.

    Parameters
    ----------
    mu, rate, rounds, base
        As in :func:`known_delta`.
    delta
        In (0, 1).

    Returns
    -------
    float
        Epsilon; the cut tails of K take at most 1e-9 of delta each.

    Raises
    ------
    ValueError
        For arguments out of range.

    Examples
    --------
    >>> round(known_epsilon(1.0, 1.0, 1, 1e-5), 6)
    4.377178
    """
    delta = real("delta", delta, 1)
    law = _known_law(mu, rate, rounds, base, _CUT * delta)
    largest = float(law.mus[-1])
    # epsilon of the largest ratio, as in gaussian_epsilon, with what the cut tails leave of delta
    high = largest**2 / 2 + largest * (1 + math.sqrt(-2 * math.log(delta * (1 - 4 * _CUT))))
    return falling_root(lambda e: math.log(law.delta(e) / delta), 0.0, high)


class _Known(NamedTuple):
    """Ratios with their chances, but for a tail of weight `cut`."""

    mus: Array
    weights: Array
    cut: float

    def delta(self, epsilon: float) -> float:
        total = float(self.weights @ _deltas(self.mus, epsilon)) + self.cut
        return min(1.0, max(LEAST_DELTA, total))


def _known_law(mu: float, rate: float, rounds: int, base: float, failure: float) -> _Known:
    counts, weights = binomial(whole("rounds", rounds), between("rate", rate), failure)
    certain = between("base", base, math.inf) ** 2
    return _Known(np.sqrt(counts * real("mu", mu) ** 2 + certain), weights, failure)


def _converted(rho: float, log_delta: float, order_less_one: Array) -> Array:
    """Epsilon from each Rényi order (Canonne, Kamath & Steinke 2020, Prop. 12)."""
    order = 1 + order_less_one
    rest = (-log_delta - np.log(order)) / order_less_one - np.log1p(1 / order_less_one)
    return np.asarray(rho * order + rest)


def zcdp_log_deltas(rho: float, epsilons: Array) -> Array:
    """log of the least delta that follows from rho-zCDP at each epsilon (Canonne et al. 2020).

    Parameters
    ----------
    rho
        The parameter of zCDP, > 0.
    epsilons
        Values >= 0, of shape (n,).

    Returns
    -------
    numpy.ndarray
        log delta, of shape (n,), at most 0.

    Examples
    --------
    >>> np.exp(zcdp_log_deltas(0.5, np.array([1.0, 3.0]))).round(3).tolist()
    [0.247, 0.005]
    """
    best = np.zeros(epsilons.size)
    # orders around the one that is best for a Gaussian's tail
    scale = (1 / math.sqrt(2 * rho) + epsilons / (2 * rho))[:, None]
    low, high = (factor * scale for factor in _ZCDP_ORDERS)
    # as search.least does, for many epsilons at once
    for size in _ZCDP_SIZES:
        a = low * (high / low) ** np.linspace(0, 1, size)
        order = 1 + a
        log_delta = a * (rho * order - epsilons[:, None] - np.log1p(1 / a)) - np.log(order)
        i = log_delta.argmin(axis=1)[:, None]
        best = np.minimum(best, np.take_along_axis(log_delta, i, 1)[:, 0])
        low = np.take_along_axis(a, np.maximum(i - 1, 0), 1)
        high = np.take_along_axis(a, np.minimum(i + 1, size - 1), 1)
    return best


def zcdp_delta(rho: float, epsilon: float) -> float:
    """The least delta that follows from rho-zCDP alone, by :func:`zcdp_log_deltas`.

    Parameters
    ----------
    rho
        The parameter of zCDP, > 0.
    epsilon
        At least 0.

    Returns
    -------
    float
        Delta, 0 to 1.

    Examples
    --------
    >>> round(zcdp_delta(0.5, 1.0), 3)
    0.247
    """
    return math.exp(zcdp_log_deltas(rho, np.array([epsilon]))[0])


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

    Returns
    -------
    float
        Epsilon >= 0; every order gives a bound, so that a coarse minimum would still be one.

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
    rho = real("rho", rho, MOST_RHO)
    return _zcdp_epsilon(rho, math.log(real("delta", delta, 1)))


def _zcdp_epsilon(rho: float, log_delta: float) -> float:
    found = least(lambda t: _converted(rho, log_delta, t), _ORDERS_LESS_ONE, _ORDERS_CLOSER)
    return max(0.0, found)


def zcdp_rho(epsilon: float, delta: float) -> float:
    """The largest rho for which rho-zCDP alone proves (epsilon, delta): :func:`zcdp_epsilon` back.

    Parameters
    ----------
    epsilon
        In (0, 1e9).
    delta
        In (0, 1).

    Returns
    -------
    float
        rho, from below to 1e-12.

    Raises
    ------
    ValueError
        For arguments out of range, and where no rho proves it.

    Examples
    --------
    >>> round(zcdp_rho(17.16, 1e-10), 3)
    2.56
    """
    epsilon = real("epsilon", epsilon, MOST_RHO)
    log_delta = math.log(real("delta", delta, 1))

    def too_much(x: float) -> float:
        found = _zcdp_epsilon(epsilon * math.exp(-x), log_delta)
        return math.log(max(found / epsilon, LEAST_DELTA))

    # zcdp_epsilon(rho) >= rho, so that rho <= epsilon
    found = falling_root(too_much, 0.0, 1.0, digits=1e-14)
    if math.isinf(found):
        raise ValueError(
            f"epsilon is {epsilon:g}: no rho proves it at delta={delta:g}; ask for more"
        )
    return epsilon * math.exp(-found)
