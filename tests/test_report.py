"""What a plan says: figures never round in its favour, and lines fit a page."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import fldp
from fldp import report


@settings(deadline=None, max_examples=300)
@given(st.floats(1e-6, 1e6))
def test_a_printed_epsilon_is_never_too_small(epsilon: float) -> None:
    shown = float(report.up(epsilon))
    assert shown >= epsilon * (1 - 1e-9)
    assert shown <= epsilon * 1.0011


def test_no_budget_spent_is_printed_as_such() -> None:
    assert report.up(0.0) == "0"


def test_tables_align_and_shorten_floats() -> None:
    lines = report.table(("tool", "epsilon"), [("fldp", 1.23456789), ("a longer name", None)])
    first, second, third = lines.split("\n")
    assert first.index("epsilon") == second.index("1.2346") == third.index("-")


def test_a_statement_fits_a_page_and_names_its_assumptions() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    said = plan.statement()
    assert max(map(len, said.split("\n"))) <= 80
    for word in ("Unit:", "Trust,", "Against:", "Sampling,", "Noise:", "Assumes:", "not cover"):
        assert word in said
    assert "Reproducible" not in said
    assert "Reproducible" in plan.statement(reproducible=True)


def test_a_weak_guarantee_is_called_weak() -> None:
    plan = fldp.calibrate(epsilon=50.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    assert "This is weak" in plan.statement()
