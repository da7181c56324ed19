"""A second way to delta, without any grid of losses: inversion of the loss's moments.

delta(epsilon) = 1/(2 pi i) times the integral of exp(K(t) - t epsilon) / (t (t + 1)) along Re t = c
> 0, where K(t) = log E[exp(t S)] comes from a fine quadrature. Where the integrand does not die out
in time (few rounds, rare hits) there is no answer. Its error is near 1e-9, in relative terms.
"""

from __future__ import annotations

import math

import numpy as np

REACH, PER_SD, MOST_NODES = 26, 5, 4000
HALVINGS, BLOCK = 5, 2048


def _nodes(kind, q, z):
    """Losses and log masses of a dominating pair, written down again from its definition."""
    low, high = -REACH * z - 1, 1 + REACH * z
    step = max(min(z / PER_SD, z * z / 1.2), (high - low) / MOST_NODES)
    x = np.arange(low, high, step)
    zero = -x * x / (2 * z * z) - math.log(z * math.sqrt(2 * math.pi)) + math.log(step)
    forth, back = (2 * x - 1) / (2 * z * z), -(2 * x + 1) / (2 * z * z)
    if q < 1:
        forth = np.logaddexp(math.log1p(-q), math.log(q) + forth)
        back = np.logaddexp(math.log1p(-q), math.log(q) + back)
    if kind == "remove":
        return forth, zero + forth
    if kind == "add":
        return -forth, zero
    return forth - back, zero + forth  # replace


def _cumulant(t, loss, log_mass):
    out = np.empty(t.shape, complex)
    for i in range(0, t.size, 256):  # blocks that fit the memory
        e = t[i : i + 256, None] * loss + log_mass
        top = e.real.max(axis=1)
        with np.errstate(all="ignore"):  # where it oscillates to exactly 0
            out[i : i + 256] = top + np.log(np.exp(e - top[:, None]).sum(axis=1))
    return out


def log_delta(epsilon, rounds, most=20_000):
    """log delta of (kind, q, z, times) rounds, or None where this way leads nowhere."""
    pairs = [(_nodes(kind, q, z), times) for kind, q, z, times in rounds]

    def exponent(t):
        with np.errstate(all="ignore"):
            total = sum(times * _cumulant(t, *pair) for pair, times in pairs)
        return total - t * epsilon - np.log(t * (t + 1))

    t = np.geomspace(1e-6, 1e8, 400).astype(complex)
    i = int(np.argmin(exponent(t).real))
    t = np.geomspace(t[max(i - 1, 0)].real, t[min(i + 1, 399)].real, 60).astype(complex)
    values = exponent(t).real
    centre, height = float(t[int(np.argmin(values))].real), float(values.min())
    d = 1e-3 * centre
    around = exponent(np.array([centre - d, centre, centre + d], complex)).real
    width = math.sqrt(d * d / max(around[0] - 2 * around[1] + around[2], 1e-300))
    last = None
    digits = max(1e-9, 1e-14 * sum(times for _, times in pairs))
    for halving in range(HALVINGS):
        step = width / 4 / 2**halving
        total, k = 0.5, 1
        while k < most:
            along = centre + 1j * np.arange(k, k + BLOCK) * step
            terms = np.exp(exponent(along) - height)
            # beyond its end the quadrature's own period would bring the integrand back
            end = np.flatnonzero(np.abs(terms) < 1e-14)
            total += float(terms.real[: end[0] if end.size else None].sum())
            k += BLOCK
            if end.size:
                break
        else:
            return None
        if total <= 0:
            return None
        found = height + math.log(total * step / math.pi)
        if last is not None and abs(found - last) < digits:
            return found
        last = found
    return None
