"""The page on the build: run times beside what was promised, and what failed or was slow."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import build_status
import pytest
from docutils import nodes
from docutils.utils import new_document

import fldp

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "_build" / "html" / "book" / "status.html"
RAN = build_status.Ran(
    page="book/one",
    title="One",
    seconds=10.0,
    promised=20.0,
    succeeded=True,
    error="",
    day="2026-11-26",
    cells=5,
    checked=2,
    size=2048,
)


def test_a_notebook_that_fails_or_is_slow_shows() -> None:
    assert RAN.outcome() == "ran"
    assert replace(RAN, seconds=39.0).outcome() == "ran"
    assert replace(RAN, seconds=41.0).outcome() == "slow"
    assert replace(RAN, seconds=None).outcome() == "ran"
    assert replace(RAN, succeeded=False, error="NameError").outcome() == "failed: NameError"


def test_what_was_executed_anew_is_told_apart() -> None:
    assert RAN.executed(["one", "two"]) == "in this build"
    assert RAN.executed(["two"]) == "2026-11-26"


def test_cells_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    sources = [["# NBVAL_CHECK_OUTPUT\n", "1"], ["2"], ["# a comment\n", "# NBVAL_CHECK_OUTPUT"]]
    cells = [{"cell_type": "code", "source": source} for source in sources]
    cells.append({"cell_type": "markdown", "source": ["# NBVAL_CHECK_OUTPUT"]})
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert build_status.counted(path) == (3, 1)


@pytest.mark.parametrize(
    ("words", "seconds"), [("20 seconds", 20), ("1 minute", 60), ("3 minutes", 180)]
)
def test_a_promise_is_read(words: str, seconds: float) -> None:
    page = new_document("page")
    page += nodes.paragraph("", "", nodes.strong("", "It runs"), nodes.Text(f" in about {words}."))
    assert build_status.promise(page) == seconds
    assert build_status.promise(new_document("empty")) is None


def test_versions_are_those_that_are_there() -> None:
    found = dict(build_status.versions())
    assert found["fldp"] == fldp.__version__
    assert {"Python", "numpy", "torch", "jupyter-book"} <= set(found)


def test_a_folder_without_a_history_has_no_revision(tmp_path: Path) -> None:
    assert build_status.revision(tmp_path) == ""


@pytest.mark.skipif(not PAGE.exists(), reason="the book is not built: make book")
@pytest.mark.slow
def test_the_page_has_every_notebook() -> None:
    text = PAGE.read_text(encoding="utf-8")
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    named = re.findall(r"file: book/(\S+)", toc)
    notebooks = [name for name in named if (ROOT / "book" / f"{name}.ipynb").exists()]
    table = text.partition('id="notebooks"')[2]
    assert [name for name in notebooks if f'href="{name}.html"' not in table] == []
    assert "failed" not in table.partition("</table>")[0]
