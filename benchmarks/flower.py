"""fldp on Flower beside Flower itself: accuracy, what a round costs the server, and kills.

    python -m benchmarks flower

Runs in Flower's own environment, `.cache/flower`, on a grid in memory: no sockets, no Ray. Digits
of 480 clients under `Private(FedAvgM)`, `fldp.train`, plain FedAvgM and Flower's wrapper for
privacy; processor and memory of a server's round of 200 replies; server apps killed at random
instants. Writes `benchmarks/results/flower.json`, and exits with status 1 where an account was
below the truth, or more than one event a kill above it. `--parts` measures some parts anew.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import common, flower_digits, flower_kills, flower_server
from benchmarks.flower_grid import machine, versions

PARTS = ("digits", "server", "kills")


def told(document: dict[str, Any]) -> None:
    """Print what was measured."""
    for row in document.get("digits", {}).get("rows", []):
        print(f"{row['name']:>18} {row['accuracy_mean']:.4f} ± {row['accuracy_sd'] or 0:.4f}")
    for row in document.get("server", {}).get("rows", []):
        print(
            f"{row['name']:>18} {row['cpu_seconds']:.3f} s, {row['times_fedavg']:.2f} times FedAvg "
            f"(step alone {row['times_fedavg_step']:.2f}), at most {row['peak_model_sizes']:.1f} "
            f"model sizes ({row['peak_traced']:.1f} traced)"
        )
    print(document.get("server", {}).get("large", ""))
    print(document.get("kills", ""))


def main() -> int:
    parser = common.parser(__doc__, "flower")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of the file")
    arguments = parser.parse_args()
    common.one_thread(quiet=True)
    measures = {
        "digits": lambda: flower_digits.measure(arguments.seeds),
        "server": lambda: flower_server.measure(arguments.repeats),
        "kills": lambda: flower_kills.measure(arguments.kills, seed=0),
    }
    document = common.read(arguments.output)
    if document.get("versions") != versions():
        # Parts of other versions do not stand beside these.
        document = {}
    for part in arguments.parts:
        about = {"versions": versions(), "machine": machine()}
        document = {**document, **about, part: measures[part]()}
        common.write(arguments, document, quiet=True)
    told(document)
    kills = document.get("kills", {"under": 0, "over": 0, "ended": 0, "runs": 0})
    return int(bool(kills["under"] or kills["over"] or kills["ended"] < kills["runs"]))


if __name__ == "__main__":
    sys.exit(main())
