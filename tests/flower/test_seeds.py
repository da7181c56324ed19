"""What the chapter on secure aggregation says of Flower's masks, asked of the installed version.

A failure here means that Flower has changed them: then the chapter is to be changed, too.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not here: make flower")

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.secure_aggregation import secaggplus_utils
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key

# So many keys that a bit which is free is the same in all of them once in 2^199.
KEYS = 200


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that masks are made of, as they are used."""
    found: list[int] = []
    generator = np.random.RandomState

    def noted(seed: int) -> Any:
        found.append(seed)
        return generator(seed)

    monkeypatch.setattr(np.random, "RandomState", noted)
    return found


def used_bits(seeds: list[int]) -> int:
    return int(np.bitwise_or.reduce(np.array(seeds, dtype=np.uint64)))


def test_the_seed_of_a_clients_own_mask_has_32_bits(seeds: list[int]) -> None:
    for _ in range(KEYS):
        secaggplus_utils.pseudo_rand_gen(os.urandom(32), 2**32, [(1,)])
    assert used_bits(seeds) == 0xFFFFFFFF


def test_the_seed_of_a_pairs_mask_has_28_bits(seeds: list[int]) -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    for _ in range(KEYS):
        peer = ec.generate_private_key(ec.SECP384R1()).public_key()
        key = generate_shared_key(private, peer)
        secaggplus_utils.pseudo_rand_gen(key, 2**32, [(1,)])
    assert used_bits(seeds) == 0x7F7F7F7F


def test_four_bytes_make_the_mask_of_a_whole_key() -> None:
    key = os.urandom(32)
    words = np.frombuffer(key, "<u4")
    short = int(np.bitwise_xor.reduce(words)).to_bytes(4, "little")
    (whole,) = secaggplus_utils.pseudo_rand_gen(key, 2**32, [(50,)])
    (again,) = secaggplus_utils.pseudo_rand_gen(short, 2**32, [(50,)])
    assert np.array_equal(whole, again)
