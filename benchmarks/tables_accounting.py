"""The table's sections on accounting: what an answer costs, and how near it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.tables import load, percent, table, times

TOOLS = ("opacus rdp", "opacus prv", "dp-accounting pld")
# What the calculator was asked, in the table's words.
ASKED = {
    "reference_cases": "ε, reference cases",
    "random_settings": "ε, random settings",
    "noises": "z for a budget, random settings",
}


def accounting() -> Iterator[str]:
    """Calibration beside other accountants, and the distance to the reference."""
    found = load("accounting")
    if not found:
        return
    yield "## Calibration\n\n`python -m benchmarks.accounting`\n"
    head = ["setting", "fldp", *(f"{tool} takes" for tool in TOOLS), "noise saved against RDP"]
    yield from table(head, calibrations(found["calibration"]))
    for name in ("reference_cases", "random_settings"):
        if gaps := found.get(name):
            yield (
                f"ε above the reference by {gaps['lowest']:+.1e} to {gaps['highest']:+.1e} "
                f"(median {gaps['median']:+.1e}) over {gaps['cases']} {name.replace('_', ' ')}; "
                f"below it by more than 1e-6: {gaps['below_by_more_than_1e-6']}, above by more "
                f"than 1e-3: {gaps['above_by_more_than_1e-3']}.\n"
            )
    if hard := found.get("hard_questions"):
        yield "Questions that were slow, loose or refused:\n"
        columns = ["question", "fldp", "answer", "dp-accounting's answer", "dp-accounting takes"]
        yield from table(columns, [question(row) for row in hard])
    processes = found["processes_seconds"]
    ours = max(processes["import fldp"], processes["fldp calibrate"])
    yield (
        f"Whole processes: the slower of `import fldp` and `fldp calibrate` takes "
        f"{ours / processes['import dp_accounting']:.2f} of the time of importing dp_accounting "
        f"and {ours / processes['import opacus.accountants']:.2f} of Opacus' accountants.\n"
    )


def calibrations(found: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """A row a setting, from the rows of its tools."""
    settings: dict[tuple[float, ...], dict[str, Any]] = {}
    for row in found:
        key = (row["epsilon"], row["delta"], row["q"], row["rounds"])
        settings.setdefault(key, {})[row["tool"]] = row
    for (epsilon, delta, q, rounds), by in settings.items():
        setting = f"ε {epsilon:g}, δ {delta:g}, q {q:g}, T {rounds:g}"
        takes = [times(by[tool]["times_fldp"]) for tool in TOOLS]
        saved = percent(by["opacus rdp"]["fldp_noise_smaller"], 1)
        yield [setting, f"{by['fldp']['milliseconds']:.2g} ms", *takes, saved]


def question(row: dict[str, Any]) -> list[str]:
    """A hard question, and what dp-accounting says where it can be asked."""
    asked = [row["question"], f"{row['milliseconds']:.2g} ms", f"{row['answer']:.6g}"]
    if "dp_accounting" not in row:
        return [*asked, "", ""]
    takes = times(row["dp_accounting_milliseconds"] / row["milliseconds"])
    return [*asked, f"{row['dp_accounting']:.6g}", takes]


def calculator() -> Iterator[str]:
    """The accountant of the book's calculator, in JavaScript."""
    found = load("calculator")
    if not found:
        return
    yield (
        "## The book's calculator\n\n`python -m benchmarks.calculator`, through node: its answers "
        "relative to fldp's, and the processor's milliseconds for one\n"
    )
    rows = []
    for name, asked in ASKED.items():
        row = found[name]
        gaps = [f"{row[end]:+.1e}" for end in ("lowest", "highest")]
        spent = [f"{row[f'milliseconds_{end}']:.3g} ms" for end in ("median", "worst")]
        alone = str(len(row["answered_differently"]))
        rows.append([asked, f"{row['cases']:,}", alone, *gaps, *spent])
    head = ["question", "cases", "answered differently", "lowest", "highest", "median", "worst"]
    yield from table(head, rows)


# The filters of the table, and how its columns call them.
FILTERS = {
    "independent": "independent",
    "fractional 4": "fractional, 4",
    "BLT 1": "BLT, 1 buffer",
    "BLT 2": "BLT, 2 buffers",
    "banded b": "banded, b",
}


def filters() -> Iterator[str]:
    """What correlated noise costs a sum of rounds."""
    found = load("filters")
    if not found:
        return
    yield "## Correlated noise\n\n`python -m benchmarks.filters`, error of the sums, in z·C\n"
    cells: dict[tuple[int, int, int], dict[str, str]] = {}
    for row in found["rows"]:
        run = (row["rounds"], row["participations"], row["separation"])
        cells.setdefault(run, {})[row["filter"]] = f"{row['score']:.3f}"
    rows = [
        [", ".join(f"{number:,}" for number in run), *(scores.get(name, "") for name in FILTERS)]
        for run, scores in cells.items()
    ]
    yield from table(["rounds, times, apart", *FILTERS.values()], rows)
    worst = found["worst_fit_seconds"]
    longest = max(found["steps"], key=lambda step: step["state_mib"])
    two = next(step for step in found["steps"] if step["noise"] == "BLT 2")
    yield (
        f"Slowest fit: {worst['BLT 1']:.2f} s with one buffer, {worst['BLT 2']:.2f} s with two. A "
        f"million coordinates: {two['filter_ms']:.0f} ms a round beyond fresh noise with two "
        f"buffers, {longest['filter_ms']:.0f} ms for {longest['noise']}.\n"
    )
