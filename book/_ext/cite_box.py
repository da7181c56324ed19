"""``{cite-box}``: how to cite the book, from CITATION.cff and the address of the site."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ENTRY = """\
@misc{{fldp,
  title  = {{{title}}},
  author = {{{{{author}}}}},
  year   = {{{year}}},
  note   = {{Version {version}, {day}}},
  url    = {{{url}}}
}}"""


class CiteBox(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "CITATION.cff"
        self.env.note_dependency(str(path))
        cited = yaml.safe_load(path.read_text(encoding="utf-8"))
        released = date.fromisoformat(str(cited["date-released"]))
        entry = ENTRY.format(
            title=self.config.project if self.config.html_title is None else self.config.html_title,
            author=cited["authors"][0]["name"],
            year=released.year,
            version=cited["version"],
            day=f"{released.day} {released:%B %Y}",
            url=self.config.html_baseurl,
        )
        block = nodes.literal_block(entry, entry, language="bibtex")
        return [nodes.container("", block, classes=["fldp-cite"])]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("cite-box", CiteBox)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
