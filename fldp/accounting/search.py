"""Root finding for budgets: over log z, and over whole numbers of rounds.

Both are searches by secants inside a bracket that use few values, since each may take long.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from fldp._checks import MOST

# log z moves by at most this much at a time before the answer is bracketed.
_STRIDE = 1.5
_TRIES = 100
# Every so many steps a bracket is halved, whatever the secant says.
_HALVE = 5
# Ends of a bracket closer than this in log z hold nothing that matters.
_WIDTH = 1e-9
# Ratios to the budget are told apart down to this.
_LEAST_RATIO = 1e-12
# More rounds than this are found to one part in a million: the answer's own digits end there.
EXACT_ROUNDS = 10**6
# How far beyond the answer of a secant a search for rounds steps, at first.
_BEYOND = 1e-7


class Start(NamedTuple):
    """Where a search begins: log z, and the slope there of log epsilon, or of epsilon if `steep`.

    Next to zero a straight line in epsilon is the better model, and it ends at 0 with a bend.
    """

    x: float
    slope: float = -1.5
    steep: bool = False


class _Bracket:
    """Secant steps in log z towards the root of a falling function, inside a bracket once there is.

    The function is a score: positive where there is too little noise. Where epsilon has come to its
    end at 0 the score is flat, and has no slope.
    """

    def __init__(self, start: Start, limits: tuple[float, float]) -> None:
        self.low, self.high = (math.log(limit) for limit in limits)
        self.x, self.slope = min(self.high, max(self.low, start.x)), start.slope
        self.left, self.right = -math.inf, math.inf
        self.last: tuple[float, float] | None = None
        self.turn, self.repeats = 0, 0

    def note(self, score: float, flat: bool) -> None:
        """Take the score at x in."""
        if not flat:
            if self.last is not None and self.last[0] != self.x and self.last[1] != score:
                self.slope = min(-0.05, (score - self.last[1]) / (self.x - self.last[0]))
            self.repeats = self.repeats + 1 if self.last and self.last[1] * score > 0 else 0
            self.last = self.x, score
        if score > 0:
            self.left = self.x
        else:
            self.right = self.x

    def at_end(self, score: float) -> bool:
        """Whether the root lies beyond the limits."""
        return self.x >= self.high if score > 0 else self.x <= self.low

    def narrow(self) -> bool:
        return self.right - self.left < _WIDTH

    def move(self, score: float, flat: bool) -> None:
        """Go to the next x."""
        self.turn += 1
        if not flat:
            # on the same side again and again: the slope was too steep
            step = score / self.slope * 2.0 ** max(0, self.repeats - 1)
            x = self.x - max(-_STRIDE, min(_STRIDE, step))
        elif self.last is not None:
            x = self.last[0] - self.last[1] / self.slope
        else:
            x = self.x - _STRIDE / 4
        x = min(self.high, max(self.low, x))
        width = self.right - self.left
        if math.isfinite(width):
            inside = self.left + 0.01 * width < x < self.right - 0.01 * width
            if not inside or self.turn % _HALVE == 0:
                x = 0.5 * (self.left + self.right)
        self.x = x


def settle(
    f: Callable[[float], float],
    target: float,
    start: Start,
    tolerance: float,
    limits: tuple[float, float],
    final: bool = False,
) -> Start:
    """log z at which the falling `f` is `target` up to `tolerance`; from below if `final`."""
    aim = target * (1 - tolerance / 2) if final else target
    search = _Bracket(start, limits)
    for _ in range(_TRIES):
        value = f(search.x)
        score = value / aim - 1 if start.steep else math.log(max(value / aim, _LEAST_RATIO))
        search.note(score, flat=value <= 0)
        if target * (1 - tolerance) <= value <= target * (1 if final else 1 + tolerance):
            x = search.x if final else search.x - score / search.slope
            return start._replace(x=x, slope=search.slope)
        if search.at_end(score) and final:
            raise _out_of_range(target, value, score > 0)
        if search.at_end(score) or search.narrow():
            x = search.right if math.isfinite(search.right) else search.x
            return start._replace(x=x, slope=search.slope)
        search.move(score, flat=value <= 0)
    if not final:
        return start._replace(x=search.x, slope=search.slope)
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


def last_that_fits(f: Callable[[int], float], target: float, guess: int) -> int:
    """The last count at which the rising `f` is at most `target`, which holds at 1.

    Secant steps in logarithms, each a little beyond where it points to; on the same side again,
    twice as far beyond, until both sides of the answer are known.
    """
    good, bad = 1, MOST + 1
    slope, beyond = 0.5, _BEYOND  # epsilon grows about like the root of the rounds
    last: tuple[int, float] | None = None
    for turn in range(_TRIES):
        guess = min(bad - 1, max(good, guess))
        value = f(guess)
        if value <= target:
            good = guess
        else:
            bad = guess
        if bad - good <= 1 + good // EXACT_ROUNDS:
            break
        if last is not None and last[0] != guess and 0 < value != last[1] > 0:
            slope = math.log(value / last[1]) / math.log(guess / last[0])
            slope = min(4.0, max(0.1, slope))
        if last is not None and (value <= target) == (last[1] <= target):
            beyond *= 4
        else:
            beyond = max(_BEYOND, beyond / 16)
        last = guess, value
        ratio = target / value if 0 < value < math.inf else (4.0 if value == 0 else 0.25)
        aim = guess * max(0.05, min(20.0, ratio)) ** (1 / slope)
        guess = math.ceil(aim * (1 + beyond)) if value <= target else math.floor(aim / (1 + beyond))
        if turn % _HALVE == _HALVE - 1 and bad <= MOST:
            guess = math.isqrt(good * bad)
        if not good < guess < bad:
            guess = good + 1 if guess <= good else bad - 1
    return good
