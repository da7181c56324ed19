"""What was measured on Flower is of a version that fldp[flower] asks for; no Flower is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks import common

# Python's own from 3.11 on.
tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
ROOT = Path(__file__).parent.parent
NAMES = ("flower", "flower_faults")


@pytest.mark.parametrize("name", NAMES)
def test_the_version_is_one_that_the_package_asks_for(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = map(Requirement, project["optional-dependencies"]["flower"])
    versions = common.read(common.RESULTS / f"{name}.json")["versions"]
    assert wanted.name == "flwr"
    assert wanted.specifier.contains(versions["flwr"]), f"python -m benchmarks {name}"
    assert versions["python"]
    assert versions["torch"]


def test_every_fault_has_what_its_table_needs() -> None:
    found = common.read(common.RESULTS / "flower_faults.json")["faults"]
    names = [one["name"] for one in found]
    assert names == [*(f"F{number}" for number in range(1, 14)), "RNG"]
    for one in found:
        assert one["measured"]
        assert one["needed"]
        assert one["numbers"]
        assert one["kind"] in ("run", "derived", "unreachable")


def test_no_kill_left_an_account_below_the_truth() -> None:
    kills = common.read(common.RESULTS / "flower.json")["kills"]
    assert kills["kills"] >= 20
    assert kills["under"] == kills["over"] == 0
    assert kills["ended"] == kills["runs"]
