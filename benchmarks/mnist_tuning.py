"""The settings of the headline experiment, chosen on images that its table never looks at.

    FLDP_DATA=... python -m benchmarks.mnist_clients --tune

50,000 of MNIST's training images are dealt to as many clients as the row has, the other 10,000
judge; the split is the same always, and the test images are not read. From where a row's settings
stand, or a neighbouring row's, one is changed at a time; what judges better is kept, until no
change helps or so many were tried. That MNIST's own training images choose is covered by no ε.

A search needs no guarantee. For linear models of everyone's full-batch steps `Rehearsal` computes
what `fldp.train` does, up to rounding, without making a client's update: the norm of a sum of outer
products comes from two small tables of inner products. A test compares both without noise.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

import fldp
from benchmarks.mnist_runs import (
    CENTRED,
    DELTAS,
    LABELS,
    LIGHT,
    PARTITIONS,
    UNCENTRED,
    WIDE,
    Cell,
    Data,
    Records,
    Setting,
    Settings,
    load,
    run,
    save,
)

# Dealings whose mean judges: few clients' noise moves a model more.
SEEDS = {100: (100, 101), 1_000: (100,), 10_000: (100,)}
# Settings that a row may try.
TRIES = {"first": 9, "tighter": 6, "beside": 3, "other models": 8}
# What is tried: factors of rates and rounds, neighbours in lists.
FACTOR, LOCAL_FACTOR = 1.5, 30.0
MOMENTA = (0.0, 0.5, 0.8, 0.9)
COOLDOWNS = (0.0, 0.3, 0.5, 0.8)
AVERAGES = (0.0, 0.3, 0.5)
LEAST_ROUNDS, MOST_ROUNDS = 8, 240
# Where the search begins. A first pass of some 350 tries, on the same held-out images, found the
# features, full batches and everyone in every round; a second of 120, that clients should not say
# how far, only where: at a local rate so large that every update is clipped (Bu et al. 2023,
# Automatic clipping, have it for DP-SGD).
FAR = 1e5
STARTS = {
    100: Setting(54, clip=1.0, local_lr=1e3, server_lr=12, average=0.3),
    1_000: Setting(
        80, clip=1.0, local_lr=FAR, server_lr=28, momentum=0.5, cooldown=0.5, average=0.3
    ),
    10_000: Setting(
        80, clip=1.0, local_lr=FAR, server_lr=45, momentum=0.8, cooldown=0.5, average=0.3
    ),
}
# Plain gradient steps, the other way to do without noise.
UNCLIPPED = Setting(200, server_lr=60, momentum=0.9)
# A tenth of the clients in a round: everyone would take a CNN ten times as long.
TENTH = Setting(
    150, share=0.1, clip=1.0, local_lr=100.0, server_lr=1.0, momentum=0.9, cooldown=0.5, average=0.3
)
OF_THE_CNN = [
    TENTH,
    dataclasses.replace(TENTH, local_steps=3, local_lr=0.1, clip=0.3, server_lr=3),
]


class Rehearsal:
    """Linear models for one dealing of the images.

    Parameters
    ----------
    owned, exam
        Images for the clients, and to judge by.
    cell
        The row.
    seed
        Deals the images.
    """

    def __init__(self, owned: Data, exam: Data, cell: Cell, seed: int) -> None:
        people = fldp.clients.partition(*owned, cell.clients, cell.partition, seed=seed)
        # Clients with fewer images than others are filled up with copies that do not count.
        rows, counts = people.rows(torch.arange(cell.clients))
        self.exam = exam
        self.shares = (counts / counts.sum(1, keepdim=True)).unsqueeze(2)
        self.x = owned[0][rows]
        self.targets = one_hot(owned[1][rows], LABELS).float()
        # A client's inner products, where they are fewer than the entries of its update.
        self.grams = None
        if rows.shape[1] ** 2 < LABELS * self.x.shape[2]:
            self.grams = self.x @ self.x.transpose(1, 2)

    def accuracy(self, setting: Setting, z: float, seed: int) -> float:
        """Of the last model on the images to judge by."""
        x, y = self.exam
        guesses = (x @ self.weights(setting, z, seed).T).argmax(1)
        return float((guesses == y).float().mean())

    def weights(self, setting: Setting, z: float, seed: int) -> Tensor:
        """The last model (labels, width); the seed draws noise that hides nothing."""
        noise = torch.Generator().manual_seed(seed)
        server = setting.server()
        clients = len(self.x)
        flat = torch.zeros(LABELS * self.x.shape[2])
        for number in range(setting.rounds):
            weights = flat.view(LABELS, -1)
            if setting.local_steps == 1 and self.grams is not None:
                total = self.one_step(weights, self.grams, setting)
            else:
                total = self.several_steps(weights, setting)
            if setting.clip is not None:
                total = total + z * setting.clip * torch.randn(total.shape, generator=noise)
            mean = total.flatten() / clients
            flat = server.step(flat, mean, number / setting.rounds)
        return server.report(flat).view(LABELS, -1)

    def one_step(self, weights: Tensor, grams: Tensor, setting: Setting) -> Tensor:
        """The sum of clipped updates (labels, width) of one full-batch step."""
        guesses = torch.softmax(self.x.flatten(0, 1) @ weights.T, 1).view_as(self.targets)
        errors = (self.targets - guesses) * self.shares * setting.local_lr
        if setting.clip is not None:
            # The update is Σ error ⊗ x, and its squared norm Σ Σ (x · x')(error · error').
            squares = ((grams @ errors) * errors).sum((1, 2))
            errors = errors * _factors(squares.clamp_min(0).sqrt(), setting.clip)
        return errors.flatten(0, 1).T @ self.x.flatten(0, 1)

    def several_steps(self, weights: Tensor, setting: Setting) -> Tensor:
        """The same, of one step or several: every client has weights of its own."""
        own = weights.expand(len(self.x), *weights.shape)
        for _ in range(setting.local_steps):
            guesses = torch.softmax(self.x @ own.transpose(1, 2), 2)
            errors = (self.targets - guesses) * self.shares * setting.local_lr
            own = own + errors.transpose(1, 2) @ self.x
        updates = own - weights
        if setting.clip is not None:
            updates = updates * _factors(updates.flatten(1).norm(dim=1), setting.clip)
        return updates.sum(0)


def _factors(norms: Tensor, clip: float) -> Tensor:
    """What each client's update is multiplied by (clients, 1, 1)."""
    return (clip / norms.clamp_min(1e-12)).clamp(max=1).view(-1, 1, 1)


def changes(setting: Setting) -> Iterator[Setting]:
    """Settings one change away, in the order in which they are tried.

    Momentum moves with the server's rate, so that a steady mean makes the same way. C stays: with
    one local step only its ratio to the local rate matters.
    """

    def change(**new: Any) -> Setting:
        return dataclasses.replace(setting, **new)

    lr = setting.server_lr
    yield change(server_lr=_short(lr / FACTOR))
    if setting.clip is not None and setting.local_steps == 1:
        yield change(local_lr=_short(setting.local_lr * LOCAL_FACTOR))
    yield change(server_lr=_short(lr * FACTOR))
    for rounds in (round(setting.rounds * FACTOR), round(setting.rounds / FACTOR)):
        if LEAST_ROUNDS <= rounds <= MOST_ROUNDS:
            yield change(rounds=rounds)
    if setting.clip is not None and setting.local_steps == 1:
        yield change(local_lr=_short(setting.local_lr / LOCAL_FACTOR))
    for momentum in _beside(setting.momentum, MOMENTA):
        rate = _short(lr * (1 - momentum) / (1 - setting.momentum))
        yield change(momentum=momentum, server_lr=rate)
    for cooldown in _beside(setting.cooldown, COOLDOWNS):
        yield change(cooldown=cooldown)
    for average in _beside(setting.average, AVERAGES):
        yield change(average=average)


def _short(value: float) -> float:
    """Three digits: a setting that can be read."""
    return float(f"{value:.3g}")


def _beside(value: float, ladder: tuple[float, ...]) -> list[float]:
    """The rungs next to the one that is nearest to a value."""
    at = min(range(len(ladder)), key=lambda rung: abs(ladder[rung] - value))
    return [*ladder[max(0, at - 1) : at], *ladder[at + 1 : at + 2]]


class Search:
    """A row's search: what was tried, and the best so far.

    Parameters
    ----------
    cell
        The row.
    owned, exam
        Images for the clients, and to judge by.
    fast
        With `Rehearsal`; else with `fldp.train`.
    """

    def __init__(self, cell: Cell, owned: Data, exam: Data, *, fast: bool) -> None:
        self.cell, self.owned, self.exam = cell, owned, exam
        self.tried: dict[Setting, float] = {}
        self.seconds = 0.0
        self.rehearsals = {}
        if fast:
            seeds = SEEDS[cell.clients]
            self.rehearsals = {seed: Rehearsal(owned, exam, cell, seed) for seed in seeds}

    def judge(self, setting: Setting) -> float:
        """Accuracy on the held-out images, the mean over dealings; each setting once."""
        if setting not in self.tried:
            begun = time.perf_counter()
            self.tried[setting] = self._accuracy(setting)
            self.seconds += time.perf_counter() - begun
        return self.tried[setting]

    def _accuracy(self, setting: Setting) -> float:
        if not self.rehearsals:
            return float(run(self.cell, setting, self.owned, self.exam, 100)["accuracy"])
        plan = setting.plan(self.cell)
        z = plan.noise_multiplier if plan else 0.0
        found = (each.accuracy(setting, z, seed) for seed, each in self.rehearsals.items())
        return statistics.mean(found)

    def climb(self, starts: list[Setting], *, most: int) -> Setting:
        """The best setting, from the best of some, with at most so many tried."""
        best = max(starts, key=self.judge)
        print(f"  {self.judge(best):.4f} {best}", flush=True)
        better = True
        while better and len(self.tried) < most:
            better = False
            for other in changes(best):
                if other in self.tried:
                    continue
                if len(self.tried) >= most:
                    break
                if self.judge(other) > self.judge(best):
                    print(f"  {self.judge(other):.4f} {other}", flush=True)
                    best, better = other, True
                    break
        return best


def cells() -> list[Cell]:
    """What is tuned, in this order: a row that others start from comes before them."""
    found = [
        Cell(WIDE, clients, part, epsilon)
        for part in PARTITIONS
        for clients in reversed(DELTAS)
        for epsilon in (8.0, 4.0, 2.0, 1.0)
    ]
    found += [Cell(WIDE, clients, part, None) for part in PARTITIONS for clients in DELTAS]
    # Fewer parameters are worth most where noise is largest.
    found += [
        Cell(LIGHT, clients, part, epsilon)
        for part in PARTITIONS
        for clients in DELTAS
        for epsilon in (8.0, 4.0, 2.0, 1.0)
        if clients < 10_000 or epsilon == 8
    ]
    found.append(Cell(LIGHT, 10_000, "shards", None))
    # Of the ablation.
    for name in (CENTRED, UNCENTRED):
        found += [Cell(name, clients, "shards", 8.0) for clients in DELTAS]
    for name in ("pixels", "CNN"):
        found += [Cell(name, 10_000, "shards", epsilon) for epsilon in (8.0, None)]
    return found


def tries(cell: Cell) -> int:
    """How many settings a row may try: many where the search begins, few where neighbours lead."""
    if cell.partition == "iid" or cell.epsilon is None:
        return TRIES["beside"]
    if cell.model != WIDE:
        return TRIES["other models" if cell.model in ("CNN", "pixels") else "beside"]
    return TRIES["first" if cell.epsilon == 8 else "tighter"]


def starts(cell: Cell, settings: Settings) -> list[Setting]:
    """Where a row's search begins: at the neighbour that was tuned before it."""
    if cell.model == "CNN" and cell.epsilon:
        return OF_THE_CNN
    if cell.model == LIGHT and cell.epsilon:
        near = dataclasses.replace(cell, model=WIDE)
    elif cell.partition != "shards":
        near = dataclasses.replace(cell, partition="shards")
    elif cell.epsilon is None:
        near = dataclasses.replace(cell, epsilon=8.0)
    elif cell.epsilon < 8:
        near = dataclasses.replace(cell, epsilon=2 * cell.epsilon)
    elif cell.model != WIDE:
        near = dataclasses.replace(cell, model=WIDE)
    else:
        return [STARTS[cell.clients]]
    found = [settings[near][0]]
    if cell.epsilon is None and cell.model == "CNN":
        found.append(dataclasses.replace(found[0], clip=None))
    elif (cell.epsilon, cell.partition, cell.clients) == (None, "shards", 10_000):
        found.append(UNCLIPPED)
    return found


def tune(wanted: Callable[[Cell], bool], again: bool, folder: Path, path: Path) -> None:
    """Search row after row and keep what was found after each.

    Parameters
    ----------
    wanted
        Whether a row is to be searched.
    again
        Rows that were searched before are searched on from where they stand; else they are kept.
    folder
        Where features are kept.
    path
        Of the settings.
    """
    for cell in filter(wanted, cells()):
        settings = load(path)
        if cell in settings and not again:
            continue
        first = [settings[cell][0]] if cell in settings else starts(cell, settings)
        before = settings[cell][1] if cell in settings else {"tried": 0, "seconds": 0}
        owned, exam = Records(cell.model, folder).held_out()
        print(f"{cell}", flush=True)
        search = Search(cell, owned, exam, fast=cell.model != "CNN")
        best = search.climb(first, most=tries(cell))
        tuning = {
            "validation": round(search.judge(best), 5),
            "tried": before["tried"] + len(search.tried),
            "seconds": before["seconds"] + round(search.seconds),
        }
        save({**load(path), cell: (best, tuning)}, path)
        print(f"  {tuning}", flush=True)
