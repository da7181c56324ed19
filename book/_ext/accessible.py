"""What the tools behind the page get wrong for those who do not see it, put right in its body.

A term of the glossary carries its definition, which fldp.css shows where the pointer or the
keyboard rests on it: no script.
"""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes

from plain_text import cut, line

GLOSSARY = "book/glossary"
TERM = re.compile(r'<a class="reference internal" href="(?:glossary\.html)?#(term-[^"]+)"')
MOST = 230
# Written -> better. A list has items; an entry of a bibliography was a role until ARIA 1.2.
ROLES = {
    'role="doc-biblioentry"': 'role="listitem"',
    # A fold is named by the words on it.
    '<summary aria-label="Toggle hidden content">': "<summary>",
    # An empty header cell names nothing.
    '<th class="head"></th>': '<td class="head"></td>',
    "<th></th>": "<td></td>",
}


def definitions(app: Any) -> dict[str, str]:
    """Term id -> what the glossary says about it."""
    if not hasattr(app, "_fldp_terms"):
        app._fldp_terms = {}
        if GLOSSARY in app.env.found_docs:
            for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
                text = cut(line(item.next_node(nodes.definition)), MOST)
                for term in item.findall(nodes.term):
                    app._fldp_terms.update(dict.fromkeys(term["ids"], text))
    found: dict[str, str] = app._fldp_terms
    return found


def mend(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    body = context.get("body")
    if not body:
        return
    for written, better in ROLES.items():
        body = body.replace(written, better)
    if pagename != GLOSSARY:
        known = definitions(app)

        def say(link: re.Match[str]) -> str:
            text = known.get(link[1])
            return link[0] if text is None else f'{link[0]} data-term="{html.escape(text)}"'

        body = TERM.sub(say, body)
    context["body"] = body


def setup(app: Any) -> dict[str, bool]:
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
