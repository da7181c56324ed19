"""examples/secagg: processes over loopback, some of them killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "secagg"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "run.py"), "--size", "500", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_the_sum_is_exact_though_clients_are_killed_at_every_step() -> None:
    done = run("--kill", "shares=0", "upload=3,4", "answer=7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the sum over clients [1, 2, 5, 6, 7, 8, 9]" in done.stdout
    assert "the sum of 7 vectors of 500 integers is exact: True" in done.stdout


@pytest.mark.slow
def test_a_round_with_too_few_left_is_skipped() -> None:
    done = run("--clients", "6", "--min-survivors", "4", "--kill", "upload=1,2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "4 uploads, 5 are needed: 4 honest ones and 1 colluders" in done.stdout
    assert "exact" not in done.stdout
