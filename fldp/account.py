"""The account: what a list of events spends together, by the best bound at hand.

Each kind of event becomes a round with a dominating pair (:mod:`fldp.pairs`), and the kernel
(:mod:`fldp.pld`) composes them. Plain Gaussians, Gaussians with known participation, and zCDP alone
have closed forms and take no kernel.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fldp import pld
from fldp.binomial import binomial_tail, log_pmf
from fldp.checks import between, choice, whole
from fldp.events import ADJACENCIES, AnyEvent, Approximate, Concentrated, Event, Laplace, checked
from fldp.gaussian import (
    Array,
    gaussian_delta,
    gaussian_epsilon,
    known_delta,
    known_epsilon,
    zcdp_epsilon,
    zcdp_log_deltas,
)
from fldp.pairs import Fixed, Group, Shifted, Subsampled, approximate, concentrated, silent

ACCOUNTANTS = ("pld", "prv", "rdp", "gdp")
_OPACUS = {"prv": "PRVAccountant", "rdp": "RDPAccountant", "gdp": "GaussianAccountant"}

# Room for the quadrature behind a bound by moments.
_MARGIN = 1e-3
# A group's weights are tabulated; nobody has so many devices.
MOST_IN_GROUP = 1000


def _plain(n: float) -> Subsampled:
    """A Gaussian round in which the sum moves by 1/n standard deviations."""
    return Subsampled("remove", 1.0, n)


def _known(chances: Array, unit: int, z: float) -> list[pld.Part]:
    """Rounds in which it is public that j = 0, 1, ... of the clients in question took part."""
    parts: list[pld.Part] = []
    for j, chance in enumerate(chances.tolist()):
        if chance > 0:
            parts.append((chance, _plain(z / (unit * j)) if j else silent()))
    return parts


def _binomial_chances(k: int, q: float) -> Array:
    return np.exp(log_pmf(np.arange(k + 1.0), k, q))


def _drawn_chances(k: int, clients: int, cohort: int) -> Array:
    """The chances that j = 0, ..., k of k clients are in a fixed-size cohort (hypergeometric)."""
    chances = np.zeros(k + 1)
    for j in range(max(0, k - (clients - cohort)), min(k, cohort) + 1):
        log = math.lgamma(k + 1) - math.lgamma(j + 1) - math.lgamma(k - j + 1)
        log += sum(math.log((cohort - i) / (clients - i)) for i in range(j))
        log += sum(math.log((clients - cohort - i) / (clients - j - i)) for i in range(k - j))
        chances[j] = math.exp(log)
    return chances


def _gaussian(event: Event, adjacency: str, direction: str, group: int) -> list[pld.Part]:
    """One sampled round as a mixture of pairs, for `group` clients that move together."""
    q, z = event.sampling_rate, event.noise_multiplier
    one_for_another = adjacency == "replace-one"
    capped = event.cap is not None and event.clients is not None and event.cap < event.clients
    if event.known:
        return _known(_binomial_chances(group, q), 2 if one_for_another else 1, z)
    if event.sampling == "fixed":
        if group == 1:
            return [(1.0, Fixed(q, z))]
        clients = event.clients or 0
        return _known(_drawn_chances(group, clients, round(q * clients)), 2, z)
    if group > 1 and (one_for_another or capped):
        # Let it be known how many of the group took part: by joint convexity an upper bound. Under
        # a cap as many others may move up, so that the sum moves by 2 for each.
        return _known(_binomial_chances(group, q), 2, z)
    if group > 1:
        return [(1.0, Group(direction, q, z, group))]
    kind = "replace" if one_for_another else direction
    free: list[pld.Part] = [(1.0, Subsampled(kind, q, z))]
    return _capped(event, kind, free) if capped else free


def _capped(event: Event, kind: str, free: list[pld.Part]) -> list[pld.Part]:
    """The pair of one client of a Poisson cohort under a hard cap."""
    q, z, n, cap = event.sampling_rate, event.noise_multiplier, event.clients or 0, event.cap or 0
    # the cap binds with chance `full`; then a sampled target takes another client's place
    full, over = binomial_tail(cap - 1, n - 1, q), binomial_tail(cap, n, q)
    if full <= 0 or over <= 0:
        return free
    bound = Subsampled("replace", min(1.0, over * cap / full / n), z / 2)
    return [(full, bound)] if full >= 1 else [(1 - full, free[0][1]), (full, bound)]


def _mu(events: Sequence[Event], adjacency: str, group: int = 1) -> float:
    sensitivity = 2 if adjacency == "replace-one" else 1
    return sensitivity * group * math.sqrt(sum(e.rounds / e.noise_multiplier**2 for e in events))


def rounds_of(
    events: Sequence[AnyEvent], adjacency: str, direction: str, group: int = 1
) -> list[pld.Round]:
    """What the kernel composes: "remove" or "add" is the direction of Poisson rounds."""
    plain = [e for e in events if isinstance(e, Event) and e.everyone]
    rounds: list[pld.Round] = []
    for one, n in _counted(events).items():
        if isinstance(one, Event):
            rounds.append((_gaussian(one, adjacency, direction, group), n))
        elif isinstance(one, Laplace):
            rounds.append(([(1.0, Shifted(one.noise_multiplier / group))], n))
        elif isinstance(one, Approximate):
            rounds.append(([(1.0, approximate(one.epsilon, one.delta))], n))
    if plain:
        rounds.append(([(1.0, _plain(1 / _mu(plain, adjacency, group)))], 1))
    if rho := _rho(events, group):
        rounds.append(([(1.0, concentrated(rho))], 1))
    return rounds


def _counted(events: Sequence[AnyEvent]) -> dict[AnyEvent, int]:
    """One round of each event that is neither a plain Gaussian nor zCDP, and how often it ran."""
    counts: dict[AnyEvent, int] = {}
    for event in events:
        if isinstance(event, Concentrated) or (isinstance(event, Event) and event.everyone):
            continue
        one = replace(event, rounds=1)
        counts[one] = counts.get(one, 0) + event.rounds
    return counts


def _rho(events: Sequence[AnyEvent], group: int) -> float:
    return group**2 * sum(e.rho * e.rounds for e in events if isinstance(e, Concentrated))


def _grouped(event: AnyEvent, group: int) -> AnyEvent:
    """What an (ε, δ) step gives a group (Vadhan 2017, Lemma 2.2)."""
    if group == 1 or not isinstance(event, Approximate):
        return event
    e = event.epsilon
    growth = math.expm1(group * e) / math.expm1(e) if e > 0 else float(group)
    return Approximate(group * e, min(1.0, growth * event.delta), event.rounds)


def _says_something(event: AnyEvent) -> bool:
    """Whether the event can reveal anything at all."""
    if isinstance(event, Event):
        return event.sampling_rate > 0
    return not isinstance(event, Approximate) or event.epsilon > 0 or event.delta > 0


def prepared(events: Sequence[AnyEvent], adjacency: str, group: int) -> list[AnyEvent]:
    """The events that count, checked against the adjacency and with (ε, δ) steps for the group."""
    choice("adjacency", adjacency, ADJACENCIES)
    found = checked(events)
    group = whole("group", group)
    if group > MOST_IN_GROUP:
        raise ValueError(f"group is {group}: give at most {MOST_IN_GROUP} clients")
    for event in found:
        if isinstance(event, Event):
            _agree(event, adjacency, group)
    return [_grouped(event, group) for event in found if _says_something(event)]


def _agree(event: Event, adjacency: str, group: int) -> None:
    if event.known and adjacency == "add-or-remove":
        raise ValueError(
            "adjacency is 'add-or-remove' with known=True: who takes part is public, so it cannot "
            "hide that a client was there; use adjacency='zero-out' or 'replace-one'"
        )
    if event.sampling == "fixed" and not event.known and adjacency != "replace-one":
        raise ValueError(
            f"adjacency is {adjacency!r} with sampling='fixed': a client that is left out is "
            "replaced by another, so use adjacency='replace-one', or sampling='poisson'"
        )
    if event.clients is not None and group > event.clients:
        raise ValueError(f"group is {group} of {event.clients} clients: give at most that many")


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
    base = _mu(plain, adjacency)
    if known is None:
        return gaussian_delta(base, epsilon) if delta is None else gaussian_epsilon(base, delta)
    unit, q, n = _mu([replace(known, rounds=1)], adjacency), known.sampling_rate, known.rounds
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
        rho = _rho(events, group)
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
    delta = between("delta", delta)
    choice("accountant", accountant, ACCOUNTANTS)
    found = prepared(events, adjacency, group)
    if not found or delta == 1:
        return 0.0
    if delta == 0:
        return _pure(found, group)
    if accountant != "pld":
        return _opacus(found, delta, adjacency, accountant, group)
    if delta < _infinite(found):
        return math.inf
    basic = _basic(found, adjacency, group, delta)
    try:
        return min(basic, _ask(found, adjacency, group, delta))
    except pld.OutOfReach:
        if math.isfinite(basic):
            return basic
        raise


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
    pure = _pure(_without_deltas(steps), group)
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
    found = prepared(events, adjacency, group)
    if not found:
        return 0.0
    if epsilon >= _pure(found, group):
        return 0.0
    if epsilon >= _pure(_without_deltas(found), group):
        return _infinite(found)
    return _ask(found, adjacency, group, None, epsilon)


def _opacus(
    events: Sequence[AnyEvent], delta: float, adjacency: str, accountant: str, group: int
) -> float:
    name = f"accountant is {accountant!r}"
    gaussians = [e for e in events if isinstance(e, Event)]
    if len(gaussians) < len(events) or group > 1:
        raise ValueError(f"{name}: it knows Gaussian events and no groups; use accountant='pld'")
    sampled = any(not e.everyone for e in gaussians)
    if any(
        e.sampling == "fixed" or e.cap is not None or e.known for e in gaussians if not e.everyone
    ):
        raise ValueError(
            f"{name}: it knows no fixed-size cohorts, no caps and no known participation; use "
            "accountant='pld'"
        )
    if adjacency == "replace-one" and sampled:
        raise ValueError(f"{name}: it has no replace-one for sampling; use accountant='pld'")
    if accountant == "gdp" and len(gaussians) != 1:
        raise ValueError(f"{name}: it takes one kind of round only; use accountant='pld'")
    scale = 0.5 if adjacency == "replace-one" else 1.0
    try:
        from opacus import accountants

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tool = getattr(accountants, _OPACUS[accountant])()
            tool.history = [
                (scale * e.noise_multiplier, e.sampling_rate, e.rounds) for e in gaussians
            ]
            found = float(tool.get_epsilon(delta))
        if not math.isfinite(found):
            raise ArithmeticError(f"its epsilon is {found}")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name}: Opacus fails here ({reason}); use accountant='pld'") from error
    if accountant == "gdp":
        warnings.warn(
            f"{name}: a central-limit approximation, no guarantee; it can under-report eightfold",
            stacklevel=4,
        )
    return max(0.0, found)
