"""Privacy-loss distributions: the kernel behind :mod:`fldp.accounting`.

One round is described by its dominating pair (P, Q), the two output distributions that differ most
between neighbouring populations. With L = log(P/Q) under P, summed over the rounds,
delta(epsilon) = E[(1 - e^(epsilon - L))_+] (Sommer et al. 2019; Koskela et al. 2020). The steps:

1. A saddle point (Alghamdi et al. 2022) predicts the answer, and from it grid step and window.
2. Every cell of the loss axis keeps its P- and Q-mass and moves both to its two ends: "connect
   the dots" (Doroshenko et al. 2022), never below the true delta.
3. The step is tilted by e^(theta L), so that the answer lies in the bulk of the sum: one FFT,
   power T and its inverse then have a small *relative* error however small delta is.
4. Mass above the window (Chernoff), truncated mass and 8 standard deviations of the FFT's round-off
   are added; mass that wraps from below only adds to delta. So the result is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fldp.pairs import MAX_POINTS, OutOfReach, Pair, too_fine

Array = NDArray[np.float64]
Part = tuple[float, Pair]  # its weight in the mixture
Round = tuple[Sequence[Part], int]  # a mixture of parts, how often

ACCURACY = 2.5e-4  # aimed looseness of the grid, relative in epsilon
_TRUNCATION = 1e-7  # share of delta spent on what is cut off
_TILTS = np.geomspace(1e-5, 1e11, 62)
_NEAR = 1 + np.concatenate([-np.geomspace(0.5, 0.01, 8), np.geomspace(0.01, 0.7, 8)])


def _merged(parts: Sequence[Part], h: float, reach: float) -> tuple[int, Array, Array, float]:
    built = [(weight, pair.cells(h, reach)) for weight, pair in parts]
    first = min(cells.first for _, cells in built)
    out = np.zeros((2, max(cells.first + cells.mass.size for _, cells in built) - first))
    for weight, (start, mass, spread, _) in built:
        at = slice(start - first, start - first + mass.size)
        out[0, at] += weight * mass
        out[1, at] += weight * spread
    return first, out[0], out[1], sum(weight * cells.infinite for weight, cells in built)


class _Sum:
    """Guide to the sum of all losses: log E[e^(tS)] by quadrature, and its saddle points."""

    def __init__(self, rounds: Sequence[Round], log_delta: float) -> None:
        self.times = sum(n for _, n in rounds)
        self.reach = math.sqrt(2 * (math.log(self.times / _TRUNCATION) - min(log_delta, 0.0)))
        self.nodes: list[tuple[Array, Array, int]] = []
        for parts, n in rounds:
            losses, weights = [], []
            for weight, pair in parts:
                at, log_weight = pair.nodes(self.reach)
                losses.append(at)
                weights.append(log_weight + math.log(weight))
            loss, log_weight = np.concatenate(losses), np.concatenate(weights)
            self.nodes.append((loss, log_weight, n))
        self.top = sum(n * float(loss.max()) for loss, _, n in self.nodes)

    def cumulants(self, t: Array) -> Array:
        """log E[e^(tS)] and its first two derivatives, shape (3, len(t))."""
        out = np.zeros((3, t.size))
        for loss, log_weight, n in self.nodes:
            e = t[:, None] * loss + log_weight
            top = e.max(1)
            e = np.exp(e - top[:, None])
            total = e.sum(1)
            mean = e @ loss / total
            var = np.maximum(e @ (loss * loss) / total - mean * mean, 0.0)
            out += n * np.stack([top + np.log(total), mean, var])
        return out

    def saddle(self, log_delta: float | None, epsilon: float = 0.0) -> tuple[float, ...]:
        """Tilt, epsilon, log delta, log E[e^(tilt S)] and spread of S."""
        t = _TILTS
        for size in (12, 12, 0):
            k0, k1, k2 = self.cumulants(t)
            var = k2 + 1 / t**2 + 1 / (t + 1) ** 2
            eps, log_pole = k1 - 1 / t - 1 / (t + 1), np.log(t * (t + 1))
            if log_delta is not None:
                bound = (k0 - log_delta - log_pole) / t
                i = int(np.argmin(bound))
                eps = bound - 0.5 * np.log(2 * math.pi * var) / t
            else:
                i = int(np.argmin(np.abs(eps - epsilon)))
            if size:
                t = np.geomspace(t[max(0, i - 1)], t[min(i + 1, t.size - 1)], size)
        log_d = k0 - t * eps - log_pole - 0.5 * np.log(2 * math.pi * var)
        return tuple(float(v[i]) for v in (t, eps, log_d, k0, k2**0.5))

    def window(self, tilt: float, epsilon: float, log_delta: float) -> tuple[float, ...]:
        """A tilt, the ends of the shortest window that does, and a tilt for the mass above it."""
        tilts = tilt * np.array([1.0, 0.8, 0.6, 0.45, 0.3])
        t = np.concatenate([-_TILTS[::-1], np.outer(tilts, _NEAR).ravel(), _TILTS])
        k, k_tilt = self.cumulants(t)[0], self.cumulants(tilts)[0]
        tops = (k - log_delta - math.log(_TRUNCATION))[-_TILTS.size :] / _TILTS
        # both ends lie as far out as tilted mass that wraps could be felt in delta
        height = k_tilt - tilts * epsilon
        felt = math.log(1e-5) + log_delta - height
        best = (math.inf, tilt, 0.0, 0.0)
        for i in np.flatnonzero(height <= height[0] + 5):
            low, high = t < tilts[i] * 0.999, t > tilts[i] * 1.001
            start = float(((felt[i] - k[low] + k_tilt[i]) / (tilts[i] - t[low])).max())
            end = float(((k[high] - k_tilt[i] - felt[i]) / (t[high] - tilts[i])).min())
            end = max(min(end, self.top), float(tops.min()))
            best = min(best, (end - start, float(tilts[i]), start, end))
        return (*best[1:], float(_TILTS[int(np.argmin(tops))]))


def estimate(rounds: Sequence[Round], delta: float) -> float:
    """Epsilon at the saddle point: a guess to start a search from, no bound; may be negative."""
    return _Sum(rounds, math.log(delta)).saddle(math.log(delta))[1]


def ceiling(rounds: Sequence[Round], delta: float) -> float:
    """Epsilon from moments (Rényi): above :func:`solve`, in a tenth of its time."""
    t = _TILTS
    moments = _Sum(rounds, math.log(delta)).cumulants(t)[0]
    return float(((moments - math.log(delta) + t * np.log(t) - (t + 1) * np.log1p(t)) / t).min())


def _total_variation(rounds: Sequence[Round]) -> float:
    """Delta at epsilon = 0, by adding up the rounds."""
    return sum(n * weight * pair.variation for parts, n in rounds for weight, pair in parts)


def solve(
    rounds: Sequence[Round],
    *,
    delta: float | None = None,
    epsilon: float | None = None,
    accuracy: float = ACCURACY,
) -> float:
    """Upper bound, in one direction, on epsilon at `delta` or on delta at `epsilon`.

    `rounds` holds what ran: each a mixture of parts (weight, kind, q, z) and a number of rounds.
    With `delta`, `epsilon` is a first guess. A delta below 1e-100 is reported as 1e-100.

    >>> from fldp.pairs import Subsampled
    >>> 4.377 < solve([([(1.0, Subsampled("remove", 1.0, 1.0))], 1)], delta=1e-5) < 4.381
    True
    """
    log_goal = None if delta is None else math.log(delta)
    if delta is not None and delta >= _total_variation(rounds):
        return 0.0
    total = _Sum(rounds, -40.0 if log_goal is None else log_goal)
    if log_goal is None or epsilon is not None:
        tilt, guess, log_d, _, sd = total.saddle(None, epsilon or 0.0)
        guess = epsilon or 0.0
    else:
        tilt, guess, log_d, _, sd = total.saddle(log_goal)
        if guess <= 0 and solve(rounds, epsilon=0.0) <= (delta or 0.0):
            return 0.0
        guess = max(guess, 0.0)
    if log_goal is not None:
        log_d = log_goal
    if log_goal is None:
        if total.top <= guess or log_d < -230:
            return 1e-100
        total = _Sum(rounds, log_d)
    # far from a normal law the saddle point misleads: look coarsely first, then again from there
    bend = total.cumulants(np.array([tilt, 1.2 * tilt]))[2]
    bent = bool(bend[1] > 1.5 * bend[0])
    dial, wide, h = 64.0 if bent and epsilon is None else 1.0, 0.0, math.inf
    for _ in range(60):
        near = max(guess, 0.02 * sd, 1e-8)
        aim = dial * accuracy * near
        h = min(h, math.sqrt(12 * aim / (total.times * (tilt + 1))), max(sd, 1e-12) / 4)
        t, low, high, t_top = total.window(tilt, guess, log_d)
        sums = _Composed(rounds, h, (t, t_top), total.reach)
        excess = sums.excess * (tilt + 1) / 2
        if excess > 1.6 * aim:
            h /= min(8.0, max(1.1, excess / (1.6 * aim)))
            continue
        low, high = min(low, 0.98 * guess - 8 * h) - wide, max(high, guess + 8 * h) + wide
        sums.fit(low, high)
        found = sums.delta(guess) if delta is None else sums.epsilon(delta, guess)
        if found is None:
            wide += high - low
        elif delta is None:
            if dial <= 1 and abs(math.log(found) - log_d) < 2e-3:
                return found
            log_d, dial = math.log(found), min(dial / 4, 1.0)
        elif dial <= 1 and (abs(found - guess) <= 0.15 * found or found < 1e-8):
            return found
        else:
            right = dial > 1 and abs(found - guess) <= 0.05 * found
            dial = 1.0 if right else (0.3 if found > 0.25 else 0.08)
            guess, h = found, found / 8
            tilt, _, _, _, sd = total.saddle(None, found)
    raise OutOfReach(
        f"no answer within numerical range for epsilon={epsilon}, delta={delta}: "
        "use more noise or fewer rounds"
    )


def _smooth(n: float) -> int:
    """The next product of 2, 3 and 5 at or above n: fast for the FFT."""
    if not n <= MAX_POINTS:
        raise too_fine(n)
    return min(f * (1 << max(0, math.ceil(math.log2(n / f)))) for f in (1, 3, 5, 9, 15, 25, 45))


class _Composed:
    """The tilted step on multiples of `h`, and its sum over the rounds on a window of them."""

    def __init__(
        self, rounds: Sequence[Round], h: float, tilts: tuple[float, float], reach: float
    ) -> None:
        self.h, (self.tilt, self.t_top), self.times = h, tilts, 0
        self.log_mgf = self.log_top = self.infinite = self.excess = 0.0
        self.built: list[tuple[int, Array, int]] = []
        for parts, n in rounds:
            start, mass, spread, infinite = _merged(parts, h, reach)
            at = h * (start + np.arange(mass.size))
            with np.errstate(divide="ignore"):
                log_mass = np.log(mass)
            logs = []
            for t in (self.t_top, self.tilt):
                e = log_mass + t * at
                top = float(e.max())
                e = np.exp(e - top)
                logs.append(n * (top + math.log(float(e.sum()))))
            e /= e.sum()
            self.log_top, self.log_mgf = self.log_top + logs[0], self.log_mgf + logs[1]
            ratio = np.divide(spread, mass, out=np.zeros_like(mass), where=mass > 0)
            self.excess += n * float((e * ratio).sum())  # not BLAS, which may start threads
            self.built.append((start, e, n))
            self.infinite += n * infinite
            self.times += n

    def fit(self, low: float, high: float) -> None:
        """Choose the window, wider than [low, high] by how far the grid itself moves the sum."""
        h, flips = self.h, self.excess / self.h**2
        margin = min(self.times, 7 * math.sqrt(flips) + 12) + 2
        self.first = math.floor(low / h - margin)
        self.size = size = _smooth(max(64.0, (high - low) / h + 2 * margin + 2))
        self.steps = [
            (np.bincount((start + np.arange(e.size)) % size, e, size), n)
            for start, e, n in self.built
        ]
        above = self.log_top - self.t_top * h * (self.first + size - 1)
        self.extra = self.infinite + math.exp(min(0.0, above))

    def _sums(self, centre: float, kind: Any = np.float64) -> tuple[Any, Any, Any]:
        """Losses, and the sums of mass and mass * e^(centre - loss) from each of them upwards."""
        total: Any = 1.0
        times, root_log = 0.0, math.sqrt(math.log2(self.size))
        for e, n in self.steps:
            total = total * _power(np.fft.rfft(e.astype(kind)), n)
            times += n * (1 + root_log * math.sqrt(float((e * e).sum())))
        mass = np.fft.irfft(total, self.size)
        unit, mass = float(np.finfo(mass.dtype).eps) / 2, mass.astype(np.float64)
        # round-off: independent over the frequencies, with this standard deviation per point
        spread = root_log * math.sqrt(float((mass * mass).sum()))
        noise = unit * (times + spread) / math.sqrt(self.size)
        start = math.ceil(max(0.0, centre - 300 / (self.tilt + 1)) / self.h)
        skip = max(0, start - self.first)
        loss = (self.first + np.arange(skip, self.size)) * self.h
        weight = np.exp(self.log_mgf - self.tilt * loss)
        one = np.roll(mass, -(self.first % self.size))[skip:] * weight
        up, down, square = (
            np.cumsum(v[::-1])[::-1] for v in (one, one * np.exp(centre - loss), weight**2)
        )
        allowance = 8 * noise * np.sqrt(square)
        i = min(int(np.searchsorted(loss, centre)), loss.size - 1)
        if allowance[i] > 1e-4 * (up[i] - down[i]) and kind is np.float64:
            return self._sums(centre, np.longdouble)
        return loss, up * (1 + 4e-15 * self.times) + allowance + self.extra, down

    def delta(self, epsilon: float) -> float | None:
        loss, up, down = self._sums(epsilon)
        i = int(np.searchsorted(loss, epsilon))
        if i >= loss.size or (i == 0 and loss[0] > epsilon + self.h):
            return None
        return min(1.0, max(1e-100, float(up[i] - down[i])))

    def epsilon(self, delta: float, centre: float) -> float | None:
        loss, up, down = self._sums(centre)
        fits = up - np.exp(np.minimum(loss - centre, 700.0)) * down <= delta
        i = int(np.argmax(fits))
        if not fits[i] or (i == 0 and loss[0] > self.h):
            return None
        if i == 0:
            return 0.0
        if up[i] <= delta or down[i] <= 0:
            return float(loss[i])
        found = centre + math.log(float(up[i] - delta) / float(down[i]))
        return min(float(loss[i]), max(float(loss[i - 1]), found))


def _power(x: Any, n: int) -> Any:
    out = np.ones_like(x)
    while True:
        if n & 1:
            out = out * x
        n >>= 1
        if not n:
            return out
        x = x * x
