"""The book on paper: the pages of the site in one order, as LaTeX for ``make pdf``.

Nothing here touches the site: every step is taken for LaTeX alone. The look is in
`book/_latex/fldp.sty`; boxes, solutions and drawings have modules of their own.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.builders.latex.nodes import thebibliography
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.texescape import escape

from chapters import PART
from paper_boxes import has_class, number

ENGINE = "xelatex"
NAME = "fldp.tex"
STYLE = "book/_latex/fldp.sty"
# What the landing page is called where the title page has the title of the book.
PREFACE = "About this book"
CALCULATOR = "book/calculator"
WORKS = "book/references"
# Set small, since it is looked up and not read.
NAMES = "book/api"
# Per cent of its width on a screen that a plot has on paper, where letters are smaller too.
PLOT = 84
# A4 with a column as wide as 79 letters of code, so that code does not break.
GEOMETRY = r"\usepackage[a4paper,textwidth=15cm,textheight=23.6cm,centering]{geometry}"
FONTS = r"""
\setmainfont{TeX Gyre Pagella}
\setsansfont{TeX Gyre Heros}[Scale=0.92]
\setmonofont{DejaVu Sans Mono}[Scale=0.88]
"""
SETUP = (
    "verbatimwithframe=false,verbatimhintsturnover=false,"
    "pre_background-TeXcolor={HTML}{F4F5F7},pre_border-radius=0pt,pre_border-width=0pt,"
    "TitleColor={HTML}{1F2328},InnerLinkColor={HTML}{1F5E94},OuterLinkColor={HTML}{1F5E94}"
)


def facts(app: Any) -> str:
    """What the title page says, from the places where it stands."""
    cited = yaml.safe_load((Path(app.srcdir) / "CITATION.cff").read_text(encoding="utf-8"))
    released = date.fromisoformat(str(cited["date-released"]))
    said = {
        "title": app.config.html_title,
        "subtitle": "An open, executable book",
        "author": app.config.author,
        "version": cited["version"],
        "date": f"{released.day} {released:%B %Y}",
        "site": str(app.config.html_baseurl),
        "sources": cited["repository-code"],
    }
    return "".join(
        f"\\newcommand{{\\fldp{name}}}{{{escape(str(text), ENGINE)}}}\n"
        for name, text in said.items()
    )


def configure(app: Any, config: Any) -> None:
    """Options that only LaTeX reads."""
    if not (Path(app.srcdir) / STYLE).exists():
        return
    config.latex_engine = ENGINE
    config.latex_documents = [
        (config.root_doc, NAME, config.html_title, config.author, "manual"),
    ]
    config.latex_toplevel_sectioning = "chapter"
    config.latex_domain_indices = False
    config.latex_show_urls = "no"
    config.latex_additional_files = [STYLE]
    config.latex_elements = {
        "papersize": "a4paper",
        "pointsize": "11pt",
        "extraclassoptions": "openany,oneside",
        "fncychap": "",
        "geometry": GEOMETRY,
        "fontpkg": FONTS,
        "sphinxsetup": SETUP,
        "maketitle": r"\fldptitlepage",
        # Sphinx would call the contents by the name of the first part.
        "tableofcontents": r"\renewcommand{\contentsname}{Contents}\sphinxtableofcontents",
        "makeindex": "",
        "printindex": "",
        "preamble": "\\usepackage{fldp}\n" + facts(app),
    }


def raw(text: str) -> nodes.raw:
    return nodes.raw("", text, format="latex")


class Order(SphinxPostTransform):
    """Parts and pages as in the table of contents; the landing page is the preface."""

    # After references have found what they name.
    default_priority = 300
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        files = {one["docname"]: one for one in self.document.findall(addnodes.start_of_file)}
        book = self.document.next_node(nodes.section)
        if not files or book is None:
            return
        for file in files.values():
            file.parent.remove(file)
            # Sphinx lends a page its children; from here on they are asked where they stand.
            for child in file.children:
                child.parent = file
        preface = nodes.section("", nodes.title("", "", nodes.Text(PREFACE)), ids=["preface"])
        title, *rest = book.children
        book.children = [title]
        preface += [one for one in rest if not has_class(one, "toctree-wrapper")]
        book += [raw("\\setcounter{secnumdepth}{-1}"), preface]
        for part in self.env.external_site_map.root.subtrees:
            book += raw(self.part(part.caption))
            book += [files[str(item)] for item in part.items]

    def part(self, caption: str) -> str:
        """LaTeX numbers the parts that have numbers; it writes the word and the number itself."""
        numbered = PART.match(caption)
        name = caption[numbered.end() :].lstrip(" —") if numbered else caption
        command = "fldppart" if numbered else "fldppages"
        return f"\\{command}{{{escape(name, ENGINE)}}}"


class Folds(SphinxPostTransform):
    """What the site folds away stays away, and what needs a screen is told where it is."""

    default_priority = 305
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        for cell in list(self.document.findall(lambda one: has_class(one, "tag_hide-input"))):
            for code in [one for one in cell.children if has_class(one, "cell_input")]:
                cell.remove(code)
        for line in list(self.document.findall(lambda one: has_class(one, "fldp-line"))):
            small = nodes.container(classes=["fldp-line"])
            line.replace_self(small)
            small += line
        for place in list(self.document.findall(lambda one: has_class(one, "fldp-downloads"))):
            place.parent.remove(place)
        for image in self.document.findall(nodes.image):
            if image["uri"].endswith(".png"):
                image["scale"] = PLOT
        for file in list(self.document.findall(addnodes.start_of_file)):
            if file["docname"] == CALCULATOR:
                self.calculator(file.next_node(nodes.section))
            if file["docname"] == NAMES:
                self.small(file.next_node(nodes.section))

    def small(self, page: nodes.section) -> None:
        title, *rest = page.children
        held = nodes.container("", *rest, classes=["fldp-api"])
        page.children = []
        page += [title, held]

    def calculator(self, page: nodes.section) -> None:
        """Its first words, its address, and the same in Python."""
        title, first = page[0], page.next_node(nodes.paragraph)
        code = next(page.findall(nodes.literal_block))
        address = urljoin(str(self.config.html_baseurl), f"{CALCULATOR}.html")
        where = nodes.paragraph("", "", nodes.Text("The calculator needs a screen: it is at "))
        where += nodes.reference("", address, refuri=address)
        where += nodes.Text(". The same answers come from Python:")
        page.children = []
        page += [title, first, where, code]


class Numbers(SphinxPostTransform):
    """A figure and a table have the number that the site gives them."""

    # Before solutions and boxes move: the page that a figure stands on counts.
    default_priority = 306
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        for kind, node_type in (("figure", nodes.figure), ("table", nodes.table)):
            for node in list(self.document.findall(node_type)):
                found = number(self.env, node, kind)
                if found:
                    place = node.parent.index(node)
                    node.parent.insert(place, raw(f"\\fldpnumber{{{kind}}}{{{found}}}"))


class Works(SphinxPostTransform):
    """The list of works stands on its page; Sphinx puts it behind everything else."""

    # After Sphinx has gathered it (priority 750).
    default_priority = 760
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        pages = {one["docname"]: one for one in self.document.findall(addnodes.start_of_file)}
        for works in list(self.document.findall(thebibliography)):
            if WORKS in pages:
                works.parent.remove(works)
                list(pages[WORKS].findall(nodes.section))[-1].append(works)


def setup(app: Any) -> dict[str, bool]:
    app.setup_extension("paper_boxes")
    app.setup_extension("paper_drawings")
    app.setup_extension("paper_solutions")
    app.setup_extension("paper_tables")
    # The root of the book is known once the table of contents has been read (priority 900).
    app.connect("config-inited", configure, priority=950)
    for transform in (Order, Folds, Numbers, Works):
        app.add_post_transform(transform)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
