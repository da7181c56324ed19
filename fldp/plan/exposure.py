"""What somebody can find out at most, as a bet and as odds: numbers that need no symbols.

All of them are bounds by our own accountant, whatever the plan's, and hold at any ε and δ.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fldp import accounting
from fldp._checks import whole
from fldp.accounting.events import AnyEvent, Filtered, RoundEvent
from fldp.plan.attendance import certain, content_of
from fldp.plan.drawn import amplified

if TYPE_CHECKING:
    from fldp.plan.client import PrivacyPlan

# The losses at which the exceptional runs are bounded: ε less these.
_BELOW = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
# More exceptions than one run in a hundred are too many to name: then the factor is doubled.
_RARE = 1e-2
# e to a larger number is no float: then the odds have no bound.
_MOST = 700.0


@dataclass(frozen=True)
class Exposure:
    """One question that one observer may ask about one client, and how far it gets.

    Parameters
    ----------
    name
        Which: "observer", "record", "cohort known" or "group".
    epsilon
        ε at the plan's δ; infinite where nothing finite holds.
    bet
        The chance to win a bet at even odds on the answer, at most: 1/2 is a coin.
    factor, exceptions
        The odds of the answer change by at most `factor`, either way, but for a share `exceptions`
        of the runs. Where e^ε is no float, `factor` is infinite.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> exposures(calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10))[0].name
    'observer'
    """

    name: str
    epsilon: float
    bet: float
    factor: float
    exceptions: float


def exposures(
    plan: PrivacyPlan,
    events: Sequence[AnyEvent] | None = None,
    participations: int | None = None,
    group: int | None = None,
) -> list[Exposure]:
    """The questions about a client of this plan, that of the headline first.

    Parameters
    ----------
    plan
        The plan.
    events
        What ran; None: all of the plan's rounds.
    participations
        With a seed for the draws: the most rounds of any client; None: no seed.
    group
        How many clients one person has; None: that is not asked.

    Returns
    -------
    list of Exposure
        "observer": the plan's own guarantee. "record": one thing in a client's data is another
        (replace-one). "cohort known": the observer also knows who took part. "group": all clients
        of one person. What adds nothing is left out.

    Raises
    ------
    ValueError
        For a group that is no number of clients, and participations that are no number of rounds.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    >>> [found.name for found in exposures(plan, group=2)]
    ['observer', 'record', 'cohort known', 'group']
    """
    ran: list[AnyEvent] = [*(plan.events() if events is None else events)]
    if participations is not None:
        participations = whole("participations", participations, 0)
    # Who sees who took part sees it in other releases too, which may have counted on a secret.
    if not amplified(plan) and plan.adjacency != "add-or-remove":
        ran = _known(ran)

    def seen(adjacency: str) -> list[AnyEvent]:
        if participations is None:
            return ran
        return _seeded(plan, ran, participations, adjacency)

    found = [_exposure("observer", plan, seen(plan.adjacency), plan.adjacency)]
    if plan.adjacency != "replace-one":
        found.append(_exposure("record", plan, seen("replace-one"), "replace-one"))
    secret = amplified(plan) or _known(ran) != ran
    if secret and participations is None:
        found.append(_exposure("cohort known", plan, _known(ran), content_of(plan)))
    if group is not None and group > 1:
        found.append(_exposure("group", plan, seen(plan.adjacency), plan.adjacency, group))
    return found


def _seeded(
    plan: PrivacyPlan, events: Sequence[AnyEvent], k: int, adjacency: str
) -> list[AnyEvent]:
    """The same, where a seed gives no client more than k of the plan's rounds."""
    others = [event for event in events if not plan.owns(event)]
    if k == 0:
        return others
    own = certain(plan, k)
    # Under a cap a client that leaves lets another one in: twice the sensitivity, half the z.
    if plan.cap is not None and adjacency == "add-or-remove":
        own = dataclasses.replace(own, noise_multiplier=own.noise_multiplier / 2)
    if not isinstance(own, Filtered):
        return [own, *others]
    # Of two runs the seed may give a client so many rounds in each.
    runs = {e.run for e in events if isinstance(e, Filtered) and plan.owns(e)} or {own.run}
    return [*(dataclasses.replace(own, run=name) for name in sorted(runs)), *others]


def _known(events: Sequence[AnyEvent]) -> list[AnyEvent]:
    """The same, where it is known who took part in each round."""
    seen: list[AnyEvent] = []
    for event in events:
        if isinstance(event, RoundEvent) and event.sampling != "none" and not event.known:
            seen.append(dataclasses.replace(event, known=True))
        else:
            seen.append(event)
    return seen


def _exposure(
    name: str, plan: PrivacyPlan, events: Sequence[AnyEvent], adjacency: str, group: int = 1
) -> Exposure:
    gaussian = all(isinstance(event, RoundEvent) for event in events)
    # Other kinds hold in the adjacency in which they were recorded, and for one client.
    if not gaussian and (adjacency != plan.adjacency or group > 1):
        return Exposure(name, math.inf, 1.0, math.inf, 0.0)
    epsilon = accounting.epsilon_of(events, plan.delta, adjacency, group=group)
    if not math.isfinite(epsilon):
        return Exposure(name, epsilon, 1.0, math.inf, 0.0)
    # Two equally likely worlds are told apart with chance (1 + TV)/2; TV is δ at ε = 0.
    below = [step for step in _BELOW if step <= epsilon]
    points = [0.0, *(epsilon - step for step in below)]
    apart, *deltas = accounting.privacy_curve(events, points, adjacency=adjacency, group=group)
    if epsilon > _MOST:
        return Exposure(name, epsilon, (1 + float(apart)) / 2, math.inf, 0.0)
    factor = math.exp(epsilon)
    # δ(ε - t) >= P[loss > ε]·(1 - e^-t), in both directions: a belief may fall as well as rise.
    shares = [d / -math.expm1(-t) for d, t in zip(deltas, below, strict=True)]
    exceptions = float(min([1.0, *shares])) * (1 + 1 / factor)
    if exceptions > _RARE:
        # The same with t = log 2 above ε: at most 2δ one way, and δ/e^ε the other.
        factor *= 2
        exceptions = min(1.0, 3 * plan.delta)
    return Exposure(name, epsilon, (1 + float(apart)) / 2, factor, exceptions)
