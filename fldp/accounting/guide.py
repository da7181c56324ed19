"""A guide to the sum of privacy losses: its moments, and where its mass lies.

Moments of one round come from a quadrature of its dominating pair, so that those of T rounds cost
nothing more. They tell the kernel (:mod:`fldp.accounting.pld`) which tilt, window and grid step to
take, and start every search. Nothing here is a bound by itself; the kernel adds up what it cuts
off.

Throughout, S is the sum of the losses of all rounds, K(t) = log E[e^(tS)], and under the tilt t the
law of S is weighed by e^(tS - K(t)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fldp.accounting.gaussian import Array
from fldp.accounting.pairs import Pair
from fldp.accounting.search import least, zoomed

Part = tuple[float, Pair]  # a pair and its weight in the mixture
Round = tuple[Sequence[Part], int]  # a mixture of pairs, and how often it ran

# Share of delta that mass cut from the tails may take.
TRUNCATION = 1e-7
# Share of delta that mass outside the window may move it by.
_FELT = 1e-5
# A block of rounds has a hundredth of that, since there are several levels of them.
_FELT_BY_BLOCK = 1e-2
# The tilts at which moments are looked up: from losses of 1e6 to losses of 1e-16; and how many are
# then, twice, between the neighbours of the best. A tilt is then right to 4 %, and a saddle point
# is flat: log delta to 1e-3.
_TILTS = np.geomspace(1e-7, 1e17, 49)
_CLOSER = (12, 12)
# Beyond it a product with the largest tilt would overflow; delta falls with epsilon, so that its
# value there bounds every later one.
_FARTHEST = 1e200
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
# Chernoff's bound from a tilt this near to the window's own says nothing.
_APART = 1e-3
# A smaller tilt may do with a shorter window: the candidates, as multiples of the saddle's, and by
# how much the answer's tilted mass may then be smaller, in logarithms (more costs digits).
_CANDIDATES = np.array([1.0, 0.8, 0.6, 0.45, 0.3])
_DROP = 5.0
# A normal law has the same variance under every tilt. One whose variance grows by so much when the
# tilt does is far from normal.
_TILT_MORE = 1.2
_GROWS = 1.5


class Saddle(NamedTuple):
    """A saddle point of the sum.

    Attributes
    ----------
    tilt
        t: by how much log delta falls when epsilon rises.
    epsilon, log_delta
        What it says: a guess, no bound.
    spread
        The standard deviation of the sum of losses under the tilt.
    """

    tilt: float
    epsilon: float
    log_delta: float
    spread: float


class Window(NamedTuple):
    """A tilt, and the part of the loss axis that a grid covers.

    Attributes
    ----------
    epsilon, log_delta
        About where the curve of the sum will be read.
    tilt
        The masses on the grid are those of the law times e^(tilt * loss).
    low, high
        Its ends.
    low_tilt, top_tilt
        The tilts by which Chernoff bounds best the tilted mass below it, and the mass above it.
    felt
        log of the tilted mass that would move delta by a share of `_FELT`.
    sds
        The standard deviations beyond which a normal law has delta times `TRUNCATION` left.
    """

    epsilon: float
    log_delta: float
    tilt: float
    low: float
    high: float
    low_tilt: float
    top_tilt: float
    felt: float
    sds: float


class Kind(NamedTuple):
    """A quadrature of one round's loss.

    Attributes
    ----------
    loss, log_weight
        Nodes, and the logarithms of their weights under P, each of shape (n,).
    times
        How often the round runs.
    """

    loss: Array
    log_weight: Array
    times: int


class _Tilted(NamedTuple):
    """Tilted weights of the nodes, of shape (tilts, nodes); their sums; log E[e^(tL)]."""

    weight: Array
    total: Array
    log_mgf: Array


class Guide:
    """K(t) by quadrature, and what follows from it.

    Parameters
    ----------
    rounds
        What ran.
    log_delta
        The smallest log delta that will be asked for: it decides how far out the quadrature goes.

    Attributes
    ----------
    times
        How many rounds there are in all.
    smooth
        Whether every loss has a smooth density.
    kinds
        A quadrature for each kind of round.
    top
        The largest sum of losses that the quadrature knows.
    """

    def __init__(self, rounds: Sequence[Round], log_delta: float) -> None:
        self.times = sum(n for _, n in rounds)
        # a normal law has less than delta * TRUNCATION / times beyond this
        reach = math.sqrt(2 * (math.log(self.times / TRUNCATION) - min(log_delta, 0.0)))
        self.smooth = all(pair.smooth for parts, _ in rounds for _, pair in parts)
        self.kinds: list[Kind] = []
        for parts, n in rounds:
            losses, log_weights = [], []
            for weight, pair in parts:
                loss, log_weight = pair.nodes(reach)
                losses.append(loss)
                log_weights.append(log_weight + math.log(weight))
            self.kinds.append(Kind(np.concatenate(losses), np.concatenate(log_weights), n))
        self.top = sum(kind.times * float(kind.loss.max()) for kind in self.kinds)

    def log_mgf(self, t: Array) -> Array:
        """K at each t."""
        out = np.zeros(t.size)
        for kind in self.kinds:
            out += kind.times * _tilted(kind, t).log_mgf
        return out

    def cumulants(self, t: Array) -> tuple[Array, Array, Array]:
        """K and its first two derivatives at each t: log E[e^(tS)], mean and variance under t."""
        log_mgf, mean, variance = np.zeros((3, t.size))
        for kind in self.kinds:
            tilted = _tilted(kind, t)
            first = tilted.weight @ kind.loss / tilted.total
            second = tilted.weight @ (kind.loss * kind.loss) / tilted.total
            log_mgf += kind.times * tilted.log_mgf
            mean += kind.times * first
            variance += kind.times * np.maximum(second - first * first, 0.0)
        return log_mgf, mean, variance

    def at_delta(self, log_delta: float) -> Saddle:
        """The saddle point at which delta has this value; its epsilon may be negative."""
        # the first: log delta falls with t until, far out, its digits are lost
        found = self._saddle(lambda at, logs: int(np.argmax(logs <= log_delta)))
        # log delta falls with slope -tilt
        epsilon = found.epsilon + (found.log_delta - log_delta) / found.tilt
        return found._replace(epsilon=epsilon, log_delta=log_delta)

    def at_epsilon(self, epsilon: float) -> Saddle:
        """The saddle point at this epsilon."""
        found = self._saddle(lambda at, logs: int(np.argmin(np.abs(at - epsilon))))
        log_delta = found.log_delta - found.tilt * (epsilon - found.epsilon)
        return found._replace(epsilon=epsilon, log_delta=log_delta)

    def _saddle(self, pick: Callable[[Array, Array], int]) -> Saddle:
        """The one that `pick` takes, by epsilons and log deltas, from ever closer tilts."""
        seen: list[list[float]] = []

        def nearest(t: Array) -> int:
            at = self._saddles(t)
            i = pick(at[0], at[1])
            seen.append([float(values[i]) for values in at])
            return i

        tilt = zoomed(nearest, _TILTS, _CLOSER)
        epsilon, log_delta, variance = seen[-1]
        return Saddle(tilt, epsilon, log_delta, math.sqrt(variance))

    def _saddles(self, t: Array) -> tuple[Array, Array, Array]:
        """For each t as a saddle point: its epsilon, its log delta, and the variance of S.

        Delta is an integral along Re t of e^(K(t) - t epsilon) / (t (t + 1)) (Alghamdi et al.
        2022); its exponent, with the poles' logarithms, is stationary at t. That fixes epsilon, and
        the integral of a parabola through that point is delta.
        """
        k, mean, variance = self.cumulants(t)
        epsilon = mean - 1 / t - 1 / (t + 1)
        curvature = variance + 1 / t**2 + 1 / (t + 1) ** 2
        logs = k - t * epsilon - np.log(t * (t + 1)) - 0.5 * np.log(2 * math.pi * curvature)
        return epsilon, logs, variance

    def renyi_epsilon(self, log_delta: float) -> float:
        """Epsilon from the Rényi divergence of the best order (Canonne et al. 2020)."""
        return least(lambda t: (self.log_mgf(t) - log_delta + _order_term(t)) / t, _TILTS, _CLOSER)

    def renyi_log_delta(self, epsilon: float) -> float:
        """log delta from the Rényi divergence of the best order, likewise."""
        far = min(epsilon, _FARTHEST)
        found = least(lambda t: self.log_mgf(t) - t * far + _order_term(t), _TILTS, _CLOSER)
        return min(0.0, found)

    def bends(self, tilt: float) -> bool:
        """Whether the tilted law is so far from normal that the saddle point may mislead."""
        if not self.smooth:
            return True
        variance = self.cumulants(np.array([tilt, _TILT_MORE * tilt]))[2]
        return bool(variance[1] > _GROWS * variance[0])

    def window(self, tilt: float, epsilon: float, log_delta: float) -> Window:
        """The shortest window from which (epsilon, delta) can be read off.

        Parameters
        ----------
        tilt
            The saddle point's; the window may have a smaller one.
        epsilon, log_delta
            About where the curve will be read.
        """
        tilts = tilt * _CANDIDATES
        t = tilt * _AROUND
        log_mgf = self.log_mgf(np.concatenate([t, tilts]))
        k, k_tilt = log_mgf[: t.size], log_mgf[t.size :]
        # the mass above is cut and added to delta; the tilted mass outside wraps round and is felt
        top, top_tilt = _top(t, k, log_delta + math.log(TRUNCATION))
        height = k_tilt - tilts * epsilon
        sds = math.sqrt(2 * (-math.log(TRUNCATION) - min(log_delta, 0.0)))
        found = []
        for i in np.flatnonzero(height <= height[0] + _DROP):
            tilt = float(tilts[i])
            felt = math.log(_FELT) + log_delta - float(height[i])
            low, high, low_tilt = _ends(t, k, tilt, float(k_tilt[i]), felt)
            # nothing is above the largest loss; and what is above `top` is cut, not felt
            high = max(min(high, self.top), top)
            found.append(Window(epsilon, log_delta, tilt, low, high, low_tilt, top_tilt, felt, sds))
        return min(found, key=lambda window: window.high - window.low)

    def block(self, index: int, times: int, window: Window) -> Window:
        """A window for some rounds of one kind, of which the sum may hold several.

        Parameters
        ----------
        index
            Of the kind.
        times
            How many of its rounds.
        window
            That of the whole sum.
        """
        kind = self.kinds[index]
        # the blocks share what may be cut, and what may be felt
        share = math.log(times / kind.times)
        t = window.tilt * _AROUND
        log_mgf = times * _tilted(kind, np.append(t, window.tilt)).log_mgf
        k = log_mgf[:-1]
        k_tilt = float(log_mgf[-1])
        top, top_tilt = _top(t, k, window.log_delta + math.log(TRUNCATION) + share)
        felt = window.felt + share + math.log(_FELT_BY_BLOCK)
        low, high, low_tilt = _ends(t, k, window.tilt, k_tilt, felt)
        high = max(min(high, times * float(kind.loss.max())), top)
        if times == 1:
            # what is below a single round's window is put on its end: all its mass, at worst, or
            # the little that the quadrature leaves out
            low = max((felt + k_tilt) / window.tilt, float(kind.loss.min()))
        return window._replace(low=low, high=high, low_tilt=low_tilt, top_tilt=top_tilt, felt=felt)


def _ends(
    t: Array, k: Array, tilt: float, k_tilt: float, felt: float
) -> tuple[float, float, float]:
    """Losses below, and above, which the tilted mass is at most e^felt, and the tilt for below.

    By Chernoff's bound under the tilt; `k` is K at the tilts `t`, and `k_tilt` at the window's own.
    """
    below = t < tilt * (1 - _APART)
    above = t > tilt * (1 + _APART)
    lows = (felt - k[below] + k_tilt) / (tilt - t[below])
    highs = (k[above] - k_tilt - felt) / (t[above] - tilt)
    i = int(np.argmax(lows))
    return float(lows[i]), float(highs.min()), float(t[below][i])


def log_sum(logs: Array) -> float:
    """log of the sum of e^logs.

    Parameters
    ----------
    logs
        Of shape (n,), not all of them -inf.

    Returns
    -------
    float
        Finite, however large or small the logarithms are.

    Examples
    --------
    >>> round(log_sum(np.array([1000.0, 1000.0])) - 1000, 6)
    0.693147
    """
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).sum()))


def _tilted(kind: Kind, t: Array) -> _Tilted:
    """One round's loss under each tilt t; held relative to the largest weight."""
    e = t[:, None] * kind.loss
    e += kind.log_weight
    top = e.max(axis=1)
    e -= top[:, None]
    np.exp(e, out=e)
    total = e.sum(axis=1)
    return _Tilted(e, total, top + np.log(total))


def _order_term(t: Array) -> Array:
    """The largest (1 - e^(-l)) e^(-tl), in logarithms: what delta can be of e^(tL)."""
    return np.asarray(t * np.log(t) - (t + 1) * np.log1p(t))


def _top(t: Array, k: Array, log_mass: float) -> tuple[float, float]:
    """Above which loss there is at most e^log_mass, and the tilt that says so.

    P[S > x] <= e^(K(t) - tx) for every t > 0 (Chernoff).
    """
    positive = t[t > 0]
    tops = (k[t > 0] - log_mass) / positive
    i = int(np.argmin(tops))
    return float(tops[i]), float(positive[i])
