"""What a fault of Flower's is told by, and a round of Flower's server on replies made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy

from benchmarks.flower_grid import Memory, record, reply_of


@dataclass
class Finding:
    """One fault, on the version that is installed.

    Parameters
    ----------
    fault : str
        In a few words.
    flower : str
        What Flower does.
    measured, needed : str
        For a table.
    numbers : dict of str to float
        What was measured and what is needed, in full.
    there : bool
        Whether the installed version has the fault.
    kind : str
        "run", "derived" or "unreachable".
    """

    fault: str
    flower: str
    measured: str
    needed: str
    numbers: Mapping[str, float]
    there: bool
    kind: str = "run"


def averaging() -> FedAvg:
    """Flower's average over all nodes, without evaluation."""
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


def one_round(
    strategy: Strategy, model: np.ndarray, replies: Sequence[RecordDict]
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """The model and the metrics after a round in which the nodes from 0 on send `replies`."""
    grid = Memory(len(replies), lambda node, message: replies[node])
    messages = strategy.configure_train(1, record(w=model), ConfigRecord(), grid)
    return strategy.aggregate_train(1, grid.send_and_receive(messages))


def moved(strategy: Strategy, *updates: np.ndarray) -> np.ndarray:
    """By how much a round moves a model at 0, when the nodes from 0 on send these updates."""
    replies = [reply_of(record(w=update)) for update in updates]
    arrays, _ = one_round(strategy, np.zeros_like(updates[0]), replies)
    return values(arrays)


def values(arrays: ArrayRecord | None) -> np.ndarray:
    """The one array of a model."""
    if arrays is None:
        raise RuntimeError("Flower dropped the round")
    return arrays["w"].numpy()


def along(coordinate: int, length: float, size: int = 2) -> np.ndarray:
    """An update (size,) along one coordinate."""
    update = np.zeros(size, np.float32)
    update[coordinate] = length
    return update
