"""The searches: which noise, how many rounds, how large a cohort for a given budget.

Each search goes by what is cheap first: the closed form of a Gaussian, then the saddle point, then
a coarse grid, and at last a few full answers, of which the final one must meet the budget.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import replace

from fldp._checks import MOST
from fldp.accounting import pld
from fldp.accounting.account import delta_of, spent
from fldp.accounting.composition import mu_of, prepared, rounds_of
from fldp.accounting.events import Event
from fldp.accounting.gaussian import LEAST_DELTA, gaussian_mu
from fldp.accounting.search import EXACT_ROUNDS, Start, last_that_fits, settle

Setting = tuple[str, str, str]

# Where a noise multiplier is looked for by the accountants of Opacus, which fail outside.
_OPACUS = (0.05, 1e3)
# The largest epsilon that is worth a search; beyond, the answer is "no privacy" anyway.
MOST_EPSILON = 1e7
# The final answer lies between this share below the budget and the budget.
_TOLERANCE = 8e-4
# How close the saddle point and the coarse grid are followed, and how coarse that grid is.
_NEAR, _COARSE = 1e-2, 16
# What the coarse grid adds in the ordinary case, in units of its accuracy.
_ADDS = 12.5
# The step in log z for a slope; the slope of log epsilon from which epsilon is next to zero; and
# the flattest one that is believed.
_SHIFT, _STEEP, _FLAT = 0.02, 5.0, -0.05
# What the closed form for plain Gaussians is raised by, for the rounding of its inverse.
_ROUNDING = 1e-10
# A log delta nearer to 0 than this is not told apart from 0.
_NO_DELTA = -1e-3
# log z below which many small rounds are not near to a Gaussian: a few large losses decide.
_LEAST_FIRST = -0.4
# For epsilon = 0: delta falls as 1/z there, and no search begins with less noise.
_SLOPE_OF_VARIATION = -1.0
_FIRST_VARIATION = 1e-2
# The slope of log epsilon in log rounds to begin with, as a search for something that falls.
_SLOPE_OF_ROUNDS = -0.6
# A guess divides by no smaller mu than this.
_LEAST_MU = 1e-300


def noise_for(
    target: float,
    delta: float,
    event: Event,
    adjacency: str,
    accountant: str,
    near: float | None = None,
) -> float:
    """The least noise multiplier, to a permille of epsilon, that meets (`target`, `delta`).

    Parameters
    ----------
    target, delta, adjacency, accountant
        As in :func:`fldp.noise_multiplier`; `target` is its epsilon.
    event
        Everything but the noise.
    near
        An answer that will be close, if one is known: it saves the search for where to begin.

    Returns
    -------
    float
        z; its epsilon was computed, and is at most `target`.

    Raises
    ------
    ValueError
        As :func:`fldp.noise_multiplier`.

    Examples
    --------
    >>> round(noise_for(8.0, 1e-5, Event(1.0, rounds=100), "add-or-remove", "pld"), 3)
    6.002
    """
    prepared([event], adjacency, 1)
    if target > MOST_EPSILON:
        raise ValueError(f"epsilon is {target:g}: ask for at most {MOST_EPSILON:g}")
    if delta < LEAST_DELTA:
        raise ValueError(f"delta is {delta:g}: give at least {LEAST_DELTA:g}")
    if event.sampling_rate == 0:
        raise ValueError("sampling_rate is 0: nobody takes part, so any noise does")
    if accountant == "pld" and event.everyone:
        return mu_of([event], adjacency) / gaussian_mu(target, delta) * (1 + _ROUNDING)
    if target == 0:
        return _for_zero(delta, event, adjacency, accountant)

    def full(x: float) -> float:
        return spent(_with_noise(event, x), delta, adjacency, accountant)

    if near is not None:
        start = Start(math.log(near))
    elif accountant == "gdp":
        # where noise is small the approximation leaves the range in which Opacus looks for epsilon
        start = Start(0.0)
    else:
        start = _start(target, delta, event, adjacency)
    if accountant != "pld":
        start = start._replace(limits=_OPACUS)
    return math.exp(settle(full, target, start, _TOLERANCE, final=True).x)


def _with_noise(event: Event, x: float) -> list[Event]:
    return [replace(event, noise_multiplier=math.exp(x))]


def _start(target: float, delta: float, event: Event, adjacency: str) -> Start:
    """Next to the answer: by the Gaussian in the limit, the saddle point, and a coarse grid."""
    start = Start(_first(target, delta, event, adjacency))
    if event.known:
        return start

    def at(x: float) -> pld.Saddle:
        rounds = rounds_of(_with_noise(event, x), adjacency, "remove")
        return pld.saddle_at(rounds, target, delta)

    def saddle(x: float) -> float:
        # log delta is near to a power of z, whether epsilon is large or next to zero
        return math.log(delta) / min(at(x).log_delta, _NO_DELTA)

    start = settle(saddle, 1.0, start, _NEAR)
    start = _local(at(start.x), saddle(start.x + _SHIFT), start.x, target, delta)
    if event.rounds == 1:
        return start
    return _coarsely(lambda x: _with_noise(event, x), target, delta, adjacency, start)


def _coarsely(
    run: Callable[[float], list[Event]], target: float, delta: float, adjacency: str, start: Start
) -> Start:
    """By a coarse grid, in one direction."""

    def rough(x: float) -> float:
        rounds = rounds_of(run(x), adjacency, "remove")
        return pld.solve(rounds, delta=delta, accuracy=_COARSE * pld.ACCURACY)

    # what the coarse grid adds is known: aim above by as much
    return settle(rough, target * (1 + _ADDS * pld.ACCURACY), start, _NEAR)


def _local(here: pld.Saddle, there: float, x: float, target: float, delta: float) -> Start:
    """The start at x, with the slope of epsilon that the slopes of log delta give.

    `here` is the saddle point at x, and log delta / `there` the log delta at x + _SHIFT.
    """
    slope = (math.log(delta) / there - here.log_delta) / _SHIFT
    linear = min(-1e-300, slope / here.tilt)
    if -linear > _STEEP * target:
        return Start(x, linear / target, steep=True)
    return Start(x, min(_FLAT, linear / target))


def _first(target: float, delta: float, event: Event, adjacency: str) -> float:
    """log z of the Gaussian that many small rounds come near to."""
    rate = math.sqrt(event.sampling_rate) if event.known else event.sampling_rate
    mu = mu_of([replace(event, noise_multiplier=1.0)], adjacency) * rate
    first = math.log(mu / gaussian_mu(target, delta))
    return first if event.known else max(first, _LEAST_FIRST)


def _for_zero(delta: float, event: Event, adjacency: str, accountant: str) -> float:
    """The least noise at which (0, delta) holds: delta at epsilon = 0 is the total variation."""
    if accountant != "pld":
        raise ValueError(f"epsilon is 0 with accountant={accountant!r}: use accountant='pld'")

    def variation(x: float) -> float:
        return delta_of(_with_noise(event, x), 0.0, adjacency)

    first = max(_FIRST_VARIATION, event.sampling_rate / delta)
    start = Start(math.log(first), _SLOPE_OF_VARIATION)
    z = math.exp(settle(variation, delta, start, _TOLERANCE, final=True).x)
    while spent([replace(event, noise_multiplier=z)], delta, adjacency, accountant) > 0:
        z *= 1 + _TOLERANCE  # the two questions may differ in the last digits
    return z


def rounds_for(target: float, delta: float, event: Event, adjacency: str, accountant: str) -> int:
    """The most rounds of `event` that meet (`target`, `delta`), 0 if none.

    Parameters
    ----------
    target, delta, adjacency, accountant
        As in :func:`fldp.max_rounds`; `target` is its epsilon.
    event
        Everything but the number of rounds.

    Returns
    -------
    int
        At most 1e15.

    Raises
    ------
    ValueError
        As :func:`fldp.max_rounds`.

    Examples
    --------
    >>> rounds_for(8.0, 1e-5, Event(6.01), "add-or-remove", "pld")
    100
    """
    prepared([event], adjacency, 1)
    if event.sampling_rate == 0:
        raise ValueError("sampling_rate is 0: nobody takes part, so any number of rounds fits")

    def full(rounds: int) -> float:
        try:
            return spent([replace(event, rounds=rounds)], delta, adjacency, accountant)
        except pld.OutOfReach:
            return math.inf

    if spent([replace(event, rounds=1)], delta, adjacency, accountant) > target:
        return 0
    guess = 1
    if target > 0 and not (event.everyone or event.known):
        guess = _rounds(_guessed(target, delta, event, adjacency).x)
    most = last_that_fits(full, target, guess)
    if most > MOST - 2 * MOST // EXACT_ROUNDS:
        raise ValueError(
            f"noise_multiplier is {event.noise_multiplier:g}: {MOST:.0e} rounds fit; use less"
        )
    return most


def _rounds(x: float) -> int:
    """The count at x = -log rounds: the searches are for something that falls."""
    return min(MOST, max(1, round(math.exp(-x))))


def _guessed(target: float, delta: float, event: Event, adjacency: str) -> Start:
    """Next to -log of the rounds that fit: by the saddle point, and a coarse grid."""

    def run(x: float) -> list[Event]:
        return [replace(event, rounds=_rounds(x))]

    def saddle(x: float) -> float:
        return pld.estimate(rounds_of(run(x), adjacency, "remove"), delta)

    mu = mu_of([replace(event, rounds=1)], adjacency) * event.sampling_rate
    # A rate next to the smallest number makes mu 0.
    first = -2 * math.log(max(1.0, gaussian_mu(target, delta) / max(mu, _LEAST_MU)))
    start = Start(first, _SLOPE_OF_ROUNDS, limits=(1 / MOST, 1.0))
    return _coarsely(run, target, delta, adjacency, settle(saddle, target, start, _NEAR))


def cohort_for(
    target: float, delta: float, rounds: int, clients: int, ratio: float, setting: Setting
) -> int:
    """The smallest cohort m that meets the budget with noise `ratio` * m on its sum.

    Parameters
    ----------
    target, delta, rounds, clients, ratio
        As in :func:`fldp.min_cohort`; `target` is its epsilon, `ratio` its noise on the mean.
    setting
        Sampling, adjacency and accountant.

    Returns
    -------
    int
        m, at most `clients`.

    Raises
    ------
    ValueError
        As :func:`fldp.min_cohort`.

    Examples
    --------
    >>> cohort_for(2.0, 1e-5, 100, 3383, 0.01, ("poisson", "add-or-remove", "pld"))
    104
    """
    sampling, adjacency, accountant = setting

    def full(m: int) -> float:
        event = Event(ratio * m, m / clients, sampling, rounds, clients)
        return spent([event], delta, adjacency, accountant)

    best = full(clients)
    if best > target:
        raise ValueError(
            f"epsilon is {target:g}: even all {clients} clients give {best:.4g} at noise_on_mean="
            f"{ratio:g}; accept more noise, fewer rounds or a larger epsilon"
        )
    # epsilon falls with m: z grows as m does, and amplification is lost more slowly
    smaller = range(1, clients)
    return 1 + bisect.bisect_left(smaller, True, key=lambda m: full(m) <= target)
