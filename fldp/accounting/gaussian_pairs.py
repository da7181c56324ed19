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

All but the last are two mixtures of Gaussians whose loss rises with the output x, or falls with it
(`add`). So the loss has a given value at one output only; and the mass of a cell of the loss axis
is that of an interval of outputs, a difference of error functions (:meth:`Subsampled.cells`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np

from fldp.accounting.binomial import log_pmf
from fldp.accounting.gaussian import LARGEST_EXP, Array, erfc, erfcx_one, gaussian_delta
from fldp.accounting.pairs import MOST_NODES, Cells, multiples_around, placed

# A mixture of N(c, z^2): the weight of each centre c.
Mixture = dict[float, float]

# Nodes of a quadrature per standard deviation: three are exact to 1e-9 for a smooth function of a
# normal output, and twelve see the corner of a fixed cohort's loss at 0.
_NODES_PER_SD, _NODES_AT_A_CORNER = 3, 12
# From here on asinh(e^r) = r + log 2 in double precision.
_LARGE_ASINH = 20
# No mass at all has no logarithm.
_NO_MASS = 1e-300
# Newton's steps to a group's output: they double the digits, so that a few are enough. They end
# where a step is below the last digits of z.
_NEWTON, _NEWTON_DIGITS = 60, 1e-14
# What rounding may take off a difference of two tails, per unit of their sum: erfc and exp are each
# right to two or three last digits.
_ROUND_OFF = 8 * float(np.finfo(np.float64).eps)


def normal_masses(x: Array) -> Array:
    """Masses of N(0, 1) between successive nodes `x`, which rise; tails keep their digits."""
    # the smaller of the two tails at each node: differences of these do not cancel, far out
    tail = 0.5 * erfc(np.abs(x) * math.sqrt(0.5))
    mass = np.abs(np.diff(tail))
    across = (x[:-1] < 0) & (x[1:] > 0)
    mass[across] = 1.0 - tail[:-1][across] - tail[1:][across]
    return mass


def mixture_masses(x: Array, z: float, *mixtures: Mixture) -> list[Array]:
    """Masses of mixtures of N(c, z^2) below the nodes `x`, between them, and above."""
    x = np.concatenate([[-math.inf], x, [math.inf]])
    masses = {c: normal_masses((x - c) / z) for c in set().union(*mixtures)}
    return [reduce(np.add, (w * masses[c] for c, w in one.items())) for one in mixtures]


def _log_mix(q: float, y: Array) -> Array:
    """log(1 - q + q e^y)."""
    return np.logaddexp(math.log1p(-q), math.log(q) + y) if q < 1 else y


def _outputs(low: float, high: float, z: float, per_sd: int, most: int) -> tuple[Array, Array]:
    """Outputs of a quadrature, and the log of what N(0, z^2) has at each."""
    # z^2 is the scale on which a mixture's density turns from one centre to the next
    step = max(min(z / per_sd, z * z), (high - low) / most)
    x = np.arange(low, high + step, step)
    log_density = -x * x / (2 * z * z) - math.log(z * math.sqrt(2 * math.pi))
    return x, log_density + math.log(step)


def _tail_gap(x: float, z: float, p: Mixture, q: Mixture, epsilon: float) -> float:
    """P[X > x] - e^epsilon Q[X > x] for mixtures P and Q, from above."""
    plus = sum(w * _scaled_tail((x - c) / z, 0.0) for c, w in p.items())
    minus = sum(w * _scaled_tail((x - c) / z, epsilon) for c, w in q.items())
    # the two nearly cancel at large z: add what rounding may have taken
    return max(0.0, plus - minus + _ROUND_OFF * (plus + minus))


def _scaled_tail(x: float, log_scale: float) -> float:
    """e^log_scale P[N(0, 1) > x]."""
    if x < 0:
        return math.exp(min(log_scale, LARGEST_EXP)) * (1 - 0.5 * math.erfc(-x * math.sqrt(0.5)))
    # the scale and the tail may each be out of double precision, but not their product
    scale = math.exp(min(LARGEST_EXP, log_scale - x * x / 2))
    return 0.5 * erfcx_one(x * math.sqrt(0.5)) * scale


@dataclass(frozen=True)
class Subsampled:
    """A client of a Poisson cohort.

    Two mixtures, P = `upper` and Q = `lower`, whose log ratio rises with the output. "add" asks for
    them reversed: the loss has the opposite sign, and masses change places.

    Parameters
    ----------
    kind
        "remove", "add" or "replace", see the module.
    q
        The sampling rate, in (0, 1]; 1 is a plain Gaussian.
    z
        Standard deviation of the noise, in clip norms.

    Examples
    --------
    >>> round(Subsampled("remove", 1.0, 1.0).profile(1.0), 6)
    0.126937
    """

    kind: str
    q: float
    z: float
    smooth: ClassVar[bool] = True
    infinite: ClassVar[float] = 0.0

    @property
    def upper(self) -> Mixture:
        return {0.0: 1 - self.q, 1.0: self.q}

    @property
    def lower(self) -> Mixture:
        return {0.0: 1 - self.q, -1.0: self.q} if self.kind == "replace" else {0.0: 1.0}

    @property
    def least(self) -> float:
        """What log(P/Q) falls towards: where nobody took part P has a share of Q's density."""
        if self.kind == "replace" or self.q == 1:
            return -math.inf
        return math.log1p(-self.q)

    @property
    def variation(self) -> float:
        return self.q * math.erf((max(self.upper) - min(self.lower)) / (self.z * math.sqrt(8)))

    def profile(self, epsilon: float) -> float:
        if self.kind == "replace":
            x = float(self.output(np.array([epsilon]))[0])
            return _tail_gap(x, self.z, self.upper, self.lower, epsilon)
        # Exactly, from a full Gaussian's (Balle, Barthe & Gaboardi 2018, Thm 2): what its loss must
        # be for that of the sampled one to be epsilon.
        q = self.q
        if self.kind == "remove":
            more = max(0.0, epsilon - LARGEST_EXP)
            inner = math.log1p(math.expm1(epsilon - more) / q) + more
            return q * gaussian_delta(1 / self.z, inner)
        if epsilon >= -self.least:
            return 0.0  # that loss is not reached: P has at least a share 1 - q of Q
        left = -math.expm1(epsilon + self.least)  # 1 - (1 - q) e^epsilon
        return left * gaussian_delta(1 / self.z, max(0.0, epsilon + math.log(q / left)))

    def log_upper(self, x: Array) -> Array:
        """log of P's density at output x, relative to that of N(0, z^2)."""
        return _log_mix(self.q, (2 * x - 1) / (2 * self.z * self.z))

    def log_lower(self, x: Array) -> Array:
        """The same of Q."""
        return self.log_upper(-x) if self.kind == "replace" else np.zeros_like(x)

    def output(self, loss: Array) -> Array:
        """The output at which log(P/Q) has this value; -inf below its range."""
        q = self.q
        variance = self.z * self.z
        if q == 1:
            return variance * loss / 2 if self.kind == "replace" else variance * loss + 0.5
        stay, go = math.log1p(-q), math.log(q)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.kind == "replace":
                # z^2 (l/2 + asinh((1-q)/q e^(1/2z^2) sinh(l/2))), in logarithms
                half = np.abs(loss) / 2
                r = half + np.log(-np.expm1(-2 * half) / 2) + stay - go + 1 / (2 * variance)
                small = np.arcsinh(np.exp(np.minimum(r, _LARGE_ASINH)))
                turn = np.where(r > _LARGE_ASINH, r + math.log(2), small)
                return np.asarray(np.sign(loss) * variance * (half + turn))
            # 1 - q + q e^((2x-1)/2z^2) = e^l solved for x, in logarithms
            y = np.maximum(loss - stay, 0.0)
            return np.asarray(variance * (y + np.log(-np.expm1(-y)) + stay - go) + 0.5)

    def nodes(self, reach: float, most: int = MOST_NODES) -> tuple[Array, Array]:
        low = min(*self.lower, *self.upper) - reach * self.z
        high = max(self.upper) + reach * self.z
        x, log_weight = _outputs(low, high, self.z, _NODES_PER_SD, most)
        log_upper = self.log_upper(x)
        loss = log_upper - self.log_lower(x)
        if self.kind == "add":
            return -loss, log_weight
        return loss, log_weight + log_upper

    def cells(self, h: float, low: float, high: float) -> Cells:
        backwards = self.kind == "add"
        if backwards:
            low, high = -high, -low
        low = max(low, self.least)
        grid = multiples_around(low, max(low, high), h)
        p, q = mixture_masses(self.output(grid * h), self.z, self.upper, self.lower)
        if backwards:
            return placed(-int(grid[-1]), q[::-1], p[::-1], h)
        return placed(int(grid[0]), p, q, h)


@dataclass(frozen=True)
class Fixed:
    """A client of a cohort of fixed size, replace-one; see the module.

    Parameters
    ----------
    q
        The share of clients that take part, in (0, 1).
    z
        Standard deviation of the noise, in clip norms.

    Examples
    --------
    >>> Fixed(0.5, 4.0).variation == Subsampled("remove", 0.5, 2.0).variation
    True
    """

    q: float
    z: float
    smooth: ClassVar[bool] = True
    infinite: ClassVar[float] = 0.0

    @property
    def _above(self) -> Subsampled:
        """The pair whose loss has the same law above 0."""
        return Subsampled("remove", self.q, self.z / 2)

    @property
    def variation(self) -> float:
        return self._above.variation

    def profile(self, epsilon: float) -> float:
        return self._above.profile(epsilon)

    def nodes(self, reach: float, most: int = MOST_NODES) -> tuple[Array, Array]:
        z = self.z / 2
        x, log_weight = _outputs(-reach * z, 1 + reach * z, z, _NODES_AT_A_CORNER, most)
        loss = self._above.log_upper(x)
        loss, log_weight = loss[loss > 0], log_weight[loss > 0]
        # P's mass at a loss, and at its mirror image, where it is Q's
        both = np.concatenate([log_weight + loss, log_weight])
        rest = math.log(max(_NO_MASS, 1 - float(np.exp(both).sum())))
        return np.concatenate([loss, -loss, [0.0]]), np.append(both, rest)

    def cells(self, h: float, low: float, high: float) -> Cells:
        pair = self._above
        grid = multiples_around(0.0, max(0.0, high), h)
        p, q = mixture_masses(pair.output(grid * h), pair.z, pair.upper, pair.lower)
        # cells below 0 that are kept; the mass of the others stands at the lowest of them
        kept = min(grid.size - 1, max(1, math.ceil(-low / h)))
        bottom = float(q[kept + 1 : -1].sum()) + float(q[-1])
        up = np.concatenate([[bottom], q[1 : kept + 1][::-1], p[1:]])
        down = np.concatenate([[0.0], p[1 : kept + 1][::-1], q[1:]])
        cells = placed(-kept, up, down, h)
        # at 0 stands what is neither above nor below it
        cells.mass[kept] += max(0.0, 1 - float(up[1:-1].sum()) - cells.infinite - bottom)
        return cells


@dataclass(frozen=True)
class Group(Subsampled):
    """k clients of a Poisson cohort at rate q that leave together ("remove") or come ("add").

    Any contributions of the group are dominated by k equal ones: N(0), ..., N(k) with the weights
    of Bin(k, q) against N(0) (Ganesh 2024, "Tight group-level DP guarantees for DP-SGD with
    sampling via mixture of Gaussians mechanisms").

    Parameters
    ----------
    kind
        "remove" or "add".
    q
        The sampling rate, in (0, 1).
    z
        Standard deviation of the noise, in clip norms.
    k
        How many clients move together.

    Examples
    --------
    >>> Group("add", 0.1, 1.0, 2).variation < 2 * Subsampled("add", 0.1, 1.0).variation
    True
    """

    k: int

    @property
    def _shifts(self) -> Array:
        """How far the sum moves: by one for each that takes part."""
        return np.arange(self.k + 1.0)

    @property
    def _weights(self) -> Array:
        return np.exp(log_pmf(self._shifts, self.k, self.q))

    @property
    def upper(self) -> Mixture:
        return dict(zip(self._shifts.tolist(), self._weights.tolist(), strict=True))

    @property
    def least(self) -> float:
        return self.k * math.log1p(-self.q)

    @property
    def variation(self) -> float:
        # no more than the mean of those of the parts, by convexity
        scale = self.z * math.sqrt(8)
        return sum(weight * math.erf(shift / scale) for shift, weight in self.upper.items())

    def profile(self, epsilon: float) -> float:
        if self.kind == "remove":
            x = float(self.output(np.array([epsilon]))[0])
            return _tail_gap(x, self.z, self.upper, self.lower, epsilon)
        x = float(self.output(np.array([-epsilon]))[0])
        if x == -math.inf:
            return 0.0
        # mirrored, so that the lower tails become upper ones
        mirrored = {-shift: weight for shift, weight in self.upper.items()}
        return _tail_gap(-x, self.z, self.lower, mirrored, epsilon)

    def log_upper(self, x: Array) -> Array:
        return np.logaddexp(self.least, self._somebody(x)[0])

    def _somebody(self, x: Array) -> tuple[Array, Array]:
        """log of the part of P/Q in which somebody took part, and its derivative."""
        shifts = self._shifts[1:, None]
        with np.errstate(divide="ignore"):
            log_weights = np.log(self._weights[1:, None])
        logs = log_weights + shifts * (2 * x - shifts) / (2 * self.z * self.z)
        top = logs.max(axis=0)
        share = np.exp(logs - top)
        total = share.sum(axis=0)
        slope = (shifts * share).sum(axis=0) / total / (self.z * self.z)
        return top + np.log(total), slope

    def output(self, loss: Array) -> Array:
        shifts = self._shifts[1:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.maximum(loss - self.least, 0.0)
            # what the part in which somebody took part must be
            goal = y + np.log(-np.expm1(-y)) + self.least
            # each term alone bounds that sum, so each gives an upper bound on x
            starts = (goal - np.log(self._weights[1:, None])) * self.z**2 / shifts + shifts / 2
        x = starts.min(axis=0)
        inside = np.isfinite(x)
        # Newton from above: the function is convex and increasing, so it falls towards the root
        for _ in range(_NEWTON):
            value, slope = self._somebody(x[inside])
            step = (value - goal[inside]) / slope
            x[inside] -= step
            if float(np.abs(step).max(initial=0.0)) < _NEWTON_DIGITS * self.z:
                break
        return np.asarray(x)
