"""Measure the book against its house style: ``python tools/check_book.py [--execute] [NAME ...]``.

Prints one line of measures per notebook and page and the list of theorem-test pairs; the exit
status is 1 if a limit is breached. Nothing is executed unless ``--execute`` asks for it and takes
processor times; times otherwise come from the last ``make book``, on a clock, and breach nothing.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import myst

HERE = Path(__file__).resolve().parent.parent
KINDS = {  # words, exercises, sections that must be there
    "chapter": ((1500, 2500), (3, 5), ("Summary", "Exercises", "Further reading")),
    "notebook": ((600, 1200), (0, 5), ()),
    "page": ((0, 2500), (0, 0), ()),
}
CARD = ("You will be able to", "You need", "It runs")
MEDIAN, P90, LONGEST, COLUMNS = 5, 20, 40, 79
SECONDS, BYTES = 25, 300 * 1024
BANNED = re.compile(
    r"\b(simpl[ey]|powerful|crucial|important(?:ly)?|obviously|trivial(?:ly)?)\b", re.I
)
BOXES = tuple(
    f"prf:{kind}" for kind in ("definition", "theorem", "lemma", "proposition", "corollary")
)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+(?:::\w+)?)`")
EXERCISES, SOLUTIONS = ("exercise", "exercise-start"), ("solution", "solution-start")


@dataclass
class Box:
    """A definition or theorem, and the tests that the text around it names."""

    kind: str
    label: str
    text: str
    where: str

    @property
    def tests(self) -> list[tuple[str, str]]:
        return [(path, name) for path, name in TEST.findall(self.text)]

    @property
    def is_grounded(self) -> bool:
        """Whether the text cites somebody or proves."""
        cites = any(role.name.startswith("cite") for role in myst.roles(self.text))
        return cites or any(found.name == "prf:proof" for found in myst.directives(self.text))


@dataclass
class Measures:
    """What was measured of one notebook or page, and the limits it breaches."""

    path: Path
    kind: str
    words: int = 0
    lengths: list[int] = field(default_factory=list)
    seconds: float | None = None
    size: int = 0
    figures: int = 0
    without_alt: int = 0
    exercises: list[str] = field(default_factory=list)
    solutions: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)

    @property
    def p90(self) -> int:
        return sorted(self.lengths)[int(0.9 * (len(self.lengths) - 1))] if self.lengths else 0

    def row(self) -> str:
        middle = statistics.median(self.lengths) if self.lengths else 0
        time_ = "-" if self.seconds is None else f"{self.seconds:.1f}"
        tested = sum(bool(box.tests) for box in self.boxes)
        return (
            f"{self.path.stem:<36}{self.words:>6}{len(self.lengths):>6}{middle:>7.1f}"
            f"{self.p90:>5}{max(self.lengths, default=0):>5}{time_:>7}{self.size / 1024:>7.0f}"
            f"{self.figures:>6}{self.without_alt:>7}{len(self.exercises):>5}"
            f"{len(self.solutions):>5}{len(self.boxes):>6}{tested:>7}"
        )


HEAD = (
    f"{'':<36}{'words':>6}{'cells':>6}{'median':>7}{'p90':>5}{'max':>5}{'s':>7}{'KB':>7}"
    f"{'figs':>6}{'no alt':>7}{'ex.':>5}{'sol.':>5}{'boxes':>6}{'tested':>7}"
)


def count(markdown: str) -> int:
    return len(re.findall(r"[^\W_]+(?:['’.,-][^\W_]+)*", myst.prose(markdown)))


def outside_solutions(markdown: list[str]) -> Iterator[str]:
    """Cells of the running text: solutions are folded away, so they are not counted."""
    inside = False
    for text in markdown:
        names = {found.name for found in myst.directives(text)}
        inside = inside or "solution-start" in names
        if not inside:
            yield text
        if "solution-end" in names:
            inside = False


def outputs(cells: list[dict[str, Any]]) -> tuple[str, set[str]]:
    """All text that the code cells hold or print, and the names bound with glue."""
    text, names = [], set()
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        text.append(myst.source_of(cell))
        for output in cell["outputs"]:
            text.append("".join(output.get("text", "")))
            for mime, data in output.get("data", {}).items():
                if mime.endswith("text/plain"):
                    text.append("".join(data))
            names.add(output.get("metadata", {}).get("scrapbook", {}).get("name"))
    return "\n".join(text), names


@cache
def defined_tests(path: Path) -> frozenset[str]:
    """Names of the tests in a file, methods as Class::test; empty if there is no such file."""
    if not path.exists():
        return frozenset()
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{m.name}" for m in node.body if isinstance(m, ast.FunctionDef)}
    return frozenset(names)


def boxes(text: str, where: str) -> Iterator[Box]:
    """Each box with the text up to the next one in its cell: the test may be named in either."""
    lines = text.splitlines()
    parts = [myst.directive(token) for token in myst.tokens(text)]
    found = [part for part in parts if part is not None and part.name in BOXES]
    ends = [*(box.first for box in found[1:]), len(lines)]
    for box, end in zip(found, ends, strict=False):  # without a box, nothing ends
        kind = box.name.removeprefix("prf:")
        yield Box(kind, box.options.get("label", ""), "\n".join(lines[box.first : end]), where)


def check_boxes(measured: Measures, referred: Counter[str], root: Path) -> None:
    for box in measured.boxes:
        name = f"{box.kind} {box.label or '(no label)'}"
        if not box.label:
            measured.breaches.append(f"{name}: has no :label:")
        elif not referred.get(box.label):
            measured.breaches.append(f"{name}: no text refers to it with {{prf:ref}}")
        if not box.is_grounded:
            measured.breaches.append(f"{name}: neither a citation nor a proof")
        if not box.tests and box.kind != "definition" and "<!-- no test:" not in box.text:
            measured.breaches.append(
                f"{name}: names no test; where none is possible: <!-- no test: the reason -->"
            )
        for path, test in box.tests:
            if test not in defined_tests(root / path):
                measured.breaches.append(f"{name}: {path}::{test} does not exist")


def check_text(measured: Measures, text: str, known: str | None) -> None:
    """Alt texts, forbidden words and, in a notebook, numbers that no cell holds or prints."""
    for found in myst.directives(text):
        if found.name in ("figure", "image"):
            measured.figures += 1
            measured.without_alt += not found.options.get("alt")
    for token in myst.inlines(text):
        if token.type == "image" and not token.content.strip():
            measured.figures += 1
            measured.without_alt += 1
    said = myst.prose(text)
    for match in BANNED.finditer(said):
        measured.breaches.append(f"says {match[0]!r}: show it, or leave the word out")
    if known is None:
        return
    for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", said):
        if number not in known:
            measured.breaches.append(f"the prose says {number}, which no cell holds or prints")


def check_cells(measured: Measures, code: list[dict[str, Any]]) -> None:
    for cell in code:
        source = myst.source_of(cell)
        if "remove-cell" not in cell["metadata"].get("tags", []):
            lines = [line.strip() for line in source.splitlines()]
            measured.lengths.append(sum(bool(line) and line[0] != "#" for line in lines))
        for line in source.splitlines():
            if len(line) > COLUMNS:
                measured.breaches.append(f"a line of {len(line)} columns: {line.strip()[:40]} ...")
        if any(m.startswith("image/") for o in cell["outputs"] for m in o.get("data", {})):
            options = cell["metadata"].get("mystnb", {})
            figure = options.get("figure", {})
            measured.figures += 1
            measured.without_alt += not options.get("image", {}).get("alt", "").strip()
            if not (figure.get("caption") and figure.get("name", "").startswith("fig-")):
                measured.breaches.append("a figure without caption or without a name fig-...")
    if measured.lengths:
        measures = (
            ("median", statistics.median(measured.lengths), MEDIAN),
            ("90th percentile", measured.p90, P90),
            ("longest", max(measured.lengths), LONGEST),
        )
        for what, value, limit in measures:
            if value > limit:
                measured.breaches.append(f"code cells: {what} {value:g} lines, at most {limit}")


def check_exercises(measured: Measures, text: str) -> None:
    found = list(myst.directives(text))
    measured.exercises = [part.options.get("label", "") for part in found if part.name in EXERCISES]
    measured.solutions = [part.argument for part in found if part.name in SOLUTIONS]
    low, high = KINDS[measured.kind][1]
    if not low <= len(measured.exercises) <= high:
        measured.breaches.append(f"{len(measured.exercises)} exercises; {low} to {high} are asked")
    for label in sorted(set(measured.exercises) ^ set(measured.solutions)):
        measured.breaches.append(f"{label}: an exercise without solution, or the reverse")
    names = [part.name for part in found]
    if names.count("solution-start") != names.count("solution-end"):
        measured.breaches.append("a solution-start without its solution-end")


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook; a page is one cell of Markdown."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [{"cell_type": "markdown", "source": text}]
    return list(json.loads(text)["cells"])


def measure(path: Path, referred: Counter[str], root: Path) -> Measures:
    """Everything but the run time of one notebook or page."""
    cells, kind = cells_of(path), "page"
    if path.suffix == ".ipynb":
        kind = "chapter" if re.match(r"\d\d-", path.name) else "notebook"
    measured = Measures(path, kind, size=path.stat().st_size)
    markdown = myst.markdown(cells)
    text = "\n\n".join(markdown)
    known, glued = outputs(cells)
    measured.words = sum(map(count, outside_solutions(markdown)))
    measured.boxes = [box for part in markdown for box in boxes(part, path.stem)]
    (low, high), _, sections = KINDS[kind]
    if not low <= measured.words <= high:
        measured.breaches.append(f"{measured.words} words; {low} to {high} are asked")
    if measured.size >= BYTES:
        measured.breaches.append(f"{measured.size / 1024:.0f} KB; less than 300 are asked")
    headings = list(myst.headings(text, 2))
    for section in sections:
        if not any(heading.startswith(section) for heading in headings):
            measured.breaches.append(f"no section '## {section}'")
    for words in CARD if kind != "page" else ():
        if f"**{words}" not in "".join(markdown[:2]):
            measured.breaches.append(f"the opening does not say '**{words} ...**'")
    for role in myst.roles(text):
        name = role.text.partition(":")[0]
        if role.name.startswith("glue") and name not in glued:
            measured.breaches.append(f"glue {name!r} is bound in no cell")
    check_text(measured, text, known if kind != "page" else None)
    check_cells(measured, [c for c in cells if c["cell_type"] == "code"])
    check_exercises(measured, text)
    check_boxes(measured, referred, root)
    if measured.without_alt:
        measured.breaches.append(f"{measured.without_alt} figure(s) without alt text")
    return measured


def references(paths: list[Path]) -> Counter[str]:
    """How often the book refers to each label with {prf:ref}."""
    return Counter(
        role.target
        for path in paths
        for text in myst.markdown(cells_of(path))
        for role in myst.roles(text)
        if role.name == "prf:ref"
    )


def cached_seconds(path: Path, root: Path) -> float | None:
    """Run time of exactly these code cells in the last `make book`; None if there was none."""
    if not (root / ".cache" / "book" / "global.db").exists():
        return None
    from jupyter_cache import get_cache

    try:
        record = get_cache(root / ".cache" / "book").match_cache_file(str(path))
    except KeyError:
        return None
    seconds = record.data.get("execution_seconds")
    return None if seconds is None else float(seconds)


def executed_seconds(path: Path) -> float:
    """Run the notebook here; processor time of its kernel, which other work does not lengthen."""
    import nbformat
    from nbclient import NotebookClient

    where = {"metadata": {"path": str(path.parent)}}
    before = os.times()
    NotebookClient(nbformat.read(path, 4), timeout=300, resources=where).execute()
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the book against its house style.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="stems of files; default: all")
    parser.add_argument("--execute", action="store_true", help="run the notebooks and time them")
    parser.add_argument("--root", type=Path, default=HERE, help="the folder that holds book/")
    arguments = parser.parse_args(argv)
    root = arguments.root.resolve()
    everything = sorted([*(root / "book").glob("*.ipynb"), *(root / "book").glob("*.md")])
    chosen = [p for p in everything if not arguments.names or p.stem in arguments.names]
    unknown = set(arguments.names) - {p.stem for p in chosen}
    if unknown:
        parser.error(f"no such file in {root / 'book'}: {', '.join(sorted(unknown))}")
    referred = references(everything)
    measures = []
    print(HEAD)
    for path in chosen:
        measured = measure(path, referred, root)
        if path.suffix == ".ipynb":
            if arguments.execute:
                measured.seconds = executed_seconds(path)
                if measured.seconds > SECONDS:
                    measured.breaches.append(
                        f"{measured.seconds:.0f} s; at most {SECONDS} are asked"
                    )
            else:
                measured.seconds = cached_seconds(path, root)
        measures.append(measured)
        print(measured.row())
    print("\nDefinitions and theorems, and the tests that check them")
    for box in (box for measured in measures for box in measured.boxes):
        tests = ", ".join(f"{path}::{name}" for path, name in box.tests) or "-"
        print(f"  {box.where}: {box.kind} {box.label}: {tests}")
    breaches = [f"{m.path.name}: {b}" for m in measures for b in m.breaches]
    print("\n" + ("\n".join(breaches) if breaches else "No limit is breached."))
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
