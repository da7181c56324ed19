"""What a node says, in characters: formulas without their LaTeX, cut at a word."""

from __future__ import annotations

import html
import re

from docutils import nodes
from math_core import LatexError

from formulas import mathml


def said(node: nodes.Node) -> str:
    """The words of a node on one line, a formula by its letters."""
    if isinstance(node, nodes.math | nodes.math_block):
        try:
            markup = mathml(node.astext(), block=False)
        except LatexError:
            return node.astext()
        spaced = re.sub(r"<mo[^>]*>(=|≤|≥|<|>|∈|⋅|−|\+)</mo>", r" \1 ", markup)
        return html.unescape(re.sub(r"<[^>]+>", "", spaced)).replace(",", ", ").strip()
    if isinstance(node, nodes.Text):
        return node.astext()
    if isinstance(node, nodes.comment | nodes.raw | nodes.target):
        return ""
    between = "" if isinstance(node, nodes.TextElement) else " "
    return " ".join(between.join(said(child) for child in node.children).split(" "))


def line(node: nodes.Node) -> str:
    return re.sub(r"\s+", " ", said(node)).strip()


def cut(text: str, most: int) -> str:
    """At most so many characters, whole words."""
    if len(text) <= most:
        return text
    return text[: most - 1].rpartition(" ")[0].rstrip(" ,;:") + "…"
