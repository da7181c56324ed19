"""Empirical lower bounds on ε: run the mechanism, attack it, and count.

An upper bound comes from a theorem about the algorithm; these bounds come from what the code does.
A bound above the claimed ε refutes the claim, up to the stated confidence. A bound below it proves
nothing: another canary or another attack may do better.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp.accounting import gaussian_epsilon
from fldp.bounds import (
    AuditResult,
    checked,
    curve_of,
    from_counts,
    from_scores,
    from_trials,
    mean_lower_bound,
)  # fmt: skip
from fldp.clipping import FlatClip
from fldp.neighbours import CANARIES, caller, cohort, neighbour_test, pair
from fldp.noise import gaussian_

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

__all__ = [
    "CANARIES", "AuditResult", "from_counts", "from_scores", "from_trials", "mean_lower_bound",
    "neighbour_test", "one_run", "one_run_epsilon", "one_shot", "pipeline", "training",
    "two_gaussians_epsilon",
]  # fmt: skip


def one_run_epsilon(
    canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95
) -> float:
    """Lower bound on ε from a single run (Steinke, Nasr, Jagielski 2023, Theorem 5.2).

    Each of `canaries` was included by a fair coin; `guesses` of them were guessed, `correct` right.

    >>> round(one_run_epsilon(1000, 100, 95, delta=1e-5), 3)
    2.165
    """
    from scipy.stats import binom

    if not 0 <= correct <= guesses <= canaries or guesses == 0:
        raise ValueError(
            f"need 0 <= correct <= guesses <= canaries, got {correct}, {guesses}, {canaries}"
        )

    def p_value(epsilon: float) -> float:
        q = 1 / (1 + math.exp(-epsilon))
        steps = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, q))
        worst = float((steps / np.arange(1, correct + 1)).max()) if correct else 0.0
        return float(binom.sf(correct - 1, guesses, q)) + 2 * canaries * delta * worst

    low, high = 0.0, 60.0
    if p_value(low) >= 1 - confidence:
        return 0.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(middle) < 1 - confidence else (low, middle)
    return low


def one_run(
    scores: Any,
    included: Any,
    *,
    guesses: int | None = None,
    delta: float,
    confidence: float = 0.95,
    claimed: float | None = None,
    tested: str = "",
) -> AuditResult:
    """One-run audit: `scores` (k,) of k canaries, each `included` by an independent fair coin.

    The ⌈guesses/2⌉ highest scores are guessed present, the ⌊guesses/2⌋ lowest absent; the number
    of guesses is fixed beforehand (default: a quarter of k, at least 20).
    """
    s = checked(scores, "scores", delta, confidence).ravel()
    bits = np.asarray(included, dtype=bool).ravel()
    if bits.shape != s.shape:
        raise ValueError(f"{s.size} scores but {bits.size} inclusion bits")
    if np.ptp(s) == 0:
        raise ValueError("all scores are equal: the attack reads nothing from the release")
    count = min(s.size, max(20, s.size // 4)) if guesses is None else guesses
    if one_run_epsilon(s.size, count, count, delta=delta, confidence=confidence) == 0:
        raise ValueError(f"{count} guesses of {s.size} canaries are too few: add canaries")
    order = np.argsort(-s, kind="stable")
    high = (count + 1) // 2
    right = int(bits[order[:high]].sum() + (~bits[order[s.size - (count - high) :]]).sum())
    return AuditResult(
        "one-run", delta, confidence, 1,
        one_run_epsilon(s.size, count, right, delta=delta, confidence=confidence),
        claimed=claimed, tested=tested or f"{s.size} canaries, {count} guesses, {right} right",
        ceiling=one_run_epsilon(s.size, count, count, delta=delta, confidence=confidence),
        curve=curve_of(s[bits], s[~bits]) if 0 < bits.sum() < bits.size else np.zeros((2, 0)),
    )  # fmt: skip


def two_gaussians_epsilon(mean: float, std: float, null_std: float, delta: float) -> float:
    """ε at `delta` between N(0, null_std²) and N(mean, std²), the larger of both directions."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    x = np.linspace(-40.0, 40.0, 40_001)

    def hockey(p: tuple[float, float], q: tuple[float, float], e: float) -> float:
        grid = p[0] + p[1] * x
        log_p, log_q = norm.logpdf(grid, *p), norm.logpdf(grid, *q)
        gain = np.exp(log_p) * -np.expm1(np.minimum(e + log_q - log_p, 0.0))
        return float(gain.sum() * p[1] * (x[1] - x[0]))

    def excess(e: float) -> float:
        a, b = (mean, std), (0.0, null_std)
        return max(hockey(a, b, e), hockey(b, a, e)) - delta

    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, 1e4, xtol=1e-6))


def one_shot(
    cosines: Any, dimension: int, *, delta: float, claimed: float | None = None, tested: str = ""
) -> AuditResult:
    """ε estimated from canary clients in one ordinary training (Andrew et al. 2024): no bound.

    `cosines` (k,) are those of each canary, a random unit direction scaled to C, with the sum of
    all released updates; a direction that did not take part would have N(0, 1/dimension). The
    estimate hangs on the fitted spread: 100 canaries can be off by 80 %, 400 by 40 %.
    """
    c = checked(cosines, "cosines", delta, 0.95).ravel()
    if c.size < 3 or np.ptp(c) == 0:
        raise ValueError("the spread of the canaries' cosines is needed: at least 3, not all equal")
    if c.size > dimension:
        raise ValueError(
            f"{c.size} canaries in {dimension} dimensions are not nearly orthogonal: take fewer"
        )
    estimate = two_gaussians_epsilon(
        float(c.mean()), float(c.std(ddof=1)), 1 / math.sqrt(dimension), delta
    )
    return AuditResult(
        "one-shot", delta, math.nan, 1, None, estimate, claimed,
        presumption="the cosines of present and absent canaries are Gaussian",
        tested=tested or f"{c.size} random directions of norm C",
        curve=curve_of(c, np.random.default_rng(0).normal(0, dimension**-0.5, 10_000)),
    )  # fmt: skip


def pipeline(
    fn: Callable[..., Any],
    plan: PrivacyPlan,
    *,
    like: Any = 256,
    clip_norm: float = 1.0,
    canary: str = "all",
    canaries: int = 1,
    runs: int = 1000,
    method: str = "clopper-pearson",
    confidence: float = 0.95,
    seed: int = 0,
) -> AuditResult:
    """Audit any function from updates to a release: one round, by someone who knows who takes part.

    `fn(updates)` or `fn(updates, generator=...)` returns the sum over `plan.denominator`; updates
    are a matrix (c, d) for `like=d`, else a list with the structure `like`. `runs` releases with
    and as many without the canary client are compared, for each canary of `CANARIES` when `canary`
    is "all" (each at confidence 1 - α/5; the strongest is returned). With `canaries`
    k > 1, k orthogonal clients take part by fair coins in each of `runs` releases (`from_trials`).
    """
    call, m = caller(fn), plan.denominator / clip_norm
    mu = (2.0 if plan.adjacency == "replace-one" else 1.0) / plan.noise_multiplier
    claimed = float(gaussian_epsilon(mu, plan.delta))
    options: dict[str, Any] = {"delta": plan.delta, "method": method, "claimed": claimed}
    words = f"one release, participation known, {plan.adjacency} of a client, canary "
    if canaries > 1:
        size = pair("orthogonal", plan, like, clip_norm).direction.numel()
        if plan.adjacency == "replace-one" or canaries > min(size, plan.clients):
            raise ValueError(
                f"{canaries} canaries: need add-or-remove or zero-out, at most one per client of "
                f"the plan ({plan.clients}) and per coordinate ({size})"
            )
        rng = torch.Generator().manual_seed(seed)
        axes = torch.linalg.qr(torch.randn(size, canaries, generator=rng))[0].t().contiguous()
        bits = torch.rand(runs, canaries, generator=rng) < 0.5
        inputs = (clip_norm * axes * row[:, None] for row in bits)
        scores = [axes.double() @ call(cohort(r, like), seed + i) * m for i, r in enumerate(inputs)]
        return from_trials(
            torch.stack(scores), bits, confidence=confidence, **options,
            tested=f"{words}{canaries} orthogonal clients of norm C",
        )  # fmt: skip
    names = CANARIES if canary == "all" else (canary,)
    level, results = 1 - (1 - confidence) / len(names), []
    for name in names:
        two = pair(name, plan, like, clip_norm, seed)
        worlds: list[list[float]] = [[], []]
        for i in range(2 * runs):
            updates = cohort(two.present if i < runs else two.absent, like)
            worlds[i // runs].append(float(two.direction.double() @ call(updates, seed + i)))
        if np.ptp(np.nan_to_num(worlds)) > 0 or canary != "all":
            results.append(from_scores(*worlds, confidence=level, tested=words + name, **options))
    if not results:
        raise ValueError("every release is the same whatever the updates: nothing to audit")
    best = max(results, key=lambda r: r.lower_bound or 0.0)
    return dataclasses.replace(best, confidence=confidence)


def training(
    x: Tensor,
    y: Tensor,
    plan: PrivacyPlan,
    *,
    canary: str = "worst",
    runs: int = 1000,
    lr: float = 1.0,
    clip_norm: float = 1.0,
    method: str = "clopper-pearson",
    confidence: float = 0.95,
    seed: int = 0,
) -> AuditResult:
    """Audit a whole training: `runs` small federated trainings with the canary, as many without.

    Softmax regression, one full-batch step per client and round, all runs at once; `x` (N, n, f)
    and `y` (N, n) are the clients' data. The attacker sees the final model. "worst": an extra
    client that always sends C in one direction. "natural": an extra client with the first one's
    data and
    wrong labels. "record": one label of the first client is wrong, which is a replace-one question.
    """
    if plan.sampling == "fixed" or plan.cap is not None or plan.trust != "central":
        raise ValueError("this audit needs central trust, Poisson sampling or everyone, and no cap")
    if plan.adjacency == "replace-one" and canary != "record":
        raise ValueError(
            f"canary {canary!r} adds a client, but the plan's adjacency is replace-one"
        )
    if canary not in ("worst", "natural", "record"):
        raise ValueError(f"canary is {canary!r}: choose worst, natural or record")
    rng = torch.Generator().manual_seed(seed)
    classes, features = int(y.max()) + 1, x.shape[-1]
    x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1).float()
    wrong = (y[:1] + 1) % classes
    target = (x[0], wrong[0]) if canary == "natural" else (x[0, :1], wrong[0, :1])
    push = torch.randn((features + 1) * classes, generator=rng)
    push *= clip_norm / push.norm()
    q, scores = plan.sampling_rate if plan.event.sampling != "none" else 1.0, []
    for present in (True, False):
        data, labels = x, y.clone()
        if canary == "natural" and present:
            data, labels = torch.cat([x, x[:1]]), torch.cat([labels, wrong])
        if canary == "record" and present:
            labels[0, 0] = wrong[0, 0]
        hot = torch.nn.functional.one_hot(labels, classes).float()
        w = torch.zeros(runs, features + 1, classes)
        for _ in range(plan.rounds):
            total = torch.zeros(runs, push.numel())
            for xi, hi in zip(data, hot, strict=True):
                slope = torch.softmax(xi @ w, dim=-1).sub_(hi).transpose(1, 2) @ xi
                update = slope.transpose(1, 2).reshape(runs, -1) * (-lr / len(xi))
                update *= FlatClip(clip_norm).scales(update)[:, None].float()
                total += update * (torch.rand(runs, 1, generator=rng) < q)
            if canary == "worst" and present:
                total += push * (torch.rand(runs, 1, generator=rng) < q)
            gaussian_(total, plan.noise_multiplier * clip_norm, rng)
            w += total.view_as(w) / plan.denominator
        if canary == "worst":
            scores.append(w.flatten(1) @ push)
        else:
            gain = torch.log_softmax(target[0] @ w, dim=-1)[:, range(len(target[1])), target[1]]
            scores.append(gain.mean(1))
    level = "replace-one" if canary == "record" else plan.adjacency
    return from_scores(
        *scores, delta=plan.delta, method=method, confidence=confidence,
        claimed=dataclasses.replace(plan, adjacency=level).epsilon(),
        tested=f"the final model of {plan.rounds} rounds, {level}, {canary} canary",
    )  # fmt: skip
