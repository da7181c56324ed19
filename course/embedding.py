"""The public checks as one text: they, and of the engine what they need, and nothing else.

Definitions are taken as they stand, in the order of the files, beginning with the public checks and
following every name that a taken definition reads. So a hidden check, and what only it uses, cannot
get in.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass
from pathlib import Path

from course.checks import Assignment

HERE = Path(__file__).resolve().parent
# In an order in which each needs only what comes before.
ENGINE = ("values", "draws", "readings", "parts", "calls", "notebook")
DECORATORS = {"check", "hidden"}


@dataclass(frozen=True)
class Definition:
    """A top-level statement: what it defines, what it reads, its text."""

    names: frozenset[str]
    reads: frozenset[str]
    text: str
    is_import: bool


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    written = (
        n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    )
    return {name.id for name in written}


class _Reader(ast.NodeVisitor):
    """The names that a statement reads when it runs: annotations are never evaluated."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self.names.add(node.id)

    def visit_arg(self, node: ast.arg) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def _visit_function(self, node: ast.FunctionDef) -> None:
        node.returns = None
        node.decorator_list = [d for d in node.decorator_list if not _is_check(d)]
        self.generic_visit(node)

    visit_FunctionDef = _visit_function


def _reads(node: ast.stmt) -> set[str]:
    reader = _Reader()
    reader.visit(node)
    return reader.names


def _text(node: ast.stmt, lines: list[str]) -> str:
    """The statement with the comments right above it, without decorators of checks."""
    first = node.lineno
    decorators = getattr(node, "decorator_list", [])
    kept = [d for d in decorators if not _is_check(d)]
    if kept:
        first = min(d.lineno for d in kept)
    above = min([first, *(d.lineno for d in decorators)])
    comments: list[str] = []
    while above > 1 and lines[above - 2].startswith("#"):
        above -= 1
        comments.insert(0, lines[above - 1])
    return "\n".join([*comments, *lines[first - 1 : node.end_lineno]])


def _is_check(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in DECORATORS
    )


def _imports(node: ast.Import | ast.ImportFrom) -> list[Definition]:
    """One for each name, so that no name comes in with another."""
    found = []
    for alias in node.names:
        one = copy.copy(node)
        one.names = [alias]
        name = (alias.asname or alias.name).split(".")[0]
        found.append(Definition(frozenset([name]), frozenset(), ast.unparse(one), True))
    return found


def _definitions(path: Path) -> list[Definition]:
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Expr):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
            "course",
            "__future__",
        ):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += _imports(node)
            continue
        text = _text(node, lines)
        found.append(Definition(frozenset(_names(node)), frozenset(_reads(node)), text, False))
    return found


def public(assignment: Assignment) -> str:
    """The text of a module with the public checks and ``check``.

    Parameters
    ----------
    assignment : Assignment
        Whose.

    Returns
    -------
    str
        Python that needs torch, numpy and fldp; it ends with a list ``CHECKS`` of question and
        function.

    Raises
    ------
    ValueError
        Where a public check needs a hidden one, or two definitions have one name.
    """
    hidden = {check.name for check in assignment.checks if not check.public}
    shown = [check for check in assignment.checks if check.public]
    everything = [d for name in ENGINE for d in _definitions(HERE / f"{name}.py")]
    everything += _definitions(assignment.folder / "checks.py")
    wanted = {"start", *(check.name for check in shown)}
    taken: list[Definition] = []
    while True:
        more = [d for d in everything if d not in taken and d.names & wanted]
        if not more:
            break
        taken += more
        wanted |= {name for d in more for name in d.reads}
    if leaked := hidden & wanted:
        raise ValueError(f"a public check of {assignment.name} uses the hidden {min(leaked)}")
    ordered = [d for d in everything if d in taken]
    imports = sorted({d.text for d in ordered if d.is_import})
    bodies = [d for d in ordered if not d.is_import]
    names = [name for d in bodies for name in d.names]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"{assignment.name}: {min(twice)} is defined twice, here and in the engine"
        )
    listed = "\n".join(f'    ("{check.question}", {check.name}),' for check in shown)
    head = ["from __future__ import annotations", "\n".join(imports)]
    texts = [*head, *(d.text for d in bodies), f"CHECKS = [\n{listed}\n]"]
    return "\n\n\n".join(texts) + "\n"
