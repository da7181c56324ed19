"""How much signal a run gets: a released sum beside its noise, and rounds that release none."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from typing import TYPE_CHECKING

from fldp._checks import real, whole
from fldp.accounting.binomial import binomial_tail

if TYPE_CHECKING:
    from fldp.plan.client import PrivacyPlan


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
    noise = plan.noise_multiplier * math.sqrt(whole("dimension", dimension))
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
        cohort = enough if enough <= plan.clients else None
    return {"cohort": cohort, "clients": clients}


def skips(plan: PrivacyPlan) -> dict[str, float]:
    """See `PrivacyPlan.skips`.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    dict
        `round`, `any` and `expected`.
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


def _smallest_cohort(plan: PrivacyPlan, target: float, dimension: int) -> int | None:
    """The smallest m whose z for this signal-to-noise ratio, m/(snr·√d), fits the target ε."""
    noise_on_mean = 1 / (target * math.sqrt(dimension))

    def fits(m: int) -> bool:
        event = dataclasses.replace(
            plan.event,
            noise_multiplier=m * noise_on_mean,
            sampling_rate=m / plan.clients,
            rounds=plan.rounds,
            cap=None,
        )
        return plan.spent([event]) <= plan.target_epsilon

    # A larger cohort is amplified less and noised more, and gains more by the second.
    cohorts = range(1, plan.clients + 1)
    if not fits(cohorts[-1]):
        return None
    return cohorts[bisect_left(cohorts[:-1], True, key=fits)]
