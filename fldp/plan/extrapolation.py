"""A simulation of a larger federation, labelled as one, beside what really ran."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fldp._checks import whole
from fldp._text import fill, up
from fldp.plan.client import PrivacyPlan


@dataclass(frozen=True)
class Extrapolation:
    """A run as it is, beside a larger federation with the same signal and noise on the mean.

    Parameters
    ----------
    simulated
        The plan of what ran.
    federation
        That of the larger federation, which did not run.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480,
    ...                       cohort=120)
    >>> fldp.extrapolate(plan, clients=48_000).federation.clients
    48000
    """

    simulated: PrivacyPlan
    federation: PrivacyPlan

    def statement(self) -> str:
        """Both (ε, δ) side by side, rounded up; only the first is about the clients that took part.

        Returns
        -------
        str
            One paragraph that begins with the word SIMULATION, in lines of at most 76 characters.

        Examples
        --------
        >>> import fldp
        >>> plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> extrapolate(plan, clients=1000).statement()[:37]
        'SIMULATION of a larger federation, no'
        """
        ran, larger = self.simulated, self.federation
        return fill(
            f"SIMULATION of a larger federation, not a guarantee. The {ran.clients} clients that "
            f"took part have {_guarantee(ran)}. A federation of {larger.clients} with "
            f"{larger.cohort:.10g} a round and the same noise on the mean (z = "
            f"{up(larger.noise_multiplier)}) would give its clients {_guarantee(larger)}."
        )

    __str__ = statement


def _guarantee(plan: PrivacyPlan) -> str:
    roughly = "approximately " if plan.accountant == "gdp" else ""
    return f"{roughly}ε = {up(plan.epsilon())} (δ = {up(plan.delta)}, {plan.adjacency})"


def extrapolate(plan: PrivacyPlan, *, clients: int, delta: float | None = None) -> Extrapolation:
    """The same signal-to-noise ratio with a real population of `clients`: both ε, labelled.

    The larger federation keeps q, T and the noise on the mean: its cohort grows by the factor of
    the population, and z by the same factor, or under local trust by its root.

    Parameters
    ----------
    plan
        What ran.
    clients
        The population of the larger federation, at least the plan's.
    delta
        Its δ; None: the plan's N·δ stays, so that δ shrinks as N grows.

    Returns
    -------
    Extrapolation
        Both plans; its statement says SIMULATION.

    Raises
    ------
    ValueError
        For a population smaller than the plan's.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480,
    ...                       cohort=120)
    >>> both = extrapolate(plan, clients=48_000)
    >>> both.federation.epsilon() < 0.1 < both.simulated.epsilon()
    True
    """
    clients = whole("clients", clients)
    if clients < plan.clients:
        raise ValueError(f"clients is {clients}: the plan already has {plan.clients}, give more")
    factor = clients / plan.clients
    louder = factor
    if plan.trust == "local":
        # Local noise adds up over the messages: √m times z on the sum, z/√m on the mean.
        louder = math.sqrt(factor)
    # Rounded to the side that asks for no less noise and sends no more clients away.
    # In whole numbers: with a factor that was rounded up, all colluders would be one more.
    cap = plan.cap and -(-plan.cap * clients // plan.clients)
    fewest = plan.min_survivors and plan.min_survivors * clients // plan.clients
    larger = replace(
        plan,
        clients=clients,
        # The product first: everybody stays everybody, and a whole cohort whole.
        cohort=plan.cohort * clients / plan.clients,
        noise_multiplier=plan.noise_multiplier * louder,
        delta=plan.delta / factor if delta is None else delta,
        cap=cap,
        min_survivors=fewest,
        colluders=-(-plan.colluders * clients // plan.clients),
    )
    return Extrapolation(plan, larger)
