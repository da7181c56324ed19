"""Record level: DP-SGD inside the clients, as Opacus runs it, over a federated training."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fldp import accounting
from fldp._checks import choice, real, sizes_of_clients, whole
from fldp._text import down, up
from fldp.accounting import ACCOUNTANTS, Event
from fldp.accounting.calibration import noise_for
from fldp.plan.attendance import participations as bound_participations

# So many numbers of steps per epoch are accounted one by one; more are put into groups. Opacus'
# accountants take a hundred times as long.
_ACCOUNTED, _ACCOUNTED_BY_OPACUS = 160, 32
# How far the members of a group may be apart, as ratios to be tried; the last holds everybody.
_RATIOS = (1.01, 1.02, 1.03, 1.05, 1.1, 1.2, 1.5, 2.0, 4.0, 1e18)
# The share of δ that pays for a client which is drawn more often than was accounted.
_DRAWS = 0.1
# Of records. A client's number of records n is public, since S and the divisor follow from it: so
# that a record is there cannot be hidden, only what it contributes. "add-or-remove" is the older
# name of "zero-out" here, with the same numbers.
_ADJACENCIES = ("zero-out", "replace-one", "add-or-remove")
_COMPARED = {
    "zero-out": "the gradients of this record are zero",
    "replace-one": "this record is another one",
}


class _Steps(NamedTuple):
    """Clients with S steps per epoch, `fewest` <= S <= `most`, accounted together.

    They are accounted with the rate 1/fewest of the one and the number of steps of the other: more
    rounds and a higher rate spend more, so no member's epsilon is larger.
    """

    fewest: int
    most: int


def _grouped(counts: NDArray[np.int64], limit: int) -> list[_Steps]:
    """The distinct step counts, one by one if they are at most `limit`, else in close groups."""
    if len(counts) <= limit:
        return [_Steps(int(s), int(s)) for s in counts]
    groups: list[_Steps] = []
    for ratio in _RATIOS:
        groups = []
        for steps in counts.tolist():
            # One step an epoch takes every record: without sampling, it stays a group of its own.
            if groups and steps <= ratio * groups[-1].fewest and groups[-1].fewest > 1:
                groups[-1] = groups[-1]._replace(most=steps)
            else:
                groups.append(_Steps(steps, steps))
        if len(groups) <= limit:
            break
    return groups


@dataclass(frozen=True, eq=False)
class RecordPlan:
    """DP-SGD inside the clients: what to run, and each client's ε.

    Made by `calibrate_records`. Arrays have one entry per client, in the order of client_sizes.

    Parameters
    ----------
    epsilon, delta
        The budget of every record, over the whole training.
    noise_multiplier
        z, the largest of all: in clip norms of one record's gradient.
    noise_multipliers
        z of each client.
    epsilons
        What a record of each client really spends, at most `epsilon`.
    steps_per_epoch
        S = ceil(n/B) of each client.
    sampling_rates
        1/S of each client, which is what Opacus' Poisson loader runs.
    rounds, local_epochs, batch_size
        T, epochs of a client per round, and B, records per step in expectation.
    participations
        The rounds of a client that are accounted.
    client_sampling_rate
        u, the chance of a client to be asked in a round.
    adjacency
        "zero-out" or "replace-one", of records.
    accountant
        As in `calibrate_records`.

    Examples
    --------
    >>> plan = calibrate_records(epsilon=8.0, delta=1e-5, rounds=20, local_epochs=1,
    ...                          batch_size=16, client_sizes=[10, 160])
    >>> len(plan.epsilons), bool(max(plan.epsilons) <= 8.0)
    (2, True)
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
        """The guarantee in plain words.

        Returns
        -------
        str
            Who is protected, against whom, and by what; ε and δ rounded up.

        Examples
        --------
        >>> plan = calibrate_records(epsilon=8.0, delta=1e-5, rounds=20, local_epochs=1,
        ...                          batch_size=16, client_sizes=[10, 160])
        >>> plan.statement()[:27]
        'Every record: (8, 1e-05)-di'
        """
        spread = np.quantile(self.epsilons, [0, 0.5, 1])
        each = "one z for all" if np.ptp(self.noise_multipliers) == 0 else "one z per client"
        return (
            f"Every record: ({up(self.epsilon)}, {up(self.delta)})-differential privacy at the "
            f"record level ({self.adjacency}) after {self.rounds} rounds; on {len(self.epsilons)} "
            f"clients ε goes from {up(spread[0])} (median {up(spread[1])}) to {up(spread[2])}.\n"
            f"Unit: one record; {self.adjacency}: the run is compared with one in which "
            f"{_COMPARED[self.adjacency]}. Public, and so the same in both: each client's number n "
            f"of records, its S below, the divisor {self.batch_size}.\n"
            "Against: the server and all others, who may know who took part. Trusted: the record's "
            "own client.\n"
            f"Noise: DP-SGD in every local step, {each}, the largest "
            f"{down(self.noise_multiplier, 5)}.\n"
            f"Sampling: S = ceil(n/{self.batch_size}) steps per local epoch; in each every "
            "record takes part by its own coin at rate 1/S (Opacus' loader).\n"
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
        """The fields as plain numbers, strings and lists.

        Returns
        -------
        dict
            Ready for JSON.

        Examples
        --------
        >>> plan = calibrate_records(epsilon=8.0, delta=1e-5, rounds=20, local_epochs=1,
        ...                          batch_size=16, client_sizes=[10, 160])
        >>> plan.to_dict()["steps_per_epoch"]
        [1, 10]
        """
        fields = dict(vars(self))
        for name, value in fields.items():
            if isinstance(value, np.ndarray | np.generic):
                fields[name] = value.tolist()
        return fields


def _noise_of_each(
    groups: Sequence[_Steps], noise: Callable[[_Steps, float | None], float]
) -> list[float]:
    """The noise multiplier of each group; those of the two before it foretell it."""
    found: list[float] = []
    for i, group in enumerate(groups):
        near = None
        if i > 2:
            # log z is about straight in log S; from the fourth on, since S = 1 has no sampling.
            grown = math.log(group.fewest / groups[i - 1].fewest)
            grown /= math.log(groups[i - 1].fewest / groups[i - 2].fewest)
            near = found[-1] * (found[-1] / found[-2]) ** grown
        found.append(noise(group, near))
    return found


def _noise_for_all(
    groups: Sequence[_Steps],
    noise: Callable[[_Steps], float],
    spent: Callable[[_Steps, float], float],
    epsilon: float,
) -> tuple[float, list[float]]:
    """One noise multiplier that is enough for every group, and what each then spends.

    Which group spends most depends on everything: fewest steps at small epsilon, many at large. So
    all are asked, and while one spends too much the noise is set by the worst.
    """
    worst = groups[0]
    z = 0.0
    while True:
        z = max(z, noise(worst))
        spends = [spent(group, z) for group in groups]
        if max(spends) <= epsilon:
            return z, spends
        worst = groups[int(np.argmax(spends))]


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
    adjacency: str = "zero-out",
    accountant: str = "pld",
) -> RecordPlan:
    """Noise for DP-SGD inside the clients so that no record's guarantee is weaker than (ε, δ).

    Each number S of steps per epoch is accounted on its own, or, where there are very many, in
    groups of nearly equal S that are accounted as the worst of them could be.

    Parameters
    ----------
    epsilon, delta
        The budget of every record, over the whole training.
    rounds
        Global rounds.
    local_epochs, batch_size
        Epochs of a client per round, and records per local step, in expectation.
    client_sizes
        Records of each client; public.
    client_sampling_rate
        u in (0, 1]: a coin per client and round. Below 1 a client is accounted for the number of
        rounds it exceeds with probability at most δ/10, with the rest of δ.
    per_client
        False: one z, set by the client that spends most. True: one z per client.
    participations
        Accounts for this many rounds of a client instead: the training must then stop asking a
        client after them. None: as `client_sampling_rate` says.
    adjacency
        "zero-out" or "replace-one", of records. "add-or-remove" is read as "zero-out", which has
        the same noise: sizes are public, so a record's presence is not hidden.
    accountant
        As in :func:`fldp.epsilon`.

    Returns
    -------
    RecordPlan
        One z, or one per client, and each client's ε.

    Raises
    ------
    ValueError
        For impossible input, before any work.

    Examples
    --------
    >>> plan = calibrate_records(epsilon=8.0, delta=1e-5, rounds=20, local_epochs=1,
    ...                          batch_size=16, client_sizes=[10, 160, 1600])
    >>> [round(float(e), 1) for e in plan.epsilons]
    [8.0, 2.3, 0.6]
    """
    epsilon = real("epsilon", epsilon)
    delta = real("delta", delta, 1)
    rounds = whole("rounds", rounds)
    epochs = whole("local_epochs", local_epochs)
    batch = whole("batch_size", batch_size)
    u = real("client_sampling_rate", client_sampling_rate)
    choice("adjacency", adjacency, _ADJACENCIES)
    adjacency = "zero-out" if adjacency == "add-or-remove" else adjacency
    choice("accountant", accountant, ACCOUNTANTS)
    given = sizes_of_clients(client_sizes)
    if u > 1:
        raise ValueError(f"client_sampling_rate is {u:g}: give a rate in (0, 1]")
    spare = delta
    if participations is not None:
        served = min(rounds, whole("participations", participations))
    else:
        served = max(1, bound_participations(rounds, u, _DRAWS * delta))
        if served < rounds:
            spare = (1 - _DRAWS) * delta
    counts = -(-given.astype(np.int64) // batch)  # rounded up
    unique, back = np.unique(counts, return_inverse=True)
    groups = _grouped(unique, _ACCOUNTED if accountant == "pld" else _ACCOUNTED_BY_OPACUS)

    def event(steps: _Steps, z: float = 1.0) -> Event:
        kind = "poisson" if steps.fewest > 1 else "none"
        # The draw of a round's clients amplifies nothing: all steps of a round share it.
        return Event(z, 1 / steps.fewest, kind, served * epochs * steps.most)

    def noise(steps: _Steps, near: float | None = None) -> float:
        return noise_for(epsilon, spare, event(steps), adjacency, accountant, near)

    def spent(steps: _Steps, z: float) -> float:
        return accounting.epsilon_of([event(steps, z)], spare, adjacency, accountant)

    of_group = np.searchsorted([group.fewest for group in groups], unique, side="right") - 1
    if per_client:
        each = _noise_of_each(groups, noise)
        z = np.array(each)[of_group][back]
        epsilons = np.full(len(counts), epsilon)
    else:
        one, spends = _noise_for_all(groups, noise, spent, epsilon)
        z = np.full(len(counts), one)
        epsilons = np.array(spends)[of_group][back]
    settings = (rounds, epochs, batch, served, u, adjacency, accountant)
    worst = float(z.max())
    return RecordPlan(epsilon, delta, worst, z, epsilons, counts, 1 / counts, *settings)
