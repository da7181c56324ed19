"""Bounding one client's contribution: every clip carries its own sensitivity.

Rounding. Norms are taken over blocks of 512 coordinates in float32 and combined in float64. A sum
of 512 squares in any order is right to a factor 1 ± 513u, u = 2^-24, so each norm is right to
1 ± 258u < 1 ± 2^-15.9; rounding a scale to float32 adds 2u. Scaling to C (1 - 2^-15) instead of C
therefore keeps the norm of (stored scale) x (update), taken in exact arithmetic, at or below C.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_BLOCK = 512
_MARGIN = 1.0 - 2.0**-15
_HUGE = 2.0**40
_SMALLEST, _LARGEST = 1e-9, 1e9


def as_tensor(value: Any) -> Tensor:
    """`value` as a dense, detached float32 or float64 tensor; ValueError when it cannot be one."""
    try:
        if not isinstance(value, Tensor):
            array = np.asarray(value)
            if array.dtype.kind not in "biuf":
                raise TypeError(f"dtype {array.dtype} is not a real number type")
            wide = array.dtype.kind == "f" and array.dtype.itemsize >= 8
            value = torch.from_numpy(np.array(array, dtype=np.float64 if wide else np.float32))
        value = value.detach()
        if value.is_complex():
            raise TypeError("complex numbers are not model parameters")
        if value.layout != torch.strided:
            value = value.to_dense()
        return value if value.dtype in (torch.float32, torch.float64) else value.float()
    except Exception as error:
        raise ValueError(f"not a numeric tensor: {error}") from error


def unpack(update: Any) -> tuple[list[str], list[Any], Callable[[list[Tensor]], Any]]:
    """Names and leaves of an update, and the function that puts such leaves back together.

    An update is a tensor or array, a mapping of names to tensors (a state dict), a list of tensors,
    or a pair of modules (before, after) whose trainable parameters are subtracted.
    """
    if isinstance(update, Mapping):
        names = [str(k) for k in update]
        keys = list(update)
        return names, list(update.values()), lambda t: dict(zip(keys, t, strict=True))
    if isinstance(update, list | tuple):
        if len(update) == 2 and all(isinstance(m, torch.nn.Module) for m in update):
            old = {n: p for n, p in update[0].named_parameters() if p.requires_grad}
            new = {n: p for n, p in update[1].named_parameters() if p.requires_grad}
            if list(old) != list(new) or any(old[n].shape != new[n].shape for n in old):
                raise ValueError("the two modules of a (before, after) pair differ in structure")
            return unpack({n: new[n].detach() - old[n].detach() for n in old})
        return [f"[{i}]" for i in range(len(update))], list(update), list
    return [""], [update], lambda t: t[0]


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms of the rows of a float (c, d) matrix, float64 of shape (c,)."""
    whole = rows.shape[1] // _BLOCK * _BLOCK
    squares = rows.new_zeros(rows.shape[0], dtype=torch.float64)
    if whole:
        blocks = rows[:, :whole].unflatten(1, (-1, _BLOCK))
        squares += torch.linalg.vector_norm(blocks, dim=-1).double().square_().sum(1)
    if whole < rows.shape[1]:
        squares += torch.linalg.vector_norm(rows[:, whole:], dim=1).double().square_()
    return squares.sqrt_()


def bounded_rows(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows whose norms are safe to compute with: (rows, their norms in float64, finite).

    A row with a NaN or an infinity becomes exact zeros, its norm 0 and `finite` False. A finite
    row beyond 2^40 is scaled down to that size first: float32 squares would overflow, and a clip
    factor would be subnormal. The input is never written to.
    """
    norms = row_norms(rows)
    safe = norms <= _HUGE
    if bool(safe.all()):
        return rows, norms, torch.ones_like(safe)
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


class FlatClip:
    """Scale an update down to joint Euclidean norm C = `norm`; its direction is kept.

    Guarantee: one client's contribution to the sum has norm at most C, so the sum moves by at most
    C when a client is added, removed or zeroed out, and by at most 2C when one is replaced.

    >>> FlatClip(0.5).sensitivity("replace-one")
    1.0
    """

    def __init__(self, norm: float) -> None:
        self._norm = check_norm(norm)

    @property
    def norm(self) -> float:
        """The bound C on the joint norm of one client's contribution."""
        return self._norm

    def sensitivity(self, adjacency: str) -> float:
        """How far the sum of clipped updates moves between neighbouring cohorts."""
        factors = {"add-or-remove": 1.0, "zero-out": 1.0, "replace-one": 2.0}
        if adjacency not in factors:
            raise ValueError(f"adjacency is {adjacency!r}; choose one of {sorted(factors)}")
        return factors[adjacency] * self.norm

    def factors(self, norms: Tensor) -> Tensor:
        """Clip factors in [0, 1] for row norms of shape (c,)."""
        return (self.norm * _MARGIN / norms.clamp(min=1e-30)).clamp_(max=1.0)

    def scales(self, rows: Tensor, slices: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """Clip factors of shape (c,) for rows of shape (c, d); a non-finite row gets 0."""
        _, norms, finite = bounded_rows(rows)
        return self.factors(norms) * finite

    def state_dict(self) -> dict[str, Any]:
        return {"norm": self._norm}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._norm = check_norm(state["norm"])


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
