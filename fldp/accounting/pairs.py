"""Dominating pairs: the two output distributions of one round that neighbours can tell apart best.

A pair (P, Q) dominates a mechanism if no neighbours are easier to distinguish, at any epsilon (Zhu,
Dong & Wang 2022). What there is to know of it is the law of its privacy loss L = log(P/Q) under P:

- its *profile*, delta(epsilon) = E[(1 - e^(epsilon - L))_+], which at 0 is the total variation;
- the *masses* of L on a grid, from above, of which the kernel (:mod:`fldp.accounting.pld`) makes
  its bound (:meth:`Pair.cells`);
- a *quadrature* of L, the kernel's guide (:meth:`Pair.nodes`).

Under Q the loss has the mass e^(-L) of that under P, so that the law under P is enough.

Those of Gaussian noise are in :mod:`fldp.accounting.gaussian_pairs`; here are what all have in
common, and the others: :class:`Shifted` (Laplace) and :class:`Atoms` (silent rounds, (epsilon,
delta) steps, zCDP).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from fldp.accounting.gaussian import LARGEST_EXP, LEAST_DELTA, Array, zcdp_log_deltas

# Transforms of so many points still take a fraction of a second.
MAX_POINTS = 1 << 22
# Beyond this index neighbours on a grid are the same number.
_LAST_INDEX = 2**52
# A quadrature has at most so many nodes; only below z = 0.015 would it need more.
MOST_NODES = 4000
# Nodes of a Laplace loss, which is bounded.
_LAPLACE_NODES = 2000
# The zCDP profile is tabulated down to this delta, at most so many standard deviations apart; its
# chords are then 3e-3 above it at most, in relative terms.
_LOG_LEAST = math.log(1e-200)
_APART = 0.1
_MOST_VALUES = 10_000


class Cells(NamedTuple):
    """The law of a loss on a grid, from above.

    Attributes
    ----------
    first
        `mass[i]` stands at loss (first + i) h.
    mass
        P-mass; with `infinite` it sums to 1.
    spread
        Variance that moving mass to the grid has put in, by place.
    infinite
        Mass whose loss is taken as infinite: it counts in full for every delta.
    """

    first: int
    mass: Array
    spread: Array
    infinite: float


class Pair(Protocol):
    """One round's dominating pair: what the kernel asks of it.

    Attributes
    ----------
    smooth, infinite, variation
        What its loss is like; see each.
    """

    @property
    def smooth(self) -> bool:
        """Whether the loss has a smooth density: then what a grid adds is told by its variance."""

    @property
    def infinite(self) -> float:
        """Mass of infinite loss: no smaller delta has an epsilon."""

    @property
    def variation(self) -> float:
        """The total variation distance of the pair: its delta at epsilon = 0, or a little more."""

    def profile(self, epsilon: float) -> float:
        """Delta at epsilon >= 0, exact up to a rounding that is added."""

    def nodes(self, reach: float, most: int = MOST_NODES) -> tuple[Array, Array]:
        """Losses and log weights of a quadrature under P: a guide for window and grid, no bound.

        It reaches `reach` standard deviations out and takes at most `most` nodes.
        """

    def cells(self, h: float, low: float, high: float) -> Cells:
        """The law of the loss on the multiples of `h`, never with a smaller delta.

        Losses below `low` may be put there, and those above `high` count as infinite: both raise
        the loss, and delta rises with it.
        """


class OutOfReach(ValueError):
    """The answer lies beyond what the grid can hold."""


def too_fine(points: float) -> OutOfReach:
    """The error for a grid that cannot be made.

    Parameters
    ----------
    points
        How many it would need.

    Returns
    -------
    OutOfReach
        To be raised.

    Examples
    --------
    >>> "needs 1e+09 grid points" in str(too_fine(1e9))
    True
    """
    return OutOfReach(
        f"the privacy loss needs {points:.3g} grid points, more than {MAX_POINTS}: use more noise, "
        "fewer rounds or a larger delta"
    )


def multiples_around(low: float, high: float, h: float) -> Array:
    """The grid around [low, high].

    Parameters
    ----------
    low, high
        What it has to cover.
    h
        Its step.

    Returns
    -------
    numpy.ndarray
        n for each multiple n h: whole numbers as floats, at least two.

    Raises
    ------
    OutOfReach
        If there are more than a grid may have, or neighbours would be the same number.

    Examples
    --------
    >>> multiples_around(-0.1, 0.6, 0.5).tolist()
    [-1.0, 0.0, 1.0, 2.0]
    """
    if not (high - low) / h <= MAX_POINTS:
        raise too_fine((high - low) / h)
    if max(abs(low), abs(high)) > _LAST_INDEX * h:
        raise too_fine(max(abs(low), abs(high)) / h)
    first = math.floor(low / h)
    return np.arange(first, max(math.ceil(high / h), first + 1) + 1, dtype=np.float64)


def placed(first: int, p: Array, q: Array, h: float) -> Cells:
    """ "Connect the dots" (Doroshenko et al. 2022): the masses of cells, moved to the grid.

    The P- and the Q-mass of a cell between two multiples of h both move to its two ends; two
    equations say how much goes up, so that neither total changes. So delta is exact at every
    multiple of h; between two of them it is a straight line in e^epsilon, the chord of the true
    delta, which is convex in e^epsilon: never below it. Rounding each loss up would also be a
    bound, but with an error of h instead of h^2.

    P-mass below the grid moves up to its first loss, and above it has a loss that counts as
    infinite.

    Parameters
    ----------
    first
        The grid's first loss is first * h.
    p, q
        P- and Q-masses of the losses below the grid, between successive multiples of `h`, and above
        the last one; of shape (n + 2,).
    h
        The grid's step.

    Returns
    -------
    Cells
        n + 1 masses.

    Examples
    --------
    >>> cells = placed(0, np.array([0.4, 0.5, 0.1]), np.array([0.5, 0.4, 0.0]), 1.0)
    >>> cells.mass.round(3).tolist(), cells.infinite
    ([0.742, 0.158], 0.1)
    """
    inside = p[1:-1]
    lower = (first + np.arange(inside.size)) * h
    # the cap on exp can only move mass upwards
    up = (inside - q[1:-1] * np.exp(np.minimum(lower, LARGEST_EXP))) / -math.expm1(-h)
    up = np.clip(up, 0.0, inside)
    mass, spread = np.zeros((2, inside.size + 1))
    mass[:-1] = inside - up
    spread[:-1] = up * mass[:-1] / np.maximum(inside, LEAST_DELTA) * h * h
    mass[1:] += up
    mass[0] += p[0]
    return Cells(first, mass, spread, float(p[-1]))


@dataclass(frozen=True)
class Shifted:
    """Laplace noise of scale b, one number that moves by 1.

    It also dominates any vector with L1 sensitivity 1. With delta(e, t) = 1 - e^((e-t)/2) for a
    shift t (|e| <= t, b = 1), and L the loss of a shift s, E[delta(e - L, t)] = 1 - u - u w/4 where
    u = e^((e-s-t)/2) and w >= 0 is the length of the range of L in which |e - L| <= t: at most
    delta(e, s+t). So two coordinates that share a shift are no worse than one that has it all.

    Parameters
    ----------
    b
        The scale, for a number that moves by 1.

    Examples
    --------
    >>> Shifted(2.0).profile(0.5)
    0.0
    """

    b: float
    smooth = False
    infinite = 0.0

    @property
    def variation(self) -> float:
        return -math.expm1(-0.5 / self.b)

    def profile(self, epsilon: float) -> float:
        return abs(math.expm1(0.5 * min(0.0, epsilon - 1 / self.b)))

    def nodes(self, reach: float, most: int = MOST_NODES) -> tuple[Array, Array]:
        x = (np.arange(_LAPLACE_NODES) + 0.5) / _LAPLACE_NODES
        density = -x / self.b - math.log(2 * self.b * _LAPLACE_NODES)
        loss = np.concatenate([[1 / self.b], (1 - 2 * x) / self.b, [-1 / self.b]])
        # outputs below 0 have the largest loss, those above 1 the smallest
        below, above = math.log(0.5), math.log(0.5) - 1 / self.b
        return loss, np.concatenate([[below], density, [above]])

    def cells(self, h: float, low: float, high: float) -> Cells:
        b = self.b
        grid = multiples_around(-1 / b, 1 / b, h)
        # outputs fall from 1 to 0 while losses rise
        x = np.clip(0.5 - 0.5 * b * (grid * h), 0.0, 1.0)
        p = 0.5 * np.exp(-x[1:] / b) * -np.expm1((x[1:] - x[:-1]) / b)
        q = 0.5 * np.exp((x[:-1] - 1) / b) * -np.expm1((x[1:] - x[:-1]) / b)
        # the atoms at both ends
        ends = np.array([0.5 * math.exp(-1 / b), 0.5])
        p[[0, -1]] += ends
        q[[0, -1]] += ends[::-1]
        return placed(int(grid[0]), np.pad(p, 1), np.pad(q, 1), h)


@dataclass(frozen=True, eq=False)
class Atoms:
    """A loss with finitely many values.

    Parameters
    ----------
    losses, masses
        The values and their P-masses, each of shape (n,).
    infinite
        P-mass of infinite loss.

    Examples
    --------
    >>> Atoms(np.array([-0.1, 0.1]), np.array([0.4, 0.5]), 0.1).profile(0.1)
    0.1
    """

    losses: Array
    masses: Array
    infinite: float = 0.0
    smooth: ClassVar[bool] = False

    @property
    def variation(self) -> float:
        return self.profile(0.0)

    def profile(self, epsilon: float) -> float:
        gain = self.masses * -np.expm1(-np.maximum(self.losses - epsilon, 0.0))
        return float(gain.sum()) + self.infinite

    def nodes(self, reach: float, most: int = MOST_NODES) -> tuple[Array, Array]:
        with np.errstate(divide="ignore"):
            return self.losses, np.log(self.masses)

    def cells(self, h: float, low: float, high: float) -> Cells:
        kept = self.losses <= max(high, float(self.losses.min()))
        values = np.maximum(self.losses[kept], min(low, high))
        weights = self.masses[kept]
        grid = multiples_around(float(values.min()), float(values.max()), h)
        first = int(grid[0])
        cell = np.minimum(np.floor(values / h).astype(np.int64) - first, grid.size - 2)
        # an atom's Q-mass is e^(-value) of its P-mass: `placed`, solved for the share that goes up
        share = np.clip(np.expm1((first + cell) * h - values) / math.expm1(-h), 0.0, 1.0)
        mass = np.zeros(grid.size)
        np.add.at(mass, cell, weights * (1 - share))
        np.add.at(mass, cell + 1, weights * share)
        middle = weights * share * (1 - share) * h * h
        spread = np.zeros(grid.size)
        np.add.at(spread, cell, middle / 2)
        np.add.at(spread, cell + 1, middle / 2)
        return Cells(first, mass, spread, self.infinite + float(self.masses[~kept].sum()))


def silent() -> Atoms:
    """A round that says nothing.

    Returns
    -------
    Atoms
        All mass at loss 0.

    Examples
    --------
    >>> silent().variation
    0.0
    """
    return Atoms(np.zeros(1), np.ones(1))


def approximate(epsilon: float, delta: float) -> Atoms:
    """Dominates every (epsilon, delta)-DP step (Kairouz, Oh & Viswanath 2015).

    Parameters
    ----------
    epsilon
        At least 0.
    delta
        0 to 1: all of it has an infinite loss.

    Returns
    -------
    Atoms
        Randomised response, but for that.

    Examples
    --------
    >>> round(approximate(0.5, 1e-3).profile(0.5), 6)
    0.001
    """
    high = (1 - delta) / (1 + math.exp(-epsilon))
    masses = np.array([(1 - delta) - high, high])
    return Atoms(np.array([-epsilon, epsilon]), masses, delta)


def concentrated(rho: float) -> Atoms:
    """Dominates every rho-zCDP step.

    Its profile delta(epsilon) is at most that of the conversion, in both directions, and convex in
    k = e^epsilon. So it lies below the largest convex function under the conversion's values on a
    grid and under their mirror images; and a function like that belongs to a pair (Zhu, Dong &
    Wang 2022, Prop. 8), whose loss lives on the grid.

    Parameters
    ----------
    rho
        The parameter of zCDP, in (0, 1e9).

    Returns
    -------
    Atoms
        A pair whose loss is symmetric.

    Examples
    --------
    >>> concentrated(0.5).profile(1.0) <= math.exp(zcdp_log_deltas(0.5, np.ones(1))[0]) * 1.003
    True
    """
    losses = _tabulated(rho)
    profile = np.exp(zcdp_log_deltas(rho, losses))
    # a line that is its own mirror image passes through k and 1/k: none may cut the profile at 1
    grown = 1 + np.exp(np.minimum(losses, LARGEST_EXP))
    profile[0] = float((1 - 2 * (1 - profile) / grown).min())
    kept = _convex(losses, profile)
    losses, profile = losses[kept], profile[kept]
    # the P-mass at a corner is the change there of delta's slope in k, times k
    falls = profile[:-1] - profile[1:]
    gaps = np.diff(losses)
    before = falls / -np.expm1(-gaps)
    after = np.append(falls[1:] / np.expm1(np.minimum(gaps[1:], LARGEST_EXP)), 0.0)
    up = np.maximum(before - after, 0.0)  # P-mass at losses[1:]
    down = up * np.exp(-losses[1:])  # Q-mass there, which is the P-mass at the mirror image
    infinite = float(profile[-1])
    rest = max(0.0, 1 - float(up.sum() + down.sum()) - infinite)
    masses = np.concatenate([down[::-1], [rest], up])
    both = np.concatenate([-losses[:0:-1], losses])
    return Atoms(both, masses, infinite)


def _tabulated(rho: float) -> Array:
    """The epsilons, from 0 upwards, at which the conversion's delta is looked up."""
    sd = math.sqrt(2 * rho)  # of the loss of a Gaussian with this rho
    # beyond this the conversion's delta is below e^_LOG_LEAST
    top = rho + 2 * math.sqrt(rho * -_LOG_LEAST)
    low = min(_MOST_VALUES, math.ceil(rho / (_APART * sd)))
    # above the mean log delta falls ever more steeply: closer points
    high = np.arange(math.ceil(((1 + (top - rho) / sd) ** 2 - 1) / (2 * _APART)) + 1)
    above = rho + sd * (np.sqrt(1 + 2 * _APART * high) - 1)
    return np.concatenate([np.linspace(0.0, rho, low, endpoint=False), above])


def _convex(losses: Array, profile: Array) -> list[int]:
    """Indices of the corners of the largest convex function of e^loss below the profile."""
    at, value = losses.tolist(), profile.tolist()
    kept: list[int] = []
    for m in range(len(at)):
        # the last corner goes while the slope falls beyond it (Andrew's monotone chain)
        while len(kept) > 1:
            i, j = kept[-2:]
            before = (value[i] - value[j]) / -math.expm1(at[i] - at[j])
            if before * math.expm1(min(LARGEST_EXP, at[m] - at[j])) > value[j] - value[m]:
                break
            kept.pop()
        kept.append(m)
    return kept
