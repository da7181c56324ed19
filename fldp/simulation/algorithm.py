"""What every local algorithm is: how the round loop calls it, and what it guarantees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from fldp.mechanism.updates import Shapes, flatten, shapes, views
from fldp.simulation.checkpoint import State
from fldp.simulation.clients import Population
from fldp.simulation.draws import Draws
from fldp.simulation.engines import check_model
from fldp.simulation.inputs import Records, accepted, cast, leaves
from fldp.simulation.isolation import Template, alone, copied, threads
from fldp.simulation.loading import LazyPopulation
from fldp.simulation.objective import Objective, try_out
from fldp.simulation.rehearsal import traits


@dataclass(frozen=True)
class Task:
    """What the clients of one round have in common.

    Parameters
    ----------
    model : nn.Module
        The prepared model, never run itself.
    layout : list
        Names, shapes and sizes of its trained parameters.
    flat : Tensor
        The global model (d,).
    population : Population
        Who holds which records.
    draws : Draws
        The run's keyed stream.
    round : int
        The number of the round, from 0.
    objective : Objective
        What they minimise.
    like : Records
        The form in which the model takes records.
    """

    model: nn.Module
    layout: Shapes
    flat: Tensor
    population: Population
    draws: Draws
    round: int
    objective: Objective
    like: Records

    def records(self, client: int) -> tuple[Records, Tensor]:
        """The records of a client as the model takes them, and their targets.

        Parameters
        ----------
        client : int
            Its number.

        Returns
        -------
        (Records, Tensor)
        """
        x, y = self.population.client(client)
        return cast(x, self.like), y.to(self.flat.device)


@dataclass
class Algorithm:
    """Base class of local algorithms: what the round loop calls.

    `prepare(model)` before the model is flattened, `updates(...)` for the cohort's update matrix in
    chunks, `width(d)` for its number of columns, and `absorb(mean, rate)` on the noisy mean, which
    returns the part that the server optimiser steps along. `remembers`: a client's update depends
    on its own earlier rounds, which is accounted only if clients are drawn independently.

    Every client starts from the same module state (weights, buffers, attributes, hooks) and draws
    random numbers that are a function of the run's key, the round and its own number. So an update
    depends on nobody else, whatever the engine, the chunk and the cohort.

    Examples
    --------
    >>> from fldp.simulation.local import LocalSGD
    >>> isinstance(LocalSGD(), Algorithm), LocalSGD().remembers
    (True, False)
    """

    remembers: ClassVar[bool] = False
    # What clients minimise: cross-entropy of labels until a run says otherwise.
    _objective: ClassVar[Objective] = Objective()

    def learn(self, objective: Objective) -> None:
        """Minimise `objective` from here on; an algorithm with a loss of its own ignores it.

        Parameters
        ----------
        objective : Objective
            The run's loss and metric.
        """
        # Of this object alone, whatever fields its class declares.
        vars(self)["_objective"] = objective

    def trains(self, name: str) -> bool:
        """Whether the parameter `name` is trained; the others are no part of the update.

        Parameters
        ----------
        name : str
            The name of a parameter of the model.

        Returns
        -------
        bool
        """
        return True

    def prepare(self, model: nn.Module) -> nn.Module:
        """Freeze what this algorithm does not train, in place, and check the model.

        Parameters
        ----------
        model : nn.Module
            The run's own copy of the start.

        Returns
        -------
        nn.Module
            The same module.

        Raises
        ------
        ValueError
            For batch statistics, and where nothing is left to train.
        """
        check_model(model)
        for name, parameter in model.named_parameters():
            if not self.trains(name):
                parameter.requires_grad_(False)
        if not shapes(model):
            raise ValueError(f"{self} leaves nothing to train: name trainable parameters")
        return model

    def updates(
        self,
        model: nn.Module,
        flat: Tensor,
        population: Population,
        ids: Tensor | Sequence[int],
        draws: Draws | Generator | None = None,
        *,
        chunk: int | None = None,
        round: int = 0,
    ) -> Iterator[Tensor]:
        """Updates Δw of clients from a global vector, in chunks (c, width).

        Parameters
        ----------
        model : nn.Module
            The prepared model; it is never run itself, and its weights are not read.
        flat : Tensor
            The global model (d,), the trained parameters one after the other.
        population : Population
            Who holds which records.
        ids : Tensor or sequence of int
            Numbers of the clients that train; the rows come in this order.
        draws : Draws or torch.Generator, optional
            The run's keyed stream. None: a fresh key from the operating system.
        chunk : int, optional
            Clients to a chunk. None: as many as are fast together.
        round : int
            The number of the round, from 0.

        Returns
        -------
        iterator of Tensor
            Matrices (c, width), one row a client.

        Raises
        ------
        ValueError
            For a model whose state one client would leave to the next.
        """
        check_model(model)
        layout = shapes(model)
        # It raises where the vector has another length than the model.
        views(flat, layout)
        odd = [name for name, _, _ in layout if not self.trains(name)]
        if odd:
            raise ValueError(f"{odd[0]!r} is not to be trained: call prepare(model), then flatten")
        ids = torch.as_tensor(ids, dtype=torch.long)
        if len(ids) == 0:
            return iter(())
        like = self.form(model, flat, population)
        task = Task(model, layout, flat, population, Draws.of(draws), round, self._objective, like)
        if isinstance(population, LazyPopulation):
            return self._meanwhile(task, population, ids, chunk)
        return self._chunks(task, ids, chunk)

    def _chunks(self, task: Task, ids: Tensor, chunk: int | None) -> Iterator[Tensor]:
        train, best = self._trainer(task, ids)
        parts = ids.split(chunk) if chunk else self._parts(task, ids, best)
        return (train(part) for part in parts)

    def _parts(self, task: Task, ids: Tensor, best: int) -> Sequence[Tensor]:
        """The chunks of clients `ids`, neighbours, `best` of which are fast together."""
        return ids.split(best)

    def _meanwhile(
        self, task: Task, population: LazyPopulation, ids: Tensor, chunk: int | None
    ) -> Iterator[Tensor]:
        """The chunks of clients whose records are loaded meanwhile; who has none sends zeros."""
        for cohort in population.loads(ids):
            full = cohort.sizes_of(cohort.ids) > 0
            own = replace(task, population=cohort)
            if full.all():
                yield from self._chunks(own, cohort.ids, chunk)
                continue
            sent = task.flat.new_zeros(len(full), self.width(len(task.flat)))
            if full.any():
                sent[full] = torch.cat([*self._chunks(own, cohort.ids[full], chunk)])
            yield sent

    def _trainer(self, task: Task, ids: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
        """What makes the rows (c, width) of some clients, and how many are fast together.

        An algorithm of your own writes this, or all of `updates`. `ids` are all that will train.
        """
        raise NotImplementedError

    def width(self, d: int) -> int:
        """The columns of the update matrix of a model with `d` trained parameters.

        Parameters
        ----------
        d : int
            Parameters that are trained.

        Returns
        -------
        int
        """
        return d

    def absorb(self, mean: Tensor, rate: float = 1.0) -> Tensor:
        """Take a release in; what the server optimiser is to step along.

        Parameters
        ----------
        mean : Tensor
            The noisy mean (width,).
        rate : float
            m/N, the expected share of the clients in a round.

        Returns
        -------
        Tensor
            The part (d,) that is a step of the model.
        """
        return mean

    def begin(self, population: Population, rounds: int, rate: float) -> None:
        """Refuse a run that this algorithm must not take part in; most take part in any.

        Parameters
        ----------
        population : Population
            The clients.
        rounds : int
            T, how many rounds will run.
        rate : float
            m/N, at which a client takes part.

        Raises
        ------
        ValueError
            It says what does not fit.
        """

    def rehearse(self, model: nn.Module, flat: Tensor, population: Population) -> None:
        """Try the prepared model on made-up records; ValueError if clients would reach another.

        Parameters
        ----------
        model : nn.Module
            The prepared model; copies of it are tried.
        flat : Tensor
            Its trained parameters (d,).
        population : Population
            For the shape of a record; none of them is looked at.

        Raises
        ------
        ValueError
            Where one client would reach another.
        """
        traits(model, Template(model), self.form(model, flat, population))

    def _try_out(self, model: nn.Module, flat: Tensor, population: Population) -> None:
        """Try model and loss together; ValueError where they, or the labels, do not fit."""
        like = self.form(model, flat, population)
        labels = population.labels(self._objective.ignored)
        with alone(flat.device):
            loss = try_out(copied(model), like, population.targets, self._objective, labels)
        if not loss.requires_grad:
            raise ValueError(
                "the loss does not depend on what is trained: return the model's outputs without "
                "detach(), and a loss of them"
            )

    def form(self, model: nn.Module, flat: Tensor, population: Population) -> Records:
        """The form in which `model` takes a population's records: tried on made-up ones.

        Parameters
        ----------
        model : nn.Module
            The prepared model; a copy of it is tried.
        flat : Tensor
            Of the device where clients train.
        population : Population
            Whose records have this structure, these shapes and types.

        Returns
        -------
        Records
            Without rows.
        """
        like = population.form
        weights = next(model.parameters()).detach()
        if all(part.is_floating_point() for part in leaves(like)):
            return accepted(model, like, weights)
        with alone(flat.device):
            return accepted(copied(model), like, weights)

    def trained_by(self) -> str:
        """The engine that trains clients, and why it is this one; empty for code of one's own."""
        return ""

    def statement(self) -> str:
        """What the algorithm itself guarantees, beside the plan: most guarantee nothing."""
        return ""

    def limits(self) -> str:
        """What this algorithm, as it was rehearsed, adds to what the plan does not cover."""
        return ""

    def state_dict(self) -> State:
        """What the next round depends on, for a checkpoint; as private as the data."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Resume after `state_dict`; most algorithms keep no state."""

    def updates_of(
        self,
        model: nn.Module,
        population: Population,
        ids: Tensor | Sequence[int] | None = None,
        draws: Draws | Generator | None = None,
        *,
        round: int = 0,
    ) -> Tensor:
        """The updates Δw of clients that all start from `model`, as one matrix.

        `updates` makes the same rows in chunks, which a large cohort needs.

        Parameters
        ----------
        model : nn.Module
            The global model. A copy of it is prepared; it is left as it was.
        population : Population
            Who holds which records.
        ids : Tensor or sequence of int, optional
            Numbers of the clients that train; the rows come in this order. None: all clients.
        draws : Draws or torch.Generator, optional
            The run's keyed stream. None: a fresh key from the operating system.
        round : int
            The number of the round, from 0.

        Returns
        -------
        Tensor
            A matrix (m, width), one row a client.

        Raises
        ------
        ValueError
            Where `prepare` or `updates` refuses the model.

        Examples
        --------
        >>> from fldp.simulation.local import LocalSGD
        >>> owners = [[0, 1], [2, 3], [4, 5]]
        >>> people = Population(torch.ones(6, 4), torch.arange(6) % 2, owners)
        >>> LocalSGD(lr=0.1).updates_of(nn.Linear(4, 2), people).shape
        torch.Size([3, 10])
        """
        prepared = self.prepare(copied(model))
        flat = flatten(prepared)
        chosen = torch.arange(len(population)) if ids is None else ids
        rows = list(self.updates(prepared, flat, population, chosen, draws, round=round))
        if not rows:
            return flat.new_zeros(0, self.width(len(flat)))
        return torch.cat(rows)


def one_by_one(
    train: Callable[[int], Tensor], task: Task, count: int | None, ids: Tensor
) -> Tensor:
    """Train clients in turn, each with random numbers and torch settings of its own.

    Parameters
    ----------
    train : callable
        From a client's number to its update (width,).
    task : Task
        The round.
    count : int or None
        Torch threads; None leaves torch's setting.
    ids : Tensor
        The clients' numbers (c,), at least one.

    Returns
    -------
    Tensor
        Their updates, a row each (c, width).
    """
    # Drawn for all at once: the stream is set up once a round and purpose.
    rows = []
    seeds = task.draws.seeds(task.round, ids.numpy())
    with threads(count), alone(task.flat.device) as start:
        for i, seed in zip(ids.tolist(), seeds, strict=True):
            start(seed)
            rows.append(train(i))
    if len(rows) == 1:
        return rows[0].unsqueeze(0)
    return torch.stack(rows)
