"""From rounds to delta as a function of epsilon: one composition on one window.

Two steps: the laws of the rounds on a common grid, fine enough for a given looseness
(:func:`laws_for`), and their composition there, read as a curve (:class:`Curve`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fldp.accounting.gaussian import LARGEST_EXP, Array
from fldp.accounting.guide import Guide, Round, Window
from fldp.accounting.laws import Kind, Law, Laws, fitted, law_of_round, steepest, summed

# Stages are thought of for windows with more points than this.
_STAGE_FROM = 1 << 15
# What the masses of one round cost per point, in transforms of a window.
_ROUND_COST = 3
# More stages than these never take fewer points: each has a window of its own.
_MOST_STAGES = 6
# Fewer rounds of a kind than this are not worth a stage.
_STAGED_ROUNDS = 16
# tilt * step on a grid that is reached in stages; more would magnify round-off.
_TILTED_STEP = 5.0
# Moving mass between dots a step h apart adds a variance of h^2/6 on average over where it was.
_EXCESS_OF_STEP = 6
# The looseness of a built grid may be this multiple of the one aimed at; below the other multiple a
# long grid is made coarser.
_LOOSE, _TIGHT = 1.6, 0.25
_LONG = 1 << 13
# By how much a step changes at a time, at least and at most, towards finer and towards coarser; and
# the share of the largest step from which a coarser one is not worth it.
_LEAST_FINER, _MOST_FINER = 1.1, 8.0
_MOST_COARSER = 4.0
_LEAST_RATIO = 1e-3
_NEARLY_LARGEST = 0.9
_TRIES = 40
# How many standard deviations of round-off are added; 8 are exceeded with chance 1e-15.
_ROUND_OFF_SDS = 8
# What may be round-off, as a share of delta, before it is bounded more sharply.
_ROUND_OFF_SEEN = 1e-7
# Rounding that adds up over the rounds, each: of a power by squaring, and of the mean loss, whose
# error counts tilt times.
_POWER_ERROR, _MEAN_ERROR = 4e-15, 1e-15
_UNIT = float(np.finfo(np.float64).eps)
# Where a weight exceeds e^150 the loss is far below the answer.
_KEPT = 150.0
# Ends of a window closer than this, relatively, are the same.
_SAME_END = 1e-12


class _Stages:
    """How the grid grows coarser: a factor for each kind of round, at `levels - 1` changes.

    After each composition of factor^2 rounds the grid's step grows by `factor`. The variance that a
    level adds is then the same at each, so that none is finer than it need be.
    """

    def __init__(self, counts: Sequence[int], levels: int) -> None:
        self.factors: list[int] = []
        self.changes: list[int] = []
        # excess of the sum in units of (last step)^2 / 6: each level adds that of its members, the
        # first one when the rounds move to the grid, the others at the changes
        self.weight = self.later = 0.0
        for n in counts:
            factor = round(n ** (1 / (2 * levels))) if n >= _STAGED_ROUNDS else 1
            changes = levels - 1 if factor > 1 else 0
            self.factors.append(factor if changes else 1)
            self.changes.append(changes)
            level = n / float(factor) ** (2 * changes)
            self.later += changes * level
            self.weight += (changes + 1) * level


def laws_for(
    rounds: Sequence[Round],
    guide: Guide,
    window: Window,
    allowed: float,
    largest: float,
    kind: Kind,
) -> Laws:
    """Laws on a common grid, on which the sum has about the `allowed` variance too much.

    Parameters
    ----------
    rounds, guide
        What ran, and its moments.
    window
        Where the sum will be read.
    allowed
        Variance that the grid may add.
    largest
        The largest step of the last grid.
    kind
        The precision of the transforms.

    Returns
    -------
    list of (Law, int)
        Laws on the same grid, each with how many times it is composed with itself.

    Raises
    ------
    OutOfReach
        If that takes more points than there may be.

    Examples
    --------
    >>> from fldp.accounting.pairs import Shifted
    >>> run = [([(1.0, Shifted(10.0))], 50)]
    >>> guide = Guide(run, math.log(1e-5))
    >>> window = guide.window(guide.at_delta(math.log(1e-5)).tilt, 2.0, math.log(1e-5))
    >>> [(law, times)] = laws_for(run, guide, window, allowed=1e-6, largest=0.1, kind=np.float64)
    >>> law.rounds, times, times * law.excess < 2e-6
    (1, 50, True)
    """
    counts = [n for _, n in rounds]
    stages, step = _cheapest(counts, guide, window, allowed, largest)
    windows = [guide.block(index, 1, window) for index in range(len(rounds))]
    # how much a grid adds is known only once it is there: the step is mended until it fits
    for _ in range(_TRIES):
        starts = []
        for index, (parts, _) in enumerate(rounds):
            finest = step / stages.factors[index] ** stages.changes[index]
            starts.append(law_of_round(parts, finest, windows[index]))
        excess = sum(n * law.excess for law, n in zip(starts, counts, strict=True))
        ratio = (excess + stages.later * step * step / _EXCESS_OF_STEP) / allowed
        points = max((window.high - window.low) / step, *(law.mass.size for law in starts))
        if ratio > _LOOSE:
            step /= min(_MOST_FINER, max(_LEAST_FINER, ratio / _LOOSE))
        elif ratio < _TIGHT and points > _LONG and step < _NEARLY_LARGEST * largest:
            coarser = min(_MOST_COARSER, math.sqrt(1 / max(ratio, _LEAST_RATIO)))
            step = min(largest, step * coarser)
        else:
            break
    out: list[tuple[Law, int]] = []
    for index, law in enumerate(starts):
        out += _staged(law, index, counts[index], stages, guide, window, kind)
    return out


def _cheapest(
    counts: Sequence[int], guide: Guide, window: Window, allowed: float, largest: float
) -> tuple[_Stages, float]:
    """The number of stages that takes fewest points, and the last grid's step."""
    width = window.high - window.low
    found: list[tuple[float, _Stages, float]] = []
    for levels in range(1, _MOST_STAGES + 1):
        stages = _Stages(counts, levels)
        step = min(largest, math.sqrt(_EXCESS_OF_STEP * allowed / stages.weight))
        if levels > 1:
            step = min(step, _TILTED_STEP / window.tilt)
        elif max(counts) < _STAGED_ROUNDS or width / step <= _STAGE_FROM:
            return stages, step
        points = width / step
        for kind, factor, changes in zip(guide.kinds, stages.factors, stages.changes, strict=True):
            # one round on the finest grid, and blocks that are at least as wide
            span = float(kind.loss.max() - kind.loss.min())
            points += (_ROUND_COST + changes) * span * factor**changes / step
        found.append((points, stages, step))
    return min(found, key=lambda one: one[0])[1:]


def _staged(
    law: Law, index: int, n: int, stages: _Stages, guide: Guide, window: Window, kind: Kind
) -> Laws:
    """`n` rounds of one kind as few laws on the last grid."""

    def composed(times: int) -> Law:
        if times == 1:
            return law
        return law.composed(times, guide.block(index, law.rounds * times, window), kind)

    factor = stages.factors[index]
    out: list[tuple[Law, int]] = []
    for change in range(stages.changes[index], 0, -1):
        n, left = divmod(n, factor * factor)
        if left:
            out.append((composed(left).coarser(factor**change), 1))
        law = composed(factor * factor).coarser(factor)
    return [*out, (law, n)]


class Curve:
    """Delta as a function of epsilon around `centre`, from the laws of :func:`laws_for`.

    With m the mass at loss l, delta(e) is the sum of m (1 - e^(e - l)) over the losses above e, and
    what is added to be above the truth: round-off, and the mass that is not on the grid. All of it
    is held relative to e^log_delta, so that no size of delta underflows.

    What happens to the mass of the sum outside the window: above it, Chernoff's bound is added to
    delta in full, as if the loss were infinite. Below it, it wraps round to the top, where its loss
    is too large: that only adds to delta, and the window is chosen so that it is not felt.

    Parameters
    ----------
    laws
        On one grid.
    window
        Where the sum is looked at.
    kind
        The precision of the transforms.

    Attributes
    ----------
    centre, log_delta
        Epsilon, and log delta, about where the curve will be read.
    loss
        The grid's losses from 0 upwards.
    size
        Points of the transform.
    excess
        The variance that the grid has added.
    up, down
        The sums of m and of m e^(centre - l), over the losses from each one upwards.
    allowance, cut, added
        What is added at each loss: for round-off, for mass of infinite loss or above the window,
        and in all.
    kept
        From this index on `down` is there; before, `centre` is too far above.
    """

    def __init__(self, laws: Laws, window: Window, kind: Kind = np.float64) -> None:
        self.window = window
        self.centre, self.log_delta = window.epsilon, window.log_delta
        self.step = laws[0][0].step
        self.excess = sum(n * law.excess for law, n in laws)
        in_all = sum(n * law.rounds for law, n in laws)
        self.size, first = fitted(self.step, window, self.excess, in_all)
        sums, noise = summed(laws, self.size, first, kind)
        # a loss below 0 matters to no delta
        skip = min(max(0, -first), self.size - 1)
        self.loss = (first + np.arange(skip, self.size)) * self.step
        weight, behind = self._weights(sum(n * law.log_mgf for law, n in laws))
        # rounding that all masses share raises both sums
        per_round = _POWER_ERROR + _MEAN_ERROR * (window.tilt + 1)
        mass = sums[skip:] * weight * (1 + per_round * in_all)
        self.up = _sums_from(mass)
        self.down = _sums_from(mass * behind)
        self.allowance = self._allowance(_ROUND_OFF_SDS * noise, weight, behind)
        self.cut = self._cut(laws, self.step * (first + self.size - 1))
        self.added = self.allowance + self.cut
        lost = sum(n * law.lost for law, n in laws)
        if lost > 0:
            # tilted mass that was low when rounds were put together: all of it right at the loss
            self.added = self.added + lost * weight

    def _weights(self, log_mgf: float) -> tuple[Array, Array]:
        """What takes the tilt off a mass, relative to e^log_delta; and e^(centre - loss)."""
        scale = log_mgf - self.log_delta
        # below this loss one of the two would be too large
        far = max((scale - _KEPT) / self.window.tilt, self.centre - _KEPT)
        self.kept = min(int(np.searchsorted(self.loss, far)), self.loss.size - 1)
        clipped = np.maximum(self.loss, far) if self.kept else self.loss
        behind = np.exp(self.centre - clipped)
        self._ahead = 1 / np.maximum(behind, math.exp(-LARGEST_EXP))
        return np.exp(scale - self.window.tilt * clipped), behind

    def _allowance(self, noise: float, weight: Array, behind: Array) -> Array:
        """What round-off of `noise` a point may do to delta at each loss."""
        if self.kept:
            found = noise * np.sqrt(_sums_from(weight * weight))
        else:
            # the weights fall geometrically, and so do their squares
            tail = -math.expm1(-2 * self.window.tilt * self.step)
            found = noise / math.sqrt(tail) * weight
        i = min(int(np.searchsorted(self.loss, self.centre)), self.loss.size - 1)
        if found[i] > _ROUND_OFF_SEEN * (self.up[i] - self.down[i]):
            return noise * self._spread(weight, behind)
        return np.asarray(found)

    def _spread(self, weight: Array, behind: Array) -> Array:
        """The root of the sum of (w (1 - e^(e - l)))^2 over the losses l above each e.

        A sharper bound on what round-off does to delta than the sum of w^2 alone.
        """
        square = weight * weight
        plain = _sums_from(square)
        crossed = _sums_from(square * behind) * self._ahead
        twice = _sums_from(square * behind * behind)
        twice *= np.exp(np.minimum(2 * (self.loss - self.centre), LARGEST_EXP))
        spread = np.maximum(plain - 2 * crossed + twice, 0.0) + _UNIT * plain
        spread[: self.kept] = plain[: self.kept]
        return np.asarray(np.sqrt(spread))

    def _cut(self, laws: Laws, top: float) -> float:
        """Mass of infinite loss, and a bound on mass above the window (Chernoff)."""
        infinite = sum(n * law.infinite for law, n in laws)
        cut = infinite * math.exp(-self.log_delta) if infinite else 0.0
        highest = self.step * sum(n * law.last for law, n in laws)
        if highest > top * (1 + _SAME_END):
            t = min(self.window.top_tilt, steepest(self.window, self.step, self.excess))
            above = sum(n * law.log_moment(t) for law, n in laws) - t * top
            cut += math.exp(min(0.0, above) - self.log_delta)
        return cut

    def round_off(self, epsilon: float) -> float:
        """What is added to delta for round-off at this epsilon."""
        i = min(int(np.searchsorted(self.loss, epsilon)), self.loss.size - 1)
        return float(self.allowance[i])

    def log_delta_at_centre(self) -> float | None:
        """log delta at epsilon = centre; None if the window has missed it."""
        i = int(np.searchsorted(self.loss, self.centre))
        if i >= self.loss.size or (i == 0 and self.loss[0] > self.centre + self.step):
            return None
        value = float(self.up[i] - self.down[i] + self.added[max(0, i - 1)])
        return math.log(value) + self.log_delta if value > 0 else -math.inf

    def epsilon(self) -> float | None:
        """Epsilon at which delta is e^log_delta; None if the window has missed it.

        Far below `centre`, where only `up` is known, it is the least at which `up` is small enough.
        """
        delta = self.up - self._ahead * self.down
        delta[: self.kept] = self.up[: self.kept]
        fits = delta + self.added <= 1
        i = int(np.argmax(fits))
        if not fits[i] or (i == 0 and self.loss[0] > self.step):
            return None
        if i == 0:
            return 0.0
        # between two losses the sums are those of the upper one, what is added that of the lower
        left = float(self.up[i] + self.added[i - 1]) - 1
        if i <= self.kept or left <= 0 or self.down[i] <= 0:
            return float(self.loss[i])
        found = self.centre + math.log(left / float(self.down[i]))
        return min(float(self.loss[i]), max(float(self.loss[i - 1]), found))


def _sums_from(x: Array) -> Array:
    """Sums of x from each index to the end."""
    return np.asarray(np.cumsum(x[::-1])[::-1])
