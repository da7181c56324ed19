"""What a client does in a round: local SGD, FedProx, partial training, your own loop.

At the client level nothing here changes the account: the update is clipped whatever produced it.
Epochs, batches, learning rates and client sizes are a matter of utility alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from fldp import _moved
from fldp._checks import check_takes, real, shown, whole
from fldp.mechanism.updates import Shapes, flatten, shapes, views
from fldp.simulation.batching import batches, lengths, shuffled, usual
from fldp.simulation.checkpoint import State
from fldp.simulation.choice import Choice, choose
from fldp.simulation.clients import Population
from fldp.simulation.descent import Descent
from fldp.simulation.draws import Draws
from fldp.simulation.engines import Engine, check_model
from fldp.simulation.inputs import Records, accepted, cast, leaves
from fldp.simulation.isolation import Template, alone, copied, threads
from fldp.simulation.loading import Cohort, LazyPopulation
from fldp.simulation.naming import are_names, check_name, names
from fldp.simulation.objective import Objective, try_out
from fldp.simulation.rehearsal import traits

# A step's factor is a number in single precision.
_MOST_RATE = torch.finfo(torch.float32).max


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
        >>> people = Population(torch.ones(6, 4), torch.arange(6) % 2, [[0, 1], [2, 3], [4, 5]])
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


@_moved.fields(mu="proximal")
@dataclass
class LocalSGD(Algorithm):
    """`epochs` passes of SGD over a client's own records, from the global model.

    Vectorised over clients in bounded chunks, and equal to `torch.optim.SGD` run at each client
    alone: batches of `batch_size` partition the client's own shuffled records, the last one may be
    smaller, and a client that is done takes no further step.

    Rounding: outside the loop, clients of a chunk share kernels, and the last bits of a product
    depend on a kernel's shape. Updates of one client in different cohorts were equal bit for bit in
    most cases tried, and within 4e-7 otherwise; but training that amplifies small differences (20
    epochs of single records at a large rate) moved a sum by 1.13 C where C was due. The statement
    says so. `engine="loop"` trains each client by itself: bit for bit the same in any cohort.

    Parameters
    ----------
    lr : float
        Learning rate of a local step.
    epochs : int
        Passes over a client's own records.
    batch_size : int, optional
        Records in a step. None: all of them at once.
    momentum, weight_decay : float
        As in `torch.optim.SGD`; they start anew at every client.
    proximal : float
        μ, the pull of `FedProx` towards the global model; 0 pulls nowhere.
    schedule : callable, optional
        `schedule(round, epoch)` is a factor on `lr`. None: 1.
    trainable : sequence of str or callable, optional
        Names of what is trained: a parameter, or a module with all that is in it ("layer1" is not
        "layer10"), with `*` and `?` as in file names; or a predicate on the names of parameters.
        None: everything. What the model has frozen stays so. Fewer coordinates get less noise in
        total.
    engine : str
        "auto", "stacked", "vmap" or "loop".
    threads : int, optional
        Torch threads while clients train, and of a whole `train`. None leaves torch's setting.

    Raises
    ------
    ValueError
        For a setting out of range, and for a model whose state one client would leave to the next.

    Examples
    --------
    >>> import fldp
    >>> people = fldp.clients.partition(*fldp.datasets.digits(), clients=100, seed=0)
    >>> local = LocalSGD(lr=0.5, epochs=2, batch_size=8)
    >>> model = local.prepare(nn.Linear(64, 10))
    >>> chunks = local.updates(model, torch.zeros(650), people, ids=range(20))
    >>> torch.cat(list(chunks)).shape
    torch.Size([20, 650])
    """

    lr: float = 0.1
    epochs: int = 1
    batch_size: int | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0
    schedule: Callable[[int, int], float] | None = None
    trainable: Sequence[str] | Callable[[str], bool] | None = None
    engine: str = "auto"
    threads: int | None = 1
    # Whether `_correction` is part of every gradient.
    _corrects: ClassVar[bool] = False
    _shared: bool = field(default=False, init=False, repr=False, compare=False)
    _trained_by: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.lr = real("lr", self.lr)
        if self.lr > _MOST_RATE:
            raise ValueError(f"lr is {self.lr!r}: give a number that single precision holds")
        self.epochs = whole("epochs", self.epochs)
        if self.batch_size is not None:
            self.batch_size = whole("batch_size", self.batch_size)
        self.momentum = self.momentum and real("momentum", self.momentum, 1)
        self.weight_decay = self.weight_decay and real("weight_decay", self.weight_decay)
        self.proximal = self.proximal and real("proximal", self.proximal)
        if self.threads is not None:
            self.threads = whole("threads", self.threads)
        if self.schedule is not None:
            check_takes("schedule", self.schedule, "(round, epoch)", len(("round", "epoch")))
        if isinstance(self.trainable, str):
            self.trainable = [self.trainable]
        if not callable(self.trainable) and not are_names(self.trainable):
            raise ValueError(
                f"trainable is {shown(self.trainable)}: give names of parameters or modules, or a "
                "function of a name"
            )

    def trains(self, name: str) -> bool:
        """Whether `trainable` names the parameter `name`."""
        wanted = self.trainable
        if wanted is None:
            return True
        if callable(wanted):
            try:
                return bool(wanted(name))
            except Exception as error:
                raise ValueError(
                    f"trainable failed on {name!r} ({type(error).__name__}: {error}): give a "
                    "function from the name of a parameter to True or False"
                ) from error
        return any(names(one, name) for one in wanted)

    def prepare(self, model: nn.Module) -> nn.Module:
        """See `Algorithm.prepare`; also refuses a name in `trainable` that trains nothing."""
        for name, module in model.named_modules():
            if hasattr(module, "_orig_mod"):
                raise ValueError(
                    f"layer {name!r} is compiled, for weights of one client: give the module that "
                    "it was compiled from (its _orig_mod), or train in a LocalFunction"
                )
        if self.trainable is not None and not callable(self.trainable):
            for wanted in self.trainable:
                check_name(wanted, model)
        return super().prepare(model)

    def _trainer(self, task: Task, ids: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
        batch = self.batch_size or usual(task.population.sizes_of(ids))
        with threads(self.threads):
            if isinstance(task.population, Cohort):
                # Of clients that are loaded when drawn the labels are known only here.
                self._try_out(task.model, task.flat, task.population)
            targets = task.population.targets
            found = self._engine(task.model, task.flat, task.like, targets, batch)
        return partial(self._rows, task, found.engine), found.together

    def _parts(self, task: Task, ids: Tensor, best: int) -> Sequence[Tensor]:
        """Whole batches are as wide as the largest client: one far larger is not put with many."""
        sizes = task.population.sizes_of(ids)
        wide = usual(sizes)
        if self.batch_size is not None or wide == int(sizes.max()):
            return ids.split(best)
        return ids.split(lengths(sizes.tolist(), best, best * wide))

    def _engine(
        self, model: nn.Module, flat: Tensor, like: Records, targets: Tensor, batch: int
    ) -> Choice:
        extra = not self._plain
        objective = self._objective
        return choose(model, flat, like, targets, objective, batch, self.engine, extra)

    def rehearse(self, model: nn.Module, flat: Tensor, population: Population) -> None:
        """Choose the engine, and note whether clients share its kernels: see `limits`."""
        with threads(self.threads):
            self._try_out(model, flat, population)
            like = self.form(model, flat, population)
            found = self._engine(model, flat, like, population.targets, 1)
        self._shared = not found.engine.single
        self._trained_by = str(found)

    def trained_by(self) -> str:
        """See `Algorithm.trained_by`."""
        return self._trained_by

    def limits(self) -> str:
        """What shared kernels do to the last bits of an update."""
        if not self._shared:
            return ""
        return (
            "Rounding: clients of a round were trained in shared kernels. The last bits of an "
            "update can depend on who else is in the round, and long local training can magnify "
            "that, which is not covered; engine='loop' trains each client alone."
        )

    def _rows(self, task: Task, engine: Engine, ids: Tensor) -> Tensor:
        """The rows (c, width) of clients `ids`."""

        def train(client: int) -> Tensor:
            engine.renew()
            return self._descend(task, engine, torch.tensor([client]))[0]

        with _told_as_ours():
            if engine.single:
                moved = one_by_one(train, task, self.threads, ids)
            else:
                with threads(self.threads):
                    engine.renew()
                    moved = self._descend(task, engine, ids)
        return self._finish(moved, task.population.sizes_of(ids), ids, task.round)

    @property
    def _plain(self) -> bool:
        """Whether a step is w -= lr * gradient and nothing else."""
        return not (self.momentum or self.weight_decay or self.proximal or self._corrects)

    def _correction(self, flat: Tensor, ids: Tensor) -> Tensor | None:
        """What is added to every gradient of clients `ids`, (c, d)."""
        return None

    def _finish(self, moved: Tensor, sizes: Tensor, ids: Tensor, round: int) -> Tensor:
        """The rows (c, width) of clients that moved by `moved` (c, d)."""
        return moved

    def rate(self, round: int, epoch: int) -> float:
        """The learning rate in an epoch of a round, both counted from 0.

        Parameters
        ----------
        round, epoch : int
            Counted from 0.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            Where `schedule` gives no finite number.
        """
        if self.schedule is None:
            return self.lr
        try:
            found = self.lr * float(self.schedule(round, epoch))
        except Exception as error:
            raise ValueError(
                f"schedule({round}, {epoch}) failed ({type(error).__name__}: {error}): give a "
                "function from the numbers of a round and an epoch to a factor"
            ) from error
        if not abs(found) <= _MOST_RATE:
            raise ValueError(
                f"schedule({round}, {epoch}) gives a rate of {found}: give a finite one"
            )
        return found

    def begin(self, population: Population, rounds: int, rate: float) -> None:
        """See `Algorithm.begin`; asks `schedule` for every round before the first."""
        super().begin(population, rounds, rate)
        for number in range(rounds if self.schedule else 0):
            for epoch in range(self.epochs):
                self.rate(number, epoch)

    def _descend(self, task: Task, engine: Engine, ids: Tensor) -> Tensor:
        """How far the weights of clients `ids` move (c, d)."""
        # Largest client first: the clients that still have a batch are a prefix, without a copy.
        ordered, largest = task.population.sizes_of(ids).sort(descending=True, stable=True)
        clients = ids[largest]
        sizes = ordered.tolist()
        records = task.population.listed(clients)
        begin = ordered.cumsum(0) - ordered
        descent = Descent(self, task, engine, clients)
        batch = self.batch_size or sizes[0]
        for epoch in range(self.epochs):
            order = records
            if batch < sizes[0]:
                order = shuffled(task, clients, records, ordered, batch, epoch)
            rate = self.rate(task.round, epoch)
            for step in batches(task, order, begin, sizes, batch):
                descent.step(step, rate, epoch)
        moved = descent.weights.sub_(task.flat)
        if sizes[0] == sizes[-1]:
            return moved
        return moved[largest.argsort().to(moved.device)]


@contextmanager
def _told_as_ours() -> Iterator[None]:
    """A block in which what model and loss raise on clients' records becomes a ValueError."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise ValueError(
            f"model or loss failed on clients' records ({type(error).__name__}: {first_line}), as "
            "told above, such as on words beyond the vocabulary: repair them, or leave such "
            "records out; whether and how it fails is as private as the data"
        ) from error


@_moved.fields(mu="proximal")
@dataclass
class FedProx(LocalSGD):
    """LocalSGD plus the gradient of μ/2 · ‖w − w_global‖² (Li et al. 2020): less client drift.

    Parameters
    ----------
    proximal : float
        μ, at least 0.
    lr, epochs, batch_size, momentum, weight_decay, schedule, trainable, engine, threads
        As for `LocalSGD`.

    Examples
    --------
    >>> FedProx(lr=0.5, epochs=5, proximal=1.0).proximal
    1.0
    """

    proximal: float = 0.01


if not TYPE_CHECKING:
    _OLD_NAMES = {
        "BringYourOwn": "simulation.own.LocalFunction",
        "LocalFunction": "simulation.own.LocalFunction",
        "Scaffold": "simulation.scaffold.Scaffold",
    }

    def __getattr__(name: str) -> Any:
        return _moved.find(__name__, name, _OLD_NAMES)
