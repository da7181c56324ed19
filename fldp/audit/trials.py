"""Several canaries in each of many runs: the canaries of a run may depend on one another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fldp._checks import choice, real
from fldp.audit.bounds import bisected, gaussian_doubt, mu_epsilon
from fldp.audit.coins import METHODS, coin_curve, guess_counts, pooled
from fldp.audit.findings import AuditResult, counted
from fldp.audit.scores import check_coins, check_levels, check_threshold, clean, own_stream, ranked

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# With so many runs the share of right guesses a run is known well enough to bet on; below it the
# pooled guesses say more. Fixed beforehand, so that choosing costs nothing.
_MANY_RUNS = 100
# A stream of our own: no draw of a caller's generator, whatever its seed, repeats it.
_SHUFFLES = 0x5EF1E5
# How finely a mean in [0, 1] is searched: far below any sampling error.
_FINE = 2.0**-50


def mean_lower_bound(values: ArrayLike, confidence: float = 0.95) -> float:
    """Lower bound on the mean of independent values in [0, 1], by betting (Waudby-Smith, Ramdas).

    The capital of a gambler who bets that the mean is above p is a martingale when it is p; Ville's
    inequality rejects p once it reaches 1/α. It adapts to the variance and needs no distribution.
    The order of the values must not depend on the values: shuffle them if it may.

    Parameters
    ----------
    values : array
        At least one number in [0, 1].
    confidence : float
        In (0, 1).

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For other values.

    Examples
    --------
    >>> round(mean_lower_bound([0.9, 0.8, 1.0, 0.9] * 25), 2)
    0.85
    """
    real("confidence", confidence, 1)
    try:
        x = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise ValueError(f"values: an array of numbers is needed ({error})") from None
    if x.size == 0 or not (x.min() >= 0 and x.max() <= 1):
        raise ValueError("values must lie between 0 and 1, at least one of them")
    count = np.arange(1, x.size + 1)
    need = math.log(1 / (1 - confidence))
    # A mean of 1/2 and a variance of 1/4, as if one value had been seen already.
    means = (0.5 + np.cumsum(x)) / (count + 1)
    spread = (0.25 + np.cumsum((x - means) ** 2)) / (count + 1)
    bets = np.sqrt(2 * need / (x.size * np.concatenate([[0.25], spread[:-1]])))

    def ruined(p: float) -> bool:
        # At most half of what would lose everything is staked.
        stakes = np.minimum(bets, 0.5 / p)
        return bool(np.cumsum(np.log1p(stakes * (x - p))).max() >= need)

    return bisected(ruined, 0.0, 1.0, _FINE)[0]


@counted
def from_trials(
    scores: ArrayLike,
    included: ArrayLike,
    *,
    delta: float,
    confidence: float = 0.95,
    method: str = "one-run",
    threshold: float = 0.5,
    plan: PrivacyPlan | None = None,
    claimed: float | None = None,
    tested: str = "",
    seed: int = 0,
) -> AuditResult:
    """Many canaries per run: `scores` (runs, k), `included` (runs, k) fair independent coin flips.

    The canaries of all runs are pooled into one one-run audit: a coin moves a single run, so that
    all runs together are as private as each, and three runs of a hundred canaries already bound ε.
    One run holds k samples: this is the audit for small ε.

    "gdp" presumes that the noise is Gaussian. From 100 runs on it bets on the share of right
    guesses of a run, each canary being called present if its score exceeds `threshold`, fixed
    beforehand: under μ-GDP its mean is at most Φ(μ/2), whatever the canaries of a run share. The
    runs are shuffled first. Where the scores contradict one μ the result is that of "one-run" and
    its note says so.

    Parameters
    ----------
    scores, included : array
        (runs, k) each; `included` holds 0 and 1 (or booleans), and coins that are not fair are
        refused (false alarm 1e-6).
    delta, confidence, method, plan
        As in `one_run_epsilon`.
    threshold : float
        Of the betting alone.
    claimed : float, optional
        The ε that the accountant states; None takes that of `plan`, if there is one.
    tested : str
        What was run, for the statement.
    seed : int
        Of the order of runs and of equal scores.

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
    >>> coins = rng.random((3, 100)) < 0.5
    >>> scores = coins + rng.normal(0, 0.2, (3, 100))
    >>> found = from_trials(scores, coins, delta=1e-5, claimed=0.5)
    >>> found.violated
    True
    """
    s = clean(scores, "scores")
    if s.ndim != 2:
        raise ValueError(f"scores {s.shape} must be (runs, k): one row for each run")
    coins = check_coins(included, s.shape)
    choice("method", method, METHODS)
    check_levels(delta, confidence, method == "gdp")
    threshold = check_threshold(threshold)
    if np.ptp(s) == 0:
        raise ValueError("all scores are equal: the attack reads nothing from the release")
    if claimed is None and plan is not None:
        claimed = plan.epsilon()
    curve = coin_curve(s.ravel(), coins.ravel())
    if method == "gdp" and len(s) >= _MANY_RUNS and not _doubt(s, coins, seed):
        right = ((s > threshold) == coins).mean(axis=1)
        # Betting presumes that the order of the runs says nothing of their scores.
        order = own_stream(_SHUFFLES, seed).permutation(len(s))
        bound = _gaussian(mean_lower_bound(right[order], confidence), delta)
        ceiling = _gaussian(mean_lower_bound(np.ones(len(s)), confidence), delta)
        used = "betting-gdp"
        note = ""
    else:
        bound, ceiling, used, note = pooled(
            s.ravel(),
            coins.ravel(),
            guess_counts(s.size),
            delta=delta,
            confidence=confidence,
            method=method,
            plan=plan,
            seed=seed,
        )
    return AuditResult(
        used,
        delta,
        confidence,
        len(s),
        bound,
        claimed=claimed,
        ceiling=ceiling,
        tested=tested or f"{s.shape[1]} canaries in each of {len(s)} runs",
        note=note,
        curve=curve,
    )


def _doubt(scores: np.ndarray, coins: np.ndarray, seed: int) -> str:
    """As `gaussian_doubt`, of all canaries as if they were independent: too much doubt is safe."""
    ranks = ranked(scores.ravel(), seed)
    present = coins.ravel()
    return gaussian_doubt(ranks[present], ranks[~present])


def _gaussian(share: float, delta: float) -> float:
    """ε from the share of right guesses: under μ-GDP it is at most Φ(μ/2)."""
    from scipy.special import ndtri

    return mu_epsilon(2 * float(ndtri(share)), delta) if share > 0 else 0.0
