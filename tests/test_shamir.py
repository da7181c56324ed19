"""Shares of a secret: enough of them give it back, fewer say nothing about it."""

from __future__ import annotations

import random
import secrets

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from fldp.mechanism import shamir
from fldp.mechanism.shamir import PRIME, SHARE_BYTES, combine, split

# Witnesses of Miller and Rabin: a number that is not prime passes with a chance below 4^-40.
WITNESSES = 40
# The statistical tests below raise a false alarm with this chance, each.
FALSE_ALARM = 1e-6


def is_prime(number: int) -> bool:
    odd = number - 1
    twos = 0
    while odd % 2 == 0:
        odd //= 2
        twos += 1
    source = random.Random(0)
    return all(passes(number, source.randrange(2, number - 1), odd, twos) for _ in range(WITNESSES))


def passes(number: int, base: int, odd: int, twos: int) -> bool:
    value = pow(base, odd, number)
    if value in (1, number - 1):
        return True
    for _ in range(twos - 1):
        value = value * value % number
        if value == number - 1:
            return True
    return False


def test_the_field_is_one_and_holds_every_secret() -> None:
    assert is_prime(PRIME)
    assert 2**256 < PRIME < 2**257
    assert not any(is_prime(number) for number in range(PRIME + 2, 2**257, 2))
    # What tells a prime from a composite is itself tried: Carmichael's and Mersenne's numbers.
    assert not any(is_prime(number) for number in (561, 2**257 - 1, PRIME * 3))
    assert is_prime(2**127 - 1)


@settings(max_examples=examples(50))
@given(st.binary(min_size=32, max_size=32), st.integers(1, 8), st.integers(0, 5), st.randoms())
def test_any_threshold_of_the_shares_give_the_secret(
    secret: bytes, threshold: int, more: int, source: random.Random
) -> None:
    points = source.sample(range(1, 10**6), threshold + more)
    shares = dict(zip(points, split(secret, points, threshold), strict=True))
    kept = source.sample(points, source.randint(threshold, len(points)))
    assert combine({point: shares[point] for point in kept}, threshold) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_ends_of_the_range_are_secrets(secret: bytes) -> None:
    shares = split(secret, [1, 2, 3], 3)
    assert combine(dict(enumerate(shares, 1)), 3) == secret


def test_shares_below_the_threshold_fit_every_secret() -> None:
    first, second, _ = split(b"\x01" * 32, [1, 2, 3], 3)
    shares = {1: first, 2: second}
    for other in (bytes(32), b"\x02" * 32, b"\xff" * 32):
        # The third share that makes them those of another secret: linear, so solved by two trials.
        zero, one = (value_at_zero({**shares, 3: share}) for share in (0, 1))
        wanted = int.from_bytes(other, "big")
        third = (wanted - zero) * pow(one - zero, -1, PRIME) % PRIME
        assert combine({**shares, 3: third.to_bytes(SHARE_BYTES, "big")}, 3) == other


def value_at_zero(shares: dict[int, bytes | int]) -> int:
    total = 0
    for point, share in shares.items():
        value = share if isinstance(share, int) else int.from_bytes(share, "big")
        total += value * shamir._weight(point, list(shares))
    return total % PRIME


def statistic(count: int = 4096) -> float:
    """χ² of the highest whole byte of one share, of many sharings of one secret."""
    found = [split(bytes(32), [1, 2], 2)[0][1] for _ in range(count)]
    counts = np.bincount(found, minlength=256)
    return float(((counts - count / 256) ** 2).sum() / (count / 256))


def test_one_share_of_two_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    most = chi2.isf(FALSE_ALARM, 255)
    assert statistic() < most
    monkeypatch.setattr(secrets, "randbelow", lambda most: random.getrandbits(32))
    assert statistic() > most, "coefficients of 32 bits are not seen"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"secret": bytes(31)}, "a secret is 32 bytes"),
        ({"secret": "a" * 32}, "a secret is 32 bytes"),
        ({"points": [1, 1, 2]}, "each once"),
        ({"points": [1]}, "give 2 or more"),
        ({"points": [0, 1]}, "point is 0"),
        ({"threshold": 0}, "threshold is 0"),
    ],
)
def test_what_is_no_sharing_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        split(**{"secret": bytes(32), "points": [1, 2, 3], "threshold": 2, **change})  # type: ignore[arg-type]


def test_what_are_no_shares_is_refused() -> None:
    shares = dict(enumerate(split(bytes(32), [1, 2, 3], 3), 1))
    with pytest.raises(ValueError, match="2 shares: 3 are needed"):
        combine({1: shares[1], 2: shares[2]}, 3)
    for broken in (shares[3][:-1], b"\xff" * SHARE_BYTES):
        with pytest.raises(ValueError, match="share at point 3 is no number of the field"):
            combine({**shares, 3: broken}, 3)
    # A secret of 257 bits is none: what shares of zero and of 2^256 look like together.
    with pytest.raises(ValueError, match="give no secret"):
        combine({1: (2**256).to_bytes(SHARE_BYTES, "big")}, 1)
