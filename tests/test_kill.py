"""Runs that are killed and resumed: a small version of `python -m benchmarks.kill_test`."""

from __future__ import annotations

import os

import pytest

from benchmarks.kill_test import measure
from fldp.accounting import Event
from fldp.plan.ledger import Ledger

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.slow
def test_the_account_survives_kills() -> None:
    found = measure(5, seed=1)
    assert found["ended"] == 5
    assert found["kills"] >= 3
    assert found["under"] == found["over"] == 0


@pytest.mark.slow
def test_a_ledger_that_writes_late_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Ledger.record

    def late(self: Ledger, event: Event, round: int) -> None:
        if round > 1:
            write(self, event, round - 1)

    monkeypatch.setattr(Ledger, "record", late)
    # The resumed run itself refuses a ledger that lacks what its checkpoint has released.
    with pytest.raises(RuntimeError, match="a resumed run failed"):
        measure(5, seed=1)
