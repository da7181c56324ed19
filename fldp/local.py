"""What a client does in a round: local SGD, FedProx, SCAFFOLD, partial training, your own loop.

At the client level nothing here changes the account: the update is clipped whatever produced it.
Epochs, batches, learning rates and client sizes are a matter of utility alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from fldp.checks import real, whole
from fldp.clients import Population
from fldp.engines import check_model, choose
from fldp.parameters import load_, shapes, views
from fldp.workers import Workers, draw_seed, seeded, threads


@dataclass
class Algorithm:
    """Base class of local algorithms: what the round loop calls.

    `prepare(model)` before the model is flattened, `updates(...)` for the cohort's update matrix in
    chunks, `width(d)` for its number of columns, and `absorb(mean, rate)` on the noisy mean, which
    returns the part that the server optimiser steps along. `remembers`: a client's update depends
    on its own earlier rounds, which is accounted only if clients are drawn independently.
    """

    remembers: ClassVar[bool] = False

    def trains(self, name: str) -> bool:
        """Whether the parameter `name` is trained; the others are no part of the update."""
        return True

    def prepare(self, model: nn.Module) -> nn.Module:
        """Freeze what this algorithm does not train, in place, and check the model."""
        check_model(model)
        for name, parameter in model.named_parameters():
            if not self.trains(name):
                parameter.requires_grad_(False)
        if not shapes(model):
            raise ValueError(f"{self} leaves nothing to train: name trainable parameters")
        return model

    def width(self, d: int) -> int:
        return d

    def absorb(self, mean: Tensor, rate: float = 1.0) -> Tensor:
        return mean

    def begin(self, population: Population, rounds: int, rate: float) -> None:
        """Refuse a run that this algorithm must not take part in; most take part in any."""

    def statement(self) -> str:
        """What the algorithm itself guarantees, beside the plan: most guarantee nothing."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after `state_dict`; most algorithms keep no state."""


@dataclass
class LocalSGD(Algorithm):
    """`epochs` passes of SGD over a client's own records, from the global model.

    Vectorised over clients in bounded chunks, and equal to `torch.optim.SGD` run at each client
    alone: batches of `batch_size` (None: all records at once) partition the client's own shuffled
    records, the last one may be smaller, and a client that is done takes no further step. Results
    do not depend on the chunk size. `schedule(round, epoch)` is a factor on `lr`; `mu` is the pull
    of `FedProx`. `trainable` (name prefixes, or a predicate on names) trains a part of the model:
    fewer coordinates, less noise in total. `engine` is "auto", "stacked", "vmap" or "loop".
    `threads`: torch threads while clients train. `workers`: processes, for several idle cores.
    """

    lr: float = 0.1
    epochs: int = 1
    batch_size: int | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    mu: float = 0.0
    schedule: Callable[[int, int], float] | None = None
    trainable: Sequence[str] | Callable[[str], bool] | None = None
    engine: str = "auto"
    threads: int | None = 1
    workers: int = 0
    _workers: ClassVar[Any] = None

    def __post_init__(self) -> None:
        self.lr, self.epochs = real("lr", self.lr), whole("epochs", self.epochs)
        self.workers = whole("workers", self.workers, 0)
        if self.workers and self.threads != 1:
            raise ValueError(f"threads is {self.threads}: worker processes take one thread each")
        if self.batch_size is not None:
            self.batch_size = whole("batch_size", self.batch_size)
        self.momentum = self.momentum and real("momentum", self.momentum, 1)
        self.weight_decay = self.weight_decay and real("weight_decay", self.weight_decay)
        self.mu = self.mu and real("mu", self.mu)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_workers"}

    def trains(self, name: str) -> bool:
        wanted = self.trainable
        if wanted is None or callable(wanted):
            return wanted is None or bool(wanted(name))
        return name.startswith(tuple(wanted))

    def updates(
        self, model: nn.Module, flat: Tensor, population: Population, ids: Tensor | Sequence[int],
        generator: Generator | None = None, *, chunk: int | None = None, round: int = 0,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Updates Δw of clients `ids` from the global vector `flat` (d,), in chunks (c, width)."""
        check_model(model)
        layout, ids = shapes(model), torch.as_tensor(ids, dtype=torch.long)
        views(flat, layout)
        odd = [name for name, _, _ in layout if not self.trains(name)]
        if odd:
            raise ValueError(f"{odd[0]!r} is not to be trained: call prepare(model), then flatten")
        if len(ids) == 0:
            return iter(())
        width, seed = int(population.sizes[ids].max()), draw_seed(generator)
        with threads(self.threads):
            engine, best = self._engine(model, flat, population, self.batch_size or width)
        parts = ids.split(1 if engine.random else chunk or best)

        def tasks() -> Iterator[tuple[Any, ...]]:
            # Two streams of our own: neither chunks nor engines change what a client draws.
            shuffles, seeds = Generator().manual_seed(seed), Generator().manual_seed(seed + 1)
            for part in parts:
                keys = None
                if self.batch_size is not None and self.batch_size < width:
                    keys = torch.rand(len(part), self.epochs, width, generator=shuffles)
                yield flat, part, keys, self._correction(flat, part), draw_seed(seeds), round

        if self.workers:
            key = (repr(self), id(model), id(population))
            if self._workers is None or self._workers.key != key:
                if population.device.type != "cpu":
                    raise ValueError(f"workers need data on the CPU, not on {population.device}")
                self._workers = Workers(self.workers, key, self, model, population)  # type: ignore[misc]
            done = self._workers.run(tasks())
        else:
            done = (self.work(model, population, *task, engine=engine) for task in tasks())
        return (
            self._finish(moved, population.sizes[part], part, round)
            for part, moved in zip(parts, done, strict=True)
        )

    def work(self, model: nn.Module, people: Population, *task: Any, engine: Any = None) -> Tensor:
        """Train one chunk of clients: what a worker process calls."""
        engine = engine or self._engine(model, task[0], people, 1)[0]
        draws = seeded(task[4], task[0].device) if engine.random else nullcontext()
        with threads(self.threads), draws:
            return self._descend(engine, shapes(model), people, *task)

    def _engine(self, model: nn.Module, flat: Tensor, population: Population, batch: int) -> Any:
        return choose(model, flat, population.x[:1], batch, self.engine, not self._plain)

    @property
    def _plain(self) -> bool:
        """Whether a step is w -= lr * gradient and nothing else."""
        return not (self.momentum or self.weight_decay or self.mu or isinstance(self, Scaffold))

    def _correction(self, flat: Tensor, ids: Tensor) -> Tensor | None:
        return None

    def _finish(self, moved: Tensor, sizes: Tensor, ids: Tensor, round: int) -> Tensor:
        return moved

    def rate(self, round: int, epoch: int) -> float:
        return self.lr * (self.schedule(round, epoch) if self.schedule else 1.0)

    def _descend(self, engine: Any, layout: Any, population: Population, *task: Any) -> Tensor:
        flat, ids, keys, correction, _, round = task
        # Largest client first: the clients that still have a batch are a prefix, without a copy.
        ordered, largest = population.sizes[ids].sort(descending=True, stable=True)
        sizes, (rows, mask) = ordered.tolist(), population.rows(ids[largest])
        weights = flat.detach().expand(len(ids), -1).clone()
        gradients = None if self._plain else torch.empty_like(weights)
        own = views(weights, layout)
        target = views(weights.data if gradients is None else gradients, layout)
        velocity = torch.zeros_like(weights) if self.momentum else None
        if correction is not None:
            correction = correction[largest.to(flat.device)]
        batch = self.batch_size or sizes[0]
        for epoch in range(self.epochs):
            order, rate = rows, self.rate(round, epoch)
            if keys is not None:
                drawn = keys[largest, epoch, : sizes[0]].masked_fill_(~mask, 2.0)
                order = rows.gather(1, drawn.argsort(1))
            for start in range(0, sizes[0], batch):
                left = [min(size - start, batch) for size in sizes if size > start]
                k, wide = len(left), left[0]
                share = flat.new_full((k, wide), 1 / wide)
                if left[-1] < wide:
                    counts = torch.tensor(left, device=flat.device).unsqueeze(1)
                    share = (torch.arange(wide, device=flat.device) < counts).to(flat) / counts
                picked = order[:k, start : start + wide].to(population.device)
                x, y = population.x[picked].to(flat), population.y[picked].to(flat.device)
                p, into = ({n: v[:k] for n, v in part.items()} for part in (own, target))
                if gradients is None:
                    engine.accumulate(p, into, -rate, x, y, share)
                    continue
                g, w = gradients[:k].zero_(), weights[:k]
                engine.accumulate(p, into, 1.0, x, y, share)
                if correction is not None:
                    g.add_(correction[:k])
                if self.mu:
                    g.add_(w, alpha=self.mu).add_(flat, alpha=-self.mu)
                if self.weight_decay:
                    g.add_(w, alpha=self.weight_decay)
                if velocity is not None:
                    g = velocity[:k].mul_(self.momentum).add_(g)
                w.add_(g, alpha=-rate)
        moved = weights.sub_(flat)
        return moved if sizes[0] == sizes[-1] else moved[largest.argsort().to(flat.device)]


@dataclass
class FedProx(LocalSGD):
    """LocalSGD plus the gradient of mu/2 · ‖w − w_global‖² (Li et al. 2020): less client drift."""

    mu: float = 0.01


@dataclass
class Scaffold(LocalSGD):
    """LocalSGD with control variates against client drift (Karimireddy et al. 2020, option II).

    A row of the update matrix is (Δw, s·Δc), width 2d: both vectors pass one joint clip and one
    noise, so the account is that of any other update. `absorb` takes the noisy mean apart: the
    first half is for the server optimiser, the second moves the server's control, on the server.
    Clients keep their own controls; they never leave, except through the clip. The public factor
    `control_scale` s balances the halves (None: lr · epochs; with full batches they then start
    equally long). The noise stays in the server's control and adds up over t rounds, to
    √t · zC / (N·s): a larger s leaves less of it, and less of the clip to Δw.
    """

    remembers: ClassVar[bool] = True
    control_scale: float | None = None
    control: Tensor | None = field(default=None, init=False, repr=False)
    own: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum:
            raise ValueError("Scaffold's control needs plain steps: set momentum=0")
        scale = self.lr * self.epochs if self.control_scale is None else self.control_scale
        self.control_scale = real("control_scale", scale)

    def width(self, d: int) -> int:
        return 2 * d

    def absorb(self, mean: Tensor, rate: float = 1.0) -> Tensor:
        """Split the noisy mean (2d,); `rate` is m/N, the share of the controls that moved."""
        step, control = mean.chunk(2)
        before = torch.zeros_like(control) if self.control is None else self.control
        self.control = before + control * (rate / float(self.control_scale or 1))
        return step

    def _correction(self, flat: Tensor, ids: Tensor) -> Tensor | None:
        zero = torch.zeros_like(flat)
        shared = zero if self.control is None else self.control
        return shared - torch.stack([self.own.get(i, zero) for i in ids.tolist()])

    def _finish(self, moved: Tensor, sizes: Tensor, ids: Tensor, round: int) -> Tensor:
        steps = torch.ones_like(sizes) if self.batch_size is None else -(-sizes // self.batch_size)
        total = sum(self.rate(round, epoch) for epoch in range(self.epochs))
        change = moved / (steps.to(moved) * -total).unsqueeze(1)
        if self.control is not None:
            change -= self.control
        finite = torch.isfinite(change).all(dim=1).tolist()
        for i, row, usable in zip(ids.tolist(), change, finite, strict=True):
            if usable:
                self.own[i] = self.own[i] + row if i in self.own else row.clone()
        return torch.cat([moved, change.mul_(float(self.control_scale or 1))], 1)

    def state_dict(self) -> dict[str, Any]:
        return {"control": self.control, "own": dict(self.own)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.control, self.own = state["control"], dict(state["own"])


@dataclass
class BringYourOwn(Algorithm):
    """Any training code: `fn(model, x, y)` trains the torch model in place on a client's records.

    The update is whatever changed in the trainable parameters. Torch's global random numbers are
    seeded per client from the generator while `fn` runs, so results do not depend on the order.
    `fn` may keep nothing of one client for another: no account covers what clients share.
    """

    fn: Callable[[nn.Module, Tensor, Tensor], Any]
    threads: int | None = 1

    def updates(
        self, model: nn.Module, flat: Tensor, population: Population, ids: Tensor | Sequence[int],
        generator: Generator | None = None, *, chunk: int | None = None, round: int = 0,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Updates of clients `ids`, `chunk` at a time (16 by default)."""
        check_model(model)
        names = [name for name, _, _ in shapes(model)]
        ids, size = torch.as_tensor(ids, dtype=torch.long), chunk or 16
        own = copy.deepcopy(model)
        start = {k: v.clone() for k, v in model.state_dict().items()}
        for first in range(0, len(ids), size):
            rows = []
            for i in ids[first : first + size].tolist():
                own.load_state_dict(start)
                load_(own, flat).train().zero_grad()
                x, y = population.client(i)
                with threads(self.threads), seeded(draw_seed(generator), flat.device):
                    self.fn(own, x.to(flat.device), y.to(flat.device))
                after = dict(own.named_parameters())
                rows.append(torch.cat([after[n].detach().reshape(-1) for n in names]) - flat)
            yield torch.stack(rows)
