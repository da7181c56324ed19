"""The names that a cell of a notebook reads from those before it, and gives to those after it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Flow(ast.NodeVisitor):
    """Walks through a cell in the order in which Python runs it.

    Parameters
    ----------
    source : str
        The code of a cell; lines that are IPython's own count for nothing.

    Attributes
    ----------
    reads : set of str
        Names that are read before this cell gives them a value; builtins among them.
    gives : set of str
        Names that have a value of this cell's afterwards, on some way through it.
    bound : set of str
        Names that have one on every way through it, a loop's body being run at least once.
    """

    def __init__(self, source: str) -> None:
        self.reads: set[str] = set()
        self.gives: set[str] = set()
        self.bound: set[str] = set()
        self._inside = 0
        self.visit(ast.parse(re.sub(r"^(\s*)%.*$", r"\1pass", source, flags=re.M)))

    def _give(self, name: str) -> None:
        self.bound.add(name)
        if not self._inside:
            self.gives.add(name)

    def _all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _scope(self, nodes: Sequence[ast.AST], names: Iterable[str] = ()) -> None:
        """What is bound in here is not bound outside."""
        outside = set(self.bound)
        self.bound |= set(names)
        self._inside += 1
        self._all(nodes)
        self._inside -= 1
        self.bound = outside

    def _branch(self, nodes: Sequence[ast.AST]) -> set[str]:
        """What is bound at the end of a way that may not be taken."""
        before = set(self.bound)
        self._all(nodes)
        after, self.bound = self.bound, before
        return after

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._give(node.id)
        elif node.id not in self.bound:
            self.reads.add(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._all([node.value, *node.targets])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._all([node.value, node.target])

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._all([node.value, node.target])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and node.target.id not in self.bound:
            self.reads.add(node.target.id)
        self._all([node.value, node.target])

    def visit_For(self, node: ast.For) -> None:
        self._all([node.iter, node.target, *node.body, *node.orelse])

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        self.bound = self._branch(node.body) & self._branch(node.orelse)

    def visit_Try(self, node: ast.Try) -> None:
        ways = [self._branch([*node.body, *node.orelse])]
        ways += [self._branch([handler]) for handler in node.handlers]
        self.bound = set.intersection(*ways)
        self._all(node.finalbody)

    def _comprehension(self, node: Comprehension) -> None:
        made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        parts: list[ast.AST] = []
        for each in node.generators:
            parts += [each.iter, each.target, *each.ifs]
        self._scope([*parts, *made])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _function(self, node: Function) -> None:
        given = node.args
        self._all([*given.defaults, *given.kw_defaults])
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        names = {one.arg for one in arguments if one is not None}
        if isinstance(node, ast.Lambda):
            self._scope([node.body], names)
            return
        self._all(node.decorator_list)
        # It may call itself.
        self._give(node.name)
        self._scope(node.body, names)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._all([*node.decorator_list, *node.bases, *node.keywords])
        self._scope(node.body)
        self._give(node.name)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for name in node.names:
            self._give((name.asname or name.name).split(".")[0])

    visit_Import = visit_ImportFrom = _import
