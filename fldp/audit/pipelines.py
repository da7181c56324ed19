"""Audit any function from updates to a release, in one round: many releases in two worlds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fldp._checks import choice, real, whole
from fldp.accounting import gaussian_epsilon
from fldp.audit.bounds import METHODS, from_scores
from fldp.audit.canaries import CANARIES, CohortPair, absent, cohort, pair
from fldp.audit.coins import METHODS as COIN_METHODS
from fldp.audit.findings import AuditResult, counted
from fldp.audit.neighbours import Caller
from fldp.audit.scores import own_stream, ranked
from fldp.audit.trials import from_trials
from fldp.mechanism.clipping import FlatClip

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# Runs that are independent look dependent to both tests together with at most this probability.
_DEPENDENT = 1e-6
# A stream of our own: no draw of a caller's generator, whatever its seed, repeats it.
_WORLDS = 0x30216D


@counted
def pipeline(
    fn: Callable[..., object],
    plan: PrivacyPlan,
    *,
    like: object = 256,
    clip_norm: float = 1.0,
    canary: str = "all",
    canaries: int = 1,
    runs: int = 1000,
    method: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> AuditResult:
    """Audit any function from updates to a release: one round, by someone who knows who takes part.

    `runs` releases with and as many without the canary client are compared, in random order, for
    each canary of `CANARIES` when `canary` is "all" (each at confidence 1 - α/5; the strongest is
    returned). With `canaries` k > 1, k clients in orthogonal directions are there or not by fair
    coins, as the plan's adjacency has it, in each of `runs` releases (`from_trials`).

    That the runs are independent is checked as far as it can be: one seeded call is repeated, with
    another one in between, and must give the same release; and successive scores must not be
    correlated, nor drift.

    Parameters
    ----------
    fn : callable
        `fn(updates)` or `fn(updates, generator=...)`, which returns the sum over
        `plan.denominator`, or a `Release`. Without a generator argument the global seeds are set.
    plan : PrivacyPlan
        What `fn` claims to follow.
    like : int or structure
        d for updates that are a matrix (c, d), else the structure of one of a list of updates.
    clip_norm : float
        C.
    canary : str
        One of `CANARIES`, or "all"; with several canaries "all" or "orthogonal".
    canaries : int
        k, at most one per client of the plan and per coordinate.
    runs : int
        Releases per world and canary; with several canaries, of all.
    method : str, optional
        "clopper-pearson" (the default) or "gdp" for one canary, "one-run" (the default), "gdp" or
        "plan" for several.
    confidence : float
        Of the bound that is returned.
    seed : int
        Of canaries, order and noise.

    Returns
    -------
    AuditResult

    Raises
    ------
    ValueError
        Where `fn` depends on earlier calls, or reads nothing from the updates.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=1, clients=16)
    >>> def weak(updates, generator):
    ...     total = sum(fldp.clip(u)[0] for u in updates)
    ...     return (total + 0.1 * torch.randn(8, generator=generator)) / 16
    >>> pipeline(weak, plan, like=8, canary="orthogonal", runs=200).violated
    True
    """
    count = whole("canaries", canaries)
    norm = real("clip_norm", clip_norm)
    audit = _Audit(Caller(fn), plan, like, norm, whole("runs", runs), confidence, seed)
    if count > 1:
        method = choice("method", method or COIN_METHODS[0], COIN_METHODS)
        return audit.several(canary, count, method)
    method = choice("method", method or METHODS[0], METHODS)
    names = CANARIES if canary == "all" else (canary,)
    note = ""
    results = []
    for name in names:
        two = pair(name, plan, like, clip_norm, seed)
        note = note or audit.repeats(two.present, two.absent)
        scores, present = audit.scores(two)
        # A canary that moves nothing is no audit; of several, the others are.
        if np.ptp(np.nan_to_num(scores)) == 0 and canary == "all":
            continue
        check_independence(within(scores, present))
        results.append(
            from_scores(
                scores[present],
                scores[~present],
                delta=plan.delta,
                confidence=1 - (1 - confidence) / len(names),
                method=method,
                claimed=audit.claimed,
                tested=f"{audit.tested}, canary {name}",
                seed=seed,
            )
        )
    if not results:
        raise ValueError("every release is the same whatever the updates: nothing to audit")
    best = max(results, key=lambda r: r.lower_bound or 0.0)
    all_runs = 2 * runs * len(names)
    return replace(
        best, confidence=confidence, runs=all_runs, note="; ".join(filter(None, (best.note, note)))
    )


@dataclass(frozen=True)
class _Audit:
    """One pipeline, and how it is audited."""

    call: Caller
    plan: PrivacyPlan
    like: object
    clip_norm: float
    runs: int
    confidence: float
    seed: int

    @property
    def claimed(self) -> float:
        """ε of one release against someone who knows who took part: a plain Gaussian."""
        moved = FlatClip(1.0).sensitivity(self.plan.adjacency)
        return float(gaussian_epsilon(moved / self.plan.noise_multiplier, self.plan.delta))

    @property
    def tested(self) -> str:
        return f"one release, participation known, {self.plan.adjacency} of a client"

    def release(self, rows: Tensor, run: int) -> Tensor:
        """What the pipeline makes of the updates `rows` (c, d) in its run number `run`."""
        return self.call(cohort(rows, self.like), self.seed + run)

    def scores(self, two: CohortPair) -> tuple[np.ndarray, np.ndarray]:
        """How far releases lie in the canary's direction, and whether it was there (2 runs,)."""
        present = np.repeat([True, False], self.runs)
        own_stream(_WORLDS, self.seed).shuffle(present)
        scores = np.empty(2 * self.runs)
        for i, there in enumerate(present):
            rows = two.present if there else two.absent
            scores[i] = float(two.direction.double() @ self.release(rows.clone(), i))
        return np.nan_to_num(scores, nan=np.inf), present

    def several(self, canary: str, count: int, method: str) -> AuditResult:
        """`pipeline` with several canaries in each release."""
        if canary not in ("all", "orthogonal"):
            raise ValueError(
                f"canary is {canary!r}, but several canaries are orthogonal: leave it out"
            )
        plan = self.plan
        two = pair("orthogonal", plan, self.like, self.clip_norm)
        size = two.direction.numel()
        if count > min(size, plan.clients):
            raise ValueError(
                f"{count} canaries: take at most one per client of the plan ({plan.clients}) and "
                f"per coordinate ({size})"
            )
        generator = torch.Generator().manual_seed(self.seed)
        axes = torch.linalg.qr(torch.randn(size, count, generator=generator))[0].t().contiguous()
        # What is left of the cohort sends little, in directions of its own.
        quiet = axes[:0]
        if count < plan.clients:
            quiet = two.present[: max(1, len(two.present) - count)]
        coins = own_stream(_WORLDS, self.seed).random((self.runs, count)) < 0.5

        def rows(row: np.ndarray) -> Tensor:
            there = torch.from_numpy(row)
            sent = axes[there]
            if plan.adjacency != "add-or-remove":
                sent = torch.where(there[:, None], axes, absent(plan.adjacency) * axes)
            return torch.cat([quiet, self.clip_norm * sent])

        note = self.repeats(rows(coins[0]), rows(~coins[0]))
        scores = np.empty((self.runs, count))
        for i, row in enumerate(coins):
            along = (axes.double() @ self.release(rows(row), i)).numpy()
            scores[i] = along * plan.denominator / self.clip_norm
        if absent(plan.adjacency):  # present at 1 and absent at -1: the middle becomes 1/2
            scores = (scores + 1) / 2
        # Scores within their own world: a canary's presence is no drift.
        check_independence(within(np.nan_to_num(scores), coins).sum(axis=1))
        # What someone who knows the cohort sees: one round, without amplification.
        plain = replace(plan, rounds=1, sampling="none", cap=None)
        found = from_trials(
            scores,
            coins,
            delta=plan.delta,
            confidence=self.confidence,
            method=method,
            plan=plain if method == "plan" else None,
            claimed=self.claimed,
            tested=f"{self.tested}, {count} orthogonal clients of norm C",
            seed=self.seed,
        )
        return replace(found, note="; ".join(filter(None, (found.note, note))))

    def repeats(self, rows: Tensor, others: Tensor) -> str:
        """Nothing where a seeded call can be repeated after another; else why it is not known."""
        first = self.release(rows.clone(), 0)
        self.release(others.clone(), 1)
        again = self.release(rows.clone(), 0)
        if torch.equal(first.nan_to_num(), again.nan_to_num()):
            return ""
        if self.call.takes_generator:
            raise ValueError(
                "a repeated call with the same updates and the same generator gave another "
                "release: fn remembers earlier calls, or draws noise of its own; start every call "
                "from the same state and take all noise from the generator"
            )
        return (
            "fn takes no generator and a repeated call gave another release, so that it could not "
            "be checked whether it remembers earlier calls"
        )


def within(scores: np.ndarray, present: np.ndarray, seed: int = 0) -> np.ndarray:
    """Ranks of the scores within their own world, about 0; equal scores are in a random order.

    Parameters
    ----------
    scores : numpy.ndarray
        (runs,), or (runs, k) of k canaries.
    present : numpy.ndarray
        Which world each is from, of the same shape; booleans.
    seed : int
        Of the order of equal scores.

    Returns
    -------
    numpy.ndarray
        Of the same shape, within (-1/2, 1/2).
    """
    if scores.ndim > 1:
        columns = zip(scores.T, present.T, strict=True)
        return np.stack([within(s, p, seed + j) for j, (s, p) in enumerate(columns)], axis=1)
    ranks = np.zeros(scores.shape)
    for world in (present, ~present):
        if world.any():
            ranks[world] = (ranked(scores[world], seed) + 0.5) / world.sum() - 0.5
    return ranks


def check_independence(values: np.ndarray) -> None:
    """Refuse runs that are not independent, as far as two tests can tell.

    Parameters
    ----------
    values : numpy.ndarray
        One number a run (runs,), in the order of the runs.

    Raises
    ------
    ValueError
        Where successive runs are correlated, or drift, beyond chance (1e-6).
    """
    from scipy.special import ndtri

    if len(values) < 3 or np.ptp(values) == 0:
        return
    threshold = -float(ndtri(_DEPENDENT / 4)) / np.sqrt(len(values))
    tests = (("the run before", values[:-1], values[1:]), ("time", np.arange(len(values)), values))
    for name, first, second in tests:
        if np.ptp(first) > 0 and np.ptp(second) > 0:
            correlation = float(np.corrcoef(first, second)[0, 1])
            if abs(correlation) > threshold:
                raise ValueError(
                    f"the scores correlate with {name} ({correlation:.2f}): the runs are not "
                    "independent, and no bound holds; start every call from the same state"
                )
