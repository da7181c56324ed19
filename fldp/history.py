"""What a run did, round by round, and what of it may be published."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from fldp import accounting
from fldp.accounting import AnyEvent, Event
from fldp.ledger import grouped
from fldp.plan import PrivacyPlan

_EXACT_POINTS = 100


@dataclass
class History:
    """What a run did, round by round.

    `accuracy` and `loss` are on the validation data (empty without). `epsilon` is the account after
    each round, against whoever sees the models. `private` holds what the server saw in the clear:
    cohort sizes and clipped fractions, NOT for release. `model` is the trained model, `stopped`
    says why the run ended, `statement` what it guarantees.
    """

    plan: PrivacyPlan | None
    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    clip_norm: list[float] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    before: list[AnyEvent] = field(default_factory=list)
    private: dict[str, list[float]] = field(default_factory=dict, repr=False)
    model: nn.Module = field(default_factory=nn.Identity, repr=False)
    best_round: int = 0
    stopped: str = ""
    statement: str = field(default="", repr=False)
    seconds: float = 0.0
    _spent: list[float] = field(default_factory=list, repr=False)

    @property
    def rounds(self) -> int:
        """How many rounds were released."""
        return len(self.clip_norm)

    @property
    def epsilon(self) -> list[float]:
        """ε after each round at the plan's δ; infinite without a plan.

        Beyond 100 rounds it is computed at 100 of them and carried up to the next: never too low.
        """
        if self.plan is None:
            return [math.inf] * self.rounds
        if len(self._spent) != len(self.events):
            count = len(self.events)
            knots = np.unique(np.linspace(1, count, min(count, _EXACT_POINTS)).round().astype(int))
            values = [spent(self.plan, [*self.before, *self.events[:k]]) for k in knots]
            self._spent = [values[i] for i in np.searchsorted(knots, np.arange(1, count + 1))]
        return list(self._spent)

    def to_dict(self) -> dict[str, Any]:
        """What may be published: accuracy, loss, ε, clip norms, the plan. Nothing private."""
        return {
            "plan": None if self.plan is None else self.plan.to_dict(),
            "accuracy": self.accuracy, "loss": self.loss, "epsilon": self.epsilon,
            "clip_norm": self.clip_norm, "best_round": self.best_round, "stopped": self.stopped,
        }  # fmt: skip

    def to_json(self) -> str:
        return json.dumps(self.to_dict()).replace("Infinity", "null")

    def to_pandas(self) -> Any:
        """One row a round, as a pandas DataFrame; public columns only."""
        import pandas

        columns = {"epsilon": self.epsilon, "clip_norm": self.clip_norm}
        if self.accuracy:
            columns |= {"accuracy": self.accuracy, "loss": self.loss}
        return pandas.DataFrame(columns, index=pandas.RangeIndex(1, self.rounds + 1, name="round"))

    def plot(self, ax: Any = None, label: str | None = None) -> Any:
        """Accuracy over rounds with the ε spent; returns the axes."""
        from fldp import plotting

        return plotting.history(self, ax, label)


def spent(plan: PrivacyPlan, events: Sequence[AnyEvent]) -> float:
    """ε of these events at the plan's δ, adjacency and accountant."""
    if not events:
        return 0.0
    if all(event == plan.event for event in events):
        return plan.epsilon(len(events))
    return accounting.epsilon_of(grouped(events), plan.delta, plan.adjacency, plan.accountant)
