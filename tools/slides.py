"""Lecture slides from the chapters: ``python tools/slides.py [NAME ...]``, or ``make slides``.

A deck is one HTML file that needs nothing beside it: figures, fonts and formulas are inside. It
holds what a chapter asks, shows and proves, in the chapter's order: each question to write a number
down for, each figure with its caption, each definition and theorem with its plain words, the
summary, and the quiz. The speaker's notes are the paragraphs that stand beside these.
"""

from __future__ import annotations

import argparse
import base64
import html
import mimetypes
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import myst
import numbering
import prose
import twins
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from plain import BOOK, HERE, Converter

sys.path.append(str(HERE / "book" / "_ext"))
import chapters
import formulas
import questions

OUT = HERE / "build" / "slides"
PAGE, FONT = HERE / "tools" / "slides.html", BOOK / "_static" / "math" / "fldp-math.woff2"
BOXES = ("Definition", "Theorem", "Lemma", "Proposition", "Corollary")
PLAIN = "**In plain words"
# A slide with more characters than these is set smaller, and smaller still.
DENSE, DENSER = 520, 850
# So many paragraphs beside a figure or a question are notes.
BESIDE = 2
# What ends the part of a chapter that is shown.
END = "Exercises"
TAG = re.compile(r"\\tag\{([\d.]+)\}")


@dataclass(frozen=True)
class Block:
    """A piece of a chapter.

    `kind` is "heading", "paragraph", "list", "figure" or the name of a directive. `text` is its
    Markdown; of a figure it is the caption.
    """

    kind: str
    text: str
    section: str
    label: str = ""
    image: str = ""
    alt: str = ""
    argument: str = ""


@dataclass(frozen=True)
class Slide:
    """One slide: its kind, which the style knows, its title, and its body and notes as HTML."""

    kind: str
    title: str
    body: str
    notes: str = ""


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def drawing(address: str) -> str:
    """A file of the book as an address that needs no file."""
    path = BOOK / address
    kind, _ = mimetypes.guess_type(path.name)
    return data_uri(kind or "application/octet-stream", path.read_bytes())


def _from_directive(found: myst.Directive, section: str) -> Block:
    label = found.options.get("label") or found.options.get("name", "")
    if found.name != "figure":
        return Block(found.name, found.body, section, label, argument=found.argument)
    image, alt = drawing(found.argument), found.options.get("alt", "")
    return Block("figure", found.body, section, label, image, alt)


def _from_text(source: str, section: str) -> Iterator[Block]:
    """The blocks of a cell of text; the last heading's words stay the section of what follows."""
    lines = source.split("\n")
    tokens = myst.tokens(source)
    for place, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        found = myst.directive(token)
        text = "\n".join(lines[slice(*token.map)])
        if found is not None:
            yield _from_directive(found, section)
        elif token.type == "heading_open":
            section = tokens[place + 1].content
            yield Block("heading", section, section)
        elif token.type == "paragraph_open":
            yield Block("paragraph", text, section)
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            yield Block("list", text, section)
        elif token.type in ("math_block", "math_block_label"):
            yield Block("math", text, section)


def _from_code(cell: dict[str, Any], section: str) -> Iterator[Block]:
    """The figure that a cell draws, from its stored output."""
    options = cell["metadata"].get("mystnb", {})
    figure = options.get("figure", {})
    for output in cell["outputs"]:
        png = output.get("data", {}).get("image/png")
        if png and "caption" in figure:
            image = data_uri("image/png", base64.b64decode("".join(png)))
            alt = options.get("image", {}).get("alt", "")
            yield Block("figure", figure["caption"], section, figure.get("name", ""), image, alt)


def blocks(path: Path) -> list[Block]:
    """A chapter in pieces, up to its exercises."""
    found: list[Block] = []
    section = ""
    for cell in numbering.cells_of(path):
        if cell["cell_type"] == "code":
            found += _from_code(cell, section)
            continue
        for block in _from_text(myst.source_of(cell), section):
            if block.kind == "heading" and block.text == END:
                return found
            section = block.section
            found.append(block)
    return found


def _formula(latex: str, options: dict[str, Any]) -> str:
    """MathML; an equation's number beside it."""
    number = TAG.search(latex)
    drawn = formulas.mathml(TAG.sub("", latex), block=options["display_mode"])
    return f"{drawn}<span class='eqno'>({number[1]})</span>" if number else drawn


@cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table")
    return parser.use(dollarmath_plugin, renderer=_formula)


class Deck:
    """The slides of one chapter.

    Parameters
    ----------
    path : Path
        The chapter's notebook.
    """

    def __init__(self, path: Path) -> None:
        book = twins.the_book()
        self.slug = path.stem
        self.address = f"{book.site}/book/{path.stem}.html"
        self.places = book.places
        self.converter = Converter(path.stem, numbering.cells_of(path), book)
        self.blocks = blocks(path)
        numbers = {c.slug: f"{c.number} · " for c in chapters.chapters(HERE)}
        self.title = f"{numbers.get(path.stem, '')}{book.titles[path.stem]}"

    def html(self, *texts: str) -> str:
        """Markdown of the book as HTML."""
        plain = "\n\n".join(self.converter.text(text) for text in texts)
        made: str = _markdown().render(plain)
        return made

    def near(self, place: int, step: int, most: int = BESIDE) -> list[str]:
        """Up to so many paragraphs before or after a block, within its section."""
        found: list[str] = []
        here = self.blocks[place].section
        at = place + step
        while 0 <= at < len(self.blocks) and len(found) < most:
            block = self.blocks[at]
            if block.section != here or block.kind not in ("paragraph", "math", "list"):
                break
            found.append(block.text)
            at += step
        return found[::step]

    def told_of(self, place: int) -> list[str]:
        """The paragraphs that refer to a figure; where none does, those that follow it."""
        label = self.blocks[place].label
        named = [b.text for b in self.blocks if b.kind == "paragraph" and f"`{label}`" in b.text]
        return named[:BESIDE] or self.near(place, 1)

    def opening(self, place: int) -> Slide:
        """The title, with what the card says that a reader will be able to do."""
        able, *rest = self.blocks[place].text.split("\n\n")
        link = f'<p class="from"><a href="{self.address}">{html.escape(self.address)}</a></p>'
        return Slide("title", self.title, self.html(able) + link, self.html(*rest))

    def asked(self, place: int) -> Slide:
        """A question to write a number down for, after the paragraph that leads to it."""
        before = self.near(place, -1)
        setting = f'<div class="setting">{self.html(*before[-1:])}</div>' if before else ""
        body = f'{setting}<div class="asked">{self.html(self.blocks[place].text)}</div>'
        title = self.blocks[place].section
        return Slide("question", title, body, self.html(*before[:-1], *self.near(place, 1)))

    def figure(self, place: int) -> Slide:
        """A figure with its caption."""
        block = self.blocks[place]
        caption = self.converter.caption(block.label or None, self.converter.text(block.text))
        words = _markdown().render(caption)
        image = f'<img src="{block.image}" alt="{html.escape(block.alt)}">'
        body = f"<figure>{image}<figcaption>{words}</figcaption></figure>"
        return Slide("figure", block.section, body, self.html(*self.told_of(place)))

    def box(self, place: int) -> Slide:
        """A definition or theorem, its plain words, and as notes the words that follow."""
        block = self.blocks[place]
        named = self.places[block.label].named if block.label else numbering.KINDS[block.kind]
        title = f"{named} ({block.argument})" if block.argument else named
        words: list[str] = []
        notes: list[str] = []
        for after in self.blocks[place + 1 :]:
            if after.kind == "heading" or numbering.KINDS.get(after.kind) in BOXES:
                break
            if after.kind == "paragraph" and after.text.startswith(PLAIN):
                words.append(after.text)
            elif after.kind in ("paragraph", "prf:proof") and len(notes) < 2 * BESIDE:
                notes.append(after.text)
        said = f'<div class="plain">{self.html(*words)}</div>' if words else ""
        body = f'<div class="box">{self.html(block.text)}</div>{said}'
        return Slide("box", self.plainly(title), body, self.html(*notes))

    def plainly(self, text: str) -> str:
        """A title's Markdown as HTML without a paragraph around it."""
        made: str = _markdown().renderInline(self.converter.text(text))
        return made

    def quiz(self) -> Iterator[Slide]:
        """A slide for each question; an answer's reason is folded away, as in the book."""
        asked = questions.questions(HERE).get(self.slug, ())
        for number, question in enumerate(asked, 1):
            folds = [
                f"<details><summary><b>{letter}.</b> {self.plainly(answer.says)}</summary>"
                f"<p><b>{answer.verdict}</b> {self.plainly(answer.because)}</p></details>"
                for letter, answer in question.choices()
            ]
            right = question.answers[question.right]
            told = f"**{questions.LETTERS[question.right]}.** {right.because}"
            body = f'<p class="asked">{self.plainly(question.asks)}</p>' + "".join(folds)
            title = f"{questions.TITLE}, question {number}"
            yield Slide("quiz", title, body, self.html(told))

    def slides(self) -> Iterator[Slide]:
        """All slides, in the order of the chapter."""
        card = next(p for p, block in enumerate(self.blocks) if block.kind == "admonition")
        yield self.opening(card)
        for place, block in enumerate(self.blocks):
            if block.kind == "figure":
                yield self.figure(place)
            elif numbering.KINDS.get(block.kind) in BOXES:
                yield self.box(place)
            elif block.kind == "paragraph" and prose.questions([block.text]):
                yield self.asked(place)
            elif block.kind == "list" and block.section == "Summary":
                yield Slide("summary", "Summary", self.html(block.text))
        yield from self.quiz()


def _size(slide: Slide) -> str:
    """How small a slide is set, by the characters that are read on it."""
    seen = re.sub(r"<math.*?</math>", "xxxxx", slide.body, flags=re.S)
    if slide.kind == "quiz":
        seen = re.sub(r"</summary>.*?</details>", "", seen, flags=re.S)
    letters = len(re.sub(r"<[^>]*>", "", seen))
    if letters > DENSER:
        return " denser"
    return " dense" if letters > DENSE else ""


def _section(slide: Slide, number: int, of: int) -> str:
    notes = f'<aside aria-label="Notes">{slide.notes}</aside>' if slide.notes else ""
    said = f'id="{number}" aria-label="Slide {number} of {of}"'
    return (
        f'<section class="{slide.kind}{_size(slide)}" {said}>'
        f"<h1>{slide.title}</h1><div class='body'>{slide.body}</div>"
        f"<footer>{number} / {of}</footer>{notes}</section>"
    )


def deck(path: Path) -> str:
    """The deck of a chapter, as a page."""
    made = Deck(path)
    slides = list(made.slides())
    sections = [_section(slide, number, len(slides)) for number, slide in enumerate(slides, 1)]
    parts = {
        "TITLE": html.escape(made.title),
        "FONT": data_uri("font/woff2", FONT.read_bytes()),
        "SLIDES": "\n".join(sections),
    }
    fill = partial(_filled, parts)
    return re.sub(r"\{\{(\w+)\}\}", fill, PAGE.read_text(encoding="utf-8"))


def _filled(parts: dict[str, str], hole: re.Match[str]) -> str:
    return parts[hole[1]]


def chosen(names: list[str]) -> list[Path]:
    """The notebooks of these names, or all of the book that have a quiz."""
    slugs = names or list(questions.questions(HERE))
    paths = [BOOK / f"{slug}.ipynb" for slug in slugs]
    missing = [path.stem for path in paths if not path.exists()]
    if missing:
        raise ValueError(f"no such chapter in {BOOK}: {', '.join(missing)}")
    return paths


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a deck of slides for each chapter.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="chapters; default: all")
    parser.add_argument("--folder", type=Path, default=OUT, help="default: build/slides")
    arguments = parser.parse_args(argv)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        paths = chosen(arguments.names)
    except ValueError as error:
        parser.error(str(error))
    for path in paths:
        (arguments.folder / f"{path.stem}.html").write_text(deck(path), encoding="utf-8")
    print(f"{len(paths)} decks: {arguments.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
