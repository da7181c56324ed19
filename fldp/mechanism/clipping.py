"""Bounding one client's contribution: every clip carries its own sensitivity.

Rounding. Norms of blocks of at most 512 coordinates, in float32, are combined in float64. A sum of
512 squares in any order is right to a factor 1 ± 513u, u = 2^-24, so each norm is right to
1 ± 258u < 1 ± 2^-15.9; rounding a scale to float32 adds 2u. Scaling to C (1 - 2^-15) instead of C
therefore keeps the norm of (stored scale) x (update), taken in exact arithmetic, at or below C. A
further `room`, C · 2^-10 at most, is left for the sum, whose own rounding depends on the other
clients: `summation` says how much and why.

A row's norm and factor are functions of that row alone, bit for bit, whatever is measured beside
it: torch reduces each row by itself, and only operations that IEEE 754 rounds exactly follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fldp import _moved
from fldp._moved import renamed
from fldp.mechanism.updates import Layout, Slices, as_tensor, unpack

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# Coordinates whose squares are summed in float32 at once; the bound above counts them.
_BLOCK = 512
# What the bound above takes off C.
_MARGIN = 2.0**-15
# Beyond this norm, squares in float32 could overflow in a block of 512.
HUGE = 2.0**40
# The square root of a sum of squares, computed twice, differs by its rounding alone.
_SAME = 1e-12
# Clip norms beyond these would take products with a weight cap out of float32's range.
SMALLEST, LARGEST = 1e-9, 1e9


@lru_cache
def _block(width: int) -> int:
    """At most 512 coordinates: whole vector registers, and no rest, where the width allows it."""
    fits = (size for size in range(_BLOCK, _BLOCK // 4, -16) if width % size == 0)
    return next(fits, _BLOCK)


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms of the rows of a float (c, d) matrix, float64 of shape (c,)."""
    if rows.device.type != "cpu":
        # A graphics card may add in another order when more rows are measured at once.
        each = [torch.linalg.vector_norm(row, dtype=torch.float64) for row in rows]
        if not each:
            return rows.new_zeros(0, dtype=torch.float64)
        return torch.stack(each)
    count, width = rows.shape
    block = _block(width)
    whole = width // block * block
    if not whole:
        return torch.linalg.vector_norm(rows, dim=1).double()
    if whole == width and rows.is_contiguous():
        blocks = torch.linalg.vector_norm(rows.view(-1, block), dim=1)
        blocks = blocks.view(count, whole // block)
    else:
        blocks = torch.linalg.vector_norm(rows[:, :whole].unflatten(1, (-1, block)), dim=-1)
    norms = torch.linalg.vector_norm(blocks, dim=1, dtype=torch.float64)
    if whole < width:
        # Not hypot: its last bit depends on where in a vector register a row comes to stand.
        rest = torch.linalg.vector_norm(rows[:, whole:], dim=1).double()
        norms.square_().add_(rest.square_()).sqrt_()
    return norms


def norm_of_parts(parts: Sequence[Tensor]) -> float:
    """The joint norm of one update that lies in flat parts on the CPU, with the same bound.

    Its last bits may differ from those of `row_norms`: a block ends where a part ends.
    """
    norms = []
    for part in parts:
        size = part.shape[0]
        block = _block(size)
        rest = size % block
        if rest:
            norms.append(torch.linalg.vector_norm(part[size - rest :], dim=0, keepdim=True))
        if rest < size:
            blocks = part[: size - rest] if rest else part
            norms.append(torch.linalg.vector_norm(blocks.view(-1, block), dim=1))
    return float(torch.linalg.vector_norm(torch.cat(norms), dtype=torch.float64))


def bounded_rows(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows whose norms are safe to compute with: (rows, their norms in float64, finite).

    A row with a NaN or an infinity becomes exact zeros, its norm 0 and `finite` False. A finite
    row beyond 2^40 is scaled down to that size first: float32 squares would overflow, and a clip
    factor would be subnormal. The input is never written to.
    """
    norms = row_norms(rows)
    safe = norms <= HUGE
    if bool(safe.all()):
        return rows, norms, safe
    rows = rows.clone()
    finite = torch.ones_like(safe)
    for i in (~safe).nonzero().flatten().tolist():
        # A copy: float64 rows would otherwise be overwritten before their norm is taken.
        row = rows[i].to(torch.float64, copy=True)
        top = row.abs().max()
        if torch.isfinite(top):
            rows[i] = row / top * HUGE
            norms[i] = (row / top).norm() * HUGE
        else:
            finite[i], norms[i], rows[i] = False, 0.0, 0.0
    return rows, norms, finite


class Clip:
    """A bound on one client's contribution, and the sensitivity that follows from it.

    A clip answers for itself: what one client moves, what else it asks of the round, and what it
    learns from it. The defaults are those of a clip that asks nothing.

    Examples
    --------
    A clip of your own says by which factors rows are scaled:

    >>> class Halving(Clip):
    ...     norm = 1.0
    ...
    ...     def factors(self, rows, norms, slices=(), room=0.0):
    ...         # Exact, where a logarithm near a power of two is rounded.
    ...         halvings = torch.frexp(norms / (1 - room)).exponent.clamp(min=0)
    ...         return torch.ldexp(torch.ones_like(norms), -halvings)[:, None]
    >>> Halving().scales(torch.tensor([[3.0, 4.0], [0.5, 0.0]])).tolist()
    [0.125, 1.0]
    """

    norm: float

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Who writes `factors` anew has no factor by an older class's rule.
        if "factors" in vars(cls) and "factor" not in vars(cls):
            cls.factor = Clip.factor  # type: ignore[method-assign]

    # How many noised numbers the clip asks of a round, besides the sum of updates.
    queries = 0
    # Whether tensors of an update are scaled apart, not all by one factor.
    by_layers = False

    def sensitivity(self, adjacency: str) -> float:
        """How far, in Euclidean norm, the sum of clipped updates moves between neighbours.

        C when a client is added, removed or zeroed out, 2C when one is replaced by another.

        Parameters
        ----------
        adjacency : str
            "add-or-remove", "zero-out" or "replace-one".

        Returns
        -------
        float

        Raises
        ------
        ValueError
            For any other.
        """
        return per_adjacency(adjacency, 1.0, 1.0, 2.0) * self.norm

    def bit_sensitivity(self, adjacency: str) -> float:
        """How far a query of the clip's own moves while the updates move by C; 0 without one.

        Parameters
        ----------
        adjacency : str
            As for `sensitivity`.

        Returns
        -------
        float
        """
        return 0.0

    def noise_split(
        self, z: float, cohort: float | None = None, adjacency: str = "add-or-remove"
    ) -> tuple[float, float]:
        """How the noise of a round is shared between the updates and the clip's own query.

        Parameters
        ----------
        z : float
            The multiplier that both have together: the plan's.
        cohort : float, optional
            m, the expected cohort.
        adjacency : str
            As for `sensitivity`.

        Returns
        -------
        (float, float)
            The multiplier of the updates, and the standard deviation of the query, 0 without one.
        """
        return z, 0.0

    def joint(self, z: float, count_noise: float, adjacency: str) -> float:
        """The multiplier that updates and the clip's own query have together.

        Parameters
        ----------
        z, count_noise : float
            As `noise_split` returned them.
        adjacency : str
            As for `sensitivity`.

        Returns
        -------
        float
        """
        if count_noise == 0:
            return z
        return 1 / math.hypot(1 / z, self.bit_sensitivity(adjacency) / count_noise)

    def prepare(self, layout: Layout) -> None:
        """Get ready for updates of this structure; ValueError when the clip does not fit it.

        Parameters
        ----------
        layout : Layout
            The structure that every update has.
        """

    def observe(self, noisy_bits: float, cohort: float) -> float | None:
        """Learn from the noised query, after the release.

        Parameters
        ----------
        noisy_bits : float
            The noised sum of half-shifted bits.
        cohort : float
            m, the public denominator.

        Returns
        -------
        float or None
            What of it is released; None without a query.
        """
        return None

    def statement(self, plan: PrivacyPlan) -> str:
        """What the statement of `plan` does not say of a run with this clip; "" where it says all.

        Parameters
        ----------
        plan : PrivacyPlan
            The run's.

        Returns
        -------
        str
        """
        return ""

    def factors(
        self, rows: Tensor, norms: Tensor, slices: Slices = (), room: float = 0.0
    ) -> Tensor:
        """Factors in [0, 1] that keep rows within C (1 - `room`), in exact arithmetic.

        Parameters
        ----------
        rows : Tensor
            Finite rows (c, d).
        norms : Tensor
            Their norms (c,) in float64, from `bounded_rows`.
        slices : sequence of (str, int, int)
            The tensors of an update: name, first and last coordinate.
        room : float
            The share of C that is left for rounding in the sum.

        Returns
        -------
        Tensor
            (c, 1) for whole rows, (c, L) for L slices.
        """
        raise NotImplementedError

    def factor(self, norm: float, room: float = 0.0) -> float | None:
        """The factor of one row, bit for bit as in `factors`, if it follows from the norm alone.

        Parameters
        ----------
        norm : float
            The row's.
        room : float
            As for `factors`.

        Returns
        -------
        float or None
            None where a clip looks at more of a row, as by default.
        """
        return None

    def scales(self, rows: Tensor, slices: Slices = ()) -> Tensor:
        """Clip factors of any rows.

        Parameters
        ----------
        rows : Tensor
            (c, d), of any values; a row that is not finite gets 0.
        slices
            As for `factors`.

        Returns
        -------
        Tensor
            (c,), or (c, L) per slice.

        Raises
        ------
        ValueError
            For what is no matrix of numbers.
        """
        rows = as_tensor(rows)
        if rows.ndim != 2:
            raise ValueError(f"rows have the shape {tuple(rows.shape)}: give a matrix (c, d)")
        rows, norms, finite = bounded_rows(rows)
        return (self.factors(rows, norms, slices) * finite[:, None]).squeeze(1)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the clip."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume after `state_dict`.

        Parameters
        ----------
        state : mapping
            What it returned.

        Raises
        ------
        ValueError
            For the state of another clip.
        """
        if set(state) != set(vars(self)):
            raise ValueError(f"this state has {sorted(state)}, expected {sorted(vars(self))}")
        vars(self).update(state)


class FlatClip(Clip):
    """Scale an update down to joint Euclidean norm C; its direction is kept.

    Parameters
    ----------
    clip_norm : float
        C, between 1e-9 and 1e9; kept as `norm`.

    Raises
    ------
    ValueError
        For any other C.

    Examples
    --------
    >>> FlatClip(0.5).sensitivity("replace-one")
    1.0
    """

    def __init__(self, clip_norm: float) -> None:
        self.norm = check_norm(clip_norm)

    def prepare(self, layout: Layout) -> None:
        # It may have been set since: noise follows from it in double precision.
        self.norm = check_norm(self.norm)

    def factors(
        self, rows: Tensor, norms: Tensor, slices: Slices = (), room: float = 0.0
    ) -> Tensor:
        return flat_factors(norms, self.norm, room)[:, None]

    def factor(self, norm: float, room: float = 0.0) -> float | None:
        if norm == 0:
            return 1.0
        return min(1.0, 1 / norm * _limit(self.norm, room))


class PerLayerClip(Clip):
    """Clip tensor l of an update to its own budget C_l.

    Guarantee: the joint norm of the contribution is at most C = sqrt(Σ C_l²), so noise of one
    standard deviation zC on every coordinate gives the same event as flat clipping at C.

    Parameters
    ----------
    norms : float, sequence or mapping
        A total C, split evenly into C/√L; or one budget per tensor, in the order of the tensors or
        by their names.

    Raises
    ------
    ValueError
        For budgets that are no clip norms; and where an update has other tensors, at once.

    Examples
    --------
    >>> PerLayerClip([3.0, 4.0]).norm
    5.0
    """

    by_layers = True

    def __init__(self, norms: float | Sequence[float] | Mapping[str, float]) -> None:
        self.budgets: float | list[float] | dict[str, float]
        if isinstance(norms, Mapping):
            self.budgets = {str(k): check_norm(v) for k, v in norms.items()}
            each = list(self.budgets.values())
        elif isinstance(norms, Sequence):
            self.budgets = each = [check_norm(v) for v in norms]
        else:
            self.budgets = check_norm(norms)
            each = [self.budgets]
        self.norm = check_norm(math.hypot(*each))

    def split(self, names: Sequence[str]) -> list[float]:
        """The budgets C_l of an update's tensors.

        Parameters
        ----------
        names : sequence of str
            The tensors' names, in their order.

        Returns
        -------
        list of float

        Raises
        ------
        ValueError
            When budgets and tensors do not match.
        """
        if isinstance(self.budgets, float):
            return [self.budgets / math.sqrt(len(names))] * len(names)
        if isinstance(self.budgets, dict):
            if set(self.budgets) != set(names):
                wrong = sorted(set(self.budgets) ^ set(names))[0]
                raise ValueError(f"per-layer budgets and tensors differ, first at {wrong!r}")
            return [self.budgets[name] for name in names]
        if len(self.budgets) != len(names):
            raise ValueError(f"{len(self.budgets)} per-layer budgets for {len(names)} tensors")
        return self.budgets

    def prepare(self, layout: Layout) -> None:
        joint = math.hypot(*self.split(layout.names))
        # The budgets clip and the norm noises; either may have been set since.
        if not math.isclose(joint, self.norm, rel_tol=_SAME):
            raise ValueError(
                f"the budgets have the joint norm {joint:g}, and norm is {self.norm}: make a new "
                "PerLayerClip instead of setting one of them"
            )
        self.norm = check_norm(self.norm)

    def factors(
        self, rows: Tensor, norms: Tensor, slices: Slices = (), room: float = 0.0
    ) -> Tensor:
        budgets = self.split([name for name, _, _ in slices])
        columns = [
            flat_factors(row_norms(rows[:, start:stop]), bound, room)
            for (_, start, stop), bound in zip(slices, budgets, strict=True)
        ]
        return torch.stack(columns, dim=1)


def per_adjacency(adjacency: str, added: float, zeroed: float, replaced: float) -> float:
    values = {"add-or-remove": added, "zero-out": zeroed, "replace-one": replaced}
    if not isinstance(adjacency, str) or adjacency not in values:
        raise ValueError(f"adjacency is {adjacency!r}; choose one of {sorted(values)}")
    return values[adjacency]


def flat_factors(norms: Tensor, bound: float, room: float) -> Tensor:
    """Factors (c,) that bring rows of these norms within `bound` (1 - `room`)."""
    # As torch does `number / norms`, without its detour through Python.
    return norms.reciprocal().mul_(_limit(bound, room)).clamp_(max=1.0)


def _limit(bound: float, room: float) -> float:
    """What is left of a bound when rounding has had its share."""
    return bound * (1.0 - _MARGIN - room)


def as_clip(clip: float | Clip) -> Clip:
    """The clip that was asked for by an object, or by a clip norm."""
    return clip if isinstance(clip, Clip) else FlatClip(clip)


def check_norm(norm: float) -> float:
    """A clip norm as a float in [1e-9, 1e9]; ValueError otherwise."""
    try:
        value = float(norm)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not SMALLEST <= value <= LARGEST:
        raise ValueError(f"a clip norm must lie between {SMALLEST} and {LARGEST}, got {norm!r}")
    return value


@renamed(norm="clip_norm")
def clip(update: Any, clip_norm: float = 1.0) -> tuple[Any, float]:
    """Clip one update to joint Euclidean norm at most C: (clipped, original norm).

    The result has the structure of `update`. Half-precision, integer and boolean tensors come back
    in float32, because rounding a clipped value to fewer bits could exceed the bound again. A
    NaN or an infinity anywhere makes every entry exactly zero and the reported norm NaN.

    Parameters
    ----------
    update : Tensor, array, mapping, list, or pair of modules
        As for `aggregate`.
    clip_norm : float
        C, in [1e-9, 1e9].

    Returns
    -------
    (update, float)
        The clipped update, and the norm that it had.

    Raises
    ------
    ValueError
        For a C out of range, and for what is no update.

    Examples
    --------
    >>> clipped, before = clip(torch.tensor([3.0, 4.0]), clip_norm=1.0)
    >>> before, bool(clipped.norm() <= 1)
    (5.0, True)
    """
    bound = check_norm(clip_norm)
    _, leaves, rebuild = unpack(update)
    tensors = [as_tensor(leaf) for leaf in leaves]
    top = max((float(t.abs().max()) for t in tensors if t.numel()), default=0.0)
    if any(not bool(torch.isfinite(t).all()) for t in tensors):
        return rebuild([torch.zeros_like(t) for t in tensors]), math.nan
    if top == 0.0:
        return rebuild([t.clone() for t in tensors]), 0.0
    # Dividing by the largest entry first keeps squares of huge or tiny values in range.
    total = math.sqrt(sum(float((t.double() / top).square().sum()) for t in tensors))
    # Float64 here, so only the last rounding to the tensor's own type needs room: 2^-20 is ample.
    limit = bound * (1.0 - 2.0**-20)
    if total * top <= limit:
        return rebuild([t.clone() for t in tensors]), total * top
    factor = limit / total
    clipped = [(t.double() / top * factor).to(t.dtype) for t in tensors]
    return rebuild(clipped), total * top


if not TYPE_CHECKING:
    _OLD_NAMES = {"AdaptiveClip": "mechanism.adaptive.AdaptiveClip"}

    def __getattr__(name: str) -> Any:
        return _moved.find(__name__, name, _OLD_NAMES)
