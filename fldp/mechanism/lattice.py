"""Integer noise drawn exactly, from a stream of random words under a key.

A law on the integers is a table of its distribution function in fixed point: weights of 320 binary
digits, of which a comparison uses 256. A draw compares a 64-bit word with the leading digits of the
whole table at once; only where they are equal, with a chance of the table's length over 2^64, are
192 further digits drawn. A draw is within total variation 2^-230 of the law, and a sum of a billion
draws within 2^-200: so far below any δ that it is exact for every account. A table of 64 digits
would not be, since 10^-15 for each of d coordinates, n clients and T rounds reaches 10^-5.
"""

from __future__ import annotations

import math
import os
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

# Binary digits of a weight, of a comparison, and of its first word.
_DIGITS, _COMPARED, _WORD = 320, 256, 64
_OCTETS = _COMPARED // 8
_REST = (_COMPARED - _WORD) // 8
# Beyond a table a law has less than 2^-235 of its mass.
_BEYOND = -235 * math.log(2)
# Of the backward recurrence: it forgets its start within six standard deviations more.
_RUN_UP, _RUN_UP_STEPS = 6, 40
# AES-256.
_KEY_BYTES, _NONCE = 32, bytes(16)
# Draws at once: the words, and what is found for them, stay in a cache.
_BLOCK = 1 << 16
# The guide to a table: by so many leading digits, and a bucket of it is walked in so many steps.
_BUCKETS, _REST_OF_WORD, _NEAR = 1 << 16, np.uint64(48), 2
_TOP = np.uint64(2**64 - 1)
# A table of standard deviation 2^14 has 600,000 entries and takes seconds to make.
_WIDEST = 1 << 28
# Tables that are kept; the widest has 25 MB.
_KEPT = 24
# How far, in total variation, a sum of up to 2^30 draws is from its law.
DISTANCE = 2.0**-200


class Words:
    """Random words of AES-256 in counter mode.

    Parameters
    ----------
    key : bytes, optional
        32 bytes, used for one stream only. None: from the operating system, as noise must be where
        nobody may repeat it.

    Examples
    --------
    >>> bool((Words(bytes(32)).take(4) == Words(bytes(32)).take(4)).all())
    True
    """

    def __init__(self, key: bytes | None = None) -> None:
        if key is None:
            key = os.urandom(_KEY_BYTES)
        self._stream = Cipher(algorithms.AES(key), modes.CTR(_NONCE)).encryptor()

    @classmethod
    def of(cls, generator: torch.Generator | None) -> Words:
        """A stream whose key is the next 256 bits of a generator, or the operating system's.

        Parameters
        ----------
        generator : torch.Generator or None
            The caller's, for noise that comes again.

        Returns
        -------
        Words
        """
        if generator is None:
            return cls()
        drawn = torch.randint(
            256, (_KEY_BYTES,), generator=generator, device=generator.device, dtype=torch.int64
        )
        return cls(bytes(drawn.tolist()))

    def take(self, count: int) -> NDArray[np.uint64]:
        """The next `count` words of 64 bits.

        Parameters
        ----------
        count : int
            How many.

        Returns
        -------
        array
            (count,), uint64.
        """
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype=np.uint64)

    def short(self, count: int) -> NDArray[np.uint32]:
        """The next `count` words of 32 bits, of an even number that is drawn.

        Parameters
        ----------
        count : int
            How many.

        Returns
        -------
        array
            (count,), uint32.
        """
        return self.take(-(-count // 2)).view(np.uint32)[:count]

    def digits(self) -> bytes:
        """192 bits more for one comparison.

        Returns
        -------
        bytes
            24 of them.
        """
        return self._stream.update(bytes(_REST))


class Lattice:
    """A symmetric law on the integers -K to K, to draw from.

    Parameters
    ----------
    weights : list of int
        Those of 0, 1, ..., K, proportional to the probabilities; those of -1 to -K are the same.

    Examples
    --------
    >>> coin = Lattice([1, 1])
    >>> drawn = coin.sample(3000, Words())
    >>> sorted(set(drawn.tolist())), bool(abs(drawn.mean()) < 0.1)
    ([-1, 0, 1], True)
    """

    def __init__(self, weights: list[int]) -> None:
        full = weights[:0:-1] + weights
        total = sum(full)
        below = 0
        found = []
        # Of the last one the distribution function is 1: nothing is compared with it.
        for weight in full[:-1]:
            below += weight
            found.append(((below << _COMPARED) // total).to_bytes(_OCTETS, "big"))
        self._lowest = 1 - len(weights)
        self._digits = b"".join(found)
        leading = np.frombuffer(self._digits, dtype=">u8")[:: _COMPARED // _WORD]
        self._leading = leading.astype(np.uint64)
        # A guide by the first 16 digits of a word: a binary search over the whole table would take
        # most of the time. Beyond the table nothing is below any word.
        self._ended = np.append(self._leading, _TOP)
        edges = np.arange(_BUCKETS, dtype=np.uint64) << _REST_OF_WORD
        self._first = np.searchsorted(self._leading, edges)
        self._span = np.diff(self._first, append=len(self._leading))

    def sample(self, count: int, words: Words) -> NDArray[np.int64]:
        """Independent draws.

        Parameters
        ----------
        count : int
            How many.
        words : Words
            Where the randomness comes from.

        Returns
        -------
        array
            (count,), int64.
        """
        out = np.empty(count, dtype=np.int64)
        for start in range(0, count, _BLOCK):
            uniform = words.take(min(_BLOCK, count - start))
            out[start : start + len(uniform)] = self._places(uniform, words)
        out += self._lowest
        return out

    def _places(self, uniform: NDArray[np.uint64], words: Words) -> NDArray[np.int64]:
        """How many values of the distribution function are at most each uniform number."""
        buckets = uniform >> _REST_OF_WORD
        places = self._first[buckets]
        for _ in range(_NEAR):
            places += self._ended[places] < uniform
        # In the tails, where hardly a word falls, many values share a bucket.
        far = np.flatnonzero(self._span[buckets] > _NEAR)
        places[far] = np.searchsorted(self._leading, uniform[far])
        for i in np.flatnonzero(self._ended[places] == uniform):
            places[i] = self._settled(int(uniform[i]), int(places[i]), words)
        return places

    def _settled(self, uniform: int, place: int, words: Words) -> int:
        """The place of a uniform number whose first digits are those of the value at `place`."""
        number = uniform.to_bytes(8, "big") + words.digits()
        while place < len(self._leading):
            # Bytes in this order compare as the numbers that they write.
            value = self._digits[_OCTETS * place : _OCTETS * (place + 1)]
            if value > number:
                break
            place += 1
        return place


def skellam_weights(variance: Fraction) -> list[int]:
    """Numbers proportional to Skellam probabilities of 0, 1, ..., K, to 300 binary digits.

    By the backward recurrence I_k / I_(k-1) = 1 / (2k/μ + I_(k+1) / I_k) in fixed point; K is so
    large that 2^-235 of the mass is beyond it (Chernoff).

    Parameters
    ----------
    variance : Fraction
        μ, positive: any fraction, so that shares add up to what was accounted.

    Returns
    -------
    list of int
        K + 1 of them, falling.

    Examples
    --------
    >>> weights = skellam_weights(Fraction(2))
    >>> round(weights[0] / (2 * sum(weights) - weights[0]), 4)
    0.3085
    """
    std = math.sqrt(variance)
    reach = 8 * (1 + int(std))
    while _log_tail(reach, float(variance)) > _BEYOND:
        reach += 1 + int(std)
    ratios = [0] * (reach + 1)
    ratio = 0
    for k in range(reach + _RUN_UP_STEPS + int(_RUN_UP * std), 0, -1):
        grown = (2 * k * variance.denominator << _DIGITS) // variance.numerator
        ratio = (1 << 2 * _DIGITS) // (grown + ratio)
        if k <= reach:
            ratios[k] = ratio
    weights = [1 << _DIGITS]
    for k in range(1, reach + 1):
        weights.append(weights[-1] * ratios[k] >> _DIGITS)
    return weights


def _log_tail(k: int, variance: float) -> float:
    """The Chernoff bound of log P[X >= k]."""
    tilt = math.asinh(k / variance)
    # cosh t - 1 = 2 sinh²(t/2), without its cancellation.
    return 2 * variance * math.sinh(tilt / 2) ** 2 - tilt * k


@lru_cache(maxsize=_KEPT)
def _table(variance: Fraction) -> Lattice:
    return Lattice(skellam_weights(variance))


def skellam(variance: Fraction, count: int, words: Words, shares: int = 1) -> NDArray[np.int64]:
    """Exact Skellam noise: the sum of `shares` independent shares, each of a variance.

    Skellam laws add up, so the sum is drawn as such: in as many draws as `shares` has binary ones,
    for which the tables are kept, whatever the next number of shares is.

    Parameters
    ----------
    variance : Fraction
        That of one share, positive.
    count : int
        How many numbers are drawn.
    words : Words
        Where the randomness comes from.
    shares : int
        How many shares; 0 is no noise.

    Returns
    -------
    array
        (count,), int64.

    Examples
    --------
    >>> noise = skellam(Fraction(50), 20_000, Words(), shares=3)
    >>> bool(130 < noise.var() < 170)
    True
    """
    total = np.zeros(count, dtype=np.int64)
    doubled = variance
    while shares:
        if shares % 2:
            # Of a law too wide for a table, as many equal parts as it takes.
            parts = math.ceil(doubled / _WIDEST)
            for _ in range(parts):
                total += _table(doubled / parts).sample(count, words)
        doubled *= 2
        shares //= 2
    return total
