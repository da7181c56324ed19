"""One table of what the last runs measured: ``python -m benchmarks.table``.

Reads the JSON files of `benchmarks/results/`, measures nothing, and writes two files beside them:
`README.md`, the table, and `growth.svg`, how a simulated round grows. A figure that no run has
measured yet is left out.
"""

from __future__ import annotations

from benchmarks import (
    common,
    tables_accounting,
    tables_checks,
    tables_flower,
    tables_learning,
    tables_rounds,
)

SECTIONS = (
    tables_accounting.accounting,
    tables_accounting.calculator,
    tables_accounting.filters,
    tables_rounds.aggregation,
    tables_rounds.simulation,
    tables_learning.algorithms,
    tables_learning.digits,
    tables_learning.correlated,
    tables_checks.crashes,
    tables_learning.mnist,
    tables_checks.audits,
    tables_learning.clients,
    tables_rounds.populations,
    tables_learning.schools,
    tables_learning.weights,
    tables_flower.flower,
    tables_flower.faults,
)
INTRO = (
    "# What the benchmarks measured\n\nWritten by `python -m benchmarks.table` from the JSON "
    "files beside it. Compare ratios inside one run; seconds depend on the machine.\n"
)


def text() -> str:
    """The table, as Markdown."""
    lines = [line for section in SECTIONS for line in section()]
    return "\n".join([INTRO, *lines]).rstrip() + "\n"


def main() -> int:
    """Write the table and its picture."""
    made = text()
    print(made)
    (common.RESULTS / "README.md").write_text(made, encoding="utf-8")
    tables_rounds.draw()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
