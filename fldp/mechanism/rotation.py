"""A public random rotation: whatever a client sends, its entries become about equally large.

Sums under secure aggregation are taken modulo a power of two, and a modulus has to hold the largest
coordinate. A random sign for every coordinate and an orthonormal Walsh-Hadamard transform spread a
vector over all coordinates (Ailon & Chazelle 2006), keep its norm, and are undone after the sum.
The signs come from a seed that everybody knows: privacy does not rest on them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

_NONCE = bytes(16)


def padded(size: int) -> int:
    """The smallest power of two that is at least d: the transform needs one.

    Parameters
    ----------
    size : int
        d, at least 1.

    Returns
    -------
    int

    Examples
    --------
    >>> padded(1), padded(650), padded(1024)
    (1, 1024, 1024)
    """
    return 1 << (size - 1).bit_length()


def hadamard_(rows: Tensor) -> Tensor:
    """The orthonormal Walsh-Hadamard transform of each row, in place: its own inverse.

    By butterflies, log₂ D passes over the rows. What becomes of a row is a function of that row
    alone, to the last bit: nothing but additions and one multiplication of each entry.

    Parameters
    ----------
    rows : Tensor
        (c, D), floating-point and contiguous; D is a power of two.

    Returns
    -------
    Tensor
        `rows`.

    Examples
    --------
    >>> hadamard_(torch.tensor([[2.0, 0.0, 0.0, 0.0]])).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """
    count, width = rows.shape
    half = 1
    while half < width:
        pairs = rows.view(count, width // (2 * half), 2, half)
        upper, lower = pairs.unbind(2)
        difference = upper - lower
        upper.add_(lower)
        lower.copy_(difference)
        half *= 2
    return rows.mul_(width**-0.5)


def signs(seed: bytes, size: int) -> Tensor:
    """Random signs of a public seed: the same on every machine.

    Parameters
    ----------
    seed : bytes
        Any; its SHA-256 is the key of a stream of bits (AES-256 in counter mode).
    size : int
        How many.

    Returns
    -------
    Tensor
        float64 (size,), each 1 or -1.

    Examples
    --------
    >>> signs(b"round 1", 6).tolist()
    [1.0, -1.0, -1.0, 1.0, 1.0, -1.0]
    """
    key = hashlib.sha256(seed).digest()
    stream = Cipher(algorithms.AES(key), modes.CTR(_NONCE)).encryptor()
    octets = np.frombuffer(stream.update(bytes(-(-size // 8))), dtype=np.uint8)
    bits = np.unpackbits(octets, count=size)
    return torch.from_numpy(1.0 - 2.0 * bits)


class Rotation:
    """Turns vectors of d coordinates into D = 2^k, and back.

    Parameters
    ----------
    seed : bytes
        Public; drawn anew for every round, so that nobody can prepare for it.
    size : int
        d.

    Examples
    --------
    >>> turn = Rotation(b"round 1", 3)
    >>> rows = turn.forth(torch.tensor([[3.0, 4.0, 0.0]]))
    >>> rows.shape, round(float(rows.norm()), 6), turn.back(rows)[0, :2].tolist()
    (torch.Size([1, 4]), 5.0, [3.0, 4.0])
    """

    def __init__(self, seed: bytes, size: int) -> None:
        self.size = size
        self.padded = padded(size)
        self._signs = signs(seed, self.padded)

    def forth(self, rows: Tensor) -> Tensor:
        """Rotated rows.

        Parameters
        ----------
        rows : Tensor
            (c, d), float32 or float64; not written to.

        Returns
        -------
        Tensor
            (c, D), of the rows' type, on the CPU.
        """
        wide = torch.zeros(len(rows), self.padded, dtype=rows.dtype)
        wide[:, : self.size] = rows
        return hadamard_(wide.mul_(self._signs.to(rows.dtype)))

    def back(self, rows: Tensor) -> Tensor:
        """Rows as they were before `forth`.

        Parameters
        ----------
        rows : Tensor
            (c, D), float64 and contiguous; overwritten.

        Returns
        -------
        Tensor
            (c, d), float64.
        """
        return hadamard_(rows).mul_(self._signs)[:, : self.size]
