"""A server app on Flower that is killed at random instants: is its account ever below the truth?

As `benchmarks.kill_test`, with the app in place of `fldp.train`: a process with a grid in memory,
sent SIGKILL up to three times a run, and a witness outside it that counts what it has released.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp.strategy import FedAvgM

import fldp
from benchmarks import kill_test
from benchmarks.flower_grid import Memory, record, reply_of
from fldp.flower import Private
from fldp.mechanism.aggregation import PrivateAggregator

CLIENTS, COHORT, PARAMETERS = 50, 20, 50
# Seconds of a round, about: a kill comes within them.
A_ROUND = 0.01


def answer(node: int, message: Message) -> RecordDict:
    """A node that moves every parameter far beyond the clip."""
    return reply_of(record(w=message.content["arrays"]["w"].numpy() + np.float32(9)))


def server_app(folder: Path, plan: fldp.PrivacyPlan, witness: int) -> Any:
    """One attempt at the run in `folder`; a byte goes to `witness` after each release."""
    release = PrivateAggregator.release

    def witnessed(self: PrivateAggregator, *given: Any) -> Any:
        found = release(self, *given)
        os.write(witness, b"r")
        return found

    # The process is forked for one attempt, and does nothing else.
    PrivateAggregator.release = witnessed  # type: ignore[method-assign]
    try:
        strategy = Private(
            FedAvgM(fraction_evaluate=0.0, server_momentum=0.5),
            plan,
            fldp.AdaptiveClip(0.1, count_noise=10.0),
            ledger=folder / "ledger.jsonl",
            checkpoint=folder / "run.pt",
        )
        strategy.start(Memory(CLIENTS, answer), record(w=np.zeros(PARAMETERS, np.float32)))
    finally:
        PrivateAggregator.release = release  # type: ignore[method-assign]
    events = strategy.ledger.events
    strategy.close()
    return SimpleNamespace(before=[], events=events, epsilon=[plan.spent(events)])


def measure(kills: int, seed: int) -> dict[str, int]:
    """Runs that were killed at least so often together; the sums of their counts."""
    plan = fldp.calibrate(
        epsilon=8.0, delta=1e-3, rounds=kill_test.ROUNDS, clients=CLIENTS, cohort=COHORT
    )

    def work(folder: Path, witness: int) -> Any:
        return server_app(folder, plan, witness)

    dice = random.Random(seed)
    total = {"runs": 0, "kills": 0}
    while total["kills"] < kills:
        total["runs"] += 1
        for name, count in kill_test.one_run(plan, work, dice, A_ROUND).items():
            total[name] = total.get(name, 0) + count
    return total
