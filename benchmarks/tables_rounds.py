"""The table's sections on rounds: what aggregating, simulating and large populations cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import common
from benchmarks.tables import load, percent, ratios, table, times

# Of the picture of growth: its size in inches, and the milliseconds that it shows.
SIZE = (8.4, 2.8)
SHOWN = (0.8, 200)


def aggregation() -> Iterator[str]:
    """`fldp.aggregate` beside what others do."""
    found = load("aggregation")
    if not found:
        return
    yield "## Aggregation\n\n`python -m benchmarks.aggregation`, times that of `fldp.aggregate`\n"
    names = list(found["speed"][0]["times_slower_than_fldp"])
    rows = []
    for row in found["speed"]:
        size = f"{row['clients']:,} × {row['parameters']:,}"
        read = percent(row["share_of_read_bandwidth"])
        rows.append([size, *ratios(row["times_slower_than_fldp"], names), read])
    yield from table(["clients × parameters", *names, "of read bandwidth"], rows)
    yield from dictionaries(found.get("dictionaries", []))
    yield (
        "Peak memory of stacking, over that of streaming: "
        + ", ".join(f"{row['stack_over_stream']:g}×" for row in found["memory"])
        + f". Cryptographic noise at {found['noise']['cryptographic_over_torch']:g} of the speed "
        "of torch's `normal_`.\n"
    )


def dictionaries(found: list[dict[str, Any]]) -> Iterator[str]:
    """Updates of several tensors."""
    if not found:
        return
    yield "State dicts of several tensors, times that of `fldp.aggregate` of these dicts:\n"
    names = list(found[0]["times_slower_than_fldp"])
    rows = []
    for row in found:
        size = f"{row['clients']:,} × {row['parameters']:,} in {row['tensors']} tensors"
        rows.append([size, *(f"{row['times_slower_than_fldp'][name]:.2f}×" for name in names)])
    yield from table(["clients × parameters", *names], rows)


def simulation() -> Iterator[str]:
    """Whole rounds beside other simulators, a table a device."""
    for device, found in load("simulation").items():
        if isinstance(found, str):
            yield f"On {device}: {found}.\n"
            continue
        yield (
            f"## Simulated rounds, {device}\n\n`python -m benchmarks.simulation --device {device}`,"
            " 100 clients of 20 records, times that of fldp\n"
        )
        names = list(dict.fromkeys(n for r in found["speed"] for n in r["times_slower_than_fldp"]))
        rows = []
        for row in found["speed"]:
            spent = f"{row['milliseconds']['fldp']:.1f} ms"
            rows.append([row["model"], spent, *ratios(row["times_slower_than_fldp"], names)])
        yield from table(["model", "fldp", *names], rows)
        if memory := found.get("memory"):
            said = (f"{r['model']}, {r['clients']:,} clients: {r['mib']:g} MiB" for r in memory)
            yield f"Memory that a round adds: {'; '.join(said)}.\n"
        if device == "cpu" and "growth" in found:
            yield "![How a round grows with cohort, parameters and population](growth.svg)\n"


def secagg() -> Iterator[str]:
    """What secure aggregation costs a client, and masks beside Flower's."""
    found = load("secagg")
    if not found:
        return
    yield (
        "## Secure aggregation\n\n`python -m benchmarks.secagg`, the processor's milliseconds; of "
        "the vector's own bytes a client sends so many times\n"
    )
    rows = []
    for row in found["rounds"]:
        rows.append(
            [
                f"{row['clients']}, {row['neighbours']} neighbours, {row['dropped']} drop out",
                f"{row['size']:,} × {row['bits']} bits",
                f"{row['client_ms']:.1f}",
                f"{row['server_total_ms']:.0f}",
                f"{row['up_over_plain']:.3f}×",
                f"{row['bytes_down']:,}",
            ]
        )
    head = ["clients", "vector", "a client", "server", "sent", "bytes received"]
    yield from table(head, rows)
    for row in found["masks"]:
        mine = f"{row['masks']} masks of {row['size']:,} × {row['bits']} bits: {row['fldp_ms']} ms"
        theirs = f"Flower {row['flower']}"
        if "flower_over_fldp" in row:
            theirs += (
                f" takes {times(row['flower_over_fldp'])} that with its own functions, "
                f"{times(row['flower_making_over_fldp'])} to make its masks alone"
            )
        yield f"{mine}; {theirs}.\n"


def populations() -> Iterator[str]:
    """Many clients: seconds and memory."""
    found = load("populations")
    if not found:
        return
    yield (
        "## Populations\n\n`python -m benchmarks.populations`, each in a process of its own, "
        "on one thread\n"
    )
    rows = []
    for row in found["rows"]:
        rows.append([row["case"], f"{row['seconds']:.2f} s", f"{row['mebibytes']:.0f} MiB"])
    yield from table(["case", "takes", "memory above the libraries'"], rows)


def draw() -> None:
    """Milliseconds of a round as cohort, parameters and population grow, into `growth.svg`."""
    growth: dict[str, list[dict[str, float]]] = load("simulation").get("cpu", {}).get("growth", {})
    if not growth:
        return
    import matplotlib.pyplot as plt

    from fldp import plotting

    plotting.apply()
    plt.rcParams["svg.hashsalt"] = "fldp"
    figure, panels = plt.subplots(1, len(growth), figsize=SIZE, constrained_layout=True)
    for axes, (name, rows) in zip(panels, growth.items(), strict=True):
        by = "parameters" if name == "parameters" else "clients"
        for colour, key in zip(plotting.CYCLE, ("fldp (ms)", "plain loop (ms)"), strict=False):
            points = [(row[by], row[key]) for row in rows if key in row]
            if points:
                label = key.removesuffix(" (ms)")
                axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label)
        axes.set(xscale="log", yscale="log", xlabel=name, ylim=SHOWN)
    panels[0].set_ylabel("ms a round")
    panels[0].legend()
    figure.savefig(common.RESULTS / "growth.svg", metadata={"Date": None})
