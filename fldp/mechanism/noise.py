"""The noise of a release, and the event that each mechanism asks the accountant to compose.

A mechanism owns the running sum as well, because safe noise needs an integer sum: `start`,
`accumulate_`, `finish`. Every call that makes noise takes a key of its own from the operating
system, so neither threads nor forked processes can share or repeat it.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from fldp.mechanism.summation import MOST, Columns, RunningSum

if TYPE_CHECKING:
    from fldp.accounting import Event
    from fldp.plan import PrivacyPlan

# Above 32,768 elements per operation torch goes parallel, which is slower here than one thread.
_HALF = 1 << 15
_BLOCK = 2 * _HALF


class _Keystream:
    """32-bit words of AES-256 in counter mode under a fresh key from the operating system."""

    _zeros = bytes(4 * _BLOCK)

    def __init__(self) -> None:
        key, nonce = os.urandom(32), os.urandom(16)
        self._cipher = Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()
        self._buffer = bytearray(4 * _BLOCK + 15)
        self._words = torch.frombuffer(self._buffer, dtype=torch.int32, count=_BLOCK)

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
    low, high = 16 * info.tiny, info.max / 1024
    if not low <= std <= high:
        raise ValueError(
            f"noise of standard deviation {std:.3g} cannot be added in {dtype}: it must lie "
            f"between {low:.2g} and {high:.2g}; rescale the updates, or use float64"
        )
    return std


def gaussian_(out: Tensor, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Add independent N(0, std²) noise to `out` in place and return it.

    With `generator` None the noise comes from AES-256 in counter mode, under a key drawn from the
    operating system for this call alone, through the Box-Muller transform. A radius takes 31 random
    bits, and 31 more where the first are near zero, so the tail reaches past nine standard
    deviations. With a torch generator the noise is reproducible, and whoever knows the seed can
    subtract it.

    Attacks on the low-order bits of floating-point noise (Mironov 2012) are not addressed here;
    `DiscreteGaussian` addresses them.

    Parameters
    ----------
    out : a floating-point tensor of any shape on any device. Half precision is noised in float32
        and rounded afterwards.
    std : the standard deviation, 0 (adds nothing) or within the range of `check_scale` for the
        tensor's dtype; a ValueError otherwise, for noise that would vanish is no noise.
    generator : a torch generator, or None for cryptographic noise.

    >>> x = gaussian_(torch.zeros(10_000), 2.0)
    >>> 1.8 < float(x.std()) < 2.2
    True
    """
    if not math.isfinite(std) or std < 0:
        raise ValueError(f"the scale of the noise must be finite and at least 0, got {std!r}")
    if not out.is_floating_point():
        raise ValueError(f"noise needs a floating-point tensor, got {out.dtype}")
    if std == 0 or out.numel() == 0:
        return out
    check_scale(std, out.dtype)
    if not out.is_contiguous():
        noise = torch.zeros_like(out, memory_format=torch.contiguous_format)
        return out.add_(gaussian_(noise, std, generator))
    flat, start = out.view(-1), 0
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
    stream = _Keystream()
    for start in range(0, count, _BLOCK):
        part = min(_BLOCK, count - start)
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


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """The Gaussian mechanism in floating point: the default.

    Sums have the bound of `summation`, so rounding does not enlarge what one client adds. Noise is
    added to the sum in float64, and the mean is rounded to the updates' own precision afterwards:
    the same operations whoever came, so that precision does not tell how many did.
    """

    def start(self, size: int, like: Tensor, clients: int, most: int = MOST) -> Any:
        """An empty sum of d = `size` coordinates; `clients` and `most` as for `RunningSum`."""
        return RunningSum(size, like, clients, most)

    def room(self, total: Any) -> float:
        """The share of the clip norm that pays for what adding up may round."""
        return total.room

    def tile(self, total: Any, rows: int) -> int:
        """A number of rows, near `rows`, that is fast to add at once."""
        return total.whole(rows)

    def accumulate_(self, total: Any, rows: Tensor, columns: Columns, std: float) -> None:
        """Add the rows (c, d), each times its factor; `columns` as for `RunningSum.add_`."""
        total.add_(rows, columns)

    def finish(
        self, total: Any, std: float, denominator: float, generator: torch.Generator | None
    ) -> Tensor:
        """(sum + noise of standard deviation `std`) / `denominator`, in the updates' dtype."""
        draws = _nothing(total.size)
        if std:
            draws = _standard_normal(total.size, total.like.dtype, generator)
        return total.noisy_mean(draws, std, denominator)

    def count(self, half_bits: int, std: float, generator: torch.Generator | None) -> float:
        """A sum of bits, `half_bits` halves, plus noise of standard deviation `std`."""
        return float(gaussian_(torch.tensor(half_bits / 2, dtype=torch.float64), std, generator))

    def event(self, plan: PrivacyPlan, noise_multiplier: float, size: int = 1) -> Event:
        """What the accountant composes for one round at this joint noise multiplier.

        `size` is the number of noised coordinates, an adaptive clip's count of bits included.
        """
        return dataclasses.replace(plan.event, noise_multiplier=noise_multiplier)


@dataclasses.dataclass(frozen=True)
class DiscreteGaussian(Gaussian):
    """The discrete Gaussian mechanism on a fixed grid, sampled exactly: safe in floating point.

    Every clipped update is rounded towards zero onto a grid of step γ = zC / 2^34, summed in
    integers, and given noise from the discrete Gaussian of parameter 2^34 steps, sampled without
    any approximation (Canonne, Kamath, Steinke 2020, algorithms 2 and 3). Rounding towards zero
    enlarges no coordinate, so the sensitivity stays C/γ steps exactly, and the output carries no
    low-order bits but its own place on a public grid. An adaptive clip's bits are noised in the
    same way, on a grid of step σ_b / 2^34.

    Guarantee: without sampling, Rényi DP is the Gaussian's at the same z. Else, a release of d
    coordinates is within total variation √d / (17·2^68) of a Gaussian rounded to the grid, which
    post-processing covers; `event` refuses unless that is below a millionth of δ. Central only.
    """

    def start(self, size: int, like: Tensor, clients: int, most: int = MOST) -> Any:
        return torch.zeros(size, dtype=torch.int64, device=like.device)

    def room(self, total: Any) -> float:
        return 0.0

    def tile(self, total: Any, rows: int) -> int:
        return rows

    def accumulate_(self, total: Tensor, rows: Tensor, columns: Columns, std: float) -> None:
        step = std / 2.0**_GRID
        for start, stop, factors in columns:
            for row, factor in zip(rows[:, start:stop], factors.tolist(), strict=True):
                total[start:stop] += (row.double() * (factor / step)).trunc_().long()

    def finish(
        self, total: Tensor, std: float, denominator: float, generator: torch.Generator | None
    ) -> Tensor:
        noise = discrete_gaussian(total.numel(), generator).to(total.device)
        return (total + noise).double() * (std / 2.0**_GRID) / denominator

    def count(self, half_bits: int, std: float, generator: torch.Generator | None) -> float:
        # A half is rounded towards zero to whole steps, as an update is.
        steps = half_bits * math.floor(2.0 ** (_GRID - 1) / std)
        return (steps + int(discrete_gaussian(1, generator))) * (std / 2.0**_GRID)

    def event(self, plan: PrivacyPlan, noise_multiplier: float, size: int = 1) -> Event:
        if plan.trust != "central":
            raise ValueError(f"DiscreteGaussian needs central trust; the plan says {plan.trust!r}")
        if plan.clients / noise_multiplier > 2.0 ** (60 - _GRID):
            raise ValueError(
                f"{plan.clients} clients at z = {noise_multiplier:.3g} could overflow 64-bit sums"
            )
        if not (plan.accountant == "rdp" and plan.event.sampling == "none"):
            epsilon = min(plan.target_epsilon, 700.0)
            slack = plan.rounds * (1 + math.exp(epsilon)) * math.sqrt(size) / 17 * 2.0**-68
            if slack > 1e-6 * plan.delta:
                raise ValueError(
                    f"the grid's approximation term {slack:.1e} is not small against delta = "
                    f"{plan.delta}; use accountant='rdp' with sampling='none', or Gaussian noise"
                )
        return super().event(plan, noise_multiplier)


def _nothing(count: int) -> Iterator[Tensor]:
    """Blocks of zeros in the place of noise."""
    for start in range(0, count, _HALF):
        yield torch.zeros(min(_HALF, count - start))


_GRID = 34


def discrete_gaussian(count: int, generator: torch.Generator | None = None) -> Tensor:
    """`count` exact samples, int64, of the discrete Gaussian with parameter σ = 2^34.

    >>> 0.8 < float(discrete_gaussian(5000).double().std()) / 2**34 < 1.2
    True
    """
    source, kept, found = _Integers(generator), [], 0
    scale = 1 << _GRID
    while found < count:
        need = min(_BLOCK, int(2.6 * (count - found)) + 64)
        # Discrete Laplace of scale σ: uniform below σ, thinned, plus a geometric multiple of σ.
        low = source.integers(need) >> (62 - _GRID)
        low = low[_bernoulli_exp(low, 1, source)]
        high = torch.zeros_like(low)
        alive = torch.arange(low.numel())
        while alive.numel():
            alive = alive[_bernoulli_exp(torch.full((alive.numel(),), scale), 1, source)]
            high[alive] += 1
        size = low + scale * high
        negative = (source.integers(size.numel()) >> 61) == 1
        # Zero would come up with either sign; both of them together would count it twice.
        keep = ~(negative & (size == 0)) & _bernoulli_exp((size - scale).abs(), 2, source)
        values = torch.where(negative, -size, size)[keep]
        kept.append(values)
        found += values.numel()
    return torch.cat(kept)[:count] if kept else torch.zeros(0, dtype=torch.int64)


class _Integers:
    """Uniform 62-bit integers from the keystream, or from a torch generator."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._generator, self._stream = generator, _Keystream()

    def integers(self, count: int) -> Tensor:
        g = self._generator
        if g is not None:
            return torch.randint(1 << 62, (count,), generator=g, device=g.device).cpu()
        blocks = [self._stream.block().clone() for _ in range(-(-count // _HALF))]
        words = torch.cat(blocks or [torch.zeros(0, dtype=torch.int32)]).view(torch.int64)
        return words[:count] & ((1 << 62) - 1)


def _bernoulli_exp(steps: Tensor, power: int, source: _Integers) -> Tensor:
    """Exact coin flips: True with probability exp(-s/σ) for power 1, exp(-s²/2σ²) for power 2.

    A uniform number is compared with the probability in float64. Where they are closer than the
    error of that arithmetic the comparison is finished with as many random digits as it takes.
    """
    ratio = steps.double() * 2.0**-_GRID
    chance = torch.exp(-ratio if power == 1 else -(ratio * ratio) / 2)
    bits = source.integers(steps.numel())
    uniform = bits.double() * 2.0**-62
    unsure = (uniform - chance).abs() <= chance * 2.0**-40 + 2.0**-50
    result = uniform < chance
    for i in unsure.nonzero().flatten().tolist():
        result[i] = _settle(int(steps[i]), power, int(bits[i]), source)
    return result


def _settle(step: int, power: int, bits: int, source: _Integers) -> bool:
    """Is a uniform number whose first 62 binary digits are `bits` below exp(-(...))?"""
    digits = 62
    while True:
        with localcontext() as context:
            context.prec = digits + 20
            ratio = Decimal(step) / (1 << _GRID)
            chance = (-ratio if power == 1 else -ratio * ratio / 2).exp()
            low, width = Decimal(bits) / (1 << digits), Decimal(1) / (1 << digits)
            # The error of the decimal arithmetic is far below the width of one binary digit.
            if low + width * 2 <= chance:
                return True
            if low >= chance + width:
                return False
        bits, digits = (bits << 62) | int(source.integers(1)), digits + 62
