"""Secure aggregation: what a client and the server spend, what crosses the wire, masks a second.

    python -m benchmarks.secagg [--peers PYTHON] [--repeats 9]

A hundred clients with 50 neighbours each, 16 bits. Times are the processor's: of one client's
`share` and `upload`, the median over clients, and of the server's `total` where a fifth of the
clients dropped out before they uploaded. Masks: 50 of them made and added to a vector, as a client
does, beside Flower's SecAgg+ that does the same with its own functions, or only makes them; taking
turns in one process. Flower is measured where it can be imported (`--peers` names an interpreter
that has it, and everything then runs there), otherwise its row says why not.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import numpy as np

from benchmarks import common
from fldp.mechanism.secagg import Client, Rules, Server
from fldp.mechanism.secagg_masks import mask_, word_of

CLIENTS, NEIGHBOURS, BITS = 100, 50, 16
# A plan that tolerates a fifth of dropouts and a twentieth of colluders.
SURVIVORS, COLLUDERS = 75, 5
SIZES = (10_000, 1_000_000)
MASK_SIZE = 1_000_000
Row = dict[str, Any]
Answer = TypeVar("Answer")


def processor(run: Callable[[], Answer]) -> tuple[Answer, float]:
    """What a call answers, and the processor's milliseconds."""
    start = time.process_time()
    answer = run()
    return answer, 1e3 * (time.process_time() - start)


class Costs:
    """One round, measured as it goes; the sum is compared with the plain one."""

    def __init__(self, size: int) -> None:
        self.rules = Rules(CLIENTS, size, BITS, SURVIVORS, COLLUDERS, degree=NEIGHBOURS)
        self.server = Server(self.rules)
        self.times: dict[str, list[float]] = {"share": [], "upload": [], "unmask": []}
        self.up = 0
        self.down = 0

    def timed(self, name: str, run: Callable[[], Answer]) -> Answer:
        answer, taken = processor(run)
        self.times[name].append(taken)
        return answer

    def measure(self) -> Row:
        rules, server = self.rules, self.server
        clients = [Client(rules, number) for number in range(CLIENTS)]
        generator = np.random.default_rng(0)
        for client in clients:
            keys = client.advertise()
            server.add_keys(keys)
        boxes = []
        for client in clients:
            peers = server.keys_for(client.me)
            boxes = self.timed("share", lambda client=client, peers=peers: client.share(peers))
            server.add_shares(boxes)
        wanted = np.zeros(rules.size, np.int64)
        # The last of them is whom the bytes are counted for.
        for client in clients[CLIENTS - rules.min_uploads :]:
            vector = generator.integers(0, 1 << BITS, rules.size)
            wanted += vector
            own = server.shares_for(client.me)
            upload = self.timed(
                "upload", lambda client=client, own=own, v=vector: client.upload(own, v)
            )
            server.add_upload(upload)
        request = server.request()
        for client in clients[CLIENTS - rules.min_uploads :]:
            answer = self.timed("unmask", lambda client=client: client.unmask(request))
            server.add_answer(answer)
        total, taken = processor(server.total)
        if not np.array_equal(total, wanted % (1 << BITS)):
            raise SystemExit("the sum is not exact")
        sent = [keys, *boxes, upload, answer]
        received = [*peers, *own, request]
        return self.row(taken, sum(map(length, sent)), sum(map(length, received)))

    def row(self, server_ms: float, up: int, down: int) -> Row:
        middle = {name: statistics.median(times) for name, times in self.times.items()}
        return {
            "clients": CLIENTS,
            "neighbours": NEIGHBOURS,
            "size": self.rules.size,
            "bits": BITS,
            "dropped": CLIENTS - self.rules.min_uploads,
            **{f"{name}_ms": round(taken, 3) for name, taken in middle.items()},
            "client_ms": round(sum(middle.values()), 3),
            "server_total_ms": round(server_ms, 1),
            "bytes_up": up,
            "bytes_down": down,
            "up_over_plain": round(up / (self.rules.size * BITS / 8), 5),
        }


def length(message: Any) -> int:
    return len(message.to_bytes())


class Flower:
    """What a client of Flower's SecAgg+ does with its masks: make each, add it, and so on."""

    def __init__(self) -> None:
        from flwr.common.secure_aggregation import ndarrays_arithmetic, secaggplus_utils

        self.make = secaggplus_utils.pseudo_rand_gen
        self.add = ndarrays_arithmetic.parameters_addition
        self.version = version("flwr")

    def masks(self, keys: list[bytes], bits: int) -> None:
        """Make masks, and throw them away."""
        for key in keys:
            self.make(key, 1 << bits, [(MASK_SIZE,)])

    def masked(self, keys: list[bytes], bits: int) -> None:
        """Add masks to a vector."""
        vector = [np.zeros(MASK_SIZE, np.int64)]
        for key in keys:
            vector = self.add(vector, self.make(key, 1 << bits, [(MASK_SIZE,)]))


def found_flower() -> Flower | str:
    """Flower, or why it is not measured."""
    try:
        return Flower()
    except (ImportError, PackageNotFoundError) as error:
        return f"not measured: {error}"


def masks(bits: int, repeats: int, flower: Flower | str) -> Row:
    """Milliseconds to add the masks of 50 keys to a million integers, beside Flower's."""
    keys = [os.urandom(32) for _ in range(NEIGHBOURS)]

    def ours() -> None:
        mask_(np.zeros(MASK_SIZE, word_of(bits)), keys)

    contenders: dict[str, Callable[[], Any]] = {"fldp": lambda: processor(ours)[1]}
    row: Row = {"bits": bits, "size": MASK_SIZE, "masks": len(keys)}
    if isinstance(flower, Flower):
        contenders["flower"] = lambda: processor(lambda: flower.masked(keys, bits))[1]
        contenders["flower_making"] = lambda: processor(lambda: flower.masks(keys, bits))[1]
        row["flower"] = flower.version
    else:
        row["flower"] = flower
    found = common.medians(contenders, repeats)
    for name, taken in found.items():
        row[f"{name}_ms"] = round(taken, 2)
        if name != "fldp":
            row[f"{name}_over_fldp"] = round(taken / found["fldp"], 2)
    return row


def main() -> None:
    parser = common.parser(__doc__, "secagg")
    parser.add_argument("--peers", help="an interpreter that has Flower")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    common.one_thread(quiet=True)
    if options.peers:
        raise SystemExit(common.in_peers(options.peers, "benchmarks.secagg", sys.argv[1:]))
    flower = found_flower()
    result = {
        "machine": common.machine(),
        "command": "python -m benchmarks.secagg",
        "rounds": [Costs(size).measure() for size in SIZES],
        "masks": [masks(bits, options.repeats, flower) for bits in (16, 32)],
    }
    for row in (*result["rounds"], *result["masks"]):
        print(row)
    common.write(options, result)


if __name__ == "__main__":
    main()
