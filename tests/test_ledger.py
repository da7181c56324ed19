"""fldp.ledger: on disk before the release, never below the truth, one writer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fldp
from fldp.accounting import Event
from fldp.ledger import Ledger, grouped


@pytest.fixture
def plan() -> fldp.PrivacyPlan:
    return fldp.calibrate(epsilon=2.0, delta=1e-4, rounds=10, clients=1000, cohort=100)


def test_what_is_recorded_is_read_back(tmp_path: Path, plan: fldp.PrivacyPlan) -> None:
    path = tmp_path / "new" / "ledger.jsonl"
    with Ledger(path, plan) as ledger:
        for t in range(1, 11):
            ledger.record(plan.event, t)
        assert ledger.last_round == 10
        assert ledger.epsilon(plan.delta) == pytest.approx(plan.epsilon(), rel=1e-3)
        assert ledger.epsilon(plan.delta) <= plan.target_epsilon
    assert Ledger.read(path) == [plan.event] * 10
    with Ledger(path, plan) as again:
        assert again.events == [plan.event] * 10


def test_an_event_is_on_disk_when_record_returns(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom fldp.ledger import Ledger\nfrom fldp.accounting import Event\n"
        "ledger = Ledger(sys.argv[1])\nledger.record(Event(1.0), 1)\nos.kill(os.getpid(), 9)"
    )
    path = tmp_path / "ledger.jsonl"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert Ledger.read(path) == [Event(1.0)]


@given(cut=st.integers(min_value=1, max_value=400))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere_recovers_every_whole_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    with Ledger(path) as ledger:
        for t in range(1, 4):
            ledger.record(Event(float(t)), t)
    content = path.read_bytes()
    path.write_bytes(content[: min(cut, len(content))])
    whole = max(0, content[: min(cut, len(content))].count(b"\n") - 1)
    with Ledger(path) as ledger:
        assert ledger.events == [Event(float(t)) for t in range(1, whole + 1)]
        ledger.record(Event(9.0), 9)
    assert Ledger.read(path)[-1] == Event(9.0)


def test_a_second_writer_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path), pytest.raises(ValueError, match="has a writer already"):
        Ledger(path)
    Ledger(path).close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    code = "import sys\nfrom fldp.ledger import Ledger\nLedger(sys.argv[1])"
    with Ledger(path):
        command = [sys.executable, "-c", code, str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "has a writer already" in result.stderr


def test_the_gate_refuses_the_event_that_exceeds(tmp_path: Path, plan: fldp.PrivacyPlan) -> None:
    with Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        for t in range(1, 11):
            assert not ledger.would_exceed(plan.event, plan.target_epsilon, plan.delta)
            ledger.record(plan.event, t)
        assert ledger.would_exceed(plan.event, plan.target_epsilon, plan.delta)


def test_another_plan_a_damaged_line_and_another_file_are_refused(
    tmp_path: Path, plan: fldp.PrivacyPlan
) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path, plan).close()
    other = fldp.calibrate(epsilon=1.0, delta=1e-4, rounds=10, clients=1000, cohort=100)
    with pytest.raises(ValueError, match="the ledger of another plan"):
        Ledger(path, other)
    path.write_text(path.read_text() + "not json\n")
    with pytest.raises(ValueError, match="line 2 is damaged"):
        Ledger(path, plan)
    path.write_text('{"something": 1}\n')
    with pytest.raises(ValueError, match="not a ledger of version"):
        Ledger(path)


def test_composition_does_not_depend_on_the_order() -> None:
    a, b = Event(1.0), Event(2.0, 0.1, "poisson")
    assert grouped([a, b, a]) == grouped([a, a, b])
    assert grouped([a, b, a])[0].rounds == 2
