"""A figure keeps its size whatever its pixels; on a phone it scrolls rather than shrink to dust.

matplotlib writes into a PNG how many pixels make an inch. The book's column has 110 of the page's
pixels to an inch, so an image of 220 to the inch is shown at half its pixels, sharp on any screen.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from docutils import nodes

# The page's pixels to an inch of a figure: what `fldp.plotting` draws at.
PER_INCH = 110.0
METRE = 0.0254
START = b"\x89PNG\r\n\x1a\n"


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height on the page; None for what does not say how large it is."""
    at = data.find(b"pHYs")
    if not data.startswith(START) or at < 0:
        return None
    wide, high = struct.unpack(">II", data[16:24])
    per_metre, _ = struct.unpack(">II", data[at + 4 : at + 12])
    scale = PER_INCH / (per_metre * METRE)
    return round(wide * scale), round(high * scale)


def resize(app: Any, doctree: nodes.document, docname: str) -> None:
    """Give each output image its size, and let it scroll by itself."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        path = Path(app.srcdir) / image["uri"]
        found = size(path.read_bytes()) if path.suffix == ".png" and path.exists() else None
        if found is None:
            continue
        image["width"], image["height"] = (str(pixels) for pixels in found)
        wide = nodes.container(classes=["fldp-wide", "fldp-figure"])
        image.parent.replace(image, wide)
        wide += image


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-resolved", resize)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
