"""The versions of an assignment, made from its master."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from course import embedding
from course.checks import Assignment
from course.submissions import WRITTEN, written_question
from course.worker import CHECKS_CELL

HERE = Path(__file__).resolve().parent.parent
OUT = HERE / "build" / "assignments"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = 'raise NotImplementedError("your turn")'
PROMPT = "*Write here: double-click, and leave the first line as it is.*"
HAND_IN = """## Before you hand it in

Restart the kernel and run all cells, from the top: *Run*, then *Restart Kernel and Run All Cells*.
Look at the crosses once more, save, and hand in this one file, whatever its name.

The grader runs each cell once, and gives each 20 seconds: take out what you tried and what runs
longer. It keeps to Python; lines for IPython, with `%`, `!` or `?`, are left out."""
TAGS = {"setup", "checks", "answer", "check", "written", "solution"}
# Colab and JupyterLab fold a cell that has these.
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
INSTALL = """# @title Set-up: installs fldp where it is missing
try:
    import fldp
except ModuleNotFoundError:
    %pip install -q "fldp @ git+{address}@v{release}\""""
LOADER = """{first}: run this cell; nothing in it is yours to change
import types

course = types.ModuleType("course")
exec(
    r'''
{text}''',
    vars(course),
)
check = course.start(course.CHECKS, globals())"""

Cell = dict[str, Any]


def source_of(cell: Cell) -> str:
    """A cell's text."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def tag_of(cell: Cell) -> str:
    """What a cell of a master is; "" for one that all versions share.

    Raises
    ------
    ValueError
        Where it has a tag that nobody knows, or two.
    """
    tags = cell["metadata"].get("tags", [])
    if len(tags) > 1 or not TAGS.issuperset(tags):
        raise ValueError(f"a cell of a master has one tag of {sorted(TAGS)}, not {tags}")
    return tags[0] if tags else ""


def without_solution(source: str) -> str:
    """An answer's cell as a student gets it: each solution is a line that says whose turn it is."""
    kept = []
    inside = False
    for line in source.split("\n"):
        if line.strip() == BEGIN:
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            kept.append(indent + STUB)
        elif line.strip() == END:
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def with_solution(source: str) -> str:
    """An answer's cell without the marks."""
    return "\n".join(line for line in source.split("\n") if line.strip() not in (BEGIN, END))


def _check_answer(source: str) -> None:
    marks = [line.strip() for line in source.split("\n") if line.strip() in (BEGIN, END)]
    if not marks or marks != [BEGIN, END] * (len(marks) // 2):
        raise ValueError(f"an answer has its solution between {BEGIN} and {END}:\n{source}")


class Version:
    """One version of an assignment.

    Parameters
    ----------
    assignment : Assignment
        Whose.
    solved : bool
        With the solution.
    """

    def __init__(self, assignment: Assignment, solved: bool) -> None:
        self.assignment = assignment
        self.solved = solved
        self.cells: list[Cell] = []

    def add(self, kind: str, source: str, metadata: dict[str, Any] | None = None) -> None:
        """Add a cell."""
        identifier = f"{self.assignment.name}-{len(self.cells):03d}"
        cell: Cell = {
            "cell_type": kind,
            "id": identifier,
            "metadata": {**(metadata or {})},
            "source": source.splitlines(keepends=True),
        }
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        self.cells.append(cell)

    def take(self, cell: Cell) -> None:
        """Add what this version has of a cell of the master."""
        tag = tag_of(cell)
        kind = cell["cell_type"]
        source = source_of(cell)
        if tag == "checks":
            text = embedding.public(self.assignment)
            self.add("code", LOADER.format(first=CHECKS_CELL, text=text), FOLDED)
        elif tag == "answer":
            _check_answer(source)
            self.add("code", (with_solution if self.solved else without_solution)(source))
        elif tag == "written" and not self.solved:
            head = source.partition("\n")[0]
            own = {"fldp": {"written": written_question(head)}}
            self.add("markdown", f"{head}\n{PROMPT}", own)
        elif tag != "solution" or self.solved:
            self.add(kind, source)

    def notebook(self) -> dict[str, Any]:
        """The notebook."""
        return {
            "cells": self.cells,
            "metadata": {
                "fldp": {"assignment": self.assignment.name},
                "kernelspec": KERNEL,
                "language_info": {"name": "python"},
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }


def master(assignment: Assignment) -> list[Cell]:
    """The cells of the master.

    Raises
    ------
    ValueError
        Where something that every master has is missing.
    """
    path = assignment.folder / "master.ipynb"
    cells: list[Cell] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tags = [tag_of(cell) for cell in cells]
    for tag in ("setup", "checks"):
        if tags.count(tag) != 1:
            raise ValueError(f"{path} has {tags.count(tag)} cells with the tag {tag}, not one")
    called = [source_of(c).strip() for c, tag in zip(cells, tags, strict=True) if tag == "check"]
    wanted = [f'check("{q}")' for q in assignment.questions]
    public = {f'check("{c.question}")' for c in assignment.checks if c.public}
    if called != [call for call in wanted if call in public]:
        raise ValueError(
            f"{path} calls {called}, and its questions with public checks are {public}"
        )
    for cell, tag in zip(cells, tags, strict=True):
        if tag == "written" and not source_of(cell).startswith(WRITTEN):
            raise ValueError(f"a written answer begins with the line {WRITTEN}question -->")
    return cells


def version(assignment: Assignment, solved: bool) -> dict[str, Any]:
    """The student's version, or with `solved` the solution."""
    made = Version(assignment, solved)
    for cell in master(assignment):
        made.take(cell)
    if not solved:
        made.add("markdown", HAND_IN)
    return made.notebook()


def release() -> tuple[str, str]:
    """Where the package is, and of which release the notebook is."""
    sys.path.append(str(HERE / "tools"))
    import release_notes

    project = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    address = re.search(r'^Repository = "(.+)"$', project, re.M)
    if address is None:
        raise ValueError("pyproject.toml names no repository")
    return address[1], release_notes.version()


def colab(assignment: Assignment) -> dict[str, Any]:
    """The student's version, which first installs the release that it was written for."""
    made = Version(assignment, solved=False)
    for cell in master(assignment):
        if tag_of(cell) == "setup":
            address, version_there = release()
            text = INSTALL.format(address=address, release=version_there)
            made.add("code", text, FOLDED)
        made.take(cell)
    made.add("markdown", HAND_IN)
    return made.notebook()


def code_of(notebook: dict[str, Any]) -> list[str]:
    """The code cells of a version, as a submission would have them."""
    return [source_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(notebook: dict[str, Any]) -> str:
    """A notebook as a file."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def write(assignment: Assignment, folder: Path = OUT) -> Path:
    """Write all versions of an assignment into a folder of its name.

    Parameters
    ----------
    assignment : Assignment
        Which.
    folder : Path
        Where the assignments' folders are made.
    """
    place = folder / assignment.name
    place.mkdir(parents=True, exist_ok=True)
    versions = {
        "student": version(assignment, solved=False),
        "solution": version(assignment, solved=True),
        "colab": colab(assignment),
    }
    for name, notebook in versions.items():
        (place / f"{name}.ipynb").write_text(text_of(notebook), encoding="utf-8")
    return place
