"""The drawings: as the tool makes them, whole on a phone, and in the plots' colours."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import drawings
import pytest

from fldp import plotting

HERE = Path(__file__).resolve().parent.parent.parent
FOUND = drawings.drawings()
SVG = "{http://www.w3.org/2000/svg}"
# Share of a line's height that a letter is wide on average, in the widest font that is asked for.
LETTER, BOLD = 0.48, 0.56


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours."""
    light = []
    for colour in (one, other):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(light) / min(light)


@pytest.mark.parametrize("name", FOUND)
def test_the_file_is_what_the_tool_draws(name: str) -> None:
    path = HERE / "book" / "_static" / name
    assert path.read_text(encoding="utf-8") == FOUND[name], "run python tools/drawings.py"


@pytest.mark.parametrize("name", FOUND)
def test_a_drawing_has_a_title_and_its_words_are_inside(name: str) -> None:
    root = ElementTree.fromstring(FOUND[name])
    assert root.findtext(f"{SVG}title")
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for node in root.iter(f"{SVG}text"):
        size = float(node.attrib["font-size"])
        assert size >= 13, "on a phone, 390 pixels wide, this is 12"
        wide = BOLD if int(node.attrib["font-weight"]) >= 600 else LETTER
        long = wide * size * len(node.text or "")
        left = float(node.attrib["x"]) - (long / 2 if node.attrib["text-anchor"] == "middle" else 0)
        assert left >= 0, node.text
        assert left + long <= width, node.text
        assert size <= float(node.attrib["y"]) <= height, node.text


@pytest.mark.parametrize("name", FOUND)
def test_its_colours_read_on_both_pages(name: str) -> None:
    colours = set(re.findall(r"#[0-9a-f]{6}", FOUND[name]))
    assert colours <= {*plotting.PALETTE.values(), drawings.INK}
    for colour in colours:
        assert contrast(colour, "#ffffff") >= 3
        assert contrast(colour, "#14181e") >= 3


def test_a_round_is_drawn_for_every_observer_of_the_book() -> None:
    assert {"round.svg", "round-server.svg", "round-insider.svg", "round-client.svg"} <= set(FOUND)
    plain, seen = FOUND["round.svg"], FOUND["round-public.svg"]
    assert drawings.ORANGE not in plain
    assert drawings.ORANGE in seen
