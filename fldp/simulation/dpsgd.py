"""Record-level DP-SGD inside the clients, by Opacus, as a local algorithm of the same round loop.

The baseline at the level of gradients: noise in every local step, a guarantee for every record, and
none for a client as a whole. Compare it with noise on the update at the same work.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Generator, Tensor, nn

from fldp._checks import real
from fldp.mechanism.noise import gaussian_
from fldp.mechanism.updates import load_
from fldp.plan.records import RecordPlan
from fldp.simulation.clients import Population
from fldp.simulation.draws import Draws
from fldp.simulation.engines import check_model
from fldp.simulation.isolation import Template, alone, threads
from fldp.simulation.local import Algorithm


class _Optimizer(DPOptimizer):
    """Opacus' optimiser with our noise: torch's own generator is neither secret nor secure."""

    def clip_and_accumulate(self) -> None:
        for p in self.params:  # a gradient that overflowed would pass the clip as NaN
            if isinstance(p.grad_sample, Tensor):
                p.grad_sample = torch.nan_to_num(p.grad_sample, 0.0, 0.0, 0.0)
        super().clip_and_accumulate()

    def add_noise(self) -> None:
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

    Raises ValueError where clients, rounds or sampling rate are not those that were accounted.

    >>> import fldp
    >>> x, y = fldp.datasets.digits()
    >>> people = fldp.clients.partition(x, y, clients=30, seed=0)
    >>> plan = fldp.calibrate_records(epsilon=8.0, delta=1e-5, rounds=2, local_epochs=1,
    ...                               batch_size=20, client_sizes=people.sizes)
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
        self.lr, self.max_grad_norm = real("lr", self.lr), real("max_grad_norm", self.max_grad_norm)

    def prepare(self, model: nn.Module) -> nn.Module:
        if isinstance(model, GradSampleModule) or hasattr(model, "autograd_grad_sample_hooks"):
            raise ValueError("the model carries Opacus' hooks already: give the plain nn.Module")
        return super().prepare(model)

    def begin(self, population: Population, rounds: int, rate: float) -> None:
        """Refuse a run that the plan does not account for."""
        plan, again = self.records, "calibrate_records for the run that takes place"
        if rounds > plan.rounds:
            raise ValueError(f"rounds is {rounds}, records accounts for {plan.rounds}: {again}")
        if rate > (u := plan.client_sampling_rate) * (1 + 1e-9):
            raise ValueError(f"clients take part at rate {rate:g}, accounted is {u:g}: {again}")
        if not np.array_equal(
            -(-population.sizes.numpy() // plan.batch_size), plan.steps_per_epoch
        ):
            raise ValueError(
                f"records accounts for {len(plan.epsilons)} clients of other sizes: "
                "calibrate_records with client_sizes=population.sizes"
            )
        if self._served is None:
            self._served = torch.zeros(len(population), dtype=torch.long)

    def updates(
        self, model: nn.Module, flat: Tensor, population: Population, ids: Tensor | Sequence[int],
        draws: Draws | Generator | None = None, *, chunk: int | None = None, round: int = 0,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Updates of clients `ids`, `chunk` at a time (16 by default).

        `draws` seeds what layers draw, such as dropout; coins and noise are the algorithm's own.
        """
        check_model(model)
        self.begin(population, 1, 0.0)
        self.rehearse(model, flat, population)
        template, keyed = Template(model), Draws.of(draws)
        for part in torch.as_tensor(ids, dtype=torch.long).split(chunk or 16):
            rows = flat.new_zeros(len(part), len(flat))
            seeds = keyed.seeds(round, part.numpy())
            with threads(self.threads), alone(flat.device) as start:
                for row, i, value in zip(rows, part.tolist(), seeds, strict=True):
                    start(value)
                    self._one(template, flat, population, i, row)
            yield rows

    def _one(
        self, template: Template, flat: Tensor, people: Population, i: int, row: Tensor
    ) -> None:
        """Write client i's update into `row`; zeros once it has served its rounds."""
        assert self._served is not None
        if self._served[i] >= self.records.participations:
            return
        self._served[i] += 1
        # A wrapped copy each: hooks and state would pass from client to client.
        own = GradSampleModule(load_(template.fresh(), flat))
        trained = [p for p in own.parameters() if p.requires_grad]
        self._descend(own, trained, people, i)
        row += torch.cat([p.detach().reshape(-1) for p in trained]) - flat

    def _descend(self, own: Any, trained: list[Any], people: Population, i: int) -> None:
        plan, (x, y) = self.records, people.client(i)
        x, y = x.to(trained[0]), y.to(trained[0].device)
        steps = int(plan.steps_per_epoch[i])
        optimiser = _Optimizer(
            torch.optim.SGD(trained, lr=self.lr),
            noise_multiplier=float(plan.noise_multipliers[i]), max_grad_norm=self.max_grad_norm,
            expected_batch_size=plan.batch_size, generator=self.generator,
        )  # fmt: skip
        with warnings.catch_warnings():  # torch on Opacus' hooks, at every first layer
            warnings.filterwarnings("ignore", "Full backward hook", UserWarning)
            for _ in range(plan.local_epochs * steps):
                optimiser.zero_grad()
                if picked := self._coins(len(y), steps).nonzero().flatten().tolist():
                    F.cross_entropy(own(x[picked]), y[picked]).backward()
                else:  # many layers cannot run on an empty batch; noise is due all the same
                    for p in trained:
                        p.grad_sample = p.new_zeros(0, *p.shape)
                optimiser.step()

    def _coins(self, n: int, rate: int) -> Tensor:
        """Which of n records take part in a step: each alone, with probability 1/rate."""
        if self.generator is None:
            drawn = np.frombuffer(os.urandom(8 * n), np.uint64)
            return torch.from_numpy(drawn <= np.uint64(2**64 // rate - 1))
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

    def state_dict(self) -> dict[str, Any]:
        drawn = None if self.generator is None else self.generator.get_state()
        return {"served": self._served, "drawn": drawn, "account": self.records.statement()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["account"] != self.records.statement():
            raise ValueError("the checkpoint is that of another RecordPlan: give a new path")
        self._served, self._resumed = state["served"], self.generator is None
        if self.generator is not None:
            self.generator.set_state(state["drawn"].cpu())
