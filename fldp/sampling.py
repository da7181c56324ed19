"""Who takes part in a round: samplers that state the event they realise.

Amplification by sampling holds while it is secret who took part: a sampler's generator is as
private as the data. A seed is for simulations and for teaching.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from fldp.accounting import Event
from fldp.checks import whole

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan


@dataclass
class Sampler:
    """What samplers share; this one draws all clients. See `Everyone`."""

    def sample(self, clients: int, generator: Generator | None = None) -> Tensor:
        """Sorted numbers of the clients that take part in the next round; may be empty."""
        return torch.arange(clients)

    def event(self, noise_multiplier: float, clients: int) -> Event:
        """One round among `clients` clients, as an accountant composes it."""
        return Event(noise_multiplier)

    def matches(self, plan: PrivacyPlan) -> bool:
        """Whether rounds drawn by this sampler are what `plan` accounts for.

        A subclass that overrides `sample` vouches for its own draws.
        """
        wanted = for_plan(plan)
        same = all(getattr(self, k, None) == v for k, v in vars(wanted).items())
        return isinstance(self, type(wanted)) and same

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class Everyone(Sampler):
    """All clients, every round."""


@dataclass
class Poisson(Sampler):
    """Every client takes part independently with probability `rate`; a round may be empty.

    With a `cap`, a uniformly random `cap` of those drawn when there are more.

    >>> 60 < len(Poisson(0.25).sample(480, torch.Generator().manual_seed(0))) < 180
    True
    """

    rate: float
    cap: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate is {self.rate!r}: give a probability in (0, 1]")
        self.cap = None if self.cap is None else whole("cap", self.cap)

    def sample(self, clients: int, generator: Generator | None = None) -> Tensor:
        draws = torch.rand(clients, generator=generator, dtype=torch.float64)
        ids = (draws < self.rate).nonzero().flatten()
        if self.cap is None or len(ids) <= self.cap:
            return ids
        return ids[torch.randperm(len(ids), generator=generator)[: self.cap]].sort().values

    def event(self, noise_multiplier: float, clients: int) -> Event:
        return Event(noise_multiplier, self.rate, "poisson", 1, clients, self.cap)


def CappedPoisson(rate: float, cap: int) -> Poisson:
    """Poisson sampling with at most `cap` clients in a round."""
    return Poisson(rate, cap)


@dataclass
class FixedSize(Sampler):
    """Exactly `cohort` clients, uniformly without replacement.

    Another client here displaces one, so this never fits add-or-remove adjacency.
    """

    cohort: int

    def __post_init__(self) -> None:
        self.cohort = whole("cohort", self.cohort)

    def sample(self, clients: int, generator: Generator | None = None) -> Tensor:
        if self.cohort > clients:
            raise ValueError(f"cohort is {self.cohort}, but there are only {clients} clients")
        return torch.randperm(clients, generator=generator)[: self.cohort].sort().values

    def event(self, noise_multiplier: float, clients: int) -> Event:
        return Event(noise_multiplier, self.cohort / clients, "fixed", 1, clients)

    def matches(self, plan: PrivacyPlan) -> bool:
        stated = plan.sampling in ("fixed", "none") and plan.cohort == self.cohort
        return stated and plan.adjacency != "add-or-remove"


@dataclass
class MinSeparation(Sampler):
    """A client takes part every `separation` rounds: round t has those whose slot is t mod b.

    A slot is a fixed random function of the client's number and `seed`, so who joins or leaves
    moves nobody else. No amplification is claimed; mechanisms with correlated noise build on the
    bound `participations`.

    >>> MinSeparation(10).participations(60)
    6
    """

    separation: int
    seed: int = 0
    round: int = 0

    def __post_init__(self) -> None:
        self.separation = whole("separation", self.separation)

    def participations(self, rounds: int) -> int:
        """The most rounds, of `rounds`, that one client takes part in."""
        return -(-rounds // self.separation)

    def sample(self, clients: int, generator: Generator | None = None) -> Tensor:
        own = torch.Generator().manual_seed(self.seed)
        slots = torch.rand(clients, generator=own, dtype=torch.float64) * self.separation
        self.round += 1
        return (slots.long() == (self.round - 1) % self.separation).nonzero().flatten()

    def matches(self, plan: PrivacyPlan) -> bool:
        return plan.sampling == "none" and plan.cohort == plan.clients / self.separation


def for_plan(plan: PrivacyPlan) -> Sampler:
    """The sampler that `plan` accounts for; independent draws where it claims no amplification."""
    if plan.sampling == "fixed":
        return FixedSize(int(plan.cohort))
    if plan.sampling == "none" and plan.cohort == plan.clients:
        return Everyone()
    return Poisson(plan.sampling_rate, plan.cap)
