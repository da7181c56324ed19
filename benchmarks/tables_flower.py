"""The table's sections on Flower: fldp on it beside Flower itself, and faults of its wrappers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.tables import load, table
from fldp._text import up


def flower() -> Iterator[str]:
    """Accuracy on Flower, what a round costs the server, and kills."""
    found = load("flower")
    if not found:
        return
    setting = found["digits"]["setting"]
    yield (
        f"## On Flower\n\n`python -m benchmarks flower`, flwr {found['versions']['flwr']} on a "
        f"grid in memory. Digits, {setting['clients']} clients of {setting['images_per_client']}, "
        f"q = {setting['sampling_rate']}, {setting['rounds']} rounds, {setting['seeds']} seeds:\n"
    )
    rows = []
    for row in found["digits"]["rows"]:
        accuracy = f"{row['accuracy_mean']:.3f} ± {row['accuracy_sd'] or 0:.3f}"
        epsilon = "none" if row["epsilon"] is None else up(row["epsilon"])
        rows.append([row["name"], accuracy, epsilon, row["says"]])
    yield from table(["who", "accuracy", "ε", "what may be said"], rows)
    yield from server(found["server"])
    kills = found["kills"]
    yield (
        f"Server apps killed at random instants: {kills['runs']} runs, {kills['kills']} kills, "
        f"{kills['under']} accounts below the truth, {kills['over']} more than one event a kill "
        f"above it; {kills['ended']} runs ended.\n"
    )


def server(found: dict[str, Any]) -> Iterator[str]:
    """What a round costs."""
    yield (
        f"A round's {found['replies']} replies of {found['parameters']:,} parameters at the "
        "server; from bytes to the next model, and the strategy's step alone:\n"
    )
    rows = []
    for row in found["rows"]:
        whole = f"{row['cpu_seconds']:.3f} s ({row['times_fedavg']:.1f}×)"
        step = f"{row['cpu_seconds_step']:.3f} s ({row['times_fedavg_step']:.1f}×)"
        peak = f"{row['peak_model_sizes']:.0f}"
        rows.append([row["name"], whole, step, peak, f"{row['peak_traced']:.0f}"])
    head = ["strategy", "processor", "step alone", "peak, model sizes", "of which numpy's"]
    yield from table(head, rows)
    large = found["large"]
    yield (
        f"{large['name']} at {large['parameters']:,} parameters, where the aggregator's tiles of "
        f"8 MiB hold few of them: {large['peak_model_sizes']:.0f} model sizes.\n"
    )


def faults() -> Iterator[str]:
    """The faults of Flower's wrappers, on the version that was installed."""
    found = load("flower_faults")
    if not found:
        return
    version = found["versions"]["flwr"]
    yield f"## Faults of Flower\n\n`python -m benchmarks flower_faults`, flwr {version}\n"
    yield from table(HEAD, fault_rows(found["faults"]))


HEAD = ("fault", "what Flower does", "measured", "needed", "still there?")


def fault_rows(found: list[dict[str, Any]]) -> list[list[str]]:
    """A row for each fault."""
    rows = []
    for one in found:
        still = "yes" if one["there"] else "no"
        if one["kind"] != "run":
            still += f", {one['kind']}"
        rows.append([one["name"], one["flower"], one["measured"], one["needed"], still])
    return rows
