"""What a build used and ran: ``{build-environment}`` and ``{build-notebooks}``, two tables.

Run times are those that the executions left behind, as myst-nb knows them; `tools/build_book.py`
says in a variable of the environment which notebooks it executed anew.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import fldp
from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from chapter_line import RUNS
from checked_cells import MARK
from plain_text import line

# The variable in which `tools/build_book.py` names the notebooks that it executed.
EXECUTED = "FLDP_EXECUTED"
# What decides what a cell prints, and what draws the pages.
PACKAGES = (
    *("numpy", "scipy", "torch", "torchvision", "opacus", "scikit-learn", "matplotlib"),
    *("dp-accounting", "jupyter-book", "sphinx", "myst-nb"),
)
SECONDS = {"second": 1, "minute": 60}
# Slow is what takes so many times as long as its page promises.
SLOW = 2.0
# The class of what becomes the table of notebooks.
PLACE = "fldp-notebooks"
HEAD = ["Notebook", "Run time", "Promised", "Outcome", "Executed", "Checked cells", "Size"]


@dataclass(frozen=True)
class Ran:
    """A notebook of the book and its execution; times in seconds, size in bytes."""

    page: str
    title: str
    seconds: float | None
    promised: float | None
    succeeded: bool
    error: str
    day: str
    cells: int
    checked: int
    size: int

    def outcome(self) -> str:
        """How it went: a word, or what failed."""
        if not self.succeeded:
            return f"failed: {self.error or 'no error is known'}"
        slow = self.seconds is not None and self.promised is not None
        return "slow" if slow and self.seconds > SLOW * self.promised else "ran"

    def executed(self, anew: list[str]) -> str:
        """When: in this build, if the build says so, else on a day."""
        return "in this build" if Path(self.page).name in anew else self.day


def counted(path: Path) -> tuple[int, int]:
    """Cells with code, and those whose output the tests compare."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return len(sources), sum(source.startswith(MARK) for source in sources)


def promise(doctree: nodes.document) -> float | None:
    """The seconds that a page says it runs."""
    told = (RUNS.search(line(node)) for node in doctree.findall(nodes.paragraph))
    match = next((one for one in told if one), None)
    if match is None:
        return None
    number, unit = match[1].split()
    return int(number) * SECONDS[unit.rstrip("s")]


def ran(env: Any, page: str, execution: dict[str, Any]) -> Ran:
    path = Path(env.doc2path(page))
    doctree = env.get_doctree(page)
    cells, checked = counted(path)
    day = datetime.fromtimestamp(execution["mtime"]).date().isoformat()
    return Ran(
        page=page,
        title=line(doctree.next_node(nodes.title) or nodes.Text(page)),
        seconds=execution["runtime"],
        promised=promise(doctree),
        succeeded=bool(execution["succeeded"]),
        error=str(execution["error"] or ""),
        day=day,
        cells=cells,
        checked=checked,
        size=path.stat().st_size,
    )


def executions(env: Any) -> list[Ran]:
    """The notebooks of the book, in its order."""
    data = NbMetadataCollector.get_doc_data(env)
    known = {page: more["exec_data"] for page, more in data.items() if more.get("exec_data")}
    order = env.toctree_includes[env.config.root_doc]
    return [ran(env, page, known[page]) for page in order if page in known]


def lasted(seconds: float | None) -> str:
    return "—" if seconds is None else f"{seconds:.0f} s"


def table(head: list[str], rows: list[list[nodes.Node]]) -> nodes.table:
    """A table whose columns are as wide as they need."""

    def made(cells: list[nodes.Node]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", one)) for one in cells))

    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    group += nodes.thead("", made([nodes.Text(word) for word in head]))
    group += nodes.tbody("", *(made(cells) for cells in rows))
    return nodes.table("", group, classes=["colwidths-auto"])


def versions() -> list[tuple[str, str]]:
    """What there was, by its public name; what is not installed is left out."""
    found = [("fldp", fldp.__version__), ("Python", platform.python_version())]
    found += [("system", f"{platform.system()}, {platform.machine()}")]
    for name in PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def revision(root: Path) -> str:
    """The commit of the sources; empty where they are in no repository."""
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if re.fullmatch(r"[0-9a-f]{12}\s*", done.stdout) else ""


class BuildEnvironment(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        facts = [("built", f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC")]
        commit = revision(Path(self.env.srcdir))
        facts += [("sources", commit)] if commit else []
        rows = [[nodes.Text(name), nodes.Text(value)] for name, value in facts + versions()]
        return [table(["What", "Which"], rows)]


class BuildNotebooks(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [nodes.container(classes=[PLACE])]


def cells(one: Ran, anew: list[str]) -> list[nodes.Node]:
    link = addnodes.pending_xref(
        "",
        nodes.inline("", one.title),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{one.page}",
        refexplicit=True,
        refwarn=True,
    )
    words = [
        lasted(one.seconds),
        lasted(one.promised),
        one.outcome(),
        one.executed(anew),
        f"{one.checked} of {one.cells}",
        f"{one.size / 1024:.0f} kB",
    ]
    return [link, *(nodes.Text(word) for word in words)]


class Fill(SphinxPostTransform):
    """The table of notebooks: when every page has been read, hence every notebook has run."""

    # Before references are resolved, as myst-nb's own table.
    default_priority = 8

    def run(self, **options: Any) -> None:
        anew = os.environ.get(EXECUTED, "").split()
        for holder in list(self.document.findall(nodes.container)):
            if PLACE in holder["classes"]:
                rows = [cells(one, anew) for one in executions(self.env)]
                holder += table(HEAD, rows)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("build-environment", BuildEnvironment)
    app.add_directive("build-notebooks", BuildNotebooks)
    app.add_post_transform(Fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
