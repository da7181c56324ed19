"""The noise of a run, and the events that it asks the accountant to compose.

A noise object lives as long as a run: it is made once, its state is in every checkpoint, and it
says itself what its rounds cost. It owns the running sum of a round as well, because safe noise may
need an integer sum: `start`, `accumulate_`, `finish`. Every call that makes noise takes a key of
its own from the operating system, so neither threads nor forked processes can share or repeat it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from fldp import _moved
from fldp._checks import between, shown
from fldp.mechanism.summation import MOST, Columns, RunningSum, Sum

if TYPE_CHECKING:
    from fldp.accounting.events import RoundEvent
    from fldp.plan import PrivacyPlan

# AES-256, and its block.
_KEY_BYTES = 32
_NONCE_BYTES = 16
# Above 32,768 elements per operation torch goes parallel, which is slower here than one thread.
_HALF = 1 << 15
# Words that the keystream makes at once.
BLOCK = 2 * _HALF


class Keystream:
    """32-bit words of AES-256 in counter mode under a fresh key from the operating system."""

    _zeros = bytes(4 * BLOCK)

    def __init__(self) -> None:
        key = os.urandom(_KEY_BYTES)
        nonce = os.urandom(_NONCE_BYTES)
        self._cipher = Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()
        self._buffer = bytearray(4 * BLOCK + 15)
        self._words = torch.frombuffer(self._buffer, dtype=torch.int32, count=BLOCK)

    def block(self) -> Tensor:
        """The next 65,536 words, in a buffer that the next call overwrites."""
        self._cipher.update_into(self._zeros, self._buffer)
        return self._words


def check_scale(std: float, dtype: torch.dtype) -> float:
    """`std` if noise of that standard deviation has a meaning in `dtype`, else a ValueError.

    Allowed is what stays a normal number when it is 16 times smaller or 1,024 times larger, so that
    noise is never silently zero, infinite or NaN: 2e-37 to 3e35 for float32 and bfloat16, .001 to
    64 for float16.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"noise needs a floating-point tensor, got {dtype}")
    info = torch.finfo(dtype)
    low = 16 * info.tiny
    high = info.max / 1024
    if not low <= std <= high:
        raise ValueError(
            f"noise of standard deviation {std:.3g} cannot be added in {dtype}: it must lie "
            f"between {low:.2g} and {high:.2g}; rescale the updates, or use float64"
        )
    return std


def check_generator(generator: object) -> None:
    """ValueError for what is neither a torch generator nor None."""
    if not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator is {shown(generator)}: give a torch.Generator, or None")


def gaussian_(out: Tensor, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Add independent N(0, std²) noise to `out` in place and return it.

    With `generator` None the noise comes from AES-256 in counter mode, under a key drawn from the
    operating system for this call alone, through the Box-Muller transform. A radius takes 31 random
    bits, and 31 more where the first are near zero, so the tail reaches past nine standard
    deviations. With a torch generator the noise is reproducible, and whoever knows the seed can
    subtract it.

    Attacks on the low-order bits of floating-point noise (Mironov 2012) are not addressed here;
    `discrete.DiscreteGaussian` addresses them.

    Parameters
    ----------
    out : Tensor
        Floating-point, of any shape, on any device. Half precision is noised in float32 and
        rounded afterwards.
    std : float
        The standard deviation, 0 (adds nothing) or within the range of `check_scale`.
    generator : torch.Generator, optional
        None for cryptographic noise.

    Returns
    -------
    Tensor
        `out`.

    Raises
    ------
    ValueError
        For a scale at which noise would vanish, which is no noise, or overflow.

    Examples
    --------
    >>> x = gaussian_(torch.zeros(10_000), 2.0)
    >>> 1.8 < float(x.std()) < 2.2
    True
    """
    std = between("std", std, math.inf)
    if not isinstance(out, Tensor) or not out.is_floating_point():
        raise ValueError(f"out is {shown(out)}: noise needs a floating-point tensor")
    check_generator(generator)
    if std == 0 or out.numel() == 0:
        return out
    check_scale(std, out.dtype)
    if not out.is_contiguous():
        noise = torch.zeros_like(out, memory_format=torch.contiguous_format)
        return out.add_(gaussian_(noise, std, generator))
    flat = out.view(-1)
    start = 0
    for block in _standard_normal(out.numel(), out.dtype, generator):
        part = flat[start : start + len(block)]
        part.add_(block.to(out.device), alpha=std)
        start += len(block)
    return out


def _standard_normal(
    count: int, dtype: torch.dtype, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """`count` independent N(0, 1) draws, in blocks of at most 32,768 that are the caller's own.

    The draws are float64 for `dtype` float64, float32 otherwise.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    if generator is not None:
        for start in range(0, count, _HALF):
            block = torch.empty(min(_HALF, count - start), dtype=wide, device=generator.device)
            yield block.normal_(generator=generator)
        return
    stream = Keystream()
    for start in range(0, count, BLOCK):
        part = min(BLOCK, count - start)
        radius, angle = _polar(stream.block(), (part + 1) // 2, wide)
        first = torch.cos(angle).mul_(radius)
        second = angle[: part // 2].sin_().mul_(radius[: part // 2])
        if part <= _HALF:
            yield torch.cat([first, second])
        else:
            yield first
            yield second


def _polar(words: Tensor, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Radii and angles of `count` Box-Muller pairs of standard deviation 1."""
    bits = words[:count] & 0x7FFFFFFF
    uniform = bits.to(dtype).add_(0.5)
    if float(uniform.min()) < 256:
        low = (bits < 256).nonzero().flatten()
        more = torch.frombuffer(bytearray(os.urandom(4 * low.numel())), dtype=torch.int32)
        fine = ((more & 0x7FFFFFFF).double() + 0.5) * 2.0**-31
        uniform[low] = (bits[low].double() + fine).to(dtype)
    # The scale is applied to the draws, outside of this root: its square could leave the range.
    radius = uniform.mul_(2.0**-31).log_().mul_(-2.0).sqrt_()
    return radius, words[_HALF : _HALF + count].to(dtype).mul_(math.pi * 2.0**-31)


class Gaussian:
    """Independent Gaussian noise in floating point, round by round: the default.

    Sums have the bound of `summation`, so rounding does not enlarge what one client adds. Noise is
    added to the sum in float64, and the mean is rounded to the updates' own precision afterwards:
    the same operations whoever came, so that precision does not tell how many did.

    Parameters
    ----------
    generator : torch.Generator, optional
        None takes the noise from the operating system. A generator makes it reproducible, and
        whoever knows its seed can subtract it.

    Raises
    ------
    ValueError
        For a generator that is none.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-5, rounds=10, clients=100)
    >>> Gaussian().events(plan, 3) == plan.events(3)
    True
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        check_generator(generator)
        # Not a setting of the run: who resumes may bring another, and a state goes into it.
        self._generator = generator

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def generator(self) -> torch.Generator | None:
        """The caller's generator, if the noise comes from one."""
        return self._generator

    @property
    def reproducible(self) -> bool:
        """Whether somebody may know the noise: it comes from the caller's generator."""
        return self._generator is not None

    def events(self, plan: PrivacyPlan, rounds: int = 1, size: int = 1) -> list[RoundEvent]:
        """What the accountant composes for the first `rounds` rounds of a run under `plan`.

        Parameters
        ----------
        plan : PrivacyPlan
            The plan that was accounted.
        rounds : int
            How many rounds have been released.
        size : int
            How many coordinates a round noises, an adaptive clip's count of bits included.

        Returns
        -------
        list of events

        Raises
        ------
        ValueError
            Where this noise does not give what the plan states.
        """
        self.check(plan)
        return plan.events(rounds)

    def check(self, plan: PrivacyPlan) -> None:
        """ValueError where the plan accounts for another kind of noise.

        Parameters
        ----------
        plan : PrivacyPlan
            The plan that was accounted.
        """
        if plan.correlation is not None:
            raise ValueError(
                f"{self!r} is fresh in every round, and the plan accounts for the noise of a whole "
                "run: give noise=Correlated(plan.correlation) of fldp.mechanism.correlation, one "
                "object for all rounds"
            )

    def marginal(self, std: float) -> float:
        """The standard deviation of the noise in the last round alone.

        Parameters
        ----------
        std : float
            That of fresh noise.

        Returns
        -------
        float
        """
        return std

    def statement(self) -> str:
        """What a plan's statement does not say of this noise; empty where it says all."""
        if not self.reproducible:
            return ""
        return (
            "Reproducible noise comes again: another release from the same seed, or from a "
            "generator that a resumed run has set back, may have the same noise, and whoever sees "
            "both subtracts it without any seed."
        )

    def start(self, size: int, like: Tensor, std: float, clients: int, most: int = MOST) -> Sum:
        """An empty sum, at the beginning of a round.

        Parameters
        ----------
        size : int
            d.
        like : Tensor
            An empty tensor with the dtype and the device of the rows.
        std : float
            σ on the sum, which a grid's step follows.
        clients, most : int
            How many rows to prepare for, and how many may come at all: public numbers.

        Returns
        -------
        Sum
        """
        return RunningSum(size, like, clients, most)

    def accumulate_(self, total: Sum, rows: Tensor, columns: Columns) -> None:
        """Add rows to a round's sum.

        Parameters
        ----------
        total : Sum
            What `start` returned.
        rows : Tensor
            (c, d).
        columns : sequence of (start, stop, factors (c,))
            Consecutive ranges of coordinates with each row's factor there.
        """
        total.add_(rows, columns)

    def finish(self, total: Sum, std: float, denominator: float) -> Tensor:
        """The noisy mean, at the end of a round.

        Parameters
        ----------
        total : Sum
            What `start` returned; it is spent afterwards.
        std : float
            σ on the sum.
        denominator : float
            A public number.

        Returns
        -------
        Tensor
            (sum + noise) / `denominator`, (d,).
        """
        draws = self._draws(total) if std else _nothing(total.size)
        return total.noisy_mean(draws, std, denominator)

    def _draws(self, total: Sum) -> Iterator[Tensor]:
        """Blocks of standard noise that together have d entries."""
        return _standard_normal(total.size, total.like.dtype, self._generator)

    def count(self, half_bits: int, std: float) -> float:
        """A noised sum of bits.

        Parameters
        ----------
        half_bits : int
            The sum, in halves.
        std : float
            The standard deviation of the noise.
        """
        bits = torch.tensor(half_bits / 2, dtype=torch.float64)
        return float(gaussian_(bits, std, self._generator))

    def state_dict(self) -> dict[str, Any]:
        """What the next round's noise depends on: a generator's state, if there is one."""
        if self._generator is None:
            return {}
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken; without a generator there is nothing to go on from.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.
        """
        if self._generator is not None and "generator" in state:
            self._generator.set_state(state["generator"].cpu())


def as_noise(noise: Gaussian | None, generator: torch.Generator | None) -> Gaussian:
    """The noise of a run that was asked for by an object, or by a generator, or not at all."""
    if noise is None:
        return Gaussian(generator)
    if not isinstance(noise, Gaussian):
        raise ValueError(f"noise is {noise!r}: give Gaussian() or DiscreteGaussian()")
    if generator is not None:
        raise ValueError(
            f"noise and generator are both given: generator=g means noise=Gaussian(g); give "
            f"{type(noise).__name__}(generator) alone"
        )
    return noise


def _nothing(count: int) -> Iterator[Tensor]:
    """Blocks of zeros in the place of noise."""
    for start in range(0, count, _HALF):
        yield torch.zeros(min(_HALF, count - start))


if not TYPE_CHECKING:
    _OLD_NAMES = {
        "DiscreteGaussian": "mechanism.discrete.DiscreteGaussian",
        "discrete_gaussian": "mechanism.discrete.discrete_gaussian",
    }

    def __getattr__(name: str) -> Any:
        return _moved.find(__name__, name, _OLD_NAMES)
