"""``{chapter-map}``: the chapters as boxes, an arrow where one builds on another.

Every chapter of the table of contents is a box with a link. The drawing is part of the page, so
that its text takes the page's colour in light and in dark. On paper the same boxes and arrows are
drawn by TikZ.
"""

from __future__ import annotations

import html
import re
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.texescape import escape

from chapters import Chapter, chapters, direct

# Chapter -> column, row. Column 0 to 2; what builds on what runs downwards.
PLACES = {
    "what-an-update-gives-away": (0, 0),
    "a-promise-about-odds": (1, 0),
    "what-the-observer-can-do": (2, 0),
    "the-gaussian-mechanism": (2, 1),
    "federated-averaging": (0, 1),
    "clip-noise-average": (1, 2),
    "whose-privacy-from-whom": (1, 3),
    "gradients-or-parameters": (2, 3),
    "four-traps-of-opacus": (2, 4),
    "any-algorithm": (0, 3),
    "what-a-hundred-rounds-cost": (1, 4),
    "sampling-clients-and-who-knows": (1, 5),
    "nine-lines-that-claim-one": (2, 5),
    "start-at-eight-and-tighten": (0, 5),
    "watching-the-model": (0, 6),
    "the-clip-norm": (1, 6),
    "learning-rates-rounds-cohorts": (1, 7),
    "it-does-not-learn": (2, 7),
    "from-a-laptop-to-a-population": (0, 8),
    "on-a-real-federation": (1, 8),
    "a-server-that-sees-only-the-sum": (2, 8),
    "privacy-without-a-lottery": (1, 9),
}
# Where private data becomes a release.
HEART = "clip-noise-average"
WIDE, HIGH, ACROSS, DOWN = 156, 60, 182, 94
WIDTH, HEIGHT = 2 * ACROSS + WIDE + 4, 9 * DOWN + HIGH + 4
BLUE, ORANGE = "var(--fldp-blue)", "var(--fldp-orange)"
# Arrows from the left and from the right arrive so far beside one from above.
APART = 40
# A line of a box has room for so many letters.
LETTERS = 17
NUMBER = re.compile(r"-?[\d.]+")
# On paper: points for each of the drawing's pixels, so that the map fits under its title.
POINTS = 0.57


def corner(name: str) -> tuple[int, int]:
    column, row = PLACES[name]
    return 2 + column * ACROSS, 2 + row * DOWN


def down(start: str, end: str) -> str:
    """From the foot of one box to the head of another."""
    (x, y), (u, v) = corner(start), corner(end)
    shift = APART * ((x < u) - (x > u))
    x, y, u, v = x + WIDE // 2, y + HIGH, u + WIDE // 2 - shift, v - 6
    return f"M{x} {y} C{x} {y + 22} {u} {v - 22} {u} {v}"


def across(start: str, end: str) -> str:
    """From the side of one box to the side of its neighbour."""
    (x, y), (u, _) = corner(start), corner(end)
    y += HIGH // 2
    return f"M{x + WIDE} {y} H{u - 6}" if u > x else f"M{x} {y} H{u + WIDE + 6}"


def arrow(start: str, end: str) -> str:
    beside = PLACES[start][1] == PLACES[end][1]
    return across(start, end) if beside else down(start, end)


def edges(written: list[Chapter]) -> list[tuple[str, str]]:
    """(earlier, later) for every arrow: what the chapters' cards say."""
    return direct({chapter.slug: chapter.needs() for chapter in written})


def box(chapter: Chapter) -> str:
    x, y = corner(chapter.slug)
    colour = ORANGE if chapter.slug == HEART else BLUE
    look = 'stroke-width="1.6" fill-opacity="0.14"'
    style = f'style="fill: {colour}; stroke: {colour}"'
    shape = f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="5" {style} {look}/>'
    lines = textwrap.wrap(label(chapter), LETTERS)
    for k, line in enumerate(lines):
        base = y + HIGH / 2 + 5 + 18 * (k - (len(lines) - 1) / 2)
        shape += f'<text x="{x + WIDE / 2}" y="{base}">{html.escape(line)}</text>'
    return f'<a href="{chapter.slug}.html">{shape}</a>'


def label(chapter: Chapter) -> str:
    return f"{chapter.number} · {chapter.title()}"


def placed(written: list[Chapter]) -> list[Chapter]:
    """The chapters in the order of their places."""
    known = {chapter.slug: chapter for chapter in written}
    return [known[slug] for slug in PLACES if slug in known]


def drawing(written: list[Chapter]) -> str:
    shown = placed(written)
    said = "; ".join(label(chapter).replace(" ·", ",") for chapter in shown)
    number = {chapter.slug: chapter.number for chapter in shown}
    builds = "; ".join(f"{number[later]} on {number[one]}" for one, later in edges(written))
    tip = '<path d="M0 0 L8 4 L0 8 z" fill="currentColor"/>'
    lines = [
        f'<svg class="fldp-map" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" font-size="14.5"',
        f'aria-label="Map of the chapters: {html.escape(said)}. What builds on what: {builds}.">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7"',
        f'markerHeight="7" orient="auto">{tip}</marker></defs>',
        '<g fill="none" stroke="currentColor" stroke-width="1.3">',
    ]
    lines += [f'<path d="{arrow(*pair)}" marker-end="url(#tip)"/>' for pair in edges(written)]
    lines.append('</g><g fill="currentColor" text-anchor="middle" stroke-width="0">')
    lines += [box(chapter) for chapter in shown]
    lines.append("</g></svg>")
    return "\n".join(lines)


def tikz_box(chapter: Chapter, folder: str) -> str:
    x, y = corner(chapter.slug)
    colour = "fldporange" if chapter.slug == HEART else "fldpblue"
    look = f"draw={colour}, fill={colour}!14"
    words = escape(label(chapter), "xelatex")
    words = f"\\hyperref[\\detokenize{{{folder}/{chapter.slug}::doc}}]{{{words}}}"
    return f"\\node[chapter, {look}] at ({x + WIDE / 2:g}, {y + HIGH / 2:g}) {{{words}}};"


def tikz(written: list[Chapter], folder: str) -> str:
    """The same drawing for LaTeX; its colours and libraries come from fldp.sty."""
    size = f"minimum width={WIDE * POINTS:g}pt, minimum height={HIGH * POINTS:g}pt"
    inside = f"text width={(WIDE - 8) * POINTS:g}pt, align=center, inner sep=0pt"
    lines = [
        "\\begin{center}",
        f"\\begin{{tikzpicture}}[x={POINTS}pt, y=-{POINTS}pt,",
        f"chapter/.style={{rounded corners=2pt, {size}, {inside}, font=\\footnotesize\\sffamily}}]",
    ]
    for pair in edges(written):
        lines.append(f"\\draw[-{{Stealth[length=4pt]}}] {tikz_path(arrow(*pair))};")
    lines += [tikz_box(chapter, folder) for chapter in placed(written)]
    return "\n".join([*lines, "\\end{tikzpicture}", "\\end{center}"])


def tikz_path(path: str) -> str:
    """A path of an arrow, as `arrow` writes it, in TikZ's words."""
    x, y, *rest = NUMBER.findall(path)
    if "H" in path:
        return f"({x}, {y}) -- ({rest[0]}, {y})"
    a, b, c, d, u, v = rest
    return f"({x}, {y}) .. controls ({a}, {b}) and ({c}, {d}) .. ({u}, {v})"


class ChapterMap(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        written = chapters(root)
        for path in (root / "_toc.yml", *(chapter.path for chapter in written)):
            self.env.note_dependency(str(path))
        folder = self.env.docname.rpartition("/")[0]
        return [
            nodes.raw("", drawing(written), format="html"),
            nodes.raw("", tikz(written, folder), format="latex"),
        ]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("chapter-map", ChapterMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
