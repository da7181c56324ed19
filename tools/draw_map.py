"""Draw the map of the chapters, ``book/_static/map.svg``: ``python tools/draw_map.py``.

A box is a chapter, an arrow says that it builds on another. Chapters that are not in the table of
contents yet are drawn in outline, so that the map shows where the book is going.
"""

from __future__ import annotations

import html
import textwrap
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent.parent
TARGET = HERE / "book" / "_static" / "map.svg"
BLUE, ORANGE, INK = "#2f7fc1", "#c96a12", "#7d8590"
WIDE, HIGH, GAP_X, GAP_Y, LEFT, TOP = 168, 54, 22, 40, 12, 36

# Part -> chapters: (slug, title, what it builds on).
PARTS: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {
    "Part I — Why": [
        ("01-what-an-update-gives-away", "What an update gives away", ()),
        ("02-privacy-as-a-game", "Privacy as a game", ("01-what-an-update-gives-away",)),
        ("03-gaussian-mechanism", "The Gaussian mechanism", ("02-privacy-as-a-game",)),
    ],
    "Part II — Parameter-level privacy": [
        ("04-federated-averaging", "Federated averaging in forty lines", ()),
        ("05-whose-privacy", "Whose privacy, from whom", ("02-privacy-as-a-game",)),
        ("06-clip-noise-average", "Clip, noise, average",
         ("03-gaussian-mechanism", "04-federated-averaging", "05-whose-privacy")),
        ("07-gradients-or-parameters", "Gradients or parameters?", ("06-clip-noise-average",)),
        ("08-any-algorithm", "Any algorithm", ("06-clip-noise-average",)),
    ],
    "Later": [
        ("accounting", "III  Accounting", ("06-clip-noise-average",)),
        ("tuning", "IV  Tuning ε in practice", ("07-gradients-or-parameters",)),
        ("production", "V  Toward production", ("08-any-algorithm",)),
    ],
}  # fmt: skip
ROWS = (
    ("01-what-an-update-gives-away", "02-privacy-as-a-game", "03-gaussian-mechanism"),
    ("04-federated-averaging", "05-whose-privacy"),
    ("06-clip-noise-average",),
    ("07-gradients-or-parameters", "08-any-algorithm"),
    ("accounting", "tuning", "production"),
)


def drawing() -> str:
    """The SVG text."""
    there = (HERE / "_toc.yml").read_text(encoding="utf-8")
    present = {c["file"] for part in yaml.safe_load(there)["parts"] for c in part["chapters"]}
    chapters = {slug: (title, needs) for part in PARTS.values() for slug, title, needs in part}
    width = 2 * LEFT + 3 * WIDE + 2 * GAP_X
    at = {}
    for y, row in enumerate(ROWS):
        start = (width - len(row) * WIDE - (len(row) - 1) * GAP_X) / 2
        for x, slug in enumerate(row):
            at[slug] = (start + x * (WIDE + GAP_X), TOP / 2 + y * (HIGH + GAP_Y))
    height = TOP + len(ROWS) * (HIGH + GAP_Y) - GAP_Y
    lines, boxes = [], []
    for slug, (title, needs) in chapters.items():
        x, y = at[slug]
        for need in needs:
            a, b = at[need]
            if b == y:
                path = f"M{a + WIDE} {b + HIGH / 2} H{x - 5}"
            else:
                path = f"M{a + WIDE / 2} {b + HIGH} C{a + WIDE / 2} {b + HIGH + 26} "
                path += f"{x + WIDE / 2} {y - 26} {x + WIDE / 2} {y - 5}"
            lines.append(f'<path d="{path}" marker-end="url(#tip)"/>')
        colour = ORANGE if slug == "06-clip-noise-average" else BLUE
        written = f"book/{slug}" in present
        dash = "" if written else ' stroke-dasharray="5 4"'
        boxes.append(
            f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="5" fill="{colour}" '
            f'fill-opacity="{0.14 if written else 0}" stroke="{colour}"{dash}/>'
        )
        number = f"{int(slug[:2])}  " if slug[0].isdigit() else ""
        rows = textwrap.wrap(number + title, 21)
        for k, text in enumerate(rows):
            base = y + HIGH / 2 + 5 + 17 * (k - (len(rows) - 1) / 2)
            place = f'x="{x + WIDE / 2}" y="{base}" text-anchor="middle"'
            boxes.append(f"<text {place}>{html.escape(text)}</text>")
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="14" fill="{INK}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>',
        f'<g fill="none" stroke="{INK}" stroke-width="1.4">', *lines, "</g>",
        '<g stroke-width="1.6">', *[b for b in boxes if b.startswith("<rect")], "</g>",
        *[b for b in boxes if b.startswith("<text")], "</svg>", "",
    ])  # fmt: skip


if __name__ == "__main__":
    TARGET.write_text(drawing(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(HERE)}")
