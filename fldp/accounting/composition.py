"""From events to what the kernel composes: rounds with their dominating pairs.

Neighbours are settled here: what a client, or a group of k clients that move together, can change
under an adjacency and a sampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fldp._checks import choice, whole
from fldp.accounting.binomial import binomial_tail, log_pmf, tail_error
from fldp.accounting.events import (
    ADJACENCIES,
    AnyEvent,
    Approximate,
    Concentrated,
    Event,
    Events,
    Laplace,
    by_run,
    checked,
)
from fldp.accounting.gaussian import LARGEST_EXP, Array
from fldp.accounting.gaussian_pairs import Fixed, Group, Subsampled
from fldp.accounting.guide import Part, Round
from fldp.accounting.pairs import Shifted, approximate, concentrated, silent

# Below this noise a participation shows. Against who knows of it epsilon is larger by a share of
# 2 z^2 log(1/q) at most, and it has a closed form.
_VISIBLE = 1e-3
# A group's weights are tabulated; nobody has so many devices.
MOST_IN_GROUP = 1000


def _known(chances: Array, unit: int, z: float) -> list[Part]:
    """Rounds in which it is public that j = 0, 1, ... of the clients in question took part."""
    parts: list[Part] = []
    for j, chance in enumerate(chances.tolist()):
        if chance > 0:
            parts.append((chance, Subsampled("remove", 1.0, z / (unit * j)) if j else silent()))
    return parts


def _chances(event: Event, k: int) -> Array:
    """The chances that j = 0, ..., k of k clients are drawn."""
    q = event.sampling_rate
    if event.sampling == "fixed":
        clients = event.clients or 0
        return _drawn_chances(k, clients, round(q * clients))
    return np.exp(log_pmf(np.arange(k + 1.0), k, q)) if q < 1 else np.eye(k + 1)[k]


def _drawn_chances(k: int, clients: int, cohort: int) -> Array:
    """The chances that j = 0, ..., k of k clients are in a fixed-size cohort (hypergeometric)."""
    chances = np.zeros(k + 1)
    for j in range(max(0, k - (clients - cohort)), min(k, cohort) + 1):
        log = math.lgamma(k + 1) - math.lgamma(j + 1) - math.lgamma(k - j + 1)
        log += sum(math.log((cohort - i) / (clients - i)) for i in range(j))
        log += sum(math.log((clients - cohort - i) / (clients - j - i)) for i in range(k - j))
        chances[j] = math.exp(log)
    return chances


def _gaussian(event: Event, adjacency: str, direction: str, group: int) -> list[Part]:
    """One sampled round as a mixture of pairs, for `group` clients that move together."""
    q = event.sampling_rate
    z = event.noise_multiplier
    moves = 2 if adjacency == "replace-one" else 1
    capped = event.cap is not None and event.clients is not None and event.cap < event.clients
    if event.known:
        return _known(_chances(event, group), moves, z)
    if group > 1 and (event.sampling == "fixed" or moves == 2 or capped):
        # Let it be known how many of the group took part: by joint convexity an upper bound. Under
        # a cap as many others may move up, so that the sum moves by 2 for each.
        return _known(_chances(event, group), 2, z)
    if group > 1:
        return [(1.0, Group(direction, q, z, group))]
    if event.sampling == "fixed":
        return [(1.0, Fixed(q, z))]
    pair = Subsampled("replace" if moves == 2 else direction, q, z)
    return _capped(event, pair) if capped else [(1.0, pair)]


def _capped(event: Event, free: Subsampled) -> list[Part]:
    """The pair of one client of a Poisson cohort under a hard cap; `free` is that without one."""
    q = event.sampling_rate
    n = event.clients or 0
    cap = event.cap or 0
    # the cap binds with chance `full`; then a sampled target takes another client's place
    full = binomial_tail(cap - 1, n - 1, q)
    over = binomial_tail(cap, n, q)
    if full <= 0 or over <= 0:
        return [(1.0, free)]
    # `full` may be a little too large, and must not make the rate too small
    rate = over * cap / full / n * (1 + tail_error(n))
    bound = Subsampled("replace", min(1.0, rate), event.noise_multiplier / 2)
    return [(full, bound)] if full >= 1 else [(1 - full, free), (full, bound)]


def mu_of(events: Sequence[Event], adjacency: str, group: int = 1) -> float:
    """Sensitivity divided by noise, of plain Gaussian rounds as one.

    Parameters
    ----------
    events
        In which everybody takes part.
    adjacency, group
        As in :func:`fldp.accounting.epsilon_of`.

    Returns
    -------
    float
        mu; 0 of no events.

    Examples
    --------
    >>> mu_of([Event(2.0, rounds=16)], "replace-one")
    4.0
    """
    sensitivity = 2 if adjacency == "replace-one" else 1
    return sensitivity * group * math.sqrt(sum(e.rounds / e.noise_multiplier**2 for e in events))


def rounds_of(events: Events, adjacency: str, direction: str, group: int = 1) -> list[Round]:
    """What the kernel composes.

    Parameters
    ----------
    events, adjacency, group
        As in :func:`fldp.accounting.epsilon_of`; checked and prepared.
    direction
        "remove" or "add", of Poisson rounds under add-or-remove; others are symmetric.

    Returns
    -------
    list of Round
        Each kind once; all plain Gaussians as one, and all zCDP steps as one.

    Examples
    --------
    >>> rounds_of([Event(1.0, 0.01, "poisson", rounds=9)], "add-or-remove", "remove")
    [([(1.0, Subsampled(kind='remove', q=0.01, z=1.0))], 9)]
    """
    plain = [e for e in events if isinstance(e, Event) and e.everyone]
    rounds: list[Round] = []
    for one, n in _counted(events).items():
        if isinstance(one, Event):
            rounds.append((_gaussian(one, adjacency, direction, group), n))
        elif isinstance(one, Laplace):
            rounds.append(([(1.0, Shifted(one.noise_multiplier / group))], n))
        elif isinstance(one, Approximate):
            rounds.append(([(1.0, approximate(one.epsilon, one.delta))], n))
    if plain:
        rounds.append(([(1.0, Subsampled("remove", 1.0, 1 / mu_of(plain, adjacency, group)))], 1))
    if rho := rho_of(events, group):
        rounds.append(([(1.0, concentrated(rho))], 1))
    return rounds


def _counted(events: Events) -> dict[AnyEvent, int]:
    """One round of each event that is neither a plain Gaussian nor zCDP, and how often it ran."""
    counts: dict[AnyEvent, int] = {}
    for event in events:
        if isinstance(event, Concentrated) or (isinstance(event, Event) and event.everyone):
            continue
        one = replace(event, rounds=1)
        counts[one] = counts.get(one, 0) + event.rounds
    return counts


def rho_of(events: Events, group: int) -> float:
    """The zCDP of all steps that state one, for a group.

    Parameters
    ----------
    events
        Of which only :class:`Concentrated` ones count.
    group
        How many clients move together: rho grows with its square (Bun & Steinke 2016, Prop. 1.9).

    Returns
    -------
    float
        rho; 0 of no such steps.

    Examples
    --------
    >>> rho_of([Concentrated(0.5, rounds=2)], group=3)
    9.0
    """
    return group**2 * sum(e.rho * e.rounds for e in events if isinstance(e, Concentrated))


def _grouped(event: AnyEvent, group: int) -> AnyEvent:
    """What an (ε, δ) step gives a group (Vadhan 2017, Lemma 2.2)."""
    if group == 1 or not isinstance(event, Approximate):
        return event
    e = event.epsilon
    # log((e^(ke) - 1) / (e^e - 1)), at most (k - 1) e + log k
    log_growth = math.log(group)
    if e > 0:
        log_growth = (group - 1) * e + math.log(math.expm1(-group * e) / math.expm1(-e))
    delta = min(1.0, event.delta * math.exp(min(log_growth, LARGEST_EXP)))
    return Approximate(group * e, delta, event.rounds)


def _says_something(event: AnyEvent) -> bool:
    """Whether the event can reveal anything at all."""
    if isinstance(event, Event):
        return event.sampling_rate > 0
    return not isinstance(event, Approximate) or event.epsilon > 0 or event.delta > 0


def prepared(events: Events, adjacency: str, group: int) -> list[AnyEvent]:
    """The events that count, checked against the adjacency and with (ε, δ) steps for the group.

    Parameters
    ----------
    events, adjacency, group
        As in :func:`fldp.accounting.epsilon_of`.

    Returns
    -------
    list
        The events that can reveal something; where so little noise hides nobody, they say who took
        part.

    Raises
    ------
    ValueError
        For what is no event, and for events that do not fit the adjacency or the group.

    Examples
    --------
    >>> prepared([Event(1.0), Event(1.0, 0.0, "poisson")], "zero-out", group=1)[1:]
    []
    """
    choice("adjacency", adjacency, ADJACENCIES)
    group = whole("group", group)
    if group > MOST_IN_GROUP:
        raise ValueError(f"group is {group}: give at most {MOST_IN_GROUP} clients")
    found = by_run(checked(events), group)
    for event in found:
        if isinstance(event, Event):
            _agree(event, adjacency, group)
    counted = [_grouped(event, group) for event in found if _says_something(event)]
    return [disclosed(e, adjacency) if _is_visible(e, adjacency) else e for e in counted]


def _is_visible(event: AnyEvent, adjacency: str) -> bool:
    """Whether so little noise hides nobody's participation: then nothing is lost by saying so.

    Not for one client in the place of another under Poisson sampling: that still hides behind 0.
    """
    if not isinstance(event, Event) or event.everyone or event.noise_multiplier >= _VISIBLE:
        return False
    return event.sampling == "fixed" or adjacency != "replace-one"


def disclosed(event: AnyEvent, adjacency: str) -> AnyEvent:
    """The event against a stronger adversary, which knows who took part.

    An upper bound, since delta is jointly convex: the sum moves with the chance q of taking part,
    by 2 where another client takes the place.

    Parameters
    ----------
    event, adjacency
        As in :func:`prepared`.

    Returns
    -------
    AnyEvent
        With `known` set where there is something to know.

    Examples
    --------
    >>> disclosed(Event(1.0, 0.1, "poisson"), "zero-out").known
    True
    """
    if not isinstance(event, Event) or event.known or event.everyone:
        return event
    z = event.noise_multiplier
    if event.cap is not None and adjacency != "replace-one":
        z /= 2
    return replace(event, noise_multiplier=z, cap=None, known=True)


def _agree(event: Event, adjacency: str, group: int) -> None:
    if event.known and adjacency == "add-or-remove":
        raise ValueError(
            "adjacency is 'add-or-remove' with known=True: who takes part is public, so it cannot "
            "hide that a client was there; use adjacency='zero-out' or 'replace-one'"
        )
    chosen = event.sampling == "fixed" and not event.everyone
    if chosen and not event.known and adjacency != "replace-one":
        raise ValueError(
            f"adjacency is {adjacency!r} with sampling='fixed': a client that is left out is "
            "replaced by another, so use adjacency='replace-one', or sampling='poisson'"
        )
    if event.clients is not None and group > event.clients:
        raise ValueError(f"group is {group} of {event.clients} clients: give at most that many")
