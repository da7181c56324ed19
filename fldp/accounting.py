"""Epsilon, delta and noise multiplier of what ran, composed over rounds and mechanisms.

The unit is what was clipped to norm C and noised once per round: a client's update. Local epochs,
batch sizes and client data sizes do not enter. `noise_multiplier` is always the noise's standard
deviation on the sum divided by C; under "replace-one" the sensitivity 2C is handled here. Other
mechanisms may stand beside the Gaussian (:class:`Laplace`, :class:`Approximate`,
:class:`Concentrated`), and clients that move together (`group`).

The default accountant, "pld", is our own (:mod:`fldp.pld`; closed forms where there are some, such
as that of Balle & Wang 2018 without sampling). Whatever it answers is an upper bound. For Gaussian
noise with z >= 0.05 epsilon is at most 0.1 % above the exact value, where it is at least a
hundredth of the privacy loss's standard deviation; nearer to 0 the looseness stays at 1e-5 of that.
Delta is as near as 0.1 % of epsilon makes it, and half a percent. Other mechanisms in a mix may add
a percent. What a grid cannot hold gets a looser bound.

Opacus' own accountants stand behind the same signature, without fixed-size cohorts, caps, known
participation, groups or sampled replace-one:

- "prv": an upper bound, up to 0.01 too high in absolute terms; refused above 2e6 grid points;
- "rdp": an upper bound, often 5-20 % too high, with a floor near 0.1 at delta = 1e-5;
- "gdp": a central-limit *approximation* that can lie far below the truth: it warns.
"""

from __future__ import annotations

import math

from fldp.account import ACCOUNTANTS, delta_of, epsilon_of
from fldp.calibration import cohort_for, noise_for, rounds_for
from fldp.checks import between, choice, real, whole
from fldp.divergences import privacy_curve, renyi, tradeoff
from fldp.events import (
    ADJACENCIES,
    SAMPLINGS,
    AnyEvent,
    Approximate,
    Concentrated,
    Event,
    Laplace,
    event_from_dict,
)
from fldp.exchange import from_opacus, to_dp_accounting
from fldp.gaussian import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    zcdp_epsilon,
    zcdp_rho,
)
from fldp.opacus import warn_if_approximate

__all__ = [
    "ACCOUNTANTS",
    "ADJACENCIES",
    "SAMPLINGS",
    "AnyEvent",
    "Approximate",
    "Concentrated",
    "Event",
    "Laplace",
    "delta",
    "delta_of",
    "epsilon",
    "epsilon_of",
    "event_from_dict",
    "from_opacus",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_mu",
    "max_rounds",
    "min_cohort",
    "noise_multiplier",
    "privacy_curve",
    "renyi",
    "to_dp_accounting",
    "tradeoff",
    "zcdp_epsilon",
    "zcdp_rho",
]


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

    Raises
    ------
    ValueError
        For settings that are out of range or do not go together, and beyond numerical reach.

    Examples
    --------
    >>> round(epsilon(noise_multiplier=1.0, delta=1e-5, rounds=100, sampling_rate=0.01), 2)
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
    >>> delta(noise_multiplier=1.0, epsilon=0.74, rounds=100, sampling_rate=0.01) < 1.1e-5
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

    Raises
    ------
    ValueError
        As :func:`epsilon`; and if even m = N does not meet the budget.

    Examples
    --------
    >>> min_cohort(epsilon=2.0, delta=1e-5, rounds=100, clients=3383, noise_on_mean=0.01)
    104
    """
    target, ratio = real("epsilon", epsilon), real("noise_on_mean", noise_on_mean)
    clients = whole("clients", clients)
    setting = sampling, adjacency, accountant
    smallest = cohort_for(target, delta, rounds, clients, ratio, setting)
    warn_if_approximate(accountant)
    return smallest
