"""Privacy-loss distributions: the kernel behind :mod:`fldp.accounting`.

One round is described by its dominating pair (P, Q), see :mod:`fldp.accounting.pairs`. With L =
log(P/Q) under P, summed over the rounds, delta(epsilon) = E[(1 - e^(epsilon - L))_+] (Sommer et al.
2019; Koskela et al. 2020). The steps:

1. A saddle point (Alghamdi et al. 2022) predicts the answer, and from it grid step and window
   (:mod:`fldp.accounting.guide`).
2. Every cell of the loss axis keeps its P- and Q-mass and moves both to its two ends: "connect
   the dots" (Doroshenko et al. 2022), never below the true delta (:mod:`fldp.accounting.pairs`).
3. The step is tilted by e^(theta L), so that the answer lies in the bulk of the sum: one FFT,
   power T and its inverse then have a small *relative* error however small delta is. Where that
   takes many points, the grid grows coarser while the rounds add up (:mod:`fldp.accounting.laws`).
4. Mass above the window (Chernoff), truncated mass and 8 standard deviations of the FFT's round-off
   are added; mass that wraps from below only adds to delta.

So the result is an upper bound, on one presumption: round-off of the transforms is taken as
independent over the frequencies (:func:`fldp.accounting.laws.round_off`). A round alone needs no
grid: its delta has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fldp.accounting.curve import Curve, laws_for
from fldp.accounting.gaussian import LEAST_DELTA
from fldp.accounting.search import falling_root
from fldp.accounting.guide import TRUNCATION, Guide, Part, Round, Saddle
from fldp.accounting.pairs import OutOfReach

__all__ = [
    "ACCURACY",
    "OutOfReach",
    "Part",
    "Round",
    "Saddle",
    "ceiling",
    "estimate",
    "log_ceiling",
    "saddle_at",
    "solve",
]

# Aimed looseness of the grid, relative in epsilon.
ACCURACY = 2.5e-4
# Below this share of the loss's spread the looseness is relative to the spread: an epsilon next to
# zero would take ever finer grids.
_NEAR_ZERO = 1e-2
# No looseness below this is aimed at.
_LEAST = 1e-9
# A looseness of x in epsilon is one of tilt * x in log delta. For delta so much is aimed at, but
# not with more points than these per spread of the sum.
_ACCURACY_OF_DELTA = 2e-3
_PER_SPREAD = 1 << 13
# Where that is too fine for the grid it is made coarser by this factor, as often as that allows.
_COARSER, _COARSEST = 4.0, 1e5
# How much larger than two grids show a looseness may be.
_UNSURE = 1.5
# Two grids tell something if their excess variances differ by this factor.
_APART = 1.2
# The first look at a law that is far from normal is so much coarser.
_COARSE = 64.0
# A guess was right if the answer differs by less than this.
_AGREES = 0.15
_TRIES = 40
# A guide made for one delta serves for others down to e^-3 of it.
_SLACK = 3.0
# No epsilon above this is looked for.
_LARGEST = 1e15


def estimate(rounds: Sequence[Round], delta: float) -> float:
    """Epsilon at the saddle point: a guess to start a search from, no bound; may be negative."""
    return Guide(rounds, math.log(delta)).at_delta(math.log(delta)).epsilon


def saddle_at(rounds: Sequence[Round], epsilon: float, near: float) -> Saddle:
    """The saddle point at this epsilon, whose delta will be near to `near`; likewise no bound.

    Its tilt is by how much log delta falls when epsilon rises.
    """
    return Guide(rounds, math.log(near) - _SLACK).at_epsilon(epsilon)


def ceiling(rounds: Sequence[Round], delta: float) -> float:
    """Epsilon from moments (Rényi): above :func:`solve` by 5 to 20 %, in a tenth of its time.

    The moments come from a quadrature: leave a margin of 1e-3 for it.
    """
    left = delta * (1 - TRUNCATION) - _infinite(rounds)
    if left <= 0:
        return math.inf
    return max(0.0, Guide(rounds, math.log(left)).renyi_epsilon(math.log(left)))


def log_ceiling(rounds: Sequence[Round], epsilon: float) -> float:
    """log delta from moments (Rényi), likewise."""
    found = Guide(rounds, math.log(LEAST_DELTA)).renyi_log_delta(epsilon)
    return min(0.0, math.log(math.exp(found) + _infinite(rounds) + LEAST_DELTA))


def _infinite(rounds: Sequence[Round]) -> float:
    return sum(n * weight * pair.infinite for parts, n in rounds for weight, pair in parts)


def solve(
    rounds: Sequence[Round],
    *,
    delta: float | None = None,
    epsilon: float | None = None,
    accuracy: float = ACCURACY,
) -> float:
    """Upper bound, in one direction, on epsilon at `delta` or on delta at `epsilon`.

    Parameters
    ----------
    rounds
        What ran: mixtures of pairs, as lists of (weight, pair), each with how often it ran.
    delta
        In (0, 1); `epsilon` is then a first guess.
    epsilon
        At least 0; asked for without `delta`.
    accuracy
        The looseness aimed at, relative in epsilon.

    Returns
    -------
    float
        Epsilon >= 0, or delta; a delta below 1e-300 is reported as 1e-300.

    Raises
    ------
    OutOfReach
        If it would take more grid points than there may be.

    Examples
    --------
    >>> from fldp.accounting.gaussian_pairs import Subsampled
    >>> 4.377 < solve([([(1.0, Subsampled("remove", 1.0, 1.0))], 1)], delta=1e-5) < 4.381
    True
    """
    if sum(n for _, n in rounds) == 1:
        return _alone(rounds[0][0], delta, epsilon or 0.0)
    if delta is None:
        return _delta(rounds, epsilon or 0.0, accuracy)
    return _epsilon(rounds, delta, epsilon, accuracy)


def _alone(parts: Sequence[Part], delta: float | None, epsilon: float) -> float:
    """One round: its delta is the mean of those of the parts, since the part is known."""

    def profile(e: float) -> float:
        total = sum(weight * pair.profile(e) for weight, pair in parts)
        return min(1.0, max(LEAST_DELTA, total))

    if delta is None:
        return profile(epsilon)
    if profile(0.0) <= delta:
        return 0.0
    high = 1.0
    while profile(high) > delta:
        high *= 2
        if high > _LARGEST:
            raise OutOfReach(f"epsilon is above {_LARGEST:g} at delta={delta:g}: use more noise")
    return falling_root(lambda e: math.log(profile(e) / delta), 0.0, high)


def _curve(
    rounds: Sequence[Round],
    guide: Guide,
    saddle: Saddle,
    at: tuple[float, float],
    aim: float,
    extra: float,
    kind: Any = np.float64,
) -> tuple[Curve, float]:
    """The curve around (epsilon, log delta) = `at`, and its window's length.

    `extra` widens the window at both ends, `kind` is the precision of the transforms.
    """
    epsilon, log_delta = at
    largest = max(saddle.spread / 4, aim)
    window = guide.window(saddle.tilt, epsilon, log_delta)
    low = min(window.low, 0.98 * epsilon - 8 * largest) - extra
    window = window._replace(low=low, high=max(window.high, epsilon + 8 * largest) + extra)
    # a variance v too much moves epsilon by v (tilt + 1) / 2
    allowed = 2 * aim / (saddle.tilt + 1)
    laws = laws_for(rounds, guide, window, log_delta, allowed, largest, kind)
    return Curve(laws, window, epsilon, log_delta, kind), window.high - window.low


def _epsilon(rounds: Sequence[Round], delta: float, first: float | None, accuracy: float) -> float:
    log_delta = math.log(delta)
    if delta >= sum(n * w * pair.variation for parts, n in rounds for w, pair in parts):
        return 0.0
    guide = Guide(rounds, log_delta)
    saddle = guide.at_delta(log_delta) if first is None else guide.at_epsilon(first)
    guess = max(saddle.epsilon, 0.0)
    # far from a normal law the saddle point misleads: look coarsely first
    normal = first is not None or not guide.bends(saddle.tilt)
    dial = 1.0 if normal else _COARSE
    refined = _Refinement(guide.smooth)
    extra = 0.0
    kind: Any = np.float64
    for _ in range(_TRIES):
        near = max(guess, _NEAR_ZERO * saddle.spread, _LEAST)
        aim = dial * accuracy * near
        try:
            curve, width = _curve(rounds, guide, saddle, (guess, log_delta), aim, extra, kind)
        except OutOfReach:
            # as fine as can be, then, and so an upper bound that is looser
            dial, normal = dial * _COARSER, True
            if dial >= refined.dial:
                return refined.best
            if dial > _COARSEST:
                raise
            continue
        found = curve.epsilon()
        if found is None:
            extra += width
        elif found == 0:
            return 0.0  # an upper bound, however coarse
        elif kind is np.float64 and curve.noisy(found):
            kind = np.longdouble
        elif abs(found - guess) > _AGREES * max(found, near):
            normal, guess = False, found
            saddle = guide.at_epsilon(found)
            refined.next(found, curve.excess, 0.0, dial)
        elif normal:
            return min(found, refined.best)
        else:
            turn = refined.next(found, curve.excess, 2 * accuracy * max(found, near), dial)
            if turn == 1:
                return refined.best
            guess, dial = found, dial * turn
    raise _lost(f"delta={delta:g}")


def _delta(rounds: Sequence[Round], epsilon: float, accuracy: float) -> float:
    floor = min(1.0, LEAST_DELTA + _infinite(rounds))
    least = math.log(LEAST_DELTA)
    guide = Guide(rounds, least)
    if guide.top <= epsilon or guide.renyi_log_delta(epsilon) <= least:
        return floor
    saddle = guide.at_epsilon(epsilon)
    log_delta = min(saddle.log_delta, 0.0)
    guide = Guide(rounds, log_delta - _SLACK)
    normal = not guide.bends(saddle.tilt)
    fine = accuracy / ACCURACY * _ACCURACY_OF_DELTA
    dial = 1.0 if normal else _COARSE
    refined = _Refinement(guide.smooth)
    extra = 0.0
    kind: Any = np.float64
    for _ in range(_TRIES):
        near = max(epsilon, _NEAR_ZERO * saddle.spread, _LEAST)
        # where that takes very many points, what epsilon would be given has to do
        cheap = (saddle.spread / _PER_SPREAD) ** 2 * guide.times
        aim = max(fine / (saddle.tilt + 1), cheap * (saddle.tilt + 1) / 12)
        aim = dial * min(accuracy * near, aim)
        try:
            curve, width = _curve(rounds, guide, saddle, (epsilon, log_delta), aim, extra, kind)
        except OutOfReach:
            dial, normal = dial * _COARSER, True
            if dial >= refined.dial:
                return min(1.0, max(floor, math.exp(refined.best)))
            if dial > _COARSEST:
                raise
            continue
        found = curve.log_delta_at_centre()
        if found is None:
            extra += width
        elif kind is np.float64 and curve.noisy(epsilon):
            kind = np.longdouble
        elif abs(found - log_delta) > _AGREES:
            if found < log_delta - _SLACK:
                guide = Guide(rounds, found - _SLACK)
            normal, log_delta = False, min(found, 0.0)
            refined.next(found, curve.excess, 0.0, dial)
        elif normal:
            return min(1.0, max(floor, math.exp(min(found, refined.best))))
        else:
            turn = refined.next(found, curve.excess, fine, dial)
            if turn == 1:
                return min(1.0, max(floor, math.exp(refined.best)))
            log_delta, dial = found, dial * turn
    raise _lost(f"epsilon={epsilon:g}")


class _Refinement:
    """Ever finer grids, until two of them show that the finer one is fine enough.

    Where the law is far from normal, the variance that a grid adds tells its looseness up to an
    unknown factor: two grids show it. It may change between them, so some more is assumed. Next to
    an atom of a law that is not smooth the looseness falls with the standard deviation only.
    """

    def __init__(self, smooth: bool) -> None:
        self.smooth = smooth
        self.best, self.last, self.excess = math.inf, math.inf, math.inf
        self.dial = math.inf

    def next(self, found: float, excess: float, target: float, dial: float) -> float:
        """By how much to turn the dial down; 1 if the best so far is loose by `target` at most."""
        finer, coarser = sorted([excess, self.excess])
        if not self.smooth:
            finer, coarser = math.sqrt(finer), math.sqrt(coarser)
        error = math.inf
        if _APART * finer < coarser < math.inf:
            error = _UNSURE * abs(self.last - found) * finer / (coarser - finer)
        self.best, self.last, self.excess = min(self.best, found), found, excess
        self.dial = dial
        return 1.0 if error <= target else min(0.25, max(1 / _COARSE, 0.7 * target / error))


def _lost(asked: str) -> OutOfReach:
    return OutOfReach(
        f"no answer within numerical range for {asked}: use more noise or fewer rounds"
    )
