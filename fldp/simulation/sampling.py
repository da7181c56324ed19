"""Who takes part in a round: samplers that know which plans account for them.

Amplification by sampling holds while it is secret who took part: the draws are as private as the
data. A seed is for simulations and for teaching.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

from fldp._checks import whole
from fldp.plan.attendance import most_participations, period, turn_rate
from fldp.simulation.checkpoint import State
from fldp.simulation.draws import Draws

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# How many values a random word takes.
_WORD = 2**64
# N/b of a division is what it is up to this.
_ROUNDING = 1e-9
# A cohort of so many clients is shown whole in a message.
_SHOWN = 20


@dataclass
class Sampler:
    """What samplers share; this one draws all clients. See `Everyone`.

    A sampler of your own overrides `sample` with this signature, is a function of its arguments,
    and takes all its randomness from `draws`: a run is resumed, and the participations of a seeded
    run are counted, by drawing again.

    Examples
    --------
    >>> class Even(Sampler):
    ...     def sample(self, clients, draws=None, round=0):
    ...         return torch.arange(0, clients, 2)
    >>> Even().sample(5)
    tensor([0, 2, 4])
    """

    def sample(
        self, clients: int, draws: Draws | Generator | None = None, round: int = 0
    ) -> Tensor:
        """Sorted numbers of the clients that take part in round `round`; may be empty.

        Parameters
        ----------
        clients : int
            N, how many clients there are.
        draws : Draws, optional
            The run's keyed stream; the same key and round give the same cohort. None draws from the
            operating system. A torch generator is taken as the source of a new key.
        round : int
            The number of the round, from 0.

        Returns
        -------
        Tensor
            int64, sorted and distinct.
        """
        return torch.arange(clients)

    def matches(self, plan: PrivacyPlan) -> bool:
        """Whether rounds drawn by this sampler are what `plan` accounts for.

        A subclass that overrides `sample` vouches for its own draws.

        Parameters
        ----------
        plan : PrivacyPlan
            The plan.

        Returns
        -------
        bool
        """
        # A subclass of the plan's own sampler, with the same rate and cap.
        wanted = for_plan(plan)
        same = all(getattr(self, k, None) == v for k, v in vars(wanted).items())
        return isinstance(self, type(wanted)) and same

    def state_dict(self) -> State:
        """What the next round's draw depends on, besides the run's draws."""
        return dict(vars(self))

    def load_state_dict(self, state: State) -> None:
        """Resume after `state_dict`."""
        vars(self).update(state)


class Everyone(Sampler):
    """All clients, every round.

    Examples
    --------
    >>> Everyone().sample(3)
    tensor([0, 1, 2])
    """


@dataclass
class Poisson(Sampler):
    """Every client takes part independently with probability `rate`; a round may be empty.

    A client's coin is a function of the key, the round and the client's number: who else is there
    does not move it. It compares 64 random bits with floor(rate · 2^64): the chance is never above
    `rate` and at most 2^-64 below.

    Parameters
    ----------
    rate : float
        q in (0, 1].
    cap : int, optional
        The most clients in a round: of more, a uniformly random `cap` stay. None: no limit.

    Raises
    ------
    ValueError
        For a rate outside (0, 1] or a cap that is not a whole number of at least 1.

    Examples
    --------
    >>> 60 < len(Poisson(0.25).sample(480)) < 180
    True
    """

    rate: float
    cap: int | None = None

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        self.cap = None if self.cap is None else whole("cap", self.cap)

    def sample(
        self, clients: int, draws: Draws | Generator | None = None, round: int = 0
    ) -> Tensor:
        """Those whose coins fell so; see `Sampler.sample`."""
        words = Draws.of(draws).words("cohort", round, np.arange(clients))
        ids = np.arange(clients)
        if self.rate < 1:
            ids = np.flatnonzero(_falls(words[:, 0], self.rate))
        if self.cap is not None and len(ids) > self.cap:
            # The second word has decided nothing yet.
            ids = np.sort(ids[_smallest(words[ids, 1], words[ids, 0], self.cap)])
        return torch.from_numpy(ids)


@dataclass
class FixedSize(Sampler):
    """Exactly `cohort` clients, uniformly without replacement: those with the smallest words.

    Another client here displaces one, so this never fits add-or-remove adjacency.

    Parameters
    ----------
    cohort : int
        m, at least 1 and at most the number of clients.

    Raises
    ------
    ValueError
        For a cohort that is not a whole number of at least 1, or above the number of clients.

    Examples
    --------
    >>> len(FixedSize(3).sample(10))
    3
    """

    cohort: int

    def __post_init__(self) -> None:
        self.cohort = whole("cohort", self.cohort)

    def sample(
        self, clients: int, draws: Draws | Generator | None = None, round: int = 0
    ) -> Tensor:
        """Those with the smallest words; see `Sampler.sample`."""
        if self.cohort > clients:
            raise ValueError(f"cohort is {self.cohort}, but there are only {clients} clients")
        words = Draws.of(draws).words("cohort", round, np.arange(clients))
        return torch.from_numpy(np.sort(_smallest(words[:, 0], words[:, 1], self.cohort)))

    def matches(self, plan: PrivacyPlan) -> bool:
        """Whether the plan's cohort is this one, and it does not add or remove clients."""
        stated = plan.sampling in ("fixed", "none") and plan.cohort == self.cohort
        return stated and plan.adjacency != "add-or-remove"


@dataclass
class MinSeparation(Sampler):
    """A client takes part every `separation` rounds: round t has those whose slot is t mod b.

    A slot is a fixed random function of the client's number and the key, so who joins or leaves
    moves nobody else. No amplification is claimed but for the coins of a plan with
    `sampling="poisson"`; mechanisms with correlated noise build on the bound `participations`.

    Parameters
    ----------
    separation : int
        b, the rounds from one participation of a client to its next.
    seed : int, optional
        Fixes the slots, and no coins. None: slots come from the run's draws, or from the operating
        system where the sampler is used alone; then they stay as they are for its life.
    rate : float
        The chance, by a coin of its own, with which a client takes part in a round of its slot; 1:
        for certain.

    Raises
    ------
    ValueError
        For a separation that is not a whole number of at least 1, and for a rate outside (0, 1].

    Examples
    --------
    >>> MinSeparation(10).participations(60)
    6
    """

    separation: int
    seed: int | None = None
    rate: float = 1.0
    _own: Draws = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.separation = whole("separation", self.separation)
        _check_rate(self.rate)
        self._own = Draws(self.seed)

    def participations(self, rounds: int) -> int:
        """The most rounds, of `rounds`, that one client takes part in.

        Parameters
        ----------
        rounds : int
            T.

        Returns
        -------
        int
        """
        return -(-rounds // self.separation)

    def sample(
        self, clients: int, draws: Draws | Generator | None = None, round: int = 0
    ) -> Tensor:
        """Those whose slot it is; see `Sampler.sample`."""
        # A torch generator moves on with each call, and slots must not: it does not count.
        shared = isinstance(draws, Draws) and self.seed is None
        source = draws if shared else self._own
        words = Draws.of(source).words("slots", 0, np.arange(clients), 1)[:, 0]
        slots = words % np.uint64(self.separation)
        ids = np.flatnonzero(slots == round % self.separation)
        if self.rate < 1:
            # Slots may be known to all, coins to nobody: never from the seed of the slots.
            coins = Draws.of(draws).words("cohort", round, ids)[:, 0]
            ids = ids[_falls(coins, self.rate)]
        return torch.from_numpy(ids)

    def matches(self, plan: PrivacyPlan) -> bool:
        """Whether turns are as far apart and as few as the plan says, and its cohort comes."""
        if plan.separation is None:
            alone = plan.cohort == plan.clients / self.separation and self.rate == 1
            return plan.sampling == "none" and alone
        if plan.sampling != "none":
            same_rate = math.isclose(self.rate, turn_rate(plan), rel_tol=_ROUNDING)
            return self.separation == plan.separation and same_rate
        come = plan.clients * self.rate / self.separation
        few = self.participations(plan.rounds) <= most_participations(plan)
        apart = self.separation >= plan.separation and few
        return apart and math.isclose(come, plan.cohort, rel_tol=_ROUNDING)

    def state_dict(self) -> State:
        """The key of the slots; as private as the data."""
        return {"own": self._own.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Resume with the slots of `state_dict`."""
        self._own.load_state_dict(state["own"])


def for_plan(plan: PrivacyPlan) -> Sampler:
    """The sampler that a plan accounts for; independent draws where it claims no amplification.

    Parameters
    ----------
    plan : PrivacyPlan
        The plan.

    Returns
    -------
    Sampler

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480,
    ...                       cohort=120)
    >>> for_plan(plan)
    Poisson(rate=0.25, cap=None)
    """
    if plan.separation is not None:
        return MinSeparation(period(plan), rate=turn_rate(plan))
    if plan.sampling == "fixed":
        return FixedSize(int(plan.cohort))
    if plan.sampling == "none" and plan.cohort == plan.clients:
        return Everyone()
    return Poisson(plan.sampling_rate, plan.cap)


def check_sampler(sampler: Sampler) -> None:
    """Refuse a sampler whose `sample` cannot be told which round to draw.

    Parameters
    ----------
    sampler : Sampler
        Anything with a method `sample`.

    Raises
    ------
    ValueError
        Where it takes other arguments.
    """
    try:
        inspect.signature(sampler.sample).bind(1, None, 0)
    except TypeError:
        name = type(sampler).__name__
        raise ValueError(
            f"{name}.sample takes other arguments: write sample(self, clients, draws=None, "
            "round=0), and take every random number from draws.words('cohort', round, "
            "range(clients)), so that each client's coin is its own"
        ) from None


def drawn(sampler: Sampler, clients: int, draws: Draws, round: int) -> Tensor:
    """The cohort of a round; a ValueError unless its numbers are sorted, distinct and in range.

    A sampler that does not pass `round` on would draw one cohort for ever: refused as well.

    Parameters
    ----------
    sampler : Sampler
        Who is asked.
    clients : int
        N, how many clients there are.
    draws : Draws
        The run's keyed stream.
    round : int
        The number of the round, from 0.

    Returns
    -------
    Tensor
        int64, sorted and distinct; may be empty.
    """
    draws.asked.pop("cohort", None)
    ids = torch.as_tensor(sampler.sample(clients, draws, round))
    if draws.asked.get("cohort", round) != round:
        raise ValueError(
            f"{type(sampler).__name__}.sample drew the cohort of round {draws.asked['cohort']} in "
            f"round {round}: pass round on to super().sample and to draws.words"
        )
    whole_numbers = ids.ndim == 1 and (ids.dtype == torch.int64 or len(ids) == 0)
    if whole_numbers and len(ids) == 0:
        return ids.long()
    inside = whole_numbers and int(ids[0]) >= 0 and int(ids[-1]) < clients
    if not (inside and bool((ids[1:] > ids[:-1]).all())):
        told = ids.tolist() if ids.numel() < _SHOWN else ids
        raise ValueError(
            f"{sampler} drew {told}: a cohort is a sorted "
            f"tensor of different client numbers from 0 to {clients - 1}; a client counts once"
        )
    return ids


def _check_rate(rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"rate is {rate!r}: give a probability in (0, 1]")


def _falls(words: np.ndarray, rate: float) -> np.ndarray:
    """Whether the coins of these words fall so; `rate` is below 1."""
    # Scaling by a power of two is exact, and so is the comparison of whole numbers.
    return words < np.uint64(int(rate * _WORD))


def _smallest(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` smallest pairs of words, in order of the first word, then the second.

    The pairs of a round are the blocks of one permutation: no two are equal, so this is a uniform
    subset without ties.
    """
    border = np.partition(first, count - 1)[count - 1]
    below = np.flatnonzero(first < border)
    level = np.flatnonzero(first == border)
    level = level[np.argsort(second[level])]
    return np.concatenate([below, level[: count - len(below)]])
