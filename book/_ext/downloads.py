"""``{downloads}``: where the book is as a PDF and as an archive, on the published site.

tools/publish.sh puts both beside the pages, under these names. On paper nothing is said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

PDF = "fldp.pdf"
ARCHIVE = "fldp-book-{version}.zip"
CLASS = "fldp-downloads"


class Downloads(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "CITATION.cff"
        self.env.note_dependency(str(path))
        version = yaml.safe_load(path.read_text(encoding="utf-8"))["version"]
        site = str(self.config.html_baseurl)
        said = nodes.paragraph("", "", nodes.Text("The book is also "))
        said += link("a PDF", urljoin(site, PDF))
        said += nodes.Text(", with the solutions at the end, and ")
        said += link("one archive of these pages", urljoin(site, ARCHIVE.format(version=version)))
        said += nodes.Text(", which a browser opens without a network.")
        return [nodes.container("", said, classes=[CLASS])]


def link(words: str, address: str) -> nodes.reference:
    return nodes.reference("", words, refuri=address)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("downloads", Downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
