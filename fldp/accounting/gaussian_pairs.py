"""Dominating pairs of Gaussian noise on a sum that some clients are drawn for.

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
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fldp.accounting.binomial import log_pmf
from fldp.accounting.gaussian import Array, erfc, erfcx_one, gaussian_delta
from fldp.accounting.pairs import MOST_NODES, Cells, losses_around, placed

# Newton's steps to a group's output: they double the digits, so that a few are enough.
_NEWTON = 60


def normal_masses(x: Array) -> tuple[Array, float, float]:
    """Normal mass between successive nodes, below the first and above the last; tails are exact."""
    tail = 0.5 * erfc(np.abs(x) * math.sqrt(0.5))
    mass = np.abs(np.diff(tail))
    across = (x[:-1] < 0) & (x[1:] > 0)
    mass[across] = 1.0 - tail[:-1][across] - tail[1:][across]
    below = tail[0] if x[0] < 0 else 1.0 - tail[0]
    above = tail[-1] if x[-1] > 0 else 1.0 - tail[-1]
    return mass, float(below), float(above)


def _log_mix(q: float, y: Array) -> Array:
    return np.logaddexp(math.log1p(-q), math.log(q) + y) if q < 1 else y


def _outputs(
    low: float, high: float, z: float, finest: float, most: int
) -> tuple[Array, Array, float]:
    """Output nodes of a quadrature, the log density of N(0, z^2) there, and the step."""
    # a third of a standard deviation is exact for a normal law; z^2 resolves the mixture's bend
    step = max(min(z / finest, z * z), (high - low) / most)
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


@dataclass(frozen=True)
class Subsampled:
    """A client of a Poisson cohort at rate q, noise z: `remove`, `add` or `replace`."""

    kind: str
    q: float
    z: float

    @property
    def smooth(self) -> bool:
        return True

    @property
    def infinite(self) -> float:
        return 0.0

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

    def nodes(self, reach: float, most: int = MOST_NODES) -> tuple[Array, Array]:
        x, density, step = _outputs(*self._span(reach), self.z, 3, most)
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
        first, losses = losses_around(low, max(low, high), h)
        x = self.output(losses)
        zero, below_zero, above_zero = normal_masses(x / z)
        one, below_one, above_one = normal_masses((x - 1) / z)
        p = (1 - q) * zero + q * one
        if self.kind == "add":
            return placed(1 - first - losses.size, zero[::-1], p[::-1], h, above_zero, below_zero)
        bottom = (1 - q) * below_zero + q * below_one
        infinite = (1 - q) * above_zero + q * above_one
        if self.kind == "remove":
            return placed(first, p, zero, h, bottom, infinite)
        opposite = normal_masses((x + 1) / z)[0]
        return placed(first, p, (1 - q) * zero + q * opposite, h, bottom, infinite)


@dataclass(frozen=True)
class Fixed:
    """A client of a cohort of fixed size, replace-one; see the module."""

    q: float
    z: float

    @property
    def smooth(self) -> bool:
        return True

    @property
    def infinite(self) -> float:
        return 0.0

    @property
    def variation(self) -> float:
        return self._upper.variation

    def profile(self, epsilon: float) -> float:
        return self._upper.profile(epsilon)

    @property
    def _upper(self) -> Subsampled:
        return Subsampled("remove", self.q, self.z / 2)

    def nodes(self, reach: float, most: int = MOST_NODES) -> tuple[Array, Array]:
        z = self.z / 2
        x, density, step = _outputs(-reach * z, 1 + reach * z, z, 12, most)
        loss, weight = self._upper.loss(x), density + math.log(step)
        weight = weight[loss > 0]
        loss = loss[loss > 0]
        both = np.concatenate([weight + loss, weight])
        rest = math.log(max(1e-300, 1 - float(np.exp(both).sum())))
        return np.concatenate([loss, -loss, [0.0]]), np.append(both, rest)

    def cells(self, h: float, low: float, high: float) -> Cells:
        q, z, pair = self.q, self.z / 2, self._upper
        _, losses = losses_around(0.0, max(0.0, high), h)
        x = pair.output(losses)
        zero, _, above_zero = normal_masses(x / z)
        one, _, above_one = normal_masses((x - 1) / z)
        p = (1 - q) * zero + q * one
        # cells below 0 that are kept; the mass of the others stands at the lowest of them
        below = min(zero.size, max(1, math.ceil(-low / h)))
        bottom = float(zero[below:].sum()) + above_zero
        up, down = np.concatenate([zero[:below][::-1], p]), np.concatenate([p[:below][::-1], zero])
        infinite = (1 - q) * above_zero + q * above_one
        cells = placed(-below, up, down, h, bottom, infinite)
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
    def smooth(self) -> bool:
        return True

    @property
    def infinite(self) -> float:
        return 0.0

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

    def nodes(self, reach: float, most: int = MOST_NODES) -> tuple[Array, Array]:
        x, density, step = _outputs(-reach * self.z, self.k + reach * self.z, self.z, 3, most)
        loss, weight = self.loss(x), density + math.log(step)
        return (-loss, weight) if self.kind == "add" else (loss, weight + loss)

    def cells(self, h: float, low: float, high: float) -> Cells:
        z = self.z
        if self.kind == "add":
            low, high = -high, -low
        low = max(low, self.k * math.log1p(-self.q))
        first, losses = losses_around(low, max(low, high), h)
        x = self.output(losses)
        p, below, above = np.zeros(losses.size - 1), 0.0, 0.0
        for shift, weight in zip(*(v.tolist() for v in self._shifts), strict=True):
            mass, under, over = normal_masses((x - shift) / z)
            p, below, above = p + weight * mass, below + weight * under, above + weight * over
        zero, below_zero, above_zero = normal_masses(x / z)
        if self.kind == "add":
            return placed(1 - first - losses.size, zero[::-1], p[::-1], h, above_zero, below_zero)
        return placed(first, p, zero, h, below, above)
