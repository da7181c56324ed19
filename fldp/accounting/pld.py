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
   are added; mass that wraps from below only adds to delta (:mod:`fldp.accounting.curve`).

So the result is an upper bound, on one presumption: round-off of the transforms is taken as
independent over the frequencies (:func:`fldp.accounting.laws.round_off`). A round alone needs no
grid: its delta has a closed form.

Grid and window are made for a guess of the answer. So the steps are taken in turns, until an answer
agrees with the guess that it was made for: :class:`_Search` is that loop, and :func:`trace` tells
each of its turns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fldp._text import table, up
from fldp.accounting.curve import Curve, laws_for
from fldp.accounting.gaussian import LEAST_DELTA
from fldp.accounting.guide import TRUNCATION, Guide, Part, Round, Saddle
from fldp.accounting.laws import Kind
from fldp.accounting.pairs import OutOfReach
from fldp.accounting.search import FARTHEST, falling_root

# Aimed looseness of the grid, relative in epsilon.
ACCURACY = 2.5e-4
# Below this share of the loss's spread the looseness is relative to the spread: an epsilon next to
# zero would take ever finer grids.
_NEAR_ZERO = 1e-2
# No looseness below this is aimed at.
_LEAST = 1e-9
# A looseness of x in epsilon is one of tilt * x in log delta. For delta so much is aimed at, but
# not with more points than these per spread of the sum; a step of h adds T h^2/6 of variance, and
# that half as much, times tilt + 1, in epsilon.
_ACCURACY_OF_DELTA = 2e-3
_PER_SPREAD = 1 << 13
_EPSILON_OF_STEP = 12
# A last grid has at least so many points per spread of the sum.
_FEWEST_PER_SPREAD = 4
# So many of the largest steps, and this share of epsilon, lie between the answer and either end of
# a window, however short a window would do.
_STEPS_ASIDE = 8
_BELOW = 0.98
# Where that is too fine for the grid it is made coarser by this factor, as often as that allows.
_COARSER = 4.0
_COARSEST = 1e5
# The first look at a law that is far from normal is so much coarser.
_COARSE = 64.0
# How much larger than two grids show a looseness may be.
_UNSURE = 1.5
# Two grids tell something if their excess variances differ by this factor.
_APART = 1.2
# The next grid is made for this share of the looseness that is aimed at, and is finer by this
# factor at least (and by `_COARSE` at most).
_ON_TARGET = 0.7
_FINER = 0.25
# A guess was right if the answer differs by less than this.
_AGREES = 0.15
_TRIES = 40
# What may be round-off, as a share of delta, before long doubles are used.
_ROUND_OFF_SHARE = 1e-4
# Digits in a trace.
_DIGITS = 5
# A guide made for one delta serves for others down to e^-3 of it.
_SLACK = 3.0

_LOG_LEAST = math.log(LEAST_DELTA)

# What a search ends with, as `Turn.then` tells it.
_DONE = "the answer"


def estimate(rounds: Sequence[Round], delta: float) -> float:
    """Epsilon at the saddle point: a guess to start a search from, no bound.

    Parameters
    ----------
    rounds, delta
        As in :func:`solve`.

    Returns
    -------
    float
        May be negative.

    Examples
    --------
    >>> from fldp.accounting.gaussian_pairs import Subsampled
    >>> round(estimate([([(1.0, Subsampled("add", 0.01, 1.0))], 100)], 1e-5), 2)
    0.34
    """
    return Guide(rounds, math.log(delta)).at_delta(math.log(delta)).epsilon


def saddle_at(rounds: Sequence[Round], epsilon: float, near: float) -> Saddle:
    """The saddle point at an epsilon; likewise no bound.

    Parameters
    ----------
    rounds, epsilon
        As in :func:`solve`.
    near
        About what delta will be there.

    Returns
    -------
    Saddle
        With its log delta.

    Examples
    --------
    >>> from fldp.accounting.gaussian_pairs import Subsampled
    >>> run = [([(1.0, Subsampled("add", 0.01, 1.0))], 100)]
    >>> round(math.exp(saddle_at(run, 0.34, near=1e-5).log_delta), 6)
    9e-06
    """
    return Guide(rounds, math.log(near) - _SLACK).at_epsilon(epsilon)


def ceiling(rounds: Sequence[Round], delta: float) -> float:
    """Epsilon from moments (Rényi): above :func:`solve` by 5 to 20 %, in a tenth of its time.

    The moments come from a quadrature: leave a margin of 1e-3 for it.

    Parameters
    ----------
    rounds, delta
        As in :func:`solve`.

    Returns
    -------
    float
        Epsilon >= 0; infinite where delta is no larger than the mass of infinite loss.

    Examples
    --------
    >>> from fldp.accounting.gaussian_pairs import Subsampled
    >>> run = [([(1.0, Subsampled("remove", 0.01, 1.0))], 1000)]
    >>> solve(run, delta=1e-5) < ceiling(run, 1e-5) < 1.3 * solve(run, delta=1e-5)
    True
    """
    left = delta * (1 - TRUNCATION) - _infinite(rounds)
    if left <= 0:
        return math.inf
    return max(0.0, Guide(rounds, math.log(left)).renyi_epsilon(math.log(left)))


def delta_ceiling(rounds: Sequence[Round], epsilon: float) -> float:
    """Delta from moments (Rényi), likewise.

    Parameters
    ----------
    rounds, epsilon
        As in :func:`solve`.

    Returns
    -------
    float
        Delta, 1e-300 to 1.

    Examples
    --------
    >>> from fldp.accounting.gaussian_pairs import Subsampled
    >>> run = [([(1.0, Subsampled("remove", 0.01, 1.0))], 1000)]
    >>> solve(run, epsilon=2.0) < delta_ceiling(run, 2.0)
    True
    """
    found = Guide(rounds, _LOG_LEAST).renyi_log_delta(epsilon)
    return min(1.0, math.exp(found) + _infinite(rounds) + LEAST_DELTA)


def _infinite(rounds: Sequence[Round]) -> float:
    return sum(n * weight * pair.infinite for parts, n in rounds for weight, pair in parts)


class Turn(NamedTuple):
    """One turn of the search: a grid, and what it showed.

    Attributes
    ----------
    epsilon, delta
        What the grid was made for: the one is asked about, the other guessed.
    tilt
        theta: masses on the grid are multiplied by e^(theta L).
    low, high
        The window on the loss axis.
    step, points
        The grid's step, and how many points the transform has.
    truncated
        What is added to delta for infinite losses, and for the mass above the window.
    round_off
        What is added to delta for round-off, at the answer.
    found
        Epsilon, or delta, as this grid has it: an upper bound. nan if the window has missed it.
    then
        What follows from it: "wider window", "long doubles" (round-off may be felt), "around that"
        (the guess was too far off), "finer grid", "coarser grid", or that it is "the answer".

    Of a grid with too many points there is nothing but `epsilon`, `delta`, `tilt` and `then`.

    Examples
    --------
    >>> from fldp.accounting.gaussian_pairs import Subsampled
    >>> told = trace([([(1.0, Subsampled("remove", 0.01, 1.0))], 100)], delta=1e-5)
    >>> [turn.points for turn in told.turns]
    [640, 5120, 10240]
    """

    epsilon: float
    delta: float
    tilt: float
    low: float = math.nan
    high: float = math.nan
    step: float = math.nan
    points: int = 0
    truncated: float = math.nan
    round_off: float = math.nan
    found: float = math.nan
    then: str = ""


class Trace(NamedTuple):
    """How an answer came about; as text, a table with a column for each turn.

    Attributes
    ----------
    answer
        Epsilon, or delta: what :func:`solve` returns.
    guess
        The saddle point that the search started from; None where it needed none.
    turns
        What was tried, in order; empty where no grid was needed.

    Examples
    --------
    >>> from fldp.accounting.gaussian_pairs import Subsampled
    >>> told = trace([([(1.0, Subsampled("remove", 0.01, 1.0))], 100)], delta=1e-5)
    >>> told.turns[-1].then
    'the answer'
    """

    answer: float
    guess: Saddle | None
    turns: tuple[Turn, ...]

    def __str__(self) -> str:
        told = f"answer: {up(self.answer, _DIGITS)}"
        if self.guess is None:
            return told
        rows = list(zip(Turn._fields, *self.turns, strict=True))
        found = (up(turn.found, _DIGITS) for turn in self.turns)
        rows[Turn._fields.index("found")] = ("found", *found)
        text = table(("", *(f"turn {i}" for i in range(1, len(self.turns) + 1))), rows)
        start = f"epsilon {self.guess.epsilon:.5g}, log delta {self.guess.log_delta:.5g}"
        return f"saddle point: {start}\n{text}\n{told}"


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
        In (0, 1).
    epsilon
        At least 0; asked about instead of `delta`.
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
    ValueError
        If not one of `delta` and `epsilon` is given.

    Examples
    --------
    >>> from fldp.accounting.gaussian_pairs import Subsampled
    >>> once = [([(1.0, Subsampled("remove", 1.0, 1.0))], 1)]
    >>> 4.377 < solve(once, delta=1e-5) < 4.381
    True
    """
    return trace(rounds, delta=delta, epsilon=epsilon, accuracy=accuracy).answer


def trace(
    rounds: Sequence[Round],
    *,
    delta: float | None = None,
    epsilon: float | None = None,
    accuracy: float = ACCURACY,
) -> Trace:
    """The turns by which :func:`solve` comes to its answer, with their numbers.

    Parameters
    ----------
    rounds, delta, epsilon, accuracy
        As in :func:`solve`.

    Returns
    -------
    Trace
        The answer, and how it came about; as text, a table.

    Raises
    ------
    OutOfReach, ValueError
        As :func:`solve`.

    Examples
    --------
    A hundred rounds with z = 1 and q = 1 %. Under the tilt their law is far from normal, so that
    the saddle point is a fifth too high, and grids grow finer until two of them agree:

    >>> from fldp.accounting.gaussian_pairs import Subsampled
    >>> told = trace([([(1.0, Subsampled("remove", 0.01, 1.0))], 100)], delta=1e-5)
    >>> round(told.guess.epsilon, 2), round(told.answer, 3)
    (0.87, 0.718)
    >>> for turn in told.turns:
    ...     print(turn.points, round(turn.found, 3), turn.then)
    640 0.74 finer grid
    5120 0.718 finer grid
    10240 0.718 the answer
    """
    if (delta is None) == (epsilon is None):
        raise ValueError(f"delta is {delta} and epsilon is {epsilon}: give one of the two")
    if sum(n for _, n in rounds) == 1:
        return Trace(_alone(rounds[0][0], delta, epsilon or 0.0), None, ())
    if delta is None:
        return _delta(rounds, epsilon or 0.0, accuracy)
    return _epsilon(rounds, delta, accuracy)


def _alone(parts: Sequence[Part], delta: float | None, epsilon: float) -> float:
    """One round: its delta is the mean of those of the parts, since the part is known."""

    def profile(e: float) -> float:
        total = sum(weight * pair.profile(e) for weight, pair in parts)
        return min(1.0, max(LEAST_DELTA, total))

    if delta is None:
        return profile(epsilon)
    found = falling_root(lambda e: math.log(profile(e) / delta), 0.0, 1.0)
    if math.isinf(found):
        raise OutOfReach(f"epsilon is above {FARTHEST:g} at delta={delta:g}: use more noise")
    return found


def _epsilon(rounds: Sequence[Round], delta: float, accuracy: float) -> Trace:
    # total variations add up at most, and at epsilon = 0 delta is the total variation
    if delta >= sum(n * weight * pair.variation for parts, n in rounds for weight, pair in parts):
        return Trace(0.0, None, ())
    log_delta = math.log(delta)
    guide = Guide(rounds, log_delta)
    return _Search(rounds, guide, guide.at_delta(log_delta), accuracy).run()


def _delta(rounds: Sequence[Round], epsilon: float, accuracy: float) -> Trace:
    guide = Guide(rounds, _LOG_LEAST)
    if guide.top <= epsilon or guide.renyi_log_delta(epsilon) <= _LOG_LEAST:
        return Trace(_least_delta(rounds), None, ())
    saddle = guide.at_epsilon(epsilon)
    guide = Guide(rounds, min(saddle.log_delta, 0.0) - _SLACK)
    return _SearchForDelta(rounds, guide, saddle, accuracy).run()


def _least_delta(rounds: Sequence[Round]) -> float:
    return min(1.0, LEAST_DELTA + _infinite(rounds))


class _Point(NamedTuple):
    """A point of the curve."""

    epsilon: float
    log_delta: float


class _Search:
    """Curves around a guess, until one agrees with the guess that it was made for.

    The guess is a point (epsilon, log delta) of which one is asked about and stays. A turn makes
    window, tilt and grid for it (:meth:`_curve`), reads the other one off the curve, and draws one
    conclusion (:meth:`_conclude`). All that is read is an upper bound, so the least of it is one.

    Where the law is normal under the tilt, what a grid adds to epsilon follows from the variance
    that it adds, and one grid of the right step is enough. Where it is not, a coarse grid comes
    first, and finer ones until two of them show that the last is fine enough (:class:`_Refined`).

    As it stands, it is epsilon that is looked for; :class:`_SearchForDelta` says what differs.
    """

    # no smaller value is told apart
    least = 0.0

    def __init__(
        self, rounds: Sequence[Round], guide: Guide, saddle: Saddle, accuracy: float
    ) -> None:
        self.rounds = rounds
        self.guide = guide
        self.guess = self.saddle = saddle
        self.accuracy = accuracy
        self.point = _Point(max(saddle.epsilon, 0.0), min(saddle.log_delta, 0.0))
        self.normal = not guide.bends(saddle.tilt)
        # far from a normal law the saddle point misleads: look coarsely first
        self.dial = 1.0 if self.normal else _COARSE
        self.refined = _Refined(guide.smooth)
        # what a window that missed the answer is widened by, at both ends
        self.extra = 0.0
        self.kind: Kind = np.float64

    def aim(self) -> float:
        """The looseness aimed at, in epsilon."""
        return self.accuracy * self.near()

    def target(self, found: _Point) -> float:
        """The looseness aimed at, in what is looked for, where two grids show it."""
        return 2 * self.accuracy * max(found.epsilon, self.near())

    def read(self, curve: Curve) -> _Point | None:
        """The point that is looked for; None if the window has missed it."""
        epsilon = curve.epsilon()
        return None if epsilon is None else _Point(epsilon, self.point.log_delta)

    def value(self, found: _Point) -> float:
        """What is looked for."""
        return found.epsilon

    def answer(self, value: float) -> float:
        """What is told of it."""
        return value

    def near(self) -> float:
        """What a looseness is relative to: epsilon, or a share of the spread next to 0."""
        return max(self.point.epsilon, _NEAR_ZERO * self.saddle.spread, _LEAST)

    def run(self) -> Trace:
        """All turns; OutOfReach if there is no grid, or none agrees."""
        turns: list[Turn] = []
        for _ in range(_TRIES):
            turns.append(self._turn())
            if turns[-1].then == _DONE:
                return Trace(self.answer(self.refined.best), self.guess, tuple(turns))
        raise OutOfReach(
            f"no answer within numerical range for epsilon={self.point.epsilon:g} and "
            f"log delta={self.point.log_delta:g}: use more noise or fewer rounds"
        )

    def _turn(self) -> Turn:
        made_for = self.point.epsilon, math.exp(self.point.log_delta)
        try:
            curve = self._curve()
        except OutOfReach as error:
            return Turn(*made_for, self.saddle.tilt, then=self._give_way(error))
        found = self.read(curve)
        shown = round_off = math.nan
        if found is not None:
            shown = self.answer(self.value(found))
            round_off = curve.round_off(found.epsilon) * made_for[1]
        ends = curve.window.tilt, curve.window.low, curve.window.high
        added = curve.cut * made_for[1], round_off
        then = self._conclude(curve, found)
        return Turn(*made_for, *ends, curve.step, curve.size, *added, shown, then)

    def _curve(self) -> Curve:
        """The curve around the guess.

        Why a tilt: without it, the answer is the sum of masses as small as delta, beside which the
        round-off of the bulk is large. Under the saddle point's tilt they are the bulk. Why a
        window: the answer needs the losses around epsilon, and no others beyond what is felt.
        """
        aim = self.dial * self.aim()
        largest = max(self.saddle.spread / _FEWEST_PER_SPREAD, aim)
        window = self.guide.window(self.saddle.tilt, *self.point)
        aside = _STEPS_ASIDE * largest
        low = min(window.low, _BELOW * self.point.epsilon - aside) - self.extra
        high = max(window.high, self.point.epsilon + aside) + self.extra
        window = window._replace(low=low, high=high)
        # a variance v too much moves epsilon by v (tilt + 1) / 2
        allowed = 2 * aim / (self.saddle.tilt + 1)
        laws = laws_for(self.rounds, self.guide, window, allowed, largest, self.kind)
        return Curve(laws, window, self.kind)

    def _give_way(self, error: OutOfReach) -> str:
        """A coarser grid where this one has too many points: a looser upper bound."""
        self.dial *= _COARSER
        self.normal = True  # the next one is as fine as can be
        if self.dial >= self.refined.dial:
            return _DONE  # that one has been tried
        if self.dial > _COARSEST:
            raise error
        return "coarser grid"

    def _conclude(self, curve: Curve, found: _Point | None) -> str:
        """What follows from a curve; changes the search accordingly."""
        if found is None:
            self.extra += curve.window.high - curve.window.low
            return "wider window"
        value = self.value(found)
        if value <= self.least:
            self.refined.best = value  # an upper bound, however coarse
            return _DONE
        # relative to e^log_delta, as the curve has it
        felt = _ROUND_OFF_SHARE * math.exp(found.log_delta - self.point.log_delta)
        if self.kind is np.float64 and curve.round_off(found.epsilon) > felt:
            self.kind = np.longdouble
            return "long doubles"
        if self._is_off(found):
            self.normal = False
            self.refined.finer_by(value, curve.excess, 0.0, self.dial)
            self._move(found)
            return "around that"
        if self.normal:
            self.refined.best = min(value, self.refined.best)
            return _DONE
        turn = self.refined.finer_by(value, curve.excess, self.target(found), self.dial)
        if turn == 1:
            return _DONE
        self.point = found
        self.dial *= turn
        return "finer grid"

    def _is_off(self, found: _Point) -> bool:
        """Whether window and tilt were made for a point too far from the answer."""
        epsilon = abs(found.epsilon - self.point.epsilon)
        log_delta = abs(found.log_delta - self.point.log_delta)
        return epsilon > _AGREES * max(found.epsilon, self.near()) or log_delta > _AGREES

    def _move(self, found: _Point) -> None:
        """Go to a point that is far from the guess."""
        if found.epsilon != self.point.epsilon:
            self.saddle = self.guide.at_epsilon(found.epsilon)
        if found.log_delta < self.point.log_delta - _SLACK:
            self.guide = Guide(self.rounds, found.log_delta - _SLACK)
        self.point = _Point(found.epsilon, min(found.log_delta, 0.0))


class _SearchForDelta(_Search):
    """For delta at a given epsilon, in logarithms."""

    least = _LOG_LEAST

    def aim(self) -> float:
        fine = self.target(self.point) / (self.saddle.tilt + 1)
        # where that takes very many points, what epsilon would be given has to do
        step = self.saddle.spread / _PER_SPREAD
        cheap = self.guide.times * step**2 * (self.saddle.tilt + 1) / _EPSILON_OF_STEP
        return min(self.accuracy * self.near(), max(fine, cheap))

    def target(self, found: _Point) -> float:
        return self.accuracy / ACCURACY * _ACCURACY_OF_DELTA

    def read(self, curve: Curve) -> _Point | None:
        log_delta = curve.log_delta_at_centre()
        return None if log_delta is None else _Point(self.point.epsilon, log_delta)

    def value(self, found: _Point) -> float:
        return found.log_delta

    def answer(self, value: float) -> float:
        return min(1.0, max(_least_delta(self.rounds), math.exp(value)))


class _Refined:
    """Ever finer grids, until two of them show that the finer one is fine enough.

    Where the law is far from normal, the variance that a grid adds tells its looseness up to an
    unknown factor: two grids show it. It may change between them, so some more is assumed. Next to
    an atom of a law that is not smooth the looseness falls with the standard deviation only.
    """

    def __init__(self, smooth: bool) -> None:
        self.smooth = smooth
        self.best = self.last = math.inf
        self.excess = self.dial = math.inf

    def finer_by(self, found: float, excess: float, target: float, dial: float) -> float:
        """What to turn the dial down by; 1 if the best so far is loose by `target` at most."""
        finer, coarser = sorted([excess, self.excess])
        if not self.smooth:
            finer, coarser = math.sqrt(finer), math.sqrt(coarser)
        error = math.inf
        if _APART * finer < coarser < math.inf:
            # looseness is as the excess: with two of each, that of the finer one is known
            error = _UNSURE * abs(self.last - found) * finer / (coarser - finer)
        self.best = min(self.best, found)
        self.last, self.excess, self.dial = found, excess, dial
        return (
            1.0 if error <= target else min(_FINER, max(1 / _COARSE, _ON_TARGET * target / error))
        )
