"""What all benchmarks share does what it says; every benchmark takes the shared arguments."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import common, table
from benchmarks.__main__ import ALL, WITH_DATA


def test_contenders_take_turns_and_the_first_turn_does_not_count() -> None:
    order: list[str] = []
    seconds = iter([100.0, 1.0, 2.0, 9.0])

    def first() -> float:
        order.append("first")
        return next(seconds)

    found = common.medians({"first": first, "second": lambda: order.append("second")}, 3)
    assert order == ["first", "second"] * 4
    assert found["first"] == 2.0  # who returns a float has timed itself
    assert 0 <= found["second"] < 1.0


def test_a_turn_may_last_and_the_device_is_waited_for() -> None:
    runs: list[str] = []
    waits: list[str] = []
    common.medians(
        {"one": lambda: runs.append("")}, 1, at_least=0.02, settle=lambda: waits.append("")
    )
    assert len(waits) == len(runs) > 4


def test_an_answer_comes_with_its_seconds() -> None:
    answer, seconds = common.timed(lambda: 6 * 7)
    assert answer == 42
    assert seconds >= 0


def test_results_are_written_where_the_options_say_or_not_at_all(tmp_path: Path) -> None:
    parser = common.parser("What it measures.\n\nMore.", "digits")
    assert parser.description == "What it measures."
    assert parser.parse_args([]).output == common.RESULTS / "digits.json"
    path = tmp_path / "new" / "a.json"
    common.write(parser.parse_args(["--output", str(path), "--no-write"]), {"ε": 1})
    assert common.read(path) == {}
    common.write(parser.parse_args(["--output", str(path)]), {"machine": common.machine()})
    assert json.loads(path.read_text())["machine"]["threads"] >= 1


def test_one_seed_has_no_spread() -> None:
    assert common.spread([0.5]) == {"accuracy_mean": 0.5, "accuracy_sd": None, "accuracy": [0.5]}
    assert common.spread(iter([0.0, 1.0]))["accuracy_sd"] == pytest.approx(0.5**0.5)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_growth_is_what_a_run_takes() -> None:
    # In a process of its own: another test's memory may be given back meanwhile.
    code = (
        "import numpy as np; from benchmarks import common; "
        "print(common.growth(lambda: np.ones(8_000_000)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=common.RESULTS.parent.parent,
    )
    assert 55 < float(done.stdout) < 80  # 61 MiB


@pytest.mark.parametrize("name", [*ALL, *WITH_DATA])
def test_every_benchmark_takes_the_shared_arguments(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    said = capsys.readouterr().out
    assert "--output" in said
    assert "--no-write" in said


def test_the_table_is_that_of_the_results() -> None:
    written = (common.RESULTS / "README.md").read_text(encoding="utf-8")
    assert table.text() == written, "python -m benchmarks.table"


def test_a_benchmark_that_never_ran_has_no_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert table.text() == table.INTRO
