"""The one place where private data becomes a release: intake, clip, sum, noise, mean.

Rounding. Each contribution is within C in exact arithmetic (see `clipping`); adding them up in
float32 then rounds like any sum. `DiscreteGaussian` sums integers and has no such rounding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp.clipping import AdaptiveClip, Clip, FlatClip, PerLayerClip, bounded_rows
from fldp.noise import Gaussian, gaussian_
from fldp.parameters import Layout

if TYPE_CHECKING:
    from fldp.accounting import Event
    from fldp.plan import PrivacyPlan

# A tile of rows stays in cache between the pass for its norms and the pass for its sum, and has
# rows enough that reading and writing the sum once a tile costs little beside them.
_FEW, _MANY, _TILE = 2, 512, 1 << 20


@dataclass(frozen=True, repr=False)
class PrivateDiagnostics:
    """What the server saw in the clear. NOT for release: nothing in it was noised."""

    norms: list[float]
    clipped_fraction: float
    malformed: int
    count: int
    first_problem: str | None = None

    def __repr__(self) -> str:
        return "PrivateDiagnostics(<not for release>)"


@dataclass(frozen=True)
class Release:
    """What leaves the server: the noisy mean, and facts that cost nothing or are paid for.

    `mean` has the structure of the updates; `noise_std` is that of each of its coordinates. `event`
    is what the accountant composes. `unclipped` is the noised fraction within C that an adaptive
    clip paid for. `reproducible`: the caller's generator made the noise, its seed can remove it.
    """

    mean: Any
    noise_std: float
    denominator: float
    event: Event
    clip_norm: float
    reproducible: bool
    unclipped: float | None = None
    private: PrivateDiagnostics = field(repr=False, kw_only=True)


class PrivateAggregator:
    """Clip, sum and noise the updates of one round, one at a time: memory O(d), one release.

    Guarantee: the release is the output of `plan.event` under the plan's adjacency and trust model,
    whatever values the clients send. A NaN, an infinity or an unusable weight contributes exactly
    zero and is counted in `release.private`; it never aborts the round, because an abort would
    itself depend on private data. The noise depends on nobody's data and the denominator is public:
    m, m·cap with weights, or q·W with a public `weight_total` W. Under local and distributed trust
    this class plays the clients' part as well: each adds its own noise, or its share of it.

    `strict` decides about structure. True, for updates from your own code: wrong names, shapes or
    types raise. False, for updates that clients sent: they count as malformed and contribute zero,
    and a matrix of many rows does too, because one sender is one client.

    Parameters
    ----------
    like : an update, a module, or a flat tensor (d,) with the expected structure.
    plan : the plan that was accounted.
    clip : a clip norm C, or a clip; an `AdaptiveClip` is moved once, after the release.
    weight_cap, weight_total : a client counts min(weight, cap) times; W sums that over everyone.
    generator : a torch generator for reproducible noise; None for cryptographic noise.
    mechanism : `Gaussian()` or `DiscreteGaussian()`.
    """

    def __init__(
        self,
        like: Any,
        plan: PrivacyPlan,
        clip: float | Clip = 1.0,
        *,
        weight_cap: float | None = None,
        weight_total: float | None = None,
        generator: torch.Generator | None = None,
        mechanism: Gaussian | None = None,
        strict: bool = True,
    ) -> None:
        for value in (weight_cap, weight_total):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"give weights a positive public number, not {value!r}")
        if weight_total is not None and weight_cap is None:
            raise ValueError("weight_total is a sum of capped weights: give weight_cap as well")
        self.plan, self.strict = plan, strict
        self._owner = clip if isinstance(clip, Clip) else FlatClip(clip)
        # A private copy: the C that clips is the C that noises, whatever happens to the original.
        self._clip = copy.deepcopy(self._owner)
        self._layout = Layout(like)
        if isinstance(self._clip, PerLayerClip):
            self._clip.split(self._layout.names)
        self._mechanism = Gaussian() if mechanism is None else mechanism
        self._cap, self._generator = weight_cap, generator
        self.denominator = float(plan.denominator) * (weight_cap or 1.0)
        if weight_total is not None:
            self.denominator = float(plan.sampling_rate) * weight_total
        z, self._bit_noise = plan.noise_multiplier, 0.0
        if isinstance(self._clip, AdaptiveClip):
            if plan.trust == "local":
                raise ValueError("adaptive clipping needs a noised sum of bits: not local trust")
            z, self._bit_noise = self._clip.noise_split(z, plan.denominator)
        self._std = z * self._clip.norm * (weight_cap or 1.0)
        ran = (z**-2 + (2 * self._bit_noise) ** -2) ** -0.5 if self._bit_noise else z
        self.event = self._mechanism.event(plan, ran, self._layout.total)
        if not math.isclose(ran, plan.event.noise_multiplier, rel_tol=1e-9):
            raise ValueError(f"the plan accounts for z = {plan.event.noise_multiplier}, not {ran}")
        self._sum = self._mechanism.start(self._layout.total, self._layout.empty)
        # Per tile: norms, clip factors, whether finite. Per malformed structure: a count.
        self._log: list[tuple[Tensor, Tensor, Tensor]] = []
        self._count = self._waiting = self._misshapen = 0
        self._released = False
        self._step = max(_FEW, min(_MANY, _TILE // self._layout.total))
        size = max(1, min(16, 4 * _TILE // self._layout.total))
        self._held = self._layout.empty.new_empty(size, self._layout.total)
        self._held_weights = self._held.new_zeros(size, dtype=torch.float64)
        self._problem: str | None = None
        self._seen: set[Any] = set()

    def add(self, update: Any, weight: Any = None, client: Any = None) -> None:
        """Add one client's update, or a matrix (c, d) with one client per row.

        `weight` is a number, or c of them for a matrix; `client` an identifier, or c of them: the
        same client twice in a round is refused. Raises ValueError after the release, beyond the
        number of clients the plan allows, and for a weight without a public cap.
        """
        if self._released:
            raise ValueError("this aggregator has released: start a new one for the next round")
        if weight is not None and self._cap is None:
            raise ValueError("weights change the sensitivity: give a public weight_cap")
        for name in [] if client is None else np.atleast_1d(np.asarray(client)).tolist():
            if name in self._seen:
                raise ValueError(f"client {name!r} is in this round already: it may count once")
            self._seen.add(name)
        try:
            rows = self._layout.rows(update, self._held[self._waiting])
            if not self.strict and rows.shape[0] != 1:
                raise ValueError(f"one client sent {rows.shape[0]} updates")
            weights = self._weights(weight, rows.shape[0])
        except Exception as error:
            if self.strict:
                raise
            self._room(1)
            self._problem = self._problem or str(error)
            self._misshapen += 1
            return
        self._room(rows.shape[0])
        step, slot = len(self._held), self._held[self._waiting]
        if rows.shape[0] == 1 < step:
            if rows.data_ptr() != slot.data_ptr():
                slot.copy_(rows[0])
            self._held_weights[self._waiting] = weights[0]
            self._waiting += 1
            if self._waiting == step:
                self._flush()
            return
        for tile, part in zip(rows.split(self._step), weights.split(self._step), strict=True):
            self._tile(tile, part)

    def _room(self, count: int) -> None:
        limit = self.plan.clients if self.plan.cap is None else self.plan.cap
        if self.plan.sampling == "fixed":
            limit = round(self.plan.cohort)
        if self._count + count > limit:
            raise ValueError(f"the plan accounts for at most {limit} clients in a round")
        self._count += count

    def _flush(self) -> None:
        """Add up the rows that wait in the tile."""
        count, self._waiting = self._waiting, 0
        if count:
            self._tile(self._held[:count], self._held_weights[:count])

    def _weights(self, weight: Any, count: int) -> Tensor:
        values = torch.as_tensor(1.0 if weight is None else weight, dtype=torch.float64)
        values = values.detach().to(self._sum.device).reshape(-1)
        if values.numel() not in (1, count):
            raise ValueError(f"{values.numel()} weights for {count} clients")
        return values.expand(count)

    def _tile(self, rows: Tensor, weights: Tensor) -> None:
        rows, norms, finite = bounded_rows(rows)
        factors = scales = self._clip.factors(rows, norms, self._layout.slices)
        if self._cap is not None:
            usable = torch.isfinite(weights) & (weights >= 0)
            finite = finite & usable
            factors = factors * torch.where(usable, weights, 0.0).clamp_(max=self._cap)[:, None]
        self._log.append((norms, scales, finite))
        if factors.shape[1] == 1:
            self._mechanism.accumulate_(self._sum, rows, factors[:, 0], self._std)
            return
        for (_, start, stop), column in zip(self._layout.slices, factors.unbind(1), strict=True):
            part = self._sum[start:stop]
            self._mechanism.accumulate_(part, rows[:, start:stop], column, self._std)

    def release(self) -> Release:
        """The noisy mean of everything added; the aggregator is finished afterwards.

        Raises ValueError on a second call, and when fewer than the plan's survivors took part.
        """
        if self._released:
            raise ValueError("released already: a second release of the same data is not accounted")
        plan, spread = self.plan, 1.0
        if plan.trust != "central":
            minimum = 1 if plan.trust == "local" else plan.survivors or math.inf
            if self._count < minimum and plan.trust == "distributed":
                raise ValueError(f"fewer clients than the stated minimum of {minimum}: no release")
            spread = math.sqrt(self._count / minimum)
        self._flush()
        self._released = True
        total = self._mechanism.finish(self._sum, self._std, self._generator, spread)
        private, bits = self._diagnostics()
        unclipped = None
        if isinstance(self._owner, AdaptiveClip):
            noisy = gaussian_(bits, self._bit_noise * spread, self._generator)
            unclipped = self._owner.observe(float(noisy), plan.denominator)
        return Release(
            mean=self._layout.restore(total.div_(self.denominator)),
            noise_std=self._std * spread / self.denominator,
            denominator=self.denominator,
            event=self.event,
            clip_norm=self._clip.norm,
            reproducible=self._generator is not None,
            unclipped=unclipped,
            private=private,
        )

    def _diagnostics(self) -> tuple[PrivateDiagnostics, Tensor]:
        """What is not for release, and the raw sum of half-shifted bits."""
        parts: Any = zip(*self._log, strict=True)
        if not self._log:
            parts = [[torch.zeros(0)], [torch.zeros(0, 1)], [torch.zeros(0)]]
        norms, scales, finite = (torch.cat([x.cpu() for x in part]).double() for part in parts)
        within = (scales.amin(dim=1) >= 1).double()
        bad, clipped = int((1 - finite).sum()), int((finite * (1 - within)).sum())
        private = PrivateDiagnostics(
            norms.tolist(), clipped / max(1, self._count), bad + self._misshapen, self._count,
            self._problem,
        )  # fmt: skip
        return private, (finite * (within - 0.5)).sum()


def aggregate(
    updates: Any,
    plan: PrivacyPlan,
    clip_norm: float | Clip = 1.0,
    *,
    weights: Sequence[float] | None = None,
    like: Any = None,
    **options: Any,
) -> Release:
    """The private mean of one round's updates: clipped, summed, noised, averaged.

    `updates` is a matrix (c, d) with one client per row, or an iterable of updates: state dicts,
    lists of tensors, flat tensors, numpy arrays, or (before, after) pairs of modules. `like` gives
    the structure when the cohort may be empty; an empty cohort still releases noise. `options` are
    those of `PrivateAggregator`.

    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=1000)
    >>> release = aggregate(torch.ones(1000, 4) / 2, plan, clip_norm=1.0)
    >>> bool((release.mean - 0.5).abs().max() < 0.1)
    True
    """
    if weights is not None and options.get("weight_cap") is None:
        if len({float(w) for w in weights}) > 1:
            raise ValueError("unequal weights need a public weight_cap: it sets the noise")
        weights = None
    if weights is not None:
        weights = [float(w) for w in weights]
        if hasattr(updates, "__len__") and len(updates) != len(weights):
            raise ValueError(f"{len(weights)} weights for {len(updates)} updates")
    batches: Iterable[Any] = ((update, None) for update in updates)
    if isinstance(updates, (Tensor, np.ndarray)):
        like = np.zeros(updates.shape[1:]) if like is None and len(updates) == 0 else like
        like = updates[0] if like is None else like
        batches = [(updates, weights)]
    elif weights is not None:
        batches = zip(updates, weights, strict=True)
    aggregator = None if like is None else PrivateAggregator(like, plan, clip_norm, **options)
    for update, weight in batches:
        aggregator = aggregator or PrivateAggregator(update, plan, clip_norm, **options)
        aggregator.add(update, weight)
    if aggregator is None:
        raise ValueError("no updates: pass like= so that the release knows its structure")
    return aggregator.release()
