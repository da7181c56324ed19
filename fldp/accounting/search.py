"""The searches of this floor: each is one of the four here, and there is no other.

- :func:`falling_root`: a cheap function of one number, to its last digits;
- :func:`least` and :func:`zoomed`: arrays of points, ever closer around the one that is best;
- :func:`settle`: a costly function of log z, to a stated tolerance, in few questions;
- :func:`last_that_fits`: a costly function of a whole number, to the last one that fits.

They stay apart because a question costs a microsecond in the first and up to a second in the last
two, which go by secants in logarithms; and because a count is known only once both it and the next
one have been asked about, while log z has a tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fldp._checks import MOST

Array = NDArray[np.float64]

# Beyond this no root is looked for: no epsilon as large says anything.
FARTHEST = 1e15
# Regula falsi aims above the root by this share of its step, and of the bracket, so that the upper
# end closes in on it too; but it never goes all the way to the upper end.
_ABOVE_STEP = 1e-6
_ABOVE_BRACKET = 1e-13
_LONGEST_STEP = 1 - 1e-3

# log z moves by at most this much at a time before the answer is bracketed.
_STRIDE = 1.5
# Where epsilon is flat at 0 there is no slope to go by, and a stride is so much shorter.
_FLAT_STRIDE = _STRIDE / 4
# The flattest slope that a secant may claim: a flatter one is noise, and would leap.
_FLATTEST = 0.05
# A secant may come this share of the bracket near to its ends, else the bracket is halved.
_MARGIN = 0.01
_TRIES = 100
# Every so many steps a bracket is halved, whatever the secant says.
_HALVE = 5
# Ends of a bracket closer than this in log z hold nothing that matters.
_WIDTH = 1e-9
# Scores in logarithms are told apart down to this ratio.
_LEAST_SCORED = 1e-12

# More rounds than this are found to one part in a million: the answer's own digits end there.
EXACT_ROUNDS = 10**6
# Epsilon grows about like the root of the rounds; secants may say otherwise within these limits.
_ROOT_SLOPE = 0.5
_LEAST_SLOPE, _STEEPEST = 0.1, 4.0
# How far beyond the answer of a secant a search for rounds steps at first, how much farther each
# time that it stays on the same side, and how much less far once it has changed sides.
_BEYOND = 1e-7
_FARTHER, _NEARER = 4, 16
# Ratios to the budget beyond these say no more about where the answer is.
_LEAST_RATIO, _MOST_RATIO = 0.05, 20.0


def falling_root(
    f: Callable[[float], float], low: float, high: float, digits: float = 1e-12
) -> float:
    """The least x >= `low` with f(x) <= 0, from above, to a relative error of `digits`.

    Two steps of regula falsi, one of bisection, in turn: fast where `f` is near to a line, and at
    most three times as slow as bisection.

    Parameters
    ----------
    f
        Falls; the closer to a line, the fewer questions. May be -inf, not +inf.
    low, high
        Where to look, `high` > 0; while it is too low it is doubled.
    digits
        Below 1e-15 the answer is as good as the numbers are.

    Returns
    -------
    float
        `low` if that is already enough, infinity if nothing below 1e15 is.

    Examples
    --------
    >>> round(falling_root(lambda x: 2 - x * x, 0.0, 1.0), 9)
    1.414213562
    """
    at_low = f(low)
    if at_low <= 0:
        return low
    while (at_high := f(high)) > 0:
        low, at_low = high, at_high
        high *= 2
        if high > FARTHEST:
            return math.inf
    in_a_row = 0
    while at_high < 0 and high - low > digits * high:
        share = at_low / (at_low - at_high)
        in_a_row += 1
        if in_a_row > 2 or not 0.0 < share < 1.0:
            in_a_row = 0
            share = 0.5
        x = low + (high - low) * min(_LONGEST_STEP, share * (1 + _ABOVE_STEP) + _ABOVE_BRACKET)
        x = x if low < x < high else 0.5 * (low + high)
        if not low < x < high:
            break  # no number lies between the two
        value = f(x)
        if value > 0:
            low, at_low = x, value
        else:
            high, at_high = x, value
    return high


def zoomed(pick: Callable[[Array], int], points: Array, sizes: Sequence[int]) -> float:
    """The point that `pick` takes in the end, from ever closer points around the last one taken.

    Parameters
    ----------
    pick
        The index of the best of some points.
    points
        The first ones, positive and rising.
    sizes
        How many to take, again and again, between the neighbours of the best so far.

    Returns
    -------
    float
        The best of the last points.

    Examples
    --------
    >>> round(zoomed(lambda x: int(np.argmin((x - 3) ** 2)), np.array([1.0, 9.0]), [12, 12]), 1)
    3.0
    """
    for size in sizes:
        i = pick(points)
        low = math.log(points[max(0, i - 1)])
        high = math.log(points[min(i + 1, points.size - 1)])
        points = np.exp(low + (high - low) / (size - 1) * np.arange(size))
    return float(points[pick(points)])


def least(f: Callable[[Array], Array], points: Array, sizes: Sequence[int]) -> float:
    """The least value that `f` takes on the points which :func:`zoomed` looks at.

    Parameters
    ----------
    f
        A value for each point.
    points, sizes
        As in :func:`zoomed`.

    Returns
    -------
    float
        The least of all values, those on coarser points included.

    Examples
    --------
    >>> round(least(lambda x: x + 1 / x, np.geomspace(0.1, 10, 5), [12, 12]), 3)
    2.0
    """
    found = [math.inf]

    def pick(x: Array) -> int:
        values = f(x)
        i = int(np.argmin(values))
        found.append(float(values[i]))
        return i

    zoomed(pick, points, sizes)
    return min(found)


class Start(NamedTuple):
    """Where a search begins.

    Attributes
    ----------
    x
        log z.
    slope
        Of log epsilon there, or of epsilon over the target if `steep`; negative.
    steep
        Next to zero a straight line in epsilon is the better model; it ends at 0 with a bend.
    limits
        The least and the largest z that are tried.
    """

    x: float
    slope: float = -1.5
    steep: bool = False
    limits: tuple[float, float] = (1e-6, 1e12)


class _Bracket:
    """Secant steps in log z towards the root of a falling function, inside a bracket once there is.

    The function is a score: positive where there is too little noise. Where epsilon has come to its
    end at 0 the score is flat, and has no slope.
    """

    def __init__(self, start: Start) -> None:
        self.low, self.high = (math.log(limit) for limit in start.limits)
        self.x = min(self.high, max(self.low, start.x))
        self.slope = start.slope
        self.left = -math.inf
        self.right = math.inf
        self.last: tuple[float, float] | None = None
        self.turn = self.repeats = 0

    def note(self, score: float, flat: bool) -> None:
        """Take the score at x in."""
        if not flat:
            same_side = self.last is not None and self.last[1] * score > 0
            self.repeats = self.repeats + 1 if same_side else 0
            if self.last is not None and self.last[0] != self.x and self.last[1] != score:
                self.slope = min(-_FLATTEST, (score - self.last[1]) / (self.x - self.last[0]))
            self.last = self.x, score
        if score > 0:
            self.left = self.x
        else:
            self.right = self.x

    def at_end(self, score: float) -> bool:
        """Whether the root lies beyond the limits."""
        return (score > 0 and self.x >= self.high) or (score <= 0 and self.x <= self.low)

    def narrow(self) -> bool:
        """Whether the bracket holds nothing more."""
        return self.right - self.left < _WIDTH

    def move(self, score: float, flat: bool) -> None:
        """Go to the next x."""
        self.turn += 1
        x = min(self.high, max(self.low, self._secant(score, flat)))
        width = self.right - self.left
        if math.isfinite(width):
            inside = self.left + _MARGIN * width < x < self.right - _MARGIN * width
            if not inside or self.turn % _HALVE == 0:
                x = 0.5 * (self.left + self.right)
        self.x = x

    def _secant(self, score: float, flat: bool) -> float:
        if not flat:
            # on the same side again and again: the slope was too steep
            step = score / self.slope * 2.0 ** max(0, self.repeats - 1)
            return self.x - max(-_STRIDE, min(_STRIDE, step))
        if self.last is not None:
            return self.last[0] - self.last[1] / self.slope
        return self.x - _FLAT_STRIDE


def settle(
    f: Callable[[float], float], target: float, start: Start, tolerance: float, final: bool = False
) -> Start:
    """log z at which the falling `f` is `target` up to `tolerance`.

    Parameters
    ----------
    f
        Of log z: epsilon, or what else falls when noise grows. Each question may take long.
    target
        > 0.
    start
        Where to begin, the slope there, and within which limits.
    tolerance
        Relative, in `f`.
    final
        The answer has f <= target, and it is one that was asked for; else it may be a step of the
        secant ahead, or at an end of the limits: a start for the next search.

    Returns
    -------
    Start
        log z, and the slope there; the rest as it was.

    Raises
    ------
    ValueError
        If `final` and no z within the limits meets the target.

    Examples
    --------
    >>> found = settle(lambda x: math.exp(-x), 0.1, Start(0.0), 1e-3, final=True)
    >>> 0.0999 <= math.exp(-found.x) <= 0.1
    True
    """
    aim = target * (1 - tolerance / 2) if final else target
    most = target if final else target * (1 + tolerance)
    search = _Bracket(start)
    for _ in range(_TRIES):
        value = f(search.x)
        score = value / aim - 1 if start.steep else math.log(max(value / aim, _LEAST_SCORED))
        search.note(score, flat=value <= 0)
        if target * (1 - tolerance) <= value <= most:
            x = search.x if final else search.x - score / search.slope
            return start._replace(x=x, slope=search.slope)
        ends = search.at_end(score)
        if ends and final:
            raise _out_of_range(target, value, score > 0)
        if ends or search.narrow():
            return start._replace(x=min(search.right, search.high), slope=search.slope)
        search.move(score, flat=value <= 0)
    if final:
        raise ValueError(f"epsilon is {target:g}: no noise multiplier found; change it slightly")
    return start._replace(x=search.x, slope=search.slope)


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


class _Counts:
    """Secant steps towards the last count that fits, until it and its successor are known.

    Each step goes a little beyond where its secant points to, so that the other side is seen too;
    on the same side again, farther beyond.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.good, self.bad = 1, MOST + 1
        self.slope = _ROOT_SLOPE
        self.beyond = _BEYOND
        self.last: tuple[int, float] | None = None

    def note(self, count: int, value: float) -> None:
        """Take the value at a count in."""
        fits = value <= self.target
        self.good = count if fits else self.good
        self.bad = self.bad if fits else count
        same_side = self.last is not None and fits == (self.last[1] <= self.target)
        self.beyond = self.beyond * _FARTHER if same_side else max(_BEYOND, self.beyond / _NEARER)
        before, was = self.last or (count, value)
        if before != count and 0 < min(value, was) < max(value, was) < math.inf:
            slope = math.log(value / was) / math.log(count / before)
            self.slope = min(_STEEPEST, max(_LEAST_SLOPE, slope))
        self.last = count, value

    def closed(self) -> bool:
        """Whether no count that matters lies between the two."""
        return self.bad - self.good <= 1 + self.good // EXACT_ROUNDS

    def next(self, count: int, value: float, halve: bool) -> int:
        """The next count after this one, strictly between the two."""
        ratio = self.target / value if value > 0 else math.inf
        aim = count * min(_MOST_RATIO, max(_LEAST_RATIO, ratio)) ** (1 / self.slope)
        if value <= self.target:
            guess = math.ceil(aim * (1 + self.beyond))
        else:
            guess = math.floor(aim / (1 + self.beyond))
        if halve and self.bad <= MOST:
            guess = math.isqrt(self.good * self.bad)
        return min(self.bad - 1, max(self.good + 1, guess))


def last_that_fits(f: Callable[[int], float], target: float, guess: int) -> int:
    """The last count at which the rising `f` is at most `target`.

    Parameters
    ----------
    f
        Of a count: epsilon, which may be infinite. It holds at 1, which is not asked.
    target
        >= 0.
    guess
        A count to begin with; the better, the fewer questions.

    Returns
    -------
    int
        Exact up to a million, above it to one part in a million from below.

    Examples
    --------
    >>> last_that_fits(lambda n: n**0.5, 10.0, guess=7)
    100
    """
    search = _Counts(target)
    guess = min(MOST, max(1, guess))
    for turn in range(1, _TRIES + 1):
        value = f(guess)
        search.note(guess, value)
        if search.closed():
            break
        guess = search.next(guess, value, halve=turn % _HALVE == 0)
    return search.good
