"""Measure the book against its house style: ``python tools/check_book.py [--execute] [NAME ...]``.

Prints two lines of measures per notebook and page and the list of theorem-test pairs; the exit
status is 1 if a limit is breached. Nothing is executed unless ``--execute`` asks for it and takes
processor times; times otherwise come from the last ``make book``, on a clock, and breach nothing.
Where there is such an execution of exactly these cells, stored outputs are compared with it.
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
import prose

HERE = Path(__file__).resolve().parent.parent
sys.path.append(str(HERE / "book" / "_ext"))
import chapters  # noqa: E402 - beside the book's extensions, which use it too

KINDS = {  # words, exercises, sections that must be there
    "chapter": ((1500, 2500), (3, 5), ("Summary", "Exercises", "Further reading")),
    "notebook": ((600, 1200), (0, 5), ()),
    "page": ((0, 2500), (0, 0), ()),
}
CARD = ("You will be able to", "You need", "It runs")
MEDIAN, P90, LONGEST, COLUMNS = 5, 20, 40, 79
SECONDS, BYTES = 60, 300 * 1024
# Of a chapter, without exercises, solutions and what is folded away.
CODE_LINES, SECTIONS, WORDS_PER_LINE, SHORT_SHARE = 140, 10, 15, 20
QUESTIONS = (2, 3)
STARS = re.compile(r"(★{1,3})(?!★)(?: |$)")
LEVELS = {"★": "warm-up", "★★": "standard", "★★★": "project"}
# Tags of cells: folded away; of figures that another run or machine need not repeat.
FOLDED, VARIES = "hide-input", "varies"
# What a bound figure is stored as.
RECORD = "application/papermill.record/text/plain"
CHECKED = "# NBVAL_CHECK_OUTPUT"
PLAIN = "**In plain words"
# Words of the glossary that every page uses: no chapter has to link them.
EVERYDAY = ["client", "cohort", "delta", "epsilon", "population", "record", "release", "round"]
# A term of so many letters or fewer is an abbreviation, whose case tells.
ABBREVIATED = 4
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
    short: float = 0.0
    code_lines: int = 0
    sections: int = 0
    stars: Counter[str] = field(default_factory=Counter)
    questions: int = 0

    @property
    def words_per_line(self) -> float:
        return self.words / max(self.code_lines, 1)

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

    def style(self) -> str:
        marks = "/".join(str(self.stars[level]) for level in LEVELS)
        return (
            f"{self.path.stem:<36}{self.short:>7.0f}{self.words_per_line:>8.1f}"
            f"{self.code_lines:>7}{self.sections:>9}{marks:>9}{self.questions:>7}"
        )


STYLE = f"{'':<36}{'short %':>7}{'w/line':>8}{'lines':>7}{'sections':>9}{'★/★★/★★★':>9}{'asked':>7}"
HEAD = (
    f"{'':<36}{'words':>6}{'cells':>6}{'median':>7}{'p90':>5}{'max':>5}{'s':>7}{'KB':>7}"
    f"{'figs':>6}{'no alt':>7}{'ex.':>5}{'sol.':>5}{'boxes':>6}{'tested':>7}"
)


def count(markdown: str) -> int:
    return prose.words(myst.prose(markdown))


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


def main_line(cells: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The cells that are no part of an exercise or of its solution."""
    inside = False
    for cell in cells:
        names = [found.name for found in myst.directives(markdown_of(cell))]
        starts = [name for name in names if name in ("exercise-start", "solution-start")]
        inside = inside or bool(starts)
        if not inside:
            yield cell
        last = next((n for n in reversed(names) if n.endswith(("-start", "-end"))), "")
        if last.endswith("-end"):
            inside = False


def markdown_of(cell: dict[str, Any]) -> str:
    return myst.source_of(cell) if cell["cell_type"] == "markdown" else ""


def lines_of(cell: dict[str, Any]) -> int:
    """Lines of code: neither blank nor a remark."""
    lines = [line.strip() for line in myst.source_of(cell).splitlines()]
    return sum(bool(line) and line[0] != "#" for line in lines)


def tags(cell: dict[str, Any]) -> list[str]:
    return list(cell["metadata"].get("tags", []))


def text_of(output: dict[str, Any]) -> str:
    """What a cell prints or shows as text; nothing of what it draws or binds."""
    data = output.get("data", {})
    if output.get("output_type") == "stream":
        return "".join(output["text"])
    shows = output.get("output_type") == "execute_result"
    return "".join(data.get("text/plain", "")) if shows else ""


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


def explained(text: str) -> Iterator[tuple[str, bool]]:
    """Label of each box, and whether plain words come before the next box or section."""
    lines = text.splitlines()
    parts = [myst.directive(token) for token in myst.tokens(text)]
    found = [part for part in parts if part is not None and part.name in BOXES]
    titles = [
        token.map[0]
        for token in myst.tokens(text)
        if token.type == "heading_open" and token.tag == "h2" and token.map
    ]
    stops = sorted([*(box.first for box in found), *titles, len(lines)])
    for box in found:
        end = next(stop for stop in stops if stop > box.first)
        yield box.options.get("label", ""), PLAIN in "\n".join(lines[box.last : end])


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
    typed = re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", said)
    for number in [n for n in typed if n not in known] + [*prose.unbound(said, known)]:
        measured.breaches.append(f"the prose says {number}, which no cell holds or prints")


def check_cells(measured: Measures, code: list[dict[str, Any]]) -> None:
    for cell in code:
        source = myst.source_of(cell)
        if "remove-cell" not in cell["metadata"].get("tags", []):
            measured.lengths.append(lines_of(cell))
        for line in source.splitlines():
            if len(line) > COLUMNS:
                measured.breaches.append(f"a line of {len(line)} columns: {line.strip()[:40]} ...")
        if any(m.startswith("image/") for o in cell["outputs"] for m in o.get("data", {})):
            options = cell["metadata"].get("mystnb", {})
            figure = options.get("figure", {})
            measured.figures += 1
            measured.without_alt += not options.get("image", {}).get("alt", "").strip()
            if lines_of(cell) > MEDIAN and not {FOLDED, "remove-input"} & set(tags(cell)):
                measured.breaches.append(
                    f"{lines_of(cell)} lines of drawing that are not folded: tag {FOLDED}"
                )
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


@cache
def glossary(root: Path) -> tuple[str, ...]:
    """The terms of the glossary."""
    path = root / "book" / "glossary.md"
    if not path.exists():
        return ()
    found = next(part for part in myst.directives(path.read_text("utf-8")) if "gloss" in part.name)
    return tuple(line for line in found.body.splitlines() if line and line[0] != " ")


def check_terms(measured: Measures, texts: list[str], root: Path) -> None:
    """A term of the glossary that a chapter uses is linked somewhere in it."""
    linked = {
        role.target.lower() for text in texts for role in myst.roles(text) if role.name == "term"
    }
    said = " ".join(myst.prose(text) for text in texts)
    for term in glossary(root):
        if term.lower() in linked or term in EVERYDAY:
            continue
        case = re.RegexFlag(0) if len(term) <= ABBREVIATED else re.IGNORECASE
        if re.search(rf"(?<![\w-]){re.escape(term)}s?(?![\w-])", said, case):
            measured.breaches.append(f"uses {term!r} and never links it: {{term}}`{term}`")


def check_style(measured: Measures, cells: list[dict[str, Any]], headings: list[str]) -> None:
    """What is asked of chapters alone: plain prose, little code, few questions."""
    own = list(main_line(cells))
    texts = [markdown_of(cell) for cell in own]
    measured.short = prose.short_share(texts)
    measured.questions = prose.questions(texts)
    hidden = {"remove-cell", "remove-input", FOLDED}
    measured.code_lines = sum(
        lines_of(cell)
        for cell in own
        if cell["cell_type"] == "code" and not hidden & set(tags(cell))
    )
    measured.sections = sum(heading != "Exercises" for heading in headings)
    for label, is_explained in explained("\n\n".join(texts)):
        if not is_explained:
            measured.breaches.append(f"{label}: no {PLAIN}** ... after it")
    if measured.short > SHORT_SHARE:
        measured.breaches.append(
            f"{measured.short:.0f} % of the sentences have {prose.SHORT} words or fewer; "
            f"at most {SHORT_SHARE} % are asked"
        )
    if measured.words_per_line < WORDS_PER_LINE:
        measured.breaches.append(
            f"{measured.words_per_line:.1f} words for a line of code; {WORDS_PER_LINE} are asked"
        )
    if measured.code_lines > CODE_LINES:
        measured.breaches.append(f"{measured.code_lines} lines of code, at most {CODE_LINES}")
    if measured.sections > SECTIONS:
        measured.breaches.append(f"{measured.sections} sections, at most {SECTIONS}")
    low, high = QUESTIONS
    if not low <= measured.questions <= high:
        measured.breaches.append(
            f"asks the reader to write something down {measured.questions} times; "
            f"{low} to {high} are asked"
        )
    for level, name in LEVELS.items():
        if not measured.stars[level]:
            measured.breaches.append(f"no exercise is marked {level} ({name})")


def check_outputs(measured: Measures, code: list[dict[str, Any]]) -> None:
    """A figure that a cell prints is compared by the tests, or said to vary."""
    for cell in code:
        shown = "".join(text_of(output) for output in cell["outputs"])
        is_told = myst.source_of(cell).startswith(CHECKED) or VARIES in tags(cell)
        if re.search(r"\d", shown) and not is_told:
            measured.breaches.append(
                f"prints a figure that nothing compares: {shown.strip()[:40]!r}; begin the cell "
                f"with {CHECKED}, or tag it {VARIES}"
            )


def bound(text: str, cells: list[dict[str, Any]]) -> dict[str, str]:
    """Name and form of each figure that the text typesets -> as it is read."""
    values, varies = {}, set()
    for cell in cells:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            data = "".join(output.get("data", {}).get(RECORD, ""))
            if name:
                values[name] = data
                varies |= {name} if VARIES in tags(cell) else set()
    read = {}
    for role in myst.roles(text):
        name, _, form = role.text.partition(":")
        if not role.name.startswith("glue") or name not in values or name in varies:
            continue
        value = values[name]
        read[role.text] = format(float(value), form) if form else value
    return read


def check_stale(
    measured: Measures, text: str, stored: list[dict[str, Any]], fresh: list[dict[str, Any]]
) -> None:
    """Stored outputs against those of an execution of the same cells."""
    was, now = bound(text, stored), bound(text, fresh)
    for name in was:
        if was[name] != now.get(name):
            measured.breaches.append(
                f"stale: {name} is stored as {was[name]} and comes out as {now.get(name)}"
            )
    code = [[c for c in cells if c["cell_type"] == "code"] for cells in (stored, fresh)]
    for one, other in zip(*code, strict=True):
        if not myst.source_of(one).startswith(CHECKED):
            continue
        said, says = ("".join(map(text_of, cell["outputs"])) for cell in (one, other))
        if said != says:
            measured.breaches.append(f"stale: stored {said.strip()!r}, comes out {says.strip()!r}")


def check_exercises(measured: Measures, text: str) -> None:
    found = list(myst.directives(text))
    for part in found:
        if part.name in EXERCISES and measured.kind == "chapter":
            mark = STARS.match(part.argument)
            if mark is None:
                label = part.options.get("label", "")
                measured.breaches.append(f"{label}: its title does not begin with ★, ★★ or ★★★")
            else:
                measured.stars[mark[1]] += 1
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
        written = [chapter.slug for chapter in chapters.chapters(root)]
        kind = "chapter" if path.stem in written else "notebook"
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
    code = [c for c in cells if c["cell_type"] == "code"]
    check_cells(measured, code)
    check_outputs(measured, code)
    check_exercises(measured, text)
    check_boxes(measured, referred, root)
    if kind == "chapter":
        check_style(measured, cells, headings)
        check_terms(measured, markdown, root)
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


def cached(path: Path, root: Path) -> tuple[float | None, list[dict[str, Any]] | None]:
    """Run time and cells of exactly these code cells in the last `make book`; None without it."""
    if not (root / ".cache" / "book" / "global.db").exists():
        return None, None
    from jupyter_cache import get_cache

    try:
        cache = get_cache(root / ".cache" / "book")
        record = cache.match_cache_file(str(path))
        fresh = list(cache.get_cache_bundle(record.pk).nb.cells)
    except KeyError:
        return None, None
    seconds = record.data.get("execution_seconds")
    return None if seconds is None else float(seconds), fresh


def executed(path: Path) -> tuple[float, list[dict[str, Any]]]:
    """Run the notebook here: processor time, which other work does not lengthen, and cells."""
    import nbformat
    from nbclient import NotebookClient

    where = {"metadata": {"path": str(path.parent)}}
    before = os.times()
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=300, resources=where).execute()
    after = os.times()
    seconds = after.children_user + after.children_system
    seconds -= before.children_user + before.children_system
    return seconds, list(notebook.cells)


def check_execution(measured: Measures, root: Path, run: bool) -> None:
    """Time and outputs of a notebook, run here or in the last `make book`."""
    if run:
        measured.seconds, fresh = executed(measured.path)
        if measured.seconds > SECONDS:
            measured.breaches.append(f"{measured.seconds:.0f} s; at most {SECONDS} are asked")
    else:
        measured.seconds, fresh = cached(measured.path, root)
    if fresh is not None:
        cells = cells_of(measured.path)
        check_stale(measured, "\n\n".join(myst.markdown(cells)), cells, fresh)


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
            check_execution(measured, root, run=arguments.execute)
        measures.append(measured)
        print(measured.row())
    print(f"\n{STYLE}")
    for measured in measures:
        if measured.kind == "chapter":
            print(measured.style())
    print("\nDefinitions and theorems, and the tests that check them")
    for box in (box for measured in measures for box in measured.boxes):
        tests = ", ".join(f"{path}::{name}" for path, name in box.tests) or "-"
        print(f"  {box.where}: {box.kind} {box.label}: {tests}")
    breaches = [f"{m.path.name}: {b}" for m in measures for b in m.breaches]
    print("\n" + ("\n".join(breaches) if breaches else "No limit is breached."))
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
