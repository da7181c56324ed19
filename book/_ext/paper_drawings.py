"""Drawings of the book on paper: SVG becomes PDF, in the typeface of the headings.

LaTeX reads no SVG. `rsvg-convert` of Debian's librsvg2-bin makes a PDF of it, with lines as lines
and letters as letters.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from sphinx.transforms.post_transforms.images import ImageConverter

CONVERTER = "rsvg-convert"
# What an SVG asks for differs from machine to machine; this one is as wide as Liberation Sans.
FONT = "TeX Gyre Heros"
ASKED = re.compile(r'font-family="[^"]*"')


class Drawings(ImageConverter):
    """For LaTeX alone: a browser shows SVG itself, and Sphinx asks a builder what it shows."""

    conversion_rules = [("image/svg+xml", "application/pdf")]  # noqa: RUF012 (Sphinx's own name)

    def is_available(self) -> bool:
        """`tools/pdf.py` has looked; without it, the conversion says what is missing."""
        return bool(self.app.builder.format == "latex")

    def convert(self, _from: Any, _to: Any) -> bool:
        drawing = ASKED.sub(f'font-family="{FONT}"', Path(_from).read_text(encoding="utf-8"))
        command = [CONVERTER, "--format", "pdf", "--output", str(_to)]
        subprocess.run(command, input=drawing, text=True, check=True)
        return True


def setup(app: Any) -> dict[str, bool]:
    app.add_post_transform(Drawings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
