"""Formulas as MathML, made when the book is built: they need no JavaScript and no network.

A formula that cannot be converted is a warning that names it, and so fails the strict build.
"""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)

# \widetilde is among what is drawn differently by different browsers: here it is looked at.
CONVERTER = LatexToMathML(allow_unreliable_rendering=True, fancy_error=False)

# Chromium hangs a radical from the line over what it covers: over an m it would drop below the line
# of text. So it covers a strut, as high and as deep as a letter with both.
STRUT = '<msqrt><mspace height="0.72em" depth="0.2em"></mspace>'
# The font's prime is raised already: as a superscript it would fly.
PRIMED = re.compile(r"<msup>(<m[ion][^>]*>[^<]*</m[ion]>)<mo>′</mo></msup>")


def mathml(latex: str, block: bool) -> str:
    """The `<math>` element of a formula, which may have a blank line between two equations."""
    parts = [part for part in latex.split("\n\n") if part.strip()]
    if len(parts) > 1:
        inner = r" \\ ".join(parts)
        latex = rf"\begin{{aligned}}{inner}\end{{aligned}}"
    elif r"\\" in latex and r"\begin" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    made = CONVERTER.convert_with_local_state(latex.strip(), displaystyle=block)
    return PRIMED.sub(r"<mrow>\1<mo>′</mo></mrow>", made).replace("<msqrt>", STRUT)


def converted(node: nodes.Element, block: bool) -> str:
    """MathML, or the source where there is none."""
    latex = node.astext()
    try:
        return mathml(latex, block)
    except LatexError as error:
        logger.warning("no MathML for the formula %r: %s", latex, error, location=node)
        return f"<code>{html.escape(latex)}</code>"


def inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(translator.starttag(node, "span", "", CLASS="math notranslate"))
    translator.body.append(converted(node, block=False) + "</span>")
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """The formula scrolls by itself; its number stays where it is."""
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate"))
    translator.body.append(f'<div class="fldp-wide">{converted(node, block=True)}</div>')
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
