"""Write the page's icons, `book/_static/icons.css`: ``python tools/icons.py``.

The theme names its icons by Font Awesome's classes. Its script of 1.4 MB and its fonts draw two
thousand of them; the book uses some twenty, drawn here as masks, so that they take the colour of
the text around them. `tests/book/test_page.py` says when a page names one that is not here.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

OUT = Path(__file__).resolve().parent.parent / "book" / "_static" / "icons.css"

LINE = (
    '<g fill="none" stroke="#000" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">'
)
PAGE = '<path d="M6 2.5h8l4.5 4.5v14.5H6zM13.5 2.5V7.5h5"/>'
RING = '<circle cx="12" cy="12" r="9"/>'
GITHUB = (
    '<path d="M12 1.5a10.5 10.5 0 0 0-3.3 20.5c.5.1.7-.2.7-.5v-1.9c-2.9.6-3.5-1.2-3.5-1.2-.5-1.2'
    "-1.2-1.5-1.2-1.5-1-.7.1-.6.1-.6 1 .1 1.6 1.1 1.6 1.1 1 1.6 2.5 1.2 3.1.9.1-.7.4-1.2.7-1.4"
    "-2.3-.3-4.8-1.2-4.8-5.2 0-1.1.4-2.1 1.1-2.8-.1-.3-.5-1.4.1-2.8 0 0 .9-.3 2.9 1.1a10 10 0 0 1"
    " 5.2 0c2-1.4 2.9-1.1 2.9-1.1.6 1.4.2 2.5.1 2.8.7.8 1.1 1.7 1.1 2.8 0 4-2.4 4.9-4.8 5.2.4.3.7 1"
    ' .7 2v2.9c0 .3.2.6.7.5A10.5 10.5 0 0 0 12 1.5z"/>'
)
# Icon -> what is drawn in a box of 24 by 24, with lines unless it begins with a filled shape.
DRAWN = {
    "angle-left": '<path d="M15 5l-7 7 7 7"/>',
    "angle-right": '<path d="M9 5l7 7-7 7"/>',
    "angle-up": '<path d="M5 15l7-7 7 7"/>',
    "angle-down": '<path d="M5 9l7 7 7-7"/>',
    "arrow-up": '<path d="M12 20V4M5 11l7-7 7 7"/>',
    "bars": '<path d="M3 6h18M3 12h18M3 18h18"/>',
    "list": '<path d="M9 6h12M9 12h12M9 18h12M4 6h.5M4 12h.5M4 18h.5"/>',
    "magnifying-glass": '<circle cx="10" cy="10" r="6.5"/><path d="M15 15l6 6"/>',
    "download": '<path d="M12 3v12M6.5 10l5.5 5.5 5.5-5.5M4 20.5h16"/>',
    "expand": '<path d="M3.5 9V3.5H9M15 3.5h5.5V9M20.5 15v5.5H15M9 20.5H3.5V15"/>',
    "file": PAGE,
    "file-pdf": PAGE + '<path d="M9 13h6M9 17h4"/>',
    "pencil": '<path d="M4 20l1-5L16 4l4 4L9 19zM13.5 6.5l4 4"/>',
    "circle-question": RING
    + '<path d="M9.3 9.3a2.8 2.8 0 1 1 4 2.6c-.9.4-1.3 1-1.3 1.9M12 17.2v.2"/>',
    "circle-info": RING + '<path d="M12 11v5.5M12 7.3v.2"/>',
    "circle-exclamation": RING + '<path d="M12 7v6M12 16.6v.2"/>',
    "triangle-exclamation": '<path d="M12 3.5L22 20.5H2zM12 10v5M12 17.6v.1"/>',
    "lightbulb": '<path d="M9 17.5a6.5 6.5 0 1 1 6 0v1.5H9zM10 22h4"/>',
    "eye": '<path d="M2 12s3.6-6 10-6 10 6 10 6-3.6 6-10 6-10-6-10-6z"/>'
    '<circle cx="12" cy="12" r="2.6"/>',
    "xmark": '<path d="M5 5l14 14M19 5L5 19"/>',
    "arrow-up-right": '<path d="M7 17L17 7M9 7h8v8"/>',
    "circle-half-stroke": RING + '<path d="M12 3a9 9 0 0 1 0 18z" fill="#000"/>',
    "moon": '<path d="M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z" fill="#000"/>',
    "sun": '<circle cx="12" cy="12" r="4.5" fill="#000"/><path d="M12 1.5v2.5M12 20v2.5M1.5 12H4'
    'M20 12h2.5M4.6 4.6l1.8 1.8M17.6 17.6l1.8 1.8M4.6 19.4l1.8-1.8M17.6 6.4l1.8-1.8"/>',
    "play": '<path d="M6 4l14 8-14 8z" fill="#000"/>',
    "github": GITHUB,
}
FILLED = {"github"}
# What Font Awesome, or an older release of it, calls the same thing.
ALSO = {
    "pencil-alt": "pencil",
    "search": "magnifying-glass",
    "chevron-down": "angle-down",
    "chevron-up": "angle-up",
    "chevron-left": "angle-left",
    "chevron-right": "angle-right",
}
# The theme's boxes and notes -> the icon in their title.
BOXES = {
    "note": "circle-info",
    "tip": "lightbulb",
    "hint": "lightbulb",
    "important": "circle-exclamation",
    "seealso": "eye",
    "warning": "triangle-exclamation",
    "caution": "triangle-exclamation",
    "attention": "triangle-exclamation",
    "danger": "circle-exclamation",
    "error": "circle-exclamation",
}
HEAD = """\
/* Written by tools/icons.py. An icon is a mask over the colour of its text. */
:is(.fa-solid, .fa-regular, .fa-brands, .fas, .far, .fab)::before {
  content: "" !important; display: inline-block; width: 1em; height: 1em; vertical-align: -0.125em;
  background: currentColor; mask: var(--icon) center / contain no-repeat;
}
.fa-lg { font-size: 1.25em; line-height: 1; vertical-align: -0.075em; }
div.admonition > .admonition-title::after, .admonition > .admonition-title::after {
  content: ""; font: inherit; top: 0.55rem; height: 1.15rem; width: 1.15rem; line-height: 1;
  background: currentColor; mask: var(--icon) center / contain no-repeat;
}
"""


def mask(name: str) -> str:
    """The icon as an address that holds its own drawing."""
    inner = DRAWN[name] if name in FILLED else f"{LINE}{DRAWN[name]}</g>"
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">{inner}</svg>'
    return 'url("data:image/svg+xml,' + quote(drawing.replace('"', "'"), safe=" ='/:.,-") + '")'


def css() -> str:
    names = {name: name for name in DRAWN} | ALSO
    places = {name: [f".fa-{other}" for other in names if names[other] == name] for name in DRAWN}
    for box, name in BOXES.items():
        places[name].append(f".admonition.{box} > .admonition-title")
    places["circle-info"].insert(0, ".admonition > .admonition-title")
    # The plain box first, so that the kinds of box override it.
    order = sorted(DRAWN, key=lambda name: name != "circle-info")
    rules = [f"{', '.join(places[name])} {{ --icon: {mask(name)}; }}\n" for name in order]
    return HEAD + "".join(rules)


if __name__ == "__main__":
    OUT.write_text(css(), encoding="utf-8")
