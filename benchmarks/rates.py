"""Rates of local algorithms: algorithms under one account, tuned apart from the exam, compared.

    python -m benchmarks.rates [--seeds 10]

Every clip is 1, every run has 60 rounds. Rates are chosen for each budget by a grid, on seeds 100
to 102, 360 clients made of the training images (one digit each) and 360 of those images as
validation: the exam takes no part. The chosen ones then run on 480 clients, and are scored on the
357 images of the exam. With two rates there are 12 settings to choose from, with three 27 to 48.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import fldp
from benchmarks import common

ROUNDS, DELTA, CLIP, COHORT = 60, 1e-3, 1.0, 120
BUDGETS = (None, 8.0, 2.0)
POPULATIONS: dict[str, dict[str, Any]] = {
    "one digit each": {"scheme": "shards", "shards": 1}, "random": {"scheme": "iid"},
}  # fmt: skip
ONE, FIVE, STEP = (0.5, 1.0, 2.0), (0.25, 0.5, 1.0), (1.0, 2.0, 4.0, 8.0)
Make = Callable[..., tuple[Any, Any]]
ALGORITHMS: dict[str, tuple[Make, dict[str, tuple[float, ...]]]] = {
    "FedAvg": (
        lambda lr, step: (fldp.LocalSGD(lr), fldp.FedAvg(step)),
        {"lr": ONE, "step": STEP},
    ),
    "FedAvg, 5 epochs": (
        lambda lr, step: (fldp.LocalSGD(lr, epochs=5), fldp.FedAvg(step)),
        {"lr": FIVE, "step": STEP},
    ),
    "FedProx": (
        lambda lr, mu, step: (fldp.FedProx(lr, epochs=5, proximal=mu), fldp.FedAvg(step)),
        {"lr": (0.5, 1.0, 2.0), "mu": (0.1, 0.3, 1.0), "step": STEP},
    ),
    "SCAFFOLD": (
        lambda lr, s, step: (
            fldp.Scaffold(lr, epochs=5, control_scale=s),
            fldp.FedAvg(step),
        ),
        {"lr": FIVE, "s": (2.5, 5.0, 10.0, 20.0), "step": (0.5, 1.0, 2.0, 4.0)},
    ),
    "FedAvgM": (
        lambda lr, step, beta: (fldp.LocalSGD(lr), fldp.FedAvgM(step, momentum=beta)),
        {"lr": (1.0, 2.0, 4.0), "step": (0.5, 1.0, 2.0), "beta": (0.5, 0.8, 0.9)},
    ),
    "FedAdam": (
        lambda lr, step, eps: (fldp.LocalSGD(lr), fldp.FedAdam(step, eps=eps)),
        {"lr": (1.0, 2.0, 4.0), "step": (0.1, 0.2, 0.4), "eps": (0.003, 0.01, 0.03, 0.1)},
    ),
}


def accuracy(
    make: Make, values: dict[str, float], epsilon: float | None, seed: int, scheme: dict[str, Any],
    *, train: int, clients: int, exam: slice,
) -> float:  # fmt: skip
    """Accuracy of one run after its last round."""
    x, y = common.digits()
    people = fldp.clients.partition(x[:train], y[:train], clients, seed=seed, **scheme)
    torch.manual_seed(seed)
    local, server = make(**values)
    plan, options = None, {"rounds": ROUNDS, "cohort": COHORT, "clip": None}
    if epsilon is not None:
        plan = fldp.calibrate(
            epsilon=epsilon, delta=DELTA, rounds=ROUNDS, clients=clients, cohort=COHORT
        )
        options = {"clip": CLIP, "generator": torch.Generator().manual_seed(seed)}
    history = fldp.train(
        nn.Linear(64, 10), people, plan, local=local, server=server, seed=seed, **options
    )
    return fldp.simulation.training.evaluate(history.model, x[exam], y[exam])[0]


def choose(name: str, epsilon: float | None) -> dict[str, float]:
    """The setting of the grid with the best mean validation accuracy over three seeds."""
    make, grid = ALGORITHMS[name]
    settings = [dict(zip(grid, v, strict=True)) for v in itertools.product(*grid.values())]

    def score(values: dict[str, float]) -> float:
        return statistics.mean(
            accuracy(make, values, epsilon, seed, POPULATIONS["one digit each"],
                     train=1080, clients=360, exam=slice(1080, 1440))
            for seed in (100, 101, 102)
        )  # fmt: skip

    return max(settings, key=score)


def main() -> int:
    parser = common.parser(__doc__, "rates")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    seeds = arguments.seeds
    common.one_thread()
    rows = []
    for name, (make, _) in ALGORITHMS.items():
        for epsilon in BUDGETS:
            values = choose(name, epsilon)
            for population, scheme in POPULATIONS.items():
                runs = [
                    accuracy(make, values, epsilon, seed, scheme,
                             train=1440, clients=480, exam=slice(1440, None))
                    for seed in range(seeds)
                ]  # fmt: skip
                row = {
                    "algorithm": name, "epsilon": epsilon, "clients": population, "chosen": values,
                    **common.spread(runs),
                }  # fmt: skip
                rows.append(row)
                print(
                    f"{name:18} ε {epsilon or 'none':>4}  {population:15} "
                    f"{row['accuracy_mean']:.3f} ± {row['accuracy_sd'] or 0:.3f}  {values}",
                    flush=True,
                )
    setting = {"cohort": COHORT, "rounds": ROUNDS, "delta": DELTA, "clip": CLIP, "seeds": seeds}
    document = {"machine": common.machine(), "setting": setting, "rows": rows}
    common.write(arguments, document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
