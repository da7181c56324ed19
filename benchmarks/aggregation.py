"""Private aggregation on a server: `fldp.aggregate` beside other systems and hand-written code.

    python -m benchmarks.aggregation [--peers PYTHON] [--repeats 7] [--dictionaries]

One process, one thread, every contender interleaved with the others, medians; the updates are in
memory already. Flower and pfl-research are measured where they can be imported; otherwise the
table says "not installed". They pin other versions than this project, so they live in an
environment of their own, whose interpreter `--peers` names and the whole benchmark then runs in:

    python -m venv peers && echo "$PWD/.venv/lib/python3.11/site-packages" \
        > peers/lib/python3.11/site-packages/main.pth
    peers/bin/pip install flwr && peers/bin/pip install --no-deps pfl
    python -m benchmarks.aggregation --peers peers/bin/python

The read bandwidth is that of `updates.sum()` in the same run. Peak memory is the growth of a fresh
process's resident set while clients arrive one by one: streamed into `PrivateAggregator`, copied
into one matrix, or stacked by hand-written code.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import common
from fldp.mechanism.aggregation import PrivateAggregator, aggregate
from fldp.mechanism.noise import gaussian_

LARGE = ((100, 1_000_000), (1000, 100_000), (10, 10_000_000))
# The digits of the book's chapters, and its multilayer perceptron among many clients.
SMALL = ((120, 650), (1000, 9610))
# State dicts of a multilayer perceptron on digits, and on MNIST: clients, and weights by shape.
DICTIONARIES = (
    (1000, ((128, 64), (128,), (10, 128), (10,))),
    (1000, ((96, 64), (96,), (32, 96), (32,), (10, 32), (10,))),
    (200, ((512, 784), (512,), (10, 512), (10,))),
)


def layers(d: int) -> list[tuple[int, int]]:
    """Fourteen tensors, from half of the model down to a small head."""
    sizes = [d // 2, d // 4, d // 8, d // 16] + [d // 160] * 9
    ends = np.cumsum([0, *sizes, d - sum(sizes)]).tolist()
    return list(itertools.pairwise(ends))


def hand_loop(clients: list[list[Tensor]]) -> list[Tensor]:
    total = [torch.zeros_like(t) for t in clients[0]]
    for update in clients:
        norm = torch.norm(torch.stack([torch.norm(t) for t in update]))
        scale = min(1.0, 1.0 / (norm.item() + 1e-6))
        for a, t in zip(total, update, strict=True):
            a += t * scale
    return [(a + torch.randn_like(a)) / len(clients) for a in total]


def hand_stack(clients: list[list[Tensor]]) -> Tensor:
    flat = [torch.cat(update) for update in clients]
    total = torch.stack([x * min(1.0, 1.0 / (x.norm().item() + 1e-6)) for x in flat]).sum(0)
    return (total + torch.randn_like(total)) / len(clients)


def hand_dict(clients: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The loop that people write: one joint norm, a scaled copy, a running sum, then noise."""
    total = {name: torch.zeros_like(t) for name, t in clients[0].items()}
    for update in clients:
        norm = torch.norm(torch.stack([torch.norm(t) for t in update.values()]))
        scale = min(1.0, 1.0 / (norm.item() + 1e-6))
        for name, t in update.items():
            total[name] += t * scale
    return {name: (t + torch.randn_like(t)) / len(clients) for name, t in total.items()}


def hand_in_place(clients: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The same without the scaled copy: as few passes over memory as there can be."""
    total = {name: torch.zeros_like(t) for name, t in clients[0].items()}
    for update in clients:
        norm = torch.norm(torch.stack([torch.norm(t) for t in update.values()]))
        scale = min(1.0, 1.0 / (norm.item() + 1e-6))
        for name, t in update.items():
            total[name].add_(t, alpha=scale)
    return {name: (t + torch.randn_like(t)) / len(clients) for name, t in total.items()}


def dictionaries(n: int, shapes: Sequence[tuple[int, ...]], repeats: int) -> dict[str, Any]:
    """`aggregate` of state dicts beside a loop over them, and beside the same as one matrix."""
    sizes = [math.prod(shape) for shape in shapes]
    updates = torch.randn(n, sum(sizes), generator=torch.Generator().manual_seed(0)) * 0.01
    clients = [
        {f"{k}": t.view(shapes[k]).clone() for k, t in enumerate(row.split(sizes))}
        for row in updates
    ]
    plan = common.everyone(n)
    seconds = common.medians(
        {
            "fldp": lambda: aggregate(clients, plan) and None,
            "hand-written loop": lambda: hand_dict(clients) and None,
            "hand-written loop, in place": lambda: hand_in_place(clients) and None,
            "fldp, one matrix": lambda: aggregate(updates, plan) and None,
        },
        repeats,
    )
    ours = seconds["fldp"]
    row = {
        "clients": n,
        "tensors": len(shapes),
        "parameters": sum(sizes),
        "milliseconds": {k: round(1000 * v, 2) for k, v in seconds.items()},
        "times_slower_than_fldp": {
            k: round(v / ours, 2) for k, v in seconds.items() if k != "fldp"
        },
    }
    print(f"\ndictionaries of {len(shapes)} tensors, n = {n}, d = {sum(sizes)}")
    for name, value in seconds.items():
        print(f"  {name:28s} {1000 * value:9.1f} ms   {value / ours:6.2f} x fldp")
    return row


def flower(arrays: list[list[np.ndarray]]) -> dict[str, Callable[[], Any]]:
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
    from flwr.supercore import differential_privacy as dp
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("run_id", "node_id", "task_id"):
        setattr(TaskIdentity, name, 1)
    n, zero = len(arrays), [np.zeros_like(a) for a in arrays[0]]

    def record(parts: list[np.ndarray]) -> Any:
        return ArrayRecord({str(k): Array(a) for k, a in enumerate(parts)})

    def replies() -> list[Any]:
        contents = (
            RecordDict({"arrays": record(u), "metrics": MetricRecord({"num-examples": 20})})
            for u in arrays
        )
        return [Message(c, dst_node_id=0, message_type="train") for c in contents]

    def strategy() -> float:
        messages = replies()
        server = DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, n)
        server.current_arrays = record(zero)
        start = time.perf_counter()
        result = server.aggregate_train(1, messages)
        seconds = time.perf_counter() - start
        assert result[0] is not None
        return seconds

    def bare() -> list[np.ndarray]:
        total: dict[int, np.ndarray] = {}
        for update in arrays:
            parts = list(update)
            dp.compute_clip_model_update(parts, zero, 1.0)
            for k, part in enumerate(parts):
                total[k] = total[k] + part * (1 / n) if k in total else part * (1 / n)
        mean = list(total.values())
        dp.add_gaussian_noise_inplace(mean, dp.compute_stdv(1.0, 1.0, n))
        return mean

    return {"Flower DP strategy": strategy, "Flower numpy functions": bare}


def pfl(arrays: list[list[np.ndarray]]) -> dict[str, Callable[[], Any]]:
    from pfl.aggregate.base import SumAggregator
    from pfl.internal.ops import numpy_ops
    from pfl.internal.ops.selector import set_framework_module
    from pfl.privacy.gaussian_mechanism import GaussianMechanism
    from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism
    from pfl.stats import MappedVectorStatistics

    mechanism = CentrallyAppliedPrivacyMechanism(GaussianMechanism(1.0, 1.0))

    def run() -> Any:
        set_framework_module(numpy_ops)
        total = None
        for update in arrays:
            stats = MappedVectorStatistics({str(k): v for k, v in enumerate(update)})
            stats, _ = mechanism.underlying_mechanism.constrain_sensitivity(stats)
            if total is None:
                stats = stats.apply_elementwise(np.copy)
            total = SumAggregator().accumulate(accumulated=total, user_stats=stats)
        return mechanism.underlying_mechanism.add_noise(total, len(arrays), seed=1)

    return {"pfl-research numpy": run}


def speed(n: int, d: int, repeats: int) -> dict[str, Any]:
    updates = torch.randn(n, d, generator=torch.Generator().manual_seed(0)) * 0.01
    cuts = layers(d)
    clients = [[u[a:b] for a, b in cuts] for u in updates]
    arrays = [[t.numpy() for t in update] for update in clients]
    plan, seeded = common.everyone(n), torch.Generator().manual_seed(1)
    contenders: dict[str, Callable[[], Any]] = {
        "read": lambda: updates.sum() and None,
        "fldp": lambda: aggregate(updates, plan) and None,
        "fldp, torch generator": lambda: aggregate(updates, plan, generator=seeded) and None,
        "fldp, lists of tensors": lambda: aggregate(clients, plan) and None,
        "hand-written loop": lambda: hand_loop(clients) and None,
        "hand-written stack": lambda: hand_stack(clients) is None and None,
    }
    missing = []
    for name, make in (("Flower", flower), ("pfl-research", pfl)):
        try:
            contenders |= make(arrays)
        except ImportError:
            missing.append(name)
    if d > 1_000_000:
        # Its messages would need several copies of all updates.
        contenders.pop("Flower DP strategy", None)
    seconds = common.medians(contenders, repeats)
    ours = seconds["fldp"]
    row = {
        "clients": n,
        "parameters": d,
        "milliseconds": {k: round(1000 * v, 2) for k, v in seconds.items()},
        "times_slower_than_fldp": {
            k: round(v / ours, 2) for k, v in seconds.items() if k not in ("read", "fldp")
        },
        "share_of_read_bandwidth": round(seconds["read"] / ours, 3),
        "not_installed": missing,
    }
    print(f"\nn = {n}, d = {d}: {100 * row['share_of_read_bandwidth']:.0f} % of read bandwidth")
    for name, value in seconds.items():
        print(f"  {name:26s} {1000 * value:9.1f} ms   {value / ours:6.2f} x fldp")
    for name in missing:
        print(f"  {name:26s} not installed")
    return row


def noise_speed(repeats: int, d: int = 10_000_000) -> dict[str, float]:
    out = torch.zeros(d)
    blocks = out.split(1 << 15)
    legacy = np.random.RandomState(0)
    seconds = common.medians(
        {
            "cryptographic": lambda: gaussian_(out, 1.0) is None and None,
            "torch normal_": lambda: [b.normal_() for b in blocks] and None,
            "numpy legacy, as in Flower": lambda: (
                legacy.normal(0, 1, d).astype(np.float32) is None and None
            ),
        },
        repeats,
    )
    rates = {name: round(d / value / 1e6, 1) for name, value in seconds.items()}
    print("\nnoise, million samples per second:", rates)
    return {**rates, "cryptographic_over_torch": round(
        seconds["torch normal_"] / seconds["cryptographic"], 3)}  # fmt: skip


def memory_child(kind: str, n: int, d: int) -> None:
    """Print the growth of this process's resident set, in MiB, over one round."""
    plan, generator = common.everyone(n), torch.Generator().manual_seed(0)
    cuts = layers(d)
    # Whatever is loaded on first use is not the round's: a round of 2^19 elements goes before.
    aggregate(torch.zeros(n, 2**19 // n), plan)
    hand_stack([[torch.zeros(2)]])

    def stream() -> Iterator[list[Tensor]]:
        for _ in range(n):
            update = torch.randn(d, generator=generator)
            yield [update[a:b] for a, b in cuts]

    def one_round() -> None:
        if kind == "stream":
            aggregator = PrivateAggregator([torch.zeros(b - a) for a, b in cuts], plan)
            for update in stream():
                aggregator.add(update)
            aggregator.release()
        elif kind == "matrix":
            matrix = torch.empty(n, d)
            for row, update in zip(matrix, stream(), strict=True):
                row.copy_(torch.cat(update))
            aggregate(matrix, plan)
        else:
            hand_stack(list(stream()))

    print(common.growth(one_round))


def memory(n: int, d: int) -> dict[str, Any]:
    peaks = {}
    # Large blocks are then given back at once: holes in the heap are no part of what is measured.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    for kind in ("stream", "matrix", "stack"):
        command = [sys.executable, "-m", "benchmarks.aggregation", "--memory", kind, str(n), str(d)]
        result = subprocess.run(command, check=True, capture_output=True, env=environment)
        peaks[kind] = float(result.stdout)
    row = {"clients": n, "parameters": d, "stream_mib": round(peaks["stream"], 1),
           "matrix_mib": round(peaks["matrix"], 1), "stack_mib": round(peaks["stack"], 1),
           "stack_over_stream": round(peaks["stack"] / max(peaks["stream"], 1.0), 1)}  # fmt: skip
    print(f"peak memory, n = {n}, d = {d}: {row}")
    return row


def main() -> None:
    parser = common.parser(__doc__, "aggregation")
    parser.add_argument("--peers", help="an interpreter that has Flower and pfl-research")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--dictionaries",
        action="store_true",
        help="measure these alone, and keep the other results",
    )
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    common.one_thread(quiet=True)
    if options.memory:
        memory_child(options.memory[0], int(options.memory[1]), int(options.memory[2]))
        return
    if options.peers:
        raise SystemExit(common.in_peers(options.peers, "benchmarks.aggregation", sys.argv[1:]))
    result = common.read(options.output)
    result["dictionaries"] = [dictionaries(n, d, 5 * options.repeats) for n, d in DICTIONARIES]
    if not options.dictionaries:
        result = {
            "machine": common.machine(),
            "command": "python -m benchmarks.aggregation",
            "repeats": options.repeats,
            "speed": [speed(n, d, options.repeats) for n, d in LARGE]
            + [speed(n, d, 10 * options.repeats) for n, d in SMALL],
            "dictionaries": result["dictionaries"],
            "noise": noise_speed(options.repeats),
            "memory": [memory(n, d) for n, d in LARGE],
        }
    common.write(options, result)


if __name__ == "__main__":
    main()
