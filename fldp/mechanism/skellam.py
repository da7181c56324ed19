"""Integer noise for sums that nobody sees the parts of: the Skellam mechanism.

A client's bounded update is rotated (:mod:`fldp.mechanism.rotation`), rounded to whole steps of a
public grid (:mod:`fldp.mechanism.rounding`), and given a share of Skellam noise
(:mod:`fldp.mechanism.lattice`), all modulo 2^bits (:mod:`fldp.mechanism.grid`): a vector of whole
numbers, as secure aggregation adds them up (Agarwal, Kairouz & Liu 2021). The sum of the shares is
Skellam noise again, of the sum of their variances. What the server gets is the sum; rotating it
back and dividing is post-processing, and so is what wraps around.

What it costs is what Gaussian noise of z = 1 / (S·m₁) costs (:mod:`fldp.accounting.lattice`), S the
largest norm of a rounded vector. The grid's noise is made for that z to be the plan's.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fldp._checks import shown, whole
from fldp.mechanism import lattice
from fldp.mechanism.clipping import Clip
from fldp.mechanism.contribution import Contribution
from fldp.mechanism.grid import FEWEST_BITS, MOST_BITS, Grid, Terms, grid_for
from fldp.mechanism.intake import check_plan
from fldp.mechanism.noise import Gaussian
from fldp.mechanism.rotation import Rotation
from fldp.mechanism.rounding import round_within
from fldp.mechanism.summation import MOST, Columns, Sum
from fldp.mechanism.updates import Layout
from fldp.plan.statement import PAIRS_ALONE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fldp.accounting.events import RoundEvent
    from fldp.plan import PrivacyPlan

# Coordinates that are rotated and rounded at once.
_TILE = 1 << 20
# Of δ, what the sampler's distance from its law may take; e^700 is still a number.
_SMALL_SHARE, _LARGEST_EXPONENT = 1e-6, 700.0
_SEED_BYTES = 16


class Encoder:
    """Turns bounded rows into whole numbers of steps, and a sum of these into an update.

    Parameters
    ----------
    grid : Grid
        The round's.
    norm : float
        C·cap, the largest norm of a row.
    rotation : Rotation
        The round's, public.

    Examples
    --------
    >>> from fldp.mechanism.grid import finest
    >>> grid = finest(Terms(1.0, 3, uploads=10, shares=10, arriving=10), bits=20)
    >>> encoder = Encoder(grid, 1.0, Rotation(b"public", 3))
    >>> steps = encoder.steps(torch.tensor([[0.6, 0.8, 0.0]]), lattice.Words())
    >>> encoder.update(steps[0])[:2].round(decimals=2).tolist()
    [0.6, 0.8]
    """

    def __init__(self, grid: Grid, norm: float, rotation: Rotation) -> None:
        self.grid = grid
        self.rotation = rotation
        self.step = norm / grid.fineness

    def steps(self, rows: Tensor, words: lattice.Words) -> NDArray[np.int64]:
        """Rows in steps, each of a squared norm of at most the grid's limit, whatever was given.

        Parameters
        ----------
        rows : Tensor
            (c, d), on the CPU.
        words : lattice.Words
            Where the randomness of the rounding comes from.

        Returns
        -------
        array
            (c, D), int64.
        """
        turned = self.rotation.forth(rows).div_(self.step)
        return round_within(turned.numpy(), self.grid.limit, words)

    def noise(self, shares: int, words: lattice.Words) -> NDArray[np.int64]:
        """The sum of so many shares of noise, (D,)."""
        return lattice.skellam(self.grid.share, self.rotation.padded, words, shares)

    def wrapped(self, total: NDArray[np.int64]) -> NDArray[np.int64]:
        """Whole numbers modulo 2^bits, in [0, 2^bits)."""
        return total & ((1 << self.grid.bits) - 1)

    def update(self, total: NDArray[np.int64]) -> Tensor:
        """A sum modulo 2^bits as an update, float64 (d,): the nearest to 0 of what it may be."""
        half = 1 << (self.grid.bits - 1)
        centred = self.wrapped(total + half) - half
        turned = torch.from_numpy(centred.astype(np.float64))
        return self.rotation.back(turned.mul_(self.step)[None])[0]


class LatticeSum:
    """A sum in whole steps, exact: every row is rotated and rounded onto the grid.

    Parameters
    ----------
    encoder : Encoder
        The round's.
    like : Tensor
        An empty tensor with the device of the rows.
    std : float
        σ on the sum, which the grid's noise stands for.
    generator : torch.Generator, optional
        None takes rounding and noise from the operating system, with a key for every call.
    """

    # Nothing is rounded after a row has come onto the grid, and nothing before enlarges it.
    room = 0.0

    def __init__(
        self, encoder: Encoder, like: Tensor, std: float, generator: torch.Generator | None
    ) -> None:
        self.size = encoder.rotation.size
        self.like = like
        self.encoder = encoder
        self._std = std
        self._generator = generator
        self._steps = np.zeros(encoder.rotation.padded, dtype=np.int64)
        self._noised = False

    def whole(self, rows: int) -> int:
        """Any number of rows is as fast as another."""
        return rows

    def add_(self, rows: Tensor, columns: Columns) -> None:
        """Add the rows (c, d), each times its factor."""
        if self._noised:
            raise ValueError("this round has the sum of secure aggregation, and takes no other row")
        ((_, _, factors),) = columns
        words = lattice.Words.of(self._generator)
        height = max(1, _TILE // len(self._steps))
        for part, factor in zip(rows.split(height), factors.split(height), strict=True):
            scaled = part * factor.to(part.dtype)[:, None]
            self._steps += self.encoder.steps(scaled.cpu(), words).sum(axis=0)

    def checked(self, total: ArrayLike | Tensor) -> NDArray[np.int64]:
        """The output of secure aggregation as whole numbers (D,); ValueError for anything else."""
        if isinstance(total, Tensor):
            total = total.detach().cpu()
        found: NDArray[Any] = np.asarray(total)
        width = self.encoder.rotation.padded
        bits = self.encoder.grid.bits
        if found.shape != (width,) or found.dtype.kind not in "iu":
            raise ValueError(
                f"the sum has the shape {found.shape} and the type {found.dtype}: give {width} "
                "whole numbers, as NoisyContribution.encode makes them"
            )
        if int(found.min()) < 0 or int(found.max()) >> bits:
            raise ValueError(f"the sum is not taken modulo 2^{bits}: give numbers from 0 below it")
        return found.astype(np.int64)

    def take(self, total: NDArray[np.int64]) -> None:
        """Take the whole sum, with its noise, from a protocol that added it up elsewhere."""
        self._steps = total
        self._noised = True

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Coordinates `start` to `stop` of the sum so far, in float64."""
        return self.encoder.update(self._steps)[start:stop]

    def noisy_mean(self, draws: Iterable[Tensor], std: float, denominator: float) -> Tensor:
        """(sum + noise) / `denominator` in float64; noise of `std`, and `draws` are not needed."""
        if not self._noised:
            words = lattice.Words.of(self._generator)
            self._steps += self.encoder.noise(self._shares(std), words)
        return (self.encoder.update(self._steps) / denominator).to(self.like.device)

    def marginal(self, std: float) -> float:
        """The standard deviation of the noise on a coordinate that stands for `std`."""
        variance = self.encoder.grid.share * self._shares(std)
        return self.encoder.step * math.sqrt(variance)

    def _shares(self, std: float) -> int:
        """How many shares arrived: a noise of σ√(shares that arrived / shares accounted)."""
        return round((std / self._std) ** 2 * self.encoder.grid.shares)


class Skellam(Gaussian):
    """Whole numbers under secure aggregation: Skellam noise on a rotated grid, modulo 2^bits.

    Guarantee: that of the plan, whatever clients send: a rounded contribution stays within the norm
    S that the noise is made for, looked at in whole numbers, and noise is drawn exactly. Under
    distributed trust each client adds a share of the noise, made for the plan's `min_survivors`;
    `fldp.aggregate` and `fldp.train` draw the sum of all shares that arrive at once, which has the
    same law. In a deployment a client runs a `NoisyContribution`, and the server's
    `Collection.receive_sum` takes what the protocol has added up. Central trust is accepted, local
    trust is not: there nobody adds up in secret.

    Refused: clips by layers and adaptive ones; too few bits; and, where amplification is claimed
    (central trust), cohorts of a fixed size or with a cap, and "replace-one": see
    :mod:`fldp.accounting.lattice`.

    Parameters
    ----------
    bits : int, optional
        Sums are taken modulo 2^bits, 8 to 32. None: the first of 16, 20, 24 and 32 with which the
        noise, rounding included, is within a hundredth of the Gaussian's.
    rotation_seed : int, optional
        A public number that fixes the rotation, the same in every round of this object: both halves
        of a deployment need the same, and another every round keeps clients from preparing vectors
        that wrap around. Privacy rests on neither. None: a new rotation every round.
    generator : torch.Generator, optional
        None takes rounding and noise from the operating system. A generator makes rotation,
        rounding and noise reproducible, and whoever knows its seed can subtract the noise.

    Raises
    ------
    ValueError
        For bits, a seed or a generator that are none.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=1000,
    ...                       trust="distributed", min_survivors=800)
    >>> release = fldp.aggregate(torch.ones(1000, 4) / 2, plan, noise=Skellam())
    >>> bool((release.mean - 0.5).abs().max() < 0.1)
    True
    >>> Skellam().grid(plan, 4).bits, Skellam().grid(plan, 10**6).bits
    (24, 16)
    """

    def __init__(
        self,
        bits: int | None = None,
        rotation_seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(generator)
        if bits is not None:
            bits = whole("bits", bits)
            if not FEWEST_BITS <= bits <= MOST_BITS:
                raise ValueError(f"bits is {bits}: give {FEWEST_BITS} to {MOST_BITS}, or None")
        if rotation_seed is not None:
            rotation_seed = whole("rotation_seed", rotation_seed, 0)
        self.bits = bits
        self.rotation_seed = rotation_seed

    def grid(self, plan: PrivacyPlan, size: int) -> Grid:
        """The grid, the modulus and the noise of a round: public, and equal for all who ask.

        Parameters
        ----------
        plan : PrivacyPlan
            The plan that was accounted.
        size : int
            d.

        Returns
        -------
        Grid

        Raises
        ------
        ValueError
            For a plan that this noise does not give, and for too few bits.
        """
        check_plan(plan)
        self.check(plan)
        _check_pair(plan)
        return grid_for(Terms.of(plan, whole("size", size)), self.bits)

    def rotation(self, size: int) -> Rotation:
        """The rotation of a round, by the public seed or by a new one.

        Parameters
        ----------
        size : int
            d.

        Returns
        -------
        Rotation
        """
        if self.rotation_seed is not None:
            seed = f"fldp {self.rotation_seed}".encode()
        elif self.generator is not None:
            # Or the noise would come again, and the release would not.
            seed = lattice.Words.of(self.generator).digits()
        else:
            seed = os.urandom(_SEED_BYTES)
        return Rotation(seed, size)

    def events(self, plan: PrivacyPlan, rounds: int = 1, size: int = 1) -> list[RoundEvent]:
        grid = self.grid(plan, size)
        if grid.noise_multiplier < plan.noise_multiplier:
            raise ValueError(
                f"the grid's noise counts as z = {grid.noise_multiplier}, and the plan accounts "
                f"for {plan.noise_multiplier}"
            )
        # Each draw is this near to its law, in total variation.
        epsilon = min(plan.target_epsilon, _LARGEST_EXPONENT)
        slack = size * plan.rounds * (1 + math.exp(epsilon)) * lattice.DISTANCE
        if slack > _SMALL_SHARE * plan.delta:
            raise ValueError(
                f"at ε = {plan.target_epsilon:g} the sampler's term {slack:.1e} is not small "
                f"against delta = {plan.delta}: use Gaussian noise"
            )
        return super().events(plan, rounds, size)

    def marginal(self, std: float, total: Sum | None = None) -> float:
        if not isinstance(total, LatticeSum):
            return std
        return total.marginal(std)

    def check_clip(self, clip: Clip) -> None:
        if clip.queries:
            raise ValueError(
                "an adaptive clip asks for a noised sum of bits, which Skellam noise on a grid of "
                "updates does not give: use a fixed clip norm"
            )
        if clip.by_layers:
            raise ValueError(
                f"{type(clip).__name__} scales layers apart, and the rotation mixes them: use a "
                "flat clip, FlatClip or a number, with Skellam noise"
            )

    def statement(self) -> str:
        words = (
            "Noise of this run: Skellam, whole steps of a public grid, taken modulo a power of two "
            "and drawn exactly, so the low-order digits of the noise are covered; its ε is at most "
            "that of the Gaussian noise above. Where draws are secret, what they add to "
            f"plan.group(k) and to the ε of replace-one {PAIRS_ALONE}"
        )
        return f"{words} {super().statement()}".strip()

    def start(self, size: int, like: Tensor, std: float, clients: int, most: int = MOST) -> Sum:
        raise ValueError("Skellam noise needs a plan: begin(plan, layout, std, norm)")

    def begin(self, plan: PrivacyPlan, layout: Layout, std: float, norm: float) -> Sum:
        encoder = Encoder(self.grid(plan, layout.total), norm, self.rotation(layout.total))
        return LatticeSum(encoder, layout.empty, std, self.generator)

    def finish(self, total: Sum, std: float, denominator: float) -> Tensor:
        return total.noisy_mean((), std, denominator)

    def count(self, half_bits: int, std: float) -> float:
        raise ValueError("Skellam noise has no noised sum of bits: use a fixed clip norm")


def _check_pair(plan: PrivacyPlan) -> None:
    """ValueError unless one client's part in `plan` is a pair of laws, which the theorem needs."""
    if plan.trust == "local":
        raise ValueError(
            "trust is 'local': every client releases its own message and nobody adds up in "
            "secret, so there is no sum for Skellam noise; use Gaussian()"
        )
    event = plan.event
    if event.known or event.everyone:
        return
    where = "with Skellam noise, where amplification is claimed"
    if event.sampling != "poisson":
        raise ValueError(
            f"sampling is {event.sampling!r} {where}: use 'poisson', 'none', or trust="
            "'distributed', which claims none"
        )
    if plan.cap is not None:
        raise ValueError(f"cap is {plan.cap} {where}: leave it out, or use Gaussian()")
    if plan.adjacency == "replace-one":
        raise ValueError(
            f"adjacency is 'replace-one' {where}: use 'add-or-remove' or 'zero-out', or Gaussian()"
        )


class NoisyContribution:
    """A client's half under secure aggregation: what it puts into the protocol.

    Guarantee: the clipped and weighted update, rounded, has at most the norm S that the plan's
    noise is made for, whatever the update holds; and the client's share of the noise is in the
    vector before it leaves. The vector alone hides nothing: that is the protocol's part.

    Parameters
    ----------
    plan : PrivacyPlan
        The plan that was accounted: distributed trust.
    like : update, module or Layout
        The structure of an update.
    clip : float or Clip
        C, or a flat clip.
    noise : Skellam
        With a `rotation_seed`, the server's, and without a generator: what comes again at a client
        no statement of the server could tell.
    weight_cap : float, optional
        A client counts min(weight, cap) times; None: once.

    Raises
    ------
    ValueError
        For settings that the plan does not account for.

    Examples
    --------
    A whole round: 30 clients, of whom one disappears before it uploads and one after. The sum
    modulo 2^bits is all that the server gets.

    >>> import fldp
    >>> from fldp.mechanism.collection import Collection
    >>> from fldp.mechanism.secagg import Round, Rules
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=1, clients=30,
    ...                       trust="distributed", min_survivors=24, colluders=2)
    >>> noise = Skellam(rotation_seed=1)
    >>> client = NoisyContribution(plan, torch.zeros(4), noise=noise)
    >>> vectors = np.array([client.encode(torch.full((4,), 0.5)) for _ in range(30)])
    >>> protocol = Round(Rules.for_plan(plan, 30, client.grid))
    >>> total = protocol.run(vectors, no_upload=[3], no_answer=[7])
    >>> server = Collection(plan, torch.zeros(4), noise=noise)
    >>> server.receive_sum(total, uploads=len(protocol.uploads))
    >>> bool((server.release().mean - 0.5 * 29 / 30).abs().max() < 0.2)
    True
    """

    def __init__(
        self,
        plan: PrivacyPlan,
        like: object,
        clip: float | Clip = 1.0,
        *,
        noise: Skellam,
        weight_cap: float | None = None,
    ) -> None:
        if not isinstance(noise, Skellam):
            raise ValueError(f"noise is {shown(noise)}: give Skellam(rotation_seed=...)")
        check_plan(plan)
        if plan.trust != "distributed":
            raise ValueError(
                f"trust is {plan.trust!r}: a client adds its share under 'distributed' alone"
            )
        if noise.rotation_seed is None:
            raise ValueError(
                "noise has no rotation_seed: give a public number, the same as the server's"
            )
        if noise.reproducible:
            raise ValueError(
                "noise has a generator: a client's share must not come again, and the server's "
                "statement would not say that it does; leave the generator out"
            )
        self._half = Contribution(like, clip, weight_cap=weight_cap)
        noise.check_clip(self._half.clip)
        size = self._half.layout.total
        noise.events(plan, 1, size)
        self.grid = noise.grid(plan, size)
        norm = self._half.clip.norm * (weight_cap or 1.0)
        self._encoder = Encoder(self.grid, norm, noise.rotation(size))

    def encode(self, update: object, weight: object = None) -> NDArray[np.int64]:
        """One client's vector, for one round.

        Parameters
        ----------
        update
            In the structure of `like`, or flat (d,).
        weight
            How often the client counts, up to the cap; None is once.

        Returns
        -------
        array
            (D,), int64, each from 0 to 2^bits - 1; D is the power of two above d.

        Raises
        ------
        ValueError
            For another structure: that is a fault of the client's own code.
        """
        message = self._half.encode(update, weight)
        # A key of its own for every call: neither threads nor forked processes share noise.
        words = lattice.Words()
        steps = self._encoder.steps(message.vector.cpu()[None], words)[0]
        return self._encoder.wrapped(steps + self._encoder.noise(1, words))
