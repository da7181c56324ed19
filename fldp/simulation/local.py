"""What a client does in a round: local SGD, FedProx, partial training, your own loop.

At the client level nothing here changes the account: the update is clipped whatever produced it.
Epochs, batches, learning rates and client sizes are a matter of utility alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from fldp import _moved
from fldp._checks import check_takes, real, shown, whole
from fldp.simulation.algorithm import Algorithm, Task, one_by_one
from fldp.simulation.batching import batches, lengths, shuffled, usual
from fldp.simulation.choice import Choice, choose
from fldp.simulation.clients import Population
from fldp.simulation.descent import Descent
from fldp.simulation.engines import Engine
from fldp.simulation.inputs import Records
from fldp.simulation.isolation import threads
from fldp.simulation.loading import Cohort
from fldp.simulation.naming import are_names, check_name, names

# A step's factor is a number in single precision.
_MOST_RATE = torch.finfo(torch.float32).max


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
