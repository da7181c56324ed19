"""Many canaries, one run: a lower bound on ε from how many coins an attack guesses.

The test (Mahloujifar, Melis, Chaudhuri 2025, "Auditing f-differential privacy in one run").
m canaries take part by fair coins; an attack guesses r of the coins, T of them rightly. Let F(x) be
the largest true positive rate at false positive rate x that the claimed privacy allows: for
neighbours P, Q and any event, P(E) <= F(Q(E)), F concave. Flipping canary j's coin turns "j guessed
right, T >= t" into "j guessed wrong, T >= t - 1"; averaged over j and the coins, with Jensen,

    E[T 1{T >= t}] / m <= F(E[(r - T) 1{T >= t - 1}] / m)    for every t.

With G_t = P(T >= t) and Q_t = G_t + G_{t+1} + ... this reads

    (r - t + 1) G_{t-1} >= Q_t + m F⁻¹((Q_t + (t - 1) G_t) / m),

whose right side increases in Q_t and G_t, while G_c >= α implies Q_c >= α. Starting at
G_c = Q_c = α and taking each step with equality is therefore the smallest G_0 that c right guesses
with probability α allow. If that exceeds 1, then P(T >= c) < α under the claimed privacy. The
canaries may depend on one another through the mechanism in any way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fldp._checks import choice, whole
from fldp.audit.bounds import bisected, gaussian_doubt, mu_epsilon
from fldp.audit.findings import AuditResult, counted
from fldp.audit.limits import ApproximateCurve, GaussianCurve, TradeOff, plan_curve
from fldp.audit.scores import check_coins, check_levels, clean, curve_of, ranked

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

METHODS = ("one-run", "gdp", "plan")
# By default a quarter of the canaries are guessed, but at least 20.
_SHARE = 4
_FEWEST = 20
# A sixteenth and fewer are guessed as well once that many are enough for a bound of their own, for
# which each count pays with an equal part of α.
_FEWEST_MORE = 100
# Largest ε and μ that are looked for, and how finely.
_LARGEST = 60.0
_FINE = 1e-6
# A step that adds less than this to a probability never decides: stopping early rejects less.
_NOTHING = 1e-12
# A probability that is above 1 by more than any rounding of these sums.
_MORE_THAN_ONE = 1 + 1e-9
# The noise multipliers of a plan's family: up to 16 times and down to 1/16 of the plan's.
_SCALES = math.log(16)
# Their logarithmic scale is searched to 2 %.
_PRECISE = 2e-2
# How closely two statements of δ must agree to be one.
_SAME = 1e-9


def refutes(curve: TradeOff, canaries: int, guesses: int, correct: int, alpha: float) -> bool:
    """Whether so many right guesses are too unlikely under a trade-off curve: see above.

    Parameters
    ----------
    curve : TradeOff
        What the claimed privacy allows.
    canaries, guesses, correct : int
        How many took part by a coin, how many coins were guessed, how many of these rightly.
    alpha : float
        The probability that is too small.

    Returns
    -------
    bool
    """
    tail = total = alpha
    for t in range(correct, 0, -1):
        right = (total + (t - 1) * tail) / canaries
        if right >= _MORE_THAN_ONE:
            return True
        needed = (total + canaries * curve.inverse(min(right, 1.0))) / (guesses - t + 1)
        if needed > _MORE_THAN_ONE:
            return True
        # Where the tail does not grow it never will: the next step asks for the same, or less.
        if needed - tail < _NOTHING:
            return False
        tail = needed
        total += tail
    return False


def _largest(refuted: Callable[[float], bool]) -> float:
    """The largest value, up to `_LARGEST`, that is refuted; 0 when none is."""
    if not refuted(0.0):
        return 0.0
    return bisected(refuted, 0.0, _LARGEST, _FINE)[0]


def _binomial_refutes(
    epsilon: float, canaries: int, guesses: int, correct: int, delta: float, alpha: float
) -> bool:
    """The same question by Theorem 5.2 of Steinke, Nasr and Jagielski (2023), for (ε, δ)-DP."""
    from scipy.stats import binom

    q = 1 / (1 + math.exp(-epsilon))
    steps = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, q))
    worst = float((steps / np.arange(1, correct + 1)).max()) if correct else 0.0
    return float(binom.sf(correct - 1, guesses, q)) + 2 * canaries * delta * worst < alpha


def one_run_epsilon(
    canaries: int,
    guesses: int,
    correct: int,
    *,
    delta: float,
    confidence: float = 0.95,
    method: str = "one-run",
    plan: PrivacyPlan | None = None,
) -> float:
    """Lower bound on ε from a single run: of so many guesses, fixed beforehand, so many were right.

    "one-run" takes the larger of two bounds on one and the same probability, so that neither is
    paid for: Theorem 5.2 of Steinke, Nasr and Jagielski (2023), and this module's test.

    Parameters
    ----------
    canaries : int
        How many took part by a fair coin each.
    guesses, correct : int
        How many coins were guessed, and how many of these rightly.
    delta : float
        At which ε is bounded, in [0, 1); above 0 for "gdp"; the plan's own δ for "plan".
    confidence : float
        Probability with which the bound holds, in (0, 1).
    method : str
        "one-run": nothing is presumed of the noise. "gdp": the noise is Gaussian. "plan": the
        trade-off curve is the plan's at some noise multiplier.
    plan : PrivacyPlan, optional
        For "plan" only.

    Returns
    -------
    float
        At least 0.

    Raises
    ------
    ValueError
        For counts that do not fit one another, and levels out of range.

    Examples
    --------
    >>> round(one_run_epsilon(1000, 100, 95, delta=1e-5), 3)
    2.165
    >>> round(one_run_epsilon(1000, 100, 95, delta=1e-5, method="gdp"), 2)
    3.32
    """
    choice("method", method, METHODS)
    check_levels(delta, confidence, method == "gdp")
    m = whole("canaries", canaries)
    r = whole("guesses", guesses)
    c = whole("correct", correct, 0)
    if not c <= r <= m:
        raise ValueError(f"need correct <= guesses <= canaries, got {correct}, {guesses}, {m}")
    alpha = 1 - confidence
    if method == "gdp":
        return mu_epsilon(_largest(lambda mu: refutes(GaussianCurve(mu), m, r, c, alpha)), delta)
    if method == "plan":
        return _plan_epsilon(_needed(plan, delta), m, r, c, alpha)

    def refuted(epsilon: float) -> bool:
        curve = ApproximateCurve(epsilon, delta)
        return refutes(curve, m, r, c, alpha) or _binomial_refutes(epsilon, m, r, c, delta, alpha)

    return _largest(refuted)


def _needed(plan: PrivacyPlan | None, delta: float) -> PrivacyPlan:
    if plan is None:
        raise ValueError('method "plan" needs the plan whose curve is tested: give plan=')
    if not math.isclose(plan.delta, delta, rel_tol=_SAME):
        raise ValueError(f"delta is {delta:g}, the plan's is {plan.delta:g}: give the plan's")
    return plan


def _plan_epsilon(plan: PrivacyPlan, m: int, r: int, c: int, alpha: float) -> float:
    """ε of the member of the plan's family with the least noise that is refuted; 0 for none."""

    def member(log_scale: float) -> PrivacyPlan:
        z = plan.noise_multiplier * math.exp(log_scale)
        return dataclasses.replace(plan, noise_multiplier=z)

    def stands(log_scale: float) -> bool:
        try:
            curve = plan_curve(member(log_scale))
        except ValueError:  # beyond what the accountant can answer nothing is refuted
            return True
        return not refutes(curve, m, r, c, alpha)

    # More noise is a stronger claim and easier to refute. The plan itself is asked first.
    ends = (-_SCALES, 0.0)
    if stands(0.0):
        ends = (0.0, _SCALES)
        if stands(_SCALES):
            return 0.0
    _, falls = bisected(stands, *ends, _PRECISE)
    return float(member(falls).epsilon())


def guess_counts(canaries: int) -> list[int]:
    """How many coins are guessed by default, one test each: fixed by the number of canaries.

    Parameters
    ----------
    canaries : int
        k.

    Returns
    -------
    list of int
        At most k each, falling.

    Examples
    --------
    >>> guess_counts(50), guess_counts(1000), guess_counts(64_000)
    ([20], [250], [16000, 4000, 1000, 250])
    """
    counts = [min(canaries, max(_FEWEST, canaries // _SHARE))]
    while counts[-1] // _SHARE >= _FEWEST_MORE:
        counts.append(counts[-1] // _SHARE)
    return counts


def guessed_right(order: np.ndarray, coins: np.ndarray, guesses: int) -> int:
    """Right guesses when the ⌈r/2⌉ highest ranks are called present, the ⌊r/2⌋ lowest absent.

    Parameters
    ----------
    order : numpy.ndarray
        Ranks of the canaries (k,).
    coins : numpy.ndarray
        Who took part (k,), booleans.
    guesses : int
        r.

    Returns
    -------
    int
    """
    by_rank = coins[np.argsort(order)]
    high = (guesses + 1) // 2
    low = guesses - high
    return int(by_rank[by_rank.size - high :].sum()) + int((~by_rank[:low]).sum())


def pooled(
    scores: np.ndarray,
    coins: np.ndarray,
    counts: list[int],
    *,
    delta: float,
    confidence: float,
    method: str,
    plan: PrivacyPlan | None,
    seed: int,
) -> tuple[float, float, str, str]:
    """(bound, ceiling, method that was used, note) of all canaries together.

    Canaries of several runs are canaries of one larger mechanism, which runs them all: a coin moves
    one of the runs only, so that the larger mechanism is as private as each.

    Parameters
    ----------
    scores, coins : numpy.ndarray
        (k,) of all canaries.
    counts : list of int
        How many coins are guessed; each count is a test that pays its part of α.
    delta, confidence, method, plan
        As in `one_run_epsilon`.
    seed : int
        Of the order of equal scores.

    Raises
    ------
    ValueError
        For constant scores, and too few canaries.
    """
    if np.ptp(scores) == 0:
        raise ValueError("all scores are equal: the attack reads nothing from the release")
    ranks = ranked(scores, seed)
    note = ""
    if method == "gdp" and 0 < coins.sum() < coins.size:
        note = gaussian_doubt(ranks[coins], ranks[~coins])
    used = "one-run" if note else method
    level = 1 - (1 - confidence) / len(counts)

    def bound_of(guesses: int, correct: int) -> float:
        return one_run_epsilon(
            scores.size, guesses, correct, delta=delta, confidence=level, method=used, plan=plan
        )

    ceiling = max(bound_of(count, count) for count in counts)
    if ceiling == 0:
        raise ValueError(
            f"{counts[0]} guesses of {scores.size} canaries are too few: even a perfect attack "
            "would show nothing; add canaries or runs"
        )
    bound = max(bound_of(count, guessed_right(ranks, coins, count)) for count in counts)
    return bound, ceiling, f"one-run-{used}" if used != "one-run" else used, note


@counted
def one_run(
    scores: ArrayLike,
    included: ArrayLike,
    *,
    guesses: int | None = None,
    delta: float,
    confidence: float = 0.95,
    method: str = "one-run",
    plan: PrivacyPlan | None = None,
    claimed: float | None = None,
    tested: str = "",
    seed: int = 0,
) -> AuditResult:
    """One-run audit: `scores` (k,) of k canaries, each `included` by an independent fair coin.

    The ⌈r/2⌉ highest scores are guessed present, the ⌊r/2⌋ lowest absent, equal scores in a random
    order. The number r of guesses is fixed beforehand.

    Parameters
    ----------
    scores, included : array
        (k,) each; `included` holds 0 and 1 (or booleans), and coins that are not fair are refused
        (false alarm 1e-6).
    guesses : int, optional
        r; None takes a quarter of k (at least 20), and from 1,600 canaries on also a sixteenth,
        and so on, each paying with its part of α.
    delta, confidence, method, plan
        As in `one_run_epsilon`. Where the scores contradict "gdp" the result is that of "one-run"
        and its note says so.
    claimed : float, optional
        The ε that the accountant states; None takes that of `plan`, if there is one.
    tested : str
        What was run, for the statement.
    seed : int
        Of the order of equal scores.

    Returns
    -------
    AuditResult

    Raises
    ------
    ValueError
        For coins that are not fair, constant scores, and too few canaries.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> coins = rng.random(1000) < 0.5
    >>> scores = coins + rng.normal(0, 0.2, 1000)
    >>> found = one_run(scores, coins, delta=1e-5, claimed=1.0)
    >>> found.violated
    True
    """
    s = clean(scores, "scores").ravel()
    coins = check_coins(np.ravel(included), s.shape)
    choice("method", method, METHODS)
    check_levels(delta, confidence, method == "gdp")
    counts = guess_counts(s.size)
    if guesses is not None:
        counts = [whole("guesses", guesses)]
        if counts[0] > s.size:
            raise ValueError(f"guesses is {guesses}, but there are {s.size} canaries")
    if claimed is None and plan is not None:
        claimed = plan.epsilon()
    bound, ceiling, used, note = pooled(
        s, coins, counts, delta=delta, confidence=confidence, method=method, plan=plan, seed=seed
    )
    return AuditResult(
        used,
        delta,
        confidence,
        1,
        bound,
        claimed=claimed,
        ceiling=ceiling,
        tested=tested or f"{s.size} canaries, guesses: {', '.join(map(str, counts))}",
        note=note,
        curve=coin_curve(s, coins),
    )


def coin_curve(scores: np.ndarray, coins: np.ndarray) -> np.ndarray:
    """The measured curve (2, k) of canaries with coins; empty when all coins are the same.

    Parameters
    ----------
    scores, coins : numpy.ndarray
        (k,) each; `coins` are booleans.

    Returns
    -------
    numpy.ndarray
    """
    if not 0 < coins.sum() < coins.size:
        return np.zeros((2, 0))
    return curve_of(scores[coins], scores[~coins])
