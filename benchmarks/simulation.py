"""Simulated federated rounds: `fldp.LocalSGD` beside a plain loop and other systems.

    python -m benchmarks.simulation [--device cuda] [--peers PYTHON] [--repeats 5]

A round is: 100 clients of 20 records each train one epoch in batches of 10; every update is clipped
and summed; noise is added once. One process and one thread, contenders interleaved, medians. Opacus
runs DP-SGD inside the clients: a different (record-level) guarantee, on the same work. Flower (its
Ray simulation with server-side DP, on all CPUs) and pfl-research are measured where they can be
imported, else the table says "not installed"; `--peers` names an interpreter that has them, and the
whole benchmark then runs there. Compare ratios inside one run, not seconds between runs.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import common
from fldp.mechanism.aggregation import PrivateAggregator
from fldp.mechanism.updates import flatten
from fldp.simulation.clients import Population
from fldp.simulation.local import LocalSGD
from fldp.simulation.sampling import Poisson

RATE, CLIP, NOISE, BATCH, RECORDS = 0.05, 0.5, 1.0, 10, 20
Round = Callable[[], Any]


def logistic() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 10))


def mlp(width: int = 128) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "logistic 64-10": (logistic, (64,)),
    "MLP 64-128-10": (mlp, (64,)),
    "CNN 20k on 28x28": (cnn, (1, 28, 28)),
}
# What the project promised: at least this many times faster.
GOALS = {
    "plain loop": (20, 6, 2),
    "Flower": (100, 50, 5),
    "pfl-research": (25, 8, 2.2),
    "Opacus DP-SGD clients": (None, 12, 4),
}


def population(shape: tuple[int, ...], clients: int, records: int = RECORDS) -> Population:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(clients * records, *shape, generator=generator)
    y = torch.randint(0, 10, (clients * records,), generator=generator)
    return Population(x, y, torch.arange(clients * records).view(clients, records))


def fldp_round(
    model: nn.Module, people: Population, ids: Any = None, device: str = "cpu", **settings: Any
) -> Round:
    local = LocalSGD(lr=RATE, batch_size=BATCH, **settings)
    model, people = copy.deepcopy(model).to(device), people.to(device)
    flat, plan = flatten(model), common.everyone(len(people))
    ids = range(len(people)) if ids is None else ids
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        aggregator = PrivateAggregator(flat, plan, CLIP)
        for chunk in local.updates(model, flat, people, ids, generator):
            aggregator.add(chunk)
        flat.add_(aggregator.release().mean)

    return run


def plain_round(model: nn.Module, people: Population, device: str = "cpu") -> Round:
    """The loop that a user of torch writes first."""
    model = copy.deepcopy(model).to(device)
    own, loss_of, people = copy.deepcopy(model), nn.CrossEntropyLoss(), people.to(device)

    def run() -> None:
        start = {k: v.clone() for k, v in model.state_dict().items()}
        before = [p.detach().clone() for p in model.parameters()]
        total = [torch.zeros_like(p) for p in before]
        for i in range(len(people)):
            x, y = people.client(i)
            own.load_state_dict(start)
            optimiser = torch.optim.SGD(own.parameters(), lr=RATE)
            for picked in torch.randperm(len(y)).to(device).split(BATCH):
                optimiser.zero_grad()
                loss_of(own(x[picked]), y[picked]).backward()
                optimiser.step()
            update = [p.detach() - b for p, b in zip(own.parameters(), before, strict=True)]
            norm = torch.sqrt(sum((u**2).sum() for u in update))
            scale = min(1.0, CLIP / float(norm))
            for a, u in zip(total, update, strict=True):
                a += u * scale
        with torch.no_grad():
            for p, b, a in zip(model.parameters(), before, total, strict=True):
                p.copy_(b + (a + torch.randn_like(a) * NOISE * CLIP) / len(people))

    return run


def opacus_round(model: nn.Module, people: Population) -> Round:
    """The same loop with record-level DP-SGD from Opacus inside each client."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model, loss_of = copy.deepcopy(model), nn.CrossEntropyLoss()
    own = GradSampleModule(copy.deepcopy(model))

    def run() -> None:
        start = {f"_module.{k}": v.clone() for k, v in model.state_dict().items()}
        total = [torch.zeros_like(p) for p in model.parameters()]
        for i in range(len(people)):
            x, y = people.client(i)
            own.load_state_dict(start)
            optimiser = DPOptimizer(
                torch.optim.SGD(own.parameters(), lr=RATE), noise_multiplier=NOISE,
                max_grad_norm=1.0, expected_batch_size=BATCH,
            )  # fmt: skip
            for picked in torch.randperm(len(y)).split(BATCH):
                optimiser.zero_grad()
                loss_of(own(x[picked]), y[picked]).backward()
                optimiser.step()
            for a, p, b in zip(total, own.parameters(), model.parameters(), strict=True):
                a += p.detach() - b.detach()
        with torch.no_grad():
            for p, a in zip(model.parameters(), total, strict=True):
                p.add_(a / len(people))

    return run


def pfl_round(make: Callable[[], nn.Module], people: Population) -> Round:
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.common_types import Population as Part
    from pfl.context import CentralContext
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel
    from pfl.privacy.gaussian_mechanism import GaussianMechanism
    from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism

    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make()

        def loss(self, x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(self.inner(x), y)

        def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
            return {}

    module, turn = Trained(), iter(range(10**9))
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    users = [Dataset(raw_data=list(people.client(i))) for i in range(len(people))]
    data = FederatedDataset(
        lambda user: users[user], (lambda: next(turn) % len(users)), user_id_to_weight=None
    )
    privacy = CentrallyAppliedPrivacyMechanism(GaussianMechanism(CLIP, NOISE))
    backend, algorithm = SimulatedBackend(data, data, [privacy]), FederatedAveraging()
    train = NNTrainHyperParams(local_batch_size=BATCH, local_num_epochs=1, local_learning_rate=RATE)
    number = iter(range(10**9))

    def run() -> None:
        context = CentralContext(
            current_central_iteration=next(number), do_evaluation=False, cohort_size=len(users),
            population=Part.TRAIN, model_train_params=train, seed=next(number),
            algorithm_params=NNAlgorithmParams(
                central_num_iterations=10**9, evaluation_frequency=10**9, val_cohort_size=0,
                train_cohort_size=len(users),
            ),
        )  # fmt: skip
        statistics_, _ = backend.gather_results(model, algorithm, central_context=context)
        algorithm.process_aggregated_statistics(context, Metrics(), model, statistics_)

    return run


def flower_child(name: str, clients: int, rounds: int) -> None:
    """Print the seconds of every round of Flower's simulation with its server-side DP strategy."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
    from flwr.simulation import run_simulation

    make, shape = MODELS[name]
    client, server = ClientApp(), ServerApp()
    marks: list[float] = []

    @client.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(int(context.node_config["partition-id"]))
        x = torch.randn(RECORDS, *shape, generator=generator)
        y = torch.randint(0, 10, (RECORDS,), generator=generator)
        model = make()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
        for picked in torch.randperm(RECORDS).split(BATCH):
            optimiser.zero_grad()
            F.cross_entropy(model(x[picked]), y[picked]).backward()
            optimiser.step()
        content = RecordDict({
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": RECORDS}),
        })  # fmt: skip
        return Message(content=content, reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        inner = FedAvg(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients,
            min_available_nodes=clients,
        )  # fmt: skip
        strategy = DifferentialPrivacyServerSideFixedClipping(inner, NOISE, CLIP, clients)
        strategy.start(
            grid, ArrayRecord(make().state_dict()), num_rounds=rounds,
            evaluate_fn=lambda turn, arrays: marks.append(time.perf_counter()),
        )  # fmt: skip

    logging.disable(logging.CRITICAL)
    run_simulation(server, client, clients, backend_config={
        "client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": os.cpu_count()},
    })  # fmt: skip
    print("ROUNDS", json.dumps([b - a for a, b in itertools.pairwise(marks)]))


def flower(name: str, clients: int, rounds: int = 5) -> float | None:
    """Median seconds of a Flower round after the first, or None where Flower or Ray is missing."""
    command = [sys.executable, "-m", "benchmarks.simulation", "--flower", name, str(clients),
               str(rounds)]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    except subprocess.TimeoutExpired:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith("ROUNDS")]
    times = json.loads(lines[-1][7:])[1:] if lines else []
    return statistics.median(times) if times else None


def measure(contenders: dict[str, Round], repeats: int, device: str = "cpu") -> dict[str, float]:
    """Median seconds of each, interleaved: in its turn each runs for 50 ms, or once."""
    settle = torch.cuda.synchronize if device == "cuda" else None
    return common.medians(contenders, repeats, at_least=0.05, settle=settle)


def installed(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def speed(name: str, repeats: int, device: str, clients: int = 100) -> dict[str, Any]:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model, people = make(), population(shape, clients)
    contenders = {"fldp": fldp_round(model, people, device=device)}
    contenders["plain loop"] = plain_round(model, people, device)
    missing = []
    if device == "cpu":
        contenders["fldp, torch.func"] = fldp_round(model, people, engine="vmap")
        for peer, module, start in (
            ("Opacus DP-SGD clients", "opacus", lambda: opacus_round(model, people)),
            ("pfl-research", "pfl", lambda: pfl_round(make, people)),
        ):
            if installed(module):
                contenders[peer] = start()
            else:
                missing.append(peer)
    seconds = measure(contenders, repeats, device)
    if device == "cpu":
        theirs = flower(name, clients) if installed("flwr") and installed("ray") else None
        again = measure({"fldp": contenders["fldp"]}, repeats)["fldp"]
        if theirs is None:
            missing.append("Flower")
        else:
            # Flower ran in between; the ratio takes the slower of our two medians.
            seconds["Flower"] = theirs * seconds["fldp"] / max(seconds["fldp"], again)
    ours = seconds["fldp"]
    ratios = {k: round(v / ours, 2) for k, v in seconds.items() if k != "fldp"}
    print(f"\n{name}, {flatten(model).numel()} parameters, {clients} clients, {device}")
    place = list(MODELS).index(name)
    for peer, value in seconds.items():
        goal = GOALS.get(peer, (None,) * 3)[place] if device == "cpu" else None
        told = (
            ""
            if goal is None
            else f"   goal {goal:g}: {'met' if value / ours >= goal else 'MISSED'}"
        )
        print(f"  {peer:24s} {1000 * value:9.2f} ms   {value / ours:7.2f} x fldp{told}")
    for peer in missing:
        print(f"  {peer:24s} not installed")
    return {
        "model": name, "parameters": flatten(model).numel(), "clients": clients,
        "milliseconds": {k: round(1000 * v, 3) for k, v in seconds.items()},
        "times_slower_than_fldp": ratios, "not_installed": missing,
    }  # fmt: skip


def growth(repeats: int, device: str) -> dict[str, list[dict[str, float]]]:
    """Milliseconds of a round as the cohort, the model and the population grow."""
    found: dict[str, list[dict[str, float]]] = {"cohort": [], "parameters": [], "population": []}
    for clients in (10, 30, 100, 300, 1000):
        people, model = population((64,), clients), mlp()
        runs = {"fldp": fldp_round(model, people, device=device)}
        if clients <= 300:
            runs["plain loop"] = plain_round(model, people, device)
        found["cohort"].append({"clients": clients, **_row(measure(runs, repeats, device))})
    for width in (16, 64, 256, 1024, 4096, 13000):
        people, model = population((64,), 20), mlp(width)
        runs = {
            "fldp": fldp_round(model, people, device=device),
            "plain loop": plain_round(model, people, device),
        }
        row = {"parameters": flatten(model).numel(), **_row(measure(runs, repeats, device))}
        found["parameters"].append(row)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(100_000, 64), torch.randint(0, 10, (100_000,))
    for clients in (1000, 10_000, 100_000, 1_000_000):
        people = Population(x, y, torch.randint(100_000, (clients, 5), generator=generator))
        sampler = Poisson(300 / clients)
        model = logistic()

        def run(people: Population = people, sampler: Poisson = sampler,
                model: nn.Module = model) -> None:  # fmt: skip
            fldp_round(model, people, sampler.sample(len(people), generator), device)()

        row = _row(measure({"fldp": run}, repeats, device))
        found["population"].append({"clients": clients, "expected_cohort": 300, **row})
    for name, rows in found.items():
        print(f"\ngrowth with {name}")
        for row in rows:
            print("  " + "   ".join(f"{k} {v:g}" for k, v in row.items()))
    return found


def _row(seconds: dict[str, float]) -> dict[str, float]:
    row = {f"{name} (ms)": round(1000 * value, 2) for name, value in seconds.items()}
    if "plain loop" in seconds:
        row["plain / fldp"] = round(seconds["plain loop"] / seconds["fldp"], 2)
    return row


def memory_child(name: str, clients: int) -> None:
    """Print the growth of this process's resident set over one round, in MiB; Linux only."""
    make, shape = MODELS[name]
    model, people = make(), population(shape, clients)
    fldp_round(model, population(shape, 2))()
    run = fldp_round(model, people)
    print(common.growth(run))


def memory() -> list[dict[str, Any]]:
    found = []
    for name in list(MODELS)[1:]:
        for clients in (100, 1000):
            command = [
                sys.executable,
                "-m",
                "benchmarks.simulation",
                "--memory",
                name,
                str(clients),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append({"model": name, "clients": clients, "mib": round(float(done.stdout), 1)})
            print(f"peak memory of a round, {name}, {clients} clients: {found[-1]['mib']} MiB")
    return found


def main() -> None:
    parser = common.parser(__doc__, "simulation")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--peers", help="an interpreter that has Flower with Ray and pfl-research")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--no-growth", action="store_true", help="speed and memory only")
    parser.add_argument("--flower", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    common.one_thread(quiet=True)
    if options.flower:
        flower_child(options.flower[0], int(options.flower[1]), int(options.flower[2]))
        return
    if options.memory:
        memory_child(options.memory[0], int(options.memory[1]))
        return
    if options.peers:
        raise SystemExit(common.in_peers(options.peers, "benchmarks.simulation", sys.argv[1:]))
    device = options.device
    result = common.read(options.output)
    if device == "cuda" and not torch.cuda.is_available():
        print("cuda: not measured, no GPU here")
        result["cuda"] = "not measured: no GPU at hand"
    else:
        result[device] = {
            "machine": common.machine(),
            "accelerator": torch.cuda.get_device_name() if device == "cuda" else None,
            "repeats": options.repeats,
            "speed": [speed(name, options.repeats, device) for name in options.models],
        }
        if device == "cpu":
            result[device]["memory"] = memory()
        if not options.no_growth:
            result[device]["growth"] = growth(options.repeats, device)
    result.setdefault("cuda", "not measured: no GPU at hand")
    common.write(options, result)


if __name__ == "__main__":
    main()
