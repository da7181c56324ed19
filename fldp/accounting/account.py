"""The account: what a list of events spends together, by the best bound at hand.

Each kind of event becomes a round with a dominating pair (:mod:`fldp.accounting.pairs`), and the
kernel (:mod:`fldp.accounting.pld`) composes them. Plain Gaussians, Gaussians with known
participation, and zCDP alone have closed forms and take no kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from fldp._checks import MOST_RHO, between, choice
from fldp._settings import ACCOUNTANT
from fldp.accounting import gaussian, opacus, pld
from fldp.accounting.composition import disclosed, mu_of, prepared, rho_of, rounds_of
from fldp.accounting.events import AnyEvent, Approximate, Concentrated, Event, Events, Laplace

ACCOUNTANTS = ACCOUNTANT.allowed

Answer = Callable[[float], float]

# Room for the quadrature behind a bound by moments.
_MARGIN = 1e-3
# Pure steps that spend less than this share of an epsilon are added up when delta is asked for.
_LITTLE = 1e-6


class _Question(NamedTuple):
    """What epsilon is at `delta`, or, where that is None, what delta is at `epsilon`."""

    adjacency: str
    group: int
    delta: float | None
    epsilon: float | None = None

    def by(self, delta_at: Answer, epsilon_at: Answer) -> float:
        """The one that is asked for, of a function of epsilon and one of delta."""
        if self.delta is None:
            return delta_at(self.epsilon or 0.0)
        return epsilon_at(self.delta)


def _closed(events: Events, ask: _Question) -> float | None:
    """The answer for plain Gaussians and at most one kind of round in which it is known who came.

    None if there is something else: only these have a closed form.
    """
    plain = [e for e in events if isinstance(e, Event) and e.everyone]
    known = [e for e in events if isinstance(e, Event) and e.known and not e.everyone]
    kinds = {(e.noise_multiplier, e.sampling_rate) for e in known}
    if len(plain) + len(known) < len(events) or len(kinds) > 1 or (known and ask.group > 1):
        return None
    base = mu_of(plain, ask.adjacency, ask.group)
    if not known:
        return ask.by(
            partial(gaussian.gaussian_delta, base), partial(gaussian.gaussian_epsilon, base)
        )
    unit = mu_of([replace(known[0], rounds=1)], ask.adjacency)
    law = unit, known[0].sampling_rate, sum(e.rounds for e in known)
    return ask.by(
        partial(gaussian.known_delta, *law, base=base),
        partial(gaussian.known_epsilon, *law, base=base),
    )


def _ask(events: Events, ask: _Question) -> float:
    """The answer by a closed form, or by the kernel: the larger one of the two directions."""
    if all(isinstance(e, Concentrated) for e in events):
        rho = rho_of(events, ask.group)
        return ask.by(partial(gaussian.zcdp_delta, rho), partial(gaussian.zcdp_epsilon, rho))
    if (closed := _closed(events, ask)) is not None:
        return closed
    rounds = rounds_of(events, ask.adjacency, "remove", ask.group)
    remove = pld.solve(rounds, delta=ask.delta, epsilon=ask.epsilon)
    if not _one_sided(events, ask.adjacency):
        return remove
    rounds = rounds_of(events, ask.adjacency, "add", ask.group)
    # the bound by moments takes a hundredth of the time; the margin is for its quadrature
    if _by_moments(rounds, ask) < (1 - _MARGIN) * remove:
        return remove
    return max(remove, pld.solve(rounds, delta=ask.delta, epsilon=ask.epsilon))


def _by_moments(rounds: Sequence[pld.Round], ask: _Question) -> float:
    return ask.by(partial(pld.delta_ceiling, rounds), partial(pld.ceiling, rounds))


def _one_sided(events: Events, adjacency: str) -> bool:
    """Whether leaving and coming are told apart differently well."""
    if adjacency == "replace-one":
        return False
    return any(isinstance(e, Event) and not e.everyone and not e.known for e in events)


def epsilon_of(
    events: Events,
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
    >>> first = Event(1.0, 0.01, "poisson", rounds=50)
    >>> second = Event(2.0, 0.02, "poisson", rounds=50)
    >>> spent = epsilon_of([first, second], delta=1e-5)
    >>> 0.5 < spent < 1.5
    True
    >>> epsilon_of([first, second, Laplace(10.0)], delta=1e-5) < spent + 0.1
    True
    """
    found = spent(events, delta, adjacency, accountant, group)
    opacus.warn_if_approximate(accountant)
    return found


def spent(events: Events, delta: float, adjacency: str, accountant: str, group: int = 1) -> float:
    """:func:`epsilon_of` for searches, which ask many times: without a warning.

    Parameters
    ----------
    events, delta, adjacency, accountant, group
        As there.

    Returns
    -------
    float
        As there.

    Raises
    ------
    ValueError
        As there.

    Examples
    --------
    >>> spent([Event(2.0)], 1e-5, "add-or-remove", "pld") == epsilon_of([Event(2.0)], 1e-5)
    True
    """
    delta = between("delta", delta)
    if 0 < delta < gaussian.LEAST_DELTA:
        raise ValueError(f"delta is {delta:g}: give 0, or at least {gaussian.LEAST_DELTA:g}")
    choice("accountant", accountant, ACCOUNTANTS)
    found = prepared(events, adjacency, group)
    if not found or delta == 1:
        return 0.0
    if delta == 0:
        return _pure(found, group)
    if accountant != "pld":
        return opacus.epsilon_by_opacus(found, delta, adjacency, accountant, group)
    ask = _Question(adjacency, group, delta)
    if delta < _infinite(found) or rho_of(found, group) > MOST_RHO:
        return math.inf
    basic = _basic(found, ask, delta)
    if _pure_steps(found, group) < pld.ACCURACY * basic < math.inf:
        return basic  # such steps say so little that no composition could gain on adding them up
    try:
        return min(basic, _ask(found, ask))
    except pld.OutOfReach:
        simpler = min(basic, _without_grid(found, ask))
        if math.isfinite(simpler):
            return simpler
        raise


def _pure(events: Events, group: int) -> float:
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


def _pure_steps(events: Events, group: int) -> float:
    """The sum of the epsilons of pure and (ε, δ) steps; infinite if there are none."""
    steps = [e for e in events if isinstance(e, Laplace | Approximate)]
    return _pure(_without_deltas(steps), group) if steps else math.inf


def _infinite(events: Events) -> float:
    """The chance that some (ε, δ) step fails altogether: no smaller delta has an epsilon."""
    log = 0.0
    for event in events:
        if isinstance(event, Approximate):
            log += event.rounds * (math.log1p(-event.delta) if event.delta < 1 else -math.inf)
    return -math.expm1(log)


def _without_deltas(events: Events) -> list[AnyEvent]:
    return [replace(e, delta=0.0) if isinstance(e, Approximate) else e for e in events]


def _basic(events: Events, ask: _Question, delta: float) -> float:
    """Epsilon by adding up the epsilons of pure and (ε, δ) steps to that of the rest."""
    steps = [e for e in events if isinstance(e, Laplace | Approximate)]
    if not steps:
        return math.inf
    rest = [e for e in events if not isinstance(e, Laplace | Approximate)]
    left = delta - sum(e.delta * e.rounds for e in steps if isinstance(e, Approximate))
    if left < 0 or (left == 0 and rest):
        return math.inf
    pure = _pure_steps(steps, ask.group)
    return pure + _ask(rest, ask._replace(delta=left)) if rest else pure


def delta_of(
    events: Events, epsilon: float, adjacency: str = "add-or-remove", group: int = 1
) -> float:
    """Delta of rounds that may differ in mechanism, noise and sampling, fixed beforehand.

    Parameters
    ----------
    events, adjacency, group
        As in :func:`epsilon_of`.
    epsilon
        At least 0.

    Returns
    -------
    float
        An upper bound, 0 to 1; below 1e-300 it is reported as 1e-300 where it is not 0.

    Raises
    ------
    ValueError
        As :func:`epsilon_of`.

    Examples
    --------
    >>> 0 < delta_of([Event(1.0, 0.01, "poisson", rounds=50)], epsilon=1.0) < 1e-5
    True
    """
    epsilon = between("epsilon", epsilon, math.inf)
    return _delta(prepared(events, adjacency, group), epsilon, adjacency, group)


def _delta(events: Events, epsilon: float, adjacency: str, group: int) -> float:
    """Delta of prepared events."""
    if not events or epsilon >= _pure(events, group):
        return 0.0
    infinite = _infinite(events)
    if epsilon >= _pure(_without_deltas(events), group):
        return infinite
    if rho_of(events, group) > MOST_RHO:
        return 1.0
    pure = _pure_steps(events, group)
    basic = 1.0
    if pure < epsilon:
        rest = [e for e in events if not isinstance(e, Laplace | Approximate)]
        basic = min(1.0, _delta(rest, epsilon - pure, adjacency, group) + infinite)
    if pure < _LITTLE * epsilon:
        return basic
    ask = _Question(adjacency, group, None, epsilon)
    try:
        return min(basic, _ask(events, ask))
    except pld.OutOfReach:
        return min(basic, _without_grid(events, ask))


def _without_grid(events: Events, ask: _Question) -> float:
    """A looser bound for what the grid cannot hold: by moments, or by known participation."""
    directions = ("remove", "add") if _one_sided(events, ask.adjacency) else ("remove",)
    runs = [rounds_of(events, ask.adjacency, one, ask.group) for one in directions]
    bound = max(_by_moments(rounds, ask) for rounds in runs) * (1 + _MARGIN)
    against = [disclosed(event, ask.adjacency) for event in events]
    if (closed := _closed(against, ask)) is not None:
        bound = min(bound, closed)
    return min(1.0, bound) if ask.delta is None else bound
