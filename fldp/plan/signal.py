"""How much signal a released sum holds beside its noise, and what more of it takes."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from typing import TYPE_CHECKING

from fldp._checks import real, whole
from fldp.accounting import Event
from fldp.accounting.filters import independent
from fldp.plan.attendance import period

if TYPE_CHECKING:
    from fldp.plan.client import PrivacyPlan


def lasting(plan: PrivacyPlan) -> float:
    """How much of a round's noise the sums of rounds keep, 1 where it is fresh in every round.

    A model is a sum of releases, in which correlated noise cancels in part.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    float
        The root mean square over the sums of all its rounds, beside that of fresh noise.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> plan = calibrate(epsilon=8.0, delta=1e-5, rounds=64, clients=480, sampling="none",
    ...                  separation=8, correlation="blt")
    >>> round(lasting(plan), 2)
    0.31
    """
    if plan.correlation is None:
        return 1.0
    return plan.correlation.error(plan.rounds) / independent().error(plan.rounds)


def snr(plan: PrivacyPlan, dimension: int) -> float:
    """See `PrivacyPlan.snr`.

    Parameters
    ----------
    plan
        The plan.
    dimension
        d, how many numbers an update has.

    Returns
    -------
    float
        Signal over noise, both as Euclidean norms.
    """
    noise = plan.noise_multiplier * math.sqrt(whole("dimension", dimension)) * lasting(plan)
    if plan.trust == "local":
        # Every message of the cohort brings its own noise, and variances add up.
        noise *= math.sqrt(plan.cohort)
    return plan.cohort / noise


def needed(plan: PrivacyPlan, target: float, dimension: int) -> dict[str, int | None]:
    """See `PrivacyPlan.needed`.

    Parameters
    ----------
    plan
        The plan.
    target, dimension
        A ratio as `snr(plan, dimension)` measures it.

    Returns
    -------
    dict
        `cohort` and `clients`.
    """
    ratio = real("snr", target) / snr(plan, dimension)
    if plan.trust == "local":
        ratio = ratio**2  # the signal grows with m, the noise with √m
    clients = math.ceil(plan.clients * ratio)
    if plan.event.sampling != "none":
        cohort = _smallest_cohort(plan, target, dimension)
    else:
        # Without amplification z does not depend on the cohort.
        enough = math.ceil(plan.cohort * ratio)
        cohort = enough if enough <= plan.clients / period(plan) else None
    return {"cohort": cohort, "clients": clients}


def _smallest_cohort(plan: PrivacyPlan, target: float, dimension: int) -> int | None:
    """The smallest m whose z for this signal-to-noise ratio fits the target ε.

    z is m/(snr·√d) where noise is fresh, and more where the sums of rounds keep less of it.
    """
    noise_on_mean = 1 / (target * math.sqrt(dimension) * lasting(plan))
    one = plan.event
    if isinstance(one, Event):
        one = dataclasses.replace(one, cap=None)
    turns = period(plan)

    def fits(m: int) -> bool:
        event = dataclasses.replace(
            one,
            noise_multiplier=m * noise_on_mean,
            sampling_rate=min(1.0, m * turns / plan.clients),
            rounds=plan.rounds,
        )
        return plan.spent([event]) <= plan.target_epsilon

    # A larger cohort is amplified less and noised more, and gains more by the second.
    cohorts = range(1, plan.clients // turns + 1)
    # Of fewer clients than turns not one comes to each round.
    if not cohorts or not fits(cohorts[-1]):
        return None
    return cohorts[bisect_left(cohorts[:-1], True, key=fits)]
