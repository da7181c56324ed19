"""Accuracy against ε on digits: 480 clients of 3 images, and the seconds that a run takes.

    python -m benchmarks.digits [--seeds 10]

The recipe of the README: shuffled digits, q = 0.25, T = 60, a linear model, client level, δ = 1e-3,
one thread. Each seed draws its own split into clients, cohorts and noise; the test images are the
same 357. The spread is over seeds.
"""

from __future__ import annotations

import statistics

import torch
from torch import nn

import fldp
from benchmarks import common

CLIENTS, COHORT, ROUNDS, DELTA, TRAIN = 480, 120, 60, 1e-3, 1440
BUDGETS = (None, 8.0, 2.0, 1.0)


def train(epsilon: float | None, seed: int) -> tuple[float, float]:
    """Test accuracy of one run and its seconds, validation and calibration left out."""
    x, y = common.digits()
    people = fldp.clients.partition(x[:TRAIN], y[:TRAIN], clients=CLIENTS, seed=seed)
    torch.manual_seed(seed)
    model, plan = nn.Linear(64, 10), None
    options = {"rounds": ROUNDS, "cohort": COHORT} if epsilon is None else {}
    if epsilon is not None:
        plan = fldp.calibrate(
            epsilon=epsilon, delta=DELTA, rounds=ROUNDS, clients=CLIENTS, cohort=COHORT
        )
        # A seed for the noise: the table can be repeated. Nobody should do this with their own.
        options = {"generator": torch.Generator().manual_seed(seed)}
    history, seconds = common.timed(
        lambda: fldp.train(
            model, people, plan, clip=1.0, local=fldp.LocalSGD(lr=2.0),
            server=fldp.FedAvgM(lr=1.0, momentum=0.5), seed=seed, **options,
        )
    )  # fmt: skip
    return fldp.simulation.training.evaluate(history.model, x[TRAIN:], y[TRAIN:])[0], seconds


def main() -> int:
    parser = common.parser(__doc__, "digits")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    seeds = arguments.seeds
    common.one_thread()
    train(None, 0)  # what a first run loads is not timed
    rows = []
    print(f"{'ε':>8} {'accuracy':>10} {'± sd':>8} {'lowest':>8} {'s/run':>7}   ({seeds} seeds)")
    for epsilon in BUDGETS:
        runs = [train(epsilon, seed) for seed in range(seeds)]
        accuracy, seconds = [r[0] for r in runs], [r[1] for r in runs]
        row = {
            "epsilon": epsilon, **common.spread(accuracy),
            "seconds_median": statistics.median(seconds), "seconds_max": max(seconds),
        }  # fmt: skip
        rows.append(row)
        name = "none" if epsilon is None else f"{epsilon:g}"
        print(
            f"{name:>8} {row['accuracy_mean']:>10.4f} {row['accuracy_sd'] or 0:>8.4f} "
            f"{min(accuracy):>8.4f} {row['seconds_median']:>7.2f}",
            flush=True,
        )
    setting = {"clients": CLIENTS, "images_per_client": TRAIN // CLIENTS, "cohort": COHORT,
               "rounds": ROUNDS, "delta": DELTA, "clip": 1.0, "seeds": seeds}  # fmt: skip
    document = {"machine": common.machine(), "setting": setting, "rows": rows}
    common.write(arguments, document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
