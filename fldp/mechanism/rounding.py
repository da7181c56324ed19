"""Rounding to whole steps of a grid that never enlarges a client's vector beyond a stated norm.

Each coordinate goes up or down at random, so that it is right on average. Together they may make a
vector longer, by up to √D steps. Kairouz, Liu & Steinke (2021) round again until the result is
within a bound that most results keep; here that ends after a few tries with rounding towards zero,
which makes no vector longer. Whether the bound is kept is looked at in whole numbers, exactly:
whatever floating point did to the vector before, the guarantee does not rest on it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fldp.mechanism.lattice import Words

# So often is a vector rounded at random. One try fails with a chance of at most e^-1/2, and of
# next to 0 where D is large.
_TRIES = 8
# The largest number of float32 that fits into 32 binary digits: the chance 1, up to 10^-7.
_CERTAIN = 2.0**32 - 2.0**8
# What scaling in floating point may add: 2^20 coordinates in float32 stay far below it.
_MARGIN = 2.0**-10


def longest(fineness: float, size: int) -> int:
    """S²: the largest squared norm of a rounded vector, in steps: a whole number.

    With the chance 1 - e^-1/2 and more a vector of D coordinates and the norm Δ is rounded to one
    of at most S (Kairouz, Liu & Steinke 2021, proposition 22):

        S² = min((Δ + √D)², Δ² + min(D/4, Δ√D) + Δ + √D/2).

    Parameters
    ----------
    fineness : float
        Δ, the norm before, in steps.
    size : int
        D.

    Returns
    -------
    int
        S², rounded down.

    Examples
    --------
    >>> longest(1000.0, 1024)
    1001272
    """
    root = math.sqrt(size)
    surely = (fineness + root) ** 2
    mostly = fineness**2 + min(size / 4, fineness * root) + fineness + root / 2
    return math.floor(min(surely, mostly))


def round_within(rows: NDArray[np.floating], limit: int, words: Words) -> NDArray[np.int64]:
    """Rows rounded at random to whole numbers whose squares sum to at most `limit`, exactly.

    Parameters
    ----------
    rows : array
        (c, D), of any values: a row that holds a NaN or an infinity becomes zeros, and one that is
        too long is scaled down first.
    limit : int
        S², below 2^56.
    words : Words
        Where the randomness comes from.

    Returns
    -------
    array
        (c, D), int64.

    Examples
    --------
    >>> rows = np.array([[0.5, 2.5, -1.5], [1e30, 0.0, 0.0], [np.nan, 1.0, 1.0]])
    >>> rounded = round_within(rows, 9, Words())
    >>> bool((rounded**2).sum(1).max() <= 9), rounded[2].tolist()
    (True, [0, 0, 0])
    """
    rows = _brought_within(rows, limit)
    low = np.floor(rows)
    # Of going up. A tiny negative number is a whole one above its floor.
    chances = ((rows - low) * _CERTAIN).astype(np.uint32)
    lower = low.astype(np.int64)
    out = _tried(lower, chances, words)
    left = np.flatnonzero(~_kept(out, limit))
    for _ in range(_TRIES - 1):
        if not left.size:
            return out
        out[left] = _tried(lower[left], chances[left], words)
        left = left[~_kept(out[left], limit)]
    shorter = np.trunc(rows[left]).astype(np.int64)
    # What is too long even so is no vector of this bound: nothing of it is sent.
    shorter[~_kept(shorter, limit)] = 0
    out[left] = shorter
    return out


def _tried(
    lower: NDArray[np.int64], chances: NDArray[np.uint32], words: Words
) -> NDArray[np.int64]:
    """Each entry, or with its chance the next one."""
    drawn = words.short(chances.size).reshape(chances.shape)
    return lower + (drawn < chances)


def _kept(rows: NDArray[np.int64], limit: int) -> NDArray[np.bool_]:
    return np.einsum("ij,ij->i", rows, rows) <= limit


def _brought_within(rows: NDArray[np.floating], limit: int) -> NDArray[np.floating]:
    """Finite rows whose norms are at most the root of the limit, up to floating point."""
    usable = np.isfinite(rows).all(axis=1)
    if not usable.all():
        rows = np.where(usable[:, None], rows, 0.0)
    # Divided by the largest entry first: squares of huge values leave the range.
    largest = np.maximum(np.abs(rows).max(axis=1), 1.0).astype(np.float64)
    shares = rows / largest[:, None]
    lengths = np.sqrt(np.einsum("ij,ij->i", shares, shares))
    bound = math.sqrt(limit)
    long = lengths > bound / largest
    if not long.any():
        return rows
    rows = rows.astype(np.float64)
    rows[long] = shares[long] * (bound * (1 - _MARGIN) / lengths[long])[:, None]
    return rows
