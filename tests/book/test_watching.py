"""What the chapter on watching a model proves and quotes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fldp

HERE = Path(__file__).resolve().parent.parent.parent
CHAPTER = HERE / "book" / "watching-the-model.ipynb"


def source(words: str) -> str:
    """The code cell that has these words in it."""
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return next(text for text in code if words in text)


def figure_of(clients: int, z: float, forgets: bool = False) -> Any:
    """The chapter's function, for a population of its own; or a copy that forgets the half."""
    plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=clients)
    scope: dict[str, Any] = {"fldp": fldp, "asked": replace(plan, noise_multiplier=z)}
    text = source("def private_figure")
    exec(text.replace("(shares - 0.5)", "shares") if forgets else text, scope)
    return scope["private_figure"]


def test_a_private_figure_moves_by_half_and_errs_as_stated() -> None:
    clients, z = 40, 2.0
    private_figure = figure_of(clients, z)
    shares = torch.rand(clients, generator=torch.Generator().manual_seed(0))
    found = np.array([private_figure(shares)[0] for _ in range(2_000)])
    spread = z / (2 * clients)
    assert private_figure(shares)[1] == pytest.approx(spread)
    # Five standard errors: one false alarm in more than a million.
    assert abs(found.mean() - shares.mean().item()) < 5 * spread / len(found) ** 0.5
    assert found.std() == pytest.approx(spread, rel=0.1)
    # Without noise whoever comes or goes moves the figure by at most a half over N,
    # whether it says 0 or 1, and also if it says something else.
    still = figure_of(clients, 1e-9)
    before = still(shares)[0]
    for said in (0.0, 1.0, 0.3, 1_000.0, -1_000.0):
        after = still(torch.cat([shares, torch.tensor([said])])[1:])[0]
        without = still(shares[1:])[0]
        assert abs(after - without) <= 0.5 / clients + 1e-6
    assert abs(before - still(shares[1:])[0]) <= 0.5 / clients + 1e-6
    # Without the half, reports are clipped where they are large, and the figure is wrong.
    forgetful = figure_of(clients, 1e-9, forgets=True)
    assert abs(forgetful(torch.ones(clients) * 0.9)[0] - 0.9) > 0.05


def test_the_best_of_ten_answers_costs_what_the_chapter_says() -> None:
    scope: dict[str, Any] = {"np": np}
    exec(source("def log_odds_of_no"), scope)
    price = scope["log_odds_of_no"]
    assert price(scope["ten"]) == pytest.approx(10 * np.log(3))
    # By the closed form of the geometric law's generating function.
    no, yes = (0.1 * x / (1 - 0.9 * x) for x in (0.75, 0.25))
    assert price(scope["geometric"]) == pytest.approx(np.log(no / yes), rel=1e-6)
    assert price(scope["geometric"]) < 2 * np.log(3)


def test_the_kills_are_those_of_the_benchmark() -> None:
    text = (HERE / "benchmarks" / "results" / "kill_test.json").read_text(encoding="utf-8")
    found = json.loads(text)
    typed = f'killed = {{"runs": {found["runs"]}, "kills": {found["kills"]}}}'
    assert typed in source("benchmarks/results/kill_test.json")
    assert found["under"] == 0
