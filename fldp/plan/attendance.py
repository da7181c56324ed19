"""How often a client takes part, by coins or by limits: what that leaves it to pay for.

A deployment cannot toss secret coins for devices that come when they can. It can count: no client
more than k times, b rounds apart. A client then pays for k rounds, not for all T, and noise that is
correlated over rounds takes part of itself back before the client comes again.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from fldp import accounting
from fldp._checks import real, shown, whole
from fldp._settings import CORRELATION
from fldp.accounting import Event, Filtered, filters
from fldp.accounting.binomial import binomial_tail
from fldp.accounting.events import AnyEvent, RoundEvent, checked
from fldp.accounting.filters import Filter

if TYPE_CHECKING:
    from fldp.plan.client import PrivacyPlan

# N/b of a division, times b, is N up to this.
_ROUNDING = 1e-9


class Limits(NamedTuple):
    """What a plan says of participations: b, k and the filter of its noise; None: nothing."""

    separation: int | None = None
    participations: int | None = None
    correlation: Filter | None = None

    def checked(self) -> Limits:
        """The same with numbers in their own types.

        Returns
        -------
        Limits
            All three, or none.

        Raises
        ------
        ValueError
            For one without the others, and for what is no number or no filter.

        Examples
        --------
        >>> Limits(8, 2, filters.independent()).checked().separation
        8
        """
        missing = [name for name, value in self._asdict().items() if value is None]
        if len(missing) == len(self):
            return self
        if missing:
            raise ValueError(
                f"{missing[0]} is None where participations are limited: separation, "
                "participations and correlation belong together; fldp.calibrate fills them in"
            )
        if not isinstance(self.correlation, Filter):
            raise ValueError(
                f"correlation is {shown(self.correlation)}: a plan has the coefficients, a Filter "
                "of fldp.accounting.filters"
            )
        separation = whole("separation", self.separation)
        return Limits(separation, whole("participations", self.participations), self.correlation)


def grouped(events: Sequence[AnyEvent]) -> list[AnyEvent]:
    """Equal events counted together: the composition does not depend on their order.

    Parameters
    ----------
    events
        What ran, in any order and of any kind.

    Returns
    -------
    list
        Each kind once, in the order of its first appearance, with all its rounds. Correlated noise
        without the name of a run stays as often as it came: each may be a run of its own.

    Raises
    ------
    ValueError
        For what is no event.

    Examples
    --------
    >>> [event.rounds for event in grouped([Event(1.0), Event(2.0), Event(1.0, rounds=2)])]
    [3, 1]
    """
    counts: dict[AnyEvent, int] = {}
    unnamed: list[AnyEvent] = []
    # Thousands of rounds are of few kinds, and `replace` checks each event that it makes.
    for event, times in Counter(checked(events)).items():
        if isinstance(event, Filtered) and not event.run:
            unnamed += [event] * times
            continue
        one = replace(event, rounds=1)
        counts[one] = counts.get(one, 0) + event.rounds * times
    return [*(replace(one, rounds=count) for one, count in counts.items()), *unnamed]


def asked_limits(
    rounds: int,
    separation: int | None,
    participations: int | None,
    correlation: str | Filter | None,
    sampling: str = "none",
) -> Limits:
    """What was asked of `fldp.calibrate`, with what follows from it filled in, and noise fitted.

    Parameters
    ----------
    rounds
        T.
    separation, participations, correlation, sampling
        As for `fldp.calibrate`.

    Returns
    -------
    Limits
        All three, or none where nothing was asked for.

    Raises
    ------
    ValueError
        For correlated noise without a limit, and for what is out of range.

    Examples
    --------
    >>> asked_limits(60, 8, None, None)[:2]
    (8, 8)
    >>> asked_limits(60, None, 3, None)[:2]
    (1, 3)
    """
    if separation is None and participations is None:
        if correlation is not None:
            raise ValueError(
                f"correlation is {shown(correlation)} without a limit on participations: what a "
                "client moves depends on how often it comes; give separation or participations"
            )
        return Limits()
    rounds = whole("rounds", rounds)
    apart = 1 if separation is None else whole("separation", separation)
    most = -(-rounds // apart)
    if participations is not None and sampling == "poisson":
        raise ValueError(
            f"participations is {participations} with sampling='poisson': a client has a turn "
            "every so many rounds, and its coin decides; give the separation alone"
        )
    if participations is not None:
        most = min(most, whole("participations", participations))
    noise = correlation
    if not isinstance(noise, Filter):
        noise = named_filter(noise or "independent", rounds, most, apart)
    return Limits(apart, most, noise)


def named_filter(name: str, rounds: int, participations: int, separation: int) -> Filter:
    """The filter of a name, fitted to a run whose models are sums of its releases.

    Parameters
    ----------
    name
        One of `CORRELATION`'s values.
    rounds, participations, separation
        T, k and b.

    Returns
    -------
    Filter
        For a server with momentum, `fldp.accounting.fitting` has others.

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> named_filter("banded", 64, 8, 8).order
    7
    """
    from fldp.accounting import fitting

    if name == "fractional":
        return fitting.fitted_fractional(rounds, participations, separation)
    if name == "blt":
        return fitting.blt(rounds, participations, separation)
    if name == "banded":
        return fitting.banded(rounds, participations, separation)
    if name == "independent":
        return filters.independent()
    allowed = ", ".join(map(repr, CORRELATION.allowed))
    raise ValueError(f"correlation is {shown(name)}: give one of {allowed}, or a Filter")


def usual_cohort(clients: int, rounds: int, limited: Limits) -> float:
    """m of a plan that names none: everybody as often as the limits allow, all over the run.

    Parameters
    ----------
    clients, rounds
        N and T.
    limited
        The limits.

    Returns
    -------
    float
        N without limits.

    Examples
    --------
    >>> usual_cohort(480, 64, asked_limits(64, 8, None, None))
    60.0
    """
    if limited.separation is None or limited.participations is None:
        return clients
    return clients / max(limited.separation, -(-rounds // limited.participations))


def period(plan: PrivacyPlan) -> int:
    """The rounds from one turn of a client to its next, for a sampler that spreads a plan's turns.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    int
        At least b, and so many that nobody has more than k turns in T rounds; 1 without limits.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> period(calibrate(epsilon=8.0, delta=1e-5, rounds=60, clients=480, sampling="none",
    ...                  participations=5))
    12
    """
    apart = plan.separation or 1
    if plan.sampling == "poisson":
        return apart
    return max(apart, -(-plan.rounds // (plan.participations or plan.rounds)))


def refuse_too_many(plan: PrivacyPlan) -> None:
    """Refuse a cohort that the limits cannot fill.

    Parameters
    ----------
    plan
        The plan.

    Raises
    ------
    ValueError
        It says how many come at most.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> calibrate(epsilon=8.0, delta=1e-5, rounds=60, clients=480, cohort=100,
    ...           sampling="none", separation=8)
    Traceback (most recent call last):
    ValueError: cohort is 100: of 480 clients at most 60 a round come every 8 rounds; give fewer
    """
    if plan.separation is None:
        return
    turn = period(plan)
    if plan.cohort * turn > plan.clients * (1 + _ROUNDING):
        raise ValueError(
            f"cohort is {plan.cohort:.10g}: of {plan.clients} clients at most "
            f"{plan.clients / turn:.6g} a round come every {turn} rounds; give fewer"
        )


def turn_rate(plan: PrivacyPlan) -> float:
    """The chance with which a client takes part when it is its turn, so that m come on average.

    Parameters
    ----------
    plan
        A plan that limits participations.

    Returns
    -------
    float
        Up to 1.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> turn_rate(calibrate(epsilon=8.0, delta=1e-5, rounds=64, clients=480, cohort=30,
    ...                     sampling="none", separation=8))
    0.5
    """
    rate = plan.cohort * period(plan) / plan.clients
    return 1.0 if rate > 1 - _ROUNDING else rate


def event(plan: PrivacyPlan, filter: Filter) -> Filtered:
    """A round of a plan that limits participations, as it is accounted.

    Under Poisson sampling it is the round of a client whose turn it is.

    Parameters
    ----------
    plan
        The plan.
    filter
        Its correlation.

    Returns
    -------
    Filtered
        Of a run without a name; the noise of a run has one.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> plan = calibrate(epsilon=8.0, delta=1e-5, rounds=64, clients=480, sampling="none",
    ...                  separation=8)
    >>> event(plan, plan.correlation).participations
    8
    """
    return Filtered(
        plan.noise_multiplier,
        filter,
        plan.participations or plan.rounds,
        plan.separation or 1,
        sampling_rate=turn_rate(plan) if plan.sampling == "poisson" else 1.0,
    )


def certain(plan: PrivacyPlan, participations: int) -> RoundEvent:
    """What a plan's run costs a client of whom it is known that it takes part so often.

    Parameters
    ----------
    plan
        The plan, with or without limits.
    participations
        At least 1.

    Returns
    -------
    Event or Filtered
        Without coins.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    >>> certain(plan, 15).rounds
    15
    """
    if plan.correlation is None:
        return Event(plan.noise_multiplier, rounds=participations)
    return replace(
        event(plan, plan.correlation),
        participations=participations,
        rounds=plan.rounds,
        sampling_rate=1.0,
    )


def most_participations(plan: PrivacyPlan) -> int:
    """The most rounds that any client pays for: T, or what the limits leave of them.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    int
        k, or T.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> most_participations(calibrate(epsilon=8.0, delta=1e-5, rounds=60, clients=480,
    ...                               sampling="none", separation=8))
    8
    """
    if plan.separation is None or plan.participations is None:
        return plan.rounds
    return min(plan.participations, -(-plan.rounds // plan.separation))


def participations(rounds: int, rate: float, failure: float) -> int:
    """Smallest k with P[Binomial(rounds, rate) > k] <= failure: bounds a client's participations.

    Parameters
    ----------
    rounds, rate
        T rounds, in each of which the client takes part with chance `rate`, independently.
    failure
        The chance with which it may take part more often, in (0, 1).

    Returns
    -------
    int
        From 0 to `rounds`.

    Examples
    --------
    >>> participations(1500, 100 / 3400, 0.5), participations(60, 1.0, 1e-9)
    (44, 60)
    """

    def rare(k: int) -> bool:
        return binomial_tail(k, rounds, rate) <= failure

    # Where it holds for none of 0, ..., T - 1 it does for T, than which there are no more.
    return bisect_left(range(rounds), True, key=rare)


def content_of(plan: PrivacyPlan) -> str:
    """The adjacency that hides what updates contain, where who took part is known.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    str
        "replace-one" under a replace-one plan, else "zero-out".
    """
    return "replace-one" if plan.adjacency == "replace-one" else "zero-out"


def unamplified(plan: PrivacyPlan, participations: int, adjacency: str) -> float:
    """ε of so many participations, none of them amplified: a Gaussian each, or one together.

    Parameters
    ----------
    plan
        The plan.
    participations
        0 or more.
    adjacency
        In which.

    Returns
    -------
    float
        By our own accountant, whose answer for plain Gaussians is exact.
    """
    if participations == 0:
        return 0.0
    return accounting.epsilon_of([certain(plan, participations)], plan.delta, adjacency)


def cohort_known(plan: PrivacyPlan, confidence: float) -> dict[str, float]:
    """See `PrivacyPlan.cohort_known`.

    Parameters
    ----------
    plan
        The plan.
    confidence
        As there.

    Returns
    -------
    dict
        As there.
    """
    failure = 1 - real("confidence", confidence, 1)
    content = content_of(plan)
    most = most_participations(plan)
    every = unamplified(plan, most, content)
    rate = 1.0
    mixture = every
    if plan.event.sampling != "none":
        rate = plan.event.sampling_rate
        coins = replace(plan.event, rounds=plan.rounds, known=True)
        mixture = accounting.epsilon_of([coins], plan.delta, content)
    # A union bound: each of the N clients may exceed it with a share of the chance.
    bound = participations(most, rate, failure / plan.clients)
    return {
        "mean": most * rate,
        "epsilon": mixture,
        "bound": bound,
        "epsilon_bound": unamplified(plan, bound, content),
        "rounds": most,
        "epsilon_all": every,
        "confidence": confidence,
    }


def skips(plan: PrivacyPlan) -> dict[str, float]:
    """See `PrivacyPlan.skips`.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    dict
        As there.
    """
    chance = 0.0
    if plan.min_survivors is not None and plan.sampling == "poisson":
        # Fewer than s come: of the N more than N - s stay away. A cap is above s.
        stay = plan.clients - plan.min_survivors - plan.colluders
        chance = binomial_tail(stay, plan.clients, 1 - plan.sampling_rate)
    some = 1.0
    if chance < 1:
        some = -math.expm1(plan.rounds * math.log1p(-chance))
    return {"round": chance, "any": some, "expected": plan.rounds * chance}
