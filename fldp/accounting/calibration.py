"""The searches: which noise, how many rounds, how large a cohort for a given budget.

Each search goes by what is cheap first: the closed form of a Gaussian, then the saddle point, then
a coarse grid, and at last a few full answers, of which the final one must meet the budget.
"""

from __future__ import annotations

import math
from dataclasses import replace

from fldp._checks import MOST
from fldp.accounting import pld
from fldp.accounting.account import delta_of, spent
from fldp.accounting.composition import mu_of, prepared, rounds_of
from fldp.accounting.events import Event
from fldp.accounting.gaussian import gaussian_mu
from fldp.accounting.search import EXACT_ROUNDS, Start, last_that_fits, settle

# Where a noise multiplier is looked for: by our own accountant, and by those of Opacus, which fail
# outside their range.
_OURS, _OPACUS = (1e-6, 1e12), (0.05, 1e3)
# The largest epsilon that is worth a search; beyond, the answer is "no privacy" anyway.
MOST_EPSILON = 1e7
# The final answer lies between this share below the budget and the budget.
_TOLERANCE = 8e-4
# How close the saddle point and the coarse grid are followed, and how coarse that grid is.
_NEAR, _COARSE = 1e-2, 16
# What the coarse grid adds in the ordinary case, in units of its accuracy.
_ADDS = 12.5
# The step in log z for a slope; and the slope of log epsilon from which epsilon is next to zero.
_SHIFT, _STEEP = 0.02, 5.0


def noise_for(
    target: float,
    delta: float,
    event: Event,
    adjacency: str,
    accountant: str,
    near: float | None = None,
) -> float:
    """The least noise multiplier, to a permille of epsilon, that meets (`target`, `delta`).

    `event` holds everything but the noise; `near` is an answer that will be close, if one is known.
    """
    prepared([event], adjacency, 1)
    if target > MOST_EPSILON:
        raise ValueError(f"epsilon is {target:g}: ask for at most {MOST_EPSILON:g}")
    if event.sampling_rate == 0:
        raise ValueError("sampling_rate is 0: nobody takes part, so any noise does")
    if accountant == "pld" and event.everyone:
        # exact; the factor covers the rounding of the inverse
        return mu_of([event], adjacency) / gaussian_mu(target, delta) * (1 + 1e-10)
    if target == 0:
        return _for_zero(delta, event, adjacency, accountant)

    def run(x: float) -> list[Event]:
        return [replace(event, noise_multiplier=math.exp(x))]

    def saddle(x: float) -> float:
        # log delta is near to a power of z, whether epsilon is large or next to zero
        found = pld.saddle_at(rounds_of(run(x), adjacency, "remove"), target, delta)
        return math.log(delta) / min(found.log_delta, -1e-3)

    def rough(x: float) -> float:
        one_way = rounds_of(run(x), adjacency, "remove")
        return pld.solve(one_way, delta=delta, accuracy=_COARSE * pld.ACCURACY)

    def full(x: float) -> float:
        return spent(run(x), delta, adjacency, accountant)

    limits = _OURS if accountant == "pld" else _OPACUS
    if near is not None:
        start = Start(math.log(near))
        return math.exp(settle(full, target, start, _TOLERANCE, limits, final=True).x)
    if accountant == "gdp":
        # where noise is small the approximation leaves the range in which Opacus looks for epsilon
        return math.exp(settle(full, target, Start(0.0), _TOLERANCE, limits, final=True).x)
    start = Start(_first(target, delta, event, adjacency))
    if not event.known:
        start = settle(saddle, 1.0, start, _NEAR, _OURS)
        found = pld.saddle_at(rounds_of(run(start.x), adjacency, "remove"), target, delta)
        start = _local(found, saddle(start.x + _SHIFT), start.x, target, delta)
    if not event.known and event.rounds > 1:
        # what the coarse grid adds is known: aim above by as much
        start = settle(rough, target * (1 + _ADDS * pld.ACCURACY), start, _NEAR, _OURS)
    return math.exp(settle(full, target, start, _TOLERANCE, limits, final=True).x)


def _local(here: pld.Saddle, there: float, x: float, target: float, delta: float) -> Start:
    """The start at x, with the slope of epsilon that the slopes of log delta give.

    `here` is the saddle point at x, and log delta / `there` the log delta at x + _SHIFT.
    """
    slope = (math.log(delta) / there - here.log_delta) / _SHIFT
    linear = min(-1e-300, slope / here.tilt)
    if -linear > _STEEP * target:
        return Start(x, linear / target, steep=True)
    return Start(x, min(-0.05, linear / target))


def _first(target: float, delta: float, event: Event, adjacency: str) -> float:
    """log z of the Gaussian that many small rounds come near to."""
    rate = math.sqrt(event.sampling_rate) if event.known else event.sampling_rate
    mu = mu_of([replace(event, noise_multiplier=1.0)], adjacency) * rate
    first = math.log(mu / gaussian_mu(target, delta))
    # below z = 1 a few large losses decide, and that law says too little
    return first if event.known else max(first, -0.4)


def _for_zero(delta: float, event: Event, adjacency: str, accountant: str) -> float:
    """The least noise at which (0, delta) holds: delta at epsilon = 0 is the total variation."""
    if accountant != "pld":
        raise ValueError(f"epsilon is 0 with accountant={accountant!r}: use accountant='pld'")

    def variation(x: float) -> float:
        return delta_of([replace(event, noise_multiplier=math.exp(x))], 0.0, adjacency)

    start = Start(math.log(max(1e-2, event.sampling_rate / delta)), -1.0)
    z = math.exp(settle(variation, delta, start, _TOLERANCE, _OURS, final=True).x)
    while spent([replace(event, noise_multiplier=z)], delta, adjacency, accountant) > 0:
        z *= 1 + _TOLERANCE  # the two questions may differ in the last digits
    return z


def rounds_for(target: float, delta: float, event: Event, adjacency: str, accountant: str) -> int:
    """The most rounds of `event` that meet (`target`, `delta`), 0 if none."""
    prepared([event], adjacency, 1)
    if event.sampling_rate == 0:
        raise ValueError("sampling_rate is 0: nobody takes part, so any number of rounds fits")

    def run(rounds: int) -> list[Event]:
        return [replace(event, rounds=rounds)]

    def full(rounds: int) -> float:
        try:
            return spent(run(rounds), delta, adjacency, accountant)
        except pld.OutOfReach:
            return math.inf

    if spent(run(1), delta, adjacency, accountant) > target:
        return 0
    guess = 1
    if target > 0 and not (event.everyone or event.known):
        # the searches are for something that falls: minus log rounds
        def saddle(x: float) -> float:
            return pld.estimate(rounds_of(run(_rounds(x)), adjacency, "remove"), delta)

        def rough(x: float) -> float:
            one_way = rounds_of(run(_rounds(x)), adjacency, "remove")
            return pld.solve(one_way, delta=delta, accuracy=_COARSE * pld.ACCURACY)

        mu = mu_of([replace(event, rounds=1)], adjacency) * event.sampling_rate
        first = -2 * math.log(max(1.0, gaussian_mu(target, delta) / mu))
        limits = (1 / MOST, 1.0)
        start = settle(saddle, target, Start(first, -0.6), _NEAR, limits)
        start = settle(rough, target * (1 + _ADDS * pld.ACCURACY), start, _NEAR, limits)
        guess = _rounds(start.x)
    most = last_that_fits(full, target, guess)
    if most > MOST - 2 * MOST // EXACT_ROUNDS:
        raise ValueError(
            f"noise_multiplier is {event.noise_multiplier:g}: {MOST:.0e} rounds fit; use less"
        )
    return most


def _rounds(x: float) -> int:
    return min(MOST, max(1, round(math.exp(-x))))


def cohort_for(
    target: float,
    delta: float,
    rounds: int,
    clients: int,
    ratio: float,
    setting: tuple[str, str, str],
) -> int:
    """The smallest cohort m that meets the budget with noise `ratio` * m on its sum.

    `setting` is sampling, adjacency and accountant.
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
    good, bad = clients, 0
    while good - bad > 1:
        middle = (good + bad) // 2
        if full(middle) <= target:
            good = middle
        else:
            bad = middle
    return good
