"""Tilted laws of the privacy loss on a grid, and how many rounds become few.

A law is tilted: its mass at loss l is that of the true law times e^(tilt l), scaled to sum 1. A
round on a fine grid is composed with itself r times and moved to a grid sqrt(r) times as coarse,
which adds as much variance as the rounds did; so the number of points stays the same, and T rounds
take log T such stages (Ghazi, Kamath, Kumar & Manurangsi 2022, "evolving discretization").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fldp.accounting.gaussian import Array
from fldp.accounting.guide import Part, Window, log_sum
from fldp.accounting.pairs import MAX_POINTS, Cells, too_fine

# The precision of the transforms.
Kind = type[np.float64] | type[np.longdouble]

# How many cells outside its window's ends a law on a grid is kept, at least.
_GRID_CELLS = 14
# No window has fewer points: a transform of these costs nothing.
_FEWEST_POINTS = 64
# Odd factors of sizes that are fast for the FFT; it slows down for primes above 5.
_ODD_FACTORS = (1, 3, 5, 9, 15, 25, 45)
# How far between two dots `_moment_growth` looks, as shares of their distance: evenly, and next to
# the lower one, where steep tilts have their largest growth; and by how much it may miss that.
_BETWEEN_DOTS = np.concatenate([np.linspace(0, 1, 201), np.geomspace(1e-6, 0.1, 100)])
_MISSED = 1e-3


@dataclass(eq=False)
class Law:
    """The tilted law of the loss of some rounds, on the multiples of `step`.

    Parameters
    ----------
    step, tilt
        Of the grid, and of the law.
    first, mass
        `mass[i]` is the tilted mass at loss (first + i) * step.
    log_mgf
        log E[e^(tilt L)]: what scaling to sum 1 has divided by.
    excess
        The variance that moving to the grid has put in, under the tilt.
    infinite
        Mass whose loss counts as infinite; not tilted.
    start
        log mass and loss of one round on the first grid, not tilted.
    rounds
        How many rounds it holds.
    noise
        Standard deviation of a point's round-off.
    lost
        Tilted mass that was low, and is not represented.
    stages
        How it came from `start`: each time composed so often, and moved to a grid of this step (0
        if it stayed on its own).
    """

    step: float
    tilt: float
    first: int
    mass: Array
    log_mgf: float
    excess: float
    infinite: float
    start: tuple[Array, Array]
    rounds: int = 1
    noise: float = 0.0
    lost: float = 0.0
    stages: tuple[tuple[int, float], ...] = ()

    @property
    def last(self) -> int:
        """The index of the last mass: its loss is last * step."""
        return self.first + self.mass.size - 1

    def log_moment(self, t: float) -> float:
        """log E[e^(tL)], or more: from the masses of the first grid, whose tails hold no noise."""
        total = log_sum(self.start[0] + t * self.start[1])
        for times, step in self.stages:
            total = times * total + (_moment_growth(t, step) if step else 0.0)
        return total

    def composed(self, times: int, window: Window, kind: Kind) -> Law:
        """The law of `times` such losses, on the window as the grid has it."""
        excess = times * self.excess
        size, first = fitted(self.step, window, excess, times * self.rounds)
        mass, noise = summed([(self, times)], size, first, kind)
        infinite = times * self.infinite
        lost = times * self.lost
        # What passed an end of the window came in again at the other one. Above, its true mass
        # (at most, by Chernoff) counts as infinite loss. Below, tilted mass now stands at a high
        # loss, where taking the tilt off leaves less of it: it may count for too little later, so
        # it is kept account of.
        last = first + size - 1
        steep = steepest(window, self.step, excess)
        if last < times * self.last:
            t = min(window.top_tilt, steep)
            log_share = times * self.log_moment(t) - t * self.step * last
            infinite += math.exp(min(0.0, log_share))
        if first > times * self.first:
            t = max(window.low_tilt, self.tilt - steep)
            log_share = times * self.log_moment(t) - times * self.log_mgf
            lost += math.exp(min(0.0, log_share + (self.tilt - t) * self.step * first))
        return replace(
            self,
            first=first,
            mass=mass,
            noise=noise,
            log_mgf=times * self.log_mgf,
            excess=excess,
            infinite=infinite,
            rounds=times * self.rounds,
            lost=lost,
            stages=(*self.stages, (times, 0.0)),
        )

    def coarser(self, factor: int) -> Law:
        """The same law moved to multiples of `factor` steps, by connecting the dots."""
        if factor == 1:
            return self
        step = factor * self.step
        first = self.first // factor
        rows = self.last // factor - first + 1
        # a row holds the old points from one new point up to the next
        points = np.zeros(rows * factor)
        start = self.first - first * factor
        points[start : start + self.mass.size] = self.mass
        table = points.reshape(rows, factor)
        ahead = self.step * np.arange(factor)  # of the lower of the two new points
        up = np.expm1(-ahead) / math.expm1(-step)
        # masses move under the law itself; the tilt of where they come from is taken off, that of
        # where they go is put on
        stays = (1 - up) * np.exp(-self.tilt * ahead)
        goes = up * np.exp(self.tilt * (step - ahead))
        mass = np.zeros(rows + 1)
        mass[:-1] = (table * stays).sum(axis=1)
        mass[1:] += (table * goes).sum(axis=1)
        total = float(mass.sum())
        spread = float((table * (stays * up)).sum()) * step * step / total
        growth = math.sqrt(float((stays**2).sum() + (goes**2).sum())) / total
        return replace(
            self,
            step=step,
            first=first,
            mass=mass / total,
            log_mgf=self.log_mgf + math.log(total),
            excess=self.excess + max(0.0, spread),  # round-off may make it negative
            noise=self.noise * growth,
            stages=(*self.stages, (1, step)),
        )


# Laws on one grid, each with how many times it is composed with itself.
Laws = Sequence[tuple[Law, int]]


def law_of_round(parts: Sequence[Part], step: float, window: Window) -> Law:
    """The law of one round on a grid.

    Parameters
    ----------
    parts
        The round: pairs with their weights.
    step
        Of the grid.
    window
        For one round; gives the tilt, too.

    Returns
    -------
    Law
        Never with a smaller delta than the round has.

    Raises
    ------
    OutOfReach
        If it takes more points than there may be.

    Examples
    --------
    >>> from fldp.accounting.pairs import Shifted
    >>> window = Window(1.0, -5.0, 2.0, -1.0, 1.0, 0.0, 3.0, -20.0, 8.0)
    >>> law = law_of_round([(1.0, Shifted(2.0))], 0.25, window)
    >>> law.first * law.step, law.last * law.step, round(float(law.mass.sum()), 9)
    (-0.5, 0.5, 1.0)
    """
    cells = _merged(parts, step, window)
    if not cells.mass.any():
        raise too_fine(math.inf)  # all of it is beyond the window
    loss = np.asarray(step * (cells.first + np.arange(cells.mass.size)), np.float64)
    with np.errstate(divide="ignore"):
        log_mass = np.log(cells.mass)
    log_mgf = log_sum(log_mass + window.tilt * loss)
    mass = np.exp(log_mass + window.tilt * loss - log_mgf)
    ratio = np.divide(cells.spread, cells.mass, out=np.zeros_like(mass), where=cells.mass > 0)
    excess = float((mass * ratio).sum())
    start = log_mass, loss
    return Law(step, window.tilt, cells.first, mass, log_mgf, excess, cells.infinite, start)


def _merged(parts: Sequence[Part], step: float, window: Window) -> Cells:
    """Mass and spread of a mixture on the grid."""
    built = [(weight, pair.cells(step, window.low, window.high)) for weight, pair in parts]
    first = min(cells.first for _, cells in built)
    size = max(cells.first + cells.mass.size for _, cells in built) - first
    if size > MAX_POINTS:
        raise too_fine(size)
    mass, spread = np.zeros((2, size))
    for weight, cells in built:
        at = slice(cells.first - first, cells.first - first + cells.mass.size)
        mass[at] += weight * cells.mass
        spread[at] += weight * cells.spread
    return Cells(first, mass, spread, sum(weight * cells.infinite for weight, cells in built))


def fitted(step: float, window: Window, excess: float, rounds: int) -> tuple[int, int]:
    """A window on the grid, widened by what the grid adds to the spread.

    Parameters
    ----------
    step
        Of the grid.
    window
        Of the sum.
    excess
        The variance that moving to the grid has added to the sum.
    rounds
        How many rounds the sum holds.

    Returns
    -------
    size, first : int
        How many points it has, and the index of the first.

    Raises
    ------
    OutOfReach
        If there are more than there may be.

    Examples
    --------
    >>> fitted(0.1, Window(1.0, -5.0, 2.0, -1.0, 1.0, 0.0, 3.0, -20.0, 8.0), 0.0, rounds=9)
    (64, -21)
    """
    # a round moves by one cell at most, to either side
    margin = min(_cells(window, step, excess), rounds + 2)
    points = (window.high - window.low) / step + 2 * margin + 2
    return _fast_size(max(_FEWEST_POINTS, points)), math.floor(window.low / step - margin)


def _cells(window: Window, step: float, excess: float) -> float:
    """How many cells the grid may move a sum by, but for a share of delta."""
    return window.sds * math.sqrt(excess) / step + _GRID_CELLS


def steepest(window: Window, step: float, excess: float) -> float:
    """The tilt that bounds best how often the grid moves a sum by more than `_cells` (Poisson).

    A bound on a tail by a steeper tilt would be ruled by what the grid adds.

    Parameters
    ----------
    window, step, excess
        As in :func:`fitted`.

    Returns
    -------
    float
        Infinite where the grid moves nothing.

    Examples
    --------
    >>> steepest(Window(1.0, -5.0, 2.0, -1.0, 1.0, 0.0, 3.0, -20.0, 8.0), 0.1, 0.0)
    inf
    """
    moves = excess / step**2
    return math.log1p(_cells(window, step, excess) / moves) / step if moves > 0 else math.inf


def _fast_size(n: float) -> int:
    """The next product of 2, 3 and 5 at or above n."""
    if not n <= MAX_POINTS:
        raise too_fine(n)
    return min(f * (1 << max(0, math.ceil(math.log2(n / f)))) for f in _ODD_FACTORS)


def summed(laws: Laws, size: int, first: int, kind: Kind) -> tuple[Array, float]:
    """Tilted masses of the sum of all losses, on a circle.

    Parameters
    ----------
    laws
        On one grid, each with how many times it is composed with itself.
    size, first
        Points of the circle, and the index at which it begins.
    kind
        The precision of the transforms.

    Returns
    -------
    mass, noise
        The masses, of shape (size,), and the standard deviation of each one's round-off.

    Examples
    --------
    >>> start = np.log(np.array([0.5, 0.5])), np.array([0.0, 1.0])
    >>> coin = Law(1.0, 0.0, 0, np.array([0.5, 0.5]), 0.0, 0.0, 0.0, start)
    >>> summed([(coin, 2)], size=4, first=0, kind=np.float64)[0].round(12).tolist()
    [0.25, 0.5, 0.25, 0.0]
    """
    spectrum: Any = 1.0
    for law, n in laws:
        spectrum = spectrum * _power(np.fft.rfft(_wrapped(law, size).astype(kind)), n)
    mass = np.roll(np.fft.irfft(spectrum, size), -(first % size))
    noise = round_off(laws, mass) + sum(n * law.noise for law, n in laws)
    return mass.astype(np.float64), noise


def _wrapped(law: Law, size: int) -> Array:
    """The law's mass around a circle of `size` points, index 0 first."""
    if law.mass.size > size:
        places = (law.first + np.arange(law.mass.size)) % size
        return np.asarray(np.bincount(places, law.mass, size), np.float64)
    out = np.zeros(size)
    out[: law.mass.size] = law.mass
    return np.roll(out, law.first % size)


def _power(x: Any, n: int) -> Any:
    """x to the n-th, elementwise, by squaring: no complex logarithm loses its branch."""
    out = np.ones_like(x)
    while True:
        if n & 1:
            out = out * x
        n >>= 1
        if not n:
            return out
        x = x * x


def round_off(laws: Laws, mass: NDArray[Any]) -> float:
    """Standard deviation, per point, of the round-off of one composition.

    A transform's relative error is near unit * sqrt(log2 size) in the mean square, a power repeats
    it n times; over the frequencies these errors are taken as independent. That is the one place
    where the kernel argues by probability and not by a bound: its users take 8 of these.

    Parameters
    ----------
    laws
        What was composed, each with its number of times.
    mass
        What came out, in the precision of the transforms, of shape (size,).

    Returns
    -------
    float
        Small beside the masses' root mean square, by the unit of that precision.
    """
    unit = float(np.finfo(mass.dtype).eps) / 2
    root_log = math.sqrt(math.log2(mass.size))
    times = sum(n * (1 + root_log * math.sqrt(float((w.mass * w.mass).sum()))) for w, n in laws)
    back = root_log * math.sqrt(float((mass * mass).sum()))
    return unit * (times + back) / math.sqrt(mass.size)


def _moment_growth(t: float, step: float) -> float:
    """By how much, at most, connecting dots a `step` apart raises log E[e^(tL)]."""
    ahead = step * _BETWEEN_DOTS
    up = np.minimum(np.expm1(-ahead) / math.expm1(-step), 1.0)
    with np.errstate(divide="ignore"):
        growth = np.logaddexp(np.log1p(-up) - t * ahead, np.log(up) + t * (step - ahead))
    # between two of these places it may be a little higher still
    return max(0.0, float(growth.max()) * (1 + _MISSED))
