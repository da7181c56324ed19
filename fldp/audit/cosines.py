"""ε estimated from canaries in one ordinary training: an estimate, never a bound."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike as Array

from fldp._checks import real, whole
from fldp.audit.findings import AuditResult, counted
from fldp.audit.scores import clean, curve_of

# Below this curvature the log ratio is a line for every x that has any probability.
_FLAT = 1e-13
# exp of this is still a float.
_LARGEST_EXPONENT = 700.0
# The confidence of the interval that the fit leaves open, half for the mean, half for the spread.
_CONFIDENCE = 0.95
# Draws of the null, for the measured curve alone.
_NULL_SAMPLE = 10_000
# How finely ε is searched.
_FINE = 1e-9
# Fewer canaries have no spread to speak of.
_FEWEST = 3


def two_gaussians_epsilon(mean: float, std: float, null_std: float, delta: float) -> float:
    """ε between N(0, null_std²) and N(mean, std²), the larger of both directions.

    Parameters
    ----------
    mean : float
        Finite.
    std, null_std : float
        Above 0.
    delta : float
        δ, in (0, 1).

    Returns
    -------
    float
        At least 0.

    Raises
    ------
    ValueError
        For a number out of range.

    Examples
    --------
    >>> round(two_gaussians_epsilon(1.0, 1.0, 1.0, 1e-5), 3)
    4.377
    """
    from scipy.optimize import brentq

    real("std", std)
    real("null_std", null_std)
    real("delta", delta, 1)
    if not math.isfinite(mean):
        raise ValueError(f"mean is {mean!r}: give a finite number")
    # Only ratios matter: in units of the null's standard deviation nothing over- or underflows.
    present = (mean / null_std, std / null_std)
    absent = (0.0, 1.0)

    def excess(e: float) -> float:
        return max(_hockey_stick(present, absent, e), _hockey_stick(absent, present, e)) - delta

    if excess(0.0) <= 0:
        return 0.0
    top = 1.0
    while excess(top) > 0:
        top *= 2
    return float(brentq(excess, 0.0, top, xtol=_FINE))


def _hockey_stick(p: tuple[float, float], q: tuple[float, float], epsilon: float) -> float:
    """P(S) - e^ε Q(S) of Gaussians (mean, std), S where log p/q = a x² + b x + c exceeds ε."""
    a = (q[1] ** -2 - p[1] ** -2) / 2
    b = p[0] / p[1] ** 2 - q[0] / q[1] ** 2
    c = (q[0] / q[1]) ** 2 / 2 - (p[0] / p[1]) ** 2 / 2 + math.log(q[1] / p[1]) - epsilon
    total = 0.0
    for low, high in _above_zero(a, b, c):
        total += math.exp(_log_mass(p, low, high))
        total -= math.exp(min(epsilon + _log_mass(q, low, high), _LARGEST_EXPONENT))
    return total


def _above_zero(a: float, b: float, c: float) -> list[tuple[float, float]]:
    """The intervals on which a x² + b x + c > 0."""
    if abs(a) < _FLAT:
        if b == 0:
            return [(-math.inf, math.inf)] if c > 0 else []
        return [(-c / b, math.inf)] if b > 0 else [(-math.inf, -c / b)]
    square = b * b - 4 * a * c
    if square <= 0:
        return [(-math.inf, math.inf)] if a > 0 else []
    # The sum without cancellation first; the other root follows from their product c / a.
    far = -(b + math.copysign(math.sqrt(square), b)) / 2
    low, high = sorted((far / a, c / far))
    return [(-math.inf, low), (high, math.inf)] if a > 0 else [(low, high)]


def _log_mass(p: tuple[float, float], low: float, high: float) -> float:
    """log P(low < X < high), to relative accuracy in either tail."""
    from scipy.special import log_ndtr

    left = (low - p[0]) / p[1]
    right = (high - p[0]) / p[1]
    if left > 0:
        left, right = -right, -left
    upper = float(log_ndtr(right))
    lower = float(log_ndtr(left))
    if lower >= upper:
        return -math.inf
    return upper + math.log1p(-math.exp(lower - upper))


@counted
def one_shot(
    cosines: Array, dimension: int, *, delta: float, claimed: float | None = None, tested: str = ""
) -> AuditResult:
    """ε estimated from canary clients in one ordinary training (Andrew et al. 2024): no bound.

    `cosines` (k,) are those of each canary, a random unit direction scaled to C, with the sum of
    all released updates; a direction that did not take part would have N(0, 1/dimension). The
    estimate hangs on the fitted spread, and a spread that is wrong by chance reads as ε: where
    nothing at all was released (ε = 0), at δ = 1e-5, its median is 3.0 with 20 canaries, 1.07 with
    100 and .36 with 400. `interval` is what the fit itself leaves open, at 95 %.

    Parameters
    ----------
    cosines : array
        (k,), 3 <= k <= dimension.
    dimension : int
        d, the number of coordinates of the release.
    delta : float
        At which ε is estimated, in (0, 1).
    claimed : float, optional
        The ε that the accountant states; None: nothing is claimed.
    tested : str
        What was run, for the statement.

    Returns
    -------
    AuditResult
        Without a lower bound.

    Raises
    ------
    ValueError
        For cosines without spread, or more of them than dimensions.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = one_shot(rng.normal(0, 0.01, 100), 10_000, delta=1e-5, claimed=8.0)
    >>> found.lower_bound is None, found.interval[0]
    (True, 0.0)
    """
    c = clean(cosines, "cosines").ravel()
    size = whole("dimension", dimension)
    if c.size < _FEWEST or np.ptp(c) == 0:
        raise ValueError("the spread of the canaries' cosines is needed: at least 3, not all equal")
    if c.size > size:
        raise ValueError(
            f"{c.size} canaries in {size} dimensions are not nearly orthogonal: take fewer"
        )
    null_std = 1 / math.sqrt(size)
    mean = float(c.mean())
    std = float(c.std(ddof=1))
    return AuditResult(
        "one-shot",
        delta,
        math.nan,
        1,
        estimate=two_gaussians_epsilon(mean, std, null_std, delta),
        claimed=claimed,
        interval=_interval(mean, std, c.size, null_std, delta),
        tested=tested or f"{c.size} random directions of norm C",
        curve=curve_of(c, np.random.default_rng(0).normal(0, null_std, _NULL_SAMPLE)),
    )


def _interval(
    mean: float, std: float, count: int, null_std: float, delta: float
) -> tuple[float, float]:
    """Smallest and largest ε over the joint confidence region of mean and spread."""
    from scipy.stats import chi2, t

    tail = (1 - _CONFIDENCE) / 4
    reach = float(t.isf(tail, count - 1)) * std / math.sqrt(count)
    low = std * math.sqrt((count - 1) / float(chi2.isf(tail, count - 1)))
    high = std * math.sqrt((count - 1) / float(chi2.ppf(tail, count - 1)))
    # ε is smallest where the mean is nearest to 0 and the spread nearest to that of the null.
    means = {mean - reach, mean + reach, min(max(0.0, mean - reach), mean + reach)}
    stds = {low, high, min(max(null_std, low), high)}
    found = [
        two_gaussians_epsilon(m, s, null_std, delta) for m, s in itertools.product(means, stds)
    ]
    return min(found), max(found)
