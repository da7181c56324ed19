"""The book's Markdown, read by the parser that builds the book: directives, roles, what is said.

MyST is Markdown with directives (fences named ``{like-this}``) and roles. Other tools ask here what
a cell holds, so that none of them reads Markdown with patterns of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NamedTuple

import yaml
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from myst_parser.parsers.options import options_to_items

HERE = Path(__file__).resolve().parent.parent
# Directives whose body is no Markdown.
VERBATIM = ("math", "code-block", "bibliography", "raw")
# Directives whose argument is an address or a label, not words.
LABELLED = ("figure", "image", "literalinclude", "solution", "solution-start")
# What stands for one word where a reader sees something that is not written out.
STAND_INS = {"math_inline": "x", "math_inline_double": "x", "code_inline": "code"}
REFERENCES = ("prf:ref", "eq", "ref", "numref", "doc")


@dataclass(frozen=True)
class Directive:
    """A directive; `first` to `last` (not included) are its lines in the text it was found in."""

    name: str
    argument: str
    options: dict[str, str]
    body: str
    first: int
    last: int


class Role(NamedTuple):
    """A role, ``{name}`text```; of ``shown <target>`` the parts, else the text as both."""

    name: str
    text: str

    @property
    def shown(self) -> str:
        return self.text.partition(" <")[0]

    @property
    def target(self) -> str:
        _, named, target = self.text.partition(" <")
        return target.rstrip(">") if named else self.text


@cache
def parser() -> MarkdownIt:
    """MyST's parser with the extensions that the book's configuration asks for."""
    settings = yaml.safe_load((HERE / "_config.yml").read_text(encoding="utf-8"))
    extensions = set(settings["parse"]["myst_enable_extensions"])
    return create_md_parser(MdParserConfig(enable_extensions=extensions), RendererHTML)


@cache
def tokens(source: str) -> tuple[Token, ...]:
    """The tokens of a text. They are shared: change none of them."""
    return tuple(parser().parse(source))


def directive(token: Token) -> Directive | None:
    """The directive that a token is, or None."""
    is_fence = token.type in ("fence", "colon_fence")
    if not is_fence or not token.info.startswith("{") or token.map is None:
        return None
    name, _, argument = token.info[1:].partition("}")
    lines = token.content.splitlines()
    options = list(takewhile(lambda line: line.startswith(":"), lines))
    pairs, _ = options_to_items("\n".join(line[1:] for line in options))
    body = "\n".join(lines[len(options) :])
    return Directive(name, argument.strip(), dict(pairs), body, *token.map)


def directives(source: str) -> Iterator[Directive]:
    """Every directive of a text in order, those inside others too.

    The lines of an inner directive are counted in the text of the outer one.
    """
    for token in tokens(source):
        found = directive(token)
        if found is None:
            continue
        yield found
        if found.name not in VERBATIM:
            yield from directives(found.body)


def inlines(source: str) -> Iterator[Token]:
    """The tokens inside every line of text: words, roles, links, images, code, mathematics."""
    for token in tokens(source):
        found = directive(token)
        if found is None:
            yield from token.children or ()
            continue
        yield from inlines(found.argument)
        if found.name not in VERBATIM:
            yield from inlines(found.body)


def role(token: Token) -> Role | None:
    """The role that a token is, or None."""
    if token.type != "myst_role":
        return None
    return Role(str(token.meta["name"]), token.content)


def roles(source: str) -> Iterator[Role]:
    """Every role of a text in order."""
    for token in inlines(source):
        found = role(token)
        if found is not None:
            yield found


def headings(source: str, level: int) -> Iterator[str]:
    """The headings of one level as they are written."""
    for token, following in pairwise(tokens(source)):
        if token.type == "heading_open" and token.tag == f"h{level}":
            yield following.content


def _read(token: Token) -> str:
    """What a reader reads of a token inside a line."""
    if token.type in STAND_INS:
        return f" {STAND_INS[token.type]} "
    if token.type in ("softbreak", "hardbreak"):
        return " "
    if token.type in ("text", "image"):
        return token.content
    found = role(token)
    if found is None:
        return ""
    if found.name.startswith("glue"):
        return " number "
    if found.name.startswith("cite") or found.name in REFERENCES:
        return " reference "
    return f" {found.shown} "


def said(token: Token) -> str:
    """What a reader reads of an inline token, that is, of a paragraph, a heading or a list item."""
    return "".join(map(_read, token.children or ()))


def _lines_said(source: str) -> Iterator[str]:
    for token in tokens(source):
        found = directive(token)
        if found is None:
            if token.type == "inline":
                yield said(token)
            continue
        if found.name in VERBATIM:
            continue
        if found.name not in LABELLED:
            yield prose(found.argument)
        yield prose(found.body)


def prose(source: str) -> str:
    """The words a reader reads: no code, mathematics, options, addresses, labels or remarks."""
    return "\n".join(_lines_said(source))


def markdown(cells: Iterable[dict[str, object]]) -> list[str]:
    """The text of each Markdown cell of a notebook, in order."""
    return [source_of(cell) for cell in cells if cell["cell_type"] == "markdown"]


def source_of(cell: dict[str, object]) -> str:
    """The text of a cell: a notebook may keep it as one string or as lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(map(str, source))  # type: ignore[call-overload]
