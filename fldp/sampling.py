"""Who takes part in a round: samplers that state the event they realise.

Amplification by sampling holds while it is secret who took part: the generator of a sampler is as
private as the data. A seed is for simulations and for teaching.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    from fldp.accounting import Event
    from fldp.plan import PrivacyPlan


@dataclass
class Sampler:
    """Base class: `sample` draws client numbers, `event` is what an accountant may compose."""

    def sample(self, clients: int, generator: Generator | None = None) -> Tensor:
        """Sorted numbers of the clients that take part in the next round; may be empty."""
        raise NotImplementedError

    def event(self, noise_multiplier: float, clients: int) -> Event:
        """One round with this sampler among `clients` clients; no amplification unless stated."""
        from fldp.accounting import Event

        return Event(noise_multiplier)

    def matches(self, plan: PrivacyPlan) -> bool:
        """Whether rounds drawn by this sampler are what `plan` accounts for."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after `state_dict`; most samplers keep no state."""


@dataclass
class Poisson(Sampler):
    """Every client takes part independently with probability `rate`; a round may be empty.

    >>> ids = Poisson(0.25).sample(480, torch.Generator().manual_seed(0))
    >>> 60 < len(ids) < 180
    True
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate is {self.rate!r}; give a probability in (0, 1]")

    def sample(self, clients: int, generator: Generator | None = None) -> Tensor:
        draws = torch.rand(clients, generator=generator, dtype=torch.float64)
        return (draws < self.rate).nonzero().flatten()

    def event(self, noise_multiplier: float, clients: int) -> Event:
        from fldp.accounting import Event

        return Event(noise_multiplier, self.rate, "poisson", 1, clients, getattr(self, "cap", None))

    def matches(self, plan: PrivacyPlan) -> bool:
        # Independent draws are also safe where no amplification is claimed.
        known = plan.sampling in ("poisson", "none") and plan.cap == getattr(self, "cap", None)
        return known and math.isclose(plan.sampling_rate, self.rate, rel_tol=1e-9)


@dataclass
class CappedPoisson(Poisson):
    """Poisson, then a uniformly random `cap` of those drawn when there are more than `cap`."""

    cap: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cap < 1:
            raise ValueError(f"cap is {self.cap!r}; give the largest cohort you can run, >= 1")

    def sample(self, clients: int, generator: Generator | None = None) -> Tensor:
        ids = super().sample(clients, generator)
        if len(ids) <= self.cap:
            return ids
        return ids[torch.randperm(len(ids), generator=generator)[: self.cap]].sort().values


@dataclass
class FixedSize(Sampler):
    """Exactly `cohort` clients, uniformly without replacement: pairs with replace-one adjacency."""

    cohort: int

    def __post_init__(self) -> None:
        if self.cohort != int(self.cohort) or self.cohort < 1:
            raise ValueError(f"cohort is {self.cohort!r}; give a whole number >= 1")

    def sample(self, clients: int, generator: Generator | None = None) -> Tensor:
        if self.cohort > clients:
            raise ValueError(f"cohort is {self.cohort}, but there are only {clients} clients")
        return torch.randperm(clients, generator=generator)[: int(self.cohort)].sort().values

    def event(self, noise_multiplier: float, clients: int) -> Event:
        from fldp.accounting import Event

        return Event(noise_multiplier, self.cohort / clients, "fixed", 1, clients)

    def matches(self, plan: PrivacyPlan) -> bool:
        # Adding a client displaces another one here, so add-or-remove never fits.
        known = plan.sampling in ("fixed", "none") and plan.adjacency != "add-or-remove"
        return known and plan.cohort == self.cohort


@dataclass
class Everyone(Sampler):
    """All clients, every round."""

    def sample(self, clients: int, generator: Generator | None = None) -> Tensor:
        return torch.arange(clients)

    def matches(self, plan: PrivacyPlan) -> bool:
        return plan.sampling == "none" and plan.cohort == plan.clients


@dataclass
class MinSeparation(Sampler):
    """A client takes part every `separation` rounds: round t has those whose slot is t mod b.

    Each client's slot is a fixed pseudorandom function of its number and `seed`, so a client that
    joins or leaves moves nobody else. No amplification; at most `participations(rounds)` of the
    rounds see any one client, and matrix-factorisation mechanisms build on that bound.

    >>> MinSeparation(10).participations(60)
    6
    """

    separation: int
    seed: int = 0
    round: int = 0

    def __post_init__(self) -> None:
        if self.separation != int(self.separation) or self.separation < 1:
            raise ValueError(f"separation is {self.separation!r}; give a whole number >= 1")

    def participations(self, rounds: int) -> int:
        """The most rounds, of `rounds`, that one client takes part in."""
        return -(-rounds // self.separation)

    def sample(self, clients: int, generator: Generator | None = None) -> Tensor:
        private = torch.Generator().manual_seed(self.seed)
        slots = torch.rand(clients, generator=private, dtype=torch.float64) * self.separation
        self.round += 1
        return (slots.long() == (self.round - 1) % self.separation).nonzero().flatten()

    def matches(self, plan: PrivacyPlan) -> bool:
        return plan.sampling == "none" and math.isclose(
            plan.cohort, plan.clients / self.separation, rel_tol=1e-9
        )

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round = int(state["round"])


def for_plan(plan: PrivacyPlan) -> Sampler:
    """The sampler that `plan` accounts for; ValueError when there is none."""
    if plan.sampling == "fixed":
        return FixedSize(int(plan.cohort))
    if plan.sampling == "poisson" and plan.cap is not None:
        return CappedPoisson(plan.sampling_rate, plan.cap)
    if plan.sampling == "none" and plan.cohort == plan.clients:
        return Everyone()
    if plan.sampling in ("poisson", "none"):
        return Poisson(plan.sampling_rate)
    raise ValueError(f"sampling is {plan.sampling!r}; use 'poisson', 'fixed' or 'none'")
