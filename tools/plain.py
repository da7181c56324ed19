"""The book's Markdown as plain Markdown, which Colab and JupyterLab render without extensions."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import myst
import numbering
import questions  # beside the book's extensions, whose folder numbering knows
from markdown_it.token import Token
from pybtex.database import Entry, Person, parse_file
from sphinx.directives.code import LiteralIncludeReader

HERE = Path(__file__).resolve().parent.parent
BOOK = HERE / "book"
TITLES = {
    **numbering.KINDS,
    "prf:proof": "Proof",
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
DROPPED = ("exercise-end", "bibliography", "tableofcontents", "raw")
# Lines that stand where a solution begins, with its heading, and where it ends.
OPENS, CLOSES = "\x02", "\x03"
# More authors than this are "the first et al."
NAMED = 2


def surname(person: Person) -> str:
    return " ".join(map(str, [*person.rich_prelast_names, *person.rich_last_names]))


def short(key: str, entry: Entry) -> tuple[str, str]:
    """(authors, year) of a work, as a citation says them."""
    names = [surname(person) for person in entry.persons.get("author", [])] or [key]
    authors = " and ".join(names)
    if len(names) > NAMED:
        authors = f"{names[0]} et al."
    return authors, str(entry.fields.get("year", ""))


def address_of(entry: Entry) -> str:
    """Where a work can be read; empty where the entry does not say."""
    fields = entry.fields
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    if "eprint" in fields:
        return f"https://arxiv.org/abs/{fields['eprint']}"
    return str(fields.get("url", ""))


@cache
def bibliography() -> dict[str, tuple[str, str, str]]:
    """Key of each entry in the .bib file -> its (authors, year) in short, and its address."""
    entries = parse_file(str(BOOK / "references.bib"), bib_format="bibtex").entries
    return {key: (*short(key, entry), address_of(entry)) for key, entry in entries.items()}


@cache
def asked_in_the_book() -> dict[str, tuple[questions.Question, ...]]:
    """The questions of each chapter's quiz, by its slug."""
    return questions.questions(HERE)


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


class Book:
    """What a page may refer to on other pages.

    Parameters
    ----------
    site : str
        The address of the published book, without a slash at its end.
    titles : mapping of str to str
        Of every page, by its slug.
    places : mapping of str to Place
        Everything that has a label.
    """

    def __init__(
        self, site: str, titles: Mapping[str, str], places: Mapping[str, numbering.Place]
    ) -> None:
        self.site = site
        self.titles = titles
        self.places = places


def term_anchor(term: str) -> str:
    """Where the glossary has a term."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", term).strip("-")
    return f"term-{words}"


def linked(words: str, address: str) -> str:
    return f"[{words}]({address})" if address else words


def included(found: myst.Directive) -> str:
    """The lines of a file of the repository that a page shows, as Sphinx picks them."""
    settings: Any = SimpleNamespace(source_encoding="utf-8")
    options = {"encoding": "utf-8", **found.options}
    reader = LiteralIncludeReader(str(BOOK / found.argument), options, settings)
    text, _ = reader.read()
    return f"```{found.options.get('language', '')}\n{text.rstrip()}\n```"


class Converter:
    """MyST Markdown to plain Markdown, with what one notebook's cells know."""

    def __init__(self, page: str, cells: list[dict[str, Any]], book: Book) -> None:
        self.page_of_this = page
        self.book = book
        self.glue = glued(cells)
        self.cited = bibliography()
        self.site = book.site

    def role(self, role: myst.Role) -> str:
        """What a role becomes."""
        if role.name == "term":
            return f"[{role.shown}]({self.site}/book/glossary.html#{term_anchor(role.target)})"
        if role.name.startswith("cite"):
            return self.citation(role)
        if role.name.startswith("glue"):
            key, _, form = role.text.partition(":")
            value = self.glue[key]
            return format(float(value), form) if form else value
        if role.name == "doc":
            return self.page(role)
        if role.name in myst.REFERENCES:
            return self.reference(role)
        if role.name == "index":
            return ""
        return role.shown

    def citation(self, role: myst.Role) -> str:
        works = [self.cited[key.strip()] for key in role.text.split(",")]
        if role.name == "cite:t":
            return "; ".join(linked(f"{names} ({year})", to) for names, year, to in works)
        return "(" + "; ".join(linked(f"{names} {year}", to) for names, year, to in works) + ")"

    def reference(self, role: myst.Role) -> str:
        """The number of what stands in this notebook; of what does not, a link into the book."""
        place = self.book.places[role.target]
        words = place.named if role.target == role.shown else role.shown
        if place.page == self.page_of_this:
            return words
        anchor = role.target
        if place.kind == numbering.EQUATION:
            anchor = f"equation-{anchor}"
        return f"[{words}]({self.site}/book/{place.page}.html#{anchor})"

    def page(self, role: myst.Role) -> str:
        """A link to a page of the book, under its title unless other words are given."""
        slug = Path(role.target).name
        shown = role.shown if role.shown != role.target else self.book.titles[slug]
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
                lines[last - 1] = self.tagged(str(lines[last - 1]), str(token.info))
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
            number = self.numbered(found.options.get("label"))
            return f"$$\n{found.body.strip()}{number}\n$$"
        if found.name == "code-block":
            return f"```{found.argument}\n{found.body}\n```"
        if found.name == "literalinclude":
            return included(found)
        if found.name in ("figure", "image"):
            return self.image(found)
        if found.name == "quiz":
            return self.text(questions.markdown(asked_in_the_book()[self.page_of_this]))
        if found.name == "solution-end":
            return CLOSES
        if found.name.startswith("solution"):
            return self.solution(found)
        if found.name.startswith("exercise"):
            return self.exercise(found)
        return self.box(found)

    def numbered(self, label: str | None) -> str:
        return f" \\tag{{{self.book.places[label].number}}}" if label else ""

    def tagged(self, last: str, label: str) -> str:
        """The last line of an equation between dollars, with its number in place of its label."""
        before = last.removesuffix(f" ({label})").removesuffix("$$")
        return f"{before}{self.numbered(label)}$$"

    def image(self, found: myst.Directive) -> str:
        address = found.argument
        if not urlsplit(address).scheme:
            address = f"{self.site}/_images/{Path(address).name}"
        shown = f"![{found.options.get('alt', '')}]({address})"
        caption = self.text(found.body)
        label = found.options.get("name")
        return f"{shown}\n\n{self.caption(label, caption)}" if caption else shown

    def caption(self, label: str | None, caption: str) -> str:
        """A caption under a figure, with its number."""
        number = self.book.places[label].named if label else "Figure"
        return f"**{number}.** {caption}"

    def solution(self, found: myst.Directive) -> str:
        """A heading under which notebooks fold what follows, up to the end of the solution."""
        head = f"{OPENS}##### Solution to {self.book.places[found.argument].named}"
        inside = self.text(found.body)
        if found.name == "solution":
            return f"{head}\n\n{inside}\n\n{CLOSES}"
        return f"{head}\n\n{inside}".rstrip()

    def exercise(self, found: myst.Directive) -> str:
        place = self.book.places[found.options["label"]]
        return f"#### {place.named} · {place.words}\n\n{self.text(found.body)}".rstrip() + "\n"

    def box(self, found: myst.Directive) -> str:
        """A quotation under its title."""
        known = found.name in TITLES or found.name in TITLED or found.name in UNTITLED
        if not known:
            raise ValueError(f"tools/plain.py does not know the directive {found.name!r}: teach it")
        title, argument = TITLES.get(found.name, ""), self.text(found.argument)
        if found.name in numbering.KINDS and "label" in found.options:
            title = self.book.places[found.options["label"]].named
        if found.name in TITLED:
            title = argument
        elif argument:
            title = f"{title} ({argument.strip('() ')})"
        inside = self.text(found.body)
        content = f"**{title}**\n\n{inside}" if title else inside
        return "\n".join(f"> {line}".rstrip() for line in content.split("\n"))
