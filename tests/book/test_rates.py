"""What the chapter on rates, rounds and cohorts takes from the benchmark of rates."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import fldp
from fldp.accounting import gaussian_epsilon

HERE = Path(__file__).resolve().parent.parent.parent
BOOK = HERE / "book" / "learning-rates-rounds-cohorts.ipynb"
RESULTS = HERE / "benchmarks" / "results" / "rates.json"


def source(words: str) -> str:
    """The code cell that has these words in it."""
    cells = json.loads(BOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return next(text for text in code if words in text)


def rows() -> dict[tuple[str, float | None], dict[str, Any]]:
    """Those of clients with one digit each."""
    if not RESULTS.exists():
        pytest.skip("the results of benchmarks/rates.py are not here")
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    kept = [row for row in found if row["clients"] == "one digit each"]
    return {(row["algorithm"], row["epsilon"]): row for row in kept}


def test_the_rates_are_those_that_the_benchmark_chose() -> None:
    scope: dict[str, Any] = {}
    exec(source("# Without privacy, and at ε = 2"), scope)
    benchmark = rows()
    for name, chosen in scope["rates"].items():
        for epsilon, values in zip((None, 2.0), chosen, strict=True):
            assert tuple(benchmark[name, epsilon]["chosen"].values()) == values, (name, epsilon)


def test_the_accuracies_are_those_of_the_benchmark() -> None:
    benchmark, text = rows(), source("benchmarks/results/rates.json")
    typed = [float(value) for value in re.findall(r": (\d+\.\d)[,}]", text)]
    named = (
        ("FedAvg", 2.0),
        ("FedAvg, 5 epochs", 2.0),
        ("FedAvg", None),
        ("SCAFFOLD", None),
    )
    assert typed == [round(100 * benchmark[row]["accuracy_mean"], 1) for row in named]


@pytest.mark.parametrize("ratio", [0.01, 0.02])
def test_at_a_fixed_ratio_epsilon_falls_with_the_cohort_to_the_floor(ratio: float) -> None:
    """The chapter's bisection needs the first; its exercise has the floor in closed form."""
    clients, rounds, delta = 480, 60, 1e-3
    spent = [
        fldp.epsilon(
            noise_multiplier=ratio * m, delta=delta, rounds=rounds, sampling_rate=m / clients
        )
        for m in range(20, clients + 1, 20)
    ]
    assert spent == sorted(spent, reverse=True)
    floor = gaussian_epsilon(rounds**0.5 / (ratio * clients), delta)
    assert spent[-1] == pytest.approx(floor, rel=1e-6)
    assert min(spent) >= floor


def test_the_search_of_the_chapter_is_that_of_the_plan() -> None:
    scope: dict[str, Any] = {"fldp": fldp}
    exec(source("def spent("), scope)
    exec(source("def smallest_cohort("), scope)
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=60)
    found = scope["smallest_cohort"](8.0, 480)
    assert plan.needed(snr=1 / (0.01 * 650**0.5), dimension=650)["cohort"] == found
    assert scope["spent"](found, 480) <= 8.0 < scope["spent"](found - 1, 480)
    assert scope["smallest_cohort"](2.0, 480) == "none"
