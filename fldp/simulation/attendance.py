"""Who took part when: a run holds to the limits that its plan accounts for, whatever draws."""

from __future__ import annotations

import torch
from torch import Tensor

from fldp.plan import PrivacyPlan
from fldp.simulation.checkpoint import State

# How many of those who came too early or too often a message names.
_NAMED = 5


class Attendance:
    """The participations of a run under a plan that limits them.

    Guarantee: no client is let in a (k + 1)-th time, nor less than b rounds after its last.

    Parameters
    ----------
    clients : int
        N.
    participations, separation : int
        k and b.

    Examples
    --------
    >>> attendance = Attendance(clients=3, participations=2, separation=4)
    >>> attendance.admit(torch.tensor([0, 2]), round=0)
    >>> attendance.admit(torch.tensor([2]), round=3)
    Traceback (most recent call last):
    ValueError: round 4 has client 2, which took part in round 1: the plan accounts for 4 ...
    """

    def __init__(self, clients: int, participations: int, separation: int) -> None:
        self.participations = participations
        self.separation = separation
        self._times = torch.zeros(clients, dtype=torch.int64)
        # As if everybody had been there so long ago that it may come at once.
        self._last = torch.full((clients,), -separation)

    @classmethod
    def of(cls, plan: PrivacyPlan | None, clients: int) -> Attendance | None:
        """That of a plan; None where it limits nothing.

        Parameters
        ----------
        plan : PrivacyPlan, optional
            The run's.
        clients : int
            N.

        Returns
        -------
        Attendance or None
        """
        if plan is None or plan.separation is None or plan.participations is None:
            return None
        return cls(clients, plan.participations, plan.separation)

    def admit(self, ids: Tensor, round: int) -> None:
        """Let the cohort of a round in.

        Parameters
        ----------
        ids : Tensor
            Client numbers (c,), each once.
        round : int
            From 0; rounds come in their order.

        Raises
        ------
        ValueError
            Before anybody is let in, where one client came too often or too early.
        """
        apart = round - self._last[ids]
        early = ids[apart < self.separation]
        if len(early):
            first = int(early[0])
            raise ValueError(
                f"round {round + 1} has client {first}, which took part in round "
                f"{int(self._last[first]) + 1}: the plan accounts for {self.separation} rounds "
                "from one to the next at least; give a sampler that keeps them apart, or leave "
                "sampler out"
            )
        often = ids[self._times[ids] >= self.participations]
        if len(often):
            named = ", ".join(map(str, often[:_NAMED].tolist()))
            raise ValueError(
                f"round {round + 1} has clients that took part {self.participations} times before "
                f"({named}): the plan accounts for no more; give a sampler that stops there, or "
                "leave sampler out"
            )
        self._times[ids] += 1
        self._last[ids] = round

    def state_dict(self) -> State:
        """Who took part how often, and when last; as private as the data."""
        return {"times": self._times, "last": self._last}

    def load_state_dict(self, state: State) -> None:
        """Go on after `state_dict`.

        Parameters
        ----------
        state : dict
            What it returned.
        """
        self._times = state["times"].cpu()
        self._last = state["last"].cpu()
