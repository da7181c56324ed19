"""Under each section's heading, two small links: to edit the section, and to ask about it.

A link to ask opens the form of `.github/ISSUE_TEMPLATE/book.yml` with the section's title and
address filled in. The addresses of the sources and of the site are those of `_config.yml`.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin

from docutils import nodes

from plain_text import cut, line

TEMPLATE = "book.yml"
# The field of the form that takes an address, and the most characters of a title there.
FIELD, MOST = "page", 90
# A section's heading, which ends with the link to itself.
HEADING = re.compile(r'<h2>(?:(?!</h2>).)*<a class="headerlink" href="#([^"]+)".*?</h2>', re.S)


@dataclass(frozen=True)
class Section:
    """A section of the second level; `file` and `line` are where its source stands."""

    title: str
    file: str
    line: int | None


def sections(doctree: nodes.document, root: Path, path: Path) -> dict[str, Section]:
    """Id -> section. A page may include a file: the section is edited there."""
    found = {}
    for node in doctree.findall(nodes.section):
        above = node.parent
        if not isinstance(above, nodes.section) or not isinstance(above.parent, nodes.document):
            continue
        source = Path(str(node.source or ""))
        if not source.is_file() or not source.is_relative_to(root):
            source = path
        # Lines of a notebook's JSON say nothing to anybody, and those of an included file are
        # counted from another place than its first line.
        where = node.line if source == path and path.suffix == ".md" else None
        title = line(node.next_node(nodes.title) or nodes.Text(""))
        found[node["ids"][0]] = Section(title, source.relative_to(root).as_posix(), where)
    return found


def edit_address(repository: str, branch: str, section: Section) -> str:
    """Where GitHub edits the source of a section."""
    address = f"{repository}/edit/{branch}/{quote(section.file)}"
    return address if section.line is None else f"{address}#L{section.line}"


def ask_address(repository: str, page: str, title: str, address: str) -> str:
    """A new issue about the section `title` of a page."""
    words = {
        "template": TEMPLATE,
        "title": cut(f"{page}: {title}", MOST),
        FIELD: address,
    }
    # Of an address in a query only what ends it must be written otherwise: it stays short.
    return f"{repository}/issues/new?{urlencode(words, safe='/:')}"


def links(edit: str, ask: str, title: str) -> str:
    """The two links; their names begin with the words that are seen."""
    name = html.escape(title)
    return (
        '\n<p class="fldp-section">'
        f'<a href="{html.escape(edit)}" aria-label="edit: {name}">edit</a>'
        f'<a href="{html.escape(ask)}" aria-label="ask: {name}">ask</a></p>'
    )


def add_links(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    body = context.get("body")
    if doctree is None or not body or app.builder.name != "html":
        return
    root = Path(app.srcdir)
    options = app.config.html_theme_options
    repository = str(options["repository_url"])
    branch = str(options["repository_branch"])
    known = sections(doctree, root, Path(app.env.doc2path(pagename)))
    page = line(doctree.next_node(nodes.title) or nodes.Text(pagename))
    site = urljoin(str(app.config.html_baseurl), app.builder.get_target_uri(pagename))

    def add(heading: re.Match[str]) -> str:
        section = known.get(heading[1])
        if section is None:
            return heading[0]
        edit = edit_address(repository, branch, section)
        ask = ask_address(repository, page, section.title, f"{site}#{heading[1]}")
        return heading[0] + links(edit, ask, section.title)

    context["body"] = HEADING.sub(add, body)


def setup(app: Any) -> dict[str, bool]:
    app.connect("html-page-context", add_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
