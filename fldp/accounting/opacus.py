"""Opacus' own accountants behind our signature: prv, rdp and gdp.

They are loaded when asked for. What they cannot say is refused before they are: fixed-size cohorts,
caps, known participation, sampled replace-one, groups, other mechanisms than Gaussian noise.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from fldp.accounting.events import Event, Events
from fldp.accounting.gaussian_pairs import Subsampled
from fldp.accounting.guide import Guide

_CLASSES = {"prv": "PRVAccountant", "rdp": "RDPAccountant", "gdp": "GaussianAccountant"}

# Opacus' PRV accountant takes one transform of so many points in about a second, and has no limit
# of its own: at little noise it fills the memory or never ends.
MOST_PRV_POINTS = 1 << 21
# Its mesh, as `PRVAccountant` has it: the error in epsilon, and delta over that in delta.
_PRV_ERROR, _PRV_SHARE = 0.01, 1000


def warn_if_approximate(accountant: str) -> None:
    """A UserWarning for "gdp", which is no bound.

    Parameters
    ----------
    accountant
        One of `fldp.accounting.ACCOUNTANTS`; nothing happens for the others.

    Examples
    --------
    >>> warn_if_approximate("rdp")
    """
    if accountant == "gdp":
        warnings.warn(
            "accountant is 'gdp': a central-limit approximation, no guarantee; it can under-report "
            "eightfold",
            UserWarning,
            stacklevel=4,
        )


def epsilon_by_opacus(
    events: Events, delta: float, adjacency: str, accountant: str, group: int
) -> float:
    """Epsilon by one of Opacus' accountants.

    Parameters
    ----------
    events, delta, adjacency, group
        As in :func:`fldp.accounting.epsilon_of`; `delta` in (0, 1).
    accountant
        "prv", "rdp" or "gdp".

    Returns
    -------
    float
        Epsilon, never below 0.

    Raises
    ------
    ValueError
        For what the accountant cannot say, and where it fails.

    Examples
    --------
    >>> events = [Event(1.0, 0.01, "poisson", 99)]
    >>> 0.7 < epsilon_by_opacus(events, 1e-5, "zero-out", "rdp", group=1) < 2
    True
    """
    name = f"accountant is {accountant!r}"
    gaussians = _gaussians(events, adjacency, accountant, group)
    scale = 0.5 if adjacency == "replace-one" else 1.0
    history = [(scale * e.noise_multiplier, e.sampling_rate, e.rounds) for e in gaussians]
    if accountant == "prv":
        points = _prv_points(history, delta)
        if not points <= MOST_PRV_POINTS:
            raise ValueError(
                f"{name}: it would need {points:.3g} grid points, more than "
                f"{MOST_PRV_POINTS:.2g}, because epsilon is large; use accountant='pld'"
            )
    try:
        from opacus import accountants

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if accountant == "gdp" and _gdp_delta(*history[0]) <= delta:
                return 0.0  # its search for a root would find none
            tool = getattr(accountants, _CLASSES[accountant])()
            tool.history = history
            found = float(tool.get_epsilon(delta))
        if not math.isfinite(found):
            raise ArithmeticError(f"its epsilon is {found}")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name}: Opacus fails here ({reason}); use accountant='pld'") from error
    return max(0.0, found)


def _gdp_delta(z: float, q: float, rounds: int) -> float:
    """Delta at epsilon 0 by Opacus' central-limit approximation."""
    from opacus.accountants.analysis import gdp

    mu = gdp.compute_mu_poisson(steps=rounds, noise_multiplier=z, sample_rate=q)
    return float(gdp.delta_eps_mu(eps=0.0, mu=mu))


def _gaussians(events: Events, adjacency: str, accountant: str, group: int) -> list[Event]:
    name = f"accountant is {accountant!r}"
    gaussians = [e for e in events if isinstance(e, Event)]
    if len(gaussians) < len(events) or group > 1:
        raise ValueError(f"{name}: it knows Gaussian events and no groups; use accountant='pld'")
    drawn = [e for e in gaussians if not e.everyone]
    if any(e.sampling == "fixed" or e.cap is not None or e.known for e in drawn):
        raise ValueError(
            f"{name}: it knows no fixed-size cohorts, no caps and no known participation; use "
            "accountant='pld'"
        )
    if adjacency == "replace-one" and drawn:
        raise ValueError(f"{name}: it has no replace-one for sampling; use accountant='pld'")
    if accountant == "gdp" and len(gaussians) != 1:
        raise ValueError(f"{name}: it takes one kind of round only; use accountant='pld'")
    return gaussians


def _prv_points(history: Sequence[tuple[float, float, int]], delta: float) -> float:
    """About how many grid points Opacus' PRV accountant will take."""
    share = delta / _PRV_SHARE
    rounds = [([(1.0, Subsampled("remove", q, z))], n) for z, q, n in history]
    times = sum(n for _, n in rounds)
    reach = Guide(rounds, math.log(share / 4)).renyi_epsilon(math.log(share / 4))
    for parts, _ in rounds:
        log_share = math.log(share / (8 * times))
        reach = max(reach, Guide([(parts, 1)], log_share).renyi_epsilon(log_share))
    return 2 * (reach + 3) * math.sqrt(times * math.log(12 / share) / 2) / _PRV_ERROR
