"""Settings: one table, which plan, accountant, command line, statement and book read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fldp
from fldp import accounting, cli
from fldp._settings import (
    ACCOUNTANT,
    ADJACENCY,
    SAMPLING,
    SETTINGS,
    TRUST,
    as_markdown,
    refuse_what_conflicts,
    usual_adjacency,
)
from fldp.plan.client import TRUSTS

BOOK = Path(fldp.__file__).parent.parent / "book"
QUESTIONS = (
    accounting.epsilon,
    accounting.delta,
    accounting.noise_multiplier,
    accounting.max_rounds,
    accounting.min_cohort,
)


def test_the_names_of_the_values_are_views_of_the_table() -> None:
    assert SAMPLING.allowed == accounting.SAMPLINGS
    assert ADJACENCY.allowed == accounting.ADJACENCIES
    assert ACCOUNTANT.allowed == accounting.ACCOUNTANTS
    assert TRUST.allowed == TRUSTS


@pytest.mark.parametrize("call", [fldp.calibrate, *QUESTIONS], ids=lambda call: call.__name__)
def test_defaults_are_those_of_the_table(call: Callable[..., Any]) -> None:
    found = inspect.signature(call).parameters
    for setting in SETTINGS:
        if setting.name in found and setting.name != "adjacency":
            assert found[setting.name].default == setting.default
    # An accountant's question names no trust, from which an adjacency could follow.
    expected = None if "trust" in found else usual_adjacency("central")
    assert found["adjacency"].default == expected


def test_calibrate_takes_every_setting_and_a_plan_keeps_it() -> None:
    plan = fldp.calibrate(epsilon=8.0, rounds=60, clients=480, cohort=120)
    for setting in SETTINGS:
        assert setting.name in inspect.signature(fldp.calibrate).parameters
        assert hasattr(plan, setting.name)


@pytest.mark.parametrize("trust", TRUST.allowed)
def test_the_usual_adjacency_of_a_trust_is_accepted(trust: str) -> None:
    shared = {"min_survivors": 90} if trust == "distributed" else {}
    plan = fldp.calibrate(epsilon=8.0, rounds=60, clients=480, cohort=120, trust=trust, **shared)
    assert plan.adjacency == usual_adjacency(trust)


def test_the_command_line_offers_and_explains_what_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["calibrate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for setting in SETTINGS:
        assert f"--{setting.name.replace('_', '-')}" in shown
        assert setting.meaning in shown
        for value, words in setting.values.items():
            assert f"{value}: {words}" in shown.replace("- ", "-")
        if setting.otherwise:
            assert f"(default: {setting.otherwise})" in shown.replace("- ", "-")


def test_the_book_shows_the_table() -> None:
    """After a change of the table: put what this prints into the page."""
    print(as_markdown())
    assert as_markdown() in (BOOK / "notation.md").read_text(encoding="utf-8")


GOOD: dict[str, Any] = {
    "clients": 100, "cohort": 20.0, "sampling": "poisson", "trust": "central",
    "adjacency": "add-or-remove", "accountant": "pld", "cap": None, "min_survivors": None,
}  # fmt: skip
SHARED = {"trust": "distributed", "adjacency": "zero-out", "min_survivors": 9}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cohort": 101.0}, "cohort is 101 but there are 100"),
        ({"sampling": "fixed", "cohort": 2.5}, "whole number"),
        ({"sampling": "fixed"}, "adjacency is 'add-or-remove'"),
        ({"sampling": "none", "cap": 30}, "a cap belongs to"),
        ({"cap": 19}, "below the cohort"),
        ({"trust": "distributed"}, "adjacency is 'add-or-remove' with trust='distributed'"),
        ({"trust": "local"}, "adjacency is 'add-or-remove' with trust='local'"),
        ({**SHARED, "accountant": "rdp"}, "accountant is 'rdp' with trust='distributed'"),
        ({**SHARED, "min_survivors": None}, "min_survivors is None"),
        ({"min_survivors": 3}, "belongs to 'distributed'"),
        ({**SHARED, "min_survivors": 21}, "above the cohort"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(change: dict[str, Any], words: str) -> None:
    refuse_what_conflicts(**GOOD)
    refuse_what_conflicts(**GOOD | SHARED)
    with pytest.raises(ValueError, match=words):
        refuse_what_conflicts(**GOOD | change)
