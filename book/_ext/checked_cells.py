"""A cell whose output the tests compare says so in its corner, not in its first line.

``# NBVAL_CHECK_OUTPUT`` is a word from the tests to the tests; the page shows a tick in its place.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes

MARK = "# NBVAL_CHECK_OUTPUT"


def tick(app: Any, doctree: nodes.document) -> None:
    for block in doctree.findall(nodes.literal_block):
        text = block.astext()
        if not text.startswith(MARK):
            continue
        text = text[len(MARK) :].lstrip("\n")
        block.rawsource = text
        block.children = []
        block += nodes.Text(text)
        if isinstance(block.parent, nodes.container):
            block.parent["classes"].append("fldp-checked")


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-read", tick)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
