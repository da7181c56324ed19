"""What the benchmarks share: arguments, interleaved times, memory, facts of the machine, results.

Ratios inside one run are what may be compared: contenders take turns, so that whatever else the
machine does falls on all of them, and each is told by its median.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

import fldp

RESULTS = Path(__file__).parent / "results"
Answer = TypeVar("Answer")


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """A parser with the first line of a module's documentation, `--output` and `--no-write`.

    Parameters
    ----------
    doc
        The module's documentation.
    name
        The stem of the results' file.
    """
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    made.add_argument("--output", type=Path, default=RESULTS / f"{name}.json")
    made.add_argument("--no-write", action="store_true", help="print only")
    return made


def one_thread(*, quiet: bool = False) -> None:
    """Every contender on one thread; `quiet` also silences what peers warn of and log."""
    torch.set_num_threads(1)
    if quiet:
        warnings.filterwarnings("ignore")
        logging.disable(logging.CRITICAL)


def machine() -> dict[str, Any]:
    """What a reader must know of the machine and of what else it was doing."""
    return {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def read(path: Path) -> dict[str, Any]:
    """The results that a file holds; none where there is no file."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write(options: argparse.Namespace, document: Mapping[str, Any], *, quiet: bool = False) -> None:
    """Write results where the options say, unless they say not to; `quiet` does not tell."""
    if options.no_write:
        return
    text = json.dumps(document, indent=1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n", encoding="utf-8")
    if not quiet:
        print(f"written to {options.output.name}")


def timed(run: Callable[[], Answer]) -> tuple[Answer, float]:
    """What a call answers, and its seconds."""
    start = time.perf_counter()
    answer = run()
    return answer, time.perf_counter() - start


def medians(
    contenders: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    at_least: float = 0.0,
    settle: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Median seconds of each contender, interleaved. A first turn warms up and does not count.

    Parameters
    ----------
    contenders
        What to time. Who returns a float has timed itself.
    repeats
        How many turns count.
    at_least
        Seconds that a contender's turn lasts: it runs again until they are over.
    settle
        Called after each run, inside its time: waits for a device.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, run in contenders.items():
            begun = time.perf_counter()
            left = True
            while left:
                taken = _one(run, settle)
                left = time.perf_counter() < begun + at_least
                if turn > 0:
                    times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}


def _one(run: Callable[[], Any], settle: Callable[[], None] | None) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    answer = run()
    if settle is not None:
        settle()
    return answer if isinstance(answer, float) else time.perf_counter() - start


def status(key: str) -> int:
    """A memory figure of this process, in KiB; Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def growth(run: Callable[[], object]) -> float:
    """By how much this process's resident set grows at most while `run` runs, in MiB."""
    # A child inherits its parent's peak, so the peak is reset first.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = status("VmRSS")
    run()
    return (status("VmHWM") - before) / 1024


def in_peers(python: str, module: str, arguments: Sequence[str]) -> int:
    """Run a benchmark in the interpreter that has the peers; its exit status."""
    given = list(arguments)
    at = given.index("--peers")
    del given[at : at + 2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [python, "-m", module, *given]
    return subprocess.run(command, env=environment, check=False).returncode


def spread(accuracy: Iterable[float]) -> dict[str, Any]:
    """Mean, standard deviation over seeds (None for one) and the accuracies themselves."""
    found = list(accuracy)
    return {
        "accuracy_mean": statistics.mean(found),
        "accuracy_sd": statistics.stdev(found) if len(found) > 1 else None,
        "accuracy": found,
    }


def digits(seed: int = 0) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits in an order drawn from the seed: (1797, 64) and (1797,)."""
    x, y = fldp.datasets.digits()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order], y[order]


def everyone(clients: int) -> fldp.PrivacyPlan:
    """A plan of one round in which everyone takes part, with noise z = 1, for what only sums."""
    return fldp.PrivacyPlan(
        noise_multiplier=1.0,
        delta=1e-5,
        rounds=1,
        clients=clients,
        cohort=clients,
        sampling="none",
        trust="central",
        adjacency="add-or-remove",
        accountant="pld",
        target_epsilon=5.0,
    )
