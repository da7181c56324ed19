"""Every twin in an environment that holds the wheel and nothing of the book.

Rows of the release check. Needs the clone with its environment; see `tools/release_check.py`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from stranger import Row, Stranger, free_gb, size

# Disk for one more torch: with FLDP_WHEELS, without.
NEEDED_GB = {True: 2, False: 7}
# What runs a notebook beside what the package itself asks for.
EXECUTOR = ("nbclient", "ipykernel")
# Whoever asks for an address hears at once that there is nobody: nothing listens on this port.
NOBODY = "http://127.0.0.1:9"
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "http_proxy": NOBODY,
    "https_proxy": NOBODY,
    "HTTP_PROXY": NOBODY,
    "HTTPS_PROXY": NOBODY,
}
# As the Makefile says: parallel by process.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
WHAT = "twins, with the wheel alone"


def install(stranger: Stranger) -> Row:
    """The row of an environment with the clone's wheel, its dependencies and a notebook's executor.

    The versions are the lock's: what the newest releases break, a weekly run of its own finds.
    """
    python = str(stranger.clone / ".venv" / "bin" / "python")
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    wheels = stranger.alone / "wheel"
    environment = stranger.alone / "environment"
    build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), ".")
    built = stranger.check("the wheel", *pip, *build)
    if built.verdict == "FAIL":
        return built
    made = stranger.check(WHAT, python, "-m", "venv", "--without-pip", str(environment))
    if made.verdict == "FAIL":
        return made
    wheel = next(wheels.glob("fldp-*.whl"))
    pinned = ("--constraint", str(stranger.clone / "requirements.txt"))
    into = ("--python", str(environment / "bin" / "python"), "install", *pinned)
    row = stranger.check(WHAT, *pip, *into, str(wheel), *EXECUTOR, folder=stranger.alone)
    if row.verdict == "pass":
        row.words = f"{wheel.name}; {size(environment)}"
    return row


def execute(stranger: Stranger) -> list[Row]:
    """A row for each twin, run away from the repository, with no network and no data."""
    twins = stranger.alone / "twins"
    written = stranger.check(
        "make twins", str(stranger.clone / ".venv/bin/python"), "tools/twins.py", str(twins)
    )
    if written.verdict == "FAIL":
        return [written]
    script = shutil.copy(stranger.clone / "tools" / "run_alone.py", stranger.alone)
    report = stranger.alone / "report.json"
    notebooks = [str(path) for path in sorted(twins.glob("*.ipynb"))]
    home = stranger.alone / "home"
    home.mkdir()
    stranger.own(stranger.alone)
    status, seconds = stranger.run(
        str(stranger.alone / "environment" / "bin" / "python"),
        str(script),
        str(report),
        *notebooks,
        folder=stranger.alone,
        more={**OFFLINE, **THREADS, "HOME": str(home)},
    )
    if not report.exists():
        return [Row(WHAT, "FAIL", f"exit status {status}", seconds)]
    rows = []
    for name, took, processor, complaint in json.loads(report.read_text(encoding="utf-8")):
        verdict = "FAIL" if complaint else "pass"
        words = complaint or f"{processor:.0f} s of the processor"
        rows.append(Row(f"twin: {name}", verdict, words, took))
    return rows


def check(stranger: Stranger, wheels: Path | None) -> list[Row]:
    """The rows of all twins; one that says why, where they cannot be run."""
    needed = NEEDED_GB[wheels is not None]
    free = free_gb(stranger.alone)
    if free < needed:
        return [Row(WHAT, "skip", f"{free:.0f} GB of disk free, {needed} needed")]
    installed = install(stranger)
    if installed.verdict == "FAIL":
        return [installed]
    return [installed, *execute(stranger)]
