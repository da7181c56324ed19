"""Digits on Flower beside `fldp.train`: the setting of `benchmarks.digits`, on a grid in memory.

Every seed deals the images anew, to all contenders alike. `fldp.train` and Flower draw cohorts and
noise from the seed; `Private` has its noise from it, and its coins from the operating system, as it
always has.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvgM, Strategy
from torch import Tensor, nn

import fldp
from benchmarks import common, digits
from benchmarks.flower_grid import Memory, record, reply_of
from fldp._text import up
from fldp.flower import Private
from fldp.simulation.evaluation import evaluate

EPSILON, CLIP, MOMENTUM, LOCAL_RATE = 2.0, 1.0, 0.5, 2.0
Data = tuple[Tensor, Tensor]


def plan() -> fldp.PrivacyPlan:
    """The plan that both `fldp.train` and `Private` are under."""
    return fldp.calibrate(
        epsilon=EPSILON,
        delta=digits.DELTA,
        rounds=digits.ROUNDS,
        clients=digits.CLIENTS,
        cohort=digits.COHORT,
    )


def dealt(seed: int) -> tuple[fldp.clients.Population, Data]:
    """The clients of a seed, and the images that are nobody's."""
    x, y = common.digits()
    train = digits.TRAIN
    people = fldp.clients.partition(x[:train], y[:train], clients=digits.CLIENTS, seed=seed)
    return people, (x[train:], y[train:])


def start(seed: int) -> nn.Linear:
    """The model that a seed begins with."""
    torch.manual_seed(seed)
    return nn.Linear(64, 10)


def trains(people: fldp.clients.Population) -> Callable[[int, Message], RecordDict]:
    """What a node does: one step of gradient descent on all that it has."""

    def answer(node: int, message: Message) -> RecordDict:
        before = message.content["arrays"]
        weight = torch.from_numpy(before["weight"].numpy())
        bias = torch.from_numpy(before["bias"].numpy())
        x, y = people.client(node)
        scores = x @ weight.T + bias
        error = torch.softmax(scores, 1) - nn.functional.one_hot(y, 10)
        # The gradient of the mean cross-entropy of a linear model.
        step = LOCAL_RATE / len(y)
        after = record(
            weight=(weight - step * error.T @ x).numpy(),
            bias=(bias - step * error.sum(0)).numpy(),
        )
        return reply_of(after, examples=len(y))

    return answer


def on_flower(seed: int, strategy: Strategy) -> tuple[float, float]:
    """Test accuracy of a run on Flower, and the server's seconds of the processor."""
    people, test = dealt(seed)
    model = start(seed)
    grid = Memory(digits.CLIENTS, trains(people))
    first = ArrayRecord(model.state_dict())
    begun = time.process_time()
    result = strategy.start(grid, first, num_rounds=digits.ROUNDS)
    seconds = time.process_time() - begun - grid.answering
    model.load_state_dict(result.arrays.to_torch_state_dict())
    return evaluate(model, *test)[0], seconds


def momentum() -> FedAvgM:
    """Flower's own server, which draws as many nodes as the plan expects."""
    return FedAvgM(
        fraction_train=digits.COHORT / digits.CLIENTS,
        fraction_evaluate=0.0,
        min_available_nodes=digits.CLIENTS,
        server_momentum=MOMENTUM,
    )


def ours(seed: int, under: fldp.PrivacyPlan) -> tuple[float, float]:
    """`Private` around Flower's server; what its account does not hold is an error."""
    generator = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / "ledger.jsonl"
        noise = fldp.Gaussian(generator)
        strategy = Private(momentum(), under, CLIP, ledger=path, noise=noise)
        found = on_flower(seed, strategy)
        events = len(strategy.ledger.events)
        spent = strategy.epsilon
        strategy.close()
    if events != digits.ROUNDS or spent > EPSILON:
        raise RuntimeError(f"{events} rounds at ε = {spent}: the plan says {digits.ROUNDS}")
    return found


def seeded(seed: int) -> None:
    """Flower draws nodes and noise from the generators of the process."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def plain(seed: int, under: fldp.PrivacyPlan) -> tuple[float, float]:
    """Flower's server alone."""
    seeded(seed)
    return on_flower(seed, momentum())


def theirs(seed: int, under: fldp.PrivacyPlan) -> tuple[float, float]:
    """Flower's wrapper for privacy, with the plan's z."""
    seeded(seed)
    strategy = DifferentialPrivacyServerSideFixedClipping(
        momentum(), under.noise_multiplier, CLIP, digits.COHORT
    )
    return on_flower(seed, strategy)


def simulated(seed: int, under: fldp.PrivacyPlan) -> tuple[float, float]:
    """`fldp.train` with the same setting."""
    people, test = dealt(seed)
    generator = torch.Generator().manual_seed(seed)
    begun = time.process_time()
    history = fldp.train(
        start(seed),
        people,
        under,
        clip=CLIP,
        local=fldp.LocalSGD(lr=LOCAL_RATE),
        server=fldp.FedAvgM(lr=1.0, momentum=MOMENTUM),
        seed=seed,
        generator=generator,
    )
    seconds = time.process_time() - begun
    return evaluate(history.model, *test)[0], seconds


def said(under: fldp.PrivacyPlan) -> dict[str, tuple[float | None, int | None, str]]:
    """For each contender its ε, its events, and what may be said of it."""
    spent = under.spent([under.event] * digits.ROUNDS)
    account = "the plan's: Poisson draws, noise on the clipped sum, one event a round"
    unamplified = fldp.epsilon(
        noise_multiplier=under.noise_multiplier,
        delta=digits.DELTA,
        rounds=digits.ROUNDS,
        sampling="none",
    )
    bound = up(unamplified, 3)
    return {
        "fldp.train": (spent, digits.ROUNDS, account),
        "Private(FedAvgM)": (spent, digits.ROUNDS, account),
        "FedAvgM": (None, None, "no privacy"),
        "Flower's wrapper": (
            None,
            None,
            "no ε at this z: a draw of fixed size is not the plan's, noise comes after the "
            "momentum, and with an accountant the wrapper refuses FedAvgM; around FedAvg, without "
            f"the draw's help, it would hide whether a client's update is zero at ε = {bound}",
        ),
    }


CONTENDERS = {
    "fldp.train": (simulated, "fldp.FedAvgM"),
    "Private(FedAvgM)": (ours, "flwr FedAvgM"),
    "FedAvgM": (plain, "flwr FedAvgM"),
    "Flower's wrapper": (theirs, "flwr FedAvgM"),
}


def measure(seeds: int) -> dict[str, Any]:
    """Accuracy over seeds of every contender, in turns."""
    under = plan()
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for seed in range(seeds):
        for name, (run, _) in CONTENDERS.items():
            runs[name].append(run(seed, under))
    words = said(under)
    rows = {}
    for name, found in runs.items():
        epsilon, events, says = words[name]
        rows[name] = {
            "name": name,
            "strategy": CONTENDERS[name][1],
            "epsilon": epsilon,
            "events": events,
            "says": says,
            **common.spread(accuracy for accuracy, _ in found),
            "cpu_seconds_median": statistics.median(seconds for _, seconds in found),
        }
    reference = rows["fldp.train"]
    difference = rows["Private(FedAvgM)"]["accuracy_mean"] - reference["accuracy_mean"]
    deviation = reference["accuracy_sd"]
    setting = {
        "clients": digits.CLIENTS,
        "images_per_client": digits.TRAIN // digits.CLIENTS,
        "sampling_rate": digits.COHORT / digits.CLIENTS,
        "cohort": digits.COHORT,
        "rounds": digits.ROUNDS,
        "epsilon": EPSILON,
        "delta": digits.DELTA,
        "noise_multiplier": under.noise_multiplier,
        "clip": CLIP,
        "momentum": MOMENTUM,
        "local_rate": LOCAL_RATE,
        "seeds": seeds,
    }
    return {
        "setting": setting,
        "rows": list(rows.values()),
        "difference": difference,
        "standard_deviation": deviation,
        "within": deviation is not None and abs(difference) <= deviation,
    }
