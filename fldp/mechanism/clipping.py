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
from typing import Any

import torch
from torch import Tensor

from fldp import _moved
from fldp.mechanism.updates import Slices, as_tensor, unpack

_BLOCK = 512
_MARGIN = 2.0**-15
_HUGE = 2.0**40
_SMALLEST, _LARGEST = 1e-9, 1e9


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
        return torch.stack(each) if each else rows.new_zeros(0, dtype=torch.float64)
    (count, width), block = rows.shape, _block(rows.shape[1])
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


def bounded_rows(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows whose norms are safe to compute with: (rows, their norms in float64, finite).

    A row with a NaN or an infinity becomes exact zeros, its norm 0 and `finite` False. A finite
    row beyond 2^40 is scaled down to that size first: float32 squares would overflow, and a clip
    factor would be subnormal. The input is never written to.
    """
    norms = row_norms(rows)
    safe = norms <= _HUGE
    if bool(safe.all()):
        return rows, norms, safe
    rows, finite = rows.clone(), torch.ones_like(safe)
    for i in (~safe).nonzero().flatten().tolist():
        # A copy: float64 rows would otherwise be overwritten before their norm is taken.
        row = rows[i].to(torch.float64, copy=True)
        top = row.abs().max()
        if torch.isfinite(top):
            rows[i] = row / top * _HUGE
            norms[i] = (row / top).norm() * _HUGE
        else:
            finite[i], norms[i], rows[i] = False, 0.0, 0.0
    return rows, norms, finite


class Clip:
    """A bound on one client's contribution, and the sensitivity that follows from it.

    A clip answers for itself: what one client moves, what else it asks of the round, and what it
    learns from it. The defaults are those of a clip that asks nothing.
    """

    norm: float
    # How many noised coordinates of its own the clip asks of a round.
    queries: int = 0

    def sensitivity(self, adjacency: str) -> float:
        """How far, in Euclidean norm, the sum of clipped updates moves between neighbours.

        C when a client is added, removed or zeroed out, 2C when one is replaced by another.
        """
        return _per_adjacency(adjacency, 1.0, 1.0, 2.0) * self.norm

    def bit_sensitivity(self, adjacency: str) -> float:
        """How far a query of the clip's own moves while the updates move by C; 0 without one."""
        return 0.0

    def noise_split(
        self, z: float, cohort: float | None = None, adjacency: str = "add-or-remove"
    ) -> tuple[float, float]:
        """(multiplier of the updates, standard deviation of the clip's own query or 0)."""
        return z, 0.0

    def joint(self, z: float, count_noise: float, adjacency: str) -> float:
        """The multiplier that updates at `z` and the clip's own query have together."""
        if count_noise == 0:
            return z
        return 1 / math.hypot(1 / z, self.bit_sensitivity(adjacency) / count_noise)

    def check(self, names: Sequence[str]) -> None:
        """ValueError when the clip does not fit tensors of these names."""

    def observe(self, noisy_bits: float, cohort: float) -> float | None:
        """Learn from the noised query; what of it is released, None without a query."""
        return None

    def factors(
        self, rows: Tensor, norms: Tensor, slices: Slices = (), room: float = 0.0
    ) -> Tensor:
        """Factors in [0, 1] for finite rows (c, d): (c, 1) for whole rows, (c, L) per slice.

        They keep a row within C (1 - `room`), in exact arithmetic.
        """
        raise NotImplementedError

    def scales(self, rows: Tensor, slices: Slices = ()) -> Tensor:
        """Clip factors (c,) or (c, L) for any rows (c, d); a non-finite row gets 0."""
        rows, norms, finite = bounded_rows(rows)
        return (self.factors(rows, norms, slices) * finite[:, None]).squeeze(1)

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if set(state) != set(vars(self)):
            raise ValueError(f"this state has {sorted(state)}, expected {sorted(vars(self))}")
        vars(self).update(state)


class FlatClip(Clip):
    """Scale an update down to joint Euclidean norm C = `norm`; its direction is kept.

    >>> FlatClip(0.5).sensitivity("replace-one")
    1.0
    """

    def __init__(self, norm: float) -> None:
        self.norm = check_norm(norm)

    def factors(
        self, rows: Tensor, norms: Tensor, slices: Slices = (), room: float = 0.0
    ) -> Tensor:
        return _factors(norms, self.norm, room)[:, None]


class PerLayerClip(Clip):
    """Clip tensor l of an update to its own budget C_l.

    Guarantee: the joint norm of the contribution is at most C = sqrt(Σ C_l²), so noise of one
    standard deviation zC on every coordinate gives the same event as flat clipping at C.

    `norms` is a total C, split evenly into C/√L; or one budget per tensor, as a sequence in the
    order of the tensors or a mapping of their names.

    >>> PerLayerClip([3.0, 4.0]).norm
    5.0
    """

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
        """The budgets C_l in the order of `names`; ValueError when they do not match."""
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

    def check(self, names: Sequence[str]) -> None:
        self.split(names)

    def factors(
        self, rows: Tensor, norms: Tensor, slices: Slices = (), room: float = 0.0
    ) -> Tensor:
        budgets = self.split([name for name, _, _ in slices])
        columns = [
            _factors(row_norms(rows[:, start:stop]), bound, room)
            for (_, start, stop), bound in zip(slices, budgets, strict=True)
        ]
        return torch.stack(columns, dim=1)


class AdaptiveClip(FlatClip):
    """A flat clip norm that follows a quantile of the update norms (Andrew et al. 2021).

    Each round also sums half-shifted bits, +1/2 for an update within C, -1/2 beyond it and 0 for a
    malformed one, with noise of standard deviation σ_b = `count_noise`. The round as a whole costs
    the plan's z, because the updates' own multiplier z_Δ is larger: z^-2 = z_Δ^-2 + (s / σ_b)^2. So
    the quantile is paid. The bits' sensitivity s, while the updates move by C:

    - add-or-remove: 1/2. A client brings its bit or does not.
    - zero-out: 1. A zeroed client stays, with the bit +1/2 of a zero update: from -1/2 that is 1.
    - replace-one: 1/2. The bit may move by 1, while the updates move by 2C.

    Afterwards C becomes C·exp(-η (b̃ - γ)); noise is always added at the C that clipped. While the
    noisy fraction b̃ stays at the same end, the step grows up to `acceleration` times:
    post-processing, free of cost, and a norm wrong by 1,000 is right in 30 rounds. With
    `acceleration` 1 the update is the published one.

    Parameters
    ----------
    initial : the clip norm C of the first round.
    quantile : γ, the fraction of updates that should pass unclipped.
    learning_rate : η, at most 2.
    count_noise : σ_b; None is a twentieth of the expected cohort, m/20.
    acceleration : the longest step, in units of the published one, at most 10.

    >>> z_delta, count_noise = AdaptiveClip().noise_split(1.0, cohort=100)
    >>> round(z_delta, 4), count_noise
    (1.005, 5.0)
    >>> round(AdaptiveClip().noise_split(1.0, cohort=100, adjacency="zero-out")[0], 4)
    1.0206
    """

    queries = 1

    def __init__(
        self,
        initial: float = 0.1,
        quantile: float = 0.5,
        learning_rate: float = 0.2,
        count_noise: float | None = None,
        acceleration: float = 5.0,
    ) -> None:
        super().__init__(initial)
        if not 0 < quantile < 1:
            raise ValueError(f"the target quantile must lie between 0 and 1, got {quantile}")
        if not (0 < learning_rate <= 2 and 1 <= acceleration <= 10):
            raise ValueError("learning_rate must be in (0, 2] and acceleration in [1, 10]")
        if count_noise is not None and not 0 < count_noise < math.inf:
            raise ValueError(f"count_noise must be positive and finite, got {count_noise}")
        self.quantile, self.learning_rate = float(quantile), float(learning_rate)
        self.count_noise, self.acceleration, self.streak = count_noise, float(acceleration), 0

    def bit_sensitivity(self, adjacency: str) -> float:
        """How far the sum of half-shifted bits moves while the updates move by C."""
        return _per_adjacency(adjacency, 0.5, 1.0, 0.5)

    def noise_split(
        self, z: float, cohort: float | None = None, adjacency: str = "add-or-remove"
    ) -> tuple[float, float]:
        """(z_Δ, σ_b) for a joint multiplier z; ValueError when z ≥ σ_b / s leaves nothing."""
        if self.count_noise is None and cohort is None:
            raise ValueError("count_noise defaults to a twentieth of the cohort: give the cohort")
        sigma = (cohort or 0.0) / 20 if self.count_noise is None else self.count_noise
        least = z * self.bit_sensitivity(adjacency)
        if least >= sigma:
            raise ValueError(
                f"z = {z:.4g} under {adjacency!r} needs count_noise above {least:.4g}, got "
                f"{sigma:.4g}: the bits alone would spend more than the round may; raise "
                "count_noise or the cohort"
            )
        share = least / sigma
        return z / math.sqrt((1 - share) * (1 + share)), sigma

    def observe(self, noisy_bits: float, cohort: float) -> float:
        """Move C by the noised sum of half-shifted bits; returns b̃, the noisy fraction within C."""
        fraction = min(max(noisy_bits / cohort + 0.5, 0.0), 1.0)
        gap = fraction - self.quantile
        end = -1 if fraction <= self.quantile / 4 else int(fraction >= 0.75 + self.quantile / 4)
        same = end != 0 and end * self.streak >= 0
        self.streak = self.streak + end if same else end
        boost = min(float(max(1, abs(self.streak))), self.acceleration)
        moved = self.norm * math.exp(-self.learning_rate * gap * boost)
        self.norm = min(max(moved, _SMALLEST), _LARGEST)
        return fraction


def _per_adjacency(adjacency: str, added: float, zeroed: float, replaced: float) -> float:
    values = {"add-or-remove": added, "zero-out": zeroed, "replace-one": replaced}
    if adjacency not in values:
        raise ValueError(f"adjacency is {adjacency!r}; choose one of {sorted(values)}")
    return values[adjacency]


def _factors(norms: Tensor, bound: float, room: float) -> Tensor:
    return (bound * (1.0 - _MARGIN - room) / norms).clamp_(max=1.0)


def check_norm(norm: float) -> float:
    """A clip norm as a float in [1e-9, 1e9]; ValueError otherwise."""
    try:
        value = float(norm)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not _SMALLEST <= value <= _LARGEST:
        raise ValueError(f"a clip norm must lie between {_SMALLEST} and {_LARGEST}, got {norm!r}")
    return value


@_moved.keywords(norm="clip_norm")
def clip(update: Any, clip_norm: float = 1.0) -> tuple[Any, float]:
    """Clip one update to joint Euclidean norm at most `clip_norm`: (clipped, original norm).

    The result has the structure of `update`. Half-precision, integer and boolean tensors come back
    in float32, because rounding a clipped value to fewer bits could exceed the bound again. A
    NaN or an infinity anywhere makes every entry exactly zero and the reported norm NaN.

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
    factor = 1.0 if total * top <= limit else limit / total
    if factor == 1.0:
        return rebuild([t.clone() for t in tensors]), total * top
    clipped = [(t.double() / top * factor).to(t.dtype) for t in tensors]
    return rebuild(clipped), total * top
