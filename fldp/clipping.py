"""Bounding one client's contribution: every clip carries its own sensitivity.

Rounding. Norms of blocks of at most 512 coordinates, in float32, are combined in float64. A sum of
512 squares in any order is right to a factor 1 ± 513u, u = 2^-24, so each norm is right to
1 ± 258u < 1 ± 2^-15.9; rounding a scale to float32 adds 2u. Scaling to C (1 - 2^-15) instead of C
therefore keeps the norm of (stored scale) x (update), taken in exact arithmetic, at or below C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fldp.parameters import Slices, as_tensor, unpack

_BLOCK = 512
_MARGIN = 1.0 - 2.0**-15
_HUGE = 2.0**40
_SMALLEST, _LARGEST = 1e-9, 1e9


@lru_cache
def _block(width: int) -> int:
    """At most 512 coordinates: whole vector registers, and no rest, where the width allows it."""
    fits = (size for size in range(_BLOCK, _BLOCK // 4, -16) if width % size == 0)
    return next(fits, _BLOCK)


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms of the rows of a float (c, d) matrix, float64 of shape (c,)."""
    (count, width), block = rows.shape, _block(rows.shape[1])
    whole = width // block * block
    if not whole:
        return torch.linalg.vector_norm(rows, dim=1).double()
    if whole == width and rows.is_contiguous():
        blocks = torch.linalg.vector_norm(rows.view(-1, block), dim=1).view(count, -1)
    else:
        blocks = torch.linalg.vector_norm(rows[:, :whole].unflatten(1, (-1, block)), dim=-1)
    norms = torch.linalg.vector_norm(blocks, dim=1, dtype=torch.float64)
    if whole < width:
        norms.hypot_(torch.linalg.vector_norm(rows[:, whole:], dim=1).double())
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
        row = rows[i].double()
        top = row.abs().max()
        if torch.isfinite(top):
            rows[i] = row / top * _HUGE
            norms[i] = (row / top).norm() * _HUGE
        else:
            finite[i], norms[i], rows[i] = False, 0.0, 0.0
    return rows, norms, finite


class Clip:
    """A bound on one client's contribution, and the sensitivity that follows from it."""

    norm: float

    def sensitivity(self, adjacency: str) -> float:
        """How far, in Euclidean norm, the sum of clipped updates moves between neighbours.

        C when a client is added, removed or zeroed out, 2C when one is replaced by another.
        """
        factors = {"add-or-remove": 1.0, "zero-out": 1.0, "replace-one": 2.0}
        if adjacency not in factors:
            raise ValueError(f"adjacency is {adjacency!r}; choose one of {sorted(factors)}")
        return factors[adjacency] * self.norm

    def factors(self, rows: Tensor, norms: Tensor, slices: Slices) -> Tensor:
        """Factors in [0, 1] for finite rows (c, d): (c, 1) for whole rows, (c, L) per slice."""
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

    def factors(self, rows: Tensor, norms: Tensor, slices: Slices = ()) -> Tensor:
        return _factors(norms, self.norm)[:, None]


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

    def factors(self, rows: Tensor, norms: Tensor, slices: Slices) -> Tensor:
        budgets = self.split([name for name, _, _ in slices])
        columns = [
            _factors(row_norms(rows[:, start:stop]), bound)
            for (_, start, stop), bound in zip(slices, budgets, strict=True)
        ]
        return torch.stack(columns, dim=1)


class AdaptiveClip(FlatClip):
    """A flat clip norm that follows a quantile of the update norms (Andrew et al. 2021).

    Each round also sums half-shifted bits, +1/2 for an update within C and -1/2 beyond it, with
    noise of standard deviation `count_noise` (default m/20). The shift makes the bits' sensitivity
    1/2 for presence and for clipping alike, so the updates' own multiplier z_Δ follows from
    z^-2 = z_Δ^-2 + (2 σ_b)^-2, and the round as a whole costs the plan's z: the quantile is paid.
    Afterwards C becomes C·exp(-η (b̃ - γ)); noise is always added at the C that clipped.

    While the noisy fraction b̃ stays at the same end, the step grows up to `acceleration`
    times: post-processing, free of cost, and a norm wrong by 1,000 is right in 30 rounds. With
    `acceleration` 1 the update is the published one.

    >>> z_delta, count_noise = AdaptiveClip().noise_split(1.0, cohort=100)
    >>> round(z_delta, 4), count_noise
    (1.005, 5.0)
    """

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

    def noise_split(self, z: float, cohort: float | None = None) -> tuple[float, float]:
        """(z_Δ, σ_b) for a joint multiplier z; ValueError when z ≥ 2 σ_b leaves nothing."""
        if self.count_noise is None and cohort is None:
            raise ValueError("count_noise defaults to a twentieth of the cohort: give the cohort")
        sigma = (cohort or 0.0) / 20 if self.count_noise is None else self.count_noise
        if z >= 2 * sigma:
            raise ValueError(
                f"z = {z:.4g} needs count_noise above {z / 2:.4g}, got {sigma:.4g}: the bits alone "
                "would spend more than the round may; raise count_noise or the cohort"
            )
        return (z**-2 - (2 * sigma) ** -2) ** -0.5, sigma

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


def _factors(norms: Tensor, bound: float) -> Tensor:
    return (bound * _MARGIN / norms).clamp_(max=1.0)


def check_norm(norm: float) -> float:
    """A clip norm as a float in [1e-9, 1e9]; ValueError otherwise."""
    value = float(norm)
    if not math.isfinite(value) or not _SMALLEST <= value <= _LARGEST:
        raise ValueError(f"a clip norm must lie between {_SMALLEST} and {_LARGEST}, got {norm!r}")
    return value


def clip(update: Any, norm: float = 1.0) -> tuple[Any, float]:
    """Clip one update to joint Euclidean norm at most `norm`: (clipped, original norm).

    The result has the structure of `update`. Half-precision, integer and boolean tensors come back
    in float32, because rounding a clipped value to fewer bits could exceed the bound again. A
    NaN or an infinity anywhere makes every entry exactly zero and the reported norm NaN.

    >>> clipped, before = clip(torch.tensor([3.0, 4.0]), norm=1.0)
    >>> before, bool(clipped.norm() <= 1)
    (5.0, True)
    """
    bound = check_norm(norm)
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
