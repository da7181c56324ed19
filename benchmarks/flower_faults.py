"""The faults F1 to F13 of Flower's own privacy, run on the version that is installed.

    python -m benchmarks flower_faults

Each fault is a function that has the installed code compute a number, and says what the number
should be. Prints a table, and writes `benchmarks/results/flower_faults.json` with the versions.
F3 is derived, from the noise that the installed code gives the count; F10 is out of reach under
FedAvg, which refuses such replies. Flower's noise comes from a seed here: see RNG.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MessageType, RecordDict
from flwr.clientapp.mod import LocalDpMod
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as Fixed

import fldp
from benchmarks import common
from benchmarks import flower_faults_server as server
from benchmarks.flower_grid import record, reply_of, sent_by, versions
from benchmarks.flower_round import Finding, along, averaging, moved, values
from benchmarks.tables import table
from benchmarks.tables_flower import HEAD, fault_rows


def local() -> Finding:
    """F11: the noise of LocalDpMod with the settings of a platform for hospitals."""
    clip, sensitivity, epsilon, delta = 1.0, 1e-4, 10.0, 1e-5
    mod = LocalDpMod(clip, sensitivity, epsilon, delta)
    model = RecordDict({"arrays": record(w=along(0, 0.0, server.MANY))})
    message = Message(model, message_type=MessageType.TRAIN, dst_node_id=0)

    def trained(asked: Message, context: Any) -> Message:
        return sent_by(0, reply_of(record(w=along(0, clip, server.MANY))), asked)

    # The mod hands the context on and reads nothing of it.
    reply = mod(message, None, trained)  # type: ignore[arg-type]
    (sent,) = reply.content.array_records.values()
    measured = server.spread_of(values(ArrayRecord(dict(sent))))
    # One client's record in place of another: their updates lie at most 2C apart.
    z = fldp.noise_multiplier(epsilon=epsilon, delta=delta, rounds=1, sampling="none")
    needed = 2 * clip * z
    return Finding(
        "Local noise for a sensitivity that anybody may write down",
        "takes sensitivity as an argument beside the clip, and a formula for ε below 1",
        f"LocalDpMod(1, 1e-4, ε = 10, δ = 1e-5): deviation {measured:.2e}",
        f"{needed:.2f}",
        {"measured": measured, "needed": needed},
        measured < needed * (1 - server.OFF),
    )


def masks() -> Finding:
    """F13: masks of SecAgg+ from two keys of 32 bytes, and a value that is never drawn."""
    dice = np.random.default_rng(0)
    words = dice.integers(0, 2**32, 8, dtype=np.uint32)
    # The same words but two, which change in the same bits: their sum modulo 2 stays.
    other = words.copy()
    other[:2] ^= np.uint32(0xFFFFFFFF)
    first, second = (
        pseudo_rand_gen(key.tobytes(), 2**32, [(server.MANY,)])[0] for key in (words, other)
    )
    equal = float(np.mean(first == second))
    # Of four values each should come in a quarter of all draws.
    top = float(np.mean(pseudo_rand_gen(words.tobytes(), 4, [(server.MANY,)])[0] == 3))
    return Finding(
        "SecAgg+ masks have 32 bits of secret",
        "folds a key of 256 bits into 32 by XOR, seeds numpy's generator with them, and never "
        "draws the highest value",
        f"two keys: {100 * equal:.0f} % of their masks equal; the highest of 4 values: "
        f"{100 * top:.0f} % of draws",
        "0 %; 25 %",
        {"measured": equal, "needed": 0.0, "highest_value": top, "highest_value_needed": 0.25},
        equal > server.OFF,
    )


def replay() -> Finding:
    """RNG: the noise of two runs that numpy was seeded for alike."""
    releases = []
    for _ in range(2):
        seed()
        strategy = Fixed(averaging(), 1.0, 1.0, 1)
        releases.append(moved(strategy, along(0, 1.0, server.MANY)))
    measured = float(np.mean(releases[0] == releases[1]))
    return Finding(
        "The noise is replayed by whoever knows a seed",
        "draws noise from numpy's global generator, which apps seed to make runs repeatable",
        f"np.random.seed(0) twice: {100 * measured:.0f} % of the noise equal",
        "0 %",
        {"measured": measured, "needed": 0.0},
        measured > server.OFF,
    )


def seed() -> None:
    """Flower's noise from here on is the same at every run."""
    np.random.seed(0)  # noqa: NPY002


FAULTS = {
    "F1": server.runaway,
    "F2": server.next_clip,
    "F3": server.count_noise,
    "F4": server.heavy,
    "F5": server.missing,
    "F6": server.after_the_optimiser,
    "F7": server.not_a_number,
    "F8": server.nothing,
    "F9": server.shapeless,
    "F10": server.two_records,
    "F11": local,
    "F12": server.metrics,
    "F13": masks,
    "RNG": replay,
}


def measure() -> list[dict[str, Any]]:
    """Every fault on the installed version."""
    found = []
    for name, run in FAULTS.items():
        seed()
        found.append({"name": name, **asdict(run())})
    return found


def main() -> int:
    arguments = common.parser(__doc__, "flower_faults").parse_args()
    common.one_thread(quiet=True)
    about = versions()
    found = measure()
    print(f"flwr {about['flwr']}")
    print("\n".join(table(HEAD, fault_rows(found))))
    common.write(arguments, {"versions": about, "faults": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
