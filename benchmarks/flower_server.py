"""What a round costs the server on Flower: 200 replies of 50,000 parameters, all clients asked.

Seconds are the processor's: from the bytes that nodes sent to the next model, and of that the
strategy's step alone. What nodes take to answer is left out; contenders take turns in one process.
Memory is told twice, each time in a process of its own that has run a small round before: by how
much the process grew at most (`peak_model_sizes`, which holds torch's memory too), and what numpy
and Python held at most (`peak_traced`). Both are in sizes of the model, and hold replies from the
moment in which a node makes them. fldp's aggregator adds updates up in tiles of at most 8 MiB,
which are many sizes of a small model: so `large` tells the growth for a larger one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy

from benchmarks import common
from benchmarks.flower_grid import Memory, record, reply_of
from fldp.flower import Private
from fldp.flower.replies import AT_ONCE

REPLIES, PARAMETERS, SMALL = 200, 50_000, 10
# Bytes of a parameter in float32.
WIDTH = 4
LARGE = 500_000
# What is larger, in bytes, goes back to the system when it is freed: the growth is what is held.
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
# In model sizes: each reply as bytes, as an array and as an update, and what the server keeps.
ALLOWED = 3 * AT_ONCE + 16
CONTENDERS = ("Private(FedAvg)", "FedAvg", "Flower's wrapper")


def strategy_of(name: str, folder: Path) -> Strategy:
    """A contender that asks every node."""
    inner = FedAvg(fraction_evaluate=0.0, min_available_nodes=REPLIES)
    if name == "Private(FedAvg)":
        return Private(inner, common.everyone(REPLIES), 1.0, ledger=folder / "ledger.jsonl")
    if name == "Flower's wrapper":
        return DifferentialPrivacyServerSideFixedClipping(inner, 1.0, 1.0, REPLIES)
    return inner


def answer(node: int, message: Message) -> RecordDict:
    """A node's reply: an update beyond the clip."""
    before = message.content["arrays"]["w"].numpy()
    update = np.random.default_rng(node).standard_normal(len(before), np.float32)
    return reply_of(record(w=before + update))


def one_round(name: str, parameters: int, *, packed: bool = True) -> tuple[float, float]:
    """The server's seconds of the processor for a round, and of these the strategy's."""
    with tempfile.TemporaryDirectory() as folder:
        strategy = strategy_of(name, Path(folder).resolve())
        grid = Memory(REPLIES, answer, packed=packed)
        begun = time.process_time()
        strategy.start(grid, record(w=np.zeros(parameters, np.float32)), num_rounds=1)
        seconds = time.process_time() - begun - grid.answering
    return seconds, seconds - grid.unpacking


def memory(name: str, what: str, parameters: int) -> float:
    """One measurement of memory in this process, in sizes of the model."""
    common.one_thread(quiet=True)
    one_round(name, SMALL, packed=False)

    def run() -> None:
        # Bytes of the nodes would be counted as the server's.
        one_round(name, parameters, packed=False)

    size = WIDTH * parameters
    if what == "peak_model_sizes":
        return common.growth(run) * 2**20 / size
    tracemalloc.start()
    run()
    return tracemalloc.get_traced_memory()[1] / size


def apart(name: str, what: str, parameters: int = PARAMETERS) -> float:
    """One measurement of memory, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.flower_server", name, what, str(parameters)]
    environment = {**os.environ, **GIVEN_BACK}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure(repeats: int, memories: int = 3) -> dict[str, Any]:
    """Medians of every contender, in turns; of memory, which hardly varies, so many `memories`."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in CONTENDERS}

    def keep(name: str, what: str, value: float) -> None:
        found[name].setdefault(what, []).append(value)

    for turn in range(repeats + 1):
        for name in CONTENDERS:
            whole, step = one_round(name, PARAMETERS)
            # The first turn warms up.
            if turn > 0:
                keep(name, "cpu_seconds", whole)
                keep(name, "cpu_seconds_step", step)
    for _ in range(memories):
        for what in ("peak_model_sizes", "peak_traced"):
            for name in CONTENDERS:
                keep(name, what, apart(name, what))
    large = [apart(CONTENDERS[0], "peak_model_sizes", LARGE) for _ in range(memories)]
    rows = []
    for name, all_of in found.items():
        rows.append({"name": name, **{what: statistics.median(all_of[what]) for what in all_of}})
    plain = rows[CONTENDERS.index("FedAvg")]
    for row in rows:
        row["times_fedavg"] = row["cpu_seconds"] / plain["cpu_seconds"]
        row["times_fedavg_step"] = row["cpu_seconds_step"] / plain["cpu_seconds_step"]
    return {
        "parameters": PARAMETERS,
        "replies": REPLIES,
        "replies_at_once": AT_ONCE,
        "repeats": repeats,
        "allowed_model_sizes": ALLOWED,
        "rows": rows,
        "large": {
            "name": CONTENDERS[0],
            "parameters": LARGE,
            "peak_model_sizes": statistics.median(large),
        },
    }


if __name__ == "__main__":
    print(json.dumps(memory(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
