"""Populations that are uneven or large: one heavy client, and a million clients of which few train.

    python -m benchmarks.populations

Every row is a process of its own, whose peak memory is told beside what the libraries take before
it begins. Uneven: 40,000 records of 64 numbers at 10,000 clients, one of whom has 30,001; dealing
them, and rounds in which everybody trains. Lazy: a million clients, each loaded from its own number
when it is drawn, about 1,000 in a round, by Poisson sampling and with a fixed cohort.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fldp
from benchmarks import common
from fldp.simulation.clients import Population

RECORDS, CLIENTS, FEATURES, LABELS = 40_000, 10_000, 64, 10
MILLION, COHORT, OWN = 1_000_000, 1_000, 20
ROUNDS, BATCH = 5, 10
Row = dict[str, Any]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(FEATURES, LABELS)


def dealt() -> Population:
    """10,000 clients, one of whom has all records but one for each of the others."""
    x = torch.randn(RECORDS, FEATURES, generator=torch.Generator().manual_seed(0))
    heavy = np.zeros(RECORDS - CLIENTS, dtype=int)
    groups = np.concatenate([heavy, np.arange(CLIENTS)])
    return fldp.clients.partition(x, torch.arange(RECORDS) % LABELS, scheme="group", groups=groups)


def everybody(people: Population, batch_size: int | None) -> None:
    """Two rounds of all clients, without noise: training is what is measured."""
    local = fldp.LocalSGD(0.1, batch_size=batch_size)
    fldp.train(model(), people, None, clip=None, rounds=2, cohort=len(people), local=local, seed=0)


def loaded(client: int) -> tuple[Tensor, Tensor]:
    """The records of a client: a function of its number."""
    own = torch.Generator().manual_seed(client)
    return torch.rand(OWN, FEATURES, generator=own), torch.arange(OWN) % LABELS


def million(sampling: str, adjacency: str) -> None:
    """Private rounds of about 1,000 out of a million clients."""
    people = fldp.clients.from_loader(loaded, MILLION)
    plan = fldp.calibrate(
        epsilon=8.0,
        delta=1e-8,
        rounds=ROUNDS,
        clients=MILLION,
        cohort=COHORT,
        sampling=sampling,
        adjacency=adjacency,
    )
    fldp.train(model(), people, plan, local=fldp.LocalSGD(0.1, batch_size=BATCH), seed=0)


CASES: dict[str, Callable[[], object]] = {
    "uneven: deal": dealt,
    "uneven: deal, 2 rounds, batches of 10": lambda: everybody(dealt(), BATCH),
    "uneven: deal, 2 rounds, whole batches": lambda: everybody(dealt(), None),
    "lazy million: 5 rounds, Poisson": lambda: million("poisson", "add-or-remove"),
    "lazy million: 5 rounds, fixed": lambda: million("fixed", "replace-one"),
}


def warm() -> None:
    """Everything that a first training loads and compiles, so that no case pays for it."""
    x, y = loaded(0)
    people = Population(x, y, [range(OWN)])
    everybody(people, BATCH)
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=1, clients=1, cohort=1)
    fldp.train(model(), people, plan)


def measured(name: str) -> Row:
    """One case, in this process."""
    common.one_thread()
    warm()
    seconds: list[float] = []
    mebibytes = common.growth(lambda: seconds.append(common.timed(CASES[name])[1]))
    return {"case": name, "seconds": seconds[0], "mebibytes": mebibytes}


def in_process(name: str) -> Row:
    """One case, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.populations", "--case", name]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = common.parser(__doc__, "populations")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measured(arguments.case)))
        return 0
    common.one_thread()
    rows = []
    for name in CASES:
        row = in_process(name)
        rows.append(row)
        print(f"{name:40} {row['seconds']:7.2f} s {row['mebibytes']:8.0f} MiB", flush=True)
    setting = {"records": RECORDS, "clients": CLIENTS, "million": MILLION, "cohort": COHORT}
    common.write(arguments, {"machine": common.machine(), "setting": setting, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
