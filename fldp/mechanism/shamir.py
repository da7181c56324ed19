"""Secrets in shares (Shamir 1979): any `threshold` of them give the secret, fewer say nothing.

A secret of 32 bytes is the value at zero of a random polynomial over a prime field; a share is its
value elsewhere. The field has a few more elements than there are secrets, so none is left out.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from fldp._checks import shown, whole

# The largest prime below 2^257: one bit above a secret's 256. A test checks that it is prime.
PRIME = 2**257 - 93
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, points: Sequence[int], threshold: int) -> list[bytes]:
    """Shares of a secret, one for each point.

    Guarantee: fewer than `threshold` of them are independent of the secret, whatever it is; the
    polynomial's coefficients come from the operating system.

    Parameters
    ----------
    secret : bytes
        32 of them.
    points : sequence of int
        Where the polynomial is evaluated: different, above zero.
    threshold : int
        How many shares give the secret.

    Returns
    -------
    list of bytes
        33 bytes for each point, in the order of `points`.

    Raises
    ------
    ValueError
        For another length, for a point twice or below 1, for fewer points than the threshold.

    Examples
    --------
    >>> shares = split(bytes(32), [1, 2, 3], threshold=2)
    >>> combine({3: shares[2], 1: shares[0]}, threshold=2) == bytes(32)
    True
    """
    if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret is {SECRET_BYTES} bytes: cut or derive one of that length")
    threshold = whole("threshold", threshold)
    if len(set(points)) != len(points) or len(points) < threshold:
        raise ValueError(f"points are {shown(points)}: give {threshold} or more, each once")
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "big"))
    shares = []
    for point in points:
        point = whole("point", point)
        value = 0
        # Horner's rule: the secret, the coefficient of the power zero, comes last.
        for coefficient in coefficients:
            value = (value * point + coefficient) % PRIME
        shares.append(value.to_bytes(SHARE_BYTES, "big"))
    return shares


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret that shares belong to.

    Whether they belong together cannot be seen: one false share gives another secret, or none.

    Parameters
    ----------
    shares : mapping
        Point -> share; of more than `threshold` those with the smallest points are used.
    threshold : int
        As for `split`.

    Returns
    -------
    bytes
        32 of them.

    Raises
    ------
    ValueError
        For too few shares, for one that is none, and where they give no secret.

    Examples
    --------
    >>> combine({1: bytes(33)}, threshold=2)
    Traceback (most recent call last):
    ValueError: 1 share: 2 are needed
    """
    points = sorted(shares)[:threshold]
    if len(points) < threshold:
        told = "1 share" if len(points) == 1 else f"{len(points)} shares"
        raise ValueError(f"{told}: {threshold} are needed")
    secret = 0
    for point in points:
        secret += _value(point, shares[point]) * _weight(point, points)
    secret %= PRIME
    if secret >> (8 * SECRET_BYTES):
        raise ValueError("the shares give no secret: one of them is false, or of another secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def _value(point: int, share: bytes) -> int:
    """A share as a number of the field."""
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise ValueError(f"the share at point {point} is no number of the field")
    return value


def _weight(point: int, points: Sequence[int]) -> int:
    """What the value at `point` counts in the value at zero (Lagrange)."""
    numerator = 1
    denominator = 1
    for other in points:
        if other != point:
            numerator = numerator * other % PRIME
            denominator = denominator * (other - point) % PRIME
    return numerator * pow(denominator, -1, PRIME) % PRIME
