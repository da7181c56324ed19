"""Dominating pairs: the two output distributions of one round that neighbours can tell apart best.

A pair (P, Q) dominates a mechanism if no neighbours are easier to distinguish, at any epsilon
(Zhu, Dong & Wang 2022); its privacy loss is L = log(P/Q) under P. The kernel (:mod:`fldp.pld`) asks
a pair for two things: a quadrature of L, its guide, and the masses on a grid, its bound.

In units of the clip norm, with noise N(0, z^2) and sampling rate q, the Gaussian pairs are

- `remove`: (1-q)N(0) + qN(1) against N(0), and `add`, the reverse: Poisson, add-or-remove. For a
  group of k clients the weights of N(0), ..., N(k) are those of Bin(k, q) (Ganesh 2024);
- `replace`: (1-q)N(0) + qN(1) against (1-q)N(0) + qN(-1): Poisson, replace-one;
- `fixed`: fixed size without replacement, replace-one. Reveal the rest of the cohort and the
  client y that takes the target's place when it is out: (1-q)N(0) + qN(u) against
  (1-q)N(0) + qN(v), u = x-y, v = x'-y, with |u|, |v|, |u-v| <= 2. For thresholds e^epsilon >= 1
  the optimal test's region is convex with normals in the cone of -u and v-u; so the divergence
  grows while v turns away from u, and while u and v slide along their line until v = 0: (2, 0) is
  the worst for every epsilon >= 0. Neighbours are symmetric, so below 1 the profile is its mirror
  image (Zhu, Dong & Wang 2022): the loss has the `remove` pair's law at z/2 above 0, the mirrored
  law below, and the rest of its mass at 0.

The others are :class:`Silent`, :class:`Shifted` (Laplace) and :class:`Steps` ((ε, δ) and zCDP).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fldp.binomial import log_pmf
from fldp.gaussian import erfc, erfcx_one, gaussian_delta, zcdp_log_deltas

Array = NDArray[np.float64]

MAX_POINTS = 1 << 23
# A quadrature has at most so many nodes; only below z = 0.015 would it need more.
_MOST_NODES = 4000
_NEWTON = 60
_LAPLACE_NODES = 400
# The zCDP profile is tabulated at so many points per standard deviation, down to this delta.
_PER_SD = 40
_LOG_LEAST = math.log(1e-200)


class Cells(NamedTuple):
    """The law of a loss on a grid, from above: mass `mass[i]` at loss (first + i) h.

    `spread` is the variance that moving mass to the grid has put in, and `infinite` the mass whose
    loss is taken as infinite.
    """

    first: int
    mass: Array
    spread: Array
    infinite: float


class Pair(Protocol):
    """One round's dominating pair."""

    @property
    def variation(self) -> float:
        """The total variation distance of the pair: its delta at epsilon = 0, or a little more."""

    def profile(self, epsilon: float) -> float:
        """Delta at epsilon >= 0, exact up to a rounding that is added."""

    def nodes(self, reach: float) -> tuple[Array, Array]:
        """Losses and log weights of a quadrature: a guide for window and grid, no bound."""

    def cells(self, h: float, low: float, high: float) -> Cells:
        """The law of the loss on the multiples of `h`, never with a smaller delta.

        Losses below `low` may be put there, and those above `high` count as infinite.
        """


class OutOfReach(ValueError):
    """The answer lies beyond what the grid can hold."""


def too_fine(points: float) -> OutOfReach:
    return OutOfReach(
        f"the privacy loss needs {points:.3g} grid points, more than {MAX_POINTS}: use more noise, "
        "fewer rounds or a larger delta"
    )


def normal_masses(x: Array) -> tuple[Array, float, float]:
    """Normal mass between successive nodes, below the first and above the last; tails are exact."""
    # beyond 100 the tail is 0 in double precision, also at infinity
    tail = 0.5 * erfc(np.minimum(np.abs(x) * math.sqrt(0.5), 100.0))
    mass = np.abs(np.diff(tail))
    across = (x[:-1] < 0) & (x[1:] > 0)
    mass[across] = 1.0 - tail[:-1][across] - tail[1:][across]
    below = tail[0] if x[0] < 0 else 1.0 - tail[0]
    above = tail[-1] if x[-1] > 0 else 1.0 - tail[-1]
    return mass, float(below), float(above)


def connect(first: int, p: Array, q: Array, h: float) -> tuple[Array, Array]:
    """ "Connect the dots" (Doroshenko et al. 2022): the masses at the nodes, and their spread.

    `p` and `q` are the P- and Q-masses of the cells between successive multiples of `h`, from
    first * h on. Both move to the two ends of their cell, so that neither total changes: delta is
    exact at the grid's losses and above the truth between them.
    """
    lower = (first + np.arange(p.size)) * h
    # the cap on exp can only move mass upwards
    up = (p - q * np.exp(np.minimum(lower, 700.0))) / -math.expm1(-h)
    up = np.clip(up, 0.0, p)
    mass = np.zeros(p.size + 1)
    spread = np.zeros(p.size + 1)
    mass[:-1] = p - up
    spread[:-1] = up * mass[:-1] / np.maximum(p, 1e-300) * h * h
    mass[1:] += up
    return mass, spread


def _log_mix(q: float, y: Array) -> Array:
    return np.logaddexp(math.log1p(-q), math.log(q) + y) if q < 1 else y


def _outputs(low: float, high: float, z: float, finest: float) -> tuple[Array, Array, float]:
    """Output nodes of a quadrature, the log density of N(0, z^2) there, and the step."""
    # a third of a standard deviation is exact for a normal law; z^2 resolves the mixture's bend
    step = max(min(z / finest, z * z), (high - low) / _MOST_NODES)
    x = np.arange(low, high + step, step)
    return x, -x * x / (2 * z * z) - math.log(z * math.sqrt(2 * math.pi)), step


def _tail_gap(
    x: float,
    z: float,
    kept: tuple[list[float], list[float]],
    other: tuple[list[float], list[float]],
    epsilon: float,
) -> float:
    """P[X > x] - e^epsilon Q[X > x] for two mixtures (weights, centres) of N(centre, z^2)."""
    plus = sum(w * _scaled_tail((x - c) / z, 0.0) for w, c in zip(*kept, strict=True))
    minus = sum(w * _scaled_tail((x - c) / z, epsilon) for w, c in zip(*other, strict=True))
    # the two nearly cancel at large z: add what rounding may have taken
    return max(0.0, plus - minus + 8 * float(np.finfo(np.float64).eps) * (plus + minus))


def _scaled_tail(x: float, log_scale: float) -> float:
    """e^log_scale P[N(0, 1) > x]."""
    if x < 0:
        return math.exp(min(log_scale, 700.0)) * (1 - 0.5 * math.erfc(-x * math.sqrt(0.5)))
    return 0.5 * erfcx_one(x * math.sqrt(0.5)) * math.exp(min(700.0, log_scale - x * x / 2))


def _losses(low: float, high: float, h: float) -> tuple[int, Array]:
    """The multiples of `h` around [low, high], at least two, and the first one's index."""
    if not abs(low) + abs(high) < MAX_POINTS * h:
        raise too_fine((high - low) / h)
    first, last = math.floor(low / h), math.ceil(high / h)
    if last - first > MAX_POINTS:
        raise too_fine(last - first)
    losses = np.arange(first, max(last, first + 1) + 1, dtype=np.float64) * h
    return first, losses


def _placed(first: int, p: Array, q: Array, h: float, bottom: float, infinite: float) -> Cells:
    """Cells from the masses between nodes; `bottom` is P-mass below the first of them."""
    mass, spread = connect(first, p, q, h)
    mass[0] += bottom
    return Cells(first, mass, spread, infinite)


@dataclass(frozen=True)
class Subsampled:
    """A client of a Poisson cohort at rate q, noise z: `remove`, `add` or `replace`."""

    kind: str
    q: float
    z: float

    @property
    def variation(self) -> float:
        moves = 2 if self.kind == "replace" else 1
        return self.q * math.erf(moves / (self.z * math.sqrt(8)))

    def profile(self, epsilon: float) -> float:
        q, z = self.q, self.z
        if self.kind == "remove":
            # what the loss of a full Gaussian must be (Balle, Barthe & Gaboardi 2018)
            inner = math.log1p(math.expm1(epsilon) / q) if epsilon < 700 else epsilon - math.log(q)
            return q * gaussian_delta(1 / z, inner)
        if self.kind == "add":
            left = q * math.exp(epsilon) - math.expm1(epsilon) if epsilon < 700 else 0.0
            if left <= 0:
                return 0.0
            return left * gaussian_delta(1 / z, max(0.0, epsilon + math.log(q / left)))
        x = float(self.output(np.array([epsilon]))[0])
        kept = [1 - q, q], [0.0, 1.0]
        return _tail_gap(x, z, kept, ([1 - q, q], [0.0, -1.0]), epsilon)

    def loss(self, x: Array) -> Array:
        """log(P/Q) at output x; increasing in x, except that "add" has the opposite sign."""
        q, z = self.q, self.z
        up = _log_mix(q, (2 * x - 1) / (2 * z * z))
        return up - _log_mix(q, -(2 * x + 1) / (2 * z * z)) if self.kind == "replace" else up

    def output(self, loss: Array) -> Array:
        """The inverse of :meth:`loss`; -inf below its range."""
        q, z = self.q, self.z
        if q == 1:
            return z * z * loss / 2 if self.kind == "replace" else z * z * loss + 0.5
        stay, go = math.log1p(-q), math.log(q)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.kind == "replace":
                # z^2 (l/2 + asinh((1-q)/q e^(1/2z^2) sinh(l/2))), in logarithms
                half = np.abs(loss) / 2
                r = half + np.log(-np.expm1(-2 * half) / 2) + stay - go + 1 / (2 * z * z)
                # from 20 on asinh(e^r) = r + log 2 in double precision
                turn = np.where(r > 20, r + math.log(2), np.arcsinh(np.exp(np.minimum(r, 20))))
                return np.asarray(np.sign(loss) * z * z * (half + turn))
            y = np.maximum(loss - stay, 0.0)
            return np.asarray(z * z * (y + np.log(-np.expm1(-y)) + stay - go) + 0.5)

    def _span(self, reach: float) -> tuple[float, float]:
        return -reach * self.z - (self.kind == "replace"), 1 + reach * self.z

    def nodes(self, reach: float) -> tuple[Array, Array]:
        x, density, step = _outputs(*self._span(reach), self.z, 3)
        loss, weight = self.loss(x), density + math.log(step)
        if self.kind == "add":
            return -loss, weight
        return loss, weight + _log_mix(self.q, (2 * x - 1) / (2 * self.z * self.z))

    def cells(self, h: float, low: float, high: float) -> Cells:
        q, z = self.q, self.z
        if self.kind == "add":
            low, high = -high, -low
        if self.kind != "replace" and q < 1:
            low = max(low, math.log1p(-q))
        first, losses = _losses(low, max(low, high), h)
        x = self.output(losses)
        zero, below_zero, above_zero = normal_masses(x / z)
        one, below_one, above_one = normal_masses((x - 1) / z)
        p = (1 - q) * zero + q * one
        if self.kind == "add":
            return _placed(1 - first - losses.size, zero[::-1], p[::-1], h, above_zero, below_zero)
        bottom = (1 - q) * below_zero + q * below_one
        infinite = (1 - q) * above_zero + q * above_one
        if self.kind == "remove":
            return _placed(first, p, zero, h, bottom, infinite)
        opposite = normal_masses((x + 1) / z)[0]
        return _placed(first, p, (1 - q) * zero + q * opposite, h, bottom, infinite)


@dataclass(frozen=True)
class Fixed:
    """A client of a cohort of fixed size, replace-one; see the module."""

    q: float
    z: float

    @property
    def variation(self) -> float:
        return self._upper.variation

    def profile(self, epsilon: float) -> float:
        return self._upper.profile(epsilon)

    @property
    def _upper(self) -> Subsampled:
        return Subsampled("remove", self.q, self.z / 2)

    def nodes(self, reach: float) -> tuple[Array, Array]:
        z = self.z / 2
        x, density, step = _outputs(-reach * z, 1 + reach * z, z, 12)
        loss, weight = self._upper.loss(x), density + math.log(step)
        weight = weight[loss > 0]
        loss = loss[loss > 0]
        both = np.concatenate([weight + loss, weight])
        rest = math.log(max(1e-300, 1 - float(np.exp(both).sum())))
        return np.concatenate([loss, -loss, [0.0]]), np.append(both, rest)

    def cells(self, h: float, low: float, high: float) -> Cells:
        q, z, pair = self.q, self.z / 2, self._upper
        _, losses = _losses(0.0, max(0.0, high), h)
        x = pair.output(losses)
        zero, _, above_zero = normal_masses(x / z)
        one, _, above_one = normal_masses((x - 1) / z)
        p = (1 - q) * zero + q * one
        # cells below 0 that are kept; the mass of the others stands at the lowest of them
        below = min(zero.size, max(1, math.ceil(-low / h)))
        bottom = float(zero[below:].sum()) + above_zero
        up, down = np.concatenate([zero[:below][::-1], p]), np.concatenate([p[:below][::-1], zero])
        infinite = (1 - q) * above_zero + q * above_one
        cells = _placed(-below, up, down, h, bottom, infinite)
        cells.mass[below] += max(0.0, 1 - float(up.sum()) - infinite - bottom)
        return cells


@dataclass(frozen=True)
class Group:
    """k clients of a Poisson cohort at rate q that leave together ("remove") or come ("add").

    Any contributions of the group are dominated by k equal ones: N(0), ..., N(k) with the weights
    of Bin(k, q) against N(0) (Ganesh 2024, "Tight group-level DP guarantees for DP-SGD with
    sampling via mixture of Gaussians mechanisms").
    """

    kind: str
    q: float
    z: float
    k: int

    @property
    def variation(self) -> float:
        shifts, weights = self._shifts
        distance = [math.erf(s / (self.z * math.sqrt(8))) for s in shifts.tolist()]
        return float(weights @ np.array(distance))

    def profile(self, epsilon: float) -> float:
        shifts, weights = (v.tolist() for v in self._shifts)
        if self.kind == "remove":
            x = float(self.output(np.array([epsilon]))[0])
            return _tail_gap(x, self.z, (weights, shifts), ([1.0], [0.0]), epsilon)
        x = float(self.output(np.array([-epsilon]))[0])
        if x == -math.inf:
            return 0.0
        # mirrored, so that the lower tails become upper ones
        down = [-shift for shift in shifts]
        return _tail_gap(-x, self.z, ([1.0], [0.0]), (weights, down), epsilon)

    @property
    def _shifts(self) -> tuple[Array, Array]:
        shifts = np.arange(self.k + 1.0)
        return shifts, np.exp(log_pmf(shifts, self.k, self.q))

    def _moved(self, x: Array) -> tuple[Array, Array]:
        """log of the part of P/Q in which somebody took part, and its derivative."""
        shifts, weights = (v[1:, None] for v in self._shifts)
        with np.errstate(divide="ignore"):
            logs = np.log(weights) + shifts * (2 * x - shifts) / (2 * self.z * self.z)
        top = logs.max(axis=0)
        share = np.exp(logs - top)
        total = share.sum(axis=0)
        slope = (shifts * share).sum(axis=0) / total / (self.z * self.z)
        return top + np.log(total), slope

    def loss(self, x: Array) -> Array:
        """log(P/Q) of "remove" at output x, increasing in x."""
        return np.logaddexp(self.k * math.log1p(-self.q), self._moved(x)[0])

    def output(self, loss: Array) -> Array:
        """The inverse of :meth:`loss`; -inf below its range."""
        stay = self.k * math.log1p(-self.q)
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.maximum(loss - stay, 0.0)
            goal = y + np.log(-np.expm1(-y)) + stay
            shifts, weights = (v[1:, None] for v in self._shifts)
            # each term alone bounds the sum, so each gives an upper bound on x
            starts = (goal - np.log(weights)) * self.z**2 / shifts + shifts / 2
        x = starts.min(axis=0)
        inside = np.isfinite(x)
        # Newton from above: the function is convex and increasing, so it falls towards the root
        for _ in range(_NEWTON):
            value, slope = self._moved(x[inside])
            step = (value - goal[inside]) / slope
            x[inside] -= step
            if float(np.abs(step).max(initial=0.0)) < 1e-14 * self.z:
                break
        return x

    def nodes(self, reach: float) -> tuple[Array, Array]:
        x, density, step = _outputs(-reach * self.z, self.k + reach * self.z, self.z, 3)
        loss, weight = self.loss(x), density + math.log(step)
        return (-loss, weight) if self.kind == "add" else (loss, weight + loss)

    def cells(self, h: float, low: float, high: float) -> Cells:
        z = self.z
        if self.kind == "add":
            low, high = -high, -low
        low = max(low, self.k * math.log1p(-self.q))
        first, losses = _losses(low, max(low, high), h)
        x = self.output(losses)
        p, below, above = np.zeros(losses.size - 1), 0.0, 0.0
        for shift, weight in zip(*(v.tolist() for v in self._shifts), strict=True):
            mass, under, over = normal_masses((x - shift) / z)
            p, below, above = p + weight * mass, below + weight * under, above + weight * over
        zero, below_zero, above_zero = normal_masses(x / z)
        if self.kind == "add":
            return _placed(1 - first - losses.size, zero[::-1], p[::-1], h, above_zero, below_zero)
        return _placed(first, p, zero, h, below, above)


@dataclass(frozen=True)
class Shifted:
    """Laplace noise of scale b, one number that moves by 1.

    It also dominates any vector with L1 sensitivity 1. With delta(e, t) = 1 - e^((e-t)/2) for a
    shift t (|e| <= t, b = 1), and L the loss of a shift s, E[delta(e - L, t)] = 1 - u - u w/4 where
    u = e^((e-s-t)/2) and w >= 0 is the length of the range of L in which |e - L| <= t: at most
    delta(e, s+t). So two coordinates that share a shift are no worse than one that has it all.
    """

    b: float

    @property
    def variation(self) -> float:
        return -math.expm1(-0.5 / self.b)

    def profile(self, epsilon: float) -> float:
        return max(0.0, -math.expm1(0.5 * (epsilon - 1 / self.b)))

    def nodes(self, reach: float) -> tuple[Array, Array]:
        x = (np.arange(_LAPLACE_NODES) + 0.5) / _LAPLACE_NODES
        density = -x / self.b - math.log(2 * self.b * _LAPLACE_NODES)
        loss = np.concatenate([[1 / self.b], (1 - 2 * x) / self.b, [-1 / self.b]])
        ends = math.log(0.5), -1 / self.b + math.log(0.5)
        return loss, np.concatenate([[ends[0]], density, [ends[1]]])

    def cells(self, h: float, low: float, high: float) -> Cells:
        b = self.b
        first, losses = _losses(-1 / b, 1 / b, h)
        # outputs fall from 1 to 0 while losses rise
        x = np.clip(0.5 - 0.5 * b * losses, 0.0, 1.0)
        p = 0.5 * np.exp(-x[1:] / b) * -np.expm1((x[1:] - x[:-1]) / b)
        q = 0.5 * np.exp((x[:-1] - 1) / b) * -np.expm1((x[1:] - x[:-1]) / b)
        # the atoms at both ends
        p[-1] += 0.5
        q[-1] += 0.5 * math.exp(-1 / b)
        p[0] += 0.5 * math.exp(-1 / b)
        q[0] += 0.5
        return _placed(first, p, q, h, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Atoms:
    """A loss with finitely many values."""

    losses: Array
    masses: Array
    infinite: float = 0.0

    @property
    def variation(self) -> float:
        return self.profile(0.0)

    def profile(self, epsilon: float) -> float:
        gain = self.masses * -np.expm1(-np.maximum(self.losses - epsilon, 0.0))
        return float(gain.sum()) + self.infinite

    def nodes(self, reach: float) -> tuple[Array, Array]:
        with np.errstate(divide="ignore"):
            return self.losses, np.log(self.masses)

    def cells(self, h: float, low: float, high: float) -> Cells:
        kept = self.losses <= max(high, float(self.losses.min()))
        values = np.maximum(self.losses[kept], min(low, high))
        weights = self.masses[kept]
        first, losses = _losses(float(values.min()), float(values.max()), h)
        mass, spread = np.zeros(losses.size), np.zeros(losses.size)
        cell = np.minimum(np.floor(values / h).astype(np.int64) - first, losses.size - 2)
        share = np.clip(np.expm1((first + cell) * h - values) / math.expm1(-h), 0.0, 1.0)
        np.add.at(mass, cell, weights * (1 - share))
        np.add.at(mass, cell + 1, weights * share)
        middle = weights * share * (1 - share) * h * h
        np.add.at(spread, cell, middle / 2)
        np.add.at(spread, cell + 1, middle / 2)
        return Cells(first, mass, spread, self.infinite + float(self.masses[~kept].sum()))


def silent() -> Atoms:
    """A round that says nothing."""
    return Atoms(np.zeros(1), np.ones(1))


def approximate(epsilon: float, delta: float) -> Atoms:
    """Dominates every (epsilon, delta)-DP step (Kairouz, Oh & Viswanath 2015)."""
    high = (1 - delta) / (1 + math.exp(-epsilon))
    masses = np.array([(1 - delta) - high, high])
    return Atoms(np.array([-epsilon, epsilon]), masses, delta)


def concentrated(rho: float) -> Atoms:
    """Dominates every rho-zCDP step.

    Its profile delta(epsilon) is at most that of the conversion, in both directions, and convex in
    k = e^epsilon. So it lies below the largest convex function under the conversion's values on a
    grid and under their mirror images; and a function like that belongs to a pair (Zhu, Dong &
    Wang 2022, Prop. 8), whose loss lives on the grid.
    """
    sd = math.sqrt(2 * rho)  # of the loss of a Gaussian with this rho
    # beyond this the conversion's delta is below 1e-200
    top = rho + 2 * math.sqrt(rho * -_LOG_LEAST)
    losses = np.linspace(0.0, top, math.ceil(_PER_SD * top / sd) + 1)
    profile = np.exp(zcdp_log_deltas(rho, losses))
    # a line that is its own mirror image passes through k and 1/k: none may cut the profile at 1
    profile[0] = float((1 - 2 * (1 - profile) / (1 + np.exp(losses))).min())
    kept = _convex(losses, profile)
    losses, profile = losses[kept], profile[kept]
    falls = profile[:-1] - profile[1:]
    gaps = np.diff(losses)
    before = falls / -np.expm1(-gaps)
    after = np.append(falls[1:] / np.expm1(gaps[1:]), 0.0)
    up = np.maximum(before - after, 0.0)  # P-mass at losses[1:]
    down = up * np.exp(-losses[1:])  # Q-mass there, which is the P-mass at the mirror image
    rest = max(0.0, 1 - float(up.sum() + down.sum()) - float(profile[-1]))
    masses = np.concatenate([down[::-1], [rest], up])
    both = np.concatenate([-losses[:0:-1], losses])
    return Atoms(both, masses, float(profile[-1]))


def _convex(losses: Array, profile: Array) -> list[int]:
    """Indices of the corners of the largest convex function of e^loss below the profile."""
    at, value = losses.tolist(), profile.tolist()
    kept: list[int] = []
    for m in range(len(at)):
        while len(kept) > 1:
            i, j = kept[-2:]
            before = (value[i] - value[j]) / -math.expm1(at[i] - at[j])
            if before * math.expm1(at[m] - at[j]) > value[j] - value[m]:
                break
            kept.pop()
        kept.append(m)
    return kept
