"""A client's half of a round: what one contribution may add to the sum.

Its structure is checked, a NaN or an infinity makes it exactly zero, its norm is brought within C,
and its weight within a public cap. Nothing here knows who else came. A simulation bounds many
clients at once and hands them to the server's half, :mod:`fldp.mechanism.collection`; a deployment
runs `Contribution.encode` on the client and sends what it returns.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fldp._checks import between
from fldp.mechanism.clipping import HUGE, Clip, as_clip, bounded_rows, norm_of_parts
from fldp.mechanism.intake import check_cap
from fldp.mechanism.release import PrivateDiagnostics
from fldp.mechanism.summation import Columns
from fldp.mechanism.updates import Layout


class Seen(NamedTuple):
    """What bounding c contributions showed; private.

    Parameters
    ----------
    norms : Tensor
        (c,), as they were sent.
    scales : Tensor
        Clip factors (c,); by layers, the least of a row's.
    finite : Tensor
        Whether each was finite, and of a usable weight (c,).
    answers : Tensor
        Whether each answers a clip's question (c,): finite and not zero. A zero update answers as
        one that is not there does, so that zeroing a client out moves one half.
    """

    norms: Tensor
    scales: Tensor
    finite: Tensor
    answers: Tensor

    @classmethod
    def of_rows(cls, rows: Tensor) -> Seen:
        """Of rows (c, d) that no clip bounds."""
        _, norms, finite = bounded_rows(rows)
        return cls(norms, torch.ones_like(norms), finite, finite & (norms > 0))

    def half_bits(self) -> Tensor:
        """For each client +1 within C, -1 beyond it, 0 malformed or zero: a clip's question."""
        within = (self.scales >= 1).double()
        return self.answers.double() * (2 * within - 1)

    def counted(
        self, count: int | None = None, refused: int = 0, problem: str | None = None
    ) -> PrivateDiagnostics:
        """These contributions in numbers, with those that were refused for their structure.

        Parameters
        ----------
        count : int, optional
            How many clients took part; None: as many as contributions.
        refused : int
            How many more contributions had another structure, or a sender that had been there.
        problem : str, optional
            What was wrong with the first of these.
        """
        half_bits = self.half_bits()
        usable = int(self.finite.sum())
        return PrivateDiagnostics(
            norms=self.norms.tolist(),
            clipped_fraction=int((half_bits < 0).sum()) / max(1, usable),
            malformed=len(self.finite) - usable + refused,
            count=len(self.finite) if count is None else count,
            first_problem=problem,
            usable=usable,
            zero=int((self.finite & ~self.answers).sum()),
        )


class SeenOne(NamedTuple):
    """As `Seen`, of one contribution; private."""

    norm: float
    scale: float
    finite: bool


def joined(parts: Iterable[Seen | SeenOne]) -> Seen:
    """All that was seen in a round, in its order, on the CPU."""
    found = []
    alone: list[SeenOne] = []
    for part in parts:
        if isinstance(part, SeenOne):
            alone.append(part)
        else:
            found += [_of_each(alone), part]
            alone = []
    found.append(_of_each(alone))
    return Seen(*(torch.cat([part.cpu() for part in each]) for each in zip(*found, strict=True)))


def _of_each(each: list[SeenOne]) -> Seen:
    norms = torch.tensor([one.norm for one in each], dtype=torch.float64)
    scales = torch.tensor([one.scale for one in each], dtype=torch.float64)
    finite = torch.tensor([one.finite for one in each], dtype=torch.bool)
    return Seen(norms, scales, finite, finite & (norms > 0))


class Bounded(NamedTuple):
    """Contributions of c clients, ready to be added: each row times its factors is within C·cap.

    Parameters
    ----------
    rows : Tensor
        The updates (c, d), finite; not yet scaled, because a sum takes the factors along.
    columns : sequence of (start, stop, factors (c,))
        Consecutive ranges of coordinates with each row's factor there.
    seen : Seen
        Private: what bounding showed.
    """

    rows: Tensor
    columns: Columns
    seen: Seen


class BoundedParts(NamedTuple):
    """One client's contribution where it lies: the parts times the factor are within C·cap.

    Parameters
    ----------
    parts : list of Tensor
        The update's tensors, each flat; finite.
    factor : float
        A number of float32.
    seen : SeenOne
        Private: what bounding showed.
    """

    parts: list[Tensor]
    factor: float
    seen: SeenOne


@dataclass(frozen=True)
class Message:
    """What one client sends: a vector within C·cap, and its answer to an adaptive clip.

    Parameters
    ----------
    vector : Tensor
        The bounded update, flat (d,); exact zeros for a malformed one.
    half_bits : int
        +1 if the update was within C, -1 if it was beyond, 0 if it was malformed or zero.

    Examples
    --------
    >>> client = Contribution(torch.zeros(2), clip=1.0)
    >>> client.encode(torch.tensor([3.0, 4.0])).half_bits
    -1
    """

    vector: Tensor
    half_bits: int


class Contribution:
    """Bounds what clients contribute to one round.

    Guarantee: a contribution, times its factors in exact arithmetic, has norm at most
    C·cap·(1 - `room`), whatever was sent; a malformed one is exactly zero. It is a function of that
    client's update and weight alone, to the last bit.

    Parameters
    ----------
    like : update, module or Layout
        The structure of an update.
    clip : float or Clip
        C, or a clip; a copy is kept, so that the C of this round cannot move.
    weight_cap : float, optional
        A client counts min(weight, cap) times; None: once, and weights are refused.
    room : float
        The share of C that is left for the rounding of the sum: the server's `Collection.room`.

    Raises
    ------
    ValueError
        For a clip that does not fit the structure, and a cap or a room out of range.

    Examples
    --------
    >>> half = Contribution(torch.zeros(2), clip=1.0)
    >>> message = half.encode(torch.tensor([3.0, 4.0]))
    >>> bool(message.vector.norm() <= 1), message.half_bits
    (True, -1)
    >>> half.encode(torch.tensor([float("nan"), 4.0])).vector.tolist()
    [0.0, 0.0]
    """

    def __init__(
        self,
        like: object,
        clip: float | Clip = 1.0,
        *,
        weight_cap: float | None = None,
        room: float = 0.0,
    ) -> None:
        self.layout = Layout.of(like)
        self.clip = copy.deepcopy(as_clip(clip))
        self.clip.prepare(self.layout)
        self.weight_cap = check_cap(weight_cap)
        self.room = between("room", room)
        self._one = self.layout.empty.new_ones(1, dtype=torch.float64)

    def weights(self, weight: object, count: int) -> Tensor:
        """The weights of `count` clients, float64 (count,); ValueError unless they are numbers."""
        if weight is None:
            return self._one if count == 1 else self._one.expand(count)
        if self.weight_cap is None:
            raise ValueError("weights change the sensitivity: give a public weight_cap")
        try:
            values = torch.as_tensor(weight, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"weight is {weight!r}: give a number for each client") from error
        values = values.detach().to(self._one.device).reshape(-1)
        if values.numel() not in (1, count):
            raise ValueError(f"{values.numel()} weights for {count} clients")
        return values.expand(count)

    def bound(self, rows: Tensor, weights: Tensor) -> Bounded:
        """Bound rows (c, d) of any values, with weights (c,)."""
        rows, norms, finite = bounded_rows(rows)
        slices = self.layout.slices
        scales = self.clip.factors(rows, norms, slices, self.room)
        factors = scales
        if self.weight_cap is not None:
            usable = torch.isfinite(weights) & (weights >= 0)
            # An unusable weight makes the contribution as malformed as a NaN would.
            finite = finite & usable
            capped = torch.where(usable, weights, 0.0).clamp_(max=self.weight_cap)
            factors = scales * capped[:, None]
        # One factor for the whole row, or one for each tensor of a clip by layers.
        columns = [(0, self.layout.total, factors[:, 0])]
        if factors.shape[1] > 1:
            columns = [
                (start, stop, factor)
                for (_, start, stop), factor in zip(slices, factors.unbind(1), strict=True)
            ]
        seen = Seen(norms, scales.amin(dim=1), finite, finite & (norms > 0))
        return Bounded(rows, columns, seen)

    def bound_parts(self, parts: list[Tensor], weights: Tensor) -> BoundedParts | None:
        """Bound one update that lies in flat parts, without a copy, with weights (1,).

        None where that cannot be: for a clip that asks for more than the norm, and where a value is
        huge or not finite. `bound` a copy then.
        """
        norm = norm_of_parts(parts)
        scale = self.clip.factor(norm, self.room)
        # Not `norm > HUGE`: of a NaN that is False as well.
        if scale is None or not norm <= HUGE:
            return None
        factor = scale
        finite = True
        if self.weight_cap is not None:
            weight = float(weights)
            finite = 0 <= weight < math.inf
            factor *= min(weight, self.weight_cap) if finite else 0.0
        # Rounded as a sum rounds the factors of rows.
        rounded = float(np.float32(factor))
        return BoundedParts(parts, rounded, SeenOne(norm, scale, finite))

    def encode(self, update: object, weight: object = None) -> Message:
        """One client's message.

        Parameters
        ----------
        update
            In the structure of `like`, or flat (d,).
        weight
            How often the client counts, up to the cap; None is once.

        Returns
        -------
        Message

        Raises
        ------
        ValueError
            For another structure: that is a fault of the client's own code.
        """
        held = self.layout.empty.new_empty(self.layout.total)
        rows = self.layout.rows(update, held, one=True)
        bounded = self.bound(rows, self.weights(weight, 1))
        # Scaled here: the server's factors are 1, so that the product is rounded once.
        vector = bounded.rows[0].clone()
        for start, stop, factors in bounded.columns:
            vector[start:stop] *= factors.to(vector.dtype)
        if not bool(bounded.seen.finite[0]):
            vector.zero_()
        return Message(vector, int(bounded.seen.half_bits()[0]))
