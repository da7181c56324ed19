"""How many clients a round of a plan may have: public numbers, whoever comes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fldp.mechanism.summation import MOST

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# A Poisson cohort is larger than m + 6√m once in 10^9 rounds.
_LIKELY_SDS = 6


def shares(plan: PrivacyPlan) -> int:
    """How many clients' shares make up the noise that the plan accounts for.

    The honest survivors that it states, under distributed trust; 1 where one party adds all of it.
    """
    return plan.min_survivors or 1


def fewest(plan: PrivacyPlan) -> int:
    """The fewest uploads of a round that is released: 0 but under distributed trust.

    Nobody can tell which uploads are honest: of so many, all colluders among them, enough are.
    """
    if plan.min_survivors is None:
        return 0
    return plan.min_survivors + plan.colluders


def told(plan: PrivacyPlan) -> str:
    """The fewest uploads of a plan with distributed trust, in words."""
    words = f"min_survivors = {plan.min_survivors}"
    if plan.colluders:
        words += f" and {plan.colluders} colluders"
    return words


def most(plan: PrivacyPlan) -> int:
    """The most clients in a round that the plan accounts for, and one sum can hold."""
    limit = plan.clients
    if plan.cap is not None:
        limit = plan.cap
    if plan.sampling == "fixed":
        limit = round(plan.cohort)
    return min(limit, MOST)


def likely(plan: PrivacyPlan) -> int:
    """How many clients a round is prepared for: all, or a Poisson cohort's m + 6√m."""
    if plan.sampling != "poisson":
        return most(plan)
    return min(most(plan), math.ceil(plan.cohort + _LIKELY_SDS * math.sqrt(plan.cohort)))
