"""Keys that two clients agree on, bound to purpose, round and both ends; boxes that they seal."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fldp.mechanism.secagg_keys import (
    PAIR,
    SEALING,
    SELF,
    Pairing,
    as_bytes,
    derived,
    opened,
    sealed,
    self_key,
)

TAG = bytes(range(16))
FIELD = 2**255 - 19
# The points of order 1, 2, 4 and 8 on the curve and on its twist, as RFC 7748 encodes them, and
# other encodings of the same.
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = (0, 1, *ORDER_8, FIELD - 1, FIELD, FIELD + 1)


def pair() -> tuple[Pairing, Pairing]:
    return Pairing(PAIR, TAG, 1), Pairing(PAIR, TAG, 2)


def test_two_clients_agree_and_nobody_else() -> None:
    one, two = pair()
    third = Pairing(PAIR, TAG, 3)
    assert one.key(2, two.public) == two.key(1, one.public)
    assert third.key(2, two.public) != one.key(2, two.public)


def test_a_private_key_is_one_again() -> None:
    one, two = pair()
    again = Pairing(PAIR, TAG, 1, one.secret())
    assert again.public == one.public
    assert again.key(2, two.public) == one.key(2, two.public)


def test_a_key_is_bound_to_purpose_round_and_both_ends() -> None:
    one, two = pair()
    made = {one.key(2, two.public)}
    for label, tag, me, peer in (
        (SEALING, TAG, 1, 2),
        (PAIR, bytes(16), 1, 2),
        (PAIR, TAG, 3, 2),
        (PAIR, TAG, 1, 3),
        (PAIR, TAG, 2, 1),
    ):
        made.add(Pairing(label, tag, me, one.secret()).key(peer, two.public))
    assert len(made) == 6
    seed = os.urandom(32)
    own = {self_key(seed, TAG, 1), self_key(seed, TAG, 2), self_key(seed, bytes(16), 1)}
    assert len(own | {derived(seed, PAIR, TAG, as_bytes(1))}) == 4
    assert self_key(seed, TAG, 1) == derived(seed, SELF, TAG, as_bytes(1))


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_point_of_low_order_is_refused(point: int) -> None:
    one, _ = pair()
    with pytest.raises(ValueError, match="the public key of client 2 is no point of large order"):
        one.key(2, point.to_bytes(32, "little"))
    # It is one: the plain exchange fails as well.
    public = X25519PublicKey.from_public_bytes(point.to_bytes(32, "little"))
    with pytest.raises(ValueError, match="shared key"):
        X25519PrivateKey.generate().exchange(public)


def test_a_box_opens_with_its_key_and_its_context_alone() -> None:
    key, nonce = os.urandom(32), os.urandom(12)
    box = sealed(key, nonce, b"two shares", b"from 1 to 2")
    assert opened(key, box, b"from 1 to 2") == b"two shares"
    assert opened(os.urandom(32), box, b"from 1 to 2") is None
    assert opened(key, box, b"from 1 to 3") is None
    for place in range(len(box)):
        changed = bytearray(box)
        changed[place] ^= 1
        assert opened(key, bytes(changed), b"from 1 to 2") is None
    for length in range(len(box)):
        assert opened(key, box[:length], b"from 1 to 2") is None
