"""Client-level privacy plans: from (ε, δ) and a federation to noise and plain words."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fldp import accounting, report
from fldp.accounting import ACCOUNTANTS, ADJACENCIES, SAMPLINGS, Event
from fldp.checks import choice, consistent, real, whole

TRUSTS = ("central", "distributed", "local")


def participations(rounds: int, rate: float, failure: float) -> int:
    """Smallest k with P[Binomial(rounds, rate) > k] <= failure: bounds a client's participations.

    >>> participations(1500, 100 / 3400, 0.5), participations(60, 1.0, 1e-9)
    (44, 60)
    """
    if rate >= 1:
        return rounds
    if rounds > 10**6:  # Bernstein's bound: no array of this length
        load = -math.log(failure)
        excess = load / 3 + math.sqrt(load * load / 9 + 2 * load * rounds * rate)
        return min(rounds, math.ceil(rounds * rate + excess))
    k = np.arange(rounds + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(k[1:]))])
    pmf = logs[-1] - logs - logs[::-1] + k * math.log(rate) + (rounds - k) * math.log1p(-rate)
    above = np.append(np.cumsum(np.exp(pmf[::-1]))[::-1][1:], 0.0)  # P[K > k]
    return int(np.argmax(above * (1 + 1e-9) <= failure))


@dataclass(frozen=True)
class PrivacyPlan:
    """What is released, how often, with how much noise, and what that guarantees; frozen.

    Made by `calibrate`; fields are checked however a plan is built. `noise_multiplier` z is the
    noise std on the sum divided by the clip norm C, whatever the adjacency (under "replace-one" the
    sum moves by 2C, and the accountant knows). `cohort` m is the expected cohort.

    >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    >>> PrivacyPlan.from_json(plan.to_json()) == plan and plan.epsilon(30) < plan.epsilon() <= 8
    True
    """

    noise_multiplier: float
    delta: float
    rounds: int
    clients: int
    cohort: float
    sampling: str
    trust: str
    adjacency: str
    accountant: str
    target_epsilon: float
    cap: int | None = None
    survivors: int | None = None

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)
        for name in ("noise_multiplier", "cohort", "target_epsilon"):
            put(name, real(name.removeprefix("target_"), getattr(self, name)))
        put("delta", real("delta", self.delta, 1))
        for name in ("rounds", "clients", "cap", "survivors"):
            if getattr(self, name) is not None or name in ("rounds", "clients"):
                put(name, whole(name, getattr(self, name)))
        choice("sampling", self.sampling, SAMPLINGS)
        choice("trust", self.trust, TRUSTS)
        choice("adjacency", self.adjacency, ADJACENCIES)
        choice("accountant", self.accountant, ACCOUNTANTS)
        consistent(**self.to_dict())

    @property
    def sampling_rate(self) -> float:
        """q = m/N, at which the sampler draws; what the accountant may use of it is in `event`."""
        return self.cohort / self.clients

    @property
    def denominator(self) -> float:
        """The public denominator of the mean: the expected cohort m, never the realised one."""
        return self.cohort

    @property
    def event(self) -> Event:
        """One round, as accounted against whoever sees the models (local trust: the messages)."""
        if self.sampling == "none" or self.trust == "local":
            return Event(noise_multiplier=self.noise_multiplier)
        return Event(
            self.noise_multiplier, self.sampling_rate, self.sampling, 1, self.clients, self.cap
        )

    def _epsilon(self, rounds: int, event: Event | None = None, **changes: Any) -> float:
        question: dict[str, Any] = {
            "delta": self.delta,
            "adjacency": self.adjacency,
            "accountant": self.accountant,
        }
        question |= (event or self.event).to_dict() | {"rounds": rounds} | changes
        return accounting.epsilon(**question)

    def epsilon(self, rounds: int | None = None) -> float:
        """ε spent after `rounds` rounds (by default all of them) at the plan's δ."""
        rounds = self.rounds if rounds is None else whole("rounds", rounds, 0)
        return self._epsilon(rounds) if rounds else 0.0

    def server_view(self, confidence: float = 0.999) -> dict[str, float]:
        """Against whoever also knows who took part: no amplification, own participations count.

        The server is such an adversary under distributed trust; under central trust it sees more.
        Keys: `mean` participations of a client with `epsilon_mean`; `bound` with `epsilon_bound`:
        with probability `confidence` over the draws none of the N clients takes part more often
        (exact binomial tail, union bound). Hides what updates contain, not who took part.
        """
        rate = 1.0 if self.event.sampling == "none" else self.sampling_rate
        failure = 1 - real("confidence", confidence, 1)
        bound = participations(self.rounds, rate, failure / self.clients)
        mean = self.rounds * rate
        event = Event(noise_multiplier=self.noise_multiplier)
        hidden = "replace-one" if self.adjacency == "replace-one" else "zero-out"
        seen = {"mean": mean, "bound": bound, "confidence": confidence}
        for name in ("mean", "bound"):
            k = max(1, math.ceil(seen[name] - 1e-9))
            seen[f"epsilon_{name}"] = self._epsilon(k, event, adjacency=hidden, accountant="pld")
        return seen

    def group(self, k: int) -> float:
        """ε at the same δ for k clients that leave or change together (k devices of one person).

        Exact under uncapped Poisson sampling (a mixture of Gaussians, Ganesh 2024); otherwise an
        upper bound against whoever knows how many of the k took part in each round.
        """
        event = dataclasses.replace(self.event, rounds=self.rounds)
        return accounting.epsilon_of([event], self.delta, self.adjacency, group=whole("k", k))

    @property
    def gdp_mu(self) -> float:
        """μ of Gaussian DP over all rounds: a valid bound, without amplification by sampling."""
        doubled = self.adjacency == "replace-one" or self.cap is not None
        return math.sqrt(self.rounds) * (2 if doubled else 1) / self.noise_multiplier

    @property
    def zcdp(self) -> float:
        """ρ = μ²/2 of zero-concentrated DP over all rounds, without amplification by sampling."""
        return self.gdp_mu**2 / 2

    def snr(self, dimension: int) -> float:
        """Best-case signal to noise of a released sum, C·m/(z·C·√d); local trust: √m more noise."""
        noise = self.noise_multiplier * math.sqrt(whole("dimension", dimension))
        return self.cohort / (noise * (math.sqrt(self.cohort) if self.trust == "local" else 1))

    def needed(self, snr: float, dimension: int) -> dict[str, int | None]:
        """What reaches a target `snr` at the same ε, δ and T, without a cap: the smallest `cohort`
        at this N (None: even everyone is too few), or the smallest `clients` at this q."""
        ratio = real("snr", snr) / self.snr(dimension)
        ratio = ratio**2 if self.trust == "local" else ratio
        found: dict[str, int | None] = {"cohort": None, "clients": math.ceil(self.clients * ratio)}
        if self.event.sampling == "none":  # z does not depend on the cohort
            m = math.ceil(self.cohort * ratio)
            return found | {"cohort": m if m <= self.clients else None}
        names = ("delta", "rounds", "clients", "sampling", "adjacency", "accountant")
        settings = {name: getattr(self, name) for name in names} | {"epsilon": self.target_epsilon}
        with contextlib.suppress(ValueError):
            on_mean = 1 / (snr * math.sqrt(dimension))
            found["cohort"] = accounting.min_cohort(noise_on_mean=on_mean, **settings)
        return found

    def statement(self, reproducible: bool = False) -> str:
        """The guarantee in plain words: unit, trust, adjacency, sampling, assumptions, limits.

        `reproducible=True` adds what a noise generator seeded by the caller does to it.
        """
        return report.statement(self, reproducible)

    def verify(self) -> Any:
        """The second opinion: the same question to dp-accounting and Opacus, with times."""
        return report.verify(self)

    def plot(self, ax: Any = None) -> Any:
        """ε over the rounds, without and with knowing who took part; returns the axes."""
        return report.plot(self, ax)

    def _repr_html_(self) -> str:
        return report.plan_html(self)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers and strings; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> PrivacyPlan:
        """The plan of `to_dict`; unknown and missing fields are refused with a ValueError."""
        if not isinstance(fields, dict):
            raise ValueError(f"a plan is a dict of its fields, not {type(fields).__name__}")
        names = {field.name for field in dataclasses.fields(cls)}
        for what, odd in (("unknown", set(fields) - names), ("missing", names - set(fields))):
            if odd:
                raise ValueError(
                    f"{what} fields {sorted(map(str, odd))}: give those of plan.to_dict()"
                )
        return cls(**fields)

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> PrivacyPlan:
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON ({error}): give the text of plan.to_json()") from None


def suggest_delta(clients: int) -> float:
    """1/N^1.1 (McMahan et al. 2018); below 100 clients, where that promises too little, 1e-5."""
    return float(whole("clients", clients) ** -1.1) if clients >= 100 else 1e-5


def calibrate(
    *,
    epsilon: float,
    delta: float | None = None,
    rounds: int,
    clients: int,
    cohort: float | None = None,
    sampling: str = "poisson",
    trust: str = "central",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
    cap: int | None = None,
    survivors: int | None = None,
) -> PrivacyPlan:
    """The plan with the least noise that gives (ε, δ) at the client level after `rounds` rounds.

    `cohort=None`: everyone takes part in every round. `delta=None`: `suggest_delta(clients)`;
    δ >= 1/N warns. `sampling="none"`: no amplification is claimed, whoever is drawn.
    `trust="local"`: z is the noise of each client's own message. `trust="distributed"`: z is that
    of the sum, a share has std z·C/√survivors. ValueError, before any work, says what to give.
    Batch size, local epochs and data sizes are absent: at the client level they change nothing.

    >>> round(calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10).noise_multiplier, 2)
    14.45
    """
    epsilon, clients = real("epsilon", epsilon), whole("clients", clients)
    delta = suggest_delta(clients) if delta is None else delta
    sampling = "none" if cohort is None and sampling in SAMPLINGS else sampling
    kinds = (sampling, trust, adjacency, accountant)
    m = clients if cohort is None else cohort
    plan = PrivacyPlan(1.0, delta, rounds, clients, m, *kinds, epsilon, cap, survivors)
    if plan.delta >= 1 / clients:
        warnings.warn(
            f"delta is {plan.delta:g} >= 1/clients = {1 / clients:g}: publishing one random "
            f"client's data in full would satisfy it; take at most {suggest_delta(clients):.2g}",
            UserWarning,
            stacklevel=2,
        )
    question = plan.event.to_dict() | {
        "rounds": plan.rounds,
        "delta": plan.delta,
        "epsilon": epsilon,
    }
    del question["noise_multiplier"]
    z = accounting.noise_multiplier(**question, adjacency=adjacency, accountant=accountant)
    return dataclasses.replace(plan, noise_multiplier=z)
