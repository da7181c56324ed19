"""Stochastic gradient descent of many clients at once, a row of weights each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fldp.mechanism.updates import views
from fldp.simulation.batching import Batch
from fldp.simulation.engines import Engine

if TYPE_CHECKING:
    from fldp.simulation.local import LocalSGD, Task


class Descent:
    """The weights (c, d) of a chunk's clients on their way down, largest client first.

    Parameters
    ----------
    algorithm : LocalSGD
        Rates, momentum, decay, and what pulls.
    task : Task
        The round.
    engine : Engine
        What computes gradients.
    clients : Tensor
        Their numbers (c,).
    """

    def __init__(self, algorithm: LocalSGD, task: Task, engine: Engine, clients: Tensor) -> None:
        self.algorithm = algorithm
        self.engine = engine
        self.flat = task.flat
        self.weights = task.flat.detach().expand(len(clients), -1).clone()
        self.own = views(self.weights, task.layout)
        # A plain step is added to the weights as it is computed: no gradient is ever held.
        self.gradients = None if algorithm._plain else torch.empty_like(self.weights)
        into = self.weights.data if self.gradients is None else self.gradients
        self.target = views(into, task.layout)
        self.velocity = torch.zeros_like(self.weights) if algorithm.momentum else None
        self.correction = algorithm._correction(task.flat, clients)
        engine.begin(task.draws.seeds(task.round, clients.numpy()), task.flat.device)

    def step(self, batch: Batch, rate: float, epoch: int) -> None:
        """One step of the clients who have records in `batch`.

        Parameters
        ----------
        batch : Batch
            Their records.
        rate : float
            The learning rate.
        epoch : int
            Counted from 0.
        """
        self.engine.turn(epoch, batch.number, batch.first)
        rows = slice(batch.first, batch.first + len(batch.y))
        weights = _rows(self.own, rows)
        target = _rows(self.target, rows)
        if self.gradients is None:
            self.engine.accumulate(weights, target, -rate, batch.x, batch.y, batch.share)
            return
        gradient = self.gradients[rows].zero_()
        self.engine.accumulate(weights, target, 1.0, batch.x, batch.y, batch.share)
        self.weights[rows].add_(self._direction(gradient, rows), alpha=-rate)

    def _direction(self, gradient: Tensor, rows: slice) -> Tensor:
        """What the weights of clients `rows` move against, made of their `gradient` in place."""
        weights = self.weights[rows]
        pull = self.algorithm.proximal
        # In the order of torch.optim.SGD: the loss's own gradient first, momentum last.
        if self.correction is not None:
            gradient.add_(self.correction[rows])
        if pull:
            gradient.add_(weights, alpha=pull).add_(self.flat, alpha=-pull)
        if self.algorithm.weight_decay:
            gradient.add_(weights, alpha=self.algorithm.weight_decay)
        if self.velocity is None:
            return gradient
        return self.velocity[rows].mul_(self.algorithm.momentum).add_(gradient)


def _rows(parts: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: part[rows] for name, part in parts.items()}
