"""The book can be read in its order: a chapter builds on earlier ones, and says on which."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chapter_map
import chapters
import myst
import pytest

HERE = Path(__file__).resolve().parent.parent.parent
WRITTEN = chapters.chapters(HERE)
# Roles that point at a definition, a figure, a formula or an exercise, which one has to know.
USES = ("prf:ref", "numref", "eq", "ref")


def defined(chapter: chapters.Chapter) -> Iterator[str]:
    """The labels that a chapter defines; not that of the chapter itself, which is its address."""
    for cell in json.loads(chapter.path.read_text(encoding="utf-8"))["cells"]:
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        if "name" in figure:
            yield figure["name"]
        if cell["cell_type"] != "markdown":
            continue
        text = myst.source_of(cell)
        for found in myst.directives(text):
            if label := found.options.get("label") or found.options.get("name"):
                yield label
        for token in myst.tokens(text):
            if token.type == "math_block_label":
                yield token.info
            if token.type == "myst_target" and not token.content.startswith("chap-"):
                yield token.content


def used(chapter: chapters.Chapter) -> Iterator[str]:
    """The labels that a chapter refers to."""
    for kind, text in chapter.cells():
        if kind == "markdown":
            yield from (role.target for role in myst.roles(text) if role.name in USES)


def faults(written: list[chapters.Chapter]) -> Iterator[str]:
    """Where the order, the cards and the references do not agree, in words."""
    needs = {chapter.slug: chapter.needs() for chapter in written}
    order = [chapter.slug for chapter in written]
    owner = {label: chapter.slug for chapter in written for label in defined(chapter)}
    for place, chapter in enumerate(written):
        for slug in needs[chapter.slug]:
            if slug not in order[:place]:
                yield f"{chapter.slug} needs {slug}, which is no earlier chapter"
        known = {chapter.slug, *chapters.ancestors(chapter.slug, needs)}
        for label in used(chapter):
            home = owner.get(label, chapter.slug)
            if home not in known:
                yield f"{chapter.slug} uses {label} of {home}, which it does not build on"


def test_no_chapter_uses_what_it_does_not_build_on() -> None:
    assert list(faults(WRITTEN)) == []


def test_every_chapter_has_a_place_on_the_map_and_no_two_share_one() -> None:
    assert {chapter.slug for chapter in WRITTEN} == set(chapter_map.PLACES)
    assert len(set(chapter_map.PLACES.values())) == len(chapter_map.PLACES)


def test_the_map_has_an_arrow_for_what_a_card_says_and_none_upwards() -> None:
    pairs = chapter_map.edges(WRITTEN)
    needs = {later: {one for one, other in pairs if other == later} for _, later in pairs}
    for chapter in WRITTEN:  # an arrow that others imply is not drawn
        assert set(chapter.needs()) <= chapters.ancestors(chapter.slug, needs)
    for one, later in pairs:
        assert chapter_map.PLACES[one][1] <= chapter_map.PLACES[later][1], (one, later)
    assert chapter_map.drawing(WRITTEN).count("marker-end") == len(pairs)


def test_no_name_and_no_sentence_holds_a_chapters_number() -> None:
    typed = re.compile(r"\b[Cc]hapters? \d|\b(?:next|previous|last) chapters?\b")
    for path in [*(HERE / "book").glob("*.ipynb"), *(HERE / "book").glob("*.md")]:
        assert not path.name[0].isdigit(), path
        text = path.read_text(encoding="utf-8")
        cells = json.loads(text)["cells"] if path.suffix == ".ipynb" else None
        said = "\n".join(myst.markdown(cells)) if cells else text
        assert not typed.search(said), f"{path.name}: {typed.search(said)}"


PLANTED = (("one", "", "thm-one"), ("two", "{doc}`one`", "thm-two"), ("three", "", "thm-three"))


def book(root: Path, second: str = "See {prf:ref}`thm-one`.", needs: str = "{doc}`one`") -> Any:
    """Three chapters, of which the second needs the first."""
    (root / "book").mkdir()
    lines = ["parts:", "- caption: Part I", "  chapters:"]
    for slug, wanted, label in PLANTED:
        wanted = needs if slug == "two" else wanted
        text = f"# {slug}\n\n**You need** {wanted}\n\n**It runs**\n\n"
        text += f"```{{prf:theorem}}\n:label: {label}\nTrue.\n```\n\n"
        text += second if slug == "two" else ""
        cell = {"cell_type": "markdown", "metadata": {}, "source": text}
        (root / "book" / f"{slug}.ipynb").write_text(json.dumps({"cells": [cell]}))
        lines.append(f"  - file: book/{slug}")
    (root / "_toc.yml").write_text("\n".join(lines))
    return chapters.chapters(root)


def test_an_orderly_book_has_no_fault(tmp_path: Path) -> None:
    written = book(tmp_path)
    assert [(c.number, c.slug, c.needs()) for c in written] == [
        (1, "one", ()),
        (2, "two", ("one",)),
        (3, "three", ()),
    ]
    assert list(faults(written)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"second": "See {prf:ref}`thm-three`."}, "uses thm-three of three"),
        ({"needs": "{doc}`words <three>`"}, "needs three, which is no earlier chapter"),
        ({"needs": "nothing"}, "uses thm-one of one, which it does not build on"),
    ],
    ids=["a later theorem", "a later chapter", "a chapter that the card leaves out"],
)
def test_a_planted_fault_is_seen(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    assert any(words in fault for fault in faults(book(tmp_path, **changes)))


def test_only_direct_arrows_are_drawn() -> None:
    needs = {"two": ("one",), "three": ("one", "two")}
    assert chapters.direct(needs) == [("one", "two"), ("two", "three")]
