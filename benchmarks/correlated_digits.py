"""Privacy without a lottery on the digits: one account by participations, one by secret coins.

    python -m benchmarks.correlated_digits [--seeds 10]

480 clients of three images, 64 rounds, a client every eighth round: 60 of them a round, also where
coins draw them. The server's step is chosen for each noise and budget on the validation images, by
two seeds that are not used again; then ten fresh seeds are examined on the test images. Secret
coins hide who took part from those who do not know it; the last columns are the ε of each plan
against those who do.
"""

from __future__ import annotations

import functools
import statistics
import time
from typing import Any

import torch
from torch import nn

import fldp
from benchmarks import common
from fldp.simulation.training import evaluate

CLIENTS, ROUNDS, SEPARATION, DELTA, CLIP = 480, 64, 8, 1e-3, 1.0
BUDGETS = (8.0, 2.0)
STEPS = (0.25, 0.5, 1.0, 2.0, 4.0)
# Seeds of the choice, apart from those of the exam.
TUNING = (100, 101)
WITHOUT: dict[str, Any] = {"sampling": "none", "adjacency": "zero-out"}
LIMITED: dict[str, Any] = {**WITHOUT, "separation": SEPARATION}
PLANS: dict[str, dict[str, Any]] = {
    "every round is paid for": {**WITHOUT, "cohort": CLIENTS / SEPARATION},
    "independent, k paid for": LIMITED,
    "fractional": {**LIMITED, "correlation": "fractional"},
    "BLT": {**LIMITED, "correlation": "blt"},
    "banded": {**LIMITED, "correlation": "banded"},
    "secret coins": {"sampling": "poisson", "cohort": CLIENTS // SEPARATION},
}


@functools.cache
def population(seed: int) -> fldp.clients.Population:
    """The training images among the clients, three each."""
    train, _, _ = fldp.datasets.digits_split()
    return fldp.clients.partition(*train, clients=CLIENTS, scheme="iid", seed=seed)


def accuracy(plan: fldp.PrivacyPlan, step: float, seed: int, exam: Any) -> float:
    """Accuracy of one run after its last round."""
    torch.manual_seed(seed)
    sampler = None
    if plan.sampling == "none":
        # The plan's own where it limits participations; where it does not, the same draws.
        sampler = fldp.simulation.sampling.MinSeparation(SEPARATION)
    history = fldp.train(
        nn.Linear(64, 10),
        population(seed),
        plan,
        clip=CLIP,
        local=fldp.LocalSGD(lr=2.0, epochs=1, batch_size=None),
        server=fldp.FedAvg(step),
        sampler=sampler,
        seed=seed,
        generator=torch.Generator().manual_seed(seed),
    )
    return evaluate(history.model, *exam)[0]


def choose(plan: fldp.PrivacyPlan, validation: Any) -> float:
    """The step with the best mean accuracy on the validation images."""

    def score(step: float) -> float:
        return statistics.mean(accuracy(plan, step, seed, validation) for seed in TUNING)

    return max(STEPS, key=score)


def main() -> int:
    parser = common.parser(__doc__, "correlated_digits")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    common.one_thread(quiet=True)
    _, validation, test = fldp.datasets.digits_split()
    rows = []
    for epsilon in BUDGETS:
        for name, asked in PLANS.items():
            plan = fldp.calibrate(
                epsilon=epsilon, delta=DELTA, rounds=ROUNDS, clients=CLIENTS, **asked
            )
            chosen = choose(plan, validation)
            runs = [accuracy(plan, chosen, seed, test) for seed in range(options.seeds)]
            known = plan.cohort_known()
            row = {
                "epsilon": epsilon, "noise": name, "noise_multiplier": plan.noise_multiplier,
                "step": chosen, "epsilon_known": known["epsilon"],
                "epsilon_most": known["epsilon_bound"], **common.spread(runs),
            }  # fmt: skip
            rows.append(row)
            print(
                f"ε {epsilon:g}  {name:24} z {row['noise_multiplier']:6.3f}  step {chosen:4g}  "
                f"{row['accuracy_mean']:.3f} ± {row['accuracy_sd'] or 0:.3f}  cohort known: "
                f"ε {row['epsilon_known']:.2f}, unluckiest client {row['epsilon_most']:.2f}",
                flush=True,
            )
    setting = {
        "clients": CLIENTS, "rounds": ROUNDS, "separation": SEPARATION, "delta": DELTA,
        "clip": CLIP, "seeds": options.seeds,
    }  # fmt: skip
    seconds = time.process_time()
    print(f"{seconds:.0f} seconds of a processor")
    document = {
        "machine": common.machine(),
        "setting": setting,
        "processor_seconds": seconds,
        "rows": rows,
    }
    common.write(options, document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
