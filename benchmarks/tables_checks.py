"""The table's sections on checks: runs that were killed, faults that were planted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.tables import load, table

METHODS = ("gdp", "one-run", "clopper-pearson")


def crashes() -> Iterator[str]:
    """Runs that were killed and went on."""
    if found := load("kill_test"):
        yield (
            f"## Crashes\n\n`python -m benchmarks.kill_test`: {found['runs']} runs, "
            f"{found['kills']} kills, {found['under']} accounts below the truth, {found['ended']} "
            "runs ended.\n"
        )


def caught(pipelines: dict[str, Any]) -> int:
    """How many pipelines the audits accuse."""
    return sum(row["audit"] or row["neighbour_test"] for row in pipelines.values())


def audits() -> Iterator[str]:
    """What audits find, and how much of an ε."""
    found = load("audits")
    if not found:
        return
    faults, correct = found["faults"], found["correct"]
    yield (
        f"## Audits\n\n`python -m benchmarks.audits`: {caught(faults)} of {len(faults)} planted "
        f"faults found, {caught(correct)} of {len(correct)} correct pipelines accused.\n"
    )
    rows = []
    for epsilon, row in found["power"].items():
        rows.append([epsilon, *(f"{row[method]:.2f}" for method in METHODS)])
    yield from table(["ε", "found, Gaussian", "found, one-run", "found, Clopper-Pearson"], rows)
