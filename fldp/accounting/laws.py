"""Tilted laws of the privacy loss on a grid, and how many rounds become few.

A law is tilted: its mass at loss l is that of the true law times e^(tilt l), scaled to sum 1. A
round on a fine grid is composed with itself r times and moved to a grid sqrt(r) times as coarse,
which adds as much variance as the rounds did; so the number of points stays the same, and T rounds
take log T such stages (Ghazi, Kamath, Kumar & Manurangsi 2022, "evolving discretization").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fldp.accounting.guide import Part, Window
from fldp.accounting.pairs import MAX_POINTS, too_fine

Array = NDArray[np.float64]

# How many cells outside its window's ends a law on a grid is kept, at least.
_GRID_CELLS = 14


class Law:
    """The tilted law of the loss of some rounds, on the multiples of `step`.

    Attributes
    ----------
    rounds
        How many rounds it holds.
    first, mass
        `mass[i]` is the tilted mass at loss (first + i) * step.
    log_mgf
        log E[e^(tilt L)]: what scaling to sum 1 has divided by.
    infinite
        Mass whose loss counts as infinite.
    lost
        Tilted mass that was low, and is not represented.
    excess
        The variance that moving to the grid has put in, under the tilt.
    noise
        Standard deviation of a point's round-off.
    """

    def __init__(self, parts: Sequence[Part], step: float, window: Window) -> None:
        tilt = window.tilt
        self.step, self.tilt, self.rounds = step, tilt, 1
        self.noise, self.lost = 0.0, 0.0
        first, mass, spread, self.infinite = _merged(parts, step, window)
        self.first = first
        loss = step * (first + np.arange(mass.size))
        if not mass.any():
            raise too_fine(math.inf)  # all of it is beyond the window
        with np.errstate(divide="ignore"):
            self._start = np.log(mass), loss
        self._stages: list[tuple[int, float]] = []
        self.log_mgf = self.log_moment(tilt)
        self.mass = np.exp(self._start[0] + tilt * loss - self.log_mgf)
        ratio = np.divide(spread, mass, out=np.zeros_like(mass), where=mass > 0)
        self.excess = float((self.mass * ratio).sum())

    def log_moment(self, t: float) -> float:
        """log E[e^(tL)], or more: from the masses of the first grid, whose tails hold no noise."""
        log_mass, loss = self._start
        e = log_mass + t * loss
        top = float(e.max())
        total = top + math.log(float(np.exp(e - top).sum()))
        for times, step in self._stages:
            total = times * total + (_moment_growth(t, step) if step else 0.0)
        return total

    def composed(self, times: int, window: Window, kind: Any) -> Law:
        """The law of `times` such losses, on the window as the grid has it."""
        size, first = fitted(self.step, window, times * self.excess, times * self.rounds)
        spectrum = np.fft.rfft(wrapped(self, size).astype(kind))
        mass = np.fft.irfft(power(spectrum, times), size)
        out = self._copy()
        out._stages.append((times, 0.0))
        out.rounds = times * self.rounds
        out.first, out.mass = first, np.roll(mass, -(first % size)).astype(np.float64)
        out.log_mgf, out.excess = times * self.log_mgf, times * self.excess
        unit = float(np.finfo(mass.dtype).eps) / 2
        out.noise = round_off([(self, times)], out.mass, unit) + times * self.noise
        out.infinite, out.lost = times * self.infinite, times * self.lost
        # what passed an end of the window came in again at the other one (Chernoff)
        if first + size < times * (self.first + self.mass.size - 1) + 1:
            t = min(window.top_tilt, steepest(window, self.step, out.excess))
            out.infinite += _chernoff(out.log_moment(t) - t * self.step * (first + size - 1))
        if first > times * self.first:
            t = max(window.low_tilt, self.tilt - steepest(window, self.step, out.excess))
            log_share = out.log_moment(t) - out.log_mgf
            out.lost += _chernoff(log_share + (self.tilt - t) * self.step * first)
        return out

    def coarser(self, factor: int) -> Law:
        """The same law moved to multiples of `factor` steps, by connecting the dots."""
        if factor == 1:
            return self
        step, tilt = factor * self.step, self.tilt
        first = self.first // factor
        rows = -(-(self.first + self.mass.size - first * factor) // factor)
        table = np.zeros(rows * factor)
        start = self.first - first * factor
        table[start : start + self.mass.size] = self.mass
        table = table.reshape(rows, factor)
        ahead = self.step * np.arange(factor)  # of the lower of the two new points
        up = np.expm1(-ahead) / math.expm1(-step)
        stays, goes = (1 - up) * np.exp(-tilt * ahead), up * np.exp(tilt * (step - ahead))
        out = self._copy()
        out._stages.append((1, step))
        out.step, out.first = step, first
        out.mass = np.zeros(rows + 1)
        out.mass[:-1] = (table * stays).sum(axis=1)
        out.mass[1:] += (table * goes).sum(axis=1)
        total = float(out.mass.sum())
        out.mass /= total
        out.log_mgf += math.log(total)
        spread = (table * (stays * up)).sum() * step * step / total
        out.excess += max(0.0, float(spread))  # round-off may make it negative
        out.noise *= math.sqrt(float((stays**2).sum() + (goes**2).sum())) / total
        return out

    def _copy(self) -> Law:
        out = object.__new__(Law)
        out.__dict__.update(self.__dict__)
        out._stages = list(self._stages)
        return out


def fitted(step: float, window: Window, excess: float, rounds: int) -> tuple[int, int]:
    """Size and first index of a window on the grid, widened by what the grid adds to the spread."""
    margin = min(_cells(window, step, excess), rounds + 2)
    size = _smooth(max(64.0, (window.high - window.low) / step + 2 * margin + 2))
    return size, math.floor(window.low / step - margin)


def _cells(window: Window, step: float, excess: float) -> float:
    """How many cells the grid may move a sum by, but for a share of delta."""
    return window.sds * math.sqrt(excess) / step + _GRID_CELLS


def steepest(window: Window, step: float, excess: float) -> float:
    """The tilt that bounds best how often the grid moves a sum by more than `_cells` (Poisson).

    A bound on a tail by a steeper tilt would be ruled by what the grid adds.
    """
    moves = excess / step**2
    return math.log1p(_cells(window, step, excess) / moves) / step if moves > 0 else math.inf


def wrapped(law: Law, size: int) -> Array:
    """The law's mass around a circle of `size` points."""
    if law.mass.size <= size:
        out = np.zeros(size)
        out[: law.mass.size] = law.mass
        return np.roll(out, law.first % size)
    places = (law.first + np.arange(law.mass.size)) % size
    return np.asarray(np.bincount(places, law.mass, size), np.float64)


def round_off(laws: Sequence[tuple[Law, int]], mass: Array, unit: float) -> float:
    """Standard deviation, per point, of the round-off of one composition.

    A transform's relative error is near unit * sqrt(log2 size) in the mean square, a power repeats
    it n times; over the frequencies these errors are taken as independent. That is the one place
    where the kernel argues by probability and not by a bound: its users take 8 of these.
    """
    root_log = math.sqrt(math.log2(mass.size))
    times = sum(n * (1 + root_log * math.sqrt(float((w.mass * w.mass).sum()))) for w, n in laws)
    back = root_log * math.sqrt(float((mass * mass).sum()))
    return unit * (times + back) / math.sqrt(mass.size)


def power(x: Any, n: int) -> Any:
    """x to the n-th, elementwise, by squaring."""
    out = np.ones_like(x)
    while True:
        if n & 1:
            out = out * x
        n >>= 1
        if not n:
            return out
        x = x * x


def _chernoff(log_bound: float) -> float:
    return math.exp(min(0.0, log_bound))


def _merged(parts: Sequence[Part], step: float, window: Window) -> tuple[int, Array, Array, float]:
    """Mass and spread of a mixture on the grid."""
    built = [(weight, pair.cells(step, window.low, window.high)) for weight, pair in parts]
    first = min(cells.first for _, cells in built)
    size = max(cells.first + cells.mass.size for _, cells in built) - first
    if size > MAX_POINTS:
        raise too_fine(size)
    out = np.zeros((2, size))
    for weight, (start, mass, spread, _) in built:
        at = slice(start - first, start - first + mass.size)
        out[0, at] += weight * mass
        out[1, at] += weight * spread
    return first, out[0], out[1], sum(weight * cells.infinite for weight, cells in built)


def _moment_growth(t: float, step: float) -> float:
    """By how much, at most, connecting dots a `step` apart raises log E[e^(tL)]."""
    ahead = step * np.concatenate([np.linspace(0, 1, 201), np.geomspace(1e-6, 0.1, 100)])
    up = np.minimum(np.expm1(-ahead) / math.expm1(-step), 1.0)
    with np.errstate(divide="ignore"):
        growth = np.logaddexp(np.log1p(-up) - t * ahead, np.log(up) + t * (step - ahead))
    # between two of these places it may be a little higher still
    return max(0.0, float(growth.max()) * 1.001)


def _smooth(n: float) -> int:
    """The next product of 2, 3 and 5 at or above n: fast for the FFT."""
    if not n <= MAX_POINTS:
        raise too_fine(n)
    return min(f * (1 << max(0, math.ceil(math.log2(n / f)))) for f in (1, 3, 5, 9, 15, 25, 45))
