"""What a run on Flower goes on from: Flower itself has no way to resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fldp.plan.ledger import Ledger
from fldp.simulation.checkpoint import Checkpoint, State, compare

# What Flower's adaptive servers and FedAvgM keep between rounds.
_KEPT = ("m_t", "v_t", "momentum_vector")
# What is in a file of ours.
_FIELDS = {"identity", "head", "done", "arrays", "strategy", "clip", "noise"}


class Progress:
    """The file of a run, if it has one.

    Parameters
    ----------
    path : Path or None
        None keeps nothing: a run that is started again begins at round 1, and its account goes on.
    ledger : Ledger
        The run's account, whose head is kept beside the model.
    identity : dict of str to str
        In words, what a run that goes on must still be.
    """

    def __init__(self, path: Path | None, ledger: Ledger, identity: dict[str, str]) -> None:
        self._file = None if path is None else Checkpoint(path, path.exists())
        self._ledger = ledger
        self._identity = identity

    @property
    def kept(self) -> bool:
        """Whether there is a file at all."""
        return self._file is not None

    def save(self, state: State) -> None:
        """Replace the file, on disk; without one nothing happens.

        Parameters
        ----------
        state : dict
            Numbers, texts and tensors.
        """
        if self._file is not None:
            known = {"identity": self._identity, "head": self._ledger.head}
            self._file.save(known | state)

    def load(self, reproducible: bool) -> State | None:
        """What was saved last; None where nothing was.

        Parameters
        ----------
        reproducible : bool
            Whether the noise comes from the caller's generator.

        Returns
        -------
        dict or None

        Raises
        ------
        ValueError
            For the file of another run, a ledger that lacks what this run spent, and noise that
            would come again.
        """
        if self._file is None or not self._file.path.exists():
            return None
        state = self._file.load(torch.device("cpu"))
        if not state.keys() >= _FIELDS or state["identity"].keys() != self._identity.keys():
            raise ValueError(
                f"{self._file.path} is the checkpoint of something else than a run on Flower: give "
                "a new path"
            )
        compare(self._file.path, state["identity"], self._identity)
        self._ledger.check(state["head"])
        if reproducible and state["head"] != self._ledger.head:
            # Other replies with the same noise: their difference would have none.
            raise ValueError(
                f"{self._ledger.path} holds rounds that {self._file.path} does not, and the "
                "generator would make their noise again for other replies: leave the generator out"
            )
        return state


def optimiser_state(strategy: Any) -> dict[str, Any]:
    """What a server optimiser of Flower goes on from; all of it is post-processing.

    A strategy of your own that keeps something else between rounds has `state_dict` and
    `load_state_dict`, of tensors, numbers and texts.

    Parameters
    ----------
    strategy : FedAvg
        The inner strategy.

    Returns
    -------
    dict
    """
    if hasattr(strategy, "state_dict"):
        return dict(strategy.state_dict())
    return {name: _as_tensors(getattr(strategy, name, None)) for name in _KEPT}


def load_optimiser(strategy: Any, state: dict[str, Any]) -> None:
    """Go on from `optimiser_state`.

    Parameters
    ----------
    strategy : FedAvg
        The inner strategy.
    state : dict
        What was returned.
    """
    if hasattr(strategy, "load_state_dict"):
        strategy.load_state_dict(state)
        return
    for name, value in state.items():
        if value is not None:
            setattr(strategy, name, _as_arrays(value))


def _as_tensors(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        return {name: torch.from_numpy(np.array(part)) for name, part in value.items()}
    return [torch.from_numpy(np.array(part)) for part in value]


def _as_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: part.numpy() for name, part in value.items()}
    return [part.numpy() for part in value]
