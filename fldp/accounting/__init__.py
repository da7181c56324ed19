"""What is spent.

Epsilon, delta and noise multiplier of what ran, composed over rounds and mechanisms.

The unit is what was clipped to norm C and noised once per round: a client's update. Local epochs,
batch sizes and client data sizes do not enter. `noise_multiplier` is always the noise's standard
deviation on the sum divided by C; under "replace-one" the sensitivity 2C is handled here. Other
mechanisms may stand beside the Gaussian (:class:`Laplace`, :class:`Approximate`,
:class:`Concentrated`), noise may be correlated over rounds (:class:`Filtered`), and clients may
move together (`group`).

The default accountant, "pld", is our own (:mod:`fldp.accounting.pld`; closed forms where there are
some, such as that of Balle & Wang 2018 without sampling). Whatever it answers is an upper bound.
For Gaussian noise with z >= 0.05 epsilon is at most 0.1 % above the exact value, where it is at
least a hundredth of the privacy loss's standard deviation; nearer to 0 the looseness stays at 1e-5
of that. Delta is as near as 0.1 % of epsilon makes it, and half a percent. Other mechanisms in a
mix may add a percent. What a grid cannot hold gets a looser bound.

Opacus' own accountants stand behind the same signature, without fixed-size cohorts, caps, known
participation, groups or sampled replace-one:

- "prv": an upper bound, up to 0.01 too high in absolute terms; refused above 2e6 grid points;
- "rdp": an upper bound, often 5-20 % too high, with a floor near 0.1 at delta = 1e-5;
- "gdp": a central-limit *approximation* that can lie far below the truth: it warns.
"""

from __future__ import annotations

from fldp.accounting.account import ACCOUNTANTS, delta_of, epsilon_of
from fldp.accounting.divergences import privacy_curve, renyi, tradeoff
from fldp.accounting.events import (
    ADJACENCIES,
    SAMPLINGS,
    AnyEvent,
    Approximate,
    Concentrated,
    Event,
    Filtered,
    Laplace,
    event_from_dict,
)
from fldp.accounting.exchange import from_opacus, to_dp_accounting
from fldp.accounting.gaussian import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    zcdp_epsilon,
    zcdp_rho,
)
from fldp.accounting.questions import delta, epsilon, max_rounds, min_cohort, noise_multiplier
from fldp.accounting.selection import selected_epsilon

__all__ = [
    "ACCOUNTANTS",
    "ADJACENCIES",
    "SAMPLINGS",
    "AnyEvent",
    "Approximate",
    "Concentrated",
    "Event",
    "Filtered",
    "Laplace",
    "delta",
    "delta_of",
    "epsilon",
    "epsilon_of",
    "event_from_dict",
    "from_opacus",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_mu",
    "max_rounds",
    "min_cohort",
    "noise_multiplier",
    "privacy_curve",
    "renyi",
    "selected_epsilon",
    "to_dp_accounting",
    "tradeoff",
    "zcdp_epsilon",
    "zcdp_rho",
]
