"""Canaries: clients made up by an auditor, whose presence the release should hide.

`pair` makes two neighbouring cohorts that differ in one canary; `Canaries` is the hook of
`fldp.train`: many canaries in one run, each there or not by its own coin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp._checks import real, whole
from fldp.mechanism.updates import Layout

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

CANARIES = ("orthogonal", "opposed", "huge", "spread", "nan")
# What the quiet clients of a cohort send, and by how much a canary exceeds C: in units of C.
_QUIET, _LOUD = 0.01, 100.0
# A stream of our own: no draw of a caller's generator, whatever its seed, repeats it.
_COINS = 0xC0125
# The log of a likelihood ratio is exact up to this exponent.
_LARGEST_EXPONENT = 700.0
_LARGEST = 1e200


def flat(release: Any) -> Tensor:
    """A release (a `Release`, a tensor, a mapping or list of tensors) as one vector."""
    mean = getattr(release, "mean", release)
    if callable(mean):  # a tensor's own method
        mean = release
    if isinstance(mean, (Tensor, np.ndarray)):
        return torch.as_tensor(mean).detach().double().reshape(-1)
    parts = mean.values() if isinstance(mean, Mapping) else mean
    return torch.cat([torch.as_tensor(p).detach().double().reshape(-1) for p in parts])


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
    others *= _QUIET * clip_norm / others.norm(dim=1, keepdim=True).clamp(min=1e-9)
    if case == "spread":
        for _, start, stop in layout.slices:
            direction[start:stop] /= direction[start:stop].norm()
    elif case == "nan":
        direction = torch.eye(1, size)[0]
    direction /= direction.norm()
    if case == "opposed":
        others = -clip_norm * direction.expand_as(others).clone()
    canary = (clip_norm if case in ("orthogonal", "opposed") else _LOUD * clip_norm) * direction
    if case == "nan":
        canary[-1] = math.nan
    return Pair(*neighbours(others, canary, plan.adjacency), direction)


def neighbours(others: Tensor, canary: Tensor, adjacency: str) -> tuple[Tensor, Tensor]:
    """Cohorts (c, d) with and without `canary` after `others`, as the adjacency has it."""
    present = torch.cat([others, canary[None]])
    if adjacency == "add-or-remove" and len(others) > 0:
        return present, others
    absent = present.clone()
    absent[-1] = -canary if adjacency == "replace-one" else 0.0
    return present, absent


def cohort(rows: Tensor, like: Any) -> Any:
    """Rows (c, d) as a pipeline takes them: the matrix, or a list of `like`'s structure."""
    if isinstance(like, int):
        return rows
    layout = Layout(like)
    return [layout.restore(row) for row in rows]


class Canaries:
    """Canary clients of one training: each takes part by a fair coin and has a direction to itself.

    Whenever the sampler draws a canary that is in, it sends its direction at `loudness` times C,
    which the clip brings down to C; one that its coin left out sends nothing: zeros, or the
    opposite direction under replace-one. The directions have disjoint supports, random signs on
    random coordinates, and are orthogonal: canaries hide none of one another, and all of them
    together take O(d) memory. What each round releases is scored at once.

    A score is the log-likelihood ratio, up to what others send, of a canary that takes part with
    chance q in each round (an attacker who does not know who took part): the best there is against
    Gaussian noise. Give `scores` and `included` to `audit.one_run`.

    Parameters
    ----------
    count : how many canaries, k; the last k of the plan's N clients.
    size : d, the number of coordinates of an update; at least k.
    plan : the plan of the run, for N, m, q, z and the adjacency.
    clip_norm : C, at the beginning if it adapts.
    loudness : the norm of what a canary sends, over C: above 1, so that the clip is tried as well.
    seed : of coins and directions; None takes them from the operating system. A seed is for tests:
        whoever knows it knows the coins.

    >>> import fldp
    >>> from fldp import audit
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-5, rounds=1, clients=600)
    >>> canaries = Canaries(500, 650, plan=plan)
    >>> people = fldp.clients.partition(*fldp.datasets.digits(), clients=100, seed=0)
    >>> history = fldp.train(torch.nn.Linear(64, 10), people, plan, canaries=canaries)
    >>> found = audit.one_run(canaries.scores, canaries.included, delta=1e-5, plan=plan)
    >>> found.lower_bound > 1 and not found.violated
    True
    """

    def __init__(
        self,
        count: int,
        size: int,
        *,
        plan: PrivacyPlan,
        clip_norm: float = 1.0,
        loudness: float = 10.0,
        seed: int | None = None,
    ) -> None:
        self.count, self.size = whole("count", count), whole("size", size)
        self.plan, self.clip_norm = plan, real("clip_norm", clip_norm)
        self.loudness = real("loudness", loudness)
        if self.count > self.size:
            raise ValueError(
                f"{count} canaries in {size} dimensions cannot be orthogonal: take at most {size}"
            )
        if self.count > plan.clients:
            raise ValueError(f"{count} canaries, but the plan is for {plan.clients} clients")
        rng = np.random.default_rng(None if seed is None else [_COINS, whole("seed", seed, 0)])
        self.included = rng.random(self.count) < 0.5
        self._sum = np.zeros(self.count)
        self._rounds = 0
        # Block j of the shuffled coordinates is canary j's; blocks differ in size by at most one.
        self._order = torch.from_numpy(rng.permutation(self.size))
        self._starts = np.linspace(0, self.size, self.count + 1).astype(np.int64)
        widths = np.diff(self._starts)
        signs = rng.integers(0, 2, self.size) * 2.0 - 1.0
        self._values = torch.from_numpy(signs / np.sqrt(np.repeat(widths, widths)))

    @property
    def scores(self) -> np.ndarray:
        """What speaks for each canary's presence, (k,); higher is surer. One release at least."""
        if self._rounds == 0:
            raise ValueError("no release was observed: run the training with these canaries first")
        return self._sum.copy()

    @property
    def _first(self) -> int:
        """The number of the first canary among the plan's clients."""
        return self.plan.clients - self.count

    def rows(self, ids: Tensor, round: int) -> Tensor:
        """Raw updates (len(ids), d) of the canary clients `ids`, of the plan's N."""
        found = torch.zeros(len(ids), self.size)
        reach = self.loudness * self.clip_norm
        opposite = -reach if self.plan.adjacency == "replace-one" else 0.0
        for row, client in zip(found, ids.tolist(), strict=True):
            canary = client - self._first
            if not 0 <= canary < self.count:
                raise ValueError(
                    f"client {client} is no canary: they are the clients {self._first} to "
                    f"{self.plan.clients - 1}"
                )
            own = slice(self._starts[canary], self._starts[canary + 1])
            factor = reach if self.included[canary] else opposite
            row[self._order[own]] = factor * self._values[own].float()
        return found

    def project(self, vector: Any) -> np.ndarray:
        """The inner products (k,) of a vector (d,), in any structure, with the directions."""
        values = flat(vector)
        if len(values) != self.size:
            raise ValueError(f"the release has {len(values)} coordinates, expected {self.size}")
        weighted = (values[self._order] * self._values).numpy()
        # What is not finite tells everything about the canary that it belongs to.
        weighted = np.nan_to_num(weighted, nan=_LARGEST, posinf=_LARGEST, neginf=-_LARGEST)
        return np.add.reduceat(weighted, self._starts[:-1])

    def observe(self, release_mean: Any, round: int) -> None:
        """Score what a round released: the mean, (d,) or in any structure."""
        self._rounds += 1
        z, q = self.plan.noise_multiplier, self.plan.sampling_rate
        # In units of the noise: N(0, 1) without the canary, N(1/z, 1) in a round it takes part in.
        x = self.project(release_mean) * self.plan.denominator / (z * self.clip_norm)
        score = _log_mixture(x, 1 / z, q)
        if self.plan.adjacency == "replace-one":
            score -= _log_mixture(-x, 1 / z, q)
        self._sum += score

    def final(self, change: Any) -> None:
        """Score a final model alone: its change (d,), in any structure, over the whole training."""
        self._rounds += 1
        self._sum += self.project(change)


def _log_mixture(x: np.ndarray, shift: float, rate: float) -> np.ndarray:
    """log of (1 - q) N(0, 1) + q N(shift, 1) over N(0, 1) at x."""
    exponent = np.clip(x * shift - shift * shift / 2, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    if rate >= 1:
        return exponent
    return np.log1p(rate * np.expm1(exponent))
