"""Execute notebooks, each in an empty folder: ``python run_alone.py REPORT NOTEBOOK ...``.

Belongs to `tools/release_check.py`, which copies it out of the repository and runs it with the
Python of an environment that holds the installed package, nbclient and ipykernel. Two notebooks run
at a time. REPORT becomes a JSON list: of each notebook its name, its seconds, those of the
processor, and what went wrong.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

AT_A_TIME = 2
# Seconds that one cell may take and that a kernel may take to start, on a machine with much to do:
# a whole notebook takes less than 60 of the processor's.
LONGEST = 600


def spent() -> float:
    """Seconds of the processor that kernels which have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(path: Path) -> tuple[str, float, float, str]:
    """The name of a notebook, its seconds, the processor's, and its error in one line, or ""."""
    notebook = nbformat.read(path, as_version=4)
    complaint = ""
    started = time.monotonic()
    before = spent()
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook,
            timeout=LONGEST,
            startup_timeout=LONGEST,
            kernel_name="python3",
            resources=resources,
        )
        try:
            client.execute()
        except CellExecutionError as error:
            complaint = f"{error.ename}: {error.evalue}"
        except Exception as error:  # a cell without an end, a kernel that died
            complaint = repr(error)
    took = time.monotonic() - started
    return path.stem, took, spent() - before, " ".join(complaint.split())


def main(report: str, *notebooks: str) -> int:
    """Run them all; 1 if one failed."""
    found = importlib.util.find_spec("fldp")
    if found is None or found.origin is None or not found.origin.startswith(sys.prefix):
        print(f"fldp is not installed in {sys.prefix}: {found}", file=sys.stderr)
        return 1
    results = []
    with ProcessPoolExecutor(AT_A_TIME) as pool:
        for result in pool.map(run, map(Path, notebooks)):
            name, seconds, processor, complaint = result
            print(f"{name}: {seconds:.0f} s ({processor:.0f}) {complaint}", flush=True)
            results.append(result)
    Path(report).write_text(json.dumps(results), encoding="utf-8")
    return int(any(complaint for *_, complaint in results))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
