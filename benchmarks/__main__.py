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
WITH_FLOWER = ("flower", "flower_faults")  # fldp[flower], whose pins are other ones
# pfl pins an old dp-accounting, so the accounting benchmark cannot share this environment.
PEERS = ("flwr[simulation]>=1.30", "pfl>=0.6")


def environment(name: str, libraries: tuple[str, ...], wanted: tuple[str, ...]) -> Path | None:
    """The interpreter of ``.cache/NAME``, made on the first call; None if it cannot be made."""
    folder = HERE / ".cache" / name
    python = folder / "bin" / "python"
    # `make flower` marks what it has made by what was asked for.
    if any(folder.glob(".ready*")):
        return python
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = tuple(f"{library}==" for library in libraries)
    own = [line for line in lines if line.startswith(pinned)]
    print(f"Making .cache/{name} ({', '.join(wanted)}): a few minutes, once.", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *own, *wanted]
        subprocess.run(install, check=True, cwd=HERE)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"No environment {name} ({error}): its rows will say not measured.")
        return None
    (folder / ".ready").touch()
    return python


def peers_environment() -> Path | None:
    """The interpreter with Flower, Ray and pfl-research; None if there is none."""
    libraries = ("torch", "torchvision", "opacus", "numpy", "tqdm")
    more = ("cryptography", "matplotlib", "scikit-learn")
    return environment("peers", libraries, (*more, *PEERS))


def flower_environment() -> Path | None:
    """The interpreter with fldp[flower]; None if there is none."""
    return environment("flower", ("torch", "torchvision", "numpy"), ("--editable", ".[flower]"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the benchmarks and print one table.")
    known = [*ALL, *WITH_FLOWER, *WITH_DATA]
    parser.add_argument("names", nargs="*", choices=[*known, []], help=f"of {', '.join(known)}")
    parser.add_argument("--no-peers", action="store_true", help="do not install Flower and pfl")
    arguments = parser.parse_args()
    flower = () if arguments.no_peers else WITH_FLOWER
    data = WITH_DATA if os.environ.get("FLDP_DATA") else ()
    names = arguments.names or [*ALL, *flower, *data]
    pythons: dict[str, Path | None] = {}
    if WITH_PEERS & {*names} and not arguments.no_peers:
        pythons |= dict.fromkeys(WITH_PEERS, peers_environment())
    if {*WITH_FLOWER} & {*names}:
        pythons |= dict.fromkeys(WITH_FLOWER, flower_environment())
    variables = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    failed = []
    for name in names:
        print(f"\n== {name}", flush=True)
        chosen = pythons.get(name)
        if chosen is None and name in WITH_FLOWER:
            failed.append(name)
            continue
        command = [str(chosen or sys.executable), "-m", f"benchmarks.{name}"]
        if subprocess.run(command, cwd=HERE, env=variables, check=False).returncode:
            failed.append(name)
    print(flush=True)
    subprocess.run([sys.executable, "-m", "benchmarks.table"], cwd=HERE, env=variables, check=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
