"""MNIST, 10,000 clients of six images: the same command twice gives the same model.

    FLDP_DATA=... python -m benchmarks.mnist [--rounds T] [--seed 0]

Poisson cohorts of 1,000 expected clients, q = 0.1, (ε, δ) = (8, 1e-5) at the client level against
whoever sees the models. Two runs in processes of their own, with one seed for training and one for
noise; prints accuracy, time and a digest of each model's parameters, writes
`benchmarks/results/mnist.json`, and exits with status 1 if the digests differ. Noise from a seed is
for this comparison only: whoever knows the seed can subtract it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import torch
from torch import nn

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


def main() -> int:
    parser = common.parser(__doc__, "mnist")
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
    common.write(arguments, {"machine": common.machine(), "same": same, "runs": runs})
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
