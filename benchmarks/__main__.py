"""Every benchmark, one table: ``python -m benchmarks [NAME ...]`` (also ``make bench``).

Peers that the book's environment does not hold (Flower with Ray, pfl-research) are installed into a
separate environment that this command makes, ``.cache/peers``; the benchmarks that compare with
them run there. Where it cannot be made, their rows say so. Compare ratios inside one run, not
seconds between runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ALL = (
    "accounting",
    "calculator",
    "aggregation",
    "simulation",
    "algorithms",
    "rates",
    "audits",
    "digits",
    "kill_test",
    "populations",
    "schools",
    "school_weights",
    "filters",
    "correlated_digits",
)
WITH_DATA = ("mnist", "mnist_clients")  # what reads FLDP_DATA
WITH_PEERS = {"aggregation", "simulation"}
# pfl pins an old dp-accounting, so the accounting benchmark cannot share this environment.
PEERS = ("flwr[simulation]>=1.30", "pfl>=0.6")


def peers_environment() -> Path | None:
    """The interpreter of ``.cache/peers``, made on the first call; None if it cannot be made."""
    folder = HERE / ".cache" / "peers"
    python = folder / "bin" / "python"
    if (folder / ".ready").exists():
        return python
    own = [
        line
        for line in (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if line.startswith(("torch==", "torchvision==", "opacus==", "numpy==", "tqdm=="))
    ]
    wanted = [*own, "cryptography", "matplotlib", "scikit-learn", *PEERS]
    print("Making .cache/peers (Flower with Ray, pfl-research): a few minutes, once.", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"No environment for the peers ({error}): their rows will say not measured.")
        return None
    (folder / ".ready").touch()
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the benchmarks and print one table.")
    parser.add_argument("names", nargs="*", choices=[*ALL, *WITH_DATA, []],
                        help=f"of {', '.join([*ALL, *WITH_DATA])}")  # fmt: skip
    parser.add_argument("--no-peers", action="store_true", help="do not install Flower and pfl")
    arguments = parser.parse_args()
    names = arguments.names or [*ALL, *(WITH_DATA if os.environ.get("FLDP_DATA") else ())]
    python = None if arguments.no_peers or not WITH_PEERS & {*names} else peers_environment()
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    failed = []
    for name in names:
        print(f"\n== {name}", flush=True)
        chosen = str(python) if python and name in WITH_PEERS else sys.executable
        command = [chosen, "-m", f"benchmarks.{name}"]
        if subprocess.run(command, cwd=HERE, env=environment, check=False).returncode:
            failed.append(name)
    print(flush=True)
    subprocess.run(
        [sys.executable, "-m", "benchmarks.table"], cwd=HERE, env=environment, check=True
    )
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
