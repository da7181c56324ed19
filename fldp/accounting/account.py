"""The account: what a list of events spends together, by the best bound at hand.

Each kind of event becomes a round with a dominating pair (:mod:`fldp.accounting.pairs`), and the
kernel (:mod:`fldp.accounting.pld`) composes them. Plain Gaussians, Gaussians with known
participation, and zCDP alone have closed forms and take no kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fldp._checks import MOST_RHO, between, choice
from fldp._settings import ACCOUNTANT
from fldp.accounting import opacus, pld
from fldp.accounting.composition import disclosed, mu_of, prepared, rho_of, rounds_of
from fldp.accounting.events import AnyEvent, Approximate, Concentrated, Event, Laplace
from fldp.accounting.gaussian import (
    LEAST_DELTA,
    gaussian_delta,
    gaussian_epsilon,
    known_delta,
    known_epsilon,
    zcdp_epsilon,
    zcdp_log_deltas,
)

ACCOUNTANTS = ACCOUNTANT.allowed

# Room for the quadrature behind a bound by moments.
_MARGIN = 1e-3
# Pure steps that spend less than this share of an epsilon are added up when delta is asked for.
_LITTLE = 1e-6


def _closed(events: Sequence[AnyEvent]) -> tuple[list[Event], Event | None] | None:
    """Plain Gaussians and at most one kind of known participation, or None if there is more."""
    plain: list[Event] = []
    known: dict[Event, int] = {}
    for event in events:
        if not isinstance(event, Event) or not (event.everyone or event.known):
            return None
        if event.everyone:
            plain.append(event)
        else:
            one = Event(event.noise_multiplier, event.sampling_rate, "poisson", known=True)
            known[one] = known.get(one, 0) + event.rounds
    if len(known) > 1:
        return None
    for one, n in known.items():
        return plain, replace(one, rounds=n)
    return plain, None


def _ask_closed(
    plain: Sequence[Event],
    known: Event | None,
    adjacency: str,
    delta: float | None,
    epsilon: float,
) -> float:
    base = mu_of(plain, adjacency)
    if known is None:
        return gaussian_delta(base, epsilon) if delta is None else gaussian_epsilon(base, delta)
    unit, q, n = mu_of([replace(known, rounds=1)], adjacency), known.sampling_rate, known.rounds
    if delta is None:
        return known_delta(unit, q, n, epsilon, base)
    return known_epsilon(unit, q, n, delta, base)


def _ask(
    events: Sequence[AnyEvent],
    adjacency: str,
    group: int,
    delta: float | None,
    epsilon: float = 0.0,
) -> float:
    """Epsilon at `delta`, or delta at `epsilon` when `delta` is None."""
    simple = _closed(events)
    if simple is not None and (group == 1 or simple[1] is None):
        scaled = [replace(e, noise_multiplier=e.noise_multiplier / group) for e in simple[0]]
        return _ask_closed(scaled, simple[1], adjacency, delta, epsilon)
    if all(isinstance(e, Concentrated) for e in events):
        rho = rho_of(events, group)
        if delta is None:
            return float(np.exp(zcdp_log_deltas(rho, np.array([epsilon])))[0])
        return zcdp_epsilon(rho, delta)
    remove = pld.solve(
        rounds_of(events, adjacency, "remove", group),
        delta=delta,
        epsilon=epsilon if delta is None else None,
    )
    if not _one_sided(events, adjacency):
        return remove
    add = rounds_of(events, adjacency, "add", group)
    # the bound by moments takes a hundredth of the time; the margin is for its quadrature
    if delta is None:
        if math.exp(pld.log_ceiling(add, epsilon)) < (1 - _MARGIN) * remove:
            return remove
        return max(remove, pld.solve(add, epsilon=epsilon))
    if pld.ceiling(add, delta) < (1 - _MARGIN) * remove:
        return remove
    return max(remove, pld.solve(add, delta=delta))


def _one_sided(events: Sequence[AnyEvent], adjacency: str) -> bool:
    """Whether leaving and coming are told apart differently well."""
    if adjacency == "replace-one":
        return False
    return any(isinstance(e, Event) and not e.everyone and not e.known for e in events)


def epsilon_of(
    events: Sequence[AnyEvent],
    delta: float,
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
    group: int = 1,
) -> float:
    """Epsilon of rounds that may differ in mechanism, noise and sampling, fixed beforehand.

    Parameters
    ----------
    events
        What ran, in any order: :class:`Event`, :class:`Laplace`, :class:`Approximate` and
        :class:`Concentrated`. An empty list spends nothing.
    delta
        0 to 1. At 0 the answer is the pure epsilon, which is infinite for Gaussians and zCDP; at 1
        it is 0.
    adjacency, accountant
        As in :func:`fldp.epsilon`; Opacus' accountants take Gaussian events only.
    group
        k: how many clients leave, come or change together (devices of one person).

    Returns
    -------
    float
        An upper bound (accountant "gdp": an approximation); infinite where nothing finite holds.

    Raises
    ------
    ValueError
        For events that do not fit the adjacency, and where the answer is out of numerical reach.

    Examples
    --------
    >>> run = [Event(1.0, 0.01, "poisson", rounds=50), Event(2.0, 0.02, "poisson", rounds=50)]
    >>> 0.5 < epsilon_of(run, delta=1e-5) < 1.5
    True
    >>> epsilon_of([*run, Laplace(10.0)], delta=1e-5) < epsilon_of(run, delta=1e-5) + 0.1
    True
    """
    found = spent(events, delta, adjacency, accountant, group)
    opacus.warn_if_approximate(accountant)
    return found


def spent(
    events: Sequence[AnyEvent], delta: float, adjacency: str, accountant: str, group: int = 1
) -> float:
    """:func:`epsilon_of` for searches, which ask many times: without a warning."""
    delta = between("delta", delta)
    if 0 < delta < LEAST_DELTA:
        raise ValueError(f"delta is {delta:g}: give 0, or at least {LEAST_DELTA:g}")
    choice("accountant", accountant, ACCOUNTANTS)
    found = prepared(events, adjacency, group)
    if not found or delta == 1:
        return 0.0
    if delta == 0:
        return _pure(found, group)
    if accountant != "pld":
        return opacus.epsilon(found, delta, adjacency, accountant, group)
    if delta < _infinite(found) or rho_of(found, group) > MOST_RHO:
        return math.inf
    basic = _basic(found, adjacency, group, delta)
    if _pure_steps(found, group) < pld.ACCURACY * basic < math.inf:
        return basic  # such steps say so little that no composition could gain on adding them up
    try:
        return min(basic, _ask(found, adjacency, group, delta))
    except pld.OutOfReach as error:
        simpler = _without_grid(found, adjacency, group, delta)
        if math.isfinite(min(basic, simpler)):
            return min(basic, simpler)
        raise error


def _pure(events: Sequence[AnyEvent], group: int) -> float:
    """Epsilon at delta = 0."""
    total = 0.0
    for event in events:
        if isinstance(event, Laplace):
            total += event.rounds * group / event.noise_multiplier
        elif isinstance(event, Approximate) and event.delta == 0:
            total += event.rounds * event.epsilon
        else:
            return math.inf
    return total


def _pure_steps(events: Sequence[AnyEvent], group: int) -> float:
    """The sum of the epsilons of pure and (ε, δ) steps; infinite if there are none."""
    steps = [e for e in events if isinstance(e, Laplace | Approximate)]
    return _pure(_without_deltas(steps), group) if steps else math.inf


def _infinite(events: Sequence[AnyEvent]) -> float:
    """The chance that some (ε, δ) step fails altogether: no smaller delta has an epsilon."""
    log = 0.0
    for event in events:
        if isinstance(event, Approximate):
            log += event.rounds * (math.log1p(-event.delta) if event.delta < 1 else -math.inf)
    return -math.expm1(log)


def _without_deltas(events: Sequence[AnyEvent]) -> list[AnyEvent]:
    return [replace(e, delta=0.0) if isinstance(e, Approximate) else e for e in events]


def _basic(events: Sequence[AnyEvent], adjacency: str, group: int, delta: float) -> float:
    """Epsilon by adding up the epsilons of pure and (ε, δ) steps to that of the rest."""
    steps = [e for e in events if isinstance(e, Laplace | Approximate)]
    if not steps:
        return math.inf
    rest = [e for e in events if not isinstance(e, Laplace | Approximate)]
    left = delta - sum(e.delta * e.rounds for e in steps if isinstance(e, Approximate))
    if left < 0 or (left == 0 and rest):
        return math.inf
    pure = _pure_steps(steps, group)
    return pure + _ask(rest, adjacency, group, left) if rest else pure


def delta_of(
    events: Sequence[AnyEvent],
    epsilon: float,
    adjacency: str = "add-or-remove",
    group: int = 1,
) -> float:
    """Delta of rounds that may differ in mechanism, noise and sampling, at this epsilon >= 0.

    Parameters as in :func:`epsilon_of`.

    Examples
    --------
    >>> 0 < delta_of([Event(1.0, 0.01, "poisson", rounds=50)], epsilon=1.0) < 1e-5
    True
    """
    epsilon = between("epsilon", epsilon, math.inf)
    return _delta(prepared(events, adjacency, group), epsilon, adjacency, group)


def _delta(events: Sequence[AnyEvent], epsilon: float, adjacency: str, group: int) -> float:
    """Delta of prepared events."""
    if not events or epsilon >= _pure(events, group):
        return 0.0
    infinite = _infinite(events)
    if epsilon >= _pure(_without_deltas(events), group):
        return infinite
    if rho_of(events, group) > MOST_RHO:
        return 1.0
    pure, basic = _pure_steps(events, group), 1.0
    if pure < epsilon:
        rest = [e for e in events if not isinstance(e, Laplace | Approximate)]
        basic = min(1.0, _delta(rest, epsilon - pure, adjacency, group) + infinite)
    if pure < _LITTLE * epsilon:
        return basic
    try:
        return min(basic, _ask(events, adjacency, group, None, epsilon))
    except pld.OutOfReach:
        return min(basic, _without_grid(events, adjacency, group, None, epsilon))


def _without_grid(
    events: Sequence[AnyEvent],
    adjacency: str,
    group: int,
    delta: float | None,
    epsilon: float = 0.0,
) -> float:
    """A looser bound for what the grid cannot hold: by moments, or by known participation."""
    bounds = []
    for direction in ("remove", "add") if _one_sided(events, adjacency) else ("remove",):
        rounds = rounds_of(events, adjacency, direction, group)
        if delta is None:
            bounds.append(math.exp(pld.log_ceiling(rounds, epsilon)))
        else:
            bounds.append(pld.ceiling(rounds, delta))
    bound = max(bounds) * (1 + _MARGIN)
    against = [disclosed(event, adjacency) for event in events]
    simple = _closed(against)
    if simple is not None and (group == 1 or simple[1] is None):
        bound = min(bound, _ask(against, adjacency, group, delta, epsilon))
    return bound if delta is not None else min(1.0, bound)
