"""Write the twin of every notebook, the version that is read alone: ``python tools/twins.py``.

The chapters are MyST: boxes, cross-references and citations are directives and roles, which only
the book renders. A twin is a plain notebook with the same numbers and the same figures: boxes are
quotations, solutions are sections that Colab and JupyterLab fold, what only the build needs is
gone, and the first code cell installs the release of the package that the chapter was written for.
Twins are published beside the pages (see CONTRIBUTING.md) and kept nowhere else.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import myst
import numbering
import tomllib
from cell_names import Flow
from plain import BOOK, CLOSES, HERE, OPENS, Book, Converter
from release_notes import version

sys.path.append(str(HERE / "book" / "_ext"))
import chapters

OUT = HERE / "_build" / "twins"
SETUP, HIDDEN, DRAWING = "colab", "remove-cell", "hide-input"
# What binds a number to the prose.
BINDS = "glue"
# Remarks to a tool, at the end of a line or on one of their own.
REMARKS = re.compile(
    r"(^|[ \t]+)# (?:NBVAL_\w+|fmt: ?\w+|noqa\S*|type: ?ignore\S*)[ \t]*(\n|$)", re.M
)
INSTALL = re.compile(r'%pip install -q "fldp @ git\+(?P<address>[^"]+)"')
HEADING = re.compile(r"#{1,4} ")
# nbformat's limit on the length of a cell's id.
LONGEST_ID = 64
# What was written into a folder that readers work in, by digest.
WRITTEN = ".written.json"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def metadata() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
    return found


@cache
def the_book() -> Book:
    """The whole book, as one of its pages refers to it."""
    site = str(metadata()["project"]["urls"]["Documentation"]).rstrip("/")
    titles = {}
    for path in [*BOOK.glob("*.ipynb"), *BOOK.glob("*.md")]:
        if path.suffix == ".ipynb":
            text = myst.markdown(numbering.cells_of(path))[0]
        else:
            text = path.read_text(encoding="utf-8")
        titles[path.stem] = next(myst.headings(text, 1))
    return Book(site, titles, numbering.places(HERE))


def dropped(cell: dict[str, Any]) -> bool:
    """Whether a cell serves the build, such as one that binds numbers to the prose."""
    tags = cell["metadata"].get("tags", [])
    return HIDDEN in tags and SETUP not in tags


def unbound(source: str) -> str:
    """A cell without the statements that bind something to the prose."""
    lines: list[str | None] = list(source.splitlines())
    for statement in ast.parse(source).body:
        used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        defines = isinstance(statement, ast.Try) and "myst_nb" in ast.dump(statement)
        if BINDS in used or defines:
            for number in range(statement.lineno - 1, statement.end_lineno or statement.lineno):
                lines[number] = None
    return "\n".join(line for line in lines if line is not None).strip("\n")


def needed(cells: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The cells of a twin: of a hidden one only what a later one reads."""
    read: set[str] = set()
    kept = []
    for cell in reversed(cells):
        if cell["cell_type"] == "code":
            source = myst.source_of(cell)
            if dropped(cell):
                source = unbound(source)
                if not Flow(source).gives & read:
                    continue
                tags = [DRAWING]
                cell = {**cell, "source": source, "outputs": [], "metadata": {"tags": tags}}
            flow = Flow(source)
            read = read - flow.bound | flow.reads
        kept.append(cell)
    return reversed(kept)


def shown(source: str, release: str) -> str:
    """The code as a reader wants it: no remarks to tools, and the release that it runs with."""
    source = REMARKS.sub(lambda found: found[2] if found[1] else "", source)
    pinned = partial(INSTALL.sub, rf'%pip install -q "fldp @ git+\g<address>@v{release}"')
    return pinned(source).strip("\n")


def folded(title: str) -> dict[str, Any]:
    """Metadata of a cell whose code Colab and JupyterLab fold."""
    return {"cellView": "form", "jupyter": {"source_hidden": True}, "title": title}


def outputs_of(cell: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Stored outputs, but what binds numbers to the prose, of the cell that is run as the n-th."""
    kept = []
    for output in cell["outputs"]:
        if "scrapbook" not in output.get("metadata", {}):
            number = {"execution_count": count} if "execution_count" in output else {}
            kept.append({**output, **number})
    return kept


class Twin:
    """The cells of one twin, as they are written one after the other."""

    def __init__(self, path: Path, book: Book, release: str) -> None:
        self.source = numbering.cells_of(path)
        self.release = release
        self.converter = Converter(path.stem, self.source, book)
        self.address = f"{book.site}/book/{path.stem}.html"
        self.number = {c.slug: c.number for c in chapters.chapters(HERE)}.get(path.stem)
        self.cells: list[dict[str, Any]] = []
        self.collapsed: list[str] = []
        self.run = 0
        # Between a solution's end and the next heading nothing may stand: it would be folded too.
        self.closing = False

    def add(self, kind: str, source: str, **more: Any) -> dict[str, Any]:
        identifier = f"fldp-{len(self.cells):03d}"[:LONGEST_ID]
        lines = source.splitlines(keepends=True)
        cell: dict[str, Any] = {
            "cell_type": kind,
            "id": identifier,
            "metadata": {},
            "source": lines,
        }
        cell |= more
        # Colab asks for the id here.
        cell["metadata"] = {**cell["metadata"], "id": identifier}
        self.cells.append(cell)
        return cell

    def text(self, source: str) -> None:
        """A cell of text, and one for each solution that begins in it."""
        for part in re.split(rf"(?=[{OPENS}{CLOSES}])", source):
            words = part.lstrip(OPENS + CLOSES).strip("\n")
            if part.startswith(CLOSES):
                self.closing = True
            if not words:
                continue
            if self.closing and not HEADING.match(words):
                raise ValueError(f"{self.address}: text after a solution would be folded: {words}")
            self.closing = False
            if part.startswith(OPENS):
                head, _, rest = words.partition("\n")
                cell = self.add("markdown", head, metadata={"jp-MarkdownHeadingCollapsed": True})
                self.collapsed.append(cell["id"])
                words = rest.strip("\n")
            if words:
                self.add("markdown", words)

    def code(self, cell: dict[str, Any]) -> None:
        """A cell of code, and the caption of its figure."""
        tags = cell["metadata"].get("tags", [])
        source = myst.source_of(cell)
        if f"{BINDS}(" in source:
            source = unbound(source)
        source = shown(source, self.release)
        kept: dict[str, Any] = {}
        if SETUP in tags:
            source = f"# @title Set-up: installs fldp where it is missing\n{source}"
            kept = folded("Set-up")
        elif DRAWING in tags:
            source = f"# @title Drawing\n{source}"
            kept = folded("Drawing")
        # Without gaps where a hidden cell was.
        self.run += 1
        outputs = outputs_of(cell, self.run)
        self.add("code", source, metadata=kept, outputs=outputs, execution_count=self.run)
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        if "caption" in figure:
            caption = self.converter.text(figure["caption"])
            self.add("markdown", self.converter.caption(figure.get("name"), caption))

    def written(self) -> dict[str, Any]:
        """The notebook."""
        for cell in needed(self.source):
            if cell["cell_type"] == "code":
                self.code(cell)
            else:
                self.text(self.converter.text(myst.source_of(cell)))
        self._open()
        return {
            "cells": self.cells,
            "metadata": {
                "colab": {"collapsed_sections": self.collapsed, "toc_visible": True},
                "kernelspec": KERNEL,
                "language_info": {"name": "python"},
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }

    def _open(self) -> None:
        """The title with its number, and where this is from."""
        first = self.cells[0]
        head, _, rest = "".join(first["source"]).partition("\n")
        if self.number is not None:
            head = head.replace("# ", f"# {self.number} · ", 1)
        origin = f"*From [the book]({self.address}), version {self.release}.*"
        first["source"] = f"{head}\n\n{origin}\n\n{rest.strip()}".splitlines(keepends=True)


def sources() -> Iterator[Path]:
    """The notebooks of the book."""
    yield from sorted(BOOK.glob("*.ipynb"))


def text_of(path: Path) -> str:
    """The twin of a notebook, as a file."""
    twin = Twin(path, the_book(), version()).written()
    return json.dumps(twin, indent=1, ensure_ascii=False) + "\n"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(texts: Mapping[str, str], folder: Path, keep: bool) -> list[str]:
    """Write the twins; with `keep` not over one that was changed since, whose name is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / WRITTEN
    before = json.loads(record.read_text(encoding="utf-8")) if keep and record.exists() else {}
    kept = []
    for name, text in texts.items():
        path = folder / name
        if keep and path.exists() and digest(path.read_text(encoding="utf-8")) != before.get(name):
            kept.append(name)
            continue
        path.write_text(text, encoding="utf-8")
        before[name] = digest(text)
    if keep:
        record.write_text(json.dumps(before, indent=1) + "\n", encoding="utf-8")
    return kept


def compare(texts: Mapping[str, str], folder: Path) -> int:
    """1, and the names, where a folder holds other twins than these."""
    there = {path.name for path in folder.glob("*.ipynb")}
    wrong = sorted(there ^ texts.keys())
    for name in sorted(there & texts.keys()):
        if (folder / name).read_text(encoding="utf-8") != texts[name]:
            wrong.append(name)
    if wrong:
        print(f"{folder} has other notebooks than the book: {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the notebooks that are read alone.")
    parser.add_argument("folder", nargs="?", type=Path, default=OUT, help="default: _build/twins")
    parser.add_argument("--keep", action="store_true", help="leave what a reader has changed")
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    arguments = parser.parse_args(argv)
    texts = {path.name: text_of(path) for path in sources()}
    if arguments.check:
        return compare(texts, arguments.folder)
    kept = write(texts, arguments.folder, arguments.keep)
    print(f"{len(texts) - len(kept)} notebooks written to {arguments.folder}")
    if kept:
        print(f"left as you changed them: {', '.join(kept)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
