"""How figures, tables and long lines are written: no guarantee is rounded in its own favour."""

from __future__ import annotations

import decimal
import html
import math
import textwrap
from collections.abc import Mapping
from typing import Any

# Columns of a page of text; a line that follows another's beginning is indented.
WIDTH = 76
INDENT = "    "


def up(value: float, digits: int = 4) -> str:
    """`value` with so many significant digits, rounded up: for ε and δ of a guarantee.

    Never smaller than `value`: `float(up(value)) >= value`.

    >>> up(7.99601), up(1e-5), up(0.00112301), up(0.0)
    ('7.997', '1e-05', '0.001124', '0')
    """
    return _rounded(value, digits, decimal.ROUND_CEILING)


def down(value: float, digits: int = 4) -> str:
    """`value` with so many significant digits, rounded down: for noise, and for bounds from below.

    Never larger than `value`: `float(down(value)) <= value`.

    >>> down(7.99699), down(0.95328, 3)
    ('7.996', '0.953')
    """
    return _rounded(value, digits, decimal.ROUND_FLOOR)


def _rounded(value: float, digits: int, rounding: str) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    # The shortest decimal that reads back as this float: a δ of 1e-5 stays 1e-05.
    exact = decimal.Decimal(repr(float(value)))
    last = decimal.Decimal(1).scaleb(exact.adjusted() - digits + 1)
    with decimal.localcontext() as context:
        context.prec = digits + 2
        shown = exact.quantize(last, rounding=rounding)
    return f"{float(shown):.{digits + 1}g}"


def table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """`rows` under `columns` as aligned text; floats with five digits, None as a dash."""
    shown = [list(columns)]
    for row in rows:
        shown.append([_cell(value) for value in row])
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = []
    for cells in shown:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


class Rows(list[dict[str, Any]]):
    """Rows with the same keys; prints as a table, in which ε and δ are rounded up.

    Seconds are shown with two digits.

    >>> print(Rows([{"label": "training", "epsilon": 1.23456, "delta": 1e-5}]))
    label     epsilon  delta
    training  1.235    1e-05
    """

    def __str__(self) -> str:
        if not self:
            return "(nothing)"
        shown = [tuple(_shown(key, value) for key, value in row.items()) for row in self]
        return table(tuple(self[0]), shown)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def _shown(key: str, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if key in ("epsilon", "delta"):
        return up(value)
    return f"{value:.2g}" if key == "seconds" else value


def folded(shown: Mapping[str, object], words: str) -> str:
    """HTML for a notebook: a table of what is not None, with `words` folded below it."""
    said = [(name, value) for name, value in shown.items() if value is not None]
    cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in said)
    summary = f"<summary>in words</summary><pre>{html.escape(words)}</pre>"
    return f"<table>{cells}</table><details>{summary}</details>"


def fill(line: str) -> str:
    """A long line wrapped at 76 characters, what follows indented; a table as it is."""
    return line if "\n" in line else textwrap.fill(line, WIDTH, subsequent_indent=INDENT)
