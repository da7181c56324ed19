"""MNIST: the same command twice gives the same model; what many clients buy.

    FLDP_DATA=... python -m benchmarks.mnist [--only pairs|curves] [--rounds T] [--seed 0]

*Pairs*: 10,000 clients of six images, Poisson cohorts of 1,000 expected clients, q = 0.1, (ε, δ) =
(8, 1e-5) at the client level against whoever sees the models. Two runs in processes of their own,
with one seed for training and one for noise; prints accuracy, time and a digest of each model's
parameters, and exits with status 1 if the digests differ. Noise from a seed is for this comparison
only: whoever knows the seed can subtract it.

*Curves*: accuracy along 50 rounds of a linear model, without privacy (no clip, no noise) and under
ε = 8, 2 and 1, for 10,000 clients and for 1,000, of five images each and one in ten a round, so
that one ε has one z in both. 50,000 of the 60,000 training images belong to the clients. On the
other 10,000, which no client has, clip and momentum are chosen, for each line its own, with a seed
of their own; only then is MNIST's test half read, for the seeds that are told.

Both go into `benchmarks/results/mnist.json`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor, nn

import fldp
from benchmarks import common

MODELS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
    "CNN 20k": lambda: nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
    ),
}  # fmt: skip
ROUNDS = {"linear": 150, "CNN 20k": 40}
# The curves: clients, budgets, and what is tried for each of their pairs on validation data.
POPULATIONS, BUDGETS = (10_000, 1_000), (None, 8.0, 2.0, 1.0)
IMAGES, TURNS, EVERY, DELTA, RATE = 5, 50, 2, 1e-5, 0.5
CLIPS, MOMENTA = (0.3, 1.0, 3.0), (0.0, 0.9)
OWNED, TUNING_SEED = 50_000, 100


def digest(model: nn.Module) -> str:
    """SHA-256 over the bytes of all parameters."""
    found = hashlib.sha256()
    for parameter in model.parameters():
        found.update(parameter.detach().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def run(name: str, rounds: int, seed: int) -> dict[str, Any]:
    """Train once; what may be compared of the result."""
    x, y = fldp.datasets.mnist(train=True)
    people = fldp.clients.partition(x, y, clients=10_000, seed=seed)
    plan = fldp.calibrate(epsilon=8.0, delta=1e-5, rounds=rounds, clients=10_000, cohort=1_000)
    torch.manual_seed(seed)
    history = fldp.train(
        MODELS[name](), people, plan, clip=1.0, local=fldp.LocalSGD(lr=0.1, batch_size=2),
        server=fldp.FedAvgM(lr=1.0, momentum=0.9), validation=fldp.datasets.mnist(train=False),
        seed=seed, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return {
        "model": name, "rounds": history.rounds, "noise_multiplier": plan.noise_multiplier,
        "epsilon": history.epsilon[-1], "accounted": history.accounted[-1],
        "accuracy": history.accuracy[-1],
        "seconds": round(history.seconds, 1), "digest": digest(history.model),
    }  # fmt: skip


def trained(
    owned: tuple[Tensor, Tensor],
    exam: tuple[Tensor, Tensor],
    clients: int,
    epsilon: float | None,
    clip: float | None,
    momentum: float,
    seed: int,
) -> list[float]:
    """Accuracy on `exam` after every round of the linear model. The seed deals the images too."""
    x, y = owned
    dealt = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    dealt = dealt[: clients * IMAGES]
    people = fldp.clients.partition(x[dealt], y[dealt], clients, seed=seed)
    options: dict[str, Any] = {"rounds": TURNS, "cohort": clients // 10}
    plan = None
    if epsilon is not None:
        plan = planned(clients, epsilon)
        options = {"generator": torch.Generator().manual_seed(seed)}
    torch.manual_seed(seed)
    history = fldp.train(
        MODELS["linear"](), people, plan, clip=clip, local=fldp.LocalSGD(RATE, batch_size=IMAGES),
        server=fldp.FedAvgM(lr=1.0, momentum=momentum), validation=exam, seed=seed, **options,
    )  # fmt: skip
    return [round(value, 4) for value in history.accuracy]


def planned(clients: int, epsilon: float) -> fldp.PrivacyPlan:
    """The plan of a curve."""
    return fldp.calibrate(
        epsilon=epsilon, delta=DELTA, rounds=TURNS, clients=clients, cohort=clients // 10
    )


def curves(seeds: int) -> dict[str, Any]:
    """Choose clip and momentum on validation images, then examine on the test half."""
    x, y = fldp.datasets.mnist(train=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    owned = x[order[:OWNED]], y[order[:OWNED]]
    validation = x[order[OWNED:]], y[order[OWNED:]]
    exam = fldp.datasets.mnist(train=False)
    rows = []
    for clients, epsilon in itertools.product(POPULATIONS, BUDGETS):
        tried = {
            (clip, momentum): trained(
                owned, validation, clients, epsilon, clip, momentum, TUNING_SEED
            )[-1]
            for clip, momentum in itertools.product(CLIPS if epsilon else (None,), MOMENTA)
        }
        clip, momentum = max(tried, key=lambda pair: tried[pair])
        found = [
            trained(owned, exam, clients, epsilon, clip, momentum, seed) for seed in range(seeds)
        ]
        ends = common.spread(run[-1] for run in found)
        print(
            f"{clients:6,} clients, ε = {epsilon or 'none'}: {ends['accuracy_mean']:.4f} "
            f"± {ends['accuracy_sd'] or 0:.4f} (clip {clip}, momentum {momentum})"
        )
        rows.append({
            "clients": clients, "epsilon": epsilon,
            "noise_multiplier": planned(clients, epsilon).noise_multiplier if epsilon else None,
            "clip": clip, "momentum": momentum, "validation": max(tried.values()),
            "accuracy_mean": ends["accuracy_mean"], "accuracy_sd": ends["accuracy_sd"],
            "accuracy": [run[EVERY - 1 :: EVERY] for run in found],
        })  # fmt: skip
    setting = {
        "images": IMAGES, "rounds": TURNS, "every": EVERY, "delta": DELTA, "share": 0.1,
        "lr": RATE, "clips": CLIPS, "momenta": MOMENTA, "seeds": seeds,
    }  # fmt: skip
    return {"setting": setting, "rows": rows}


def main() -> int:
    parser = common.parser(__doc__, "mnist")
    parser.add_argument("--only", choices=("pairs", "curves"), help="keep the other's results")
    parser.add_argument("--seeds", type=int, default=5, help="of each curve")
    parser.add_argument("--rounds", type=int, help="150 for the linear model, 40 for the CNN")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--once", action="store_true", help="one run, as JSON on one line")
    arguments = parser.parse_args()
    common.one_thread()
    names = arguments.model or list(MODELS)
    if arguments.once:
        rounds = arguments.rounds or ROUNDS[names[0]]
        print(json.dumps(run(names[0], rounds, arguments.seed)))
        return 0
    result = common.read(arguments.output)
    if arguments.only != "pairs":
        result["curves"] = {"machine": common.machine(), **curves(arguments.seeds)}
    if arguments.only == "curves":
        common.write(arguments, result)
        return 0
    pairs = []
    for name in names:
        command = [sys.executable, "-m", "benchmarks.mnist", "--once", "--model", name]
        rounds = arguments.rounds or ROUNDS[name]
        command += ["--rounds", str(rounds), "--seed", str(arguments.seed)]
        answers = [
            subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
            for _ in range(2)
        ]
        pair = [json.loads(answer.stdout) for answer in answers]
        for found in pair:
            print(
                f"{found['model']:8} ε = {found['epsilon']:.2f}, {found['rounds']} rounds: "
                f"accuracy {found['accuracy']:.4f} in {found['seconds']} s, model {found['digest']}"
            )
        pairs.append(pair)
    same = all(one["digest"] == other["digest"] for one, other in pairs)
    print("the same model twice" if same else "THE MODELS DIFFER")
    runs = [found for pair in pairs for found in pair]
    common.write(arguments, {**result, "machine": common.machine(), "same": same, "runs": runs})
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
