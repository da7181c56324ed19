"""What a client does in a round: local SGD, FedProx, SCAFFOLD, partial training, your own loop.

At the client level nothing here changes the account: the update is clipped whatever produced it.
Epochs, batches, learning rates and client sizes are a matter of utility alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor, nn

from fldp._checks import real, whole
from fldp.mechanism.updates import Shapes, load_, shapes, views
from fldp.simulation.clients import Population
from fldp.simulation.draws import Draws
from fldp.simulation.engines import check_model, choose
from fldp.simulation.isolation import Template, alone, threads, traits

# A shuffle's counter has room for this many words of a client in an epoch.
_EPOCH = 1 << 32
_TOGETHER = 16  # clients of one chunk where each trains by itself
_LAST = torch.iinfo(torch.int64).max  # sorts after every word: padding


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

    def rehearse(self, model: nn.Module, flat: Tensor, population: Population) -> None:
        """Try the prepared model on made-up records; ValueError if clients would reach another."""
        traits(model, Template(model), tuple(population.x.shape[1:]), flat)

    def statement(self) -> str:
        """What the algorithm itself guarantees, beside the plan: most guarantee nothing."""
        return ""

    def limits(self) -> str:
        """What this algorithm, as it was rehearsed, adds to what the plan does not cover."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after `state_dict`; most algorithms keep no state."""


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
    mu : float
        The pull of `FedProx` towards the global model.
    schedule : callable, optional
        `schedule(round, epoch)` is a factor on `lr`.
    trainable : sequence of str or callable, optional
        Name prefixes, or a predicate on names, of what is trained. None: everything. Fewer
        coordinates get less noise in total.
    engine : str
        "auto", "stacked", "vmap" or "loop".
    threads : int, optional
        Torch threads while clients train, and of a whole `train`. None leaves torch's setting.

    Raises
    ------
    ValueError
        For a setting out of range, and for a model whose state one client would leave to the next.
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
    _shared: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.lr, self.epochs = real("lr", self.lr), whole("epochs", self.epochs)
        if self.batch_size is not None:
            self.batch_size = whole("batch_size", self.batch_size)
        self.momentum = self.momentum and real("momentum", self.momentum, 1)
        self.weight_decay = self.weight_decay and real("weight_decay", self.weight_decay)
        self.mu = self.mu and real("mu", self.mu)

    def trains(self, name: str) -> bool:
        wanted = self.trainable
        if wanted is None or callable(wanted):
            return wanted is None or bool(wanted(name))
        return name.startswith(tuple(wanted))

    def updates(
        self, model: nn.Module, flat: Tensor, population: Population, ids: Tensor | Sequence[int],
        draws: Draws | Generator | None = None, *, chunk: int | None = None, round: int = 0,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Updates Δw of clients `ids` from the global vector `flat` (d,), in chunks (c, width).

        `draws` is the run's keyed stream (None: the operating system), `round` its round.
        """
        check_model(model)
        layout, ids = shapes(model), torch.as_tensor(ids, dtype=torch.long)
        views(flat, layout)
        odd = [name for name, _, _ in layout if not self.trains(name)]
        if odd:
            raise ValueError(f"{odd[0]!r} is not to be trained: call prepare(model), then flatten")
        if len(ids) == 0:
            return iter(())
        keyed = Draws.of(draws)
        batch = self.batch_size or int(population.sizes[ids].max())
        with threads(self.threads):
            engine, best = self._engine(model, flat, population, batch)
        train = self._one_by_one if engine.single else self._together
        return (
            self._finish(
                train(engine, layout, population, flat, part, keyed, round),
                population.sizes[part], part, round,
            )
            for part in ids.split(chunk or best)
        )  # fmt: skip

    def _engine(self, model: nn.Module, flat: Tensor, population: Population, batch: int) -> Any:
        shape = tuple(population.x.shape[1:])
        return choose(model, flat, shape, batch, self.engine, not self._plain)

    def rehearse(self, model: nn.Module, flat: Tensor, population: Population) -> None:
        with threads(self.threads):
            self._shared = not self._engine(model, flat, population, 1)[0].single

    def limits(self) -> str:
        if not self._shared:
            return ""
        return (
            "Rounding: clients of a round were trained in shared kernels. The last bits of an "
            "update can depend on who else is in the round, and long local training can magnify "
            "that, which is not covered; engine='loop' trains each client alone."
        )

    def _together(self, engine: Any, layout: Any, people: Population, *task: Any) -> Tensor:
        with threads(self.threads):
            engine.renew()
            return self._descend(engine, layout, people, *task)

    def _one_by_one(
        self, engine: Any, layout: Any, people: Population, flat: Tensor, ids: Tensor,
        draws: Draws, round: int,
    ) -> Tensor:  # fmt: skip
        rows = []
        seeds = draws.seeds(round, ids.numpy())
        with threads(self.threads), alone(flat.device) as start:
            for one, value in zip(ids.split(1), seeds, strict=True):
                engine.renew()
                start(value)
                rows.append(self._descend(engine, layout, people, flat, one, draws, round))
        return torch.cat(rows)

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

    def _order(
        self, rows: Tensor, mask: Tensor, ids: Tensor, draws: Draws, round: int, epoch: int
    ) -> Tensor:
        """Each client's records, a row each, in the order of its own shuffle; padding last.

        Who needs one batch keeps its order, whatever the others need.
        """
        words = draws.words("shuffle", round, ids.numpy(), rows.shape[1], epoch * _EPOCH)
        keys = torch.from_numpy((words >> np.uint64(1)).view(np.int64))
        shuffled = rows.gather(1, keys.masked_fill_(~mask, _LAST).argsort(1))
        several = mask.sum(1, keepdim=True) > (self.batch_size or rows.shape[1])
        return torch.where(several, shuffled, rows)

    def _descend(
        self, engine: Any, layout: Any, population: Population, flat: Tensor, ids: Tensor,
        draws: Draws, round: int,
    ) -> Tensor:  # fmt: skip
        # Largest client first: the clients that still have a batch are a prefix, without a copy.
        ordered, largest = population.sizes[ids].sort(descending=True, stable=True)
        sizes, (rows, mask) = ordered.tolist(), population.rows(ids[largest])
        weights = flat.detach().expand(len(ids), -1).clone()
        gradients = None if self._plain else torch.empty_like(weights)
        own = views(weights, layout)
        target = views(weights.data if gradients is None else gradients, layout)
        velocity = torch.zeros_like(weights) if self.momentum else None
        correction = self._correction(flat, ids[largest])
        batch = self.batch_size or sizes[0]
        for epoch in range(self.epochs):
            order, rate = rows, self.rate(round, epoch)
            if batch < sizes[0]:
                order = self._order(rows, mask, ids[largest], draws, round, epoch)
            for start in range(0, sizes[0], batch):
                left = [min(size - start, batch) for size in sizes if size > start]
                k, wide = len(left), left[0]
                share = flat.new_full((k, wide), 1 / wide)
                picked = order[:k, start : start + wide]
                if left[-1] < wide:
                    counts = torch.tensor(left).unsqueeze(1)
                    inside = torch.arange(wide) < counts
                    share = inside.to(flat) / counts.to(flat)
                    # Another record might overflow here, and 0 · NaN is NaN: with a larger client
                    # in the chunk, and so with padding, this client's update would be lost.
                    picked = torch.where(inside, picked, picked[:, :1])
                picked = picked.to(population.device)
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

    The update is whatever changed in the trainable parameters. Every client gets a copy of the
    model (and of `fn`, where that is an object): what `fn` leaves on them is there for nobody else.
    The global random numbers of torch, numpy and Python are seeded per client from the run's draws
    while `fn` runs, so results do not depend on the order. What `fn` keeps elsewhere, in a global
    or a closure, is out of reach, and no account covers what clients share.

    Raises
    ------
    ValueError
        Where `fn` takes a trainable parameter away, so that there is no update to send.
    """

    fn: Callable[[nn.Module, Tensor, Tensor], Any]
    threads: int | None = 1

    def updates(
        self, model: nn.Module, flat: Tensor, population: Population, ids: Tensor | Sequence[int],
        draws: Draws | Generator | None = None, *, chunk: int | None = None, round: int = 0,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Updates of clients `ids`, `chunk` at a time (16 by default)."""
        check_model(model)
        self.rehearse(model, flat, population)
        template, keyed, layout = Template(model), Draws.of(draws), shapes(model)
        for part in torch.as_tensor(ids, dtype=torch.long).split(chunk or _TOGETHER):
            if len(part) == 0:
                continue
            rows = []
            seeds = keyed.seeds(round, part.numpy())
            with threads(self.threads), alone(flat.device) as start:
                for i, value in zip(part.tolist(), seeds, strict=True):
                    start(value)
                    rows.append(self._one(template, layout, flat, population, i))
            yield torch.stack(rows)

    def _one(
        self, template: Template, layout: Shapes, flat: Tensor, population: Population, i: int
    ) -> Tensor:
        own, fn = load_(template.fresh(), flat), copy.deepcopy(self.fn)
        x, y = population.client(i)
        fn(own, x.to(flat.device), y.to(flat.device))
        after = dict(own.named_parameters())
        for name, shape, _ in layout:
            if name not in after or after[name].shape != shape:
                raise ValueError(
                    f"fn left no {name!r} of its shape in the model: train the parameters that are "
                    "there, and undo wrappers and parametrizations before fn returns"
                )
        return torch.cat([after[n].detach().reshape(-1) for n, _, _ in layout]) - flat
