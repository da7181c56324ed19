"""A server and its clients as processes of their own; some are killed, and the sum is still exact.

    python examples/secagg/run.py [--clients 10] [--kill shares=0 upload=3,4 answer=7]

Exits with status 0 if the sum over who uploaded is exact, 1 if the server skipped the round because
too few were left.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from client import STEPS, vector

from fldp.mechanism.secagg import Rules

HERE = Path(__file__).resolve().parent


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def read(text: str) -> tuple[str, list[int]]:
    """`upload=3,4`: a step and who is killed before it."""
    step, _, clients = text.partition("=")
    if step not in STEPS:
        raise argparse.ArgumentTypeError(f"{step!r} is none of {', '.join(STEPS)}")
    return step, [int(client) for client in clients.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--min-survivors", type=int, default=6)
    parser.add_argument("--colluders", type=int, default=1)
    parser.add_argument("--kill", type=read, nargs="*",
                        default=[("shares", [0]), ("upload", [3, 4]), ("answer", [7])])  # fmt: skip
    options = parser.parse_args()
    killed = dict(options.kill)
    doomed = {client: step for step, clients in killed.items() for client in clients}
    promised = ("--min-survivors", options.min_survivors, "--colluders", options.colluders)

    processes: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "sum.npy"
        server = start(
            "server.py", "--clients", options.clients, "--size", options.size,
            "--output", output, *promised,
        )  # fmt: skip
        processes.append(server)
        try:
            port = line_of(server).split()[1]
            for me in range(options.clients):
                stop = ("--stop-before", doomed[me]) if me in doomed else ()
                processes.append(start("client.py", "--port", port, "--me", me, *promised, *stop))
            for step in STEPS:
                for me in killed.get(step, []):
                    # It says so when it has come to that step; the server is the first process.
                    line_of(processes[1 + me])
                    processes[1 + me].kill()
                    print(f"killed client {me} before the step '{step}'", flush=True)
            assert server.stdout is not None
            print(server.stdout.read(), end="")
            server.wait()
        finally:
            for process in processes:
                process.kill()
                process.wait()
        if server.returncode:
            return 1
        total = np.load(output)

    rules = Rules(options.clients, options.size, 16, options.min_survivors, options.colluders)
    gone = {*killed.get("shares", []), *killed.get("upload", [])}
    kept = [vector(rules, me) for me in range(options.clients) if me not in gone]
    exact = bool((np.sum(kept, axis=0) % (1 << rules.bits) == total).all())
    print(f"the sum of {len(kept)} vectors of {rules.size} integers is exact: {exact}")
    return 0 if exact else 2


if __name__ == "__main__":
    sys.exit(main())
