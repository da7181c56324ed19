"""Dropout masks that are a function of a client's own seed: the same alone, in a chunk, anywhere.

torch draws a mask from a generator, whose next number depends on what was drawn before, and so on
who else is in a chunk. Here every entry of a mask is a hash of its place (Salmon et al. 2011,
counter-based random numbers): clients can be drawn for at once, and padding moves nobody's draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# SplitMix64 (Steele et al. 2014): its increment, and the multipliers and shifts of its output.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = np.uint64(31)
# So many masks may be drawn in one forward pass, and so many batches be in an epoch; 20 bits of a
# counter are left for epochs.
_CALLS = 1 << 20
_BATCHES = 1 << 24

# A hash of 32 bits with little bias: multipliers and shifts of Wellons' `lowbias32`.
_FIRST = (16, 0x7FEB352D)
_SECOND = (15, 0x846CA68B)
_THIRD = 16
# An odd number near 2^32 over the golden ratio; its powers spread coordinates over 32 bits.
_ODD = 0x9E3779B1
_BITS = 32
# Of a counter, which wraps.
_WORD = 1 << 64
_WORDS = 1 << _BITS
_HALF = 1 << (_BITS - 1)
# Numbers of places are kept for so many shapes: a model has few.
_SHAPES = 64


class Masks:
    """Which entries dropout keeps, for clients with seeds of their own.

    Guarantee: whether an entry is kept depends on the client's seed, the epoch, the batch, how many
    masks were drawn before in this step, and the entry's coordinates; not on the size of the
    tensor, nor on other clients. The hash is for utility: it is no secret's protection.

    Parameters
    ----------
    seeds : sequence of int
        A client's own seed each, of 63 bits: see `Draws.seeds`.
    device : torch.device
        Where masks are needed.

    Examples
    --------
    >>> alone, both = Masks([7], torch.device("cpu")), Masks([5, 7], torch.device("cpu"))
    >>> bool((alone.keep(1, (3, 4), 0.5)[0] == both.keep(2, (3, 4), 0.5)[1]).all())
    True
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._seeds = np.array(seeds, np.uint64)
        self._device = device
        self._places = dict[tuple[int, ...], Tensor]()
        self._first = 0
        self._counter = 0

    def turn(self, epoch: int, batch: int, first: int = 0) -> None:
        """Before a forward pass.

        Parameters
        ----------
        epoch, batch : int
            Counted from 0; `batch` is that of a client's own in the epoch.
        first : int
            The first client that takes part; those behind it follow.
        """
        self._first = first
        self._counter = (epoch * _BATCHES + batch) * _CALLS

    def keep(self, clients: int, shape: tuple[int, ...], p: float) -> Tensor:
        """The next mask: an entry is False with probability p, rounded to 32 bits.

        Parameters
        ----------
        clients : int
            How many take part.
        shape : tuple of int
            Of one client's mask.
        p : float
            In (0, 1).

        Returns
        -------
        Tensor
            Booleans (clients, *shape).
        """
        self._counter += 1
        words = self._keys(clients).view(clients, 2, *[1] * len(shape))
        mixed = words[:, 0] ^ self._place(shape)
        _turn(mixed, *_FIRST)
        # The second word makes 64 bits of key: two clients' masks are not permutations.
        mixed.add_(words[:, 1])
        _turn(mixed, *_SECOND)
        mixed.bitwise_xor_(_shifted(mixed, _THIRD))
        return mixed >= round(p * _WORDS) - _HALF

    def _keys(self, clients: int) -> Tensor:
        """Two words of 32 bits (clients, 2)."""
        own = self._seeds[self._first : self._first + clients]
        with np.errstate(over="ignore"):
            mixed = own + _GAMMA * np.uint64(self._counter % _WORD)
            for shift, factor in _MIX:
                mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
            mixed ^= mixed >> _LAST_SHIFT
        return torch.from_numpy(mixed.view(np.int32)).to(self._device)

    def _place(self, shape: tuple[int, ...]) -> Tensor:
        """A word for every entry, made of its coordinates alone."""
        found = self._places.get(shape)
        if found is None:
            if len(self._places) == _SHAPES:
                self._places.clear()
            found = torch.zeros(shape, dtype=torch.int32, device=self._device)
            for axis, size in enumerate(shape):
                numbers = torch.arange(size, dtype=torch.int32, device=self._device)
                numbers.mul_(_signed(pow(_ODD, axis + 1, _WORDS)))
                found += numbers.view(size, *[1] * (len(shape) - axis - 1))
            self._places[shape] = found
        return found


def _turn(words: Tensor, shift: int, factor: int) -> None:
    words.bitwise_xor_(_shifted(words, shift)).mul_(_signed(factor))


def _shifted(words: Tensor, shift: int) -> Tensor:
    """Shifted to the right, with zeros from the left: torch repeats the sign."""
    return (words >> shift).bitwise_and_((1 << (_BITS - shift)) - 1)


def _signed(word: int) -> int:
    return word - _WORDS if word >= _HALF else word
