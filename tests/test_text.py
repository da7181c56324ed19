"""fldp._text: figures never round in their own favour, tables align."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from fldp import _text as report


@settings(deadline=None, max_examples=500)
@given(st.floats(1e-300, 1e300), st.integers(1, 8))
def test_p12_a_printed_guarantee_is_never_too_small(value: float, digits: int) -> None:
    above, below = float(report.up(value, digits)), float(report.down(value, digits))
    assert below <= value <= above
    step = 10.0 ** (1 - digits)
    assert above <= value * (1 + step) * (1 + 1e-12)
    assert below >= value * (1 - step) * (1 - 1e-12)


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 9999), st.integers(-12, 6))
def test_a_figure_with_few_digits_is_printed_as_it_is(digits: int, exponent: int) -> None:
    value = float(f"{digits}e{exponent}")
    assert float(report.up(value)) == float(report.down(value)) == value


def test_no_budget_spent_is_printed_as_such() -> None:
    assert report.up(0.0) == "0"


def test_tables_align_and_shorten_floats() -> None:
    lines = report.table(("tool", "epsilon"), [("fldp", 1.23456789), ("a longer name", None)])
    first, second, third = lines.split("\n")
    assert first.index("epsilon") == second.index("1.2346") == third.index("-")


def test_rows_print_as_a_table_with_guarantees_rounded_up() -> None:
    rows = report.Rows([{"label": "a", "epsilon": 1.00001, "seconds": 0.123456, "x": 0.123456}])
    assert str(rows).split("\n")[1].split() == ["a", "1.001", "0.12", "0.12346"]
    assert rows._repr_html_() == f"<pre>{rows}</pre>"
    assert str(report.Rows()) == "(nothing)"


@settings(deadline=None)
@given(st.text(alphabet="ab_*`<>|[]$~\\\\ ", max_size=30))
def test_text_for_markdown_reads_as_it_stands(text: str) -> None:
    told = report.plain(text)
    # Without the backslashes that were put before marks it is what was given.
    assert re.sub(r"\\([\\`*<>|\[\]$~_])", r"\1", told) == text
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*<>|\[\]$~]", told)
    assert report.plain("plan.seeded_epsilon") == "plan.seeded_epsilon"
