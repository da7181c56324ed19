"""The searches: which noise, how many rounds, how large a cohort for a given budget.

Each search goes by what is cheap first: the closed form of a Gaussian, then the saddle point, then
a coarse grid, and at last a few full answers, of which the final one must meet the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from fldp import pld
from fldp.account import delta_of, spent
from fldp.checks import MOST
from fldp.composition import mu_of, prepared, rounds_of
from fldp.events import Event
from fldp.gaussian import gaussian_mu

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
# log z moves by at most this much at a time before the answer is bracketed.
_STRIDE = 1.5
_TRIES = 100
# The step in log z for a slope; and the slope of log epsilon from which epsilon is next to zero.
_SHIFT, _STEEP = 0.02, 5.0
_LEAST_RATIO = 1e-12
# Ends of a bracket closer than this in log z hold nothing that matters.
_WIDTH = 1e-9
# More rounds than this are found to one part in a million: the answer's own digits end there.
_EXACT_ROUNDS = 10**6


class _Start(NamedTuple):
    """Where a search begins: log z, and the slope there of log epsilon, or of epsilon if `steep`.

    Next to zero a straight line in epsilon is the better model, and it ends at 0 with a bend.
    """

    x: float
    slope: float = -1.5
    steep: bool = False


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
        start = _Start(math.log(near))
        return math.exp(_settle(full, target, start, _TOLERANCE, limits, final=True).x)
    if accountant == "gdp":
        # where noise is small the approximation leaves the range in which Opacus looks for epsilon
        return math.exp(_settle(full, target, _Start(0.0), _TOLERANCE, limits, final=True).x)
    start = _Start(_first(target, delta, event, adjacency))
    if not event.known:
        start = _settle(saddle, 1.0, start, _NEAR, _OURS)
        found = pld.saddle_at(rounds_of(run(start.x), adjacency, "remove"), target, delta)
        start = _local(found, saddle(start.x + _SHIFT), start.x, target, delta)
    if not event.known and event.rounds > 1:
        # what the coarse grid adds is known: aim above by as much
        start = _settle(rough, target * (1 + _ADDS * pld.ACCURACY), start, _NEAR, _OURS)
    return math.exp(_settle(full, target, start, _TOLERANCE, limits, final=True).x)


def _local(here: pld.Saddle, there: float, x: float, target: float, delta: float) -> _Start:
    """The start at x, with the slope of epsilon that the slopes of log delta give.

    `here` is the saddle point at x, and log delta / `there` the log delta at x + _SHIFT.
    """
    slope = (math.log(delta) / there - here.log_delta) / _SHIFT
    linear = min(-1e-300, slope / here.tilt)
    if -linear > _STEEP * target:
        return _Start(x, linear / target, steep=True)
    return _Start(x, min(-0.05, linear / target))


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

    start = _Start(math.log(max(1e-2, event.sampling_rate / delta)), -1.0)
    z = math.exp(_settle(variation, delta, start, _TOLERANCE, _OURS, final=True).x)
    while spent([replace(event, noise_multiplier=z)], delta, adjacency, accountant) > 0:
        z *= 1 + _TOLERANCE  # the two questions may differ in the last digits
    return z


def _settle(
    f: Callable[[float], float],
    target: float,
    start: _Start,
    tolerance: float,
    limits: tuple[float, float],
    final: bool = False,
) -> _Start:
    """log z at which the falling `f` is `target` up to `tolerance`; from below if `final`.

    Secant steps, kept inside a bracket as soon as there is one.
    """
    low, high = (math.log(limit) for limit in limits)
    aim = target * (1 - tolerance / 2) if final else target
    x, slope = min(high, max(low, start.x)), start.slope
    left, right = -math.inf, math.inf
    last: tuple[float, float] | None = None
    for _ in range(_TRIES):
        value = f(x)
        y = value / aim - 1 if start.steep else math.log(max(value / aim, _LEAST_RATIO))
        # where f has come to its end at 0 it has no slope
        if value > 0:
            if last is not None and last[0] != x and last[1] != y:
                slope = min(-0.05, (y - last[1]) / (x - last[0]))
            last = (x, y)
        if y > 0:
            left = x
        else:
            right = x
        if target * (1 - tolerance) <= value <= target * (1 if final else 1 + tolerance):
            return start._replace(x=x if final else x - y / slope, slope=slope)
        at_end = (y > 0 and x >= high) or (y <= 0 and x <= low)
        if at_end and final:
            raise _out_of_range(target, value, y > 0)
        if at_end or right - left < _WIDTH:
            return start._replace(x=right if math.isfinite(right) else x, slope=slope)
        if value > 0:
            x -= max(-_STRIDE, min(_STRIDE, y / slope))
        elif last is not None:
            x = last[0] - last[1] / slope
        else:
            x -= _STRIDE / 4
        x = min(high, max(low, x))
        width = right - left
        if math.isfinite(width) and not left + 0.01 * width < x < right - 0.01 * width:
            x = 0.5 * (left + right)
    if not final:
        return start._replace(x=x, slope=slope)
    raise ValueError(f"epsilon is {target:g}: no noise multiplier found; change it slightly")


def _out_of_range(target: float, value: float, too_much: bool) -> ValueError:
    if too_much:
        return ValueError(
            f"epsilon is {target:g}: it cannot be reached, the smallest is {value:.4g}; ask for "
            "more, or change delta, rounds, sampling or accountant"
        )
    return ValueError(
        f"epsilon is {target:g}: almost no noise already gives {value:.4g} at this delta; ask for "
        "less, or for a smaller delta"
    )


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
        start = _settle(saddle, target, _Start(first, -0.6), _NEAR, limits)
        start = _settle(rough, target * (1 + _ADDS * pld.ACCURACY), start, _NEAR, limits)
        guess = _rounds(start.x)
    most = _last_that_fits(full, target, guess)
    if most > MOST - 2 * MOST // _EXACT_ROUNDS:
        raise ValueError(
            f"noise_multiplier is {event.noise_multiplier:g}: {MOST:.0e} rounds fit; use less"
        )
    return most


def _rounds(x: float) -> int:
    return min(MOST, max(1, round(math.exp(-x))))


def _last_that_fits(f: Callable[[int], float], target: float, guess: int) -> int:
    """The last count at which the rising `f` is at most `target`, which holds at 1."""
    good, bad = 1, MOST + 1
    for turn in range(_TRIES):
        guess = min(bad - 1, max(good, guess))
        value = f(guess)
        if value <= target:
            good = guess
        else:
            bad = guess
        if bad - good <= 1 + good // _EXACT_ROUNDS:
            break
        # epsilon grows about like the root of the rounds: a little further than that says
        ratio = target / value if 0 < value < math.inf else (4.0 if value == 0 else 0.25)
        aim = guess * max(0.05, min(20.0, ratio)) ** 1.8
        guess = math.ceil(aim * (1 + 1e-7)) if value <= target else math.floor(aim * (1 - 1e-7))
        if turn % 3 == 2 and bad <= MOST:
            guess = math.isqrt(good * bad)
        if not good < guess < bad:
            guess = good + 1 if guess <= good else bad - 1
    return good


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
