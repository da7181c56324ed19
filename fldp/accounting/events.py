"""What ran: the mechanisms that an accountant composes, as plain data.

Every event has `rounds`, how often it ran with settings fixed beforehand, and `to_dict`, which
:func:`event_from_dict` reads back. An :class:`Event` is Gaussian noise and states it in clip norms,
whatever the adjacency. The others state a guarantee that is already one for the adjacency in which
they are accounted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fldp._checks import MOST, MOST_RHO, between, choice, real, shown, whole
from fldp._settings import ADJACENCY, SAMPLING
from fldp.accounting.filters import Filter

SAMPLINGS = SAMPLING.allowed
ADJACENCIES = ADJACENCY.allowed

# Beyond these no accountant of ours has an answer, and squares of z leave double precision.
NOISE_RANGE = (1e-9, 1e12)


def _noise(value: Any) -> float:
    low, high = NOISE_RANGE
    found = real("noise_multiplier", value)
    if not low <= found <= high:
        raise ValueError(
            f"noise_multiplier is {shown(value)}: give a value between {low:g} and {high:g}, the "
            "noise divided by the sensitivity"
        )
    return found


@dataclass(frozen=True)
class Event:
    """Gaussian noise on a sum of clipped contributions, `rounds` times.

    Parameters
    ----------
    noise_multiplier
        z: standard deviation of the noise on the sum, in clip norms; 1e-9 to 1e12.
    sampling_rate
        q = m/N, the chance of a client to take part in a round; 0 (nobody ever) to 1.
    sampling
        "poisson" (each by its own coin), "fixed" (exactly q N drawn without replacement) or "none"
        (q = 1: no amplification is claimed).
    rounds
        How often it ran.
    clients
        N, needed for "fixed" and for `cap`.
    cap
        A hard cap on a Poisson cohort; of more, a uniform subset is kept.
    known
        The adversary knows who took part. Nothing is amplified; a client pays for the rounds in
        which it takes part, and it does so in each with chance `sampling_rate`, independently, by
        the stated coins. Adjacency "zero-out" or "replace-one" only: who took part is not hidden.

    Raises
    ------
    ValueError
        For settings that are out of range or do not go together.

    Examples
    --------
    >>> Event(1.0, 0.01, "poisson", rounds=100).to_dict()["rounds"]
    100
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    sampling: str = "none"
    rounds: int = 1
    clients: int | None = None
    cap: int | None = None
    known: bool = False

    def __post_init__(self) -> None:
        _put(self, "noise_multiplier", _noise(self.noise_multiplier))
        _put(self, "sampling_rate", between("sampling_rate", self.sampling_rate))
        _put(self, "rounds", whole("rounds", self.rounds))
        choice("sampling", self.sampling, SAMPLINGS)
        if self.clients is not None:
            _put(self, "clients", whole("clients", self.clients))
        if self.cap is not None:
            _put(self, "cap", whole("cap", self.cap))
        if not isinstance(self.known, bool):
            raise ValueError(f"known is {shown(self.known)}: give True or False")
        problem = _conflict(self)
        if problem:
            raise ValueError(problem)

    @property
    def everyone(self) -> bool:
        """Whether every client takes part for certain: then the round is a plain Gaussian."""
        uncapped = self.cap is None or self.cap >= (self.clients or 0)
        return self.sampling_rate == 1 and uncapped

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


def _conflict(event: Event) -> str:
    """What does not go together in an event whose fields are each in range; "" if all does."""
    q = event.sampling_rate
    if event.sampling == "none" and q != 1:
        return (
            f"sampling_rate is {q} with sampling='none': no amplification is claimed, so leave "
            "the rate at 1, or name the sampling"
        )
    if event.cap is not None and (event.sampling != "poisson" or event.clients is None):
        return f"cap is {event.cap}: a cap needs sampling='poisson' and clients=N"
    if event.sampling != "fixed":
        return ""
    if event.clients is None:
        return "clients is None with sampling='fixed': give the population N"
    m = q * event.clients
    # q = m/N comes from a division: allow for its rounding
    if abs(m - round(m)) > 1e-6 * m:
        return f"sampling_rate is {q} with sampling='fixed': {m:g} is not a whole cohort"
    return ""


@dataclass(frozen=True)
class Filtered:
    """The first `rounds` rounds of a run whose Gaussian noise a filter correlates over rounds.

    Any two rounds of one run share noise, so its events count together: those of one `run` are one
    event with all their rounds, and other runs compose with them. A client takes part at most
    `participations` times, `separation` rounds apart at least; somebody has to see to that.

    Parameters
    ----------
    noise_multiplier
        z: standard deviation of a round's fresh noise, in clip norms; 1e-9 to 1e12.
    filter
        What makes the noise of the rounds out of the fresh noise.
    participations, separation
        k and b.
    rounds
        How many rounds there were, from the first.
    run
        The name of the run. Without one an event is a run of its own, and stands alone in a list.
    sampling_rate
        1: no amplification is claimed. Below: a client is in one of b groups that take turns, and
        in its group's round takes part by its own secret coin of this chance (Choquette-Choo et al.
        2023, section 4); C has at most b coefficients, so that turns do not overlap.
    known
        The adversary knows who took part and how these coins fell, as in :class:`Event`.

    Raises
    ------
    ValueError
        For settings that are out of range or do not go together, and for a filter whose sensitivity
        is not known.

    Examples
    --------
    >>> from fldp.accounting.filters import fractional
    >>> run = Filtered(2.0, fractional(4), participations=3, separation=10, rounds=30)
    >>> round(run.equivalent().noise_multiplier, 3)
    0.873
    """

    noise_multiplier: float
    filter: Filter
    participations: int
    separation: int
    rounds: int = 1
    run: str = ""
    sampling_rate: float = 1.0
    known: bool = False

    def __post_init__(self) -> None:
        _put(self, "noise_multiplier", _noise(self.noise_multiplier))
        for name in ("participations", "separation", "rounds"):
            _put(self, name, whole(name, getattr(self, name)))
        _put(self, "sampling_rate", real("sampling_rate", self.sampling_rate))
        problem = self._conflict()
        if problem:
            raise ValueError(problem)
        self.sensitivity()

    def _conflict(self) -> str:
        """What is no such run; "" if it is one."""
        if not isinstance(self.filter, Filter):
            return f"filter is {shown(self.filter)}: give one of fldp.accounting.filters"
        if not isinstance(self.run, str):
            return f"run is {shown(self.run)}: give the name of a run, or leave it out"
        if not isinstance(self.known, bool):
            return f"known is {shown(self.known)}: give True or False"
        q = self.sampling_rate
        if q > 1:
            return f"sampling_rate is {q:g}: give a chance, up to 1"
        bands = len(self.filter.den)
        if q < 1 and (len(self.filter.num) > 1 or bands > self.separation):
            return (
                f"sampling_rate is {q:g}: coins hide a client only where C ends before its next "
                "turn; take fldp.accounting.fitting.banded with at most as many bands as the "
                f"separation, {self.separation}, or leave the rate at 1"
            )
        return ""

    @property
    def sampling(self) -> str:
        """ "poisson" with coins, else "none"."""
        return "poisson" if self.sampling_rate < 1 else "none"

    @property
    def everyone(self) -> bool:
        """Whether no coins are counted on: then the run is a plain Gaussian."""
        return self.sampling_rate == 1

    def sensitivity(self) -> float:
        """How far one client moves the fresh noise of these rounds, in clip norms.

        Returns
        -------
        float
            Computed from the coefficients.

        Examples
        --------
        >>> from fldp.accounting.filters import independent
        >>> Filtered(1.0, independent(), 4, 10, rounds=40).sensitivity()
        2.0
        """
        return self.filter.sensitivity(self.rounds, self.participations, self.separation)

    def equivalent(self, group: int = 1) -> Event:
        """Rounds of independent noise from which the adversary learns as much.

        Parameters
        ----------
        group
            Clients that move together. Of several, each may be in another group of the turns: then
            coins count for nothing.

        Returns
        -------
        Event
            One plain Gaussian; with coins, a Poisson round for each turn of a client.

        Examples
        --------
        >>> from fldp.accounting.filters import independent
        >>> Filtered(2.0, independent(), 4, 10, rounds=40).equivalent().noise_multiplier
        1.0
        """
        if self.everyone or group > 1:
            return Event(self.noise_multiplier / self.sensitivity(), known=self.known)
        turns = -(-self.rounds // self.separation)
        # Turns do not overlap: each moves the fresh noise by the norm of the coefficients alone.
        alone = self.filter.sensitivity(self.rounds, 1, self.separation)
        z = self.noise_multiplier / alone
        return Event(z, self.sampling_rate, "poisson", turns, known=self.known)

    def to_dict(self) -> dict[str, Any]:
        """The kind and the fields, ready for JSON."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"kind": "filtered"} | fields | {"filter": self.filter.to_dict()}


@dataclass(frozen=True)
class Laplace:
    """Laplace noise of scale b on numbers with L1 sensitivity 1 (`noise_multiplier` is b).

    For a vector one coordinate that moves by 1 is the worst case, see :mod:`fldp.accounting.pairs`.

    Parameters
    ----------
    noise_multiplier
        b divided by the L1 sensitivity in the adjacency accounted; 1e-9 to 1e12.
    rounds
        How often it ran.

    Examples
    --------
    >>> Laplace(2.0).to_dict()
    {'kind': 'laplace', 'noise_multiplier': 2.0, 'rounds': 1}
    """

    noise_multiplier: float
    rounds: int = 1

    def __post_init__(self) -> None:
        _put(self, "noise_multiplier", _noise(self.noise_multiplier))
        _put(self, "rounds", whole("rounds", self.rounds))

    def to_dict(self) -> dict[str, Any]:
        """The kind and the fields, ready for JSON."""
        return {"kind": "laplace"} | asdict(self)


@dataclass(frozen=True)
class Approximate:
    """Any step that is (ε, δ)-differentially private, with the worst loss that this allows.

    Parameters
    ----------
    epsilon
        ε of one step, 0 to 1e15, in the adjacency accounted.
    delta
        δ of one step, 0 to 1.
    rounds
        How often it ran.

    Examples
    --------
    >>> Approximate(0.5, 0.0, rounds=3).rounds
    3
    """

    epsilon: float
    delta: float
    rounds: int = 1

    def __post_init__(self) -> None:
        _put(self, "epsilon", between("epsilon", self.epsilon, MOST))
        _put(self, "delta", between("delta", self.delta))
        _put(self, "rounds", whole("rounds", self.rounds))

    def to_dict(self) -> dict[str, Any]:
        """The kind and the fields, ready for JSON."""
        return {"kind": "approximate"} | asdict(self)


@dataclass(frozen=True)
class Concentrated:
    """Any step that is ρ-zCDP: zero-concentrated differential privacy (Bun & Steinke 2016).

    Parameters
    ----------
    rho
        ρ of one step, below 1e9, in the adjacency accounted.
    rounds
        How often it ran.

    Examples
    --------
    >>> Concentrated(0.1, rounds=5).to_dict()
    {'kind': 'concentrated', 'rho': 0.1, 'rounds': 5}
    """

    rho: float
    rounds: int = 1

    def __post_init__(self) -> None:
        _put(self, "rho", real("rho", self.rho, MOST_RHO))
        _put(self, "rounds", whole("rounds", self.rounds))

    def to_dict(self) -> dict[str, Any]:
        """The kind and the fields, ready for JSON."""
        return {"kind": "concentrated"} | asdict(self)


# What a round of clipped sums costs, and what may stand beside it.
RoundEvent = Event | Filtered
# Those whose noise is fresh, each by itself.
Independent = Event | Laplace | Approximate | Concentrated
AnyEvent = Independent | Filtered
Events = Sequence[AnyEvent]
_KINDS: dict[str, type[Laplace] | type[Approximate] | type[Concentrated] | type[Filtered]] = {
    "laplace": Laplace,
    "approximate": Approximate,
    "concentrated": Concentrated,
    "filtered": Filtered,
}


def event_from_dict(fields: dict[str, Any]) -> AnyEvent:
    """The event that `to_dict` wrote.

    Parameters
    ----------
    fields
        As `to_dict` gives them; without a "kind" it is a Gaussian :class:`Event`.

    Returns
    -------
    Event, Filtered, Laplace, Approximate or Concentrated
        Equal to the one that was written.

    Raises
    ------
    ValueError
        If `fields` is no dict, or its kind, names or values are not those of an event.

    Examples
    --------
    >>> event_from_dict({"kind": "laplace", "noise_multiplier": 2.0, "rounds": 3})
    Laplace(noise_multiplier=2.0, rounds=3)
    >>> event_from_dict(Event(1.5).to_dict()) == Event(1.5)
    True
    """
    if not isinstance(fields, dict):
        raise ValueError(f"an event is a dict of its fields, not {type(fields).__name__}")
    if "kind" not in fields:
        return _made(Event, fields)
    rest = dict(fields)
    kind = choice("kind", rest.pop("kind"), tuple(_KINDS))
    if kind == "filtered":
        rest["filter"] = Filter.from_dict(rest.get("filter"))
    return _made(_KINDS[kind], rest)


def checked(events: Events) -> list[AnyEvent]:
    """`events` as a list.

    Parameters
    ----------
    events
        Any iterable of events.

    Returns
    -------
    list
        The same objects.

    Raises
    ------
    ValueError
        For anything else; it names what is no event.

    Examples
    --------
    >>> checked(iter([Laplace(2.0)]))
    [Laplace(noise_multiplier=2.0, rounds=1)]
    """
    try:
        found = list(events)
    except TypeError:
        raise ValueError(f"events is {shown(events)}: give a list of fldp.Event objects") from None
    for event in found:
        if not isinstance(event, AnyEvent):
            raise ValueError(
                f"events hold {shown(event)}: give Event, Filtered, Laplace, Approximate or "
                "Concentrated objects"
            )
    return found


def by_run(events: Events, group: int = 1) -> list[Independent]:
    """The events with every run of correlated noise counted as one, in terms of independent noise.

    Parameters
    ----------
    events
        Checked.
    group
        Clients that move together.

    Returns
    -------
    list
        Without :class:`Filtered` events.

    Raises
    ------
    ValueError
        Where two events have no name of a run: nobody knows whether their rounds share noise; and
        where two of one name differ, since one run has one noise.

    Examples
    --------
    >>> from fldp.accounting.filters import independent
    >>> half = Filtered(1.0, independent(), 4, 10, rounds=20, run="a")
    >>> [event.noise_multiplier for event in by_run([half, half])]
    [0.5]
    """
    rest: list[Independent] = []
    rounds: dict[Filtered, int] = {}
    for event in events:
        if not isinstance(event, Filtered):
            rest.append(event)
            continue
        one = replace(event, rounds=1)
        if one in rounds and not one.run:
            raise ValueError(
                "two events of correlated noise name no run: rounds of one run count together, "
                "and two runs count twice; take the events of the noise object, which names its run"
            )
        rounds[one] = rounds.get(one, 0) + event.rounds
    _refuse_two_noises(rounds)
    runs = [replace(one, rounds=count) for one, count in rounds.items()]
    return [*rest, *(run.equivalent(group) for run in runs)]


def _refuse_two_noises(runs: Iterable[Filtered]) -> None:
    """ValueError where runs of one name differ: counted as two they would share no noise."""
    named: dict[str, Filtered] = {}
    for one in runs:
        other = named.setdefault(one.run, one)
        if one.run and one != other:
            raise ValueError(
                f"two events name the run {shown(one.run)} and differ, z = "
                f"{other.noise_multiplier:g} and {one.noise_multiplier:g}: one run has one noise "
                "and one limit; take the events of the noise object as they are"
            )


def _put(event: object, name: str, value: object) -> None:
    object.__setattr__(event, name, value)


def _made(kind: Any, fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except TypeError:
        names = ", ".join(kind.__dataclass_fields__)
        raise ValueError(
            f"the fields of an event are {shown(fields)}: give those of its to_dict() ({names})"
        ) from None
