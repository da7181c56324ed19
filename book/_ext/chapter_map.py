"""``{chapter-map}``: the chapters as boxes, an arrow where one builds on another.

A chapter that the table of contents names is a filled box with a link; the others are dashed. The
drawing is part of the page, so that its text takes the page's colour in light and in dark.
"""

from __future__ import annotations

import html
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx_external_toc.parsing import parse_toc_yaml

# Number -> title, column, row. Column 0 to 2; what builds on what runs downwards.
CHAPTERS = {
    "1": ("What an update gives away", 0, 0),
    "2": ("Differential privacy as a game", 1, 0),
    "3": ("The Gaussian mechanism", 2, 0),
    "4": ("Federated averaging", 0, 1),
    "5": ("Whose privacy, from whom", 1, 1),
    "6": ("Clip, noise, average", 1, 2),
    "7": ("Gradients or parameters?", 0, 3),
    "8": ("Any algorithm", 2, 3),
    "III": ("Accounting", 1, 4),
    "IV": ("Tuning ε in practice", 0, 4),
    "V": ("Toward production", 2, 4),
}
WIDE, HIGH, ACROSS, DOWN = 156, 60, 182, 94
WIDTH, HEIGHT = 2 * ACROSS + WIDE + 4, 4 * DOWN + HIGH + 4
BLUE, ORANGE = "var(--fldp-blue)", "var(--fldp-orange)"


def corner(number: str) -> tuple[int, int]:
    _, column, row = CHAPTERS[number]
    return 2 + column * ACROSS, 2 + row * DOWN


def down(start: str, end: str, shift: int = 0) -> str:
    """From the foot of one box to the head of another."""
    (x, y), (u, v) = corner(start), corner(end)
    x, y, u, v = x + WIDE // 2, y + HIGH, u + WIDE // 2 + shift, v - 6
    return f"M{x} {y} C{x} {y + 22} {u} {v - 22} {u} {v}"


def across(start: str, end: str) -> str:
    """From the side of one box to the side of its neighbour."""
    (x, y), (u, _) = corner(start), corner(end)
    y += HIGH // 2
    return f"M{x + WIDE} {y} H{u - 6}" if u > x else f"M{x} {y} H{u + WIDE + 6}"


def arrows() -> list[str]:
    x, y = corner("3")
    u, v = corner("6")
    elbow = f"M{x + WIDE // 2} {y + HIGH} V{v + HIGH // 2} H{u + WIDE + 6}"
    return [
        across("1", "2"),
        across("2", "3"),
        down("2", "5"),
        down("4", "6", -40),  # beside the arrow that comes from 5
        down("5", "6"),
        elbow,
        down("6", "7"),
        down("6", "8"),
        down("6", "III"),
        down("7", "IV"),
        down("8", "V"),
        across("III", "IV"),
        across("III", "V"),
    ]


def written(toc: Path) -> dict[str, str]:
    """Chapter number -> page, for the chapters that the table of contents names."""
    names = [Path(page).name for page in parse_toc_yaml(toc)]
    # A chapter's file begins with its number, in two digits.
    return {str(int(name[:2])): f"{name}.html" for name in names if name[:2].isdigit()}


def box(number: str, page: str | None) -> str:
    x, y = corner(number)
    colour = ORANGE if number == "6" else BLUE
    look = 'fill-opacity="0.14"' if page else 'fill-opacity="0" stroke-dasharray="5 4"'
    style = f'style="fill: {colour}; stroke: {colour}"'
    shape = f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="5" {style} {look}/>'
    lines = textwrap.wrap(f"{number} · {CHAPTERS[number][0]}", 17)
    for k, line in enumerate(lines):
        base = y + HIGH / 2 + 5 + 18 * (k - (len(lines) - 1) / 2)
        shape += f'<text x="{x + WIDE / 2}" y="{base}">{html.escape(line)}</text>'
    return f'<a href="{page}">{shape}</a>' if page else shape


def drawing(pages: dict[str, str]) -> str:
    said = "; ".join(f"{number}, {title}" for number, (title, _, _) in CHAPTERS.items())
    tip = '<path d="M0 0 L8 4 L0 8 z" fill="currentColor"/>'
    lines = [
        f'<svg class="fldp-map" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="14.5"',
        f'aria-label="Map of the chapters: {html.escape(said)}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7"',
        f'markerHeight="7" orient="auto">{tip}</marker></defs>',
        '<g fill="none" stroke="currentColor" stroke-width="1.3">',
    ]
    lines += [f'<path d="{path}" marker-end="url(#tip)"/>' for path in arrows()]
    lines.append('</g><g fill="currentColor" text-anchor="middle" stroke-width="0">')
    for number in CHAPTERS:
        drawn = box(number, pages.get(number))
        lines.append(drawn.replace("<rect", '<rect stroke-width="1.6"'))
    lines.append("</g></svg>")
    return "\n".join(lines)


class ChapterMap(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        toc = Path(self.env.srcdir) / "_toc.yml"
        self.env.note_dependency(str(toc))
        return [nodes.raw("", drawing(written(toc)), format="html")]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("chapter-map", ChapterMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
