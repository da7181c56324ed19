"""A simulation of a larger federation, labelled as one, beside what really ran."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fldp.plan import PrivacyPlan


@dataclass(frozen=True)
class Extrapolation:
    """A run as it is, beside a larger federation with the same signal and noise on the mean."""

    simulated: PrivacyPlan
    federation: PrivacyPlan

    def statement(self) -> str:
        """Both ε side by side; only the first is a guarantee about the clients that took part."""
        a, b = self.simulated, self.federation
        return (
            f"SIMULATION of a larger federation, not a guarantee. The {a.clients} clients that "
            f"took part have ε = {a.epsilon():.3g} (δ = {a.delta:g}). A federation of "
            f"{b.clients} with {b.cohort:g} a round and the same noise on the mean "
            f"(z = {b.noise_multiplier:.3g}) would give its clients ε = {b.epsilon():.3g} "
            f"(δ = {b.delta:g})."
        )

    def __str__(self) -> str:
        return self.statement()


def extrapolate(plan: PrivacyPlan, *, clients: int, delta: float | None = None) -> Extrapolation:
    """The same signal-to-noise ratio with a real population of `clients`: both ε, labelled.

    The larger federation keeps q, T and the noise on the mean: its cohort and its z grow by the
    same factor. δ shrinks with N unless given.

    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    >>> both = extrapolate(plan, clients=48_000)
    >>> both.federation.epsilon() < 0.1 < both.simulated.epsilon()
    True
    """
    if clients < plan.clients:
        raise ValueError(f"clients is {clients}: the plan already has {plan.clients}, give more")
    factor = clients / plan.clients
    larger = replace(
        plan, clients=clients, cohort=plan.cohort * factor,
        noise_multiplier=plan.noise_multiplier * factor,
        delta=plan.delta / factor if delta is None else delta,
        cap=None if plan.cap is None else math.ceil(plan.cap * factor),
        survivors=None if plan.survivors is None else math.ceil(plan.survivors * factor),
    )  # fmt: skip
    return Extrapolation(plan, larger)
