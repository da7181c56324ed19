"""A deployment on this machine, and what can happen to one: a line for each act.

    python deploy.py

A SuperLink with TLS and node authentication, four SuperNodes, and one whose key nobody registered.
While they train a node loses power and comes back, the server's process is killed and its run goes
on in another, a second run wants to write the same account, a third wants more than was promised.
At the end the account is right, or the exit status is 1. Where the system allows it, all of this
happens without any network but the loopback. Needs what `fldp[flower]` installs, and Linux; takes
six to eleven minutes on two busy cores.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import credentials
import flwr
from processes import Fault, Processes, check_place, until

import fldp

APP = Path(__file__).resolve().parent
HOST = "127.0.0.1"
NODES = [f"node-{number}" for number in range(4)]
STRANGER = "stranger"
ROUNDS = 8
# Four clients cannot hide among each other: the deployment is what is shown, not the ε.
EPSILON, DELTA = 8.0, 1e-5
# Seconds that a round waits for a node which lost power: longer than a busy machine needs to train.
ROUND = 60
# Seconds after which something must be wrong: a process of Flower's takes up to a minute to start.
PATIENCE = 300
# What a SuperNode says when it is let in.
LET_IN = "SuperNode ID"
# What a run says of itself after each round.
DONE = rf"round (\d+) of {ROUNDS}"
# Of a printed ε.
DIGITS = 4
# What the operator of every machine sets: Flower then talks to its own machines alone.
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
# From <linux/sockios.h> and <linux/if.h>: set an interface's flags; up.
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


class Deployment:
    """The machines of a federation, all of them here.

    Parameters
    ----------
    folder : Path
        For everything: keys, logs, plan, account.
    """

    def __init__(self, folder: Path) -> None:
        self.plan = fldp.calibrate(
            epsilon=EPSILON, delta=DELTA, rounds=ROUNDS, clients=len(NODES), sampling="none"
        )
        self.folder = folder
        self.ledger = folder / "ledger.jsonl"
        self.checkpoint = folder / "checkpoint.pt"
        self.roster = folder / "roster"
        operators = {
            "FLDP_PLAN": str(folder / "plan.json"),
            "FLDP_LEDGER": str(self.ledger),
            "FLDP_CHECKPOINT": str(self.checkpoint),
            "FLDP_ROSTER": str(self.roster),
        }
        self.processes = Processes(folder, QUIET | operators)
        self.began = time.monotonic()
        self.ports = free_ports(1 + len(NODES) + 1)

    def say(self, act: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s  {act}", flush=True)

    def must(self, holds: bool, act: str) -> None:
        """Print an act that went as it should."""
        if not holds:
            raise Fault(f"this does not hold: {act}")
        self.say(act)

    # Who is there.

    def prepare(self) -> None:
        """Certificates, keys, and the plan: the operator's work."""
        credentials.certificates(self.folder, HOST)
        self.keys = {name: credentials.node_key(self.folder, name) for name in [*NODES, STRANGER]}
        (self.folder / "plan.json").write_text(self.plan.to_json(), encoding="utf-8")
        home = self.folder / "user"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{HOST}:{self.ports[0]}"\n'
            f'root-certificates = "{self.folder / "ca.crt"}"\n',
            encoding="utf-8",
        )

    def start_superlink(self) -> None:
        files = {"ca-certfile": "ca.crt", "certfile": "server.pem", "keyfile": "server.key"}
        tls = [f"--ssl-{option}={self.folder / name}" for option, name in files.items()]
        self.processes.start(
            "superlink",
            "flower-superlink",
            f"--host={HOST}",
            f"--port={self.ports[0]}",
            *tls,
            "--enable-supernode-auth",
            f"--database={self.folder / 'superlink.db'}",
            # What the app needs is installed already, in the version that was tested.
            "--disable-runtime-dependency-installation",
        )
        until("the SuperLink answers", PATIENCE, self._answers)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.ports[0])) == 0

    def start_node(self, name: str) -> None:
        number = [*NODES, STRANGER].index(name)
        self.processes.start(
            name,
            "flower-supernode",
            f"--superlink={HOST}:{self.ports[0]}",
            f"--root-certificates={self.folder / 'ca.crt'}",
            f"--auth-supernode-private-key={self.folder / name}",
            f"--port={self.ports[1 + number]}",
            f"--node-config=partition-id={number % len(NODES)} num-partitions={len(NODES)}",
        )

    def write_roster(self, names: list[str]) -> None:
        self.roster.write_text("\n".join(self.keys[name] for name in names), encoding="utf-8")

    # What whoever submits runs does, and sees.

    def flwr(self, *words: str) -> Any:
        """What a command answers; a Fault where it fails."""
        answer = json.loads(self.processes.ask("user", "flwr", *words, "--format=json"))
        # In this format a command that fails may end with 0 as well.
        if not answer["success"]:
            raise Fault(f"flwr {' '.join(words)}: {answer['error-message'].strip()}")
        return answer

    def online(self) -> list[str]:
        nodes = self.flwr("supernode", "list")["nodes"]
        return sorted(node["node-id"] for node in nodes if node["status"] == "online")

    def submit(self) -> str:
        """A run's number."""
        config = f"round-timeout={float(ROUND)}"
        return str(self.flwr("run", str(APP), "here", f"--run-config={config}")["run-id"])

    def ended(self, run: str) -> str:
        """How a run ended; "" while it goes on."""
        (found,) = self.flwr("list", f"--run-id={run}")["runs"]
        status = str(found["status"])
        return f"{status}: {found['status-details']}" if status.startswith("finished") else ""

    def log(self, run: str) -> str:
        return self.processes.ask("user", "flwr", "log", run, "--show")

    # What the account says.

    def events(self) -> int:
        """How many are on disk."""
        return len(fldp.Ledger.read(self.ledger)) if self.ledger.exists() else 0

    def spend(self, count: int) -> None:
        until(f"{count} events", PATIENCE, lambda: self.events() >= count)

    def trains(self, name: str) -> None:
        """Wait until a node's own process for a message is there."""
        until(f"{name} trains", PATIENCE, lambda: self.processes.running(name, "flwr-clientapp"))


def free_ports(count: int) -> list[int]:
    """Of the loopback; all are taken before any is given back."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind((HOST, 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def connect(here: Deployment) -> list[str]:
    """Everybody comes; the numbers of the nodes that were let in."""
    here.prepare()
    here.say("certificates of an own authority, five P-384 keys, a plan: made")
    here.start_superlink()
    here.say("SuperLink: TLS, --enable-supernode-auth")
    for name in NODES:
        here.flwr("supernode", "register", str(here.folder / f"{name}.pub"), "here")
    for name in [*NODES, STRANGER]:
        here.start_node(name)
    until("four nodes online", PATIENCE, lambda: len(here.online()) == len(NODES))
    until("the stranger gives up", PATIENCE, lambda: here.processes.ended(STRANGER))
    nodes = here.online()
    here.must(len(nodes) == len(NODES), "four registered nodes are online; a fifth key is kept out")
    return nodes


def meet_a_wrong_roster(here: Deployment) -> None:
    """The operator's roster names other keys than those that are connected."""
    here.write_roster([*NODES[1:], STRANGER])
    run = here.submit()
    until("the run is refused", PATIENCE, lambda: here.ended(run))
    refused = "shows no key of the roster" in here.log(run)
    here.must(refused and here.events() == 0, "a node outside the roster: refused, nothing spent")
    here.write_roster(NODES)


def lose_a_node(here: Deployment, nodes: list[str]) -> str:
    """The run's number."""
    run = here.submit()
    victim = NODES[1]
    here.trains(victim)
    here.processes.kill(victim)
    here.must(here.events() == 0, "round 1: node 1 loses power while it trains (kill -9)")
    here.spend(1)
    here.must(here.events() == 1, f"round 1 closed without it after {ROUND} s: 1 event on disk")
    here.start_node(victim)
    # Flower takes a node for online until a minute has passed without a heartbeat: the node's own
    # log says that it was let in, for the second time.
    until("node 1 is back", PATIENCE, lambda: log_of(here, victim).count(LET_IN) == 2)
    here.must(here.online() == nodes, "node 1 is back, as the node that it was: the key says so")
    return run


def log_of(here: Deployment, name: str) -> str:
    return (here.folder / f"{name}.log").read_text(errors="replace")


def lose_the_server(here: Deployment) -> str:
    """The number of the run that goes on."""
    here.spend(2)
    here.trains(NODES[0])
    here.processes.kill("superlink", "flwr-serverapp")
    before = here.events()
    here.must(before < ROUNDS, f"round {before + 1}: the ServerApp is killed (kill -9)")
    run = here.submit()
    first = until("a round is done", PATIENCE, lambda: re.search(DONE, here.log(run)))
    # One less, where the event of a round was on disk and its model was not: it is trained again.
    went_on = before <= int(first[1]) <= before + 1
    here.must(went_on, f"a second run went on with round {first[1]}, and not with the first")
    return run


def meet_a_second_writer(here: Deployment) -> None:
    run = here.submit()
    until("the second writer is refused", PATIENCE, lambda: here.ended(run))
    refused = "has a writer already" in here.log(run)
    here.must(refused, "a third run beside it: refused, as one ledger has one writer")


def finish(here: Deployment, first: str, second: str) -> None:
    end = until("the run ends", PATIENCE * 2, lambda: here.ended(second))
    here.must(end.startswith("finished:completed"), f"the second run ended: {end}")
    killed = until("the first run is given up", PATIENCE, lambda: here.ended(first))
    here.must(killed.startswith("finished:failed"), f"the first had ended: {killed}")
    here.checkpoint.unlink()
    fourth = here.submit()
    until("the fourth run ends", PATIENCE, lambda: here.ended(fourth))
    refused = f"a further round would exceed ε = {EPSILON:g}" in here.log(fourth)
    here.must(refused, "a fourth run, without the checkpoint: no round is left to it")


def account(here: Deployment) -> None:
    """What was spent, from the file alone."""
    events = fldp.Ledger.read(here.ledger)
    epsilon = here.plan.spent(events)
    here.must(len(events) == ROUNDS, f"the account: {len(events)} events for {ROUNDS} rounds")
    # Rounded up, as every guarantee.
    printed = math.ceil(epsilon * 10**DIGITS) / 10**DIGITS
    here.must(epsilon <= EPSILON, f"ε = {printed:g} of {EPSILON:g} at δ = {DELTA:g}")


def play(folder: Path) -> None:
    check_place(flwr.__file__)
    here = Deployment(folder)
    with here.processes:
        nodes = connect(here)
        meet_a_wrong_roster(here)
        first = lose_a_node(here, nodes)
        second = lose_the_server(here)
        meet_a_second_writer(here)
        finish(here, first, second)
        account(here)
    here.must(not here.processes.running(), "every process has ended")


# Without a network.


def leave_the_network() -> str:
    """Start again where there is only a loopback; why not, if the system does not allow it."""
    program = shutil.which("unshare")
    if program is None:
        return "there is no unshare"
    # Who is not root needs a namespace of users, too.
    for options in (["--net"], ["--net", "--map-root-user"]):
        probe = [program, *options, sys.executable, "-c", ""]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            continue
        again = [sys.executable, __file__, *sys.argv[1:], "--inside"]
        os.execv(program, [program, *options, *again])
    return "the system does not allow unshare --net"


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # struct ifreq: a name of 16 bytes, the flags, and what fills it up.
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave logs and files where they are")
    parser.add_argument("--network", action="store_true", help="leave the network where it is")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if arguments.inside:
        raise_loopback()
        print("no network:", *(name for _, name in socket.if_nameindex()), "alone")
    elif not arguments.network:
        print("the network stays:", leave_the_network())
    folder = Path(tempfile.mkdtemp(prefix="fldp-deployment-"))
    keep = arguments.keep
    try:
        play(folder)
    except Fault as fault:
        keep = True
        print(f"FAULT: {fault}", file=sys.stderr)
        return 1
    except Exception:  # nobody foresaw it: the logs may say why
        keep = True
        raise
    finally:
        if keep:
            print(f"Logs, keys and account are in {folder}")
        else:
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
