"""The scores and the coins of an audit: what they must be before any bound is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fldp._checks import between, real, shown, whole

# A stream of our own: no draw of a caller's generator, whatever its seed, repeats it.
_TIES = 0x7469E5
# Scores that are not numbers tell the attacker everything: they stand above all others.
_ABOVE_ALL = 1e300
# Fair coins are refused with at most this probability, all tests together.
_UNFAIR = 1e-6


def check_levels(delta: float, confidence: float, gaussian: bool = False) -> None:
    """Refuse a δ outside [0, 1) and a confidence outside (0, 1).

    Parameters
    ----------
    delta, confidence : float
        What is checked.
    gaussian : bool
        Whether δ must be above 0: Gaussian DP has no ε there.

    Raises
    ------
    ValueError
        It says what to give.
    """
    real("confidence", confidence, 1)
    if between("delta", delta) == 1:
        raise ValueError("delta is 1: give a number in [0, 1)")
    if gaussian and delta == 0:
        raise ValueError(
            "delta is 0: Gaussian DP has no finite ε there; give a δ above 0, or a method that "
            "presumes no Gaussian"
        )


def check_threshold(threshold: Any) -> float:
    """A threshold as a float.

    Parameters
    ----------
    threshold : float
        What a caller gave.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For what is no number, and NaN, of which nothing is above and nothing below.
    """
    try:
        value = math.nan if isinstance(threshold, bool) else float(threshold)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if math.isnan(value):
        raise ValueError(f"threshold is {shown(threshold)}: give a number")
    return value


def clean(scores: ArrayLike, what: str) -> np.ndarray:
    """Scores as float64; NaN and +inf become the largest score of all, -inf the smallest.

    Parameters
    ----------
    scores : array
        Of any shape.
    what : str
        Their name, for a message.

    Returns
    -------
    numpy.ndarray
        Of the same shape.

    Raises
    ------
    ValueError
        For what is no array of numbers, or empty.
    """
    try:
        array = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: an array of numbers is needed ({error})") from None
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{what}: an array of scores, one per run, is needed")
    return np.nan_to_num(array, nan=_ABOVE_ALL, posinf=_ABOVE_ALL, neginf=-_ABOVE_ALL)


def one_per_run(scores: ArrayLike, what: str) -> np.ndarray:
    """Scores of independent runs.

    Parameters
    ----------
    scores : array
        One a run.
    what : str
        Their name, for a message.

    Returns
    -------
    numpy.ndarray
        (n,).

    Raises
    ------
    ValueError
        For a matrix of several scores a run.
    """
    array = clean(scores, what)
    if max(array.shape) != array.size:
        raise ValueError(
            f"{what} has shape {array.shape}: one score per run is needed, and those of one run "
            "are not independent; give (runs, k) scores to audit.from_trials"
        )
    return array.ravel()


def own_stream(purpose: int, seed: int | None) -> np.random.Generator:
    """Random numbers of ours alone, which no caller's `default_rng(seed)` repeats.

    Parameters
    ----------
    purpose : int
        Each has a stream to itself.
    seed : int, optional
        At least 0. None: from the operating system.

    Returns
    -------
    numpy.random.Generator
    """
    return np.random.default_rng(None if seed is None else [purpose, whole("seed", seed, 0)])


def ranked(scores: np.ndarray, seed: int) -> np.ndarray:
    """Ranks 0, 1, 2, ... of the scores; equal scores are put in a random order.

    A release is as private after an independent coin as before it: ties lose no sample, and every
    rank is a threshold whose error rate has a known law, however discrete the scores are.

    Parameters
    ----------
    scores : numpy.ndarray
        (n,).
    seed : int
        Of the order of equal scores.

    Returns
    -------
    numpy.ndarray
        (n,), a permutation.
    """
    coins = own_stream(_TIES, seed).random(scores.size)
    order = np.lexsort((coins, scores))
    ranks = np.empty(scores.size)
    ranks[order] = np.arange(scores.size)
    return ranks


def curve_of(present: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """False and true positive rates (2, k) over all thresholds, from (0, 0) to (1, 1)."""
    from sklearn.metrics import roc_curve

    truth = np.repeat([True, False], [present.size, absent.size])
    scores = np.concatenate([present, absent])
    # Every threshold is kept: a drawn curve may otherwise cut the corner of a step.
    false_alarms, hits, _ = roc_curve(truth, scores, drop_intermediate=False)
    return np.stack([false_alarms, hits])


def check_coins(included: ArrayLike, shape: Sequence[int]) -> np.ndarray:
    """The coins of the canaries as booleans, checked: 0 and 1 only, fair, not repeated.

    Their number is compared with what fair coins give, in total, per canary and per run, by exact
    binomial tests that together refuse fair coins with probability 1e-6.

    Parameters
    ----------
    included : array
        Who took part: of k canaries, or (runs, k).
    shape : sequence of int
        What shape it must have.

    Returns
    -------
    numpy.ndarray
        Booleans.

    Raises
    ------
    ValueError
        It says what is wrong with them.
    """
    from scipy.stats import binom

    values = np.asarray(included)
    if tuple(values.shape) != tuple(shape):
        raise ValueError(f"included has shape {values.shape}, the scores {tuple(shape)}")
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        odd = shown(values.ravel()[:4].tolist())
        raise ValueError(
            f"included begins with {odd}: a coin is 0 or 1 (False or True), nothing else"
        )
    coins = values.astype(bool)
    groups = [coins.reshape(1, -1)]
    if coins.ndim == 2:
        groups += [coins, coins.T]
    # All coins, those of each canary, those of each run, and whether two runs repeat.
    alpha = _UNFAIR / (len(groups) + 1)
    for rows in groups:
        heads, tosses = rows.sum(axis=1), rows.shape[1]
        tail = np.minimum(binom.cdf(heads, tosses, 0.5), binom.sf(heads - 1, tosses, 0.5))
        worst = int(tail.argmin())
        if 2 * tail[worst] * len(rows) < alpha:
            raise ValueError(
                f"{heads[worst]} of {tosses} coins say present: fair coins do so with probability "
                "below 1e-6; draw each canary's coin with probability 1/2, independently"
            )
    if coins.ndim == 2 and len(coins) > 1:
        repeats = len(coins) - len(np.unique(coins, axis=0))
        if repeats and len(coins) ** 2 / 2 * 0.5 ** coins.shape[1] < alpha:
            raise ValueError("two runs have the same coins: draw new ones for every run")
    return coins
