"""How a result becomes lines of Markdown: what all sections of the benchmarks' table share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import common

# From here on a ratio has no decimals.
WHOLE = 10


def load(name: str) -> dict[str, Any]:
    """What the last run of a benchmark has stored; empty where there was none."""
    return common.read(common.RESULTS / f"{name}.json")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def times(value: float) -> str:
    """A ratio to ours."""
    return f"{value:.2g}×" if value < WHOLE else f"{value:,.0f}×"


def ratios(found: dict[str, float], names: Sequence[str]) -> list[str]:
    """A ratio for each name, empty where it was not measured."""
    return [times(found[name]) if name in found else "" for name in names]


def percent(share: float, digits: int = 0) -> str:
    """A share of one, in percent."""
    return f"{100 * share:.{digits}f} %"
