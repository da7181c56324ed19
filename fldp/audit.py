"""Empirical lower bounds on ε: run the mechanism, attack it, and count.

An upper bound comes from a theorem about the algorithm; these bounds come from what the code does.
A bound above the claimed ε refutes the claim, up to the stated confidence. A bound below it proves
nothing: another canary or another attack may do better.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp.accounting import gaussian_epsilon
from fldp.clipping import FlatClip
from fldp.neighbours import CANARIES, caller, cohort, neighbour_test, pair
from fldp.noise import gaussian_

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

__all__ = [
    "CANARIES", "AuditResult", "from_counts", "from_scores", "from_trials", "neighbour_test",
    "one_run", "one_run_epsilon", "one_shot", "pipeline", "training",
]  # fmt: skip

METHODS = ("clopper-pearson", "gdp")
_GDP = (
    "the trade-off curve is that of μ-Gaussian DP (a full-participation Gaussian sum is; a "
    "subsampled or broken mechanism may not be)"
)
_RANKS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class AuditResult:
    """What an audit found, and what it cannot know.

    `lower_bound` holds with probability `confidence`, None when the method only gives `estimate`.
    `claimed` is the accountant's ε for exactly what was audited. `curve` has shape (2, k): false
    and true positive rates over all thresholds. `ceiling` is what a perfect attack would have got.
    """

    method: str
    delta: float
    confidence: float
    runs: int
    lower_bound: float | None = None
    estimate: float | None = None
    claimed: float | None = None
    ceiling: float = math.inf
    presumption: str = ""
    tested: str = ""
    untested: str = "other canaries, other attacks, other data, and the code that was not called"
    curve: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)), repr=False, compare=False)

    @property
    def violated(self) -> bool:
        """The lower bound exceeds the claimed ε. An estimate never violates anything."""
        if self.lower_bound is None or self.claimed is None:
            return False
        return self.lower_bound > self.claimed

    def statement(self) -> str:
        """The result in plain words."""
        if self.lower_bound is None:
            text = f"Estimate, not a bound: ε is about {self.estimate:.3g} at δ = {self.delta:g}."
        else:
            text = (
                f"With {100 * self.confidence:g} % confidence ε is at least {self.lower_bound:.3g} "
                f"at δ = {self.delta:g} ({self.method}, {self.runs} runs)."
            )
        if self.presumption:
            text += f" This presumes that {self.presumption}."
        if self.claimed is not None:
            verdict = "REFUTED" if self.violated else "not refuted, which is no proof"
            text += f" The claim ε ≤ {self.claimed:.3g} is {verdict}."
            if self.ceiling <= self.claimed and self.lower_bound is not None:
                text += f" A perfect attack would show {self.ceiling:.3g}: take more runs."
        return f"{text} Tested: {self.tested or 'the given scores'}. Not tested: {self.untested}."

    def to_dict(self) -> dict[str, Any]:
        """The numbers and words, without the curve, ready for JSON."""
        return {k: v for k, v in vars(self).items() if k != "curve"} | {"violated": self.violated}

    def plot(self, ax: Any = None) -> Any:
        """The measured curve, and the curves that the bound and the claim allow; returns axes."""
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        x = np.linspace(0, 1, 201)
        ax.step(*self.curve, where="post", label="measured")
        value = self.estimate if self.lower_bound is None else self.lower_bound
        name = "estimate" if self.lower_bound is None else "lower bound"
        for label, epsilon in ((name, value), ("claimed", self.claimed)):
            if epsilon is not None:
                e = math.exp(min(epsilon, 500.0))
                allowed = np.minimum(e * x + self.delta, 1 - (1 - self.delta - x) / e)
                ax.plot(x, allowed.clip(0, 1), "--", label=f"{label}: ε = {epsilon:.3g}")
        ax.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1))
        ax.legend(loc="lower right")
        return ax


def from_counts(
    false_positives: int,
    negatives: int,
    false_negatives: int,
    positives: int,
    *,
    delta: float,
    confidence: float = 0.95,
    method: str = "clopper-pearson",
) -> float:
    """Lower bound on ε from the errors of one test that was fixed before it saw these runs.

    Each error rate gets a one-sided Clopper-Pearson bound at α/2 (Jagielski et al. 2020). "gdp"
    turns both into μ, then ε (Nasr et al. 2023): tighter, valid only for Gaussian DP mechanisms.

    >>> round(from_counts(10, 1000, 100, 1000, delta=1e-5), 4)
    3.872
    """
    rates = [
        _clopper_pearson(errors, trials, (1 - confidence) / 2)
        for errors, trials in ((false_positives, negatives), (false_negatives, positives))
    ]
    return _epsilon(rates[0], rates[1], delta, method)


def _clopper_pearson(errors: int, trials: int, alpha: float) -> float:
    from scipy.special import betaincinv

    return 1.0 if errors >= trials else float(betaincinv(errors + 1, trials - errors, 1 - alpha))


def _epsilon(fpr: float, fnr: float, delta: float, method: str) -> float:
    from scipy.special import ndtri

    if method not in METHODS:
        raise ValueError(f"method is {method!r}: choose one of {METHODS}")
    if method == "gdp":
        return _mu_epsilon(-float(ndtri(fpr) + ndtri(fnr)), delta)
    pairs = ((fpr, fnr), (fnr, fpr))
    return max(0.0, *(math.log((1 - delta - b) / a) for a, b in pairs if 1 - delta - b > 0))


def _mu_epsilon(mu: float, delta: float) -> float:
    return float(gaussian_epsilon(mu, delta)) if mu > 0 else 0.0


def _checked(scores: Any, what: str, delta: float, confidence: float) -> np.ndarray:
    if not (0 <= delta < 1 and 0 < confidence < 1):
        raise ValueError(f"delta = {delta} and confidence = {confidence} must lie between 0 and 1")
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{what}: an array of scores, one per run, is needed")
    # A release that is not finite tells the attacker everything: the largest possible score.
    return np.nan_to_num(array, nan=1e300, posinf=1e300, neginf=-1e300)


def _curve(present: np.ndarray, absent: np.ndarray) -> np.ndarray:
    cuts = np.unique(np.concatenate([present, absent]))[::-1]
    rates = [1 - np.searchsorted(np.sort(s), cuts, "left") / s.size for s in (absent, present)]
    return np.concatenate([np.zeros((2, 1)), np.stack(rates), np.ones((2, 1))], axis=1)


def from_scores(
    present: Any,
    absent: Any,
    *,
    delta: float,
    confidence: float = 0.95,
    method: str = "clopper-pearson",
    threshold: float | str = "simultaneous",
    claimed: float | None = None,
    tested: str = "",
) -> AuditResult:
    """Two-sample audit: independent scores of runs with, and of runs without, the canary.

    A high score says "present". `threshold` decides how the test is chosen, honestly in each case:

    - a number: fixed before the runs.
    - "simultaneous": the thresholds at K fixed ranks of the absent scores (mirrored: of the present
      ones), each at confidence 1 - α/K. At a rank the error rate follows a Beta law whose quantile
      is the Clopper-Pearson bound, so that choosing the threshold on these scores costs only K.
    - "hold-out": the best threshold on the first half of the runs, counted on the second half.

    Raises ValueError for constant scores, and for so few runs that no attack could show ε > 0.
    """
    a = _checked(present, "present", delta, confidence).ravel()
    b = _checked(absent, "absent", delta, confidence).ravel()
    if np.ptp(np.concatenate([a, b])) == 0:
        raise ValueError("all scores are equal: the attack reads nothing from the release")
    if isinstance(threshold, str) and threshold not in ("simultaneous", "hold-out"):
        raise ValueError(f'threshold is {threshold!r}: a number, "simultaneous" or "hold-out"')
    k = min(a.size, b.size)
    ranks = [r for r in _RANKS if r < k // 2] or [0]
    used, level = (a.size, b.size), confidence
    if threshold == "hold-out":
        used = (a.size - a.size // 2, b.size - b.size // 2)
    elif threshold == "simultaneous":
        level = 1 - (1 - confidence) / (2 * len(ranks))
    options: dict[str, Any] = {"delta": delta, "confidence": level, "method": method}
    ceiling = from_counts(0, used[1], 0, used[0], **options)
    if ceiling <= 0:
        raise ValueError(
            f"{k} runs are too few for {100 * confidence:g} % confidence: even a perfect attack "
            "would show nothing; take more runs or less confidence"
        )

    def bound_at(t: float, x: np.ndarray, y: np.ndarray, above: int | None = None) -> float:
        fp = int((y > t).sum()) if above is None else above
        return from_counts(fp, y.size, int((x <= t).sum()), x.size, **options)

    if threshold == "simultaneous":
        sides = ((a, b, np.sort(b)[::-1]), (-b, -a, np.sort(-a)[::-1]))
        bound = max(bound_at(float(cut[r]), x, y, r) for x, y, cut in sides for r in ranks)
    elif threshold == "hold-out":
        first, second = (a[: a.size // 2], b[: b.size // 2]), (a[a.size // 2 :], b[b.size // 2 :])
        cuts = np.quantile(np.concatenate(first), np.linspace(0, 1, 41))
        bound = bound_at(float(max(cuts, key=lambda t: bound_at(float(t), *first))), *second)
    else:
        bound = bound_at(float(threshold), a, b)
    return AuditResult(
        method, delta, confidence, a.size + b.size, bound, None, claimed, ceiling,
        _GDP if method == "gdp" else "", tested, curve=_curve(a, b),
    )  # fmt: skip


def mean_lower_bound(values: Any, confidence: float = 0.95) -> float:
    """Lower bound on the mean of independent values in [0, 1], by betting (Waudby-Smith, Ramdas).

    The capital of a gambler who bets that the mean is above p is a martingale when it is p; Ville's
    inequality rejects p once it reaches 1/α. It adapts to the variance and needs no distribution.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    if x.size == 0 or not (x.min() >= 0 and x.max() <= 1):
        raise ValueError("values must lie between 0 and 1, at least one of them")
    n, need = np.arange(1, x.size + 1), math.log(1 / (1 - confidence))
    means = (0.5 + np.cumsum(x)) / (n + 1)
    spread = (0.25 + np.cumsum((x - means) ** 2)) / (n + 1)
    bets = np.sqrt(2 * need / (x.size * np.concatenate([[0.25], spread[:-1]])))
    low, high = 0.0, 1.0
    for _ in range(50):
        p = (low + high) / 2
        stakes = np.minimum(bets, 0.5 / p)
        if np.cumsum(np.log1p(stakes * (x - p))).max() >= need:
            low = p
        else:
            high = p
    return low


def from_trials(
    scores: Any,
    included: Any,
    *,
    delta: float,
    confidence: float = 0.95,
    method: str = "gdp",
    threshold: float = 0.5,
    claimed: float | None = None,
    tested: str = "",
) -> AuditResult:
    """Many canaries per run: `scores` (runs, k), `included` (runs, k) fair independent coin flips.

    Each canary is guessed present if its score exceeds `threshold`, fixed beforehand. The share of
    right guesses of a run has mean at most (e^ε + δ)/(1 + e^ε) under (ε, δ)-DP, and Φ(μ/2) under
    μ-GDP ("gdp"), however the canaries of a run depend on one another; runs are independent, so
    `mean_lower_bound` applies. One run holds k samples: this is the audit for small ε.
    """
    from scipy.stats import norm

    s = _checked(scores, "scores", delta, confidence)
    bits = np.asarray(included, dtype=bool)
    if s.ndim != 2 or bits.shape != s.shape:
        raise ValueError(f"scores {s.shape} and included {bits.shape} must both be (runs, k)")
    if np.ptp(s) == 0:
        raise ValueError("all scores are equal: the attack reads nothing from the release")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: choose one of {METHODS}")

    def convert(accuracy: float) -> float:
        if method == "gdp":
            return _mu_epsilon(2 * float(norm.ppf(accuracy)), delta)
        return max(0.0, math.log((accuracy - delta) / (1 - accuracy))) if accuracy > delta else 0.0

    ceiling = convert(mean_lower_bound(np.ones(len(s)), confidence))
    if ceiling <= 0:
        raise ValueError(f"{len(s)} runs are too few for {100 * confidence:g} % confidence")
    bound = convert(mean_lower_bound(((s > threshold) == bits).mean(axis=1), confidence))
    return AuditResult(
        method, delta, confidence, len(s), bound, None, claimed, ceiling,
        _GDP if method == "gdp" else "", tested, curve=_curve(s[bits], s[~bits]),
    )  # fmt: skip


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
    s = _checked(scores, "scores", delta, confidence).ravel()
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
        curve=_curve(s[bits], s[~bits]) if 0 < bits.sum() < bits.size else np.zeros((2, 0)),
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
    all released updates; a direction that did not take part would have N(0, 1/dimension).
    """
    c = _checked(cosines, "cosines", delta, 0.95).ravel()
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
        curve=_curve(c, np.random.default_rng(0).normal(0, dimension**-0.5, 10_000)),
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
    if plan.sampling == "fixed" or plan.cap is not None:
        raise ValueError("this audit draws clients by Poisson sampling or takes all: no cap, no m")
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
