"""The table's sections on learning: which accuracy a budget leaves, on which data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.tables import load, table
from fldp._text import up

# Printed digits of an ε, which is rounded up.
DIGITS = 3


def algorithms() -> Iterator[str]:
    """Every local algorithm on the same federations."""
    found = load("algorithms")
    if not found:
        return
    setting = found["setting"]
    yield (
        f"## Algorithms\n\n`python -m benchmarks.algorithms`, digits, ε = {setting['epsilon']:g}, "
        f"δ = {setting['delta']:g}, {setting['rounds']} rounds, {setting['seeds']} seeds\n"
    )
    rows = []
    for row in found["rows"]:
        level = row["level"]
        guarantee = level if level in ("none", "record") else f"client, {level}"
        run = f"{row['seconds_median']:.2f} s"
        rows.append([row["federation"], row["algorithm"], guarantee, accuracy(row), run])
    yield from table(["federation", "algorithm", "guarantee", "accuracy", "a run"], rows)


def digits() -> Iterator[str]:
    """scikit-learn's digits at several budgets."""
    found = load("digits")
    if not found:
        return
    yield f"## Digits\n\n`python -m benchmarks.digits`, {found['setting']['seeds']} seeds\n"
    rows = []
    for row in found["rows"]:
        budget = "none" if row["epsilon"] is None else f"{row['epsilon']:g}"
        rows.append([budget, accuracy(row), f"{row['seconds_median']:.2f} s"])
    yield from table(["ε", "accuracy", "a run"], rows)


def correlated() -> Iterator[str]:
    """The digits without a lottery, beside one."""
    found = load("correlated_digits")
    if not found:
        return
    setting = found["setting"]
    yield (
        "## Digits without a lottery\n\n`python -m benchmarks.correlated_digits`, δ = "
        f"{setting['delta']:g}, {setting['rounds']} rounds, a client every "
        f"{setting['separation']}th, {setting['seeds']} seeds\n"
    )
    rows = []
    for row in found["rows"]:
        known = up(row["epsilon_known"], DIGITS)
        rows.append([f"{row['epsilon']:g}", row["noise"], accuracy(row), known])
    yield from table(["ε", "noise", "accuracy", "ε if the cohort is known"], rows)


def mnist() -> Iterator[str]:
    """MNIST in many small hands."""
    found = load("mnist")
    if not found:
        return
    yield "## MNIST\n\n`python -m benchmarks.mnist`, 10,000 clients of 6 images\n"
    rows = []
    for run in found["runs"]:
        reached = [f"{run['epsilon']:.2f}", f"{run['accuracy']:.3f}", f"{run['seconds']:.0f} s"]
        rows.append([run["model"], str(run["rounds"]), *reached, f"`{run['digest']}`"])
    yield from table(["model", "rounds", "ε", "accuracy", "a run", "digest"], rows)
    yield from many(found.get("curves", {}))


def many(found: dict[str, Any]) -> Iterator[str]:
    """What many clients buy, on MNIST."""
    if not found:
        return
    setting = found["setting"]
    yield (
        f"What many clients buy: a linear model, {setting['images']} images a client, one client "
        f"in ten a round, {setting['rounds']} rounds, δ = {setting['delta']:g}, "
        f"{setting['seeds']} seeds; clip and momentum chosen on validation data.\n"
    )
    rows = []
    for row in found["rows"]:
        noise = f"{row['noise_multiplier'] or 0:.2f}"
        chosen = [f"{row['clip'] or 'none'}", f"{row['momentum']}"]
        rows.append([f"{row['clients']:,}", budget_of(row), noise, *chosen, accuracy(row)])
    yield from table(["clients", "ε", "z", "clip", "momentum", "accuracy"], rows)


def clients() -> Iterator[str]:
    """The headline experiment."""
    found = load("mnist_clients")
    if not found:
        return
    yield (
        "## MNIST in the hands of clients\n\n`python -m benchmarks.mnist_clients`: all 60,000 "
        "images, dealt at random (iid) or two shards of one digit to each client (shards); ε is "
        "that of a client, once against whoever sees the models, once against who also knows who "
        "took part; accuracy on the test images.\n"
    )
    promise = ["ε", "ε, cohort known", "δ"]
    head = ["clients", "dealt", "model", *promise, "T", "m", "z", "C", "accuracy"]
    rows = []
    for row in found.get("table", []):
        dealt = [f"{row['clients']:,}", row["partition"], row["model"]]
        run = [f"{row['rounds']}", f"{row['cohort']:,.0f}"]
        noise = [number(row["noise_multiplier"]), number(row["clip"])]
        rows.append([*dealt, *promised(row), *run, *noise, in_percent(row)])
    yield from table(head, rows)
    if changed := found.get("ablation"):
        yield "Two shards a client, ε = 8, one thing changed at a time:\n"
        rows = []
        for row in changed:
            size = [f"{row['parameters']:,}", f"{row['rounds']}"]
            rows.append([f"{row['clients']:,}", row["change"], *size, in_percent(row)])
        yield from table(["clients", "changed", "parameters", "T", "accuracy"], rows)


def schools() -> Iterator[str]:
    """The natural federation: its grades."""
    found = load("schools")
    if not found:
        return
    setting = found["setting"]
    yield (
        f"## Schools\n\n`python -m benchmarks.schools`, six grades, {setting['seeds']} seeds, "
        f"ε for a school at δ = {setting['delta']:g}\n"
    )
    rows = []
    for row in found["rows"]:
        spread = f"{row['accuracy_sd'] or 0:.3f}"
        rows.append([budget_of(row), f"{row['accuracy_mean']:.3f}", spread])
    yield from table(["ε", "accuracy", "standard deviation"], rows)


def weights() -> Iterator[str]:
    """The natural federation: its scores, with and without weights."""
    found = load("school_weights")
    if not found:
        return
    setting = found["setting"]
    yield (
        f"## Weights of schools\n\n`python -m benchmarks.school_weights`, the A-level score, "
        f"{setting['seeds']} seeds, ε for a school at δ = {setting['delta']:g}; it counts "
        "for its students, at most for the cap\n"
    )
    rows = []
    for row in found["rows"]:
        error = [f"{row['error_mean']:.3f}", f"{row['error_sd']:.3f}"]
        rows.append([budget_of(row), f"{row['cap'] or 'once each'}", *error])
    yield from table(["ε", "cap", "root mean squared error", "standard deviation"], rows)


def budget_of(row: dict[str, Any]) -> str:
    """A budget, or that there was none."""
    return f"{row['epsilon'] or 'none'}"


def accuracy(row: dict[str, Any]) -> str:
    """Mean and standard deviation over the seeds; one seed has no spread."""
    return f"{row['accuracy_mean']:.3f} ± {row['accuracy_sd'] or 0:.3f}"


def in_percent(row: dict[str, Any]) -> str:
    """The same in percent, of a result that calls its spread `std`."""
    return f"{100 * row['accuracy_mean']:.2f} ± {100 * (row['accuracy_std'] or 0):.2f} %"


def promised(row: dict[str, Any]) -> list[str]:
    """ε, ε against who knows the cohorts, and δ."""
    if row["epsilon"] is None:
        return ["none", "none", ""]
    return [f"{row['epsilon']:g}", up(row["epsilon_cohort_known"], DIGITS), f"{row['delta']:g}"]


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
