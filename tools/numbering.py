"""The numbers that the book gives to its theorems, figures, equations and exercises.

Sphinx gives them while it builds. A notebook that is read alone says the same numbers, so they are
counted here by the same rules: by chapter and kind for whatever stands in a box or has a caption,
by page for equations.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import myst
from sphinx_external_toc.parsing import parse_toc_yaml

sys.path.append(str(myst.HERE / "book" / "_ext"))
import chapters

KINDS = {
    "prf:definition": "Definition",
    "prf:theorem": "Theorem",
    "prf:lemma": "Lemma",
    "prf:proposition": "Proposition",
    "prf:corollary": "Corollary",
    "prf:algorithm": "Algorithm",
    "prf:example": "Example",
    "prf:remark": "Remark",
    "exercise": "Exercise",
    "exercise-start": "Exercise",
}
FIGURE, EQUATION = "Fig.", "Equation"


@dataclass(frozen=True)
class Place:
    """Where something with a label stands: the page's slug, its kind, its number, its words."""

    page: str
    kind: str
    number: str
    words: str = ""

    @property
    def named(self) -> str:
        """As a sentence refers to it."""
        if self.kind == EQUATION:
            return f"({self.number})"
        if not self.kind:
            return self.words
        return f"{self.kind} {self.number}"


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def _math(source: str) -> Iterator[str]:
    """The label of every equation that has one, in order."""
    for token in myst.tokens(source):
        found = myst.directive(token)
        if token.type == "math_block_label":
            yield str(token.info)
        elif found is not None and found.name == "math" and "label" in found.options:
            yield found.options["label"]
        elif found is not None and found.name not in myst.VERBATIM:
            yield from _math(found.body)


def _marked(source: str) -> Iterator[tuple[str, str, str]]:
    """(label, kind, words) of what a text numbers or names, but equations."""
    for part in myst.directives(source):
        label = part.options.get("label") or part.options.get("name", "")
        if part.name in KINDS:
            yield label, KINDS[part.name], part.argument.strip("() ")
        elif part.name == "figure":
            yield label, FIGURE, ""
    blocks = [token for token in myst.tokens(source) if token.nesting >= 0]
    for target, heading, words in zip(blocks, blocks[1:], blocks[2:], strict=False):
        if target.type == "myst_target" and heading.type == "heading_open":
            yield target.content, "", words.content


def _of_page(path: Path, prefix: str, counts: Counter[str]) -> Iterator[tuple[str, Place]]:
    equations = 0
    for cell in cells_of(path):
        source = myst.source_of(cell)
        if cell["cell_type"] == "code":
            figure = cell["metadata"].get("mystnb", {}).get("figure", {})
            if "caption" in figure:
                counts[FIGURE] += 1
                yield (
                    figure.get("name", ""),
                    Place(path.stem, FIGURE, _said(prefix, counts[FIGURE])),
                )
            continue
        for label, kind, words in _marked(source):
            number = ""
            if kind:
                counts[kind] += 1
                number = _said(prefix, counts[kind])
            yield label, Place(path.stem, kind, number, words)
        for label in _math(source):
            equations += 1
            yield label, Place(path.stem, EQUATION, str(equations))


def _said(prefix: str, count: int) -> str:
    return f"{prefix}.{count}" if prefix else str(count)


def places(root: Path) -> dict[str, Place]:
    """Every label of the notebooks that the table of contents names.

    Parameters
    ----------
    root : Path
        The folder with `_toc.yml`.

    Returns
    -------
    dict of str to Place
    """
    numbers = {chapter.slug: str(chapter.number) for chapter in chapters.chapters(root)}
    # Pages outside the numbered parts share one count.
    loose = Counter[str]()
    found: dict[str, Place] = {}
    for page in parse_toc_yaml(root / "_toc.yml"):
        path = root / f"{page}.ipynb"
        if not path.exists():
            continue
        prefix = numbers.get(path.stem, "")
        counts = Counter[str]() if prefix else loose
        for label, place in _of_page(path, prefix, counts):
            if label:
                found[label] = place
    return found
