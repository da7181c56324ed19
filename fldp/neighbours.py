"""The same-randomness neighbour test: two neighbouring cohorts, the same noise, one subtraction.

With equal noise the difference of two releases is the sensitivity itself. One pair of runs shows
what statistics need thousands of runs for; and it is blind to a fault in the noise, which cancels.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp.parameters import Layout

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

CANARIES = ("orthogonal", "opposed", "huge", "spread", "nan")


def flat(release: Any) -> Tensor:
    """A release (a `Release`, a tensor, a mapping or list of tensors) as one vector."""
    mean = getattr(release, "mean", release)
    mean = release if callable(mean) else mean
    if isinstance(mean, (Tensor, np.ndarray)):
        return torch.as_tensor(mean).detach().double().reshape(-1)
    parts = mean.values() if isinstance(mean, Mapping) else mean
    return torch.cat([torch.as_tensor(p).detach().double().reshape(-1) for p in parts])


def caller(fn: Callable[..., Any]) -> Callable[[Any, int], Tensor]:
    """`fn` as a function of (updates, seed): by a `generator` argument, else the global seeds."""
    parameters = inspect.signature(fn).parameters

    def call(updates: Any, seed: int) -> Tensor:
        if "generator" in parameters:
            return flat(fn(updates, generator=torch.Generator().manual_seed(seed)))
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - foreign code may use the global generator
        return flat(fn(updates))

    return call


@dataclass(frozen=True)
class Pair:
    """Two neighbouring cohorts, rows (c, d), that differ in the last client: the canary."""

    present: Tensor
    absent: Tensor
    direction: Tensor


def pair(case: str, plan: PrivacyPlan, like: Any, clip_norm: float = 1.0, seed: int = 0) -> Pair:
    """A canary client for `plan`'s adjacency, built to break one thing:

    "orthogonal": norm C among quiet clients; "opposed": norm C against clients that all point the
    other way; "huge": 100 C; "spread": 100 C, the same norm in every tensor; "nan": 100 C in one
    coordinate, and a NaN in the last.
    """
    if case not in CANARIES:
        raise ValueError(f"canary is {case!r}: choose one of {CANARIES}")
    layout = Layout(torch.zeros(like) if isinstance(like, int) else like)
    clients, size = max(1, math.floor(plan.cohort)), layout.total
    if size < 2:
        raise ValueError(f"a canary needs a direction: the release has {size} coordinate")
    rng = torch.Generator().manual_seed(seed)
    direction = torch.randn(size, generator=rng)
    others = torch.randn(clients - 1, size, generator=rng)
    others *= 0.01 * clip_norm / others.norm(dim=1, keepdim=True).clamp(min=1e-9)
    if case == "spread":
        for _, start, stop in layout.slices:
            direction[start:stop] /= direction[start:stop].norm()
    elif case == "nan":
        direction = torch.eye(1, size)[0]
    direction /= direction.norm()
    if case == "opposed":
        others = -clip_norm * direction.expand_as(others).clone()
    canary = (clip_norm if case in ("orthogonal", "opposed") else 100 * clip_norm) * direction
    if case == "nan":
        canary[-1] = math.nan
    present = torch.cat([others, canary[None]])
    if plan.adjacency == "add-or-remove" and clients > 1:
        absent = others
    else:
        absent = present.clone()
        absent[-1] = -canary if plan.adjacency == "replace-one" else 0.0
    return Pair(present, absent, direction)


def cohort(rows: Tensor, like: Any) -> Any:
    """Rows (c, d) as a pipeline takes them: the matrix, or a list of `like`'s structure."""
    if isinstance(like, int):
        return rows
    layout = Layout(like)
    return [layout.restore(row) for row in rows]


@dataclass(frozen=True)
class NeighbourResult:
    """How far the release moved between neighbours, over how far the plan says it may move."""

    ratios: dict[str, float]
    claimed_sensitivity: float

    @property
    def worst(self) -> float:
        return max(self.ratios.values())

    @property
    def violated(self) -> bool:
        return self.worst > 1.0 + 1e-3

    def statement(self) -> str:
        case = max(self.ratios, key=lambda k: self.ratios[k])
        verdict = "a violation" if self.violated else "no violation found, which is no proof"
        return (
            f"Worst neighbours: {case!r}, {self.worst:.3g} times the claimed sensitivity "
            f"{self.claimed_sensitivity:g} of the sum: {verdict}. The noise itself is not tested."
        )


def neighbour_test(
    fn: Callable[..., Any], plan: PrivacyPlan, *, like: Any = 256, clip_norm: float = 1.0,
    seed: int = 0, repeats: int = 3,
) -> NeighbourResult:  # fmt: skip
    """Run `fn` on neighbouring cohorts with the same noise and compare with the sensitivity.

    `fn(updates)` or `fn(updates, generator=...)` returns the mean; `updates` is a matrix (c, d) for
    `like=d`, else a list with the structure `like`. Without a generator argument the global seeds
    are set. Raises ValueError when two runs on the same input differ: the noise must repeat.
    """
    call, ratios = caller(fn), dict[str, float]()
    sensitivity = clip_norm * (2.0 if plan.adjacency == "replace-one" else 1.0)
    for case in CANARIES:
        for i in range(repeats):
            two = pair(case, plan, like, clip_norm, seed + i)
            first, again, other = (
                call(cohort(r, like), seed + i) for r in (two.present, two.present, two.absent)
            )
            if not torch.equal(first.nan_to_num(), again.nan_to_num()):
                raise ValueError("the noise differs between two runs: let fn take a generator")
            moved = float((first - other).norm()) * plan.denominator / sensitivity
            ratios[case] = max(ratios.get(case, 0.0), moved if math.isfinite(moved) else math.inf)
    return NeighbourResult(ratios, sensitivity)
