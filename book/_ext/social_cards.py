"""The picture of a page in somebody's message: its title and what it is about."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.figure import Figure

# Pixels, as those who show such pictures ask for.
WIDTH, HEIGHT = 1200, 630
DPI = 100
GROUND, INK, MUTED, BLUE = "#ffffff", "#1f2328", "#57606a", "#2f7fc1"
SERIF = "DejaVu Serif"


def card(out: Path, pagename: str, title: str, text: str, host: str) -> str:
    """Draw it; its place in the site."""
    name = f"_static/cards/{Path(pagename).name}.png"
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor=GROUND)
    figure.patches.append(bar(figure))
    heading = "\n".join(textwrap.wrap(title, 26))
    words = "\n".join(textwrap.wrap(text, 62)[:4])
    figure.text(
        0.08, 0.88, heading, va="top", size=40, color=INK, family=SERIF, linespacing=1.15,
        parse_math=False,
    )  # fmt: skip
    figure.text(
        0.08, 0.44, words, va="top", size=20, color=MUTED, linespacing=1.4, parse_math=False
    )
    figure.text(0.08, 0.07, f"fldp · {host}", size=18, color=BLUE, weight="bold")
    figure.savefig(path, dpi=DPI)
    return name


def bar(figure: Figure) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), 0.02, 1, transform=figure.transFigure, color=BLUE)
