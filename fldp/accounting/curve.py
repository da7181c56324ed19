"""From rounds to delta as a function of epsilon: one composition on one window.

Two steps: the laws of the rounds on a common grid, fine enough for a given looseness
(:func:`laws_for`), and their composition there, read as a curve (:class:`Curve`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fldp.accounting.guide import Guide, Round, Window
from fldp.accounting.laws import Law, fitted, power, round_off, steepest, wrapped

Array = NDArray[np.float64]
Laws = list[tuple[Law, int]]

# Stages are thought of for windows with more points than this.
_STAGE_FROM = 1 << 15
# What the masses of one round cost per point, in transforms of a window.
_ROUND_COST = 3
_MOST_STAGES = 6
# Fewer rounds of a kind than this are not worth a stage.
_STAGED_ROUNDS = 16
# tilt * step on a grid that is reached in stages; more would magnify round-off.
_TILTED_STEP = 5.0
# The looseness of a built grid may be this multiple of the one aimed at; below the other multiple a
# long grid is made coarser.
_LOOSE, _TIGHT = 1.6, 0.25
_LONG = 1 << 13
_TRIES = 40
# How many standard deviations of round-off are added; 8 are exceeded with chance 1e-15.
_ROUND_OFF_SDS = 8
# What may be round-off, as a share of delta, before long doubles are used.
_ROUND_OFF_SHARE = 1e-4
# What may be round-off, as a share of delta, before it is bounded more sharply.
_ROUND_OFF_SEEN = 1e-7
# Rounding that adds up over the rounds, each: of a power by squaring, and of the mean loss, whose
# error counts tilt times.
_POWER_ERROR, _MEAN_ERROR = 4e-15, 1e-15
_UNIT = float(np.finfo(np.float64).eps)
# Where a weight exceeds e^150 the loss is far below the answer.
_KEPT = 150.0
# exp beyond this is infinite in double precision.
_LARGEST_EXP = 700.0


class _Stages:
    """How the grid grows coarser: a factor for each kind of round, at `levels - 1` changes."""

    def __init__(self, counts: Sequence[int], levels: int) -> None:
        self.factors: list[int] = []
        self.changes: list[int] = []
        # excess of the sum in units of (last step)^2 / 6: each level adds that of its members
        self.weight = 0.0
        for n in counts:
            factor = round(n ** (1 / (2 * levels))) if n >= _STAGED_ROUNDS else 1
            changes = levels - 1 if factor > 1 else 0
            self.factors.append(factor if changes else 1)
            self.changes.append(changes)
            self.weight += (changes + 1) * n / float(factor) ** (2 * changes)


def laws_for(
    rounds: Sequence[Round],
    guide: Guide,
    window: Window,
    log_delta: float,
    allowed: float,
    largest: float,
    kind: Any = np.float64,
) -> Laws:
    """Laws on a common grid, on which the sum has about the `allowed` variance too much.

    `largest` bounds the last grid's step.
    """
    counts = [n for _, n in rounds]
    stages, step = _cheapest(counts, guide, window, allowed, largest)
    ones = [guide.block(index, 1, window, log_delta) for index in range(len(rounds))]
    for _ in range(_TRIES):
        starts = [
            Law(parts, step / factor**changes, one)
            for (parts, _), one, factor, changes in zip(
                rounds, ones, stages.factors, stages.changes, strict=True
            )
        ]
        excess = sum(n * law.excess for law, n in zip(starts, counts, strict=True))
        excess += _later_excess(stages, counts, step)
        ratio = excess / allowed
        points = max((window.high - window.low) / step, *(law.mass.size for law in starts))
        if ratio > _LOOSE:
            step /= min(8.0, max(1.1, ratio / _LOOSE))
        elif ratio < _TIGHT and points > _LONG and step < 0.9 * largest:
            step = min(largest, step * min(4.0, math.sqrt(1 / max(ratio, 1e-3))))
        else:
            break
    out: Laws = []
    for index, law in enumerate(starts):
        out += _staged(law, index, counts[index], stages, guide, window, log_delta, kind)
    return out


def _cheapest(
    counts: Sequence[int], guide: Guide, window: Window, allowed: float, largest: float
) -> tuple[_Stages, float]:
    """The number of stages that takes fewest points, and the last grid's step."""
    stages = _Stages(counts, 1)
    step = min(largest, math.sqrt(6 * allowed / stages.weight))
    if max(counts) < _STAGED_ROUNDS or (window.high - window.low) / step <= _STAGE_FROM:
        return stages, step
    spans = [float(loss.max() - loss.min()) for loss, _, _ in guide.kinds]
    best = math.inf, stages, step
    for levels in range(1, _MOST_STAGES + 1):
        stages = _Stages(counts, levels)
        step = min(largest, math.sqrt(6 * allowed / stages.weight))
        if levels > 1:
            step = min(step, _TILTED_STEP / window.tilt)
        points = (window.high - window.low) / step
        for span, factor, changes in zip(spans, stages.factors, stages.changes, strict=True):
            # one round on the finest grid, and blocks that are at least as wide
            points += (_ROUND_COST + changes) * span * factor**changes / step
        if points < best[0]:
            best = points, stages, step
    return best[1], best[2]


def _later_excess(stages: _Stages, counts: Sequence[int], step: float) -> float:
    """What the changes of grid will add."""
    total = 0.0
    for n, factor, changes in zip(counts, stages.factors, stages.changes, strict=True):
        total += changes * n / float(factor) ** (2 * changes)
    return total * step * step / 6


def _staged(
    law: Law,
    index: int,
    n: int,
    stages: _Stages,
    guide: Guide,
    window: Window,
    log_delta: float,
    kind: Any,
) -> Laws:
    """`n` rounds of one kind as few laws on the last grid."""
    factor, out = stages.factors[index], []
    times = 1  # rounds that the law holds so far
    for change in range(stages.changes[index], 0, -1):
        n, left = divmod(n, factor * factor)
        if left:
            part = law
            if left > 1:
                part = law.composed(left, guide.block(index, left * times, window, log_delta), kind)
            out.append((part.coarser(factor**change), 1))
        times *= factor * factor
        block = guide.block(index, times, window, log_delta)
        law = law.composed(factor * factor, block, kind).coarser(factor)
    out.append((law, n))
    return out


class Curve:
    """Delta as a function of epsilon around `centre`, from the laws of :func:`laws_for`.

    With m the mass at loss l, delta(e) is the sum of m (1 - e^(e - l)) over the losses above e, and
    what is added to be above the truth. All of it is held relative to e^log_delta, so that no size
    of delta underflows.

    Attributes
    ----------
    loss
        The grid's losses from 0 upwards.
    excess
        The variance that the grid has added.
    up, down
        The sums of m and of m e^(centre - l), over the losses from each one upwards.
    allowance, added
        What is added at each loss: for round-off, and in all.
    kept
        From this index on `down` is there; before, `centre` is too far above.
    """

    def __init__(
        self, laws: Laws, window: Window, centre: float, log_delta: float, kind: Any = np.float64
    ) -> None:
        self.centre, self.log_delta = centre, log_delta
        self.step = step = laws[0][0].step
        self.excess = sum(n * law.excess for law, n in laws)
        in_all = sum(n * law.rounds for law, n in laws)
        size, first = fitted(step, window, self.excess, in_all)
        spectrum: Any = 1.0
        for law, n in laws:
            spectrum = spectrum * power(np.fft.rfft(wrapped(law, size).astype(kind)), n)
        mass = np.fft.irfft(spectrum, size)
        unit = float(np.finfo(mass.dtype).eps) / 2
        mass = np.roll(mass, -(first % size)).astype(np.float64)
        noise = round_off(laws, mass, unit) + sum(n * law.noise for law, n in laws)
        log_mgf = sum(n * law.log_mgf for law, n in laws)
        skip = min(max(0, -first), size - 1)
        self.loss = (first + np.arange(skip, size)) * step
        scale = log_mgf - log_delta
        # below this loss one of the two weights would be too large
        far = max((scale - _KEPT) / window.tilt, centre - _KEPT)
        self.kept = min(int(np.searchsorted(self.loss, far)), self.loss.size - 1)
        clipped = np.maximum(self.loss, far) if self.kept else self.loss
        weight = np.exp(scale - window.tilt * clipped)
        behind = np.exp(centre - clipped)
        self._ahead = 1 / np.maximum(behind, math.exp(-_LARGEST_EXP))
        # rounding that all masses share raises both sums
        per_round = _POWER_ERROR + _MEAN_ERROR * (window.tilt + 1)
        one = mass[skip:] * weight * (1 + per_round * in_all)
        self.up = _sums_from(one)
        self.down = _sums_from(one * behind)
        if self.kept:
            self.allowance = _ROUND_OFF_SDS * noise * np.sqrt(_sums_from(weight * weight))
        else:
            # the weights fall geometrically, and so do their squares
            tail = -math.expm1(-2 * window.tilt * step)
            self.allowance = _ROUND_OFF_SDS * noise / math.sqrt(tail) * weight
        i = min(int(np.searchsorted(self.loss, centre)), self.loss.size - 1)
        if self.allowance[i] > _ROUND_OFF_SEEN * (self.up[i] - self.down[i]):
            self.allowance = _ROUND_OFF_SDS * noise * self._spread(weight, behind)
        top_tilt = min(window.top_tilt, steepest(window, step, self.excess))
        self.added = self.allowance + self._cut(laws, top_tilt, step * (first + size - 1))
        lost = sum(n * law.lost for law, n in laws)
        if lost > 0:
            # tilted mass that was low when rounds were put together: all of it right at the loss
            self.added = self.added + lost * weight

    def _spread(self, weight: Array, behind: Array) -> Array:
        """The root of the sum of (w (1 - e^(e - l)))^2 over the losses l above each e.

        A sharper bound on what round-off does to delta than the sum of w^2 alone.
        """
        square = weight * weight
        plain = _sums_from(square)
        crossed = _sums_from(square * behind) * self._ahead
        twice = _sums_from(square * behind * behind)
        twice *= np.exp(np.minimum(2 * (self.loss - self.centre), _LARGEST_EXP))
        spread = np.maximum(plain - 2 * crossed + twice, 0.0) + _UNIT * plain
        spread[: self.kept] = plain[: self.kept]
        return np.asarray(np.sqrt(spread))

    def _cut(self, laws: Laws, top_tilt: float, top: float) -> float:
        """Mass of infinite loss, and a bound on mass above the window (Chernoff)."""
        infinite = sum(n * law.infinite for law, n in laws)
        highest = sum(n * (law.first + law.mass.size - 1) for law, n in laws)
        cut = infinite * math.exp(-self.log_delta) if infinite else 0.0
        if highest * self.step > top * (1 + 1e-12):
            above = sum(n * law.log_moment(top_tilt) for law, n in laws) - top_tilt * top
            cut += math.exp(min(0.0, above) - self.log_delta)
        return cut

    def noisy(self, epsilon: float) -> bool:
        """Whether round-off may be felt at this epsilon."""
        i = min(int(np.searchsorted(self.loss, epsilon)), self.loss.size - 1)
        scale = 1.0
        if epsilon == self.centre:
            scale = self._at(i)
        return bool(self.allowance[i] > _ROUND_OFF_SHARE * scale)

    def _at(self, i: int) -> float:
        """Delta at `centre`, if the i-th loss is the first one above."""
        return float(self.up[i] - self.down[i] + self.added[max(0, i - 1)])

    def log_delta_at_centre(self) -> float | None:
        """log delta at epsilon = centre; None if the window has missed it."""
        i = int(np.searchsorted(self.loss, self.centre))
        if i >= self.loss.size or (i == 0 and self.loss[0] > self.centre + self.step):
            return None
        value = self._at(i)
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
