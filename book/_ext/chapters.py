"""The chapters: order and numbers from the table of contents, what each builds on from its card.

A chapter opens with a box that says "**You need** ..."; the chapters that it names there are those
that it builds on. Nothing else in the book says so: the map and the tests ask here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

# What a part of the table of contents is called if its pages are chapters.
PART = re.compile(r"Part [IVX]+\b")
DOC = re.compile(r"\{doc\}`(?:[^`<]*<)?([\w-]+)>?`")


@dataclass(frozen=True)
class Chapter:
    """A chapter of the table of contents; `part` is a Roman number."""

    slug: str
    number: int
    part: str
    path: Path

    def cells(self) -> list[tuple[str, str]]:
        """Kind and source of each cell."""
        found = json.loads(self.path.read_text(encoding="utf-8"))["cells"]
        return [(cell["cell_type"], "".join(cell["source"])) for cell in found]

    def title(self) -> str:
        """Its first heading."""
        return next(
            line[2:].strip()
            for kind, text in self.cells()
            for line in text.splitlines()
            if kind == "markdown" and line.startswith("# ")
        )

    def needs(self) -> tuple[str, ...]:
        """The chapters that its card names under "You need", in order."""
        card = next((text for _, text in self.cells() if "**You need**" in text), "")
        wanted = card.partition("**You need**")[2].partition("**")[0]
        return tuple(dict.fromkeys(DOC.findall(wanted)))


def chapters(root: Path) -> list[Chapter]:
    """The chapters that `_toc.yml` in `root` names, in order and numbered from 1."""
    toc = root / "_toc.yml"
    if not toc.exists():
        return []
    found: list[Chapter] = []
    for part in yaml.safe_load(toc.read_text(encoding="utf-8")).get("parts", []):
        name = PART.match(part.get("caption", ""))
        if name is None:
            continue
        for page in part["chapters"]:
            path = root / f"{page['file']}.ipynb"
            found.append(Chapter(path.stem, len(found) + 1, name[0].split()[1], path))
    return found


def ancestors(slug: str, needs: Mapping[str, Iterable[str]]) -> frozenset[str]:
    """Everything that a chapter builds on, directly or through others."""
    reached: set[str] = set()
    waiting = [*needs.get(slug, ())]
    while waiting:
        one = waiting.pop()
        if one not in reached:
            reached.add(one)
            waiting += needs.get(one, ())
    return frozenset(reached)


def direct(needs: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """The pairs (earlier, later) that no third chapter stands between."""
    pairs = []
    for later, wanted in needs.items():
        through = {two for one in wanted for two in ancestors(one, needs)}
        pairs += [(earlier, later) for earlier in wanted if earlier not in through]
    return pairs
