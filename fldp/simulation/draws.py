"""One keyed stream of random draws for a run: cohorts, shuffles, dropout. Never the noise.

Amplification by sampling holds while it is secret who took part, so the stream is as private as the
data: its key comes from the operating system unless the caller gives a seed.
"""

from __future__ import annotations

import copy
import hmac
import operator
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fldp.simulation.checkpoint import State

if TYPE_CHECKING:
    from fldp.simulation.sampling import Sampler

PURPOSES = ("cohort", "slots", "shuffle", "training")

# AES-256.
_KEY_BYTES = 32
# An AES block is 128 bits, a word 64.
_WORDS_A_BLOCK = 2
_KEY_WORDS = 4
# What keys are derived for: another version of this stream would derive others.
_INFO = b"fldp draws, version 1"


class Draws:
    """Uniform random words for a client in a round, which depend on nothing else.

    Guarantee: the words of a client are a function of the run's key, the purpose, the round, the
    client's number and a counter. So nobody's draw depends on who else is there, on the order of
    calls, on chunks, engines or machines. They are the output of AES-256 on distinct blocks, under
    a key that HMAC-SHA256 derives for each purpose and round: to whoever lacks the run's key they
    are indistinguishable from independent uniform words (AES and HMAC are presumed pseudorandom).

    Parameters
    ----------
    seed : int, optional
        None takes 256 bits from the operating system. A whole number of any size or sign makes the
        draws reproducible on every machine, through HKDF-SHA256; different numbers give unrelated
        streams. Whoever knows or guesses the number knows the draws: no amplification by sampling
        holds against them.

    Raises
    ------
    ValueError
        For a seed that is not a whole number.

    Examples
    --------
    >>> draws = Draws(seed=1)
    >>> words = draws.words("cohort", 5, range(1000))
    >>> bool((words[7] == draws.words("cohort", 5, [7])).all())
    True
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seeded = seed is not None
        self._renewal = b""
        # For each purpose the round that was asked for last: see `sampling.drawn`.
        self.asked: dict[str, int] = {}
        self._key = os.urandom(_KEY_BYTES) if seed is None else _key_of(seed)

    def __repr__(self) -> str:
        return "Draws(<seeded>)" if self.seeded else "Draws(<secret>)"

    @classmethod
    def of(cls, source: Draws | torch.Generator | None) -> Draws:
        """A source of randomness as draws.

        Parameters
        ----------
        source : Draws or torch.Generator or None
            None is a fresh secret key. A generator gives a key of its own and moves on by four
            words, so that the next call gives another.

        Returns
        -------
        Draws

        Raises
        ------
        ValueError
            For anything else.
        """
        if source is None:
            return cls()
        if isinstance(source, Draws):
            return source
        if not isinstance(source, torch.Generator):
            raise ValueError(f"draws is {source!r}: give a fldp.simulation.draws.Draws, or None")
        least = torch.iinfo(torch.int64).min
        most = torch.iinfo(torch.int64).max
        device = source.device
        words = torch.randint(least, most, (_KEY_WORDS,), generator=source, device=device)
        drawn = cls(0)
        drawn._key = words.cpu().numpy().astype("<i8").tobytes()
        return drawn

    def words(
        self,
        purpose: str,
        round: int,
        clients: Sequence[int] | np.ndarray,
        count: int = 2,
        first: int = 0,
    ) -> np.ndarray:
        """Random words of some clients in a round.

        Parameters
        ----------
        purpose : str
            One of `PURPOSES`; each has a stream to itself.
        round : int
            The number of the round, from 0.
        clients : sequence of int
            Their numbers (c,).
        count : int
            Words for each.
        first : int
            Half the number of the first word.

        Returns
        -------
        numpy.ndarray
            uint64 (c, count).

        Raises
        ------
        ValueError
            For another purpose.
        """
        each = -(-count // _WORDS_A_BLOCK)
        blocks = np.empty((len(clients), each, _WORDS_A_BLOCK), "<u8")
        blocks[:, :, 0] = np.asarray(clients, "<u8")[:, None]
        blocks[:, :, 1] = np.arange(first, first + each, dtype="<u8")
        encrypted = self._cipher(purpose, round).update(blocks.reshape(-1).view(np.uint8).data)
        found = np.frombuffer(encrypted, "<u8").reshape(len(clients), each * _WORDS_A_BLOCK)
        return found[:, :count]

    def seeds(self, round: int, clients: Sequence[int] | np.ndarray) -> list[int]:
        """A seed of 63 bits for each client's own generator in a round.

        Parameters
        ----------
        round : int
            The number of the round, from 0.
        clients : sequence of int
            Their numbers (c,).

        Returns
        -------
        list of int
        """
        words = self.words("training", round, clients, 1)[:, 0]
        return (words >> np.uint64(1)).tolist()

    def _cipher(self, purpose: str, round: int) -> CipherContext:
        if purpose not in PURPOSES:
            raise ValueError(f"purpose is {purpose!r}: choose one of {PURPOSES}")
        self.asked[purpose] = round
        # Slots are drawn once for all rounds and all restarts of a run.
        renewal = b"" if purpose == "slots" else self._renewal
        # A label names one key: none of its parts holds the separator.
        label = b"|".join([purpose.encode(), str(operator.index(round)).encode(), renewal])
        key = hmac.digest(self._key, label, "sha256")
        # Every block that is encrypted under this key is different: ECB is a keyed permutation.
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor()

    def participations(self, sampler: Sampler, clients: int, rounds: int) -> list[int]:
        """The most rounds that any one client has served, after each round: by drawing them.

        Parameters
        ----------
        sampler : Sampler
            Who draws; a copy is asked.
        clients : int
            N.
        rounds : int
            How many rounds.

        Returns
        -------
        list of int
            A count after each round.

        Examples
        --------
        >>> from fldp.simulation.sampling import MinSeparation
        >>> Draws(seed=3).participations(MinSeparation(2), clients=10, rounds=4)
        [1, 1, 2, 2]
        """
        sampler = copy.deepcopy(sampler)
        served = np.zeros(clients, np.int64)
        most = 0
        found = []
        for round in range(rounds):
            ids = sampler.sample(clients, self, round).numpy()
            served[ids] += 1
            most = max(most, int(served[ids].max(initial=0)))
            found.append(most)
        return found

    def most_participations(self, sampler: Sampler, clients: int, rounds: int) -> int:
        """The most rounds in which these draws put any one client.

        Parameters
        ----------
        sampler, clients, rounds
            As for `participations`.

        Returns
        -------
        int
        """
        return max(self.participations(sampler, clients, rounds), default=0)

    def renew(self, label: bytes | None = None) -> None:
        """Draw everything but slots anew from here on: what was drawn before is never repeated.

        A round that a crash cut off may have been released. Its coins must not be tossed again for
        another release, because two releases with one cohort are not accounted as two cohorts.

        Parameters
        ----------
        label : bytes, optional
            The name of the restart, where the draws must stay reproducible. None: 256 bits from
            the operating system.
        """
        if label is None:
            label = os.urandom(_KEY_BYTES).hex().encode()
        self._renewal = label

    def state_dict(self) -> State:
        """What the stream continues from; as private as the data."""
        renewal = self._renewal.decode()
        return {"key": self._key.hex(), "renewal": renewal, "seeded": self.seeded}

    def load_state_dict(self, state: State) -> None:
        """Continue the stream of `state_dict`."""
        self._key = bytes.fromhex(state["key"])
        self.seeded = bool(state["seeded"])
        self._renewal = str(state["renewal"]).encode()

    def same(self, other: Draws) -> bool:
        """Whether both have one key.

        Parameters
        ----------
        other : Draws
            Another stream.

        Returns
        -------
        bool
        """
        return hmac.compare_digest(self._key, other._key)


def _key_of(seed: int) -> bytes:
    try:
        if isinstance(seed, bool):
            raise TypeError
        number = operator.index(seed)
    except TypeError:
        raise ValueError(f"seed is {seed!r}: give a whole number, or None") from None
    material = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    derive = HKDF(algorithm=hashes.SHA256(), length=_KEY_BYTES, salt=None, info=_INFO)
    return derive.derive(material)
