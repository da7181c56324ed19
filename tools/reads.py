"""How the code reads, a row per floor: ``python tools/reads.py [--check] [--root DIR]``.

Counts what makes code dense or plain, per 100 lines of code: conditional expressions, assignments
to tuples, `Any`. Comments and documentation are shares of all lines. A function's complexity is one
plus its branches, loops, conditions and handlers; its length is without its docstring. `--check`
names each aim that is missed and exits with status 1.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
# The aims lie half way from where the code once stood to well-known libraries of the field.
MOST_CONDITIONAL = 2.0  # per 100 lines of code, as the next two
MOST_TUPLES = 2.5
MOST_ANY = 1.5
LEAST_COMMENTS = 2.0  # percent of all lines
LEAST_DOCUMENTATION = 22.0  # percent of all lines
MOST_COMPLEX = 12
MOST_PARAMETERS = 8
MOST_SKIPS = 10  # comments that switch the formatter off, in the whole package
# The public calls may have more parameters: keyword-only, with one table of settings behind them.
PUBLIC_CALLS = (
    "aggregate",
    "calibrate",
    "calibrate_records",
    "delta",
    "epsilon",
    "explain_recipe",
    "max_rounds",
    "noise_multiplier",
    "partition",
    "train",
)
BRANCHES = (
    ast.If,
    ast.For,
    ast.While,
    ast.IfExp,
    ast.BoolOp,
    ast.ExceptHandler,
    ast.comprehension,
)
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Measures:
    """What was counted in some files; (number, where) for the largest of its kind."""

    lines: int = 0
    code: int = 0
    documentation: int = 0
    comments: int = 0
    skips: int = 0
    conditional: int = 0
    tuples: int = 0
    anys: int = 0
    lengths: list[int] = field(default_factory=list)
    complexity: tuple[int, str] = (0, "-")
    parameters: tuple[int, str] = (0, "-")

    def per_hundred(self, count: int) -> float:
        """A count for every 100 lines of code."""
        return 100 * count / max(self.code, 1)

    def percent(self, count: int) -> float:
        """A count as a share of all lines."""
        return 100 * count / max(self.lines, 1)

    def row(self, name: str) -> str:
        middle = statistics.median(self.lengths or [0])
        return (
            f"{name:<12}{self.lines:>7}{self.code:>7}{self.percent(self.documentation):>6.0f}"
            f"{self.percent(self.comments):>9.1f}{self.per_hundred(self.conditional):>6.1f}"
            f"{self.per_hundred(self.tuples):>7.1f}{self.per_hundred(self.anys):>5.1f}"
            f"{self.skips:>6}{max(self.lengths, default=0):>8}{middle:>7g}"
            f"  {self.complexity[0]} {self.complexity[1]}, "
            f"{self.parameters[0]} {self.parameters[1]}"
        )

    def missed(self) -> Iterator[str]:
        """Every aim that these files miss, in words."""
        upper = (
            ("conditional expressions", self.per_hundred(self.conditional), MOST_CONDITIONAL),
            ("assignments to tuples", self.per_hundred(self.tuples), MOST_TUPLES),
            ("Any", self.per_hundred(self.anys), MOST_ANY),
        )
        for what, found, most in upper:
            if found > most:
                yield f"{found:.1f} {what} per 100 lines of code, at most {most:g}"
        lower = (
            ("comments", self.percent(self.comments), LEAST_COMMENTS),
            ("documentation", self.percent(self.documentation), LEAST_DOCUMENTATION),
        )
        for what, found, least in lower:
            if found < least:
                yield f"{found:.1f} % of the lines are {what}, at least {least:g}"
        if self.complexity[0] > MOST_COMPLEX:
            yield f"complexity {self.complexity[0]} in {self.complexity[1]}, at most {MOST_COMPLEX}"
        if self.parameters[0] > MOST_PARAMETERS:
            count, where = self.parameters
            yield f"{count} parameters of {where}, at most {MOST_PARAMETERS}"


HEAD = (
    f"{'':<12}{'lines':>7}{'code':>7}{'doc%':>6}{'comment%':>9}{'cond':>6}{'tuple':>7}{'Any':>5}"
    f"{'skip':>6}{'longest':>8}{'median':>7}  most complex, most parameters"
)


def docstring(node: ast.AST) -> ast.Expr | None:
    """The statement that documents a module, class or function, or None."""
    if not isinstance(node, Documented) or not node.body:
        return None
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return first if isinstance(first.value.value, str) else None
    return None


def lines_of(node: ast.AST | None) -> range:
    """The numbers of the lines that a node stands on; none for None."""
    if node is None:
        return range(0)
    first, last = node.lineno, node.end_lineno
    return range(first, last + 1)


def parameters_of(function: Function) -> int:
    """How many parameters a caller may give."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in named)


def measure_function(found: Measures, function: Function, where: str) -> None:
    found.lengths.append(len(lines_of(function)) - len(lines_of(docstring(function))))
    branches = sum(isinstance(part, BRANCHES) for part in ast.walk(function))
    found.complexity = max(found.complexity, (1 + branches, where))
    if function.name not in PUBLIC_CALLS:
        found.parameters = max(found.parameters, (parameters_of(function), where))


def measure_file(found: Measures, path: Path) -> None:
    """Add what a file holds to what was found."""
    text = path.read_text(encoding="utf-8")
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        documented.update(lines_of(docstring(node)))
        if isinstance(node, Function):
            measure_function(found, node, f"{path.stem}.{node.name}")
        found.conditional += isinstance(node, ast.IfExp)
        found.tuples += isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
        found.anys += isinstance(node, ast.Name) and node.id == "Any"
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        found.skips += token.type == tokenize.COMMENT and "fmt: skip" in token.string
    for number, line in enumerate(text.splitlines(), start=1):
        is_comment = line.strip().startswith("#")
        is_documentation = number in documented
        found.lines += 1
        found.comments += is_comment
        found.documentation += is_documentation
        found.code += bool(line.strip()) and not is_comment and not is_documentation


def measure(paths: list[Path]) -> Measures:
    found = Measures()
    for path in paths:
        measure_file(found, path)
    return found


def floors(package: Path) -> dict[str, list[Path]]:
    """Name of each folder of the package -> its files; "top" for those in none."""
    rooms = {"top": sorted(package.glob("*.py"))}
    for folder in sorted(path for path in package.iterdir() if path.is_dir()):
        rooms[folder.name] = sorted(folder.rglob("*.py"))
    return {name: paths for name, paths in rooms.items() if paths}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure how the code of the package reads.")
    parser.add_argument("--check", action="store_true", help="exit 1 if an aim is missed")
    parser.add_argument("--root", type=Path, default=HERE, help="the folder that holds fldp/")
    arguments = parser.parse_args(argv)
    rooms = floors(arguments.root / "fldp")
    measured = {name: measure(paths) for name, paths in rooms.items()}
    whole = measure([path for paths in rooms.values() for path in paths])
    print(HEAD)
    for name, found in {**measured, "fldp": whole}.items():
        print(found.row(name))
    missed = [f"{name}: {words}" for name, found in measured.items() for words in found.missed()]
    if whole.skips > MOST_SKIPS:
        missed.append(f"the formatter is switched off {whole.skips} times, at most {MOST_SKIPS}")
    print("\n" + ("\n".join(missed) or "No aim is missed."))
    return int(arguments.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
