"""Noise from the discrete Gaussian, sampled exactly: safe from attacks on low-order bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fldp.mechanism.noise import BLOCK, Gaussian, Keystream
from fldp.mechanism.summation import MOST, Columns, Sum

if TYPE_CHECKING:
    from fldp.accounting.events import RoundEvent
    from fldp.plan import PrivacyPlan

# σ is 2^34 steps: so fine that the grid costs nothing, and sums still fit in 64 bits.
_GRID = 34
# N clients of at most 2^34 / z steps each, and the noise, stay below 2^62.
_MOST_CLIENTS_PER_Z = 2.0 ** (60 - _GRID)
# e^700 is still a number.
_LARGEST_EXPONENT = 700.0
# Of δ, what the grid's distance from a rounded Gaussian may take.
_SMALL_SHARE = 1e-6
# 64-bit integers in one block of the keystream.
_PAIRS = BLOCK // 2


class GridSum:
    """A sum in whole steps of a grid, exact: every row is rounded towards zero onto it.

    Parameters
    ----------
    size : int
        d.
    like : Tensor
        An empty tensor on the device of the rows.
    step : float
        γ, the distance of two points of the grid.

    Examples
    --------
    >>> total = GridSum(2, torch.empty(0), step=0.5)
    >>> total.add_(torch.tensor([[1.2, -0.7]]), [(0, 2, torch.ones(1))])
    >>> total.read().tolist()
    [1.0, -0.5]
    """

    # Nothing is rounded after a row has come onto the grid.
    room = 0.0

    def __init__(self, size: int, like: Tensor, step: float) -> None:
        self.size = size
        self.like = like
        self.step = step
        self._steps = torch.zeros(size, dtype=torch.int64, device=like.device)

    def whole(self, rows: int) -> int:
        """Any number of rows is as fast as another."""
        return rows

    def add_(self, rows: Tensor, columns: Columns) -> None:
        """Add the rows (c, d), each times its factors; `columns` as for `RunningSum.add_`."""
        for start, stop, factors in columns:
            for row, factor in zip(rows[:, start:stop], factors.tolist(), strict=True):
                self._steps[start:stop] += (row.double() * (factor / self.step)).trunc_().long()

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Coordinates `start` to `stop` of the sum so far, in float64."""
        return self._steps[start:stop].double() * self.step

    def noisy_mean(self, draws: Iterable[Tensor], std: float, denominator: float) -> Tensor:
        """(sum + draws) / `denominator` in float64; `draws` are blocks of whole steps."""
        noise = torch.cat(list(draws)).long().to(self._steps.device)
        return (self._steps + noise).double() * self.step / denominator


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
    post-processing covers; `events` refuses unless that is below a millionth of δ. Central only.

    Parameters
    ----------
    generator : torch.Generator, optional
        As for `Gaussian`.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=2.0, delta=1e-5, rounds=1, clients=1000)
    >>> noise = DiscreteGaussian()
    >>> release = fldp.aggregate(torch.ones(1000, 2) / 2, plan, noise=noise)
    >>> bool((release.mean - 0.5).abs().max() < 0.1)
    True
    """

    def statement(self) -> str:
        grid = (
            "Noise of this run: the discrete Gaussian, exact on a grid of 2^34 steps in one std, "
            "so the low-order digits of the noise are covered."
        )
        return f"{grid} {super().statement()}".strip()

    def start(self, size: int, like: Tensor, std: float, clients: int, most: int = MOST) -> Sum:
        return GridSum(size, like, std / 2.0**_GRID)

    def _draws(self, total: Sum) -> Iterator[Tensor]:
        yield discrete_gaussian(total.size, self._generator)

    def count(self, half_bits: int, std: float) -> float:
        # A half is rounded towards zero to whole steps, as an update is.
        steps = half_bits * math.floor(2.0 ** (_GRID - 1) / std)
        return (steps + int(discrete_gaussian(1, self._generator))) * (std / 2.0**_GRID)

    def events(self, plan: PrivacyPlan, rounds: int = 1, size: int = 1) -> list[RoundEvent]:
        self.check(plan)
        if plan.trust != "central":
            raise ValueError(f"DiscreteGaussian needs central trust; the plan says {plan.trust!r}")
        if plan.clients / plan.noise_multiplier > _MOST_CLIENTS_PER_Z:
            raise ValueError(
                f"{plan.clients} clients at z = {plan.noise_multiplier:.3g} could overflow 64-bit "
                "sums"
            )
        # Where Rényi DP is the Gaussian's there is nothing to add.
        if plan.accountant == "rdp" and plan.event.sampling == "none":
            return plan.events(rounds)
        epsilon = min(plan.target_epsilon, _LARGEST_EXPONENT)
        distance = math.sqrt(size) / 17 * 2.0**-68
        slack = plan.rounds * (1 + math.exp(epsilon)) * distance
        if slack > _SMALL_SHARE * plan.delta:
            raise ValueError(
                f"the grid's approximation term {slack:.1e} is not small against delta = "
                f"{plan.delta}; use accountant='rdp' with sampling='none', or Gaussian noise"
            )
        return plan.events(rounds)


def discrete_gaussian(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Exact samples, int64, of the discrete Gaussian with parameter σ = 2^34.

    Parameters
    ----------
    count : int
        How many.
    generator : torch.Generator, optional
        None takes them from the operating system.

    Examples
    --------
    >>> 0.8 < float(discrete_gaussian(5000).double().std()) / 2**34 < 1.2
    True
    """
    source = _Integers(generator)
    kept: list[Tensor] = []
    found = 0
    scale = 1 << _GRID
    while found < count:
        need = min(BLOCK, int(2.6 * (count - found)) + 64)
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
    if not kept:
        return torch.zeros(0, dtype=torch.int64)
    return torch.cat(kept)[:count]


class _Integers:
    """Uniform 62-bit integers from the keystream, or from a torch generator."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._generator = generator
        self._stream = Keystream()

    def integers(self, count: int) -> Tensor:
        g = self._generator
        if g is not None:
            return torch.randint(1 << 62, (count,), generator=g, device=g.device).cpu()
        blocks = [self._stream.block().clone() for _ in range(-(-count // _PAIRS))]
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
            width = Decimal(1) / (1 << digits)
            low = bits * width
            # The error of the decimal arithmetic is far below the width of one binary digit.
            if low + width * 2 <= chance:
                return True
            if low >= chance + width:
                return False
        bits = (bits << 62) | int(source.integers(1))
        digits += 62
