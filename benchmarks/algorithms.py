"""Local algorithms on digits at ε = 8, without privacy, and DP-SGD in the clients: one table.

    python -m benchmarks.algorithms [--seeds 5]

The same work for everybody: a linear model, T = 60 rounds, five local epochs, δ = 1e-3, one thread.
Two federations of 1,440 images: 480 clients of three images of one digit each, a quarter of them a
round; and 24 clients of 60 random images, all of them every round. Client level means central
trust, add-or-remove; local trust is the same noise on every message. DP-SGD is record level, noise
in every local step, by Opacus: another guarantee, for records and not for clients, but against the
server too. Learning rates come from the grids below, by accuracy on two seeds that are not counted
(one for DP-SGD, which takes longest): digits are public; on private data that choice would have to
be paid for.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

import fldp
from benchmarks import common

EPSILON, DELTA, ROUNDS, EPOCHS, TRAIN, CLIP = 8.0, 1e-3, 60, 5, 1440, 1.0
FEDERATIONS: dict[str, dict[str, Any]] = {
    "480 clients, 3 images of one digit": {
        "clients": 480, "cohort": 120, "scheme": "shards", "shards": 1,
    },
    "24 clients, 60 random images": {"clients": 24, "cohort": None, "scheme": "iid"},
}  # fmt: skip
CLIENT_RATES, TUNING = (0.1, 0.3, 1.0, 3.0), (100, 101)
MOMENTUM = fldp.FedAvgM(lr=1.0, momentum=0.5)
ALGORITHMS: dict[str, tuple[list[Any], list[Any]]] = {  # what clients run, what the server runs
    "FedAvg": ([fldp.LocalSGD(lr=r, epochs=EPOCHS) for r in CLIENT_RATES], [MOMENTUM]),
    "FedProx": (
        [fldp.FedProx(lr=r, epochs=EPOCHS, proximal=mu) for r in CLIENT_RATES for mu in (0.1, 1.0)],
        [MOMENTUM],
    ),
    "SCAFFOLD": (
        [
            fldp.Scaffold(lr=r, epochs=EPOCHS, control_scale=s)
            for r in CLIENT_RATES
            for s in (1.0, 3.0, 10.0)
        ],
        [MOMENTUM],
    ),
    "FedAdam": (
        [fldp.LocalSGD(lr=r, epochs=EPOCHS) for r in CLIENT_RATES],
        [fldp.FedAdam(lr=r, eps=eps) for r in (0.03, 0.1, 0.3) for eps in (0.01, 0.1)],
    ),
}
DPSGD_RATES = (0.1, 0.3, 1.0)


def run(
    federation: dict[str, Any], local: Any, server: Any, level: str, seed: int
) -> tuple[float, float]:
    """Test accuracy of one run, and its seconds without calibration and evaluation."""
    x, y = common.digits()
    split = dict(federation)
    clients, cohort = split.pop("clients"), split.pop("cohort")
    people = fldp.clients.partition(x[:TRAIN], y[:TRAIN], clients=clients, seed=seed, **split)
    torch.manual_seed(seed)
    model, plan, clip = nn.Linear(64, 10), None, CLIP
    options: dict[str, Any] = {"rounds": ROUNDS, "cohort": cohort or clients}
    noise = torch.Generator().manual_seed(seed)
    if level == "record":
        records = fldp.calibrate_records(
            epsilon=EPSILON, delta=DELTA, rounds=ROUNDS, local_epochs=EPOCHS, batch_size=10,
            client_sizes=people.sizes, client_sampling_rate=(cohort or clients) / clients,
        )  # fmt: skip
        local, clip = fldp.DPSGD(records, lr=local.lr, generator=noise), None  # type: ignore[assignment]
    elif level != "none":
        plan = fldp.calibrate(
            epsilon=EPSILON, delta=DELTA, rounds=ROUNDS, clients=clients, cohort=cohort, trust=level
        )
        options = {"generator": noise}
    history, seconds = common.timed(
        lambda: fldp.train(
            model, people, plan, clip=clip, local=local, server=server, seed=seed, **options
        )
    )
    return fldp.simulation.training.evaluate(history.model, x[TRAIN:], y[TRAIN:])[0], seconds


def measure(
    federation: dict[str, Any], locals_: Sequence[Any], servers: Sequence[Any], level: str,
    seeds: int,
) -> dict[str, Any]:  # fmt: skip
    """The best of the grid on the tuning seeds, then `seeds` runs of it."""
    grid = list(itertools.product(locals_, servers))
    tuning = TUNING[:1] if level == "record" else TUNING  # a run of DP-SGD takes minutes
    score = [
        statistics.mean(run(federation, *pair, level, seed)[0] for seed in tuning) for pair in grid
    ]
    local, server = grid[max(range(len(grid)), key=score.__getitem__)]
    runs = [run(federation, local, server, level, seed) for seed in range(seeds)]
    names = {f.name for f in dataclasses.fields(local)} & {"lr", "mu", "control_scale"}
    chosen = {name: getattr(local, name) for name in sorted(names) if getattr(local, name)}
    if isinstance(server, fldp.FedAdam):
        chosen |= {"server_lr": server.lr, "eps": server.eps}
    return {
        "level": level, **common.spread(r[0] for r in runs),
        "seconds_median": statistics.median(r[1] for r in runs), "chosen": chosen,
    }  # fmt: skip


def main() -> int:
    parser = common.parser(__doc__, "algorithms")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    seeds = arguments.seeds
    common.one_thread()
    warnings.filterwarnings("ignore", "delta is")  # 24 clients: said in the table's caption
    rows = []
    for name, federation in FEDERATIONS.items():
        print(f"\n{name}, {ROUNDS} rounds, ε = {EPSILON:g}, δ = {DELTA:g}, {seeds} seeds")
        print(f"{'':12}{'guarantee':>14}{'accuracy':>10}{'± sd':>8}{'s/run':>8}   chosen")
        work = [
            (algorithm, locals_, servers, level)
            for algorithm, (locals_, servers) in ALGORITHMS.items()
            for level in ("none", "central", *(["local"] if algorithm == "FedAvg" else []))
        ]
        plain = [fldp.LocalSGD(lr=rate) for rate in DPSGD_RATES]
        work.append(("DP-SGD", plain, [MOMENTUM], "record"))
        for algorithm, locals_, servers, level in work:
            row = measure(federation, locals_, servers, level, seeds)
            rows.append({"federation": name, "algorithm": algorithm, **row})
            told = "client, " + level if level in ("central", "local") else level
            chosen = ", ".join(f"{k} {v:g}" for k, v in row["chosen"].items())
            print(
                f"{algorithm:12}{told:>14}{row['accuracy_mean']:>10.3f}"
                f"{row['accuracy_sd'] or 0:>8.3f}{row['seconds_median']:>8.2f}   {chosen}",
                flush=True,
            )
    setting = {"epsilon": EPSILON, "delta": DELTA, "rounds": ROUNDS, "local_epochs": EPOCHS,
               "clip": CLIP, "seeds": seeds, "tuning_seeds": TUNING}  # fmt: skip
    document = {"machine": common.machine(), "setting": setting, "rows": rows}
    common.write(arguments, document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
