"""What the chapter on accuracy against ε proves and computes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import fldp

HERE = Path(__file__).resolve().parent.parent.parent
CHAPTER = HERE / "book" / "start-at-eight-and-tighten.ipynb"


def scope_of(*words: str) -> dict[str, Any]:
    """What the code cells with these words define."""
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    scope: dict[str, Any] = {"fldp": fldp, "math": math, "np": np, "replace": replace}
    for word in words:
        exec(next(text for text in code if word in text), scope)
    return scope


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("share", [0.01, 0.25, 1.0])
def test_one_budget_takes_one_multiplier_whatever_the_population(
    epsilon: float, share: float
) -> None:
    asked: dict[str, Any] = {"epsilon": epsilon, "delta": 1e-7, "rounds": 60}
    plans = [
        fldp.calibrate(**asked, clients=clients, cohort=share * clients)
        for clients in (400, 4_000, 400_000)
    ]
    first, *others = [plan.noise_multiplier for plan in plans]
    assert others == pytest.approx([first, first], rel=1e-3)
    on_mean = [plan.noise_multiplier / plan.denominator for plan in plans]
    assert on_mean[0] / on_mean[2] == pytest.approx(1_000, rel=2e-3)
    # A multiplier that followed N would be found out: it keeps another promise.
    assert replace(plans[1], noise_multiplier=first / 10**0.5).epsilon() > 1.5 * epsilon


def test_a_hundred_runs_are_the_curves_of_the_promise_and_of_the_program() -> None:
    hundred = scope_of("def hundred")["hundred"]
    # Everybody takes part once: the program is one Gaussian, whose best test is known.
    plan = fldp.calibrate(epsilon=2.0, delta=1e-4, rounds=1, clients=480)
    worst, here = hundred(plan)
    exact = stats.norm.cdf(stats.norm.ppf(0.05) + 1 / plan.noise_multiplier)
    assert here == pytest.approx(100 * exact, abs=0.2)
    assert here < worst == pytest.approx(100 * (math.exp(2.0) * 0.05 + 1e-4))
    # No rule says "she was in" of more than all runs.
    assert 99.9 < hundred(eight())[0] < 100


def eight() -> fldp.PrivacyPlan:
    return fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=480)


def test_beliefs_are_bayes_rule_on_the_sampled_gaussian() -> None:
    beliefs = scope_of("def beliefs")["beliefs"]
    # With everybody in one round the loss is N(μ²/2, μ²): its quantiles are known.
    plan = replace(eight(), noise_multiplier=5.0)
    usual, tenth, _ = beliefs(plan, before=0.5)
    mu = math.sqrt(60) / plan.noise_multiplier
    for found, quantile in ((usual, 0.5), (tenth, 0.9)):
        loss = mu**2 / 2 + mu * stats.norm.ppf(quantile)
        assert math.log(found / (1 - found)) == pytest.approx(loss, rel=0.03)


def test_the_sums_of_the_chapter_say_what_its_table_says() -> None:
    """The table of On Monday, and the knee's forecast for many clients, by the accountant alone."""
    scope = scope_of("def planned", "def hundred")
    here = [scope["hundred"](scope["planned"](480, e))[1] for e in (0.5, 1.0, 2.0, 4.0, 8.0)]
    assert here == sorted(here)
    assert here[0] < 8
    assert 45 < here[-1] < 55


def test_what_privacy_costs_on_mnist_is_what_was_stored() -> None:
    text = (HERE / "benchmarks" / "results" / "mnist.json").read_text(encoding="utf-8")
    rows = json.loads(text)["curves"]["rows"]
    found = {(row["clients"], row["epsilon"]): 100 * row["accuracy_mean"] for row in rows}
    lost = {n: round(found[n, None] - found[n, 1.0], 1) for n in (1_000, 10_000)}
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    typed = next(text for text in code if "benchmarks/results/mnist.json" in text)
    assert f"lost = {{1_000: {lost[1_000]}, 10_000: {lost[10_000]}}}" in typed
