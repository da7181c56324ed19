"""What a run did, round by round, and what of it may be published."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from fldp.plan import PrivacyPlan
from fldp.plan.attendance import certain

# An ε takes milliseconds: a long history computes so many of them, and carries each upwards.
_EXACT_POINTS = 100
# What no copy, pickle or printout may hold.
_KEPT_BACK = ("private", "seconds")


@dataclass
class History:
    """What a run did, round by round.

    Guarantee: everything here may be published under `statement`, except `private` and `seconds`,
    which are attributes and nothing else: no pickle, copy, `asdict`, printout or export holds them.

    Attributes
    ----------
    plan : PrivacyPlan or None
    metric, loss : list of float
        On the validation data, a round each; empty without.
    measure : str
        What `metric` is: "accuracy", the name of a metric of your own, or "" for none.
    clip_norm : list of float
        C of each round.
    events, before : list
        What the accountant composes: this run's rounds, and what the ledger held besides.
    participations : list of int or None
        With a seed, the most rounds that its draws have given any client, after each round. It and
        `epsilon` then tell something of these draws, which `accounted` presumes to be secret.
    best_round : int
        The round of the best validation accuracy, or of the least loss where the metric is another;
        0 without.
    model : nn.Module
        The trained model: a function of the releases, with the buffers of the model given.
    engine : str
        What trained the clients, and why: "stacked", or "loop: the model has hooks". It follows
        from the model, not from the data: where a client's records leave no room for others beside
        it, the loop takes its turn, whatever this says.
    stopped, statement : str
        Why the run ended, and what it guarantees.
    head : dict or None
        Count and hash of the ledger's last line (`Ledger.check` takes it).
    private : dict
        What the server saw in the clear, a number for each round: NOT for release. "cohort", how
        many came; "malformed", how many contributions counted as zero; "zero", how many others were
        zero; "clipped_fraction", of those not malformed. Under distributed trust also "skipped", 1
        for a round that released nothing because too few came, which is public there. Where a plan
        limits participations also "lost", 1 for a round that a crash cut off.
    seconds : float
        How long the rounds took, which tells who came and how much data they have: NOT for release.

    Examples
    --------
    >>> import fldp
    >>> people = fldp.clients.partition(*fldp.datasets.digits(), clients=100, seed=0)
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=3, clients=100)
    >>> history = fldp.train(nn.Linear(64, 10), people, plan)
    >>> history.rounds, history.now <= 8.0
    (3, True)
    """

    plan: PrivacyPlan | None
    metric: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    clip_norm: list[float] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    before: list[Any] = field(default_factory=list)
    participations: list[int] | None = None
    model: nn.Module = field(default_factory=nn.Identity, repr=False)
    best_round: int = 0
    measure: str = "accuracy"
    engine: str = ""
    stopped: str = ""
    statement: str = field(default="", repr=False)
    head: dict[str, Any] | None = field(default=None, repr=False)
    _spent: dict[str, list[float]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        # No fields of the dataclass, so that asdict, repr and comparisons do not see them.
        self.private: dict[str, list[float]] = {}
        self.seconds = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _KEPT_BACK}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.private = {}
        self.seconds = 0.0

    def note(self, held: Sequence[Any]) -> None:
        """What a ledger holds besides this run's rounds is spent, whatever came of it.

        Parameters
        ----------
        held : sequence of events
            All that the ledger holds.
        """
        if len(held) != len(self.before) + len(self.events):
            self.before = list((Counter(held) - Counter(self.events)).elements())
            self._spent.clear()

    @property
    def accuracy(self) -> list[float]:
        """`metric` where it is the accuracy; else empty."""
        return self.metric if self.measure == "accuracy" else []

    @property
    def chosen_by(self) -> str:
        """By what one round's model is better than another's."""
        return "accuracy" if self.measure == "accuracy" else "loss"

    @property
    def rounds(self) -> int:
        """How many rounds were released."""
        return len(self.clip_norm)

    @property
    def epsilon(self) -> list[float]:
        """ε after each round at the plan's δ; infinite without a plan.

        Where the draws came from a seed, whoever knows it knows who took part: then this is the ε
        of the most rounds that the seed has given any client. `accounted` is the plan's account.
        """
        if self.plan is None or self.participations is None:
            return self.accounted
        if len(self._spent.get("seeded", [])) != self.rounds:
            each = {k: self.seeded(self.plan, k) for k in set(self.participations)}
            self._spent["seeded"] = [each[k] for k in self.participations]
        return list(self._spent["seeded"])

    @property
    def accounted(self) -> list[float]:
        """ε after each round by the plan's account, which holds while nobody knows the draws.

        Beyond 100 rounds it is computed at 100 of them and carried up to the next: never too low.
        """
        if self.plan is None:
            return [math.inf] * self.rounds
        count = len(self.events)
        if len(self._spent.get("accounted", [])) != count:
            knots = np.unique(np.linspace(1, count, min(count, _EXACT_POINTS)).round().astype(int))
            values = [self.plan.spent([*self.before, *self.events[:k]]) for k in knots]
            places = np.searchsorted(knots, np.arange(1, count + 1))
            self._spent["accounted"] = [values[i] for i in places]
        return list(self._spent["accounted"])

    @property
    def now(self) -> float:
        """ε after the last round: the last entry of `epsilon`, without the others."""
        if self.plan is None:
            return math.inf
        if self.participations is None:
            return self.plan.spent([*self.before, *self.events])
        if not self.participations:
            return self.seeded(self.plan, 0)
        return self.seeded(self.plan, self.participations[-1])

    def seeded(self, plan: PrivacyPlan, k: int) -> float:
        """ε of k rounds of a client, with what the ledger held besides, where a seed is known.

        Parameters
        ----------
        plan : PrivacyPlan
            The run's.
        k : int
            The most rounds that the seed has given any client.
        """
        # Rounds of this run that a crash cut off are in k; what else the ledger holds composes.
        # Of limited participations it is known which rounds are this run's; they are in `events`.
        named = plan.correlation is not None
        others = [event for event in self.before if named or not plan.owns(event)]
        if not others or k == 0:
            return max(plan.spent(others), plan.seeded_epsilon(k))
        # Under a cap a client that leaves lets another one in: twice the sensitivity, half the z.
        moves_up = plan.cap is not None and plan.adjacency == "add-or-remove"
        own = certain(plan, k)
        if moves_up:
            own = replace(own, noise_multiplier=own.noise_multiplier / 2)
        return plan.spent([*others, own])

    def to_dict(self) -> dict[str, Any]:
        """What may be published: accuracy, loss, ε, clip norms, the plan. Nothing private."""
        return {
            "plan": None if self.plan is None else self.plan.to_dict(),
            "accuracy": self.accuracy,
            "metric": self.metric if self.measure else [],
            "measure": self.measure,
            "loss": self.loss,
            "epsilon": self.epsilon,
            "accounted": self.accounted,
            "clip_norm": self.clip_norm,
            "best_round": self.best_round,
            "engine": self.engine,
            "stopped": self.stopped,
        }

    def to_json(self) -> str:
        """`to_dict` as JSON; infinity and NaN, which JSON does not have, become null."""
        return json.dumps(_finite(self.to_dict()), allow_nan=False)

    def to_pandas(self) -> Any:
        """One row a round, as a pandas DataFrame; public columns only."""
        import pandas

        columns = {"epsilon": self.epsilon, "clip_norm": self.clip_norm}
        if self.measure and self.metric:
            columns[self.measure] = self.metric
        if self.loss:
            columns["loss"] = self.loss
        return pandas.DataFrame(columns, index=pandas.RangeIndex(1, self.rounds + 1, name="round"))

    def plot(self, ax: Any = None, label: str | None = None) -> Any:
        """Accuracy over rounds with the ε spent.

        Parameters
        ----------
        ax : matplotlib axes, optional
            None draws new ones.
        label : str, optional
            For the legend.

        Returns
        -------
        matplotlib axes
        """
        from fldp import plotting

        return plotting.history(self, ax, label)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
