"""From an attack's scores to a lower bound on ε: the statistics of an audit.

Every function states at which confidence its bound holds and under which presumption; choosing a
threshold, a canary or a method after seeing the scores is paid for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fldp.accounting import gaussian_epsilon

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
        from fldp.plotting import axes

        ax = axes(ax)
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
        return mu_epsilon(-float(ndtri(fpr) + ndtri(fnr)), delta)
    pairs = ((fpr, fnr), (fnr, fpr))
    return max(0.0, *(math.log((1 - delta - b) / a) for a, b in pairs if 1 - delta - b > 0))


def mu_epsilon(mu: float, delta: float) -> float:
    return float(gaussian_epsilon(mu, delta)) if mu > 0 else 0.0


def checked(scores: Any, what: str, delta: float, confidence: float) -> np.ndarray:
    if not (0 <= delta < 1 and 0 < confidence < 1):
        raise ValueError(f"delta = {delta} and confidence = {confidence} must lie between 0 and 1")
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{what}: an array of scores, one per run, is needed")
    # A release that is not finite tells the attacker everything: the largest possible score.
    return np.nan_to_num(array, nan=1e300, posinf=1e300, neginf=-1e300)


def curve_of(present: np.ndarray, absent: np.ndarray) -> np.ndarray:
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
    a = checked(present, "present", delta, confidence).ravel()
    b = checked(absent, "absent", delta, confidence).ravel()
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
        _GDP if method == "gdp" else "", tested, curve=curve_of(a, b),
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

    s = checked(scores, "scores", delta, confidence)
    bits = np.asarray(included, dtype=bool)
    if s.ndim != 2 or bits.shape != s.shape:
        raise ValueError(f"scores {s.shape} and included {bits.shape} must both be (runs, k)")
    if np.ptp(s) == 0:
        raise ValueError("all scores are equal: the attack reads nothing from the release")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: choose one of {METHODS}")

    def convert(accuracy: float) -> float:
        if method == "gdp":
            return mu_epsilon(2 * float(norm.ppf(accuracy)), delta)
        return max(0.0, math.log((accuracy - delta) / (1 - accuracy))) if accuracy > delta else 0.0

    ceiling = convert(mean_lower_bound(np.ones(len(s)), confidence))
    if ceiling <= 0:
        raise ValueError(f"{len(s)} runs are too few for {100 * confidence:g} % confidence")
    bound = convert(mean_lower_bound(((s > threshold) == bits).mean(axis=1), confidence))
    return AuditResult(
        method, delta, confidence, len(s), bound, None, claimed, ceiling,
        _GDP if method == "gdp" else "", tested, curve=curve_of(s[bits], s[~bits]),
    )  # fmt: skip
