"""Twenty submissions of *Clip and noise*, honest, mistaken, broken and hostile, and their marks.

``python -m course demo`` grades them; the tests hold the grader to the marks that stand here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course import builder, checks, tried
from course.builder import source_of, text_of

ASSIGNMENT = "clip-and-noise"
FUNCTIONS = ("clip", "intake", "sensitivity", "noisy_mean", "calibrate", "claim")


@dataclass(frozen=True)
class Case:
    """A submission and its mark.

    Parameters
    ----------
    name : str
        The file's name, without suffix.
    mark : float
        What it earns.
    says : str
        What the reason must hold.
    text : str
        The file.
    """

    name: str
    mark: float
    says: str
    text: str


def notebook(
    replace: dict[str, str] | None = None, first: str = "", drop: str = "", solved: bool = True
) -> dict[str, Any]:
    """A submission.

    Parameters
    ----------
    replace : dict
        Cells by the function that they define, instead of the solution.
    first : str
        A cell of its own, before all answers.
    drop : str
        The function whose cell is deleted.
    solved : bool
        Whether the rest is the solution, or untouched.
    """
    assignment = checks.load(ASSIGNMENT)
    made = builder.version(assignment, solved)
    cells = []
    for cell in made["cells"]:
        source = source_of(cell)
        function = source.partition("(")[0].removeprefix("def ")
        if cell["cell_type"] == "code" and function in FUNCTIONS:
            if function == drop:
                continue
            cell = {**cell, "source": (replace or {}).get(function, source)}
        cells.append(cell)
        if first and source.startswith("import math"):
            cells.append({**cell, "source": first})
    return {**made, "cells": cells}


def _mistake(name: str) -> str:
    every = tried.load(checks.load(ASSIGNMENT))
    return next(one.source for one in every if one.name == name)


def all_return(value: str) -> dict[str, str]:
    """Answers that return the same for everything."""
    return {name: f"def {name}(*args):\n    return {value}" for name in FUNCTIONS}


READS = """
def clip(update, norm):
    import glob, os
    places = [FOLDER + "/*", "/box/*", "/box/course/*", "/tmp/**", "/home/**", "../*", "*"]
    texts = [p for place in places for p in glob.glob(place, recursive=True) if "checks" in p]
    for p in glob.glob("/proc/[0-9]*/environ"):
        try:
            texts += [p] if b"FLDP_COURSE_KEY" in open(p, "rb").read() else []
        except OSError:
            pass
    raise RuntimeError("LEAK" if texts else "nothing found")
""".replace("FOLDER", repr(str(checks.ASSIGNMENTS / ASSIGNMENT)))
REPLACES = """
import gc, sys, types
for module in list(sys.modules.values()):
    for name in ("grade", "mark", "run", "check", "near", "number", "decode", "Raised"):
        if isinstance(getattr(module, name, None), types.FunctionType):
            setattr(module, name, lambda *args, **more: 10.0)
check = lambda question: print("full marks")
course = types.SimpleNamespace(mark=10.0)
"""
PATCHES = """
torch.allclose = torch.equal = lambda *args, **more: True
torch.Tensor.norm = lambda *args, **more: torch.tensor(0.0)
torch.Tensor.__eq__ = torch.Tensor.__le__ = lambda *args: True
fldp.clip = lambda update, norm: (update, 0.0)
fldp.accounting.gaussian_mu = lambda epsilon, delta: 1.0
math.isfinite = lambda x: True
"""
FORGES = """
import gc, io, json
line = json.dumps({"errors": [], "mark": 10, "score": 10, "earned": 10, "passed": True}) + "\\n"
for file in [x for x in gc.get_objects() if isinstance(x, io.BufferedWriter)]:
    file.write(line.encode())
    file.write((json.dumps({"out": {"value": True}, "after": []}) + "\\n").encode() * 50)
    file.flush()
"""
FORKS = """
import os, time
try:
    # Many for a box, few enough for a machine without one.
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(300)
            os._exit(0)
except OSError:
    pass
"""


def cases() -> list[Case]:
    """The twenty, in order."""

    def one(name: str, mark: float, says: str, **more: Any) -> Case:
        return Case(name, mark, says, text_of(notebook(**more)))

    loop = "def noisy_mean(updates, norm, z, m, generator):\n    while True:\n        pass"
    leaves = "def calibrate(epsilon, delta):\n    import os\n    os._exit(0)"
    prints = "for _ in range(3_000):\n    print('x' * 100_000)"
    takes = "taken = bytearray(60 * 2**30)\nfor i in range(0, len(taken), 4096):\n    taken[i] = 1"
    per_tensor = {"clip": _mistake("clip__per_tensor")}
    root = {"noisy_mean": _mistake("noisy_mean__root")}
    classical = {"calibrate": _mistake("calibrate__classical")}
    true = all_return("True")
    return [
        one("01-solution", 10, "full marks"),
        one("02-untouched", 0, "still to be written", solved=False),
        one("03-per-tensor", 8.5, "all tensors together", replace=per_tensor),
        one("04-root-of-the-cohort", 8.5, "standard deviation", replace=root),
        one("05-classical-formula", 8.5, "exact curve", replace=classical),
        one("06-loop-in-a-function", 7, "in time", replace={"noisy_mean": loop}),
        one("07-loop-at-load", 10, "left out", first="while True:\n    pass"),
        one("08-exception-at-load", 10, "ModuleNotFoundError", first="import not_there_at_all"),
        one("09-exit-at-load", 10, "SystemExit", first="import sys\nsys.exit(0)"),
        one("10-ends-the-process", 8, "ended", replace={"calibrate": leaves}),
        one("11-prints-300-mb", 10, "full marks", first=prints),
        one("12-takes-60-gb", 10, "MemoryError", first=takes),
        one("13-deleted-cell", 7, "there is no function noisy_mean", drop="noisy_mean"),
        one("My homework (final) é", 10, "full marks"),
        Case("15-broken-json", 0, "not a notebook", '{"cells": ['),
        one("16-reads-the-checks", 4, "clip raised RuntimeError", replace={"clip": READS}),
        one("17-replaces-the-checker", 0, "clip", replace=true, first=REPLACES),
        one("18-patches-torch", 0, "clip", replace=true, first=PATCHES),
        one("19-forges-answers", 0, "", replace=true, first=FORGES),
        one("20-forks", 10, "", first=FORKS),
    ]


def write(folder: Path) -> None:
    """Write them as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases():
        (folder / f"{case.name}.ipynb").write_text(case.text, encoding="utf-8")
