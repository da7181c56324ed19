"""Masks that a key gives back: AES-256 in counter mode as integers, added modulo 2^bits.

Every key is used for one mask of one round, so the counter begins at zero. Nothing is ever reduced
to a smaller seed: a mask has as many possible values as its key, 2^256.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from fldp._checks import whole

KEY_BYTES = 32
LEAST_BITS = 8
MOST_BITS = 32
_BLOCK_BYTES = 16
# Of one mask at a time: with the sum that it is added to, this stays in a core's own cache.
_PIECE_BYTES = 1 << 16
_ZEROS = bytes(_PIECE_BYTES)
# Eight values of so many bits fill whole bytes, whatever the number of bits.
_LANES = 8
Words = NDArray[np.unsignedinteger]


def check_bits(bits: int) -> int:
    """`bits` if sums modulo 2^bits are offered, else a ValueError."""
    bits = whole("bits", bits, LEAST_BITS)
    if bits > MOST_BITS:
        raise ValueError(f"bits is {bits}: give a whole number from {LEAST_BITS} to {MOST_BITS}")
    return bits


def word_of(bits: int) -> np.dtype[np.unsignedinteger]:
    """The smallest unsigned integer that holds `bits` bits; the same on every machine.

    Parameters
    ----------
    bits : int
        From 8 to 32.

    Returns
    -------
    dtype
        Little-endian, of 1, 2 or 4 bytes.

    Examples
    --------
    >>> word_of(12).itemsize
    2
    """
    for itemsize in (1, 2):
        if bits <= 8 * itemsize:
            return np.dtype(f"<u{itemsize}")
    return np.dtype("<u4")


def mask_(words: Words, added: Iterable[bytes], taken: Iterable[bytes] = ()) -> None:
    """Add the masks of some keys to `words` in place, and take those of others away.

    Guarantee: as long as AES-256 cannot be told from a random function, the mask of a key that
    nobody else knows makes `words` uniform, modulo the size of a word and so modulo 2^bits.

    Parameters
    ----------
    words : array
        Unsigned integers (d,), contiguous.
    added, taken : iterable of bytes
        Keys of 32 bytes each, never used for anything else.

    Examples
    --------
    >>> words = np.zeros(3, word_of(16))
    >>> mask_(words, [bytes(32)])
    >>> mask_(words, [], [bytes(32)])
    >>> words.tolist()
    [0, 0, 0]
    """
    plus = [_stream(key) for key in added]
    minus = [_stream(key) for key in taken]
    buffer = bytearray(_PIECE_BYTES + _BLOCK_BYTES)
    mask = np.frombuffer(buffer, words.dtype, _PIECE_BYTES // words.itemsize)
    for start in range(0, len(words), len(mask)):
        piece = words[start : start + len(mask)]
        zeros = memoryview(_ZEROS)[: piece.nbytes]
        for stream in plus:
            stream.update_into(zeros, buffer)
            piece += mask[: len(piece)]
        for stream in minus:
            stream.update_into(zeros, buffer)
            piece -= mask[: len(piece)]


def _stream(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(_BLOCK_BYTES))).encryptor()


def reduced(words: Words, bits: int) -> Words:
    """`words` modulo 2^bits, in their own type."""
    if bits == 8 * words.itemsize:
        return words
    return words & words.dtype.type((1 << bits) - 1)


def packed_bytes(size: int, bits: int) -> int:
    """How many bytes `packed` makes of `size` values."""
    return -(-size * bits // 8)


def packed(words: Words, bits: int) -> bytes:
    """Values of `bits` bits each, without gaps.

    Parameters
    ----------
    words : array
        Unsigned integers (d,) below 2^bits.
    bits : int
        From 8 to 32.

    Returns
    -------
    bytes
        ⌈d·bits/8⌉ of them: the lowest bit first, the last byte filled up with zeros.

    Examples
    --------
    >>> packed(np.array([1, 2], "<u2"), 12).hex()
    '012000'
    """
    if bits == 8 * words.itemsize:
        return words.tobytes()
    groups = -(-len(words) // _LANES)
    lanes = np.zeros((groups, _LANES), np.uint64)
    lanes.reshape(-1)[: len(words)] = words
    out = np.zeros((groups, bits), np.uint8)
    for lane, column, shift, width in _places(bits):
        # At most 32 bits and a shift of 7: five bytes.
        value = lanes[:, lane] << np.uint64(shift)
        for byte in range(width):
            out[:, column + byte] |= (value >> np.uint64(8 * byte)).astype(np.uint8)
    return out.tobytes()[: packed_bytes(len(words), bits)]


def unpacked(data: bytes, size: int, bits: int) -> Words:
    """What `packed` was given, from what it made; a new array.

    Parameters
    ----------
    data : bytes
        Of exactly `packed_bytes(size, bits)`.
    size : int
        d.
    bits : int
        From 8 to 32.

    Returns
    -------
    array
        Unsigned integers (d,) below 2^bits.

    Raises
    ------
    ValueError
        For another length.

    Examples
    --------
    >>> unpacked(bytes.fromhex("012000"), 2, 12).tolist()
    [1, 2]
    """
    wanted = packed_bytes(size, bits)
    if len(data) != wanted:
        raise ValueError(
            f"{len(data)} bytes are no vector of {size} values of {bits} bits, which has {wanted}"
        )
    word = word_of(bits)
    if bits == 8 * word.itemsize:
        return np.frombuffer(data, word).copy()
    groups = -(-size // _LANES)
    columns = np.zeros((groups, bits), np.uint8)
    columns.reshape(-1)[:wanted] = np.frombuffer(data, np.uint8)
    lanes = np.zeros((groups, _LANES), word)
    for lane, column, shift, width in _places(bits):
        value = np.zeros(groups, np.uint64)
        for byte in range(width):
            value |= columns[:, column + byte].astype(np.uint64) << np.uint64(8 * byte)
        lanes[:, lane] = (value >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
    return lanes.reshape(-1)[:size]


def _places(bits: int) -> Iterable[tuple[int, int, int, int]]:
    """Where each of eight values lies: lane, first byte, bits to the left, bytes touched."""
    for lane in range(_LANES):
        column, shift = divmod(lane * bits, 8)
        yield lane, column, shift, -(-(shift + bits) // 8)
