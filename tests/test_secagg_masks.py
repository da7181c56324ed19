"""Masks and packed vectors: right to the bit, uniform, and as rich as their keys."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
from conftest import examples
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from fldp.mechanism import secagg_masks
from fldp.mechanism.secagg_masks import (
    check_bits,
    mask_,
    packed,
    packed_bytes,
    reduced,
    unpacked,
    word_of,
)

# AES-256 of a block of zeros under a key of zeros.
ZEROS = bytes.fromhex("dc95c078a2408989ad48a21492842087")
FALSE_ALARM = 1e-6
Mask = Callable[[bytes, int], bytes]


def mask_of(key: bytes, size: int) -> bytes:
    words = np.zeros(size, word_of(8))
    mask_(words, [key])
    return words.tobytes()


def test_a_mask_is_the_cipher_itself() -> None:
    assert mask_of(bytes(32), 16) == ZEROS
    key = os.urandom(32)
    size = 3 * secagg_masks._PIECE_BYTES + 5
    whole = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))
    assert mask_of(key, size) == whole


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_masks_are_integers_of_the_keystream_and_cancel(bits: int) -> None:
    keys = [os.urandom(32) for _ in range(4)]
    size = secagg_masks._PIECE_BYTES + 7
    word = word_of(bits)
    words = np.zeros(size, word)
    mask_(words, keys[:1])
    stream = np.frombuffer(mask_of(keys[0], size * word.itemsize), word)
    assert np.array_equal(words, stream)
    mask_(words, keys[1:], keys)
    assert not words.any()


def statistic(data: bytes) -> float:
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    return float(((counts - len(data) / 256) ** 2).sum() / (len(data) / 256))


def test_a_mask_is_uniform() -> None:
    assert statistic(mask_of(os.urandom(32), 1 << 18)) < chi2.isf(FALSE_ALARM, 255)


def folded(key: bytes, size: int) -> bytes:
    """A planted fault: the key is folded to 32 bits before it makes a mask, as a framework does."""
    words = np.frombuffer(key, "<u4")
    seed = int(np.bitwise_xor.reduce(words))
    return np.random.RandomState(seed).bytes(size)


def is_as_rich_as_its_key(mask: Mask) -> bool:
    """Whether every bit of a key matters, by itself and beside any other word of the key."""
    key = os.urandom(32)
    seen = {mask(key, 16)}
    for word in range(8):
        for bit in range(32):
            number = int.from_bytes(key, "little") ^ 1 << (32 * word + bit)
            # The same bit of the next word: a fold by exclusive or does not see the two.
            also = number ^ 1 << (32 * ((word + 1) % 8) + bit)
            seen |= {mask(one.to_bytes(32, "little"), 16) for one in (number, also)}
    return len(seen) == 1 + 2 * 256


def test_a_seed_of_32_bits_is_seen() -> None:
    assert is_as_rich_as_its_key(mask_of)
    assert not is_as_rich_as_its_key(folded)


@settings(max_examples=examples(60))
@given(st.integers(8, 32), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_what_is_packed_comes_back(bits: int, size: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << bits, size).astype(word_of(bits))
    values[0] = (1 << bits) - 1
    data = packed(values, bits)
    assert len(data) == packed_bytes(size, bits)
    assert np.array_equal(unpacked(data, size, bits), values)
    # As one long number, the lowest bit first.
    number = sum(int(value) << (bits * place) for place, value in enumerate(values))
    assert int.from_bytes(data, "little") == number


def test_a_vector_is_packed_without_gaps() -> None:
    assert [packed_bytes(1000, bits) for bits in (8, 12, 13, 20, 32)] == [
        1000,
        1500,
        1625,
        2500,
        4000,
    ]


def test_values_are_reduced_in_their_own_type() -> None:
    words = np.array([5000, 4096, 4095], word_of(12))
    assert reduced(words, 12).tolist() == [904, 0, 4095]
    assert reduced(words, 16) is words


@pytest.mark.parametrize("bits", [7, 33, 16.5, "16", True])
def test_other_numbers_of_bits_are_refused(bits: object) -> None:
    with pytest.raises(ValueError, match="bits is"):
        check_bits(bits)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"", bytes(14), bytes(16)])
def test_another_length_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="are no vector of 10 values of 12 bits, which has 15"):
        unpacked(data, 10, 12)


def test_what_is_unpacked_can_be_written_to() -> None:
    for bits in (8, 12, 16):
        unpacked(bytes(packed_bytes(9, bits)), 9, bits)[0] = 1
