"""fldp on Flower beside Flower itself: accuracy, what a round costs the server, and kills.

    python -m benchmarks flower

Runs in Flower's own environment, `.cache/flower`, on a grid in memory: no sockets, no Ray. Digits
of 480 clients under `Private(FedAvgM)`, `fldp.train`, plain FedAvgM and Flower's wrapper for
privacy; processor and memory of a server's round of 200 replies; server apps killed at random
instants. Writes `benchmarks/results/flower.json`, and exits with status 1 where an account was
below the truth, or more than one event a kill above it.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import common, flower_digits, flower_kills, flower_server
from benchmarks.flower_grid import machine, versions


def told(document: dict[str, Any]) -> None:
    """Print what was measured."""
    for row in document["digits"]["rows"]:
        print(f"{row['name']:>18} {row['accuracy_mean']:.4f} ± {row['accuracy_sd'] or 0:.4f}")
    for row in document["server"]["rows"]:
        print(
            f"{row['name']:>18} {row['cpu_seconds']:.3f} s, {row['times_fedavg']:.2f} times FedAvg "
            f"(step alone {row['times_fedavg_step']:.2f}), at most {row['peak_model_sizes']:.1f} "
            f"model sizes ({row['peak_traced']:.1f} traced)"
        )
    large = document["server"]["large"]
    print(f"{large['parameters']:,} parameters: {large['peak_model_sizes']:.1f} model sizes")
    print(document["kills"])


def main() -> int:
    parser = common.parser(__doc__, "flower")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    common.one_thread(quiet=True)
    document = {
        "versions": versions(),
        "machine": machine(),
        "digits": flower_digits.measure(arguments.seeds),
        "server": flower_server.measure(arguments.repeats),
        "kills": flower_kills.measure(arguments.kills, seed=0),
    }
    told(document)
    common.write(arguments, document)
    kills = document["kills"]
    return int(bool(kills["under"] or kills["over"] or kills["ended"] < kills["runs"]))


if __name__ == "__main__":
    sys.exit(main())
