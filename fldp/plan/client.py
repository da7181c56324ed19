"""Client-level privacy plans: from (ε, δ) and a federation to noise and plain words."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fldp import accounting
from fldp._checks import choice, consistent, real, whole
from fldp._text import down, up
from fldp.accounting import ACCOUNTANTS, ADJACENCIES, SAMPLINGS, Event
from fldp.accounting.binomial import binomial_tail
from fldp.accounting.events import AnyEvent, checked
from fldp.plan import statement as words

TRUSTS = ("central", "distributed", "local")
# A search for the noise stops within its tolerance of the target: so far above is not beyond it.
TOLERANCE = 1e-6
# An adaptive clip takes z apart and puts it together again, which costs a few roundings of 1e-16.
_SAME_NOISE = 1e-12


def participations(rounds: int, rate: float, failure: float) -> int:
    """Smallest k with P[Binomial(rounds, rate) > k] <= failure: bounds a client's participations.

    Parameters
    ----------
    rounds, rate
        T rounds, in each of which the client takes part with chance `rate`.
    failure
        The chance with which it may take part more often, in (0, 1).

    >>> participations(1500, 100 / 3400, 0.5), participations(60, 1.0, 1e-9)
    (44, 60)
    """
    low, high = -1, rounds  # P[K > low] is above failure, P[K > high] = 0 is not
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_tail(middle, rounds, rate) <= failure:
            high = middle
        else:
            low = middle
    return high


def grouped(events: Sequence[AnyEvent]) -> list[AnyEvent]:
    """Equal events counted together: the composition does not depend on their order.

    Parameters
    ----------
    events
        What ran, in any order and of any kind.

    Returns
    -------
    list
        Each kind once, in the order of its first appearance, with all its rounds.

    Raises
    ------
    ValueError
        For what is no event.

    Examples
    --------
    >>> [event.rounds for event in grouped([Event(1.0), Event(2.0), Event(1.0, rounds=2)])]
    [3, 1]
    """
    counts: dict[AnyEvent, int] = {}
    # Thousands of rounds are of few kinds, and `replace` checks each event that it makes.
    for event, times in Counter(checked(events)).items():
        one = dataclasses.replace(event, rounds=1)
        counts[one] = counts.get(one, 0) + event.rounds * times
    return [dataclasses.replace(one, rounds=count) for one, count in counts.items()]


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
        """One round, as it is accounted.

        Under central trust: against whoever sees the models and not who took part. Under
        distributed trust the server knows who took part (`known`): nothing is amplified, and a
        client pays for its own participations, over the stated coins. Under local trust: for every
        round, whoever is drawn.
        """
        z, known = self.noise_multiplier, self.trust != "central"
        if self.sampling == "none" or self.trust == "local":
            return Event(z, known=known)
        return Event(
            noise_multiplier=z,
            sampling_rate=self.sampling_rate,
            sampling=self.sampling,
            clients=self.clients,
            cap=self.cap,
            known=known,
        )

    def events(self, rounds: int | None = None) -> list[Event]:
        """What the accountant composes for the first `rounds` rounds.

        Parameters
        ----------
        rounds
            0 or more, also beyond the plan's own; None: all of the plan's rounds.

        Returns
        -------
        list of Event
            Independent rounds are one event that says how many; no rounds are no event.

        Raises
        ------
        ValueError
            For what is no number of rounds.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> [event.rounds for event in plan.events(30)], plan.events(0)
        ([30], [])
        """
        count = self.rounds if rounds is None else whole("rounds", rounds, 0)
        return [dataclasses.replace(self.event, rounds=count)] if count else []

    def owns(self, event: AnyEvent) -> bool:
        """Whether `event` is rounds of this plan, however many, up to the rounding of z.

        Parameters
        ----------
        event
            A recorded event of any kind.

        Returns
        -------
        bool
            True where everything but the number of rounds is that of `plan.event`.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> plan.owns(plan.events(30)[0]), plan.owns(Event(4.0))
        (True, False)
        """
        if not isinstance(event, Event):
            return False
        own = dataclasses.replace(self.event, rounds=event.rounds)
        z = own.noise_multiplier
        if not math.isclose(event.noise_multiplier, z, rel_tol=_SAME_NOISE):
            return False
        return dataclasses.replace(event, noise_multiplier=z) == own

    def spent(
        self,
        events: Sequence[AnyEvent],
        delta: float | None = None,
        adjacency: str | None = None,
        accountant: str | None = None,
    ) -> float:
        """ε of what was recorded: the plan's own rounds, composed as the plan says, and all else.

        The one account of a run: its history, its ledger and the gate of its budget ask here.

        Parameters
        ----------
        events
            What ran, of any kind and in any order; nothing spends 0.
        delta, adjacency
            None: the plan's. Other kinds of events than `Event` hold in one adjacency only: that
            in which they are accounted here.
        accountant
            None: the plan's, or "pld" where an event is no Gaussian, of which only "pld" knows.

        Returns
        -------
        float
            An upper bound (accountant "gdp": an approximation); infinite where nothing finite
            holds.

        Raises
        ------
        ValueError
            For events that do not fit the adjacency or the accountant.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> plan.spent([plan.event] * 30) == plan.epsilon(30)
        True
        >>> plan.epsilon(30) < plan.spent([*plan.events(30), Event(4.0)])
        True
        """
        composed: list[AnyEvent] = []
        own = 0
        for event in grouped(events):
            if self.owns(event):
                own += event.rounds
            else:
                composed.append(event)
        gaussian = all(isinstance(event, Event) for event in composed)
        composed += self.events(own)
        if accountant is None:
            # Of nothing there is no approximation, either, that could be warned of.
            accountant = self.accountant if gaussian and composed else "pld"
        return accounting.epsilon_of(
            composed,
            self.delta if delta is None else delta,
            self.adjacency if adjacency is None else adjacency,
            accountant,
        )

    def affords(self, events: Sequence[AnyEvent]) -> bool:
        """Whether `events` together stay within the target ε at the plan's δ.

        The plan's own rounds alone, up to their number, always do: they are what it promises. All
        else is composed, and may lie a millionth above the target, as a calibrated z may.

        Parameters
        ----------
        events
            Everything: what was spent, and what is about to be.

        Returns
        -------
        bool
            False where a release of the last of them must be refused.

        Raises
        ------
        ValueError
            As `spent`.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> plan.affords([plan.event] * 60), plan.affords([plan.event] * 61)
        (True, False)
        """
        kinds = grouped(events)
        if all(map(self.owns, kinds)) and sum(event.rounds for event in kinds) <= self.rounds:
            return True
        return self.spent(kinds) <= self.target_epsilon * (1 + TOLERANCE)

    def epsilon(self, rounds: int | None = None) -> float:
        """ε spent after `rounds` rounds (by default all of them) at the plan's δ.

        Against the adversary of `event`; an upper bound, except with `accountant="gdp"`.

        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> plan.epsilon(0), plan.epsilon(30) < plan.epsilon() <= 8
        (0.0, True)
        """
        return self.spent(self.events(rounds))

    @property
    def _content(self) -> str:
        """The adjacency that hides what updates contain, where who took part is known."""
        return "replace-one" if self.adjacency == "replace-one" else "zero-out"

    def _plain(self, rounds: int, adjacency: str) -> float:
        """ε of so many participations, none of them amplified: a Gaussian each."""
        if rounds == 0:
            return 0.0
        event = Event(self.noise_multiplier, rounds=rounds)
        return accounting.epsilon_of([event], self.delta, adjacency)

    def cohort_known(self, confidence: float = 0.999) -> dict[str, Any]:
        """Against whoever also knows who took part: nothing is amplified, own participations count.

        Under distributed trust the server is such an adversary, and this is what the plan accounts;
        under central trust the server sees the updates themselves. Hidden is what updates contain,
        not who took part: the adjacency is "replace-one" under a replace-one plan, else "zero-out".

        Parameters
        ----------
        confidence
            With which probability, over the draws, `bound` holds for all N clients at once.

        Returns
        -------
        dict
            `mean`: the expected participations of a client; `epsilon`: ε when δ also covers the
            draws (the exact mixture of Gaussians over the binomial number of participations), which
            presumes the stated coins; `bound` and `epsilon_bound`: with probability `confidence` no
            client takes part more often (exact binomial tail, union bound), and ε of so many;
            `rounds` and `epsilon_all`: all T rounds, whatever the draws; `confidence`. Where no
            amplification is claimed, all three are those of T rounds.

        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> known = plan.cohort_known()
        >>> round(known["epsilon"], 2), known["mean"], known["bound"]
        (17.39, 15.0, 32)
        """
        failure = 1 - real("confidence", confidence, 1)
        adjacency, drawn = self._content, self.event.sampling != "none"
        rate = self.sampling_rate if drawn else 1.0
        bound = participations(self.rounds, rate, failure / self.clients)
        every = self._plain(self.rounds, adjacency)
        mixture = every
        if drawn:
            event = dataclasses.replace(self.event, rounds=self.rounds, known=True)
            mixture = accounting.epsilon_of([event], self.delta, adjacency)
        return {
            "mean": self.rounds * rate,
            "epsilon": mixture,
            "bound": bound,
            "epsilon_bound": self._plain(bound, adjacency),
            "rounds": self.rounds,
            "epsilon_all": every,
            "confidence": confidence,
        }

    def server_view(self, confidence: float = 0.999) -> dict[str, Any]:
        """The old name of `cohort_known`, with its old keys beside the new; for one version."""
        warnings.warn(
            "server_view is now cohort_known: its 'epsilon' is the exact mixture over the draws, "
            "where 'epsilon_mean' took the mean number of participations",
            DeprecationWarning,
            stacklevel=2,
        )
        known = self.cohort_known(confidence)
        mean = math.ceil(known["mean"] - 1e-9)  # q·T is whole up to rounding where it is whole
        return known | {"epsilon_mean": self._plain(max(1, mean), self._content)}

    def seeded_epsilon(self, participations: int) -> float:
        """ε against whoever knows the seed of the draws, which gives no client more rounds.

        With a seed the coins are known, so nothing is amplified, and they are fixed, so that no
        mixture over them holds: a client pays for each round in which it takes part, a Gaussian
        each. Under a cap a client that leaves lets another one in, which moves the sum by 2C.

        Parameters
        ----------
        participations
            k, the most rounds that the seed gives any client (`Draws.most_participations`), or a
            sampler that enforces a distance between two rounds of a client; from 0 to `rounds`.

        Raises
        ------
        ValueError
            For a k that is no number of rounds of this plan.

        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> plan.epsilon() < plan.seeded_epsilon(15) < plan.seeded_epsilon(26)
        True
        """
        k = whole("participations", participations, 0)
        if k > self.rounds:
            raise ValueError(f"participations is {k}: the plan has {self.rounds} rounds")
        moves_up = self.cap is not None and self.adjacency == "add-or-remove"
        return self._plain(k, "replace-one" if moves_up else self.adjacency)

    def group(self, k: int) -> float:
        """ε at the same δ for k clients that leave or change together (k devices of one person).

        Exact under uncapped Poisson sampling (a mixture of Gaussians, Ganesh 2024); otherwise an
        upper bound against whoever knows how many of the k took part in each round.
        """
        return accounting.epsilon_of(self.events(), self.delta, self.adjacency, group=whole("k", k))

    def curve(self, epsilons: ArrayLike) -> NDArray[np.float64]:
        """δ at each of `epsilons` (>= 0): the whole guarantee, of which (ε, δ) is one point.

        An upper bound, by our own accountant, for the adversary of `event`.

        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> bool(plan.curve([8.0])[0] <= 1e-3)
        True
        """
        return accounting.privacy_curve(self.events(), epsilons, adjacency=self.adjacency)

    def tradeoff(self, alphas: ArrayLike) -> NDArray[np.float64]:
        """What an attacker who accuses wrongly with chance `alphas` must at least miss.

        The attacker tests whether the client's data were used, and the two chances are those of a
        false alarm and of a miss (Dong, Roth & Su 2022). A lower bound: no test does better.

        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> [round(float(miss), 2) for miss in plan.tradeoff([0.0, 0.05, 0.5])]
        [1.0, 0.92, 0.39]
        """
        return accounting.tradeoff(self.events(), alphas, adjacency=self.adjacency)

    def renyi(self, orders: ArrayLike) -> NDArray[np.float64]:
        """The Rényi divergence of all rounds together at each of `orders` (> 1).

        The larger of both directions, for the adversary of `event`; by closed forms where nothing
        is amplified (Mironov 2017), else by quadrature of the dominating pair, to about 1e-6.

        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> bool(abs(plan.renyi([2.0])[0] - 2 * plan.zcdp) < 1e-12)
        True
        """
        return accounting.renyi(self.events(), orders, adjacency=self.adjacency)

    def to_dp_accounting(self) -> Any:
        """The run as a `DpEvent` of Google's dp-accounting, for its PLD or RDP accountants.

        Its neighbouring relation is the caller's to choose: REPLACE_ONE under "replace-one", else
        ADD_OR_REMOVE_ONE. ValueError where it has no such event: fixed-size cohorts, and draws of
        which the adversary knows how they fell.
        """
        return accounting.to_dp_accounting(self.events())

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
        """What reaches a target signal-to-noise ratio at the same ε, δ and T, without a cap.

        Parameters
        ----------
        snr, dimension
            The target, as `snr(dimension)` measures it.

        Returns
        -------
        dict
            `cohort`: the smallest m at this N (None: even everyone is too few); `clients`: the
            smallest N at this q. Either alone is enough.
        """
        ratio = real("snr", snr) / self.snr(dimension)
        if self.trust == "local":
            ratio = ratio**2
        clients = math.ceil(self.clients * ratio)
        if self.event.sampling == "none":  # z does not depend on the cohort
            m = math.ceil(self.cohort * ratio)
            return {"cohort": m if m <= self.clients else None, "clients": clients}
        return {"cohort": self._smallest_cohort(snr, dimension), "clients": clients}

    def _smallest_cohort(self, snr: float, dimension: int) -> int | None:
        """The smallest m whose z for this signal-to-noise ratio, m/(snr·√d), fits the target ε."""
        noise_on_mean = 1 / (snr * math.sqrt(dimension))

        def fits(m: int) -> bool:
            event = dataclasses.replace(
                self.event,
                noise_multiplier=m * noise_on_mean,
                sampling_rate=m / self.clients,
                rounds=self.rounds,
                cap=None,
            )
            return self.spent([event]) <= self.target_epsilon

        low, high = 0, self.clients
        if not fits(high):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if fits(middle):
                high = middle
            else:
                low = middle
        return high

    def statement(self, reproducible: bool = False, participations: int | None = None) -> str:
        """The guarantee in plain words: unit, trust, adjacency, sampling, assumptions, limits.

        Parameters
        ----------
        reproducible
            The noise came from a generator seeded by the caller; says what that does to it.
        participations
            The draws came from a seed, which gives no client more rounds than this: the first line
            is then `seeded_epsilon(participations)`, against whoever knows the seed.
        """
        return words.statement(self, reproducible, participations)

    def verify(self, *, aggregate: Any = None, ledger: Any = None, like: Any = None) -> Any:
        """A self-test of this plan: second opinions, neighbouring cohorts, a ledger replayed.

        See `fldp.audit.verify.verify` for the arguments. The result prints as a table; `.ok` says
        whether nothing failed.
        """
        from fldp.audit import verify

        return verify.verify(self, aggregate=aggregate, ledger=ledger, like=like)

    def plot(self, ax: Any = None) -> Any:
        """ε over the rounds, without and with knowing who took part; returns the axes."""
        from fldp import plotting

        return plotting.plan(self, ax)

    def _repr_html_(self) -> str:
        return words.plan_html(self)

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


# The usual δ of the literature. With 1/N^1.1 alone 480 clients would get δ = .0011, at which some
# client could be published in full with a chance of 42 %.
USUAL_DELTA = 1e-5


def suggest_delta(clients: int) -> float:
    """The smaller of 1e-5 and 1/N^1.1 (McMahan et al. 2018).

    N·δ, the number of clients that (0, δ) would allow to be published in full, is on average below
    0.36 at any N.

    >>> suggest_delta(480), round(suggest_delta(10**6) * 1e6, 2)
    (1e-05, 0.25)
    """
    return min(USUAL_DELTA, float(whole("clients", clients) ** -1.1))


def calibrate(
    *,
    epsilon: float,
    delta: float | None = None,
    rounds: int,
    clients: int,
    cohort: float | None = None,
    sampling: str = "poisson",
    trust: str = "central",
    adjacency: str | None = None,
    accountant: str = "pld",
    cap: int | None = None,
    survivors: int | None = None,
) -> PrivacyPlan:
    """The plan with the least noise that gives (ε, δ) at the client level after `rounds` rounds.

    Batch size, local epochs and data sizes are absent: at the client level they change nothing.

    Parameters
    ----------
    epsilon
        The target: 1 is strong, 8 moderate, above 10 weak.
    delta
        None: `suggest_delta(clients)`. At 1/N or above it warns.
    rounds
        T, each with one release.
    clients
        N, the population.
    cohort
        m, the expected number of clients in a round; None: everyone, every round.
    sampling
        "poisson" (each client by its own coin of chance m/N), "fixed" (exactly m) or "none": no
        amplification is claimed, whoever is drawn.
    trust
        "central": the server sees updates, and its models do not tell who took part. "distributed":
        the server sees sums and knows who took part; ε is against it, without amplification, over
        the coins that the plan states; z is that of the sum, a share has std z·C/√survivors.
        "local": z is the noise of each client's own message, accounted for all T rounds.
    adjacency
        "add-or-remove" (None, central trust), "zero-out" (None, distributed and local trust) or
        "replace-one". Where who took part is known, "add-or-remove" is refused.
    accountant
        "pld", "prv", "rdp" or "gdp" (an approximation).
    cap
        A hard cap on a Poisson cohort.
    survivors
        Distributed trust: the fewest honest clients in a released round.

    Raises
    ------
    ValueError
        Before any work, for settings out of range or that do not go together; it says what to give.

    Examples
    --------
    >>> round(calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10).noise_multiplier, 2)
    14.45
    """
    epsilon, clients = real("epsilon", epsilon), whole("clients", clients)
    if delta is None:
        delta = suggest_delta(clients)
    if cohort is None and sampling in SAMPLINGS:
        sampling = "none"
    if adjacency is None:
        adjacency = "add-or-remove" if trust == "central" else "zero-out"
    plan = PrivacyPlan(
        noise_multiplier=1.0,  # until it is calibrated
        delta=delta,
        rounds=rounds,
        clients=clients,
        cohort=clients if cohort is None else cohort,
        sampling=sampling,
        trust=trust,
        adjacency=adjacency,
        accountant=accountant,
        target_epsilon=epsilon,
        cap=cap,
        survivors=survivors,
    )
    if plan.delta >= 1 / clients:
        warnings.warn(
            f"delta is {up(plan.delta)} >= 1/clients = {1 / clients:g}: publishing one random "
            f"client's data in full would satisfy it; take at most {down(suggest_delta(clients))}",
            UserWarning,
            stacklevel=2,
        )
    question = dataclasses.replace(plan.event, rounds=plan.rounds).to_dict()
    del question["noise_multiplier"]
    z = accounting.noise_multiplier(
        epsilon=epsilon, delta=plan.delta, adjacency=adjacency, accountant=accountant, **question
    )
    return dataclasses.replace(plan, noise_multiplier=z)
