"""The one place where private data becomes a release: intake, clip, sum, noise, mean.

Each contribution is within C (see `clipping`), and stays so when it is added up in floating point
(see `summation`). Nothing but the noisy mean depends on who came: the noise, the denominator and
the precision of the result follow from the plan; under distributed and local trust the noise level
tells the count, which is public there.
"""

from __future__ import annotations

import copy
import math
import os
import threading
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from fldp.mechanism.clipping import Clip, FlatClip, bounded_rows
from fldp.mechanism.intake import check_equal, check_weights, identifiers, listed, twice
from fldp.mechanism.noise import Gaussian, check_scale
from fldp.mechanism.release import PrivateDiagnostics, Release, keep_beside
from fldp.mechanism.summation import MOST
from fldp.mechanism.updates import Layout

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# A tile of rows stays in cache between the pass for its norms and the pass for its sum, and has
# rows enough that reading and writing the sum once a tile costs little beside them.
_FEW, _MANY, _TILE, _WAITING = 2, 512, 1 << 20, 16


class PrivateAggregator:
    """Clip, sum and noise the updates of one round, one at a time: memory O(d), one release.

    Guarantee: the release is the output of `plan.event` under the plan's adjacency and trust model,
    whatever values the clients send. A NaN, an infinity or an unusable weight contributes exactly
    zero and is counted in `release.private`; it never aborts the round, because an abort would
    itself depend on private data. The noise depends on nobody's data and the denominator is public:
    m, m·cap with weights, or q·W with a public `weight_total` W. Under local and distributed trust
    this class plays the clients' part as well: each adds its own noise, or its share of it, and how
    many did is public.

    `strict` decides about structure. True, for updates from your own code: wrong names, shapes or
    types raise. False, for updates that clients sent: they count as malformed and contribute zero;
    so does a matrix of many rows, because one sender is one client. A second update of the same
    client is malformed too, and ignored.

    Several threads may add at once, and one release is made whoever asks. An aggregator cannot be
    copied, pickled or used in a forked process: each copy could release the same data again.

    Parameters
    ----------
    like : an update, a module, or a flat tensor (d,) with the expected structure.
    plan : the plan that was accounted.
    clip : a clip norm C, or a clip; an `AdaptiveClip` is moved once, after the release.
    weight_cap : a public number in [1e-9, 1e9]; a client counts min(weight, cap) times. None: every
        client counts once, and weights are refused.
    weight_total : W, the public sum of min(weight, cap) over all N clients. None: m·cap stands in.
    generator : a torch generator for reproducible noise; None for cryptographic noise.
    mechanism : `Gaussian()`, the default, or `DiscreteGaussian()`.
    strict : see above.
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
        check_weights(weight_cap, weight_total)
        if not isinstance(generator, torch.Generator | None):
            raise ValueError(f"generator is {generator!r}: give a torch.Generator, or None")
        if not isinstance(mechanism, Gaussian | None):
            raise ValueError(f"mechanism is {mechanism!r}: give Gaussian() or DiscreteGaussian()")
        if plan.cohort > MOST / 2:
            raise ValueError(f"one sum holds at most {MOST} clients: m = {plan.cohort:g} is more")
        self.plan, self.strict = plan, strict
        self._owner = clip if isinstance(clip, Clip) else FlatClip(clip)
        # A private copy: the C that clips is the C that noises, whatever happens to the original.
        self._clip = copy.deepcopy(self._owner)
        self._layout = Layout(like)
        self._clip.check(self._layout.names)
        self._mechanism = Gaussian() if mechanism is None else mechanism
        self._cap, self._generator = weight_cap, generator
        self.denominator = float(plan.denominator) * (weight_cap or 1.0)
        if weight_total is not None:
            self.denominator = float(plan.sampling_rate) * weight_total
        self._set_noise(plan, weight_cap or 1.0)
        self._start(plan)
        self._count = self._waiting = self._misshapen = 0
        self._released = False
        self._problem: str | None = None
        self._seen: set[Hashable] = set()
        self._lock, self._process = threading.Lock(), os.getpid()

    def _set_noise(self, plan: PrivacyPlan, cap: float) -> None:
        """The standard deviations, and the event that they make; ValueError unless accounted."""
        z, self._bit_noise = self._clip.noise_split(
            plan.noise_multiplier, plan.denominator, plan.adjacency
        )
        if self._bit_noise and plan.trust == "local":
            raise ValueError("adaptive clipping needs a noised sum of bits: not local trust")
        self._std = z * self._clip.norm * cap
        ran = self._clip.joint(z, self._bit_noise, plan.adjacency)
        accounted = plan.event.noise_multiplier
        if not math.isclose(ran, accounted, rel_tol=1e-9):
            raise ValueError(f"the plan accounts for z = {accounted}, not {ran}")
        size = self._layout.total + bool(self._bit_noise)
        self.event = self._mechanism.event(plan, accounted, size)
        # Local and distributed noise grows with the root of the count.
        most = 1.0 if plan.trust == "central" else math.sqrt(_limit(plan))
        if self._bit_noise:
            check_scale(self._bit_noise * most, torch.float64)
        for std in (self._std, self._std * most):
            check_scale(std, self._layout.empty.dtype)
            check_scale(std / self.denominator, self._layout.empty.dtype)

    def _start(self, plan: PrivacyPlan) -> None:
        """The empty sum, and room for the rows that wait to be added together."""
        total, empty = self._layout.total, self._layout.empty
        self._sum = self._mechanism.start(total, empty, _likely(plan), _limit(plan))
        self._clip_room = self._mechanism.room(self._sum)
        # Per tile: norms, clip factors, whether finite. Per malformed structure: a count.
        self._log: list[tuple[Tensor, Tensor, Tensor]] = []
        self._step = self._mechanism.tile(self._sum, max(_FEW, min(_MANY, _TILE // total)))
        size = self._mechanism.tile(self._sum, max(1, min(_WAITING, 4 * _TILE // total)))
        self._held = empty.new_empty(size, total)
        self._held_weights = self._held.new_ones(size, dtype=torch.float64)
        self._one = self._held.new_ones(1, dtype=torch.float64)

    def __reduce__(self) -> NoReturn:
        raise ValueError("an aggregator is not copied or pickled: a copy could release again")

    def add(self, update: Any, weight: Any = None, client: Any = None) -> None:
        """Add one client's update, or a matrix (c, d) with one client per row.

        Raises ValueError after the release, beyond the number of clients the plan allows, for a
        weight without a public cap, and for a client that is in the round already; nothing is
        added then, and the identifier stays free.

        Parameters
        ----------
        update : in the structure of `like`, or flat (d,), or a matrix (c, d).
        weight : a number, or c of them for a matrix; None counts as 1.
        client : an identifier, or a sequence of c of them for a matrix; None is not checked.
        """
        with self._lock:
            self._check_open()
            if weight is not None and self._cap is None:
                raise ValueError("weights change the sensitivity: give a public weight_cap")
            rows, weights, problem = self._read(update, weight)
            count = 1 if rows is None else rows.shape[0]
            names = identifiers(client, count)
            again = twice(names, self._seen)
            if again is None:
                self._room(count)
                self._seen.update(names)
            else:
                problem = f"client {again!r} is in this round already: it counts once"
                if self.strict:
                    raise ValueError(problem)
            if problem is None:
                self._take(rows, weights)
            else:
                self._problem = self._problem or problem
                self._misshapen += 1

    def _read(self, update: Any, weight: Any) -> tuple[Any, Any, str | None]:
        """Rows (c, d), weights (c,), and None; or, if not `strict`, what is wrong with them."""
        try:
            rows = self._layout.rows(update, self._held[self._waiting], not self.strict)
            return rows, self._weights(weight, rows.shape[0]), None
        except Exception as error:
            if self.strict:
                raise
            return None, None, str(error)

    def _check_open(self) -> None:
        if os.getpid() != self._process:
            raise ValueError("this aggregator belongs to another process: a fork is a copy")
        if self._released:
            raise ValueError(
                "this aggregator has released: a second release of the same data is not "
                "accounted; start a new one for the next round"
            )

    def _room(self, count: int) -> None:
        limit = _limit(self.plan)
        if self._count + count > limit:
            raise ValueError(f"the plan accounts for at most {limit} clients in a round")
        self._count += count

    def _take(self, rows: Tensor, weights: Tensor) -> None:
        """Add rows up: a single one waits in the tile, a matrix is cut into tiles.

        What a client sent is always copied: it may lie in memory that the client still writes to,
        and must not change between the pass for its norm and the pass for its sum.
        """
        size = self._held.shape[0]
        if rows.shape[0] == 1 and (size > 1 or not self.strict):
            slot = self._held[self._waiting]
            if rows.data_ptr() != slot.data_ptr():
                slot.copy_(rows[0])
            if self._cap is not None:
                self._held_weights[self._waiting] = weights[0]
            self._waiting += 1
            if self._waiting == size:
                self._flush()
            return
        for tile, part in zip(rows.split(self._step), weights.split(self._step), strict=True):
            self._tile(tile, part)

    def _flush(self) -> None:
        """Add up the rows that wait in the tile."""
        count, self._waiting = self._waiting, 0
        if count:
            self._tile(self._held[:count], self._held_weights[:count])

    def _weights(self, weight: Any, count: int) -> Tensor:
        if weight is None:
            return self._one.expand(count)
        try:
            values = torch.as_tensor(weight, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"weight is {weight!r}: give a number for each client") from error
        values = values.detach().to(self._held.device).reshape(-1)
        if values.numel() not in (1, count):
            raise ValueError(f"{values.numel()} weights for {count} clients")
        return values.expand(count)

    def _tile(self, rows: Tensor, weights: Tensor) -> None:
        rows, norms, finite = bounded_rows(rows)
        slices = self._layout.slices
        factors = scales = self._clip.factors(rows, norms, slices, self._clip_room)
        if self._cap is not None:
            usable = torch.isfinite(weights) & (weights >= 0)
            finite = finite & usable
            factors = factors * torch.where(usable, weights, 0.0).clamp_(max=self._cap)[:, None]
        self._log.append((norms, scales, finite))
        columns = [(0, self._layout.total, factors[:, 0])]
        if factors.shape[1] > 1:
            ranges = ((start, stop) for _, start, stop in self._layout.slices)
            columns = [(*ends, f) for ends, f in zip(ranges, factors.unbind(1), strict=True)]
        self._mechanism.accumulate_(self._sum, rows, columns, self._std)

    def release(self) -> Release:
        """The noisy mean of everything added; the aggregator is finished afterwards.

        Raises ValueError on a second call, and when fewer than `plan.min_survivors` took part.
        """
        with self._lock:
            self._check_open()
            spread = self._spread()
            self._flush()
            self._released = True
            release = self._finish(self._std * spread, self._bit_noise * spread)
            del self._sum, self._held, self._log
            return release

    def _spread(self) -> float:
        """How much more noise arrived than the accounted noise, as a ratio; 1 for central trust."""
        if self.plan.trust == "central":
            return 1.0
        minimum = 1
        if self.plan.trust == "distributed":
            if self.plan.min_survivors is None or self._count < self.plan.min_survivors:
                raise ValueError(
                    "fewer clients than the stated minimum of "
                    f"{self.plan.min_survivors}: no release"
                )
            minimum = self.plan.min_survivors
        return math.sqrt(self._count / minimum)

    def _finish(self, std: float, bit_noise: float) -> Release:
        mean = self._mechanism.finish(self._sum, std, self.denominator, self._generator)
        private, half_bits = self._diagnostics()
        unclipped = None
        if self._bit_noise:
            bits = self._mechanism.count(half_bits, bit_noise, self._generator)
            unclipped = self._owner.observe(bits, self.plan.denominator)
        release = Release(
            mean=self._layout.restore(mean),
            noise_std=std / self.denominator,
            denominator=self.denominator,
            event=self.event,
            clip_norm=self._clip.norm,
            reproducible=self._generator is not None,
            unclipped=unclipped,
        )
        keep_beside(release, private)
        return release

    def _diagnostics(self) -> tuple[PrivateDiagnostics, int]:
        """What is not for release, and the raw sum of half-shifted bits, in halves."""
        parts: Any = zip(*self._log, strict=True)
        if not self._log:
            parts = [[torch.zeros(0)], [torch.zeros(0, 1)], [torch.zeros(0)]]
        norms, scales, finite = (torch.cat([x.cpu() for x in part]).double() for part in parts)
        within = (scales.amin(dim=1) >= 1).double()
        clipped = int((finite * (1 - within)).sum())
        private = PrivateDiagnostics(
            norms=norms.tolist(),
            clipped_fraction=clipped / max(1, self._count),
            malformed=int((1 - finite).sum()) + self._misshapen,
            count=self._count,
            first_problem=self._problem,
        )
        return private, int((finite * (2 * within - 1)).sum())


def _limit(plan: PrivacyPlan) -> int:
    """The most clients in a round that the plan accounts for, and one sum can hold."""
    limit = plan.clients if plan.cap is None else plan.cap
    if plan.sampling == "fixed":
        limit = round(plan.cohort)
    return min(limit, MOST)


def _likely(plan: PrivacyPlan) -> int:
    """How many clients a round is prepared for: all, or a Poisson cohort's m + 6√m."""
    if plan.sampling != "poisson":
        return _limit(plan)
    return min(_limit(plan), math.ceil(plan.cohort + 6 * math.sqrt(plan.cohort)))


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

    Raises ValueError as `PrivateAggregator` does.

    Parameters
    ----------
    updates : a matrix (c, d) with one client per row, or an iterable of updates: state dicts, lists
        of tensors, flat tensors, numpy arrays, or (before, after) pairs of modules.
    plan : the plan that was accounted.
    clip_norm : C, or a clip.
    weights : c numbers. Without a public `weight_cap` they must be equal and positive, and the mean
        is the plain one.
    like : the structure, needed when the cohort may be empty: an empty one still releases noise.
    options : those of `PrivateAggregator`.

    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=1000)
    >>> release = aggregate(torch.ones(1000, 4) / 2, plan, clip_norm=1.0)
    >>> bool((release.mean - 0.5).abs().max() < 0.1)
    True
    """
    if weights is not None:
        weights = listed(weights)
        if hasattr(updates, "__len__") and len(updates) != len(weights):
            raise ValueError(f"{len(weights)} weights for {len(updates)} updates")
        if options.get("weight_cap") is None:
            check_equal(weights)
            weights = None
    batches: Iterable[Any]
    if isinstance(updates, (Tensor, np.ndarray)):
        like = np.zeros(updates.shape[1:]) if like is None and len(updates) == 0 else like
        like = updates[0] if like is None else like
        batches = [(updates, weights)]
    elif weights is not None:
        batches = zip(updates, weights, strict=True)
    else:
        batches = ((update, None) for update in updates)
    aggregator = None if like is None else PrivateAggregator(like, plan, clip_norm, **options)
    for update, weight in batches:
        aggregator = aggregator or PrivateAggregator(update, plan, clip_norm, **options)
        aggregator.add(update, weight)
    if aggregator is None:
        raise ValueError("no updates: pass like= so that the release knows its structure")
    return aggregator.release()
