"""Training runs killed at random instants and resumed: is the account ever below the truth?

    python -m benchmarks.kill_test [--runs 200] [--seed 0]

Each run trains in a forked process that is sent SIGKILL at a random instant, up to three times, and
is then left to end. The truth is kept by a witness outside the run: the process writes one byte to
a pipe of the parent after every release it makes. An instant is a random number of releases, then a
random fraction of a round: so kills spread over the run however busy the machine is. After each
kill the ledger's account is compared with it. A kill may come between an event on disk and its
release, so each may cost one event that bought nothing, and never the other way round. After some
kills half of a further line is appended, as a torn write leaves it. Prints the counts, writes
`benchmarks/results/kill_test.json`, and exits with status 1 on a violation.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fldp
from benchmarks import common
from fldp.mechanism.aggregation import PrivateAggregator

# Seconds between two looks at whether a run still lives.
_GLANCE = 0.01
ROUNDS, KILLS = 12, 3


def setting() -> tuple[fldp.PrivacyPlan, Any]:
    """A small federation; the plan has room for the rounds that kills may waste."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 8, generator=generator), torch.arange(200) % 3
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=ROUNDS, clients=50, cohort=20)
    return plan, fldp.clients.partition(x, y, clients=50, seed=0)


Work = Callable[[Path, int], Any]  # one attempt at the run in a folder, told to a witness


def train(folder: Path, plan: fldp.PrivacyPlan, people: Any, witness: int) -> fldp.History:
    """One attempt at the run in `folder`; a byte goes to `witness` after each release."""
    release = PrivateAggregator.release

    def witnessed(self: PrivateAggregator, *given: Any) -> Any:
        result = release(self, *given)
        os.write(witness, b"r")
        return result

    PrivateAggregator.release = witnessed  # type: ignore[method-assign]
    try:
        return fldp.train(
            torch.nn.Linear(8, 3), people, plan, clip=fldp.AdaptiveClip(count_noise=10.0),
            server=fldp.FedAvgM(momentum=0.5), ledger=folder / "ledger.jsonl",
            checkpoint=folder / "run.pt", resume=(folder / "run.pt").exists(),
        )  # fmt: skip
    finally:
        PrivateAggregator.release = release  # type: ignore[method-assign]


Kill = tuple[int, float]  # after so many releases, and then so many seconds


def attempt(folder: Path, work: Work, pipe: tuple[int, int], kill: Kill | None) -> tuple[bool, int]:
    """Fork, work, kill (None: never); whether the run came to its end, and its releases."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            history = work(folder, pipe[1])
            accounted = len(history.before) + len(history.events)
            (folder / "ended").write_text(f"{accounted} {history.epsilon[-1]}")
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    released, status = 0, None
    while status is None and (kill is None or released < kill[0]):
        released += seen(pipe[0], _GLANCE)
        gone, code = os.waitpid(child, os.WNOHANG)
        status = code if gone else None
    if status is None:
        time.sleep(kill[1] if kill else 0.0)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    released += seen(pipe[0], 0.0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"a resumed run failed: see above; its files are in {folder}")
    return os.WIFEXITED(status), released


def seen(read: int, patience: float) -> int:
    """How many bytes lie in the pipe, waiting for the first so many seconds."""
    ready, _, _ = select.select([read], [], [], patience)
    return len(os.read(read, 1 << 16)) if ready else 0


def one_run(plan: Any, work: Work, dice: random.Random, a_round: float) -> dict[str, int]:
    """Kill and resume one run under `plan`; counts of kills, wasted events and violations."""
    pipe = os.pipe()
    found = {"kills": 0, "torn": 0, "wasted": 0, "under": 0, "over": 0, "ended": 0}
    released = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = folder / "ledger.jsonl"
        ended = False
        while not ended:
            kill = (dice.randrange(ROUNDS), dice.uniform(0, a_round))
            ended, more = attempt(folder, work, pipe, kill if found["kills"] < KILLS else None)
            found["kills"] += not ended
            released += more
            # Killed before its first line, a ledger has nothing yet that could be cut off.
            if ledger.exists() and b"\n" in ledger.read_bytes():
                events = fldp.Ledger.read(ledger)
                found["under"] += len(events) < released
                found["over"] += len(events) > released + found["kills"]
                found["wasted"] = len(events) - released
                if not ended and dice.random() < 0.3:
                    with open(ledger, "ab") as file:
                        file.write(b'{"round": 3, "event": {"noise')
                    found["torn"] += 1
            else:
                found["under"] += released > 0
        accounted, epsilon = (folder / "ended").read_text().split()
        found["ended"] += 1
        found["under"] += int(accounted) < released
        found["under"] += float(epsilon) < plan.spent([plan.event] * released) * (1 - 1e-9)
        found["over"] += int(accounted) > released + found["kills"]
    for end in pipe:
        os.close(end)
    return found


def measure(runs: int, seed: int) -> dict[str, int]:
    """`runs` killed and resumed runs; the sums of their counts."""
    plan, people = setting()

    def work(folder: Path, witness: int) -> fldp.History:
        return train(folder, plan, people, witness)

    sink, seconds = os.open(os.devnull, os.O_WRONLY), 0.0
    for _ in range(2):  # the first warms up
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _, seconds = common.timed(lambda folder=folder: work(folder, sink))
    os.close(sink)
    dice, total = random.Random(seed), {"runs": runs}
    for _ in range(runs):
        for key, value in one_run(plan, work, dice, seconds / ROUNDS).items():
            total[key] = total.get(key, 0) + value
    return total


def main() -> int:
    parser = common.parser(__doc__, "kill_test")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    common.one_thread()
    found = measure(arguments.runs, arguments.seed)
    print(
        f"{found['runs']} runs, {found['kills']} kills, {found['torn']} torn lines; "
        f"{found['ended']} runs ended, {found['wasted']} events bought nothing\n"
        f"accounts below the truth: {found['under']}; more than one round a kill above it: "
        f"{found['over']}"
    )
    common.write(arguments, {"machine": common.machine(), **found})
    return int(bool(found["under"] or found["over"] or found["ended"] < found["runs"]))


if __name__ == "__main__":
    sys.exit(main())
