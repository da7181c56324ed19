"""Record-level DP-SGD inside the clients, by Opacus, as a local algorithm of the same round loop.

The baseline at the level of gradients: noise in every local step, a guarantee for every record, and
none for a client as a whole. Compare it with noise on the update at the same work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Generator, Tensor, nn

from fldp._checks import real, shown, whole
from fldp.mechanism.noise import gaussian_
from fldp.mechanism.updates import load_
from fldp.plan.records import RecordPlan
from fldp.simulation.algorithm import Algorithm, Task, one_by_one
from fldp.simulation.checkpoint import State
from fldp.simulation.clients import Population
from fldp.simulation.engines import in_turn
from fldp.simulation.inputs import call, each, leaves, made_up, take
from fldp.simulation.isolation import Template
from fldp.simulation.persample import (
    RECORDS,
    check_layers,
    check_rows,
    mean_of_each,
    quiet,
    settled,
    wrapped,
)

# How far a rate may lie above the accounted one by rounding.
_ROUNDING = 1e-9
# Of a random word.
_WORD_BYTES = 8


class _Optimizer(DPOptimizer):
    """Opacus' optimiser with our noise: torch's own generator is neither secret nor secure."""

    def clip_and_accumulate(self) -> None:
        """As Opacus does it, without what is not finite."""
        for p in self.params:  # a gradient that overflowed would pass the clip as NaN
            if isinstance(p.grad_sample, Tensor):
                p.grad_sample = torch.nan_to_num(p.grad_sample, 0.0, 0.0, 0.0)
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Noise z·C on the sum of every parameter's clipped gradients."""
        std = self.noise_multiplier * self.max_grad_norm
        for p in self.params:
            p.grad = gaussian_(p.summed_grad.contiguous(), std, self.generator).view_as(p)


@dataclass
class DPSGD(Algorithm):
    """DP-SGD on a client's own records, as `records` accounts it: Opacus in a federated loop.

    Guarantee: that of `records.statement()`, for every record, against the server and everybody
    after it. Nothing at the client level: no noise is added to updates. Epochs, batch size and
    noise are the plan's. A step takes each of the client's n records by its own coin at rate
    1/ceil(n/batch_size) (empty batches are noise alone), clips gradients to `max_grad_norm` C,
    adds noise z·C to their sum and divides it by `batch_size`, whatever the batch drawn.

    Coins and noise come from the operating system; with `generator` they are reproducible, whoever
    knows its seed can subtract the noise, and `history.statement` says so. A client that has served
    `records.participations` rounds sends zeros from then on. A round that a crash cut off runs
    again after a resume; the statement then says that what it sent before is not accounted.

    Parameters
    ----------
    records : RecordPlan
        What is accounted.
    lr : float
        Learning rate of a local step.
    max_grad_norm : float
        C, the clip norm of one record's gradient.
    generator : torch.Generator, optional
        For reproducible coins and noise. None: both from the operating system.
    threads : int, optional
        Torch threads while clients train, and of a whole `train`. None leaves torch's setting.

    Raises
    ------
    ValueError
        Where clients, rounds or sampling rate are not those that were accounted.

    Examples
    --------
    >>> import fldp
    >>> x, y = fldp.datasets.digits()
    >>> people = fldp.clients.partition(x, y, clients=30, seed=0)
    >>> plan = fldp.calibrate_records(epsilon=8.0, delta=1e-5, rounds=2,
    ...                               local_epochs=1, batch_size=20,
    ...                               client_sizes=people.sizes)
    >>> history = fldp.train(nn.Linear(64, 10), people, None, clip=None, rounds=2,
    ...                      local=DPSGD(plan, lr=1.0))
    >>> print(history.statement.splitlines()[-1])
    Client level: this run guarantees nothing.
    """

    records: RecordPlan
    lr: float = 0.1
    max_grad_norm: float = 1.0
    generator: Generator | None = None
    threads: int | None = 1
    _served: Tensor | None = field(default=None, init=False, repr=False)
    _resumed: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.lr = real("lr", self.lr)
        self.max_grad_norm = real("max_grad_norm", self.max_grad_norm)
        if not isinstance(self.records, RecordPlan):
            raise ValueError(f"records is {shown(self.records)}: give fldp.calibrate_records(...)")
        if self.threads is not None:
            self.threads = whole("threads", self.threads)

    def prepare(self, model: nn.Module) -> nn.Module:
        """See `Algorithm.prepare`; a model that Opacus has wrapped already is refused."""
        if isinstance(model, GradSampleModule) or hasattr(model, "autograd_grad_sample_hooks"):
            raise ValueError("the model carries Opacus' hooks already: give the plain nn.Module")
        model = super().prepare(model)
        check_layers(model)
        return model

    def rehearse(self, model: nn.Module, flat: Tensor, population: Population) -> None:
        """Also: whether Opacus' gradients are those of single records; see `check_rows`."""
        super().rehearse(model, flat, population)
        check_layers(model)
        self._try_out(model, flat, population)
        like = self.form(model, flat, population)
        # Within (0, 1), as most inputs are.
        x = each(torch.abs, made_up(like, RECORDS))
        y = leaves(made_up(population.targets, RECORDS))[0].abs().to(flat.device)

        def loss(tried: nn.Module, records: list[int]) -> Tensor:
            return mean_of_each(self._objective, call(tried, take(x, records)), y[records])

        check_rows(Template(model), loss, flat.device)

    def begin(self, population: Population, rounds: int, rate: float) -> None:
        """Refuse a run that the plan does not account for.

        Parameters
        ----------
        population : Population
            The clients, of the sizes that were accounted.
        rounds : int
            At most the plan's.
        rate : float
            At which clients take part, at most the plan's.

        Raises
        ------
        ValueError
            It names what was not accounted.
        """
        plan = self.records
        again = "calibrate_records for the run that takes place"
        accounted = plan.client_sampling_rate
        if rounds > plan.rounds:
            raise ValueError(f"rounds is {rounds}, records accounts for {plan.rounds}: {again}")
        if rate > accounted * (1 + _ROUNDING):
            raise ValueError(
                f"clients take part at rate {rate:g}, accounted is {accounted:g}: {again}"
            )
        steps = -(-population.sizes.numpy() // plan.batch_size)
        if not np.array_equal(steps, plan.steps_per_epoch):
            raise ValueError(
                f"records accounts for {len(plan.epsilons)} clients of other sizes: "
                "calibrate_records with client_sizes=population.sizes"
            )
        if self._served is None:
            self._served = torch.zeros(len(population), dtype=torch.long)

    def _trainer(self, task: Task, ids: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
        # The run's draws seed what layers draw, such as dropout; coins and noise are our own.
        self.begin(task.population, 1, 0.0)
        self.rehearse(task.model, task.flat, task.population)
        train = partial(self._one, Template(task.model), task)
        return partial(one_by_one, train, task, self.threads), in_turn(task.flat)

    def _one(self, template: Template, task: Task, i: int) -> Tensor:
        """The update (d,) of client i; zeros once it has served its rounds."""
        assert self._served is not None
        if self._served[i] >= self.records.participations:
            return torch.zeros_like(task.flat)
        self._served[i] += 1
        # A wrapped copy each: hooks and state would pass from client to client.
        own = wrapped(load_(template.fresh(), task.flat))
        trained = [p for p in own.parameters() if p.requires_grad]
        try:
            self._descend(own, trained, task, i)
        except Exception as error:
            raise ValueError(
                f"DP-SGD failed with {type(error).__name__} while it trained a client, as told "
                "above; whether and how it fails is as private as the data"
            ) from error
        return torch.cat([p.detach().reshape(-1) for p in trained]) - task.flat

    # Opacus keeps `grad_sample` on a parameter, which torch's type does not know.
    def _descend(self, own: nn.Module, trained: list[Any], task: Task, i: int) -> None:
        plan = self.records
        x, y = task.records(i)
        steps = int(plan.steps_per_epoch[i])
        optimiser = _Optimizer(
            torch.optim.SGD(trained, lr=self.lr),
            noise_multiplier=float(plan.noise_multipliers[i]),
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=plan.batch_size,
            generator=self.generator,
        )
        with quiet():
            for _ in range(plan.local_epochs * steps):
                optimiser.zero_grad()
                if picked := self._coins(len(y), steps).nonzero().flatten().tolist():
                    loss = mean_of_each(task.objective, call(own, take(x, picked)), y[picked])
                    loss.backward()
                    if not settled(trained, len(picked)):
                        raise ValueError("a layer did not see each record of a batch once")
                else:  # many layers cannot run on an empty batch; noise is due all the same
                    for p in trained:
                        p.grad_sample = p.new_zeros(0, *p.shape)
                optimiser.step()

    def _coins(self, n: int, rate: int) -> Tensor:
        """Which of n records take part in a step: each alone, with probability 1/rate."""
        if self.generator is None:
            drawn = np.frombuffer(os.urandom(_WORD_BYTES * n), np.uint64)
            return torch.from_numpy(drawn <= np.uint64(2 ** (8 * _WORD_BYTES) // rate - 1))
        where = self.generator.device
        return torch.rand(n, generator=self.generator, device=where).cpu() < 1 / rate

    def statement(self) -> str:
        """What the run guarantees, per record, and that clients get no guarantee from it."""
        told = self.records.statement()
        if self.generator is not None:
            told += "\nReproducible noise: none of this holds against whoever knows the seed."
        if self._resumed:
            told += "\nResumed: what was sent in a round that was cut off is not accounted."
        return told

    def state_dict(self) -> State:
        """Who has served, and the generator's state; as private as the data."""
        drawn = None if self.generator is None else self.generator.get_state()
        return {"served": self._served, "drawn": drawn, "account": self.records.statement()}

    def load_state_dict(self, state: State) -> None:
        """Resume after `state_dict`; ValueError for the state of another plan."""
        if state["account"] != self.records.statement():
            raise ValueError("the checkpoint is that of another RecordPlan: give a new path")
        self._served = state["served"]
        self._resumed = self.generator is None
        if self.generator is not None:
            self.generator.set_state(state["drawn"].cpu())
