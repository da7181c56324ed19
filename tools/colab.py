"""Write the version of every notebook that is read alone: ``python tools/colab.py [FOLDER]``.

The chapters are MyST: boxes, cross-references and citations are directives and roles, which only
the book renders. Here each becomes plain Markdown, so that a notebook opened in Colab or JupyterLab
shows no raw directive. Code cells are copied unchanged. The files are published on the branch
`colab` (see CONTRIBUTING.md) and kept nowhere else.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import myst
import tomllib
from markdown_it.token import Token
from pybtex.database import Entry, Person, parse_file

HERE = Path(__file__).resolve().parent.parent
BOOK, OUT = HERE / "book", HERE / "_build" / "colab"
TITLES = {
    "prf:definition": "Definition",
    "prf:theorem": "Theorem",
    "prf:lemma": "Lemma",
    "prf:proposition": "Proposition",
    "prf:corollary": "Corollary",
    "prf:algorithm": "Algorithm",
    "prf:example": "Example",
    "prf:remark": "Remark",
    "prf:proof": "Proof",
    "exercise": "Exercise",
    "exercise-start": "Exercise",
    "solution": "Solution",
    "solution-start": "Solution",
    "note": "Note",
    "tip": "Tip",
    "warning": "Warning",
    "caution": "Caution",
    "important": "Note",
    "seealso": "See also",
    "hint": "Hint",
    "danger": "Danger",
}
# Their argument is their title.
TITLED = ("admonition", "dropdown", "margin", "topic", "card")
UNTITLED = ("epigraph", "glossary", "div", "grid")
DROPPED = ("solution-end", "exercise-end", "bibliography", "tableofcontents", "raw")
# More authors than this are "the first et al."
NAMED = 2
# nbformat's limit on the length of a cell's id.
LONGEST_ID = 64


def site() -> str:
    """The address of the published book, from the package's metadata."""
    metadata = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
    return str(metadata["project"]["urls"]["Documentation"]).rstrip("/")


def surname(person: Person) -> str:
    return " ".join(map(str, [*person.rich_prelast_names, *person.rich_last_names]))


def short(key: str, entry: Entry) -> tuple[str, str]:
    """(authors, year) of a work, as a citation says them."""
    names = [surname(person) for person in entry.persons.get("author", [])] or [key]
    authors = " and ".join(names)
    if len(names) > NAMED:
        authors = f"{names[0]} et al."
    return authors, str(entry.fields.get("year", ""))


def bibliography() -> dict[str, tuple[str, str]]:
    """Key of each entry in the .bib file -> its (authors, year) in short."""
    entries = parse_file(str(BOOK / "references.bib"), bib_format="bibtex").entries
    return {key: short(key, entry) for key, entry in entries.items()}


def glued(cells: list[dict[str, Any]]) -> dict[str, str]:
    """Values that the notebook's own stored outputs bind to names."""
    values = {}
    for cell in cells:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            for mime, data in output.get("data", {}).items():
                if name and mime.endswith("text/plain"):
                    values[name] = "".join(data).strip("'\"")
    return values


def replaced(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A text in which each (old, new) has been replaced, in their order, once each.

    The parser gives a role that runs over the end of a line with a blank in its place.
    """
    done = ""
    for old, new in pairs:
        match = re.search(re.escape(old).replace(r"\ ", r"\s"), text)
        if match is not None:
            done += text[: match.start()] + new
            text = text[match.end() :]
    return done + text


class Converter:
    """MyST Markdown to plain Markdown, with what one notebook's cells know."""

    def __init__(self, cells: list[dict[str, Any]], labels: dict[str, str]) -> None:
        self.labels = labels
        self.glue = glued(cells)
        self.cited = bibliography()
        self.site = site()

    def role(self, role: myst.Role) -> str:
        """What a role becomes."""
        if role.name == "term":
            return f"*{role.shown}*"
        if role.name.startswith("cite"):
            return self.citation(role)
        if role.name.startswith("glue"):
            key, _, form = role.text.partition(":")
            value = self.glue[key]
            return format(float(value), form) if form else value
        if role.name == "eq":
            return f"({role.target})"
        if role.name == "doc":
            return self.page(role)
        if role.name in myst.REFERENCES and role.target == role.shown:
            return self.labels.get(role.target, role.target)
        if role.name == "index":
            return ""
        return role.shown

    def citation(self, role: myst.Role) -> str:
        works = [self.cited[key.strip()] for key in role.text.split(",")]
        if role.name == "cite:t":
            return "; ".join(f"{authors} ({year})" for authors, year in works)
        return "[" + "; ".join(f"{authors} {year}" for authors, year in works) + "]"

    def page(self, role: myst.Role) -> str:
        """A link to a page of the book, under its title unless other words are given."""
        slug = Path(role.target).name
        shown = role.shown if role.shown != role.target else self.labels[page_label(slug)]
        return f"[{shown}]({self.site}/book/{slug}.html)"

    def pair(self, token: Token) -> tuple[str, str] | None:
        """How a role or a link into the book is written, and what it becomes; else None."""
        role = myst.role(token)
        if role is not None:
            return f"{{{role.name}}}`{token.content}`", self.role(role)
        if token.type != "link_open":
            return None
        written = str(token.attrs["href"])
        address = urlsplit(written)
        page = Path(address.path)
        if address.scheme or page.suffix not in (".ipynb", ".md"):
            return None
        anchor = f"#{address.fragment}" if address.fragment else ""
        return f"]({written})", f"]({self.site}/book/{page.stem}.html{anchor})"

    def text(self, source: str) -> str:
        """Plain Markdown: what is neither a directive, a role nor a label stays as it was written.

        Raises
        ------
        ValueError
            For a directive that this tool does not know.
        """
        lines: list[str | None] = list(source.split("\n"))
        for token in myst.tokens(source):
            if token.map is None:
                continue
            first, last = token.map
            directive = myst.directive(token)
            if directive is not None:
                written = source.split("\n")[first]
                indent = written[: len(written) - len(written.lstrip())]
                converted = textwrap.indent(self.directive(directive), indent)
                # As many entries as lines: the other tokens count them.
                lines[first:last] = [converted] + [None] * (last - first - 1)
            elif token.type == "myst_target":
                lines[first] = ""
            elif token.type == "math_block_label":
                lines[last - 1] = str(lines[last - 1]).removesuffix(f" ({token.info})")
            elif token.type == "inline":
                pairs = [self.pair(child) for child in token.children or ()]
                block = "\n".join(str(line) for line in lines[first:last])
                known = [pair for pair in pairs if pair is not None]
                lines[first:last] = replaced(block, known).split("\n")
        text = "\n".join(line for line in lines if line is not None)
        return re.sub(r"\n{3,}", "\n\n", text).strip("\n")

    def directive(self, found: myst.Directive) -> str:
        """What a directive becomes."""
        if found.name in DROPPED:
            return ""
        if found.name == "math":
            return f"$$\n{found.body.strip()}\n$$"
        if found.name == "code-block":
            return f"```{found.argument}\n{found.body}\n```"
        if found.name in ("figure", "image"):
            return self.image(found)
        if found.name.startswith("solution"):
            return self.solution(found)
        return self.box(found)

    def image(self, found: myst.Directive) -> str:
        address = found.argument
        if not urlsplit(address).scheme:
            address = f"{self.site}/_images/{Path(address).name}"
        shown = f"![{found.options.get('alt', '')}]({address})"
        caption = self.text(found.body)
        return f"{shown}\n\n*{caption}*" if caption else shown

    def solution(self, found: myst.Directive) -> str:
        head = "Solution to " + self.labels.get(found.argument, "the exercise")
        inside = self.text(found.body)
        if found.name == "solution":
            return f"<details><summary><b>{head}</b></summary>\n\n{inside}\n\n</details>"
        return f"**{head}**\n\n{inside}".rstrip()

    def box(self, found: myst.Directive) -> str:
        """A quotation under its title."""
        known = found.name in TITLES or found.name in TITLED or found.name in UNTITLED
        if not known:
            raise ValueError(f"tools/colab.py does not know the directive {found.name!r}: teach it")
        title, argument = TITLES.get(found.name, ""), self.text(found.argument)
        if found.name in TITLED:
            title = argument
        elif argument:
            title = f"{title} ({argument.strip('() ')})"
        inside = self.text(found.body)
        content = f"**{title}**\n\n{inside}" if title else inside
        return "\n".join(f"> {line}".rstrip() for line in content.split("\n"))


def page_label(slug: str) -> str:
    """The key under which labels keep a page's title; no label has a blank."""
    return f"page {slug}"


def titles() -> dict[str, str]:
    """The title of every page of the book, as a label."""
    found = {}
    for path in [*BOOK.glob("*.ipynb"), *BOOK.glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        first = myst.markdown(json.loads(text)["cells"])[0] if path.suffix == ".ipynb" else text
        found[page_label(path.stem)] = next(myst.headings(first, 1))
    return found


def labels_of(cells: list[dict[str, Any]]) -> dict[str, str]:
    """What a cross-reference to each label of the book may say without numbers."""
    found = {}
    for source in myst.markdown(cells):
        for part in myst.directives(source):
            label = part.options.get("label") or part.options.get("name")
            if label:
                kind = TITLES.get(part.name, "figure").lower()
                title = part.argument.strip("() ")
                found[label] = f"the {kind}" + (f" “{title}”" if title else "")
        blocks = [token for token in myst.tokens(source) if token.nesting >= 0]
        for target, heading, words in zip(blocks, blocks[1:], blocks[2:], strict=False):
            if target.type == "myst_target" and heading.type == "heading_open":
                found[target.content] = f"“{words.content}”"
    for cell in cells:
        figure = cell.get("metadata", {}).get("mystnb", {}).get("figure", {})
        if "name" in figure:
            found[figure["name"]] = "the figure"
    return found


def convert(path: Path, labels: dict[str, str]) -> str:
    """The text of the notebook that stands alone."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    converter = Converter(notebook["cells"], labels)
    address = f"{site()}/book/{path.stem}.html"
    cells: list[dict[str, Any]] = []

    def markdown(identifier: str, text: str) -> None:
        source = text.splitlines(keepends=True)
        cells.append({"cell_type": "markdown", "id": identifier, "metadata": {}, "source": source})

    markdown(
        "fldp-origin",
        f"*This notebook is a chapter of a book; read it typeset at [{address}]({address}).*",
    )
    for number, cell in enumerate(notebook["cells"]):
        identifier = cell.get("id", f"cell-{number}")
        if cell["cell_type"] == "markdown":
            text = converter.text(myst.source_of(cell))
            if text:
                markdown(identifier, text)
            continue
        kept = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}
        cells.append({**cell, "id": identifier, "metadata": kept})
        caption = cell["metadata"].get("mystnb", {}).get("figure", {}).get("caption")
        if caption:
            name = f"{identifier}-caption"[:LONGEST_ID]
            markdown(name, f"*Figure. {converter.text(caption)}*")
    notebook["cells"] = cells
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the notebooks that are read alone.")
    parser.add_argument("folder", nargs="?", type=Path, default=OUT, help="default: _build/colab")
    folder = parser.parse_args(argv).folder
    sources = sorted(BOOK.glob("*.ipynb"))
    labels = titles()
    for path in sources:
        labels |= labels_of(json.loads(path.read_text(encoding="utf-8"))["cells"])
    folder.mkdir(parents=True, exist_ok=True)
    for path in sources:
        (folder / path.name).write_text(convert(path, labels), encoding="utf-8")
    print(f"{len(sources)} notebooks written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
