"""Two samples of scores, one lower bound on ε: runs with the canary against runs without it.

Every function states at which confidence its bound holds and under which presumption; choosing a
threshold, a canary or a method after seeing the scores is paid for.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fldp._checks import choice, real, whole
from fldp._text import down
from fldp.accounting import gaussian_epsilon
from fldp.audit.findings import AuditResult, counted
from fldp.audit.scores import check_levels, check_threshold, curve_of, one_per_run, ranked

METHODS = ("clopper-pearson", "gdp")
# A Gaussian sum fails the check of one μ with at most this probability, and loses only power.
_DOUBT = 0.01
# The fewest errors, and right answers, at a rank for which an error rate is about normal.
_COUNTED = 8
# Thresholds that are tried on the first half of the runs, at quantiles of its scores.
_TRIED = 41
# More runs than this nobody makes.
_MOST_RUNS = 10**9


def bisected(
    holds: Callable[[float], bool], low: float, high: float, width: float
) -> tuple[float, float]:
    """Where a question that holds at `low`, and does not at `high`, changes its answer.

    Parameters
    ----------
    holds : callable
        The question.
    low, high : float
        The ends, which are not asked again.
    width : float
        How far apart the ends may be left.

    Returns
    -------
    (float, float)
        Ends at most so far apart, at the first of which it holds.

    Examples
    --------
    >>> bisected(lambda x: x * x < 2, 0.0, 2.0, 0.25)
    (1.25, 1.5)
    """
    while high - low > width:
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low, high


def mu_epsilon(mu: float, delta: float) -> float:
    """ε of μ-Gaussian DP at δ; 0 for μ <= 0.

    Parameters
    ----------
    mu : float
        μ.
    delta : float
        δ, in (0, 1).

    Returns
    -------
    float
    """
    return float(gaussian_epsilon(mu, delta)) if mu > 0 else 0.0


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
    turns both into μ, then ε (Nasr et al. 2023): tighter, right only if the noise is Gaussian.

    Parameters
    ----------
    false_positives, negatives : int
        How many of the runs without the canary were called "present".
    false_negatives, positives : int
        How many of the runs with it were called "absent".
    delta : float
        At which ε is bounded, in [0, 1); above 0 for "gdp".
    confidence : float
        Probability with which the bound holds, in (0, 1).
    method : str
        "clopper-pearson" or "gdp".

    Returns
    -------
    float
        At least 0.

    Raises
    ------
    ValueError
        For more errors than runs, and for levels out of range.

    Examples
    --------
    >>> round(from_counts(10, 1000, 100, 1000, delta=1e-5), 4)
    3.872
    """
    choice("method", method, METHODS)
    check_levels(delta, confidence, method == "gdp")
    alpha = (1 - confidence) / 2
    fpr = _rate("false_positives", false_positives, "negatives", negatives, alpha)
    fnr = _rate("false_negatives", false_negatives, "positives", positives, alpha)
    return _epsilon(fpr, fnr, delta, method)


def _rate(name: str, errors: int, total: str, trials: int, alpha: float) -> float:
    """Clopper-Pearson: an error rate is at most this with probability 1 - alpha."""
    from scipy.special import betaincinv

    if whole(name, errors, 0) > whole(total, trials):
        raise ValueError(f"{name} is {errors}, above {total} = {trials}")
    if errors == trials:
        return 1.0
    return float(betaincinv(int(errors) + 1, int(trials) - int(errors), 1 - alpha))


def _epsilon(fpr: float, fnr: float, delta: float, method: str) -> float:
    from scipy.special import ndtri

    if method == "gdp":
        return mu_epsilon(-float(ndtri(fpr) + ndtri(fnr)), delta)
    found = [0.0]
    for first, second in ((fpr, fnr), (fnr, fpr)):
        if 1 - delta - second > 0:
            found.append(math.log((1 - delta - second) / first))
    return max(found)


class _Cut(NamedTuple):
    """A threshold at a fixed rank of the runs of one world, and the errors on both sides."""

    errors_here: int
    runs_here: int
    errors_there: int
    runs_there: int


def _rank_numbers(runs: int) -> list[int]:
    """0, 1, 2, 4, ... up to half the runs: from the far tail to the middle, fixed beforehand."""
    numbers = [0]
    rank = 1
    while rank <= runs // 2:
        numbers.append(rank)
        rank *= 2
    return numbers


def _cuts(present: np.ndarray, absent: np.ndarray) -> list[_Cut]:
    """Cuts at the fixed ranks of the absent runs and, mirrored, of the present ones."""
    found = []
    for there, here in ((present, absent), (-absent, -present)):
        descending = np.sort(here)[::-1]
        above = np.sort(there)
        for rank in _rank_numbers(here.size):
            missed = int(np.searchsorted(above, descending[rank], "right"))
            found.append(_Cut(rank, here.size, missed, there.size))
    return found


def gaussian_doubt(present: np.ndarray, absent: np.ndarray) -> str:
    """Why the curve of these (distinct) scores is not that of one Gaussian μ; "" when it may be.

    Every rank gives an estimate of μ with a standard error (delta method); two that differ too far
    contradict it. Samples overlap, so that the test is on the safe side: Gaussian scores fail with
    a probability below 1 %.

    Parameters
    ----------
    present, absent : numpy.ndarray
        Scores (n,) and (m,), all of them distinct.

    Returns
    -------
    str
        Empty where there is no doubt.
    """
    from scipy.special import ndtri

    found = [_mu_and_variance(cut) for cut in _cuts(present, absent) if _has_enough(cut)]
    if len(found) < 2:
        return ""
    mu, variance = np.array(found).T
    gaps = (mu[:, None] - mu) / np.sqrt(variance[:, None] + variance)
    if gaps.max() <= -ndtri(_DOUBT / (len(mu) * (len(mu) - 1))):
        return ""
    high, low = np.unravel_index(int(gaps.argmax()), gaps.shape)
    return (
        f"the scores do not look Gaussian (μ is about {mu[high]:.2g} at one threshold and "
        f"{mu[low]:.2g} at another), so the Gaussian method was not used"
    )


def _has_enough(cut: _Cut) -> bool:
    """Whether both rates are far enough from 0 and 1 for a normal approximation."""
    here = min(cut.errors_here, cut.runs_here - cut.errors_here)
    there = min(cut.errors_there, cut.runs_there - cut.errors_there)
    return min(here, there) >= _COUNTED


def _mu_and_variance(cut: _Cut) -> tuple[float, float]:
    from scipy.special import ndtri

    mu = variance = 0.0
    pairs = ((cut.errors_here, cut.runs_here), (cut.errors_there, cut.runs_there))
    for errors, runs in pairs:
        # Half an error more keeps the quantile finite.
        rate = (errors + 0.5) / (runs + 1)
        quantile = float(ndtri(rate))
        density = math.exp(-quantile * quantile / 2) / math.sqrt(2 * math.pi)
        mu -= quantile
        variance += rate * (1 - rate) / (runs * density**2)
    return mu, variance


@counted
def from_scores(
    present: ArrayLike,
    absent: ArrayLike,
    *,
    delta: float,
    confidence: float = 0.95,
    method: str = "clopper-pearson",
    threshold: float | str = "simultaneous",
    claimed: float | None = None,
    tested: str = "",
    seed: int = 0,
) -> AuditResult:
    """Two-sample audit: independent scores of runs with, and of runs without, the canary.

    A high score says "present"; equal scores are put in a random order, a score that is NaN stands
    above all. `threshold` decides how the test is chosen, honestly in each case:

    - a number: fixed before the runs.
    - "simultaneous": the thresholds at K fixed ranks (0, 1, 2, 4, ... up to half the runs) of the
      absent scores, mirrored: of the present ones, each at confidence 1 - α/K. At a rank the error
      rate follows a Beta law whose quantile is the Clopper-Pearson bound, so that choosing the
      threshold on these scores costs only K.
    - "hold-out": the best threshold on the first half of the runs, counted on the second half.

    Parameters
    ----------
    present, absent : array
        Scores (n,) and (m,) of independent runs, one score a run.
    delta : float
        At which ε is bounded, in [0, 1); above 0 for "gdp".
    confidence : float
        Probability with which the bound holds, in (0, 1).
    method : str
        "clopper-pearson" presumes nothing of the noise. "gdp" presumes that it is Gaussian; where
        the scores contradict that (no single μ fits all ranks) the result is that of
        "clopper-pearson" and its note says so.
    threshold : float or str
        See above.
    claimed : float, optional
        The ε that the accountant states for what was run; None: nothing is claimed.
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
        For constant scores, for several scores a run, and for so few runs that no attack could
        show ε > 0.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> present, absent = rng.normal(3, 1, 500), rng.normal(0, 1, 500)
    >>> found = from_scores(present, absent, delta=1e-5, claimed=1.0)
    >>> found.violated
    True
    """
    a = one_per_run(present, "present")
    b = one_per_run(absent, "absent")
    check_levels(delta, confidence, method == "gdp")
    choice("method", method, METHODS)
    pooled = np.concatenate([a, b])
    if np.ptp(pooled) == 0:
        raise ValueError("all scores are equal: the attack reads nothing from the release")
    if isinstance(threshold, str):
        choice("threshold", threshold, ("simultaneous", "hold-out"))
    else:
        threshold = check_threshold(threshold)
    present_ranks, absent_ranks = np.split(ranked(pooled, seed), [a.size])
    note = gaussian_doubt(present_ranks, absent_ranks) if method == "gdp" else ""
    used = "clopper-pearson" if note else method

    def at(confidence: float) -> Callable[..., float]:
        return lambda *counts: from_counts(*counts, delta=delta, confidence=confidence, method=used)

    if threshold == "simultaneous":
        cuts = _cuts(present_ranks, absent_ranks)
        bound_of = at(1 - (1 - confidence) / len(cuts))
        bound = max(bound_of(*cut) for cut in cuts)
        ceiling = bound_of(0, b.size, 0, a.size)
    elif threshold == "hold-out":
        bound, ceiling = _hold_out(present_ranks, absent_ranks, at(confidence))
    else:
        bound_of = at(confidence)
        bound = bound_of(int((b > threshold).sum()), b.size, int((a <= threshold).sum()), a.size)
        ceiling = bound_of(0, b.size, 0, a.size)
    if ceiling <= 0:
        raise ValueError(
            f"{min(a.size, b.size)} runs are too few for {down(100 * confidence)} % confidence: "
            "even a perfect attack would show nothing; take more runs or less confidence"
        )
    return AuditResult(
        used,
        delta,
        confidence,
        a.size + b.size,
        bound,
        claimed=claimed,
        ceiling=ceiling,
        tested=tested,
        note=note,
        curve=curve_of(a, b),
    )


def _hold_out(a: np.ndarray, b: np.ndarray, bound_of: Callable[..., float]) -> tuple[float, float]:
    """The best of 41 cuts on the first halves, counted on the second; and the ceiling."""

    def bound_at(cut: float, present: np.ndarray, absent: np.ndarray) -> float:
        false_positives = int((absent > cut).sum())
        false_negatives = int((present <= cut).sum())
        return bound_of(false_positives, absent.size, false_negatives, present.size)

    first = (a[: a.size // 2], b[: b.size // 2])
    second = (a[a.size // 2 :], b[b.size // 2 :])
    if min(first[0].size, first[1].size) == 0:
        return 0.0, 0.0
    # Chosen on one half, counted on the other: the choice costs nothing but half of the runs.
    cuts = np.quantile(np.concatenate(first), np.linspace(0, 1, _TRIED))
    best = max(cuts.tolist(), key=lambda cut: bound_at(cut, *first))
    return bound_at(best, *second), bound_of(0, second[1].size, 0, second[0].size)


def runs_needed(
    epsilon: float, *, delta: float, confidence: float = 0.95, method: str = "clopper-pearson"
) -> int:
    """Fewest runs per world with which `from_scores` could show `epsilon` at all.

    That is what a perfect attack needs; a real one needs more.

    Parameters
    ----------
    epsilon : float
        What is to be shown, above 0.
    delta : float
        At which, in [0, 1); above 0 for "gdp".
    confidence : float
        In (0, 1).
    method : str
        "clopper-pearson" or "gdp".

    Returns
    -------
    int

    Raises
    ------
    ValueError
        When more than a billion runs per world would be needed.

    Examples
    --------
    >>> runs_needed(2.7, delta=1e-5), runs_needed(5.0, delta=1e-5)
    (98, 996)
    """
    wanted = real("epsilon", epsilon)
    choice("method", method, METHODS)
    check_levels(delta, confidence, method == "gdp")

    def ceiling(runs: int) -> float:
        level = 1 - (1 - confidence) / (2 * len(_rank_numbers(runs)))
        return from_counts(0, runs, 0, runs, delta=delta, confidence=level, method=method)

    many = 1
    while ceiling(many) < wanted:
        many *= 2
        if many > _MOST_RUNS:
            raise ValueError(f"epsilon is {epsilon:g}: no number of runs below 10^9 shows it")
    between = range(many // 2 + 1, many)
    return between.start + bisect_left(between, True, key=lambda runs: ceiling(runs) >= wanted)
