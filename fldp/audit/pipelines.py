"""Audit any function from updates to a release, in one round: many releases in two worlds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp._checks import choice, real, whole
from fldp.accounting import gaussian_epsilon
from fldp.audit.bounds import METHODS, from_scores
from fldp.audit.canaries import CANARIES, cohort, pair
from fldp.audit.coins import METHODS as COIN_METHODS
from fldp.audit.findings import AuditResult, counted
from fldp.audit.neighbours import Caller
from fldp.audit.scores import ranked
from fldp.audit.trials import from_trials

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# Runs that are independent look dependent to both tests together with at most this probability.
_DEPENDENT = 1e-6
# A stream of our own: no draw of a caller's generator, whatever its seed, repeats it.
_WORLDS = 0x30216D


@counted
def pipeline(
    fn: Callable[..., Any],
    plan: PrivacyPlan,
    *,
    like: Any = 256,
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
    fn : `fn(updates)` or `fn(updates, generator=...)`, which returns the sum over
        `plan.denominator`, or a `Release`. Without a generator argument the global seeds are set.
    plan : what `fn` claims to follow.
    like : d for updates that are a matrix (c, d), else the structure of one of a list of updates.
    clip_norm : C.
    canary : one of `CANARIES`, or "all"; with several canaries "all" or "orthogonal".
    canaries : k, at most one per client of the plan and per coordinate.
    runs : releases per world and canary; with several canaries, of all.
    method : "clopper-pearson" (the default) or "gdp" for one canary, "one-run" (the default), "gdp"
        or "plan" for several.
    confidence : of the bound that is returned.
    seed : of canaries, order and noise.

    Raises ValueError where `fn` depends on earlier calls, or reads nothing from the updates.

    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=1, clients=16)
    >>> def weak(updates, generator):
    ...     total = sum(fldp.clip(u)[0] for u in updates)
    ...     return (total + 0.1 * torch.randn(8, generator=generator)) / 16
    >>> pipeline(weak, plan, like=8, canary="orthogonal", runs=200).violated
    True
    """
    call, count = Caller(fn), whole("canaries", canaries)
    real("clip_norm", clip_norm)
    whole("runs", runs)
    if count > 1:
        return _many(call, plan, like, clip_norm, canary, count, runs, method, confidence, seed)
    method = choice("method", method or METHODS[0], METHODS)
    names = CANARIES if canary == "all" else (canary,)
    level, results, note = 1 - (1 - confidence) / len(names), [], ""
    for name in names:
        two = pair(name, plan, like, clip_norm, seed)
        if not note:
            note = _repeats(call, two.present, two.absent, like, seed)
        present = np.repeat([True, False], runs)
        np.random.default_rng([_WORLDS, seed]).shuffle(present)
        scores = np.empty(2 * runs)
        for i, there in enumerate(present):
            rows = two.present if there else two.absent
            release = call(cohort(rows.clone(), like), seed + i)
            scores[i] = float(two.direction.double() @ release)
        scores = np.nan_to_num(scores, nan=np.inf)
        if np.ptp(np.nan_to_num(scores)) == 0 and canary == "all":
            continue
        check_independence(within(scores, present))
        results.append(
            from_scores(
                scores[present],
                scores[~present],
                delta=plan.delta,
                confidence=level,
                method=method,
                claimed=_one_round(plan),
                tested=f"one release, participation known, {plan.adjacency} of a client, "
                f"canary {name}",
                seed=seed,
            )
        )
    if not results:
        raise ValueError("every release is the same whatever the updates: nothing to audit")
    best = max(results, key=lambda r: r.lower_bound or 0.0)
    return dataclasses.replace(
        best,
        confidence=confidence,
        runs=2 * runs * len(names),
        note="; ".join(part for part in (best.note, note) if part),
    )


def _one_round(plan: PrivacyPlan) -> float:
    """ε of one release against someone who knows who took part: a plain Gaussian."""
    moved = 2.0 if plan.adjacency == "replace-one" else 1.0
    return float(gaussian_epsilon(moved / plan.noise_multiplier, plan.delta))


def _plain(plan: PrivacyPlan) -> PrivacyPlan:
    """One round of `plan` without amplification: what someone who knows the cohort sees."""
    return dataclasses.replace(plan, rounds=1, sampling="none", cap=None)


def _many(
    call: Caller,
    plan: PrivacyPlan,
    like: Any,
    clip_norm: float,
    canary: str,
    count: int,
    runs: int,
    method: str | None,
    confidence: float,
    seed: int,
) -> AuditResult:
    """`pipeline` with several canaries in each release."""
    choice("method", method or COIN_METHODS[0], COIN_METHODS)
    if canary not in ("all", "orthogonal"):
        raise ValueError(f"canary is {canary!r}, but several canaries are orthogonal: leave it out")
    two = pair("orthogonal", plan, like, clip_norm)
    size = two.direction.numel()
    if count > min(size, plan.clients):
        raise ValueError(
            f"{count} canaries: take at most one per client of the plan ({plan.clients}) and per "
            f"coordinate ({size})"
        )
    rng = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(size, count, generator=rng))[0].t().contiguous()
    quiet = two.present[: max(1, len(two.present) - count)] if count < plan.clients else axes[:0]
    coins = np.random.default_rng([_WORLDS, seed]).random((runs, count)) < 0.5

    def rows(row: np.ndarray) -> Tensor:
        there = torch.from_numpy(row)
        if plan.adjacency == "add-or-remove":
            return torch.cat([quiet, clip_norm * axes[there]])
        absent = -1.0 if plan.adjacency == "replace-one" else 0.0
        return torch.cat([quiet, clip_norm * torch.where(there[:, None], axes, absent * axes)])

    note = _repeats(call, rows(coins[0]), rows(~coins[0]), like, seed)
    scores = np.empty((runs, count))
    for i, row in enumerate(coins):
        release = call(cohort(rows(row), like), seed + i)
        scores[i] = (axes.double() @ release).numpy() * plan.denominator / clip_norm
    if plan.adjacency == "replace-one":  # present at 1 and absent at -1: the middle becomes 1/2
        scores = (scores + 1) / 2
    check_independence(within(np.nan_to_num(scores), coins).sum(axis=1))
    found = from_trials(
        scores,
        coins,
        delta=plan.delta,
        confidence=confidence,
        method=method or COIN_METHODS[0],
        plan=_plain(plan) if method == "plan" else None,
        claimed=_one_round(plan),
        tested=f"one release, participation known, {plan.adjacency} of a client, "
        f"{count} orthogonal clients of norm C",
        seed=seed,
    )
    return dataclasses.replace(found, note="; ".join(part for part in (found.note, note) if part))


def _repeats(call: Caller, rows: Tensor, others: Tensor, like: Any, seed: int) -> str:
    """ "" where a seeded call can be repeated after another one; else why it is not known."""
    first = call(cohort(rows.clone(), like), seed)
    call(cohort(others.clone(), like), seed + 1)
    again = call(cohort(rows.clone(), like), seed)
    if torch.equal(first.nan_to_num(), again.nan_to_num()):
        return ""
    if call.takes_generator:
        raise ValueError(
            "a repeated call with the same updates and the same generator gave another release: fn "
            "remembers earlier calls, or draws noise of its own; start every call from the same "
            "state and take all noise from the generator"
        )
    return (
        "fn takes no generator and a repeated call gave another release, so that it could not be "
        "checked whether it remembers earlier calls"
    )


def within(scores: np.ndarray, present: np.ndarray, seed: int = 0) -> np.ndarray:
    """Ranks of the scores within their own world, about 0; equal scores are in a random order."""
    if scores.ndim > 1:
        columns = zip(scores.T, present.T, strict=True)
        return np.stack([within(s, p, seed + j) for j, (s, p) in enumerate(columns)], axis=1)
    ranks = np.zeros(scores.shape)
    for world in (present, ~present):
        if world.any():
            ranks[world] = (ranked(scores[world], seed) + 0.5) / world.sum() - 0.5
    return ranks


def check_independence(values: np.ndarray) -> None:
    """ValueError where successive runs are correlated, or drift, beyond chance (1e-6)."""
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
