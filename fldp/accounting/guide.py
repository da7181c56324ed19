"""A guide to the sum of privacy losses: its moments, and where its mass lies.

Moments of one round come from a quadrature of its dominating pair, so that those of T rounds cost
nothing more. They tell the kernel (:mod:`fldp.accounting.pld`) which tilt, window and grid step to
take, and start every search. Nothing here is a bound by itself; the kernel adds up what it cuts
off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fldp.accounting.pairs import Pair

Array = NDArray[np.float64]
Part = tuple[float, Pair]  # a pair and its weight in the mixture
Round = tuple[Sequence[Part], int]  # a mixture of pairs, and how often it ran

# Share of delta that mass cut from the tails may take.
TRUNCATION = 1e-7
# Share of delta that mass outside the window may move it by.
_FELT = 1e-5
# The tilts at which moments are looked up: from losses of 1e6 to losses of 1e-16.
_TILTS = np.geomspace(1e-7, 1e17, 49)
# Where a window is looked for, as multiples of the saddle's tilt: densely around the candidates
# below, and far out on both sides for laws that are far from normal.
_AROUND = np.concatenate(
    [
        -np.geomspace(1e5, 0.1, 19),
        np.geomspace(1e-4, 0.28, 9),
        np.linspace(0.3, 1.7, 36),
        np.geomspace(1.8, 1e6, 25),
    ]
)
# A smaller tilt may do with a shorter window: the candidates, as multiples of the saddle's, and by
# how much the answer's tilted mass may then be smaller (more costs digits).
_CANDIDATES = np.array([1.0, 0.8, 0.6, 0.45, 0.3])
_DROP = 5.0


class Saddle(NamedTuple):
    """The saddle point: a tilt, epsilon and log delta there, and the spread of the tilted sum."""

    tilt: float
    epsilon: float
    log_delta: float
    spread: float


class Window(NamedTuple):
    """A tilt, the ends of a window, and the tilt that bounds the mass above it best.

    `felt` is the log of the tilted mass that would move delta by a share of `_FELT`, `low_tilt` the
    tilt that bounds the tilted mass below the window best, and `sds` the standard deviations at
    which a normal law has delta times `TRUNCATION` left.
    """

    tilt: float
    low: float
    high: float
    top_tilt: float
    felt: float
    low_tilt: float
    sds: float


class Guide:
    """log E[e^(tS)] of the sum S of all losses, by quadrature, and what follows from it.

    `log_delta` is the smallest log delta that will be asked for: it decides how far out the
    quadrature goes.
    """

    def __init__(self, rounds: Sequence[Round], log_delta: float) -> None:
        self.times = sum(n for _, n in rounds)
        # a normal law has less than delta * TRUNCATION / times beyond this
        self.reach = math.sqrt(2 * (math.log(self.times / TRUNCATION) - min(log_delta, 0.0)))
        self.smooth = all(pair.smooth for parts, _ in rounds for _, pair in parts)
        self.kinds: list[tuple[Array, Array, int]] = []
        for parts, n in rounds:
            losses, weights = [], []
            for weight, pair in parts:
                loss, log_weight = pair.nodes(self.reach)
                losses.append(loss)
                weights.append(log_weight + math.log(weight))
            self.kinds.append((np.concatenate(losses), np.concatenate(weights), n))
        self.top = sum(n * float(loss.max()) for loss, _, n in self.kinds)

    def _tilted(self, kind: int, t: Array) -> tuple[Array, Array, Array]:
        """Tilted weights of one round's losses, their sums, and log E[e^(tL)], for each t."""
        loss, log_weight, _ = self.kinds[kind]
        e = t[:, None] * loss
        e += log_weight
        top = e.max(axis=1)
        e -= top[:, None]
        np.exp(e, out=e)
        total = e.sum(axis=1)
        return e, total, top + np.log(total)

    def log_mgf(self, t: Array) -> Array:
        """log E[e^(tS)]."""
        out = np.zeros(t.size)
        for kind, (_, _, n) in enumerate(self.kinds):
            out += n * self._tilted(kind, t)[2]
        return out

    def cumulants(self, t: Array) -> tuple[Array, Array, Array]:
        """log E[e^(tS)] and its first two derivatives."""
        k, mean, variance = np.zeros(t.size), np.zeros(t.size), np.zeros(t.size)
        for kind, (loss, _, n) in enumerate(self.kinds):
            e, total, log_mgf = self._tilted(kind, t)
            first = e @ loss / total
            second = e @ (loss * loss) / total
            k += n * log_mgf
            mean += n * first
            variance += n * np.maximum(second - first * first, 0.0)
        return k, mean, variance

    def at_delta(self, log_delta: float) -> Saddle:
        """The saddle point at which delta has this value; its epsilon may be negative."""
        t = _TILTS
        for size in (12, 12, 0):
            epsilon, logs, variance = self._saddles(t)
            # the first: logs fall with t until, far out, their digits are lost
            i = int(np.argmax(logs <= log_delta))
            if size:
                t = _between(t, i, size)
        # log delta falls with slope -tilt
        shifted = float(epsilon[i]) + (float(logs[i]) - log_delta) / float(t[i])
        return Saddle(float(t[i]), shifted, log_delta, math.sqrt(variance[i]))

    def at_epsilon(self, epsilon: float) -> Saddle:
        """The saddle point at this epsilon."""
        t = _TILTS
        for size in (12, 12, 0):
            at, logs, variance = self._saddles(t)
            i = int(np.argmin(np.abs(at - epsilon)))
            if size:
                t = _between(t, i, size)
        shifted = float(logs[i]) - float(t[i]) * (epsilon - float(at[i]))
        return Saddle(float(t[i]), epsilon, shifted, math.sqrt(variance[i]))

    def _saddles(self, t: Array) -> tuple[Array, Array, Array]:
        """For each t as a saddle point: its epsilon, its log delta, and the variance of S.

        Delta is an integral along Re t of e^(K(t) - t epsilon) / (t (t + 1)); its exponent, with
        the poles' logarithms, is stationary at t.
        """
        k, mean, variance = self.cumulants(t)
        epsilon = mean - 1 / t - 1 / (t + 1)
        curvature = variance + 1 / t**2 + 1 / (t + 1) ** 2
        logs = k - t * epsilon - np.log(t * (t + 1)) - 0.5 * np.log(2 * math.pi * curvature)
        return epsilon, logs, variance

    def renyi_epsilon(self, log_delta: float) -> float:
        """Epsilon from the Rényi divergence of the best order (Canonne et al. 2020)."""
        return self._least(lambda t, k: (k - log_delta + _order_term(t)) / t)

    def renyi_log_delta(self, epsilon: float) -> float:
        """log delta from the Rényi divergence of the best order, likewise."""
        return min(0.0, self._least(lambda t, k: k - t * epsilon + _order_term(t)))

    def _least(self, bound: Callable[[Array, Array], Array]) -> float:
        """The least of a bound over the orders t + 1, each of which is valid."""
        t, least = _TILTS, math.inf
        for _ in range(3):
            values = bound(t, self.log_mgf(t))
            i = int(np.argmin(values))
            least = min(least, float(values[i]))
            t = _between(t, i, 12)
        return least

    def bends(self, tilt: float) -> bool:
        """Whether the tilted law is so far from normal that the saddle point may mislead."""
        if not self.smooth:
            return True
        _, _, variance = self.cumulants(np.array([tilt, 1.2 * tilt]))
        return bool(variance[1] > 1.5 * variance[0])

    def window(self, tilt: float, epsilon: float, log_delta: float) -> Window:
        """The shortest window from which (epsilon, delta) can be read off."""
        tilts, t = tilt * _CANDIDATES, tilt * _AROUND
        k, k_tilt = self.log_mgf(t), self.log_mgf(tilts)
        top, top_tilt = _top(t, k, log_delta + math.log(TRUNCATION))
        height = k_tilt - tilts * epsilon
        sds = math.sqrt(2 * (-math.log(TRUNCATION) - min(log_delta, 0.0)))
        best, width = Window(tilt, 0.0, 0.0, 0.0, 0.0, 0.0, sds), math.inf
        for i in np.flatnonzero(height <= height[0] + _DROP):
            felt = math.log(_FELT) + log_delta - float(height[i])
            low, high, low_tilt = _ends(t, k, float(tilts[i]), float(k_tilt[i]), felt)
            high = max(min(high, self.top), top)
            if high - low < width:
                width = high - low
                best = Window(float(tilts[i]), low, high, top_tilt, felt, low_tilt, sds)
        return best

    def block(self, kind: int, times: int, window: Window, log_delta: float) -> Window:
        """A window for `times` rounds of a kind, of which the sum may hold several."""
        loss, _, n = self.kinds[kind]
        share = math.log(times / n)
        t = window.tilt * _AROUND
        k = times * self._tilted(kind, t)[2]
        k_tilt = times * float(self._tilted(kind, np.array([window.tilt]))[2][0])
        top, top_tilt = _top(t, k, log_delta + math.log(TRUNCATION) + share)
        # a hundredth for each block, since there are several levels of them
        felt = window.felt + share + math.log(1e-2)
        low, high, low_tilt = _ends(t, k, window.tilt, k_tilt, felt)
        if times == 1:
            # what is below a single round's window is put on its end: all its mass, at worst, or
            # the little that the quadrature leaves out
            low = max((felt + k_tilt) / window.tilt, float(loss.min()))
        high = max(min(high, times * float(loss.max())), top)
        return Window(window.tilt, low, high, top_tilt, felt, low_tilt, window.sds)


def _order_term(t: Array) -> Array:
    """The largest (1 - e^(-l)) e^(-tl), in logarithms: what delta can be of e^(tL)."""
    return np.asarray(t * np.log(t) - (t + 1) * np.log1p(t))


def log_sum(logs: Array) -> float:
    """log of the sum of e^logs."""
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).sum()))


def _between(t: Array, i: int, size: int) -> Array:
    """Tilts between the neighbours of the i-th."""
    low, high = math.log(t[max(0, i - 1)]), math.log(t[min(i + 1, t.size - 1)])
    return np.exp(low + (high - low) / (size - 1) * np.arange(size))


def _top(t: Array, k: Array, log_mass: float) -> tuple[float, float]:
    """Above which loss there is at most e^log_mass (Chernoff), and the tilt that says so."""
    positive = t[t > 0]
    tops = (k[t > 0] - log_mass) / positive
    i = int(np.argmin(tops))
    return float(tops[i]), float(positive[i])


def _ends(
    t: Array, k: Array, tilt: float, k_tilt: float, felt: float
) -> tuple[float, float, float]:
    """Where the tilted mass below, and above, is at most e^felt (Chernoff); the tilt for below."""
    below, above = t < tilt * 0.999, t > tilt * 1.001
    lows = (felt - k[below] + k_tilt) / (tilt - t[below])
    highs = (k[above] - k_tilt - felt) / (t[above] - tilt)
    i = int(np.argmax(lows))
    return float(lows[i]), float(highs.min()), float(t[below][i])
