"""Client-level privacy plans: from (ε, δ) and a federation to noise and plain words."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fldp import accounting
from fldp._checks import choice, real, whole
from fldp._moved import renamed, warn_of_name
from fldp._settings import CHOICES, SAMPLING, TRUST, refuse_what_conflicts, usual_adjacency
from fldp._text import down, up
from fldp.accounting import Event, Filtered
from fldp.accounting.events import AnyEvent, RoundEvent
from fldp.accounting.filters import Filter
from fldp.plan import attendance, signal
from fldp.plan import statement as words
from fldp.plan.attendance import grouped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fldp.audit.verify import Verification
    from fldp.plan.ledger import Ledger
    from fldp.plan.report import Report

TRUSTS = TRUST.allowed
# An adaptive clip takes z apart and puts it together again, which costs a few roundings of 1e-16.
_SAME_NOISE = 1e-12
# q·T is whole up to rounding where it is whole.
_WHOLE = 1e-9
# Fields that plans did not always have: where they are None they are left out, so that what was
# written without them stays readable, and the same.
_LATER = attendance.Limits._fields


@dataclasses.dataclass(frozen=True)
class PrivacyPlan:
    """What is released, how often, with how much noise, and what that guarantees; frozen.

    Made by `calibrate`; fields are checked however a plan is built, and a plan built by hand says
    what it guarantees just as well. Equal plans have equal fields.

    Parameters
    ----------
    noise_multiplier
        z: the standard deviation of the noise on the sum, divided by the clip norm C, whatever the
        adjacency (under "replace-one" the sum moves by 2C, and the accountant knows). Under local
        trust that of the noise on each client's message.
    delta
        δ, in (0, 1), at which ε is stated.
    rounds
        T, each with one release.
    clients
        N, the population.
    cohort
        m, the expected number of clients in a round, at most N; also the public denominator of the
        mean.
    sampling, trust, adjacency, accountant
        As `calibrate` explains them; all four are named.
    target_epsilon
        The ε that was asked for. What the plan really spends is `epsilon()`.
    cap
        A hard cap on a Poisson cohort, at least m; None: no cap.
    min_survivors
        Under distributed trust the fewest honest clients in a released round, at most m; else None.
    colluders
        Under distributed trust: how many clients of a round may tell the server all they know,
        those that it made up among them; 0 under another. Nobody can tell which uploads are honest:
        a round of fewer than min_survivors + colluders uploads is skipped.
    separation, participations, correlation
        b, k and the filter of the noise, all three where participations are limited: then a client
        pays for k rounds, at least b apart. None: a client pays for every round.

    Raises
    ------
    ValueError
        For a field out of range, and for fields that do not go together; it says what to give.

    Examples
    --------
    >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    >>> PrivacyPlan.from_json(plan.to_json()) == plan
    True
    >>> plan.epsilon(30) < plan.epsilon() <= 8
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
    min_survivors: int | None = None
    colluders: int = 0
    separation: int | None = None
    participations: int | None = None
    correlation: Filter | None = None

    def __post_init__(self) -> None:
        # The one way to write to a frozen dataclass, and only here: numbers in their own types.
        put = partial(object.__setattr__, self)
        # `calibrate` calls the target epsilon, and so do messages.
        for name in ("noise_multiplier", "cohort", "target_epsilon"):
            put(name, real(name.removeprefix("target_"), getattr(self, name)))
        put("delta", real("delta", self.delta, 1))
        put("rounds", whole("rounds", self.rounds))
        put("clients", whole("clients", self.clients))
        for name in ("cap", "min_survivors"):
            if getattr(self, name) is not None:
                put(name, whole(name, getattr(self, name)))
        put("colluders", whole("colluders", self.colluders, 0))
        for setting in CHOICES:
            choice(setting.name, getattr(self, setting.name), setting.allowed)
        limits = attendance.Limits(self.separation, self.participations, self.correlation)
        for name, value in limits.checked()._asdict().items():
            put(name, value)
        refuse_what_conflicts(**dataclasses.asdict(self))
        # The sensitivity of a filter is computed, never believed: one without is refused here.
        self.events()

    @property
    def survivors(self) -> int | None:
        """The old name of `min_survivors`; for one version, with a warning."""
        warn_of_name("survivors", "min_survivors")
        return self.min_survivors

    @property
    def sampling_rate(self) -> float:
        """q = m/N, at which the sampler draws; what the accountant may use of it is in `event`."""
        return self.cohort / self.clients

    @property
    def denominator(self) -> float:
        """The public denominator of the mean: the expected cohort m, never the realised one."""
        return self.cohort

    @property
    def event(self) -> RoundEvent:
        """One round, as it is accounted.

        Under central trust: against whoever sees the models and not who took part. Under
        distributed trust the server knows who took part (`known`): nothing is amplified, and a
        client pays for its own participations, over the stated coins. Under local trust: for every
        round, whoever is drawn. Where participations are limited: of a run without a name.
        """
        if self.correlation is not None:
            return attendance.event(self, self.correlation)
        known = self.trust != "central"
        if self.sampling == "none" or self.trust == "local":
            return Event(self.noise_multiplier, known=known)
        return Event(
            noise_multiplier=self.noise_multiplier,
            sampling_rate=self.sampling_rate,
            sampling=self.sampling,
            clients=self.clients,
            cap=self.cap,
            known=known,
        )

    def events(self, rounds: int | None = None) -> list[RoundEvent]:
        """What the accountant composes for the first `rounds` rounds.

        Parameters
        ----------
        rounds
            0 or more, also beyond the plan's own; None: all of the plan's rounds.

        Returns
        -------
        list of events
            One that says how many rounds; no rounds are no event.

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
        if count == 0:
            return []
        return [dataclasses.replace(self.event, rounds=count)]

    def owns(self, event: AnyEvent) -> bool:
        """Whether `event` is rounds of this plan, however many, up to the rounding of z.

        Parameters
        ----------
        event
            A recorded event of any kind.

        Returns
        -------
        bool
            True where everything but the number of rounds, and the name of the run, is that of
            `plan.event`.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> plan.owns(plan.events(30)[0]), plan.owns(Event(4.0))
        (True, False)
        """
        if isinstance(event, Filtered):
            return dataclasses.replace(event, rounds=1, run="") == self.event
        if not isinstance(event, Event):
            return False
        z = self.noise_multiplier
        same = math.isclose(event.noise_multiplier, z, rel_tol=_SAME_NOISE)
        return same and dataclasses.replace(event, noise_multiplier=z, rounds=1) == self.event

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
        composed = grouped(events)
        # Of limited runs each is for itself: in two, a client may take part twice as often.
        if self.correlation is None:
            own = sum(event.rounds for event in composed if self.owns(event))
            others = [event for event in composed if not self.owns(event)]
            composed = [*self.events(own), *others]
        if accountant is None:
            gaussian = all(isinstance(event, RoundEvent) for event in composed)
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
        # Without any composition, since a gate asks before every round. Where runs count: of one.
        own = all(map(self.owns, kinds)) and (self.correlation is None or len(kinds) <= 1)
        if own and sum(event.rounds for event in kinds) <= self.rounds:
            return True
        return self.spent(kinds) <= self.target_epsilon * (1 + words.TOLERANCE)

    def epsilon(self, rounds: int | None = None) -> float:
        """ε spent after `rounds` rounds at the plan's δ, against the adversary of `event`.

        Parameters
        ----------
        rounds
            0 or more; None: all of the plan's rounds.

        Returns
        -------
        float
            An upper bound, except with `accountant="gdp"`.

        Raises
        ------
        ValueError
            For what is no number of rounds.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> plan.epsilon(0), plan.epsilon(30) < plan.epsilon() <= 8
        (0.0, True)
        """
        return self.spent(self.events(rounds))

    def cohort_known(self, confidence: float = 0.999) -> dict[str, float]:
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
            `rounds` and `epsilon_all`: all T rounds, or the k that the limits allow, whatever the
            draws; `confidence`. Where no amplification is claimed, all three are those of `rounds`.

        Raises
        ------
        ValueError
            For a confidence that is not in (0, 1).

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> known = plan.cohort_known()
        >>> round(known["epsilon"], 2), known["mean"], known["bound"]
        (17.39, 15.0, 32)
        """
        return attendance.cohort_known(self, confidence)

    def server_view(self, confidence: float = 0.999) -> dict[str, float]:
        """The old name of `cohort_known`, with its old keys beside the new; for one version.

        Parameters
        ----------
        confidence
            As in `cohort_known`.

        Returns
        -------
        dict
            That of `cohort_known`, and `epsilon_mean`: ε of the mean number of participations.
        """
        warnings.warn(
            "server_view is now cohort_known: its 'epsilon' is the exact mixture over the draws, "
            "where 'epsilon_mean' took the mean number of participations",
            DeprecationWarning,
            stacklevel=2,
        )
        known = self.cohort_known(confidence)
        mean = math.ceil(known["mean"] - _WHOLE)
        content = attendance.content_of(self)
        return known | {"epsilon_mean": attendance.unamplified(self, max(1, mean), content)}

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

        Returns
        -------
        float
            An upper bound at the plan's δ and adjacency.

        Raises
        ------
        ValueError
            For a k that is no number of rounds of this plan.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> plan.epsilon() < plan.seeded_epsilon(15) < plan.seeded_epsilon(26)
        True
        """
        k = whole("participations", participations, 0)
        if k > self.rounds:
            raise ValueError(f"participations is {k}: the plan has {self.rounds} rounds")
        moves_up = self.cap is not None and self.adjacency == "add-or-remove"
        return attendance.unamplified(self, k, "replace-one" if moves_up else self.adjacency)

    def skips(self) -> dict[str, float]:
        """The chance that too few clients come to a round, which is then skipped and spent.

        Under distributed trust a round needs min_survivors + colluders uploads. The chances are
        those of the stated draws (an exact binomial under Poisson sampling) and presume that
        whoever is drawn arrives: who expects dropouts takes fewer survivors still.

        Returns
        -------
        dict
            `round`: the chance for one round; `any`: for at least one of all T rounds; `expected`:
            how many rounds are skipped on average. All 0 where nothing is ever skipped: under
            another trust, and where the draws bring everybody that is needed.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=100, clients=480, cohort=120,
        ...                  trust="distributed", min_survivors=96)
        >>> {name: round(chance, 4) for name, chance in plan.skips().items()}
        {'round': 0.0042, 'any': 0.341, 'expected': 0.4161}
        """
        return attendance.skips(self)

    def group(self, k: int) -> float:
        """ε at the same δ for k clients that leave or change together (k devices of one person).

        Exact under uncapped Poisson sampling (a mixture of Gaussians, Ganesh 2024); otherwise an
        upper bound against whoever knows how many of the k took part in each round.

        Parameters
        ----------
        k
            How many clients, at most N.

        Returns
        -------
        float
            An upper bound, by our own accountant; with k = 1 about `epsilon()`.

        Raises
        ------
        ValueError
            For what is no number of clients of this plan.

        Examples
        --------
        >>> alone = calibrate(epsilon=1.0, delta=1e-5, rounds=1, clients=200)
        >>> round(alone.group(2), 2)
        2.15
        """
        return accounting.epsilon_of(self.events(), self.delta, self.adjacency, group=whole("k", k))

    def curve(self, epsilons: ArrayLike) -> NDArray[np.float64]:
        """δ at each of `epsilons`: the whole guarantee, of which (ε, δ) is one point.

        Parameters
        ----------
        epsilons
            Values of ε >= 0, of any shape.

        Returns
        -------
        array
            Upper bounds, by our own accountant, for the adversary of `event`; one for each ε.

        Raises
        ------
        ValueError
            For an ε that is none.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> bool(plan.curve([8.0])[0] <= 1e-3)
        True
        """
        return accounting.privacy_curve(self.events(), epsilons, adjacency=self.adjacency)

    def tradeoff(self, alphas: ArrayLike) -> NDArray[np.float64]:
        """What an attacker who accuses wrongly with chance `alphas` must at least miss.

        The attacker tests whether the client's data were used, and the two chances are those of a
        false alarm and of a miss (Dong, Roth & Su 2022).

        Parameters
        ----------
        alphas
            Chances of a false alarm, from 0 to 1, of any shape.

        Returns
        -------
        array
            Lower bounds of the chance of a miss, one for each: no test does better.

        Raises
        ------
        ValueError
            For a chance that is none.

        Examples
        --------
        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> [round(float(miss), 2) for miss in plan.tradeoff([0.0, 0.05, 0.5])]
        [1.0, 0.92, 0.39]
        """
        return accounting.tradeoff(self.events(), alphas, adjacency=self.adjacency)

    def renyi(self, orders: ArrayLike) -> NDArray[np.float64]:
        """The Rényi divergence of all rounds together at each of `orders`.

        The larger of both directions, for the adversary of `event`; by closed forms where nothing
        is amplified (Mironov 2017), else by quadrature of the dominating pair, to about 1e-6.

        Parameters
        ----------
        orders
            Orders above 1, of any shape.

        Returns
        -------
        array
            The divergence at each order.

        Raises
        ------
        ValueError
            For an order that is none.

        Examples
        --------
        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> bool(abs(plan.renyi([2.0])[0] - 2 * plan.zcdp) < 1e-12)
        True
        """
        return accounting.renyi(self.events(), orders, adjacency=self.adjacency)

    def to_dp_accounting(self) -> Any:
        """The run as an event of Google's dp-accounting, for its PLD or RDP accountants.

        Returns
        -------
        dp_accounting.DpEvent
            Its neighbouring relation is the caller's to choose: REPLACE_ONE under "replace-one",
            else ADD_OR_REMOVE_ONE.

        Raises
        ------
        ValueError
            Where it has no such event: fixed-size cohorts, and draws of which the adversary knows
            how they fell.
        """
        return accounting.to_dp_accounting(self.events())

    @property
    def gdp_mu(self) -> float:
        """μ of Gaussian DP over all rounds: a valid bound, without amplification by sampling."""
        # In clip norms: one client in another's place, or let in by a cap, moves the sum twice.
        sensitivity = 1
        if self.adjacency == "replace-one" or self.cap is not None:
            sensitivity = 2
        moved = math.sqrt(self.rounds)
        if self.correlation is not None:
            run = attendance.event(self, self.correlation)
            moved = dataclasses.replace(run, rounds=self.rounds).sensitivity()
        return moved * sensitivity / self.noise_multiplier

    @property
    def zcdp(self) -> float:
        """ρ = μ²/2 of zero-concentrated DP over all rounds, without amplification by sampling."""
        return self.gdp_mu**2 / 2

    def snr(self, dimension: int) -> float:
        """Best-case signal to noise of a released sum: all m updates alike, of norm C.

        Noise that is correlated over rounds counts as what the sums of the releases, which models
        are, keep of it: on average over the plan's rounds as much as fresh noise of that size.

        Parameters
        ----------
        dimension
            d, how many numbers an update has.

        Returns
        -------
        float
            C·m/(z·C·√d), with such a z; under local trust, where m messages bring their noise, that
            over √m.

        Raises
        ------
        ValueError
            For what is no dimension.

        Examples
        --------
        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> round(plan.snr(100), 3)
        0.069
        """
        return signal.snr(self, dimension)

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

        Raises
        ------
        ValueError
            For a ratio or a dimension that is none.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> plan.needed(snr=2 * plan.snr(650), dimension=650)["clients"]
        960
        """
        return signal.needed(self, snr, dimension)

    def statement(self, reproducible: bool = False, participations: int | None = None) -> str:
        """The guarantee in plain words: unit, trust, adjacency, sampling, assumptions, limits.

        Parameters
        ----------
        reproducible
            The noise came from a generator seeded by the caller; says what that does to it.
        participations
            The draws came from a seed, which gives no client more rounds than this: the first line
            is then `seeded_epsilon(participations)`, against whoever knows the seed. None: no seed.

        Returns
        -------
        str
            Lines of at most 76 characters, in which ε and δ are rounded up.

        Raises
        ------
        ValueError
            For participations that are no number of rounds of this plan.

        Examples
        --------
        >>> plan = calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
        >>> print(plan.statement().splitlines()[1][:57])
        Unit: one client, with all it contributes; add-or-remove:
        """
        return words.statement(self, reproducible, participations)

    def report(self, run: Any = None, **stated: Any) -> Report:
        """The guarantee as a record to publish, and as a page for people who are no experts.

        In the fields of the public registry of deployments and with the questions of NIST SP
        800-226. What only people know has to be stated; else the field reads "not stated".

        Parameters
        ----------
        run
            What `train` returned, or the ledger: the record then says what was really spent. None:
            it is about the plan.
        **stated
            `clip_norm`, C; `group`, how many clients one person has at most; `participations` and
            `reproducible` as in `statement` (not with a history, which knows both); and words for
            the names of `fldp.plan.registry.FACTS`: name, curators, client, purpose and others.

        Returns
        -------
        Report
            With `to_markdown`, `to_json`, `to_dict`, `label` and the list `missing`.

        Raises
        ------
        ValueError
            For an unknown name, a fact without words, and a run of another plan.

        Examples
        --------
        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> report = plan.report(name="Next word", curators="Example Ltd", client="phone")
        >>> report.to_markdown().splitlines()[0]
        '# Next word: privacy record'
        """
        from fldp.plan.report import report

        return report(self, run, **stated)

    def verify(
        self,
        *,
        aggregate: Callable[..., Any] | None = None,
        ledger: str | os.PathLike[str] | Ledger | None = None,
        like: object = None,
    ) -> Verification:
        """A self-test of this plan: second opinions, neighbouring cohorts, a ledger replayed.

        Parameters
        ----------
        aggregate, ledger, like
            As in `fldp.audit.verify.verify`.

        Returns
        -------
        Verification
            It prints as a table; `.ok` says whether nothing failed.

        Examples
        --------
        >>> calibrate(epsilon=8.0, delta=1e-5, rounds=15, clients=10).verify().ok
        True
        """
        from fldp.audit import verify

        return verify.verify(self, aggregate=aggregate, ledger=ledger, like=like)

    def plot(self, ax: Axes | None = None) -> Axes:
        """ε over the rounds, without and with knowing who took part.

        Parameters
        ----------
        ax
            Where to draw; None: a new figure in the book's style.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from fldp import plotting

        return plotting.plan(self, ax)

    def _repr_html_(self) -> str:
        return words.plan_html(self)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers and strings.

        Returns
        -------
        dict
            Ready for JSON; `from_dict` reads it back.

        Examples
        --------
        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> plan.to_dict()["adjacency"]
        'add-or-remove'
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.correlation is None:
            return {name: value for name, value in fields.items() if name not in _LATER}
        return fields | {"correlation": self.correlation.to_dict()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> PrivacyPlan:
        """The plan of `to_dict`.

        Parameters
        ----------
        fields
            All fields, under their names; the old name "survivors" of "min_survivors" is read for
            one version, with a warning.

        Returns
        -------
        PrivacyPlan
            Equal to the one that was written.

        Raises
        ------
        ValueError
            For what is no dict, unknown or missing fields, and values that no plan has.

        Examples
        --------
        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> PrivacyPlan.from_dict(plan.to_dict()) == plan
        True
        """
        if not isinstance(fields, dict):
            raise ValueError(f"a plan is a dict of its fields, not {type(fields).__name__}")
        # Plans of version 0.2 and before name no colluders: all uploads were presumed honest.
        fields = {"colluders": 0} | fields
        if "survivors" in fields and "min_survivors" not in fields:
            warn_of_name("survivors", "min_survivors")
            fields["min_survivors"] = fields.pop("survivors")
        # Of the others none may be missing that plans always had: a default that changes one day
        # would change what was promised.
        names = {field.name for field in dataclasses.fields(cls)}
        needed = names.difference(_LATER)
        for what, odd in (("unknown", set(fields) - names), ("missing", needed - set(fields))):
            if odd:
                raise ValueError(
                    f"{what} fields {sorted(map(str, odd))}: give those of plan.to_dict()"
                )
        if fields.get("correlation") is not None:
            fields = fields | {"correlation": Filter.from_dict(fields["correlation"])}
        return cls(**fields)

    def to_json(self) -> str:
        """`to_dict` as text.

        Returns
        -------
        str
            One JSON object.

        Examples
        --------
        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> json.loads(plan.to_json()) == plan.to_dict()
        True
        """
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> PrivacyPlan:
        """The plan of `to_json`.

        Parameters
        ----------
        text
            One JSON object, with the fields of `to_dict`.

        Returns
        -------
        PrivacyPlan
            Equal to the one that was written.

        Raises
        ------
        ValueError
            For what is no JSON, and as `from_dict`.

        Examples
        --------
        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> PrivacyPlan.from_json(plan.to_json()) == plan
        True
        """
        try:
            fields = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not JSON ({error}): give the text of plan.to_json()") from None
        return cls.from_dict(fields)


# The usual δ of the literature. With 1/N^1.1 alone 480 clients would get δ = .0011, at which some
# client could be published in full with a chance of 42 %.
USUAL_DELTA = 1e-5
# McMahan et al. (2018) take 1/N to this power: a little below 1/N, more so for more clients.
_POWER = -1.1


def suggest_delta(clients: int) -> float:
    """The smaller of 1e-5 and 1/N^1.1 (McMahan et al. 2018).

    N·δ, the number of clients that (0, δ) would allow to be published in full, is on average below
    0.36 at any N.

    Parameters
    ----------
    clients
        N, the population.

    Returns
    -------
    float
        A δ for the whole run.

    Raises
    ------
    ValueError
        For what is no number of clients.

    Examples
    --------
    >>> suggest_delta(480), round(suggest_delta(10**6) * 1e6, 2)
    (1e-05, 0.25)
    """
    return min(USUAL_DELTA, float(whole("clients", clients) ** _POWER))


@renamed(survivors="min_survivors")
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
    min_survivors: int | None = None,
    colluders: int = 0,
    separation: int | None = None,
    participations: int | None = None,
    correlation: str | Filter | None = None,
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
        the coins that the plan states; z is that of the sum, a share has std
        z·C/√min_survivors. "local": z is the noise of each client's own message, accounted for all
        T rounds.
    adjacency
        "add-or-remove" (None, central trust), "zero-out" (None, distributed and local trust) or
        "replace-one". Where who took part is known, "add-or-remove" is refused.
    accountant
        "pld", "prv", "rdp" or "gdp" (an approximation).
    cap
        A hard cap on a Poisson cohort; None: no cap.
    min_survivors
        Distributed trust: the fewest honest clients in a released round, so those that are drawn
        less dropouts and colluders; None: another trust.
    colluders
        Distributed trust: how many clients of a round may share what they know with the server.
        A round of fewer than min_survivors + colluders uploads is skipped and spent:
        `plan.skips()` has the chance.
    separation, participations
        b and k: no client takes part more than k times, nor in two rounds less than b apart; a run
        enforces it. One of them is enough: with b alone k is T/b, rounded up, with k alone b is 1.
        With sampling "none" the ε is that of k rounds, also against who knows who took part. With
        "poisson" b groups take turns, and a client's coin decides in its turn. None: no limit.
    correlation
        The noise where participations are limited: "blt" (the default to take), "fractional",
        "banded", "independent" (None), fitted to T, k and b for a server that adds up means; or a
        `Filter`, such as `fldp.accounting.fitting.blt(..., momentum=0.9)`.

    Returns
    -------
    PrivacyPlan
        With the smallest z that meets the target, up to a thousandth of ε.

    Raises
    ------
    ValueError
        Before any work, for settings out of range or that do not go together; it says what to give.

    Examples
    --------
    >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
    >>> round(plan.noise_multiplier, 2)
    14.45
    """
    epsilon = real("epsilon", epsilon)
    clients = whole("clients", clients)
    if delta is None:
        delta = suggest_delta(clients)
    # A sampling that there is not stays, and is refused with the rest.
    if cohort is None and sampling in SAMPLING.allowed:
        sampling = "none"
    limits = attendance.asked_limits(rounds, separation, participations, correlation, sampling)
    plan = PrivacyPlan(
        noise_multiplier=1.0,  # until it is calibrated
        delta=delta,
        rounds=rounds,
        clients=clients,
        cohort=attendance.usual_cohort(clients, rounds, limits) if cohort is None else cohort,
        sampling=sampling,
        trust=trust,
        adjacency=usual_adjacency(trust) if adjacency is None else adjacency,
        accountant=accountant,
        target_epsilon=epsilon,
        cap=cap,
        min_survivors=min_survivors,
        colluders=colluders,
        **limits._asdict(),
    )
    attendance.refuse_too_many(plan)
    if plan.delta >= 1 / clients:
        warnings.warn(
            f"delta is {up(plan.delta)} >= 1/clients = {1 / clients:g}: publishing one random "
            f"client's data in full would satisfy it; take at most {down(suggest_delta(clients))}",
            UserWarning,
            stacklevel=3,
        )
    (run,) = plan.events()
    # In terms of independent noise, which correlated noise has to be larger than.
    alone = run.equivalent() if isinstance(run, Filtered) else run
    question = alone.to_dict()
    share = question.pop("noise_multiplier")
    question |= {"epsilon": epsilon, "delta": plan.delta, "adjacency": plan.adjacency}
    z = accounting.noise_multiplier(accountant=accountant, **question) / share
    return dataclasses.replace(plan, noise_multiplier=z)
