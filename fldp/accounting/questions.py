"""T rounds of one Gaussian mechanism: epsilon, delta, and what to choose for a budget.

The guarantees of each accountant are stated in :mod:`fldp.accounting`.
"""

from __future__ import annotations

import math

from fldp._checks import between, choice, real, whole
from fldp.accounting.account import ACCOUNTANTS, delta_of, epsilon_of
from fldp.accounting.calibration import cohort_for, noise_for, rounds_for
from fldp.accounting.events import Event
from fldp.accounting.opacus import warn_if_approximate


def epsilon(
    *,
    noise_multiplier: float,
    delta: float,
    rounds: int,
    sampling_rate: float = 1.0,
    sampling: str = "poisson",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
    clients: int | None = None,
    cap: int | None = None,
    known: bool = False,
) -> float:
    """Epsilon that a run spends: an upper bound ("gdp": an approximation).

    Parameters
    ----------
    noise_multiplier
        z: noise standard deviation on the sum, in clip norms; 1e-9 to 1e12.
    delta
        0 to 1, well below 1/N. At 1 the answer is 0, at 0 it is infinite.
    rounds
        Global rounds, not local steps.
    sampling_rate
        The share q of clients per round, 0 to 1; at 0 nobody takes part, and the answer is 0.
    sampling
        "poisson" (each on its own), "fixed" (exactly q N without replacement; replace-one only) or
        "none" (q = 1).
    adjacency
        "add-or-remove", "zero-out" (the same number) or "replace-one"; see the module.
    accountant
        "pld", "prv", "rdp" or "gdp"; see the module.
    clients, cap
        The population, for "fixed" and for a hard `cap` on a Poisson cohort.
    known
        The adversary knows who took part, see :class:`Event`.

    Returns
    -------
    float
        Epsilon >= 0; infinite where nothing finite holds.

    Raises
    ------
    ValueError
        For settings that are out of range or do not go together, and beyond numerical reach.

    Examples
    --------
    >>> spent = epsilon(noise_multiplier=1.0, delta=1e-5, rounds=100,
    ...                 sampling_rate=0.01)
    >>> round(spent, 2)
    0.72
    """
    event = Event(noise_multiplier, sampling_rate, sampling, rounds, clients, cap, known)
    return epsilon_of([event], delta, adjacency, accountant)


def delta(
    *,
    noise_multiplier: float,
    epsilon: float,
    rounds: int,
    sampling_rate: float = 1.0,
    sampling: str = "poisson",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
    clients: int | None = None,
    cap: int | None = None,
    known: bool = False,
) -> float:
    """Delta that a run spends at this epsilon: an upper bound, in (0, 1].

    Parameters
    ----------
    noise_multiplier, rounds, sampling_rate, sampling, adjacency, clients, cap, known
        As in :func:`epsilon`.
    epsilon
        At least 0.
    accountant
        "pld" only: Opacus' accountants give epsilon alone.

    Returns
    -------
    float
        Delta; below 1e-300 it is reported as 1e-300. 0 where nobody takes part.

    Raises
    ------
    ValueError
        As :func:`epsilon`.

    Examples
    --------
    >>> spent = delta(noise_multiplier=1.0, epsilon=0.74, rounds=100,
    ...               sampling_rate=0.01)
    >>> spent < 1.1e-5
    True
    """
    if choice("accountant", accountant, ACCOUNTANTS) != "pld":
        raise ValueError(f"accountant is {accountant!r}: it gives epsilon only; use 'pld'")
    event = Event(noise_multiplier, sampling_rate, sampling, rounds, clients, cap, known)
    return delta_of([event], epsilon, adjacency)


def noise_multiplier(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    sampling_rate: float = 1.0,
    sampling: str = "poisson",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
    clients: int | None = None,
    cap: int | None = None,
    known: bool = False,
) -> float:
    """The noise multiplier z for a budget: `0.999 * epsilon <= epsilon(z) <= epsilon`.

    Next to epsilon = 0 the lower end may be missed; the upper one never is.

    Parameters
    ----------
    epsilon
        0 to 1e7; at 0 the z whose total variation is delta.
    delta
        In (0, 1): at 0 no Gaussian noise is enough, at 1 any is.
    rounds, sampling_rate, sampling, adjacency, accountant, clients, cap, known
        As in :func:`epsilon`; a `sampling_rate` of 0 is refused, since any noise does.

    Returns
    -------
    float
        z; its epsilon was computed, and is within the budget.

    Raises
    ------
    ValueError
        As :func:`epsilon`; for an epsilon that cannot be reached, with the smallest that can.

    Examples
    --------
    >>> round(noise_multiplier(epsilon=8.0, delta=1e-5, rounds=100), 3)
    6.002
    """
    target = between("epsilon", epsilon, math.inf)
    delta = real("delta", delta, 1)
    choice("accountant", accountant, ACCOUNTANTS)
    event = Event(1.0, sampling_rate, sampling, rounds, clients, cap, known)
    found = noise_for(target, delta, event, adjacency, accountant)
    warn_if_approximate(accountant)
    return found


def max_rounds(
    *,
    epsilon: float,
    delta: float,
    noise_multiplier: float,
    sampling_rate: float = 1.0,
    sampling: str = "poisson",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
    clients: int | None = None,
    cap: int | None = None,
    known: bool = False,
) -> int:
    """The most rounds that fit a budget, 0 if none; above 1e6 to one part in a million, from below.

    Parameters
    ----------
    epsilon
        At least 0.
    delta
        In (0, 1).
    noise_multiplier, sampling_rate, sampling, adjacency, accountant, clients, cap, known
        As in :func:`epsilon`; a `sampling_rate` of 0 is refused.

    Returns
    -------
    int
        T, from 0 up.

    Raises
    ------
    ValueError
        As :func:`epsilon`; and if 1e15 rounds fit.

    Examples
    --------
    >>> max_rounds(epsilon=8.0, delta=1e-5, noise_multiplier=6.01)
    100
    """
    target = between("epsilon", epsilon, math.inf)
    delta = real("delta", delta, 1)
    choice("accountant", accountant, ACCOUNTANTS)
    event = Event(noise_multiplier, sampling_rate, sampling, 1, clients, cap, known)
    most = rounds_for(target, delta, event, adjacency, accountant)
    warn_if_approximate(accountant)
    return most


def min_cohort(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    clients: int,
    noise_on_mean: float,
    sampling: str = "poisson",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
) -> int:
    """The smallest cohort m that meets a budget at a given noise on the *mean*.

    z and m grow together until epsilon fits (McMahan et al. 2018).

    Parameters
    ----------
    epsilon
        > 0.
    delta, rounds, sampling, adjacency, accountant
        As in :func:`epsilon`.
    clients
        The population N, of which m take part.
    noise_on_mean
        z/m, in clip norms: what the model tolerates, found without privacy at a small cohort.

    Returns
    -------
    int
        m, at most N.

    Raises
    ------
    ValueError
        As :func:`epsilon`; and if even m = N does not meet the budget.

    Examples
    --------
    >>> min_cohort(epsilon=2.0, delta=1e-5, rounds=100, clients=3383,
    ...            noise_on_mean=0.01)
    104
    """
    target, ratio = real("epsilon", epsilon), real("noise_on_mean", noise_on_mean)
    clients = whole("clients", clients)
    smallest = cohort_for(target, delta, rounds, clients, ratio, (sampling, adjacency, accountant))
    warn_if_approximate(accountant)
    return smallest
