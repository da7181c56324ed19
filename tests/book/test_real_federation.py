"""The chapter on a real federation: what it reads is of the stated version, and what it draws."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import check_book
import numbering
import numpy as np
import pytest
import tomllib
from packaging.requirements import Requirement
from scipy.stats import binom

HERE = Path(__file__).resolve().parent.parent.parent
CHAPTER = HERE / "book" / "on-a-real-federation.ipynb"
RESULTS = HERE / "benchmarks" / "results"
MEASURED = json.loads((RESULTS / "flower.json").read_text(encoding="utf-8"))
FAULTS = json.loads((RESULTS / "flower_faults.json").read_text(encoding="utf-8"))
# Each of these statistical tests fails a sound program with at most this probability.
FALSE_ALARM = 1e-6


@cache
def cells() -> list[dict[str, Any]]:
    return numbering.cells_of(CHAPTER)


def code(word: str) -> str:
    """The one cell of code that holds a word."""
    (found,) = (
        "".join(cell["source"])
        for cell in cells()
        if cell["cell_type"] == "code" and word in "".join(cell["source"])
    )
    return found


def text() -> str:
    return "\n".join("".join(c["source"]) for c in cells() if c["cell_type"] == "markdown")


def test_what_is_read_was_measured_on_the_version_that_we_ask_for() -> None:
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (asked,) = map(Requirement, project["optional-dependencies"]["flower"])
    version = FAULTS["versions"]["flwr"]
    assert asked.name == "flwr"
    assert asked.specifier.contains(version)
    assert MEASURED["versions"]["flwr"] == version
    printed = check_book.bound("{glue:text}`flwr`", cells())
    assert printed == {"flwr": f"'{version}'"}, "make notebooks"


def test_every_fault_has_its_line_in_the_table_and_is_still_there() -> None:
    names = [fault["name"] for fault in FAULTS["faults"]]
    assert re.findall(r"^\| (F\d+|RNG) \|", text(), re.M) == names
    # The chapter says that FedAvg cannot be brought to F10; the others it calls present.
    gone = [fault["name"] for fault in FAULTS["faults"] if not fault["there"]]
    assert gone == ["F10"]


def test_the_table_can_be_written_as_markdown() -> None:
    for fault in FAULTS["faults"]:
        said = fault["fault"] + fault["measured"] + fault["needed"]
        assert not set(said) & set("|`*_"), said


def test_two_lines_are_two_lines() -> None:
    patch = HERE / "examples" / "flower" / "quickstart" / "private.patch"
    lines = patch.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("+") and not line.startswith("+++") for line in lines) == 2
    assert sum(line.startswith("-") and not line.startswith("---") for line in lines) == 1


def test_the_rows_are_those_that_the_tables_name() -> None:
    rows = [row["name"] for row in MEASURED["digits"]["rows"]]
    assert rows == ["fldp.train", "Private(FedAvgM)", "FedAvgM", "Flower's wrapper"]
    rows = [row["name"] for row in MEASURED["server"]["rows"]]
    assert rows == ["Private(FedAvg)", "FedAvg", "Flower's wrapper"]
    assert MEASURED["digits"]["setting"]["epsilon"] == 2
    assert MEASURED["server"]["parameters"] == 50_000
    assert MEASURED["server"]["replies"] == 200


def test_what_the_chapter_says_of_the_measures_is_so() -> None:
    # "The guarantee costs the accuracy that it costs in a simulation."
    assert MEASURED["digits"]["within"]
    # So much longer than FedAvg, and less memory.
    private, plain, _ = MEASURED["server"]["rows"]
    assert private["times_fedavg"] <= 2
    assert private["peak_model_sizes"] < plain["peak_model_sizes"]
    # "No account was too low", and a kill wastes an event at most.
    kills = MEASURED["kills"]
    assert kills["under"] == kills["over"] == 0
    assert kills["wasted"] <= kills["kills"]


# What the chapter writes itself.


def draw(connected: list[int], rng: np.random.Generator) -> list[int]:
    known: dict[str, Any] = {"N": 40, "q": 0.25}
    exec(code("def drawn"), known)
    return list(known["drawn"](connected, rng))


@pytest.mark.parametrize("there", [1, 12, 40])
def test_a_node_is_drawn_at_the_plans_rate_whoever_else_is_there(there: int) -> None:
    rng, rounds = np.random.default_rng(there), 2000
    nodes = list(range(100, 100 + there))
    for node in (nodes[0], nodes[-1]):
        times = sum(node in draw(nodes, rng) for _ in range(rounds))
        low, high = binom.ppf([FALSE_ALARM / 4, 1 - FALSE_ALARM / 4], rounds, 0.25)
        assert low <= times <= high


def test_without_a_node_the_others_are_drawn_as_before() -> None:
    """Its place is taken by another, whose coin has the same chance and is its own."""
    rng, rounds = np.random.default_rng(0), 4000
    counts = np.zeros((2, 4))
    for world, nodes in enumerate(([1, 2, 3], [1, 3])):
        for _ in range(rounds):
            came = draw(nodes, rng)
            counts[world, 2 * (1 in came) + (3 in came)] += 1
    for chance, seen in zip((9 / 16, 3 / 16, 3 / 16, 1 / 16), counts.T, strict=True):
        low, high = binom.ppf([FALSE_ALARM / 16, 1 - FALSE_ALARM / 16], rounds, chance)
        assert ((low <= seen) & (seen <= high)).all()


def test_adam_of_the_chapter_is_that_of_flower() -> None:
    """It moves as far as the installed FedAdam was measured to (F6)."""
    import torch

    known: dict[str, Any] = {"torch": torch}
    exec(code("def adam"), known)
    size, clients = 1000, 10
    mean = torch.full((size,), 1 / clients / math.sqrt(size))
    moved = float(known["adam"](torch.zeros(size), [mean]).norm())
    (fault,) = (fault for fault in FAULTS["faults"] if fault["name"] == "F6")
    assert moved == pytest.approx(fault["numbers"]["measured"], rel=0.01)
