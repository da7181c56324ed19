"""What ran: the mechanisms that an accountant composes, as plain data.

Every event has `rounds`, how often it ran with settings fixed beforehand, and `to_dict`, which
:func:`event_from_dict` reads back. An :class:`Event` is Gaussian noise and states it in clip norms,
whatever the adjacency. The others state a guarantee that is already one for the adjacency in which
they are accounted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fldp._checks import MOST, MOST_RHO, between, choice, real, shown, whole
from fldp._settings import ADJACENCY, SAMPLING

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


AnyEvent = Event | Laplace | Approximate | Concentrated
Events = Sequence[AnyEvent]
_KINDS: dict[str, type[Laplace] | type[Approximate] | type[Concentrated]] = {
    "laplace": Laplace,
    "approximate": Approximate,
    "concentrated": Concentrated,
}


def event_from_dict(fields: dict[str, Any]) -> AnyEvent:
    """The event that `to_dict` wrote.

    Parameters
    ----------
    fields
        As `to_dict` gives them; without a "kind" it is a Gaussian :class:`Event`.

    Returns
    -------
    Event, Laplace, Approximate or Concentrated
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
                f"events hold {shown(event)}: give Event, Laplace, Approximate or Concentrated "
                "objects"
            )
    return found


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
