"""Tables of the book on paper: columns as wide as what they hold, on a line of the page.

On the site a wide table scrolls. LaTeX would let it run out of the page, or give a column of code
as little as one of single letters.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes

# Letters of a small typeface on a line of the page, and the space that parts two columns.
LINE, GAP = 92.0, 3.0
# A letter of code is wider; LaTeX's names of signs are longer than what they draw.
CODE, FORMULA = 1.3, 0.45
# A column need not be wider than this for the sake of one cell.
LONGEST = 60.0
# A table with more rows may break over pages: on one page it would leave the one before it empty.
MANY = 12


def length(node: nodes.Node) -> float:
    """How much of a line the words of a node take, in letters."""
    if isinstance(node, nodes.Text):
        return len(node.astext())
    if isinstance(node, nodes.math):
        return FORMULA * len(node.astext())
    if isinstance(node, nodes.literal):
        return CODE * len(node.astext())
    return sum(length(child) for child in node.children)


def longest_word(node: nodes.Node) -> float:
    """The longest piece of a cell that does not break; code breaks after an underscore."""
    if isinstance(node, nodes.math):
        return length(node)
    if isinstance(node, nodes.literal):
        pieces = node.astext().replace("_", "_ ").split()
        return CODE * max((len(piece) for piece in pieces), default=0)
    if isinstance(node, nodes.Text):
        return max((len(word) for word in node.astext().split()), default=0)
    return max((longest_word(child) for child in node.children), default=0.0)


def widths(rows: list[nodes.row]) -> list[float]:
    """Shares of a line for the columns; empty if the table fits as it is."""
    columns = list(zip(*(row.children for row in rows), strict=False))
    whole = [max(length(cell) for cell in column) for column in columns]
    needed = [max(longest_word(cell) for cell in column) for column in columns]
    room = LINE - GAP * len(columns)
    if sum(whole) <= room:
        return []
    wished = [min(one, LONGEST) for one in whole]
    needed = [min(need, wish) for need, wish in zip(needed, wished, strict=True)]
    over = sum(wished) - sum(needed)
    share = max(room - sum(needed), 0.0) / over if over else 0.0
    return [GAP + need + share * (wish - need) for need, wish in zip(needed, wished, strict=True)]


def columns(app: Any, document: nodes.document, docname: str) -> None:
    """Say before each table how wide its columns are; what spans columns is left to Sphinx."""
    if app.builder.format != "latex":
        return
    for table in list(document.findall(nodes.table)):
        rows = list(table.findall(nodes.row))
        if any("morecols" in cell for cell in table.findall(nodes.entry)):
            continue
        if len(rows) > MANY:
            table["classes"].append("longtable")
        found = widths(rows)
        total = round(sum(found))
        spec = "".join(
            f">{{\\raggedright\\arraybackslash}}\\X{{{round(one)}}}{{{total}}}" for one in found
        )
        spec = spec or "l" * len(rows[0])
        table.parent.insert(table.parent.index(table), addnodes.tabular_col_spec(spec=spec))


def setup(app: Any) -> dict[str, bool]:
    # After the tables that others fill in then, such as those of the reference.
    app.connect("doctree-resolved", columns, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
