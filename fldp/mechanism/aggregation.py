"""The one place where private data becomes a release: a client's half and a server's half in one.

Each contribution is brought within C (:mod:`fldp.mechanism.contribution`), and stays so when it is
added up in floating point (:mod:`fldp.mechanism.summation`); the sum is noised and released once
(:mod:`fldp.mechanism.collection`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from fldp._checks import shown
from fldp._moved import renamed
from fldp.mechanism.clipping import Clip
from fldp.mechanism.collection import Collection
from fldp.mechanism.intake import as_numbers, check_equal, check_plan
from fldp.mechanism.noise import Gaussian, as_noise
from fldp.mechanism.release import Release

if TYPE_CHECKING:
    from fldp.accounting.events import RoundEvent
    from fldp.plan import PrivacyPlan
    from fldp.plan.ledger import Ledger

# A tile of rows stays in cache between the pass for its norms and the pass for its sum, and has
# rows enough that reading and writing the sum once a tile costs little beside them.
_FEW, _MANY = 2, 512
_TILE = 1 << 20
# Updates that come one by one wait until so many can be added at once, or so many tiles are full;
# of long ones fewer are as fast, and need less memory.
_WAITING, _TILES = 64, 2
_LONG, _WAITING_LONG = 1 << 15, 16
# From so many coordinates on, and so many for each tensor, a copy costs more than calls of torch.
_APART, _APART_EACH = 1 << 17, 1 << 14


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
    like : update, module, flat tensor (d,) or Layout
        The expected structure.
    plan : PrivacyPlan
        The plan that was accounted.
    clip : float or Clip
        A clip norm C, or a clip; one that asks a query is moved once, after the release.
    weight_cap : float, optional
        A public number in [1e-9, 1e9]; a client counts min(weight, cap) times. None: every client
        counts once, and weights are refused.
    weight_total : float, optional
        W, the public sum of min(weight, cap) over all N clients. None: m·cap stands in.
    noise : Gaussian, optional
        The run's noise, which lives as long as the run: `Gaussian()`, the default, or
        `DiscreteGaussian()`.
    generator : torch.Generator, optional
        The same as `noise=Gaussian(generator)`: reproducible noise. Not beside `noise`.
    strict : bool
        See above.

    Raises
    ------
    ValueError
        At once, for settings that the plan does not account for.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=1000)
    >>> aggregator = PrivateAggregator(torch.zeros(4), plan, clip=1.0)
    >>> for number in range(1000):
    ...     aggregator.add(torch.full((4,), 0.5), client=number)
    >>> bool((aggregator.release().mean - 0.5).abs().max() < 0.1)
    True
    """

    @renamed(mechanism="noise")
    def __init__(
        self,
        like: object,
        plan: PrivacyPlan,
        clip: float | Clip = 1.0,
        *,
        weight_cap: float | None = None,
        weight_total: float | None = None,
        noise: Gaussian | None = None,
        generator: torch.Generator | None = None,
        strict: bool = True,
    ) -> None:
        self._server = Collection(
            plan,
            like,
            clip,
            weight_cap=weight_cap,
            weight_total=weight_total,
            noise=as_noise(noise, generator),
        )
        self._client = self._server.half
        self.plan = plan
        self.strict = strict
        empty = self._client.layout.empty
        total = self._client.layout.total
        self._step = self._server.tile(max(_FEW, min(_MANY, _TILE // total)))
        most = _WAITING if total < _LONG else _WAITING_LONG
        size = self._server.tile(max(1, min(most, _TILES * _TILE // total)))
        # Rows that came one by one, and wait to be added together.
        self._held = empty.new_empty(size, total)
        self._held_weights = self._held.new_ones(size, dtype=torch.float64)
        self._waiting = 0
        # Large updates of one's own code are added where they lie.
        large = total >= max(_APART, _APART_EACH * len(self._client.layout.names))
        self._in_parts = strict and large and self._server.takes_parts

    @property
    def event(self) -> RoundEvent:
        """What the accountant composes for the release."""
        return self._server.event

    @property
    def denominator(self) -> float:
        """What the noisy sum is divided by, a public number."""
        return self._server.denominator

    def __reduce__(self) -> NoReturn:
        raise ValueError("an aggregator is not copied or pickled: a copy could release again")

    def add(self, update: object, weight: object = None, client: object = None) -> None:
        """Add one client's update, or a matrix (c, d) with one client per row.

        Parameters
        ----------
        update
            In the structure of `like`, or flat (d,), or a matrix (c, d).
        weight
            A number, or c of them for a matrix; None counts as 1.
        client
            An identifier, or a sequence of c of them for a matrix; None is not checked.

        Raises
        ------
        ValueError
            After the release, beyond the number of clients the plan allows, for a weight without a
            public cap, and for a client that is in the round already; nothing is added then, and
            the identifier stays free.
        """
        with self._server.lock:
            self._server.check_open()
            if weight is not None and self._client.weight_cap is None:
                raise ValueError("weights change the sensitivity: give a public weight_cap")
            rows, weights, problem = self._read(update, weight)
            again = self._server.admit(client, len(rows) if isinstance(rows, Tensor) else 1)
            if again is not None and self.strict:
                raise ValueError(again)
            problem = again or problem
            if problem is None:
                self._take(rows, weights)
            else:
                self._server.refuse(problem)

    def _read(self, update: object, weight: object) -> tuple[Any, Any, str | None]:
        """Rows (c, d) or parts, weights (c,), and None; or, if not `strict`, what is wrong."""
        try:
            layout = self._client.layout
            if self._in_parts and not isinstance(update, (Tensor, np.ndarray)):
                return layout.parts(update), self._client.weights(weight, 1), None
            rows = layout.rows(update, self._held[self._waiting], not self.strict)
            return rows, self._client.weights(weight, rows.shape[0]), None
        except Exception as error:
            if self.strict:
                raise
            return None, None, str(error)

    def _take(self, rows: Tensor | list[Tensor], weights: Tensor) -> None:
        """Add rows up: a single one waits in the tile, a matrix is cut into tiles.

        What a client sent is always copied: it may lie in memory that the client still writes to,
        and must not change between the pass for its norm and the pass for its sum. One's own code
        (`strict`) does not write to a matrix, or to the parts of a large update, meanwhile.
        """
        size = self._held.shape[0]
        if not isinstance(rows, Tensor):
            one = self._client.bound_parts(rows, weights)
            if one is not None:
                # In the order in which they came.
                self._flush()
                self._server.add_parts(one)
                return
            rows = torch.cat(rows).unsqueeze(0)
        if rows.shape[0] == 1 and (size > 1 or not self.strict):
            slot = self._held[self._waiting]
            if rows.data_ptr() != slot.data_ptr():
                slot.copy_(rows[0])
            if self._client.weight_cap is not None:
                self._held_weights[self._waiting] = weights[0]
            self._waiting += 1
            if self._waiting == size:
                self._flush()
            return
        for tile, part in zip(rows.split(self._step), weights.split(self._step), strict=True):
            self._server.add(self._client.bound(tile, part))

    def _flush(self) -> None:
        """Add up the rows that wait in the tile."""
        count = self._waiting
        self._waiting = 0
        if count:
            held = self._client.bound(self._held[:count], self._held_weights[:count])
            self._server.add(held)

    def release(self, ledger: Ledger | None = None, round: int | None = None) -> Release:
        """The noisy mean of everything added; the aggregator is finished afterwards.

        Parameters
        ----------
        ledger : Ledger, optional
            Its account gets the event on disk before the release exists.
        round : int, optional
            The number of the round, for the ledger.

        Returns
        -------
        Release

        Raises
        ------
        ValueError
            On a second call, when fewer than the plan's survivors took part, and when the release
            would take the ledger beyond the plan's (ε, δ).
        """
        with self._server.lock:
            self._server.check_open()
            self._flush()
            return self._server.release(ledger, round)


@renamed(mechanism="noise")
def aggregate(
    updates: Any,
    plan: PrivacyPlan,
    clip_norm: float | Clip = 1.0,
    *,
    weights: Sequence[float] | None = None,
    weight_cap: float | None = None,
    weight_total: float | None = None,
    noise: Gaussian | None = None,
    generator: torch.Generator | None = None,
    ledger: Ledger | None = None,
    round: int | None = None,
    like: object = None,
    strict: bool = True,
) -> Release:
    """The private mean of one round's updates: clipped, summed, noised, averaged.

    Parameters
    ----------
    updates : Tensor, array or iterable
        A matrix (c, d) with one client per row, or an iterable of updates: state dicts, lists of
        tensors, flat tensors, numpy arrays, or (before, after) pairs of modules.
    plan : PrivacyPlan
        The plan that was accounted.
    clip_norm : float or Clip
        C, or a clip.
    weights : sequence of float, optional
        c numbers. Without a public `weight_cap` they must be equal and positive, and the mean is
        the plain one.
    weight_cap, weight_total, noise, generator, strict
        As for `PrivateAggregator`.
    ledger, round : Ledger, int, optional
        The event is in this ledger, on disk, before the release exists.
    like : update or module, optional
        The structure, needed when the cohort may be empty: an empty one still releases noise.

    Returns
    -------
    Release

    Raises
    ------
    ValueError
        As `PrivateAggregator` does.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=1000)
    >>> release = aggregate(torch.ones(1000, 4) / 2, plan, clip_norm=1.0)
    >>> bool((release.mean - 0.5).abs().max() < 0.1)
    True
    """
    check_plan(plan)
    _check_several(updates)
    each = None if weights is None else _usable(weights, updates, weight_cap)
    batches: Iterable[tuple[Any, Any]]
    if isinstance(updates, (Tensor, np.ndarray)):
        if like is None:
            like = updates[0] if len(updates) else np.zeros(updates.shape[1:])
        batches = [(updates, each)]
    elif each is not None:
        batches = zip(updates, each, strict=True)
    else:
        batches = ((update, None) for update in updates)
    noise = as_noise(noise, generator)

    def started(structure: object) -> PrivateAggregator:
        return PrivateAggregator(
            structure,
            plan,
            clip_norm,
            weight_cap=weight_cap,
            weight_total=weight_total,
            noise=noise,
            strict=strict,
        )

    aggregator = None if like is None else started(like)
    for update, weight in batches:
        aggregator = aggregator or started(update)
        aggregator.add(update, weight)
    if aggregator is None:
        raise ValueError("no updates: pass like= so that the release knows its structure")
    return aggregator.release(ledger, round)


def _check_several(updates: object) -> None:
    """ValueError for what cannot be the updates of several clients."""
    one = isinstance(updates, (str, bytes, Mapping)) or not isinstance(updates, Iterable)
    if one or (isinstance(updates, (Tensor, np.ndarray)) and updates.ndim == 0):
        raise ValueError(
            f"updates is {shown(updates)}: give one update for each client, in a list, or as the "
            "rows of a matrix"
        )


def _usable(weights: Any, updates: Any, cap: float | None) -> list[float] | None:
    """A number for each update, or None where all are equal and nothing caps them."""
    each = as_numbers(weights)
    if hasattr(updates, "__len__") and len(updates) != len(each):
        raise ValueError(f"{len(each)} weights for {len(updates)} updates")
    if cap is not None:
        return each
    check_equal(each)
    return None
