"""Record level: DP-SGD inside the clients, as Opacus runs it, over a federated training."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fldp import accounting
from fldp.accounting import ACCOUNTANTS
from fldp.checks import choice, real, whole
from fldp.plan import participations as bound_participations
from fldp.report import down, up

EXACT = 24  # so many smallest step counts are accounted one by one, the others between knots


def _over(counts: NDArray[np.int64], function: Callable[[int], float], knots: int) -> NDArray[Any]:
    """`function` (decreasing and convex in the steps per epoch) at each count, never below it.

    Exact for the smallest counts, which have the largest values; beyond, at most `knots` knots and
    the chords between them, which lie above a convex function.
    """
    unique, back = np.unique(counts, return_inverse=True)
    at = unique
    if len(unique) > EXACT + knots:
        grid = np.geomspace(unique[EXACT], unique[-1], knots)
        at = np.unique(np.concatenate([unique[:EXACT], np.rint(grid).astype(np.int64)]))
    values = np.array([function(int(s)) for s in at])
    return np.asarray(np.interp(unique, at, np.minimum.accumulate(values))[back])


@dataclass(frozen=True, eq=False)
class RecordPlan:
    """DP-SGD inside the clients: what to run, and each client's ε.

    One entry per client, in the order of client_sizes: `noise_multipliers`, `epsilons`,
    `steps_per_epoch` S = ceil(n/B) and `sampling_rates` 1/S, which is what Opacus' Poisson loader
    runs. `noise_multiplier` z is the largest; `participations` the rounds of a client accounted.
    """

    epsilon: float
    delta: float
    noise_multiplier: float
    noise_multipliers: NDArray[np.float64]
    epsilons: NDArray[np.float64]
    steps_per_epoch: NDArray[np.int64]
    sampling_rates: NDArray[np.float64]
    rounds: int
    local_epochs: int
    batch_size: int
    participations: int
    client_sampling_rate: float
    adjacency: str
    accountant: str

    def statement(self) -> str:
        """The guarantee in plain words."""
        spread = np.quantile(self.epsilons, [0, 0.5, 1])
        each = "one z for all" if np.ptp(self.noise_multipliers) == 0 else "one z per client"
        return (
            f"Every record: ({up(self.epsilon)}, {up(self.delta)})-differential privacy at the "
            f"record level ({self.adjacency}) after {self.rounds} rounds; on {len(self.epsilons)} "
            f"clients ε goes from {up(spread[0])} (median {up(spread[1])}) to {up(spread[2])}.\n"
            "Against: the server and all others, who may know who took part. Trusted: the record's "
            "own client.\n"
            f"Noise: DP-SGD in every local step, {each}, the largest "
            f"{down(self.noise_multiplier, 5)}.\n"
            f"Sampling: S = ceil(n/{self.batch_size}) steps per local epoch; in each every "
            "record takes part by its own coin at rate 1/S (Opacus' loader). Sizes n are public.\n"
            f"Accounted: {self.participations} of {self.rounds} rounds, {self.local_epochs} local "
            "epochs each. The steps of a round share one draw of the client: its rate "
            f"{self.client_sampling_rate:g} amplifies none of them.\n"
            f"Accountant: {self.accountant}. It does not cover: a client as a whole, or anything "
            "else that leaves it."
        )

    __str__ = statement

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.statement())}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers, strings and lists."""
        plain = (np.ndarray, np.generic)
        return {k: v.tolist() if isinstance(v, plain) else v for k, v in vars(self).items()}


def calibrate_records(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    local_epochs: int,
    batch_size: int,
    client_sizes: ArrayLike | Sequence[int],
    client_sampling_rate: float = 1.0,
    per_client: bool = False,
    participations: int | None = None,
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
) -> RecordPlan:
    """Noise for DP-SGD inside the clients so that no record's guarantee is weaker than (ε, δ).

    One z, set by the worst client (fewest steps per epoch), or with `per_client=True` one z per
    client. With `client_sampling_rate` u < 1 (a coin per client and round) a client is accounted
    for the number of rounds it exceeds with probability at most δ/10, with the rest of δ; with
    `participations` given, for that many: the training must then stop asking a client after them.

    >>> plan = calibrate_records(epsilon=8.0, delta=1e-5, rounds=20, local_epochs=1, batch_size=16,
    ...                          client_sizes=[10, 160, 1600])
    >>> [round(float(e), 1) for e in plan.epsilons]
    [8.0, 2.3, 0.6]
    """
    epsilon, delta = real("epsilon", epsilon), real("delta", delta, 1)
    rounds, epochs = whole("rounds", rounds), whole("local_epochs", local_epochs)
    batch, u = whole("batch_size", batch_size), real("client_sampling_rate", client_sampling_rate)
    choice("adjacency", adjacency, ("add-or-remove", "replace-one"))
    choice("accountant", accountant, ACCOUNTANTS)
    given = np.asarray(client_sizes)
    if given.ndim != 1 or not given.size or not np.issubdtype(given.dtype, np.number):
        raise ValueError(f"client_sizes has shape {given.shape}: give one number per client")
    wrong = np.flatnonzero(~(np.isfinite(given) & (given >= 1) & (given == np.floor(given))))
    if wrong.size:
        raise ValueError(f"client {wrong[0]} has size {given[wrong[0]]}: give a whole number >= 1")
    if u > 1:
        raise ValueError(f"client_sampling_rate is {u:g}: give a rate in (0, 1]")
    enforced = participations is not None
    served = max(1, bound_participations(rounds, u, delta / 10))
    served = min(rounds, whole("participations", participations)) if enforced else served
    spare = delta if enforced or served == rounds else 0.9 * delta
    counts = -(-given.astype(np.int64) // batch)
    common: dict[str, Any] = {"delta": spare, "adjacency": adjacency, "accountant": accountant}

    def question(steps: int) -> dict[str, Any]:
        kind = "poisson" if steps > 1 else "none"
        total = served * epochs * steps
        return common | {"rounds": total, "sampling_rate": 1 / steps, "sampling": kind}

    def noise(steps: int) -> float:
        return accounting.noise_multiplier(epsilon=epsilon, **question(steps))

    def spent(steps: int) -> float:
        return accounting.epsilon(noise_multiplier=z[0], **question(steps))

    if per_client:
        z, epsilons = _over(counts, noise, 12), np.full(len(counts), epsilon)
    else:
        z = np.full(len(counts), noise(int(counts.min())))
        epsilons = _over(counts, spent, 24)
    settings = (rounds, epochs, batch, served, u, adjacency, accountant)
    worst = float(z.max())
    return RecordPlan(epsilon, delta, worst, z, epsilons, counts, 1 / counts, *settings)
