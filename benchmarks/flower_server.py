"""What a round costs the server on Flower: 200 replies of 50,000 parameters, all clients asked.

Every measurement is a process of its own, which first runs a small round to load what is loaded
once. Seconds are the processor's, without what the nodes in memory took to answer. Memory is told
twice: by how much the process grew at most (`peak_model_sizes`, which holds torch's memory too), and
what numpy and Python held at most (`peak_traced`). Both hold the replies, which a node makes when
it is asked, and are told in sizes of the model.
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


def one_round(name: str, parameters: int) -> float:
    """The server's seconds of the processor for a round."""
    with tempfile.TemporaryDirectory() as folder:
        strategy = strategy_of(name, Path(folder).resolve())
        grid = Memory(REPLIES, answer)
        begun = time.process_time()
        strategy.start(grid, record(w=np.zeros(parameters, np.float32)), num_rounds=1)
        return time.process_time() - begun - grid.answering


def once(name: str, what: str) -> float:
    """One measurement, in this process."""
    common.one_thread(quiet=True)
    one_round(name, SMALL)
    if what == "cpu_seconds":
        return one_round(name, PARAMETERS)
    size = WIDTH * PARAMETERS
    if what == "peak_model_sizes":
        return common.growth(lambda: one_round(name, PARAMETERS)) * 2**20 / size
    tracemalloc.start()
    one_round(name, PARAMETERS)
    return tracemalloc.get_traced_memory()[1] / size


def apart(name: str, what: str) -> float:
    """One measurement, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.flower_server", name, what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure(repeats: int) -> dict[str, Any]:
    """Medians of every contender, in turns."""
    kinds = ("cpu_seconds", "peak_model_sizes", "peak_traced")
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats):
        for what in kinds:
            for name in CONTENDERS:
                found.setdefault((name, what), []).append(apart(name, what))
    rows = []
    for name in CONTENDERS:
        medians = {what: statistics.median(found[name, what]) for what in kinds}
        rows.append({"name": name, **medians})
    plain = rows[CONTENDERS.index("FedAvg")]["cpu_seconds"]
    for row in rows:
        row["times_fedavg"] = row["cpu_seconds"] / plain
    return {
        "parameters": PARAMETERS,
        "replies": REPLIES,
        "replies_at_once": AT_ONCE,
        "repeats": repeats,
        "allowed_model_sizes": ALLOWED,
        "rows": rows,
    }


if __name__ == "__main__":
    print(json.dumps(once(*sys.argv[1:])))
