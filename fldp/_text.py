"""How figures, tables and long lines are written: no guarantee is rounded in its own favour."""

from __future__ import annotations

import decimal
import html
import math
import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

# Columns of a page of text; a line that follows another's beginning is indented.
WIDTH = 76
INDENT = "    "
# What Markdown, and the mathematics and HTML in it, would take for its own; not the underscore in
# the middle of a word.
_MARKS = re.compile(r"[\\`*<>|\[\]$~]|(?<!\w)_|_(?!\w)")

# Characters that turn the order of the others on a page.
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
# Control characters, and halves of a character, which no file takes.
_UNPRINTED = {"Cc", "Cs"}


def up(value: float, digits: int = 4) -> str:
    """`value` with so many significant digits, rounded up: for ε and δ of a guarantee.

    Never smaller than `value`: `float(up(value)) >= value`.

    Parameters
    ----------
    value
        Any number; 0 and infinity stay what they are.
    digits
        Significant digits, at least 1.

    Returns
    -------
    str
        The decimal, without trailing zeros.

    Examples
    --------
    >>> up(7.99601), up(1e-5), up(0.00112301), up(0.0)
    ('7.997', '1e-05', '0.001124', '0')
    """
    return _rounded(value, digits, decimal.ROUND_CEILING)


def down(value: float, digits: int = 4) -> str:
    """`value` with so many significant digits, rounded down: for noise, and for bounds from below.

    Never larger than `value`: `float(down(value)) <= value`.

    Parameters
    ----------
    value, digits
        As in `up`.

    Returns
    -------
    str
        The decimal, without trailing zeros.

    Examples
    --------
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
        context.prec = digits + 2  # room for a carry, whatever the caller has set
        shown = exact.quantize(last, rounding=rounding)
    # A carry, from 9.9996 to 10.000, makes one digit more.
    return f"{float(shown):.{digits + 1}g}"


def table(columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    """Rows as aligned text.

    Parameters
    ----------
    columns
        The names of the columns.
    rows
        As many values each; floats are shown with five digits, None as a dash.

    Returns
    -------
    str
        A line each, the names first.

    Examples
    --------
    >>> print(table(("what", "how"), [("a", 1.0), ("b", None)]))
    what  how
    a     1
    b     -
    """
    shown = [list(columns)]
    for row in rows:
        shown.append([_cell(value) for value in row])
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = []
    for cells in shown:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


class Rows(list[dict[str, Any]]):
    """Rows with the same keys; prints as a table, in which ε and δ are rounded up.

    Seconds are shown with two digits.

    Examples
    --------
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


def _shown(key: str, value: object) -> object:
    if not isinstance(value, float):
        return value
    if key in ("epsilon", "delta"):
        return up(value)
    return f"{value:.2g}" if key == "seconds" else value


def folded(shown: Mapping[str, object], words: str) -> str:
    """HTML for a notebook: a table with words folded below it.

    Parameters
    ----------
    shown
        Name -> value; what is None is left out.
    words
        Plain text.

    Returns
    -------
    str
        One table and one `details` element.

    Examples
    --------
    >>> folded({"a": 1, "b": None}, "few")[:41]
    '<table><tr><th>a</th><td>1</td></tr></tab'
    """
    said = [(name, value) for name, value in shown.items() if value is not None]
    cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in said)
    summary = f"<summary>in words</summary><pre>{html.escape(words)}</pre>"
    return f"<table>{cells}</table><details>{summary}</details>"


def fill(line: str) -> str:
    """A long line wrapped, what follows indented.

    Parameters
    ----------
    line
        One line; what has several, a table, stays as it is.

    Returns
    -------
    str
        Lines of at most 76 characters.

    Examples
    --------
    >>> fill("word " * 20).splitlines()[1][:8]
    '    word'
    """
    return line if "\n" in line else textwrap.fill(line, WIDTH, subsequent_indent=INDENT)


def plain(text: str) -> str:
    """`text` for Markdown, in which it reads as it stands: no mark-up, HTML, table or formula.

    Parameters
    ----------
    text
        One line.

    Returns
    -------
    str
        With a backslash before whatever Markdown would take for its own.

    Examples
    --------
    >>> print(plain("a|b *c* my_plan <d>"))
    a\\|b \\*c\\* my_plan \\<d\\>
    """
    return _MARKS.sub(r"\\\g<0>", text)


def is_printed(text: str) -> bool:
    """Whether all of `text` shows where it stands: nothing hidden, and no turning of the order.

    Parameters
    ----------
    text
        One line.

    Returns
    -------
    bool
        False for control characters, halves of characters and marks of direction.

    Examples
    --------
    >>> is_printed("phone"), is_printed("pho\\u202ene")
    (True, False)
    """
    kinds = {unicodedata.category(character) for character in text}
    turns = {unicodedata.bidirectional(character) for character in text}
    return not (kinds & _UNPRINTED or turns & _TURNS)
