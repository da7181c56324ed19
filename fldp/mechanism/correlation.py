"""Noise that is correlated over rounds, made as the rounds come.

A filter num/den in transposed direct form II: with fresh noise g the round's noise is
y = g + s_1, and the state of the next round is s_i = s_{i+1} + num_i·g - den_i·y. The state is as
many vectors as the filter has order, whatever the number of rounds; it is what a checkpoint keeps.

A round is noised once. What would noise it again (a copy, a state that is loaded over a run that
has gone on, a fork) is refused: two sums with one noise differ by their data alone. Where a round
broke off, or a crash cut it off, its index is spent, and the filter starts anew. That costs some
accuracy and no privacy: C then has zeros where it had coefficients, which are not negative, so no
client moves more (and where coefficients may be, participations do not overlap).
"""

from __future__ import annotations

import math
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from fldp._checks import shown, whole
from fldp.accounting import Filtered
from fldp.accounting.filters import Filter
from fldp.mechanism.noise import Gaussian, as_noise
from fldp.mechanism.summation import Sum

if TYPE_CHECKING:
    from fldp.accounting.events import RoundEvent
    from fldp.mechanism.clipping import Clip
    from fldp.plan import PrivacyPlan

# Of the name of a run: two runs of one ledger share it once in 10^19.
_NAME_BYTES = 8


class Correlated(Gaussian):
    """Gaussian noise of a whole run, correlated over its rounds by a filter.

    Guarantee: the noises of all rounds together are C⁻¹ applied to independent N(0, z²C²) noise, a
    fresh one each round; where rounds broke off, each part of the run by itself. One object is one
    run: it has a name of its own, which its events carry, and is not copied, pickled or used in a
    forked process. Central trust, one clip norm for the whole run.

    Parameters
    ----------
    filter : Filter
        The plan's `correlation`.
    generator : torch.Generator, optional
        As for `Gaussian`: reproducible noise, which whoever knows its seed can subtract.

    Raises
    ------
    ValueError
        For what is no filter or no generator.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=10, clients=1000,
    ...                       sampling="none", separation=5, correlation="blt")
    >>> noise = Correlated(plan.correlation)
    >>> for round in range(3):
    ...     release = fldp.aggregate(torch.ones(200, 4) / 2, plan, noise=noise)
    >>> noise.rounds, noise.events(plan, 3)[0].rounds
    (3, 3)
    """

    def __init__(self, filter: Filter, generator: torch.Generator | None = None) -> None:
        super().__init__(generator)
        if not isinstance(filter, Filter):
            raise ValueError(
                f"filter is {shown(filter)}: give the plan's, Correlated(plan.correlation)"
            )
        self.filter = filter
        self._run = secrets.token_hex(_NAME_BYTES)
        # Rounds that were noised or lost, and how many of them since the filter started anew.
        self._rounds = 0
        self._since = 0
        # (order, d), in units of σ; None before the first round, and after a break.
        self._state: Tensor | None = None
        self._size: int | None = None
        self._std: float | None = None
        # True while a round's noise is being made: who finds it so comes after a break.
        self._open = False
        # True once a run of training has it to itself.
        self._claimed = False
        # False after a state was loaded, until `skip` is told what was noised since.
        self._current = True
        self._lock = threading.Lock()
        self._process = os.getpid()

    @property
    def rounds(self) -> int:
        """How many rounds are spent: noised, or lost."""
        return self._rounds

    @property
    def run(self) -> str:
        """The name of the run, which its events carry."""
        return self._run

    def __reduce__(self) -> NoReturn:
        raise ValueError(
            "correlated noise is not copied or pickled: a copy could noise a round again; use its "
            "state_dict in a checkpoint"
        )

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce__()

    def events(self, plan: PrivacyPlan, rounds: int = 1, size: int = 1) -> list[RoundEvent]:
        self.check(plan)
        # A plan that limits participations has no other kind.
        named = [e for e in plan.events(rounds) if isinstance(e, Filtered)]
        return [replace(event, run=self._run) for event in named]

    def check(self, plan: PrivacyPlan) -> None:
        if plan.correlation is None:
            raise ValueError(
                "this noise is correlated over rounds, and the plan accounts for fresh noise in "
                "every round: leave it out, or calibrate with a limit on participations"
            )
        if plan.correlation != self.filter:
            raise ValueError(
                "this noise is not what the plan accounts for: its filter is another than the "
                "plan's; give Correlated(plan.correlation)"
            )

    def skip(self, rounds: int) -> None:
        """Spend rounds that a crash cut off: they may have been released, and are not noised again.

        After `load_state_dict` it has to be called, if only to say that there were none: a ledger
        knows.

        Parameters
        ----------
        rounds : int
            How many, right after those that this noise knows of; 0 or more.

        Raises
        ------
        ValueError
            Where the noise of those rounds would come again, from a generator that was set back.
        """
        count = whole("rounds", rounds, 0)
        if count == 0:
            self._current = True
            return
        if self.reproducible:
            raise ValueError(
                f"a crash cut off {count} rounds, and the generator would make their noise again "
                "for other rounds: resume without a generator"
            )
        self._rounds += count
        self._current = True
        self._restart()

    def claim(self) -> None:
        """Make this the noise of one run of training, which alone may take rounds from it.

        Raises
        ------
        ValueError
            Where a run has it, or has had it: its rounds would be between the others, and a client
            could take part in both.
        """
        with self._lock:
            if self._rounds or self._claimed:
                raise ValueError(
                    f"this noise is another run's, past round {self._rounds}, and clients take "
                    "part there as well: give a new Correlated(plan.correlation), or leave noise "
                    "out"
                )
            self._claimed = True

    def check_rounds(self, rounds: int) -> None:
        """That nobody but the run took rounds from its noise.

        Parameters
        ----------
        rounds : int
            How many the run has had.

        Raises
        ------
        ValueError
            For any other number: the guarantee of the run does not count those.
        """
        if self._rounds != rounds:
            raise ValueError(
                f"the noise of this run is past round {self._rounds}, the run past round {rounds}: "
                "something else was released with it, whose clients the run does not count; "
                "give that a noise and a plan of its own"
            )

    def _restart(self) -> None:
        self._state = None
        self._since = 0
        self._open = False

    def finish(self, total: Sum, std: float, denominator: float) -> Tensor:
        if os.getpid() != self._process:
            raise ValueError("this noise belongs to another process: a fork is a copy")
        if not self._lock.acquire(blocking=False):
            raise ValueError("another round of this run is being noised: rounds follow each other")
        try:
            self._begin(total, std)
            mean = super().finish(total, std, denominator)
            self._open = False
            return mean
        finally:
            self._lock.release()

    def _begin(self, total: Sum, std: float) -> None:
        """Spend the round before any of its noise exists."""
        if not self._current:
            raise ValueError(
                "this noise goes on from a state, and was not told which rounds were noised after "
                "it: call skip(n) with their number, 0 if there were none; a ledger knows"
            )
        if not std > 0:
            raise ValueError(f"std is {std}: correlated noise is in units of it; give more than 0")
        size = self._size or total.size
        if total.size != size:
            raise ValueError(
                f"the sum has {total.size} numbers, the rounds before had {size}: one noise object "
                "is one run of one model"
            )
        known = std if self._std is None else self._std
        if not math.isclose(known, std, rel_tol=1e-9):
            raise ValueError(
                f"the noise has std {std:g}, the rounds before had {known:g}: what it takes back "
                "of them would be of another size; keep clip norm and weights through the run"
            )
        if self._open:
            self._restart()
        self._size = size
        self._std = known
        self._rounds += 1
        self._since += 1
        self._open = True

    def _draws(self, total: Sum) -> Iterator[Tensor]:
        start = 0
        for fresh in super()._draws(total):
            stop = start + len(fresh)
            yield self._filtered(fresh, start, stop, total.size)
            start = stop

    def _filtered(self, fresh: Tensor, start: int, stop: int, size: int) -> Tensor:
        """The round's noise in coordinates `start` to `stop`, with the state moved on there."""
        order = self.filter.order
        if order == 0:
            return fresh
        if self._state is None:
            self._state = fresh.new_zeros(order, size)
        num, den = _padded(self.filter.num, order), _padded(self.filter.den, order)
        state = self._state[:, start:stop]
        noise = fresh + state[0]
        for place in range(order):
            row = state[place]
            if place + 1 < order:
                row.copy_(state[place + 1])
            else:
                row.zero_()
            if num[place + 1]:
                row.add_(fresh, alpha=num[place + 1])
            if den[place + 1]:
                row.sub_(noise, alpha=den[place + 1])
        return noise

    def check_clip(self, clip: Clip) -> None:
        if clip.queries:
            raise ValueError(
                "adaptive clipping moves C, and noise that is correlated over rounds would take "
                "back what it added at another C: give a fixed clip"
            )

    def marginal(self, std: float, total: Sum | None = None) -> float:
        # Before the first round it is that of the first.
        return std * float(np.linalg.norm(self.filter.inverse(max(1, self._since))))

    def state_dict(self) -> dict[str, Any]:
        """What the next round's noise depends on; as private as the data."""
        return super().state_dict() | {
            "filter": self.filter.to_dict(),
            "run": self._run,
            "rounds": self._rounds,
            "since": 0 if self._open else self._since,
            "state": None if self._open else self._state,
            "size": self._size,
            "std": self._std,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, with rounds that nobody has noised since.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned. Of rounds that were noised after it `skip` has to be told
            before the next one.

        Raises
        ------
        ValueError
            Where this object has noised a round: it would noise one again. For the state of another
            noise.
        """
        if self._rounds:
            raise ValueError(
                f"this noise is past round {self._rounds}: a state that is set back would "
                "noise a round again; load it into a new Correlated(plan.correlation)"
            )
        if state.get("filter") != self.filter.to_dict():
            raise ValueError(
                "the state is that of another noise: load it into the noise of the plan that it "
                "was made with"
            )
        super().load_state_dict(state)
        self._current = False
        self._run = state["run"]
        self._rounds = state["rounds"]
        self._since = state["since"]
        self._state = state["state"]
        if self._state is not None:
            # Where fresh noise is made.
            where = "cpu" if self._generator is None else self._generator.device
            self._state = self._state.to(where)
        self._size = state["size"]
        self._std = state["std"]


def noise_of_run(
    plan: PrivacyPlan | None, noise: Gaussian | None, generator: torch.Generator | None
) -> Gaussian:
    """The noise of a run: what was asked for, else the one that the plan accounts for.

    Parameters
    ----------
    plan : PrivacyPlan, optional
        None: a run without a plan.
    noise, generator
        As for `fldp.train`.

    Returns
    -------
    Gaussian
        New, or the caller's, which has noised no round and from now on is of no other run.

    Raises
    ------
    ValueError
        For noise of another run.

    Examples
    --------
    >>> noise_of_run(None, None, None)
    Gaussian()
    """
    if noise is None and plan is not None and plan.correlation is not None:
        return Correlated(plan.correlation, generator)
    found = as_noise(noise, generator)
    if plan is not None:
        found.check(plan)
    if isinstance(found, Correlated):
        found.claim()
    return found


def _padded(values: tuple[float, ...], order: int) -> list[float]:
    return [*values, *[0.0] * (order + 1 - len(values))]
