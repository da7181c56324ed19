# ruff: noqa: E501
"""Privacy-loss distributions: the kernel behind :mod:`fldp.accounting`.

One round is described by its dominating pair (P, Q): the two output distributions that differ most
between neighbouring populations. The privacy loss L = log(P/Q) under P, added up over the rounds, gives
delta(epsilon) = E[(1 - e^(epsilon - L))_+] (Sommer et al. 2019; Koskela et al. 2020). Steps:

1. a saddle point (Alghamdi et al. 2022) predicts the answer, and from it grid step and window;
2. every cell of the loss axis keeps its P- and its Q-mass and moves both to its two ends: "connect the
   dots" (Doroshenko et al. 2022), never below the true delta;
3. the step is tilted by e^(theta L), so that the answer lies in the bulk of the sum and not in its tail:
   one FFT, power T, one inverse FFT then have small *relative* error however small delta is;
4. mass beyond the window (Chernoff), beyond the truncation, and a bound on the FFT's round-off are added.
   Mass that wraps from below the window can only add to delta. So the result is an upper bound.

Units: the clip norm is 1 and the noise has standard deviation ``z``. Four kinds of pair, q = sampling rate:

- ``remove``: (1-q)N(0) + qN(1) against N(0), and ``add``, the same reversed: Poisson, add-or-remove;
- ``replace``: (1-q)N(0) + qN(1) against (1-q)N(0) + qN(-1): Poisson, replace-one;
- ``fixed``: fixed size without replacement, replace-one. Reveal the rest of the cohort and the client y
  that would sit in the target's place: the pair is (1-q)N(0) + qN(u) against (1-q)N(0) + qN(v) with
  u = x-y, v = x'-y and |u|, |v|, |u-v| <= 2. For every threshold e^epsilon >= 1 the hockey-stick
  divergence grows when v turns away from u on the sphere of radius 2 around u, and then when u and v
  slide together along their line until v = 0. So (u, v) = (2, 0) is the worst for every epsilon >= 0;
  neighbours are symmetric, so the profile below 1 is its mirror image (Zhu, Dong & Wang 2022): the loss
  has the ``remove`` pair's law at z/2 above 0, the mirrored law below 0, and the rest of the mass at 0.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Part = tuple[float, str, float, float]  # weight, kind, sampling rate, noise multiplier
Round = tuple[Sequence[Part], int]  # a mixture of parts, how often

ACCURACY = 2.5e-4  # aim of the grid, relative in epsilon
MAX_POINTS = 1 << 23
_TRUNCATION = 1e-7  # share of delta spent on truncation
_GRID = np.geomspace(1e-5, 1e11, 62)


def _sf(x: Array) -> Array:
    """P[N(0,1) > x], accurate in relative terms far into the tail."""
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        return torch.special.erfc(torch.from_numpy(x * math.sqrt(0.5))).mul_(0.5).numpy()
    return 0.5 * np.fromiter(map(math.erfc, (x * math.sqrt(0.5)).tolist()), np.float64, x.size)


def _between(x: Array) -> tuple[Array, float, float]:
    """Normal mass between successive nodes, below the first and above the last."""
    tail = _sf(np.abs(x))
    mass = np.abs(np.diff(tail))
    across = (x[:-1] < 0) & (x[1:] > 0)
    mass[across] = 1.0 - tail[:-1][across] - tail[1:][across]
    below = tail[0] if x[0] < 0 else 1.0 - tail[0]
    above = tail[-1] if x[-1] > 0 else 1.0 - tail[-1]
    return mass, float(below), float(above)


def _log_ratio(kind: str, q: float, z: float, x: Array) -> Array:
    """log(P/Q) at output x of a ``remove`` or ``replace`` pair; increasing in x."""
    stay = math.log1p(-q) if q < 1 else -math.inf
    up = np.logaddexp(stay, math.log(q) + (2 * x - 1) / (2 * z * z))
    if kind != "replace":
        return up
    return up - np.logaddexp(stay, math.log(q) - (2 * x + 1) / (2 * z * z))


def _inverse(kind: str, q: float, z: float, loss: Array) -> Array:
    """The output x at which a ``remove`` or ``replace`` pair has this loss (-inf below its range)."""
    if q == 1:
        return z * z * loss / 2 if kind == "replace" else z * z * loss + 0.5
    if kind == "replace":
        half = np.abs(loss) / 2
        # log of sinh(half) * scale; asinh(r) = log(2r) once r is large
        with np.errstate(divide="ignore"):
            log_r = half + np.log(-np.expm1(-2 * half) / 2) + math.log1p(-q) - math.log(q)
        log_r += 1 / (2 * z * z)
        turn = np.where(log_r > 20, log_r + math.log(2), np.arcsinh(np.exp(np.minimum(log_r, 20))))
        return np.sign(loss) * z * z * (half + turn)
    above = loss - math.log1p(-q)
    x = np.full(loss.shape, -np.inf)
    ok = above > 0
    y = above[ok]
    x[ok] = z * z * (y + np.log(-np.expm1(-y)) + math.log1p(-q) - math.log(q)) + 0.5
    return x


def _nodes(part: Part, reach: float) -> tuple[Array, Array]:
    """Losses and log weights of a quadrature of one part: a guide for window and grid, no bound."""
    weight, kind, q, z = part
    z = z / 2 if kind == "fixed" else z
    step = z / (12 if kind == "fixed" else 3)
    x = np.arange(-reach * z - (kind == "replace"), 1 + reach * z + step, step)
    loss = _log_ratio(kind, q, z, x)
    base = -x * x / (2 * z * z) + math.log(step / (z * math.sqrt(2 * math.pi)))
    if kind == "add":
        loss, log_weight = -loss, base
    elif kind == "replace":
        stay = math.log1p(-q) if q < 1 else -math.inf
        log_weight = base + np.logaddexp(stay, math.log(q) + (2 * x - 1) / (2 * z * z))
    elif kind == "fixed":
        gain = loss > 0
        loss, base = loss[gain], base[gain]
        log_weight = np.concatenate([base + loss, base])
        rest = max(1e-300, 1 - float(np.exp(log_weight).sum()))
        loss = np.concatenate([loss, -loss, [0.0]])
        log_weight = np.append(log_weight, math.log(rest))
    else:
        log_weight = base + loss
    return loss, log_weight + math.log(weight)


def _masses(part: Part, h: float, reach: float) -> tuple[int, Array, float]:
    """First grid index, probabilities on the grid (multiples of ``h``), and mass at infinite loss."""
    weight, kind, q, z = part
    z = z / 2 if kind == "fixed" else z
    end = np.array([-reach * z - (kind == "replace"), 1 + reach * z])
    low, high = _log_ratio(kind, q, z, end).tolist()
    if kind in ("remove", "add") and q < 1:
        low = math.log1p(-q)
    first = 0 if kind == "fixed" else math.floor(low / h)
    last = max(first + 1, math.ceil(high / h))
    if last - first > MAX_POINTS:
        raise _too_fine(last - first)
    loss = np.arange(first, last + 1) * h
    x = _inverse(kind, q, z, loss)
    centre, centre_low, centre_high = _between(x / z)
    shifted, shifted_low, shifted_high = _between((x - 1) / z)
    p, q_mass = (1 - q) * centre + q * shifted, centre
    infinite, lowest = (
        (1 - q) * centre_high + q * shifted_high,
        (1 - q) * centre_low + q * shifted_low,
    )
    rest = 0.0
    if kind == "replace":
        q_mass = (1 - q) * centre + q * _between((x + 1) / z)[0]
    elif kind == "add":
        p, q_mass = q_mass[::-1], p[::-1]
        first, infinite, lowest = -last, centre_low, centre_high
        loss = -loss[::-1]
    elif kind == "fixed":
        p, q_mass = np.concatenate([q_mass[::-1], p]), np.concatenate([p[::-1], q_mass])
        first, lowest, loss = -last, 0.0, np.concatenate([-loss[:0:-1], loss])
        rest = max(0.0, 1 - float(p.sum()) - infinite)
    # both masses of a cell to its two ends; exp is capped: that only moves mass upwards
    upper = (p - q_mass * np.exp(np.minimum(loss[:-1], 700.0))) / -math.expm1(-h)
    upper = np.clip(upper, 0.0, p)
    out = np.zeros(p.size + 1)
    out[:-1] = p - upper
    out[1:] += upper
    out[0] += lowest
    if rest:
        out[-first] += rest
    return first, weight * out, weight * infinite


def _merge(parts: Sequence[Part], h: float, reach: float) -> tuple[int, Array, float]:
    built = [_masses(part, h, reach) for part in parts]
    if len(built) == 1:
        return built[0]
    first = min(b[0] for b in built)
    out = np.zeros(max(b[0] + b[1].size for b in built) - first)
    for start, mass, _ in built:
        out[start - first : start - first + mass.size] += mass
    return first, out, sum(b[2] for b in built)


def _cumulants(nodes: Sequence[tuple[Array, Array, int]], t: Array) -> tuple[Array, Array, Array]:
    """log E[e^(tS)] of the sum S over all rounds and its first two derivatives, for each t."""
    k0, k1, k2 = np.zeros(t.shape), np.zeros(t.shape), np.zeros(t.shape)
    for loss, log_weight, times in nodes:
        e = t[:, None] * loss + log_weight
        top = e.max(1)
        e = np.exp(e - top[:, None])
        total = e.sum(1)
        mean = e @ loss / total
        k0 += times * (top + np.log(total))
        k1 += times * mean
        k2 += times * np.maximum(e @ (loss * loss) / total - mean * mean, 0.0)
    return k0, k1, k2


def _saddle(
    nodes: Sequence[tuple[Array, Array, int]], t: Array, log_delta: float | None, epsilon: float
) -> tuple[float, float, float, float, float]:
    """Tilt, epsilon, log delta and spread at the saddle point, and log E[e^(tilt S)]."""
    for size in (10, 0):
        k0, k1, k2 = _cumulants(nodes, t)
        eps = k1 - 1 / t - 1 / (t + 1)
        var = k2 + 1 / t**2 + 1 / (t + 1) ** 2
        logd = k0 - t * eps - np.log(t * (t + 1)) - 0.5 * np.log(2 * math.pi * var)
        order = -logd if log_delta is not None else eps
        goal = -log_delta if log_delta is not None else epsilon
        i = int(np.clip(np.searchsorted(np.maximum.accumulate(order), goal), 1, t.size - 1))
        if size:
            t = np.geomspace(t[i - 1], t[i], size)
    width = float(order[i] - order[i - 1])
    w = min(1.0, max(0.0, (goal - float(order[i - 1])) / width)) if width > 0 else 0.0
    tilt = float(t[i - 1] * (t[i] / t[i - 1]) ** w)
    mix = [float(v[i - 1] + w * (v[i] - v[i - 1])) for v in (eps, logd, np.sqrt(var), k0)]
    return (tilt, *mix)  # type: ignore[return-value]


def _smooth_size(n: int) -> int:
    """The next product of 2, 3 and 5 at or above n: fast for the FFT."""
    return min(f * (1 << max(0, math.ceil(math.log2(n / f)))) for f in (1, 3, 5, 9, 15, 25, 45, 75))


def _power(x: NDArray[np.complex128], n: int) -> NDArray[np.complex128]:
    out = None
    while True:
        if n & 1:
            out = x.copy() if out is None else out * x
        n >>= 1
        if not n:
            return out  # type: ignore[return-value]
        x = x * x


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _too_fine(points: float) -> ValueError:
    return ValueError(
        f"the privacy loss needs {points:.3g} grid points, more than {MAX_POINTS}: use more noise, "
        "fewer rounds or a larger delta"
    )


def estimate(rounds: Sequence[Round], delta: float) -> float:
    """Epsilon at the saddle point: a fast guess to start a search from, no bound; may be negative."""
    reach = _reach(rounds, math.log(delta))
    return _saddle(_all_nodes(rounds, reach), _GRID, math.log(delta), 0.0)[1]


def _reach(rounds: Sequence[Round], log_delta: float) -> float:
    times = sum(t for _, t in rounds)
    return math.sqrt(2 * (math.log(times / _TRUNCATION) - min(log_delta, 0.0)))


def _all_nodes(rounds: Sequence[Round], reach: float) -> list[tuple[Array, Array, int]]:
    out = []
    for parts, times in rounds:
        pairs = [_nodes(part, reach) for part in parts]
        out.append(
            (np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs]), times)
        )
    return out


def solve(
    rounds: Sequence[Round],
    *,
    delta: float | None = None,
    epsilon: float = 0.0,
    accuracy: float = ACCURACY,
) -> float:
    """Upper bound on epsilon for this ``delta``, or on delta for this ``epsilon``, of one direction.

    Parameters
    ----------
    rounds
        What ran: each a mixture of parts (weight, kind, q, z) and a number of rounds.
    delta, epsilon
        Give one: ``delta`` in (0, 1) asks for epsilon, else ``epsilon`` >= 0 asks for delta.
    accuracy
        Aimed looseness of the grid, relative in epsilon.

    >>> 4.377 < solve([([(1.0, "remove", 1.0, 1.0)], 1)], delta=1e-5) < 4.381
    True
    """
    times = sum(t for _, t in rounds)
    log_goal = math.log(delta) if delta is not None else None
    reach = _reach(rounds, log_goal if log_goal is not None else -40.0)
    nodes = _all_nodes(rounds, reach)
    tilt, guess, logd, spread, k_tilt = _saddle(nodes, _GRID, log_goal, epsilon)
    if log_goal is None:
        if sum(n * float(loss.max()) for loss, _, n in nodes) <= epsilon or logd < -230:
            return 1e-100
        reach = _reach(rounds, logd)
        nodes = _all_nodes(rounds, reach)
        tilt, guess, logd, spread, k_tilt = _saddle(nodes, _GRID, None, epsilon)
    guess = max(0.0, guess) if log_goal is not None else epsilon
    # window: Chernoff above, and below as far as wrapped mass could be felt
    t = np.concatenate([-_GRID[::-1], _GRID])
    k = _cumulants(nodes, t)[0]
    above = (k[_GRID.size :] - logd - math.log(_TRUNCATION)) / _GRID
    j = int(np.argmin(above))
    high, t_high = float(above[j]), float(_GRID[j])
    felt = math.log(1e-6) - math.log(tilt * (tilt + 1) * spread * 2.5066 + 1)
    under = t < tilt * 0.999
    low = float(((felt - k[under] + k_tilt) / (tilt - t[under])).max())
    sd = float(math.sqrt(_cumulants(nodes, np.array([tilt]))[2][0]))
    h = math.sqrt(12 * accuracy * max(guess, 0.02 * sd) / (times * (tilt + 1)))
    h = min(h, max(sd, 1e-12) / 4)
    centre, last = guess, math.nan
    for _ in range(30):
        low, high = min(low, centre - 8 * h - 0.02 * centre), max(high, centre + 8 * h)
        size = _smooth_size(max(64, math.ceil((high - low) / h) + 4))
        if not size <= MAX_POINTS:
            raise _too_fine(size)
        window = (math.floor(low / h), size)
        found = _compose(rounds, h, window, (tilt, t_high), centre, reach, delta, epsilon)
        if found is None:
            low, high = low - (high - low), high + (high - low)
            continue
        # the saddle point was right: so was the grid; else halve it until the answer stays
        expected, value = (guess, found) if log_goal is not None else (logd, _log(found))
        scale = 1.0 if log_goal is None else max(value, 1e-4 * sd)
        if abs(value - expected) <= 0.02 * scale or abs(last - value) <= 2 * accuracy * scale:
            return found
        last, h = value, h / 2
        centre = found if log_goal is not None else centre
    raise ValueError(
        f"no answer within numerical range for epsilon={epsilon}, delta={delta}: "
        "use more noise or fewer rounds"
    )


def _compose(
    rounds: Sequence[Round],
    h: float,
    window: tuple[int, int],
    tilts: tuple[float, float],
    centre: float,
    reach: float,
    delta: float | None,
    epsilon: float,
) -> float | None:
    """Compose on the window [first, first + size) h; None when the answer is not inside it."""
    (first, size), (tilt, t_high) = window, tilts
    unit, logn = np.finfo(np.float64).eps / 2, math.log2(size)
    log_mgf = log_tail = infinite = 0.0
    steps: list[tuple[NDArray[np.complex128], float, int]] = []
    for parts, times in rounds:
        start, mass, inf = _merge(parts, h, reach)
        infinite += times * inf
        index = start + np.arange(mass.size)
        with np.errstate(divide="ignore"):
            logm = np.log(mass)
        for order in (tilt, t_high):
            e = logm + order * h * index
            top = float(e.max())
            e = np.exp(e - top)
            total = float(e.sum())
            if order == tilt:
                log_mgf += times * (top + math.log(total))
                tilted = np.bincount(index % size, weights=e / total, minlength=size)
            if order == t_high:
                log_tail += times * (top + math.log(total))
        steps.append((np.fft.rfft(tilted), float(np.sqrt(tilted @ tilted)), times))
    total_f = np.ones(size // 2 + 1, dtype=np.complex128)
    for f, _, times in steps:
        total_f *= _power(f, times)
    size_f = np.abs(total_f)
    rms = math.sqrt(2 * float(size_f @ size_f) / size)
    error = 4 * logn * rms
    for f, norm, times in steps:
        g = size_f / np.maximum(np.abs(f), 1e-300)
        rms_g = math.sqrt(2 * float(g @ g) / size)
        error += times * (4 * logn * norm * rms_g + 6 * float(size_f.sum()) / size)
    mass = np.maximum(np.fft.irfft(total_f, size), 0.0) + unit * error
    # entry i of irfft is the mass of all losses (i + m size) h: roll it onto the window
    mass = np.roll(mass, -(first % size))
    skip = max(0, math.ceil(max(0.0, centre - 300 / (tilt + 1)) / h) - first)
    loss = (first + np.arange(skip, size)) * h
    scale = log_mgf - tilt * centre
    one = mass[skip:] * np.exp(scale - tilt * (loss - centre))
    two = one * np.exp(-(loss - centre))
    s1, s2 = np.cumsum(one[::-1])[::-1], np.cumsum(two[::-1])[::-1]
    extra = infinite + math.exp(min(0.0, log_tail - t_high * h * (first + size - 1)))
    s1 = s1 * (1 + 4e-15 * sum(t for *_, t in steps)) + extra
    if delta is None:
        i = int(np.searchsorted(loss, epsilon))
        if (i == 0 and skip + first > 0) or i >= loss.size:
            return None
        return min(1.0, max(0.0, float(s1[i] - math.exp(epsilon - centre) * s2[i])))
    value = s1 - np.exp(np.minimum(loss - centre, 700.0)) * s2
    below = np.flatnonzero(value <= delta)
    if not below.size:
        return None
    i = int(below[0])
    if i == 0:
        return 0.0 if loss[0] <= h else None
    if s1[i] <= delta or s2[i] <= 0:
        return max(0.0, float(loss[i]))
    found = centre + math.log((float(s1[i]) - delta) / float(s2[i]))
    return max(0.0, min(float(loss[i]), max(float(loss[i - 1]), found)))
