"""The chapter without a lottery: its theorem on whole runs, its lines, what it says of measures."""

from __future__ import annotations

import itertools
import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import numbering
import numpy as np
import pytest

from fldp.accounting.filters import Filter, fractional, independent
from fldp.accounting.fitting import banded, blt

HERE = Path(__file__).resolve().parent.parent.parent
CHAPTER = HERE / "book" / "privacy-without-a-lottery.ipynb"
RESULTS = HERE / "benchmarks" / "results"
FILTERS = json.loads((RESULTS / "filters.json").read_text(encoding="utf-8"))
DIGITS = json.loads((RESULTS / "correlated_digits.json").read_text(encoding="utf-8"))


@cache
def cells() -> list[dict[str, Any]]:
    return numbering.cells_of(CHAPTER)


def taught(name: str) -> Any:
    """What a cell of the chapter defines."""
    sources = ["".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"]
    scope: dict[str, Any] = {"np": np, "math": math, "itertools": itertools}
    exec(next(source for source in sources if f"def {name}(" in source), scope)
    return scope[name]


def text() -> str:
    return "\n".join("".join(c["source"]) for c in cells() if c["cell_type"] == "markdown")


def matrix(column: np.ndarray) -> np.ndarray:
    """The lower triangular Toeplitz matrix with this first column."""
    size = len(column)
    found = np.zeros((size, size))
    for start in range(size):
        found[start:, start] = column[: size - start]
    return found


# What the theorems say.


@pytest.mark.parametrize(
    "noise", [independent(), Filter((1.0, -0.5)), fractional(12), blt(12, 3, 4), banded(12, 3, 4)]
)
def test_the_best_test_of_all_releases_has_the_stated_mu(noise: Filter) -> None:
    """The log-likelihood ratio of two normal laws with one covariance has a known μ.

    A client that sends 1 in the worst rounds has S/z; random ones have no more.
    """
    rounds, z = 12, 1.7
    added = matrix(noise.inverse(rounds))
    covariance = z**2 * added @ added.T
    stated = noise.sensitivity(rounds, 3, 4) / z

    def mu(sent: np.ndarray) -> float:
        return math.sqrt(float(np.sum(sent * np.linalg.solve(covariance, sent))))

    worst = np.zeros((rounds, 1))
    worst[[0, 4, 8]] = 1.0
    assert mu(worst) == pytest.approx(stated, rel=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(200):
        came = np.sort(rng.choice(rounds, 3, replace=False))
        if min(later - earlier for earlier, later in itertools.pairwise(came.tolist())) < 4:
            continue
        sent = np.zeros((rounds, 5))
        sent[came] = rng.normal(size=(3, 5))
        sent[came] /= np.maximum(1.0, np.linalg.norm(sent[came], axis=1, keepdims=True))
        assert mu(sent) <= stated * (1 + 1e-9)


def test_the_readers_square_root_is_the_packages() -> None:
    power, cost = taught("power"), taught("cost")
    assert np.allclose(power(0.5, 50), fractional(50).inverse(50), atol=1e-15)
    assert np.allclose(power(-0.5, 50), fractional(50).coefficients(50), atol=1e-12)
    moved, left = cost(0.5, 50)
    assert moved == pytest.approx(fractional(50).sensitivity(50, 1, 50))
    assert left == pytest.approx(fractional(50).error(50))


def test_the_readers_trace_is_a_column_sum() -> None:
    squared = taught("squared")
    for came in ((1,), (2, 4), (1, 3, 5)):
        every = matrix(np.array([1.0, 0.4, 0.2, 0.1, 0.05]))
        moved = every[:, [start - 1 for start in came]].sum(axis=1)
        assert squared((1.0, 0.4, 0.2, 0.1, 0.05), came) == pytest.approx(moved @ moved)


@pytest.mark.parametrize(
    ("rounds", "k", "apart", "known"), [(8, 2, 4, 10), (16, 1, 1, 5), (100, 1, 1, 7)]
)
def test_the_readers_tree_has_the_known_values(rounds: int, k: int, apart: int, known: int) -> None:
    tree = taught("tree")
    schedules = [(first,) for first in range(1, rounds + 1)]
    if k == 2:
        schedules = [(a, b) for (a,) in schedules for b in range(a + apart, rounds + 1)]
    assert max(tree(came, rounds) for came in schedules) == known


# What the chapter reads from the measures.


def score(rounds: int, name: str) -> float:
    """Of one row of the table."""
    (found,) = (
        row["score"]
        for row in FILTERS["rows"]
        if (row["rounds"], row["filter"]) == (rounds, name) and row["participations"] in (6, 8)
    )
    return float(found)


def test_the_rows_of_the_tables_are_measured() -> None:
    names = {
        output["metadata"]["scrapbook"]["name"]
        for cell in cells()
        for output in cell.get("outputs", [])
        if "scrapbook" in output.get("metadata", {})
    }
    used = set(re.findall(r"\{glue:text\}`(lot-[^`:]+)", text()))
    assert used <= names, "make notebooks"
    assert DIGITS["setting"]["rounds"] == 64
    assert DIGITS["setting"]["separation"] == 8


def test_what_the_chapter_says_of_filters_is_so() -> None:
    for rounds in (64, 2000):
        # "The whole square root loses to a single buffer."
        assert score(rounds, "square root, all") > score(rounds, "BLT 1")
        # "Two buffers are within a few percent of the best banded noise."
        assert score(rounds, "banded b") < score(rounds, "BLT 2") < 1.07 * score(rounds, "banded b")


def test_what_the_chapter_says_of_the_digits_is_so() -> None:
    rows = {(row["epsilon"], row["noise"]): row for row in DIGITS["rows"]}

    def mean(epsilon: float, noise: str) -> float:
        return float(rows[epsilon, noise]["accuracy_mean"])

    fresh, paid = "independent, k paid for", "every round is paid for"
    for noise in ("fractional", "BLT", "banded"):
        # "Nothing at ε = 8, and some points at ε = 2."
        assert abs(mean(8.0, noise) - mean(8.0, fresh)) < 0.01
        assert mean(2.0, noise) > mean(2.0, fresh) + 0.02
        # "Secret coins are better still."
        assert mean(2.0, noise) < mean(2.0, "secret coins")
        assert rows[2.0, noise]["epsilon_known"] <= 2
    # "To count k rounds and not all of them is the larger part."
    for epsilon in (8.0, 2.0):
        most = max(mean(epsilon, noise) for noise in ("fractional", "BLT", "banded"))
        assert mean(epsilon, fresh) - mean(epsilon, paid) > most - mean(epsilon, fresh)
