"""The line under a title: how long to read and to run, what the chapter builds on, the symbols.

The run time and what a chapter builds on are what its card says; the reading time is counted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes

from chapters import Chapter, chapters
from plain_text import line

# Words a minute, for a text that is worked through.
PACE = 200
RUNS = re.compile(r"It runs in about (\d+ \w+)")
NOTATION = "book/notation"


def minutes(doctree: nodes.document) -> int:
    """To read the prose: no code, no outputs, no solutions that are folded away."""
    words = sum(
        len(line(node).split())
        for node in doctree.findall(nodes.paragraph)
        if "solution" not in node.parent.get("classes", [])
    )
    return max(1, round(words / PACE))


def link(words: str, target: str) -> nodes.Node:
    text = nodes.inline("", words, classes=["doc"])
    return addnodes.pending_xref(
        "", text, refdomain="std", reftype="doc", reftarget=f"/{target}", refexplicit=True
    )


def parts(
    doctree: nodes.document, docname: str, slug: str, written: list[Chapter]
) -> list[list[nodes.Node]]:
    """What stands in the line, one list of nodes for each of its parts."""
    count = minutes(doctree)
    found: list[list[nodes.Node]] = [[nodes.Text(f"{count} minutes to read")]]
    runs = next(
        (told for node in doctree.findall(nodes.paragraph) if (told := RUNS.search(line(node)))),
        None,
    )
    if runs:
        found.append([nodes.Text(f"{runs[1]} to run")])
    known = {chapter.slug: chapter for chapter in written}
    needs = [known[one] for one in known[slug].needs() if one in known] if slug in known else []
    if needs:
        folder = docname.rpartition("/")[0]
        links: list[nodes.Node] = [nodes.Text("builds on ")]
        for place, chapter in enumerate(sorted(needs, key=lambda one: one.number)):
            links += [nodes.Text(", ")] if place else []
            links.append(link(chapter.title(), f"{folder}/{chapter.slug}"))
        found.append(links)
    found.append([link("symbols", NOTATION)])
    return found


def add_line(app: Any, doctree: nodes.document) -> None:
    docname = app.env.docname
    slug = Path(docname).name
    written = chapters(Path(app.srcdir))
    known = {chapter.slug for chapter in written}
    title = doctree.next_node(nodes.title)
    if title is None or (slug not in known and slug != "quickstart"):
        return
    said = nodes.paragraph(classes=["fldp-line"])
    for place, some in enumerate(parts(doctree, docname, slug, written)):
        said += [nodes.Text(" · ")] if place else []
        said += some
    title.parent.insert(title.parent.index(title) + 1, said)


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-read", add_line)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
